package api

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPathsEscapeTheirParts(t *testing.T) {
	for want, parts := range map[string][]string{
		"queues/%2F/a%20b":             {"queues", "/", "a b"},
		"queues/v/%2E%2E":              {"queues", "v", ".."},
		"users/%3Fx=1&y%23%25":         {"users", "?x=1&y#%"},
		"bindings/v/e/%2E/q/%C3%BC%00": {"bindings", "v", "e", ".", "q", "ü\x00"},
	} {
		if got := Path(parts...); got != want {
			t.Errorf("%q: got %s, want %s", parts, got, want)
		}
	}
}

func TestPathsArriveAsTheyWereMeant(t *testing.T) {
	var got string
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.URL.EscapedPath() }))
	defer s.Close()
	c, err := New(Target{URL: s.URL + "/prefix/"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Do(t.Context(), http.MethodDelete, Path("queues", "/", ".."), nil, nil); err != nil || got != "/prefix/api/queues/%2F/%2E%2E" {
		t.Errorf("%s, %v", got, err)
	}
}

func TestAnswersThatSayNo(t *testing.T) {
	body, status := "", 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	defer s.Close()
	c, err := New(Target{URL: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, tc := range []struct {
		status     int
		body, want string
	}{
		{404, `{"error":"Object Not Found","reason":"Not Found"}`, "Not Found"},
		{400, `{"error":"bad_request","reason":["a",1]}`, `["a",1]`},
		{503, `<html>`, "Service Unavailable (503)"},
		{302, ``, "Found (302)"},
	} {
		status, body = tc.status, tc.body
		err := c.Get(t.Context(), "x?y=z", nil)
		var no *Error
		if !errors.As(err, &no) || no.Status != tc.status || no.Error() != tc.want || no.Path != "/api/x" || !Is(err, tc.status) {
			t.Errorf("%d: %v", tc.status, err)
		}
	}
	status, body = 200, "<html>"
	var v any
	if err := c.Get(t.Context(), "x", &v); err == nil || !strings.Contains(err.Error(), "not the answer of a management API") {
		t.Error(err)
	}
	status, body = 200, `{"n":9007199254740993}`
	if err := c.Get(t.Context(), "x", &v); err != nil || v.(map[string]any)["n"] != json.Number("9007199254740993") {
		t.Errorf("%v %v", v, err)
	}
}

// A redirect must not take the password to another place.
func TestRedirectsAreNotFollowed(t *testing.T) {
	var passwords int
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { passwords++ }))
	defer other.Close()
	s := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusFound))
	defer s.Close()
	c, err := New(Target{URL: s.URL, User: "u", Password: "p"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Get(t.Context(), "x", nil); !Is(err, http.StatusFound) || passwords != 0 {
		t.Errorf("%v, followed %d times", err, passwords)
	}
}

func TestCertificatesAreVerified(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("[]")) }))
	defer s.Close()
	s.Config.ErrorLog = nil
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		ca string
		ok bool
	}{{"", false}, {file, true}} {
		c, err := New(Target{URL: s.URL, CAFile: tc.ca})
		if err != nil {
			t.Fatal(err)
		}
		err = c.Get(t.Context(), "x", nil)
		var unreachable *UnreachableError
		if tc.ok != (err == nil) || !tc.ok && !errors.As(err, &unreachable) {
			t.Errorf("authority %q: %v", tc.ca, err)
		}
		c.Close()
	}
}

func TestTargetsThatCannotBe(t *testing.T) {
	for _, target := range []Target{
		{}, {URL: "ftp://x"}, {URL: "http://"}, {URL: "http://u:p@x"}, {URL: "http://%zz"}, {URL: "http://x", CAFile: "no-such-file"},
	} {
		if _, err := New(target); err == nil || strings.Contains(err.Error(), "u:p") {
			t.Errorf("%+v: %v", target, err)
		}
	}
}
