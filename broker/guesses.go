package broker

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/settmq/settmq/auth"
)

const (
	// guessPeriod is the time that failed logins are counted in.
	guessPeriod = time.Minute
	// maxGuessers bounds what is remembered, about 100 bytes each.
	maxGuessers = 50_000
	// subnet of an IPv6 address that counts as one: who has one address has its /64.
	subnet = 64
)

// guesses counts logins that failed, so that passwords cannot be tried at leisure: by address and user, for others at
// the same address, behind the same router, shall not suffer. Addresses of this machine are not counted.
type guesses struct {
	max int // in a period; 0: no limit
	now func() time.Time

	mu      sync.Mutex
	guesser map[guesser]guessed
}

type guesser struct {
	from netip.Addr
	user string
}

type guessed struct {
	failed int
	until  time.Time
}

// from says who guesses; false for those who are not counted.
func (g *guesses) from(peer net.Addr, user string) (guesser, bool) {
	a, ok := auth.PeerAddr(peer)
	if g.max == 0 || !ok || a.IsLoopback() || len(user) > auth.MaxName {
		return guesser{}, false
	}
	if a.Is6() {
		p, _ := a.WithZone("").Prefix(subnet) // of an IPv6 address it always can be made
		a = p.Addr()
	}
	return guesser{a, user}, true
}

// tooMany reports whether another password must not be looked at.
func (g *guesses) tooMany(peer net.Addr, user string) bool {
	who, ok := g.from(peer, user)
	if !ok {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.guesser[who]
	return n.failed >= g.max && g.now().Before(n.until)
}

// note counts an attempt that failed, or forgets those before one that did not.
func (g *guesses) note(peer net.Addr, user string, failed bool) {
	who, ok := g.from(peer, user)
	if !ok {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !failed {
		delete(g.guesser, who)
		return
	}
	now := g.now()
	n := g.guesser[who]
	if !now.Before(n.until) {
		n = guessed{until: now.Add(guessPeriod)}
	}
	n.failed++
	if g.guesser == nil {
		g.guesser = make(map[guesser]guessed)
	}
	if len(g.guesser) >= maxGuessers {
		g.makeRoom(now)
	}
	g.guesser[who] = n
}

// makeRoom forgets who is over, and some if that is nobody.
func (g *guesses) makeRoom(now time.Time) {
	for who, n := range g.guesser {
		if !now.Before(n.until) {
			delete(g.guesser, who)
		}
	}
	for who := range g.guesser {
		if len(g.guesser) < maxGuessers*9/10 {
			return
		}
		delete(g.guesser, who)
	}
}
