package management

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/rs/zerolog"
)

// fill puts something into the parameters of a pattern.
func fill(pattern, vhost string) string {
	return parameter.ReplaceAllStringFunc(pattern, func(p string) string {
		switch p {
		case "{vhost}":
			return vhost
		case "{kind}":
			return "q"
		}
		return "x"
	})
}

func TestWrongMethodsAreRefusedOnEveryRoute(t *testing.T) {
	a := newOwnAPI(t)
	for pattern, rows := range byPattern(routes) {
		allowed := methods(rows)
		for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "POST", "OPTIONS", "PATCH", "TRACE", "NONSENSE"} {
			if slices.Contains(allowed, method) && method != "OPTIONS" {
				continue
			}
			r := a.request("", method, fill(pattern, "%2F"), "")
			w, answer := a.send(r)
			want := http.StatusMethodNotAllowed
			if method == "OPTIONS" {
				want = http.StatusOK
			}
			named := method == "NONSENSE" || w.Header.Get("Allow") == strings.Join(allowed, ", ")
			if w.StatusCode != want || answer != "" || !named {
				t.Errorf("%s %s: %d %q, allow %q", method, pattern, w.StatusCode, answer, w.Header.Get("Allow"))
			}
		}
	}
}

// Whatever the body is, a route answers with a refusal, or does what it does without one, and the API lives on.
func TestNoBodyBreaksARoute(t *testing.T) {
	a := newOwnAPI(t)
	bodies := []string{
		"", "null", "{}", "[]", `"x"`, "1", "{", "\x00\xff\xfe", `{"a":` + strings.Repeat("[", 50_000) + strings.Repeat("]", 50_000) + "}",
		strings.Repeat(`{"a":`, 50_000), `{"arguments":` + strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100) + "}",
		`{"arguments":{"x":1e400}}`, `{"arguments":{"` + strings.Repeat("n", 300) + `":1}}`, `{"arguments":"x","durable":1,"tags":1,"type":[]}`,
		`{"tags":[1],"password":{},"users":{},"value":null,"name":{},"pattern":1,"definition":[],"configure":1,"write":{},"read":[]}`,
		`{"properties":{"headers":1},"routing_key":1,"payload":1,"payload_encoding":1,"count":"x","ackmode":1,"encoding":1}`,
		`{"properties":{"timestamp":-1},"routing_key":"` + strings.Repeat("k", 300) + `","payload":"","payload_encoding":"string"}`,
		`{"value":` + strings.Repeat("9", 400) + `,"count":99999999999999999999}`,
	}
	for _, r := range routes {
		if r.method != "PUT" && r.method != "POST" {
			continue
		}
		for _, body := range bodies {
			status, answer := a.as("guest", r.method, fill(r.pattern, "%2F"), body)
			if status >= http.StatusInternalServerError {
				t.Errorf("%s %s with %.60q: %d %s", r.method, r.pattern, body, status, answer)
			}
			if answer != "" && !json.Valid([]byte(answer)) {
				t.Errorf("%s %s with %.60q: %s is no JSON", r.method, r.pattern, body, answer)
			}
		}
	}
	a.do("GET", "/api/whoami", "", http.StatusOK)
}

func TestLargeBodiesAreNotRead(t *testing.T) {
	a := newOwnAPI(t)
	large := `{"a":"` + strings.Repeat("x", maxBody) + `"}`
	for _, r := range routes {
		switch {
		case r.method != "PUT" && r.method != "POST", strings.HasSuffix(r.pattern, "/publish"), strings.Contains(r.pattern, "definitions"), strings.Contains(r.pattern, "all-configuration"):
			continue
		}
		status, answer := a.as("guest", r.method, fill(r.pattern, "%2F"), large)
		if status == http.StatusBadRequest && !strings.Contains(answer, "body size limit") && !strings.Contains(answer, "not_found") &&
			!strings.Contains(answer, "Unknown node") && !strings.Contains(answer, "unsupported") {
			t.Errorf("%s %s: %d %s", r.method, r.pattern, status, answer)
		}
	}
	a.do("PUT", "/api/queues/%2F/q", large, http.StatusBadRequest)
	a.do("POST", "/api/exchanges/%2F/amq.default/publish", `{"properties":{},"routing_key":"q","payload_encoding":"string","payload":"`+strings.Repeat("x", 30<<20)+`"}`, http.StatusBadRequest)
	if answer := a.do("POST", "/api/definitions", `{"queues":[`+strings.Repeat(" ", 21<<20)+`]}`, http.StatusBadRequest); !strings.Contains(answer, "body size limit") {
		t.Errorf("large definitions: %s", answer)
	}
}

// What has no password is not read, however large it says it is.
func TestStrangersAreNotRead(t *testing.T) {
	a := newOwnAPI(t)
	nc, err := net.Dial("tcp", strings.TrimPrefix(a.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(30 * time.Second))
	fmt.Fprintf(nc, "POST /api/definitions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
	w, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil || w.StatusCode != http.StatusUnauthorized {
		t.Errorf("%v %v", w, err)
	}
}

func TestPathTricksLeadNowhere(t *testing.T) {
	a := newOwnAPI(t)
	a.put("/api/vhosts/a%2Fb", "")
	a.put("/api/queues/a%2Fb/q%2Fr%25%20%3F", `{"durable":true}`)
	q := a.get("/api/queues/a%2Fb/q%2Fr%25%20%3F").(map[string]any)
	if q["name"] != "q/r% ?" || q["vhost"] != "a/b" {
		t.Errorf("the queue is %v in %v", q["name"], q["vhost"])
	}
	for _, path := range []string{
		"/api/../api/whoami", "/api/./whoami", "/api/whoami/..", "/api//whoami", "//api/whoami", "/api/vhosts/%2F/../../users", "/api/vhosts/a/b",
		"/api/queues/%2E%2E/x", "/api/queues/%00/x", "/api/queues/%252F", "/api/users/guest%00", "/API/whoami", "/api/whoami%2F", "/api%2Fwhoami",
		"/health/../api/users", "/health/live/../../api/users", "/api/vhosts/%ff%fe", "/api/queues/" + strings.Repeat("x", 4000) + "/y", "/", "/api", "/..%2f..%2fetc/passwd",
	} {
		status, answer := a.as("guest", "GET", path, "")
		if status != http.StatusNotFound {
			t.Errorf("%s: %d %s", path, status, answer)
		}
		// And nobody gets further without a password.
		if status, answer := a.as("", "GET", path, ""); status != http.StatusNotFound && status != http.StatusUnauthorized {
			t.Errorf("%s without a password: %d %s", path, status, answer)
		}
	}
}

func TestOtherSitesAreRefused(t *testing.T) {
	a := newOwnAPI(t)
	for _, c := range []struct {
		method, key, value string
		refused            bool
	}{
		{"PUT", "Sec-Fetch-Site", "cross-site", true},
		{"PUT", "Sec-Fetch-Site", "same-site", true},
		{"PUT", "Sec-Fetch-Site", "same-origin", false},
		{"PUT", "Sec-Fetch-Site", "none", false},
		{"PUT", "Origin", "http://evil.example", true},
		{"PUT", "Origin", "null", true},
		{"PUT", "Origin", a.url, false},
		{"PUT", "User-Agent", "curl", false},
		{"GET", "Origin", "http://evil.example", false}, // it cannot read the answer
	} {
		r := a.request("guest", c.method, "/api/queues/%2F/q", `{"durable":true}`)
		r.Header.Set(c.key, c.value)
		w, answer := a.send(r)
		if refused := w.StatusCode == http.StatusForbidden; refused != c.refused {
			t.Errorf("%s with %s: %s: %d %s", c.method, c.key, c.value, w.StatusCode, answer)
		}
		if w.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Error("others may read the answer")
		}
	}
}

func TestCredentialsAreNeverLogged(t *testing.T) {
	a := newOwnAPI(t)
	const secret = "s3cr3t-of-mine"
	a.put("/api/users/u", `{"password":"`+secret+`","tags":""}`)
	for _, path := range []string{"/api/whoami", "/api/auth/hash_password/" + secret, "/api/users/u?x=" + secret} {
		r := a.request("", "GET", path, "")
		r.SetBasicAuth("u", secret)
		a.send(r)
		r.SetBasicAuth("u", secret+"!")
		a.send(r)
		r.SetBasicAuth("guest", "guest")
		a.send(r)
	}
	a.do("PUT", "/api/users/u", `{"password":"`+secret+`","password_hash":"`+secret+`"}`, http.StatusBadRequest)
	log := a.log.String()
	if strings.Contains(log, secret) {
		t.Errorf("the log has the password:\n%s", log)
	}
	if !strings.Contains(log, `"user":"u"`) {
		t.Errorf("a refused login is not in the log:\n%s", log)
	}
}

// A handler that panics costs its own request only, and says nothing of it to the client.
func TestPanicIsAnsweredAndLogged(t *testing.T) {
	a := newOwnAPI(t)
	h := chi.NewRouter()
	h.Handle("/x", a.server.resource([]route{{"GET", "/x", anybody, func(*request) (any, error) { panic("boom") }, false}}))
	web := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer a.server.recover(w, r)
		h.ServeHTTP(w, r)
	})
	w := &recorder{header: http.Header{}}
	web.ServeHTTP(w, a.request("", "GET", "/x", ""))
	if w.status != http.StatusInternalServerError || strings.Contains(w.body.String(), "boom") || !strings.Contains(a.log.String(), "boom") {
		t.Errorf("%d %s; log %s", w.status, w.body.String(), a.log.String())
	}
}

type recorder struct {
	header http.Header
	status int
	body   strings.Builder
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }

func TestSocketIsItsOwnersAlone(t *testing.T) {
	a := newOwnAPI(t)
	path := filepath.Join(t.TempDir(), "s")
	for range 2 { // a socket that was left behind is replaced
		l, err := ListenLocal(path)
		if err != nil {
			t.Fatal(err)
		}
		if i, err := os.Stat(path); err != nil || i.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", i.Mode(), err)
		}
		served := make(chan error, 1)
		server := New(a.broker, Options{Log: zerolog.Nop(), Version: "1"})
		go func() { served <- server.ServeLocal(l) }()
		client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		}}}
		w, err := client.Get("http://local/api/users")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(w.Body)
		if err != nil || w.StatusCode != http.StatusOK || !strings.Contains(string(b), "guest") {
			t.Errorf("%d %s %v", w.StatusCode, b, err)
		}
		client.CloseIdleConnections()
		server.Shutdown(t.Context())
		if err := <-served; err != nil {
			t.Error(err)
		}
	}
	if _, err := ListenLocal(filepath.Join(t.TempDir(), strings.Repeat("x", 200))); err == nil {
		t.Error("a path that no socket can have was taken")
	}
}

// More connections than there are places wait; a place that is given back is used.
func TestConnectionsAreBounded(t *testing.T) {
	a := newOwnAPI(t)
	server := New(a.broker, Options{Log: zerolog.Nop(), Version: "1", MaxConnections: 2})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	var held []net.Conn
	ask := func() net.Conn {
		nc, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(nc, "GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
		return nc
	}
	answered := func(nc net.Conn) bool {
		_ = nc.SetReadDeadline(time.Now().Add(30 * time.Second))
		w, err := http.ReadResponse(bufio.NewReader(nc), nil)
		return err == nil && w.StatusCode == http.StatusOK
	}
	for range 2 {
		held = append(held, ask())
		if !answered(held[len(held)-1]) {
			t.Fatal("no answer")
		}
	}
	waiting := ask()
	if len(server.places) != 2 {
		t.Errorf("%d connections have a place", len(server.places))
	}
	_ = held[0].Close()
	if !answered(waiting) {
		t.Error("the place that was given back was not used")
	}
	_ = held[1].Close()
	_ = waiting.Close()
	server.Shutdown(t.Context())
	if err := <-served; err != nil {
		t.Error(err)
	}
}
