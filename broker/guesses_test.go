package broker

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/settmq/settmq/auth"
)

func tcp(address string) net.Addr {
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		panic(err)
	}
	return a
}

func TestPasswordsCannotBeTriedAtLeisure(t *testing.T) {
	u := newBroker(t).Users()
	now := time.Now()
	u.guesses.max, u.guesses.now = 3, func() time.Time { return now }
	for _, name := range []string{"anna", "bert"} {
		hash, err := auth.HashPassword("right")
		if err != nil {
			t.Fatal(err)
		}
		if err := u.Put(&auth.User{Name: name, PasswordHash: hash}); err != nil {
			t.Fatal(err)
		}
	}
	login := func(peer, user, password, want string) {
		t.Helper()
		_, err := u.Authenticate(user, password, tcp(peer))
		if got := fmt.Sprint(err); want == "" && err != nil || !strings.Contains(got, want) {
			t.Errorf("%s from %s with %s: %v", user, peer, password, err)
		}
	}
	const there, elsewhere = "192.0.2.1:1000", "192.0.2.2:1000"
	for range 2 {
		login(there, "anna", "wrong", "invalid credentials")
	}
	login(there, "anna", "right", "")
	for range 3 { // counted anew after a login
		login(there, "anna", "wrong", "invalid credentials")
	}
	login(there, "anna", "right", "too many failed logins")
	login(there, "bert", "right", "")
	login(elsewhere, "anna", "right", "")
	now = now.Add(guessPeriod)
	login(there, "anna", "right", "")
	for range 10 {
		login("127.0.0.1:1", "anna", "wrong", "invalid credentials")
		login("[::ffff:127.0.0.1]:1", "anna", "wrong", "invalid credentials")
	}
	login("127.0.0.1:1", "anna", "right", "")
	now = now.Add(guessPeriod)
	// Somebody with many addresses.
	for i := range 3 {
		login(fmt.Sprintf("[2001:db8::%d]:1", i+1), "anna", "wrong", "invalid credentials")
	}
	login("[2001:db8::99]:1", "anna", "right", "too many failed logins")
	login("[2001:db8:0:1::1]:1", "anna", "right", "")
	u.guesses.max = 0
	login("[2001:db8::99]:1", "anna", "right", "")
}

func TestWhatIsRememberedOfGuessersIsBounded(t *testing.T) {
	now := time.Now()
	g := guesses{max: 10, now: func() time.Time { return now }}
	for i := range maxGuessers + maxGuessers/2 {
		g.note(tcp("192.0.2.1:1"), fmt.Sprint(i), true)
		if len(g.guesser) > maxGuessers {
			t.Fatal(len(g.guesser))
		}
	}
	now = now.Add(guessPeriod)
	for i := range maxGuessers {
		g.note(tcp("192.0.2.2:1"), fmt.Sprint(i), true)
	}
	if g.guesser[guesser{tcp("192.0.2.2:1").(*net.TCPAddr).AddrPort().Addr().Unmap(), "0"}].failed == 0 {
		t.Error("those whose time is over were not forgotten first")
	}
}
