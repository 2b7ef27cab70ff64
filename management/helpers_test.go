package management

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"github.com/settmq/settmq/broker"
	"github.com/settmq/settmq/storage"
)

// api is an HTTP API with the administrator guest: ours, or a RabbitMQ's at MANAGEMENT_URL (http://127.0.0.1:15672).
type api struct {
	t      testing.TB
	url    string
	broker *broker.Broker // nil for a RabbitMQ
	server *Server
	log    logs
}

// logs are what was logged.
type logs struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// newAPI is the API that is asked for.
func newAPI(t testing.TB) *api {
	t.Helper()
	if u := os.Getenv("MANAGEMENT_URL"); u != "" {
		return &api{t: t, url: strings.TrimSuffix(u, "/")}
	}
	return newOwnAPI(t)
}

// newOwnAPI is the API of a broker of its own.
func newOwnAPI(t testing.TB) *api {
	t.Helper()
	b, err := broker.Open(broker.Options{
		Storage: storage.Options{Dir: t.TempDir(), JournalSegment: 1 << 20, JournalMax: 4 << 20, Small: true, MinFree: 1, Log: zerolog.Nop()},
		Log:     zerolog.Nop(), Node: "settmq@test", LoopbackUsers: []string{"guest"},
		First: broker.FirstRun{VHost: "/", User: "guest", Password: "guest", Tags: []string{"administrator"}, Configure: ".*", Write: ".*", Read: ".*"},
	})
	if err != nil {
		t.Fatal(err)
	}
	a := &api{t: t, broker: b}
	a.server = New(b, Options{Log: zerolog.New(&a.log), Product: "RabbitMQ", Version: "3.13.7", SoftwareVersion: "test"})
	web := httptest.NewServer(a.server)
	a.url = web.URL
	a.server.Listening(Listener{Protocol: "http", Addr: web.Listener.Addr()})
	t.Cleanup(func() {
		web.Close()
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

// node is the name of the broker.
func (a *api) node() string {
	a.t.Helper()
	return a.get("/api/overview").(map[string]any)["node"].(string)
}

// user adds a user whose password is the name, with all permissions in vhosts. It is gone with the test.
func (a *api) user(name, tags string, vhosts ...string) {
	a.t.Helper()
	path := "/api/users/" + url.PathEscape(name)
	a.put(path, fmt.Sprintf(`{"password":%q,"tags":%q}`, name, tags))
	a.t.Cleanup(func() { a.as("guest", "DELETE", path, "") })
	for _, v := range vhosts {
		a.put("/api/permissions/"+url.PathEscape(v)+"/"+url.PathEscape(name), `{"configure":".*","write":".*","read":".*"}`)
	}
}

// vhost adds a vhost, which is gone with the test.
func (a *api) vhost(name string) {
	a.t.Helper()
	path := "/api/vhosts/" + url.PathEscape(name)
	a.put(path, "")
	a.t.Cleanup(func() { a.as("guest", "DELETE", path, "") })
}

func (a *api) put(path, body string) {
	a.t.Helper()
	if status, answer := a.as("guest", "PUT", path, body); status != http.StatusCreated && status != http.StatusNoContent {
		a.t.Fatalf("PUT %s: %d %s", path, status, answer)
	}
}

// request is a request of a user, or of nobody for "".
func (a *api) request(user, method, path, body string) *http.Request {
	a.t.Helper()
	r, err := http.NewRequest(method, a.url+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	if user != "" {
		r.SetBasicAuth(user, user)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}

func (a *api) send(r *http.Request) (*http.Response, string) {
	a.t.Helper()
	w, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		a.t.Fatal(err)
	}
	defer w.Body.Close()
	b, err := io.ReadAll(w.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return w, string(b)
}

// as makes a request and returns the status and the body.
func (a *api) as(user, method, path, body string) (status int, answer string) {
	a.t.Helper()
	w, answer := a.send(a.request(user, method, path, body))
	return w.StatusCode, answer
}

// do is as guest, and wants a status.
func (a *api) do(method, path, body string, want int) string {
	a.t.Helper()
	status, answer := a.as("guest", method, path, body)
	if status != want {
		a.t.Errorf("%s %s: %d, want %d: %s", method, path, status, want, answer)
	}
	return answer
}

// get decodes what guest gets.
func (a *api) get(path string) any {
	a.t.Helper()
	var v any
	answer := a.do("GET", path, "", http.StatusOK)
	if err := json.Unmarshal([]byte(answer), &v); err != nil {
		a.t.Fatalf("%s: %v in %s", path, err, answer)
	}
	return v
}
