package main

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/rs/zerolog"
)

func TestProfilesAreServed(t *testing.T) {
	l, err := servePprof("127.0.0.1:0", zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for path, want := range map[string]string{
		"goroutine?debug=1": "servePprof", // this test's own
		"mutex?debug=1":     "sampling period=100\n",
		"block?debug=1":     "cycles/second=",
	} {
		r, err := http.Get("http://" + l.Addr().String() + "/debug/pprof/" + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		_ = r.Body.Close()
		if err != nil || r.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("%s: %s %v\n%.300s", path, r.Status, err, body)
		}
	}
	if _, err := servePprof(l.Addr().String(), zerolog.Nop()); err == nil {
		t.Error("an address is taken twice")
	}
}
