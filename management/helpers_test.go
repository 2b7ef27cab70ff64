package management

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/settmq/settmq/auth"
	"github.com/settmq/settmq/broker"
	"github.com/settmq/settmq/storage"
)

// testAPI is the API of a broker of its own, with the user guest.
type testAPI struct {
	t      testing.TB
	broker *broker.Broker
	server *Server
	log    strings.Builder
}

func newTestAPI(t testing.TB) *testAPI {
	t.Helper()
	b, err := broker.Open(broker.Options{
		Storage: storage.Options{Dir: t.TempDir(), JournalSegment: 1 << 20, JournalMax: 4 << 20, Log: zerolog.Nop()},
		Log:     zerolog.Nop(), Node: "settmq@test", LoopbackUsers: []string{"guest"},
		First: broker.FirstRun{VHost: "/", User: "guest", Password: "guest", Tags: []string{"administrator"}, Configure: ".*", Write: ".*", Read: ".*"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	a := &testAPI{t: t, broker: b}
	a.server = New(b, Options{Log: zerolog.New(&a.log), Product: "RabbitMQ", Version: "3.13.7", SoftwareVersion: "test"})
	return a
}

// user adds a user whose password is the name, with all permissions in vhosts.
func (a *testAPI) user(name string, tags []string, vhosts ...string) {
	a.t.Helper()
	hash, err := auth.HashPassword(name)
	if err == nil {
		err = a.broker.Users().Put(&auth.User{Name: name, PasswordHash: hash, Tags: tags})
	}
	if err != nil {
		a.t.Fatal(err)
	}
	all, err := auth.CompilePermissions(".*", ".*", ".*")
	if err != nil {
		a.t.Fatal(err)
	}
	for _, v := range vhosts {
		if err := a.broker.Users().Grant(name, v, all); err != nil {
			a.t.Fatal(err)
		}
	}
}

// as makes a request of a user, or of nobody for "", and returns the status and the body.
func (a *testAPI) as(user, method, path, body string) (status int, answer string) {
	a.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.RemoteAddr = "127.0.0.1:40000"
	if user != "" {
		r.SetBasicAuth(user, user)
	}
	w := a.send(r)
	return w.StatusCode, read(a.t, w)
}

func (a *testAPI) send(r *http.Request) *http.Response {
	w := httptest.NewRecorder()
	a.server.ServeHTTP(w, r)
	return w.Result()
}

func read(t testing.TB, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// do is as guest, and wants a status.
func (a *testAPI) do(method, path, body string, want int) string {
	a.t.Helper()
	status, answer := a.as("guest", method, path, body)
	if status != want {
		a.t.Errorf("%s %s: %d, want %d: %s", method, path, status, want, answer)
	}
	return answer
}

// get decodes what guest gets.
func (a *testAPI) get(path string) any {
	a.t.Helper()
	var v any
	answer := a.do("GET", path, "", http.StatusOK)
	if err := json.Unmarshal([]byte(answer), &v); err != nil {
		a.t.Fatalf("%s: %v in %s", path, err, answer)
	}
	return v
}
