package auth

import (
	"net"
	"strings"
	"testing"
)

func TestPlainTakesExactlyUserAndPassword(t *testing.T) {
	for _, tc := range []struct {
		response, user, password string
		ok                       bool
	}{
		{"\x00guest\x00guest", "guest", "guest", true},
		{"\x00guest\x00", "guest", "", true},
		{"\x00\x00", "", "", true},
		{"\x00ü\x00p ass", "ü", "p ass", true},
		{"", "", "", false},
		{"\x00", "", "", false},
		{"\x00guest", "", "", false},
		{"guest\x00guest", "", "", false},
		{"admin\x00guest\x00guest", "", "", false},
		{"\x00guest\x00guest\x00", "", "", false},
		{"\x00guest\x00gu\x00est", "", "", false},
		{"\x00\x00\x00", "", "", false},
	} {
		user, password, ok := ParsePlain([]byte(tc.response))
		if user != tc.user || password != tc.password || ok != tc.ok {
			t.Errorf("%q: %q %q %t, want %q %q %t", tc.response, user, password, ok, tc.user, tc.password, tc.ok)
		}
	}
}

func FuzzParsePlain(f *testing.F) {
	f.Add([]byte("\x00guest\x00guest"))
	f.Add([]byte("a\x00b\x00c"))
	f.Fuzz(func(t *testing.T, response []byte) {
		user, password, ok := ParsePlain(response)
		if ok != (strings.Count(string(response), "\x00") == 2 && response[0] == 0) {
			t.Fatalf("%q: ok = %t", response, ok)
		}
		if ok && "\x00"+user+"\x00"+password != string(response) {
			t.Fatalf("%q: %q %q", response, user, password)
		}
	})
}

func TestLoopbackIsThePeersAddress(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1":        true,
		"127.8.9.10":       true,
		"::1":              true,
		"::ffff:127.0.0.1": true,
		"::ffff:10.0.0.1":  false,
		"10.0.0.1":         false,
		"0.0.0.0":          false,
		"::":               false,
		"2001:db8::1":      false,
		"::127.0.0.1":      false, // deprecated form, not the loopback
	} {
		ip := net.ParseIP(addr)
		if got := IsLoopback(&net.TCPAddr{IP: ip, Port: 1}); got != want {
			t.Errorf("TCPAddr %s: %t, want %t", addr, got, want)
		}
		if got := IsLoopback(textAddr(net.JoinHostPort(addr, "1"))); got != want {
			t.Errorf("text %s: %t, want %t", addr, got, want)
		}
	}
	// As the kernel reports an IPv4 peer on a dual-stack socket.
	if !IsLoopback(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1).To16(), Port: 1}) {
		t.Error("16-byte form of 127.0.0.1 is not loopback")
	}
	var none *net.TCPAddr
	for _, a := range []net.Addr{nil, none, &net.TCPAddr{}, &net.UnixAddr{Name: "127.0.0.1:1", Net: "unix"}, textAddr("localhost:1"), textAddr("")} {
		if IsLoopback(a) {
			t.Errorf("%#v is loopback", a)
		}
	}
}

type textAddr string

func (textAddr) Network() string  { return "tcp" }
func (a textAddr) String() string { return string(a) }
