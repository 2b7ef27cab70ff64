package broker

import (
	"cmp"
	"maps"
	"slices"
	"sync"
)

// LoginCount counts the attempts to log in by a protocol.
type LoginCount struct {
	Protocol          string // RabbitMQ's name, such as amqp091 and http
	Succeeded, Failed uint64
}

// logins counts attempts to log in.
type logins struct {
	mu         sync.Mutex
	byProtocol map[string]*LoginCount
}

// CountLogin counts an attempt to log in by the named protocol.
func (u *Users) CountLogin(protocol string, ok bool) {
	u.logins.mu.Lock()
	defer u.logins.mu.Unlock()
	c := u.logins.byProtocol[protocol]
	if c == nil {
		if u.logins.byProtocol == nil {
			u.logins.byProtocol = make(map[string]*LoginCount)
		}
		c = &LoginCount{Protocol: protocol}
		u.logins.byProtocol[protocol] = c
	}
	if ok {
		c.Succeeded++
	} else {
		c.Failed++
	}
}

// Logins returns the attempts so far, by protocol.
func (u *Users) Logins() []LoginCount {
	u.logins.mu.Lock()
	defer u.logins.mu.Unlock()
	var list []LoginCount
	for c := range maps.Values(u.logins.byProtocol) {
		list = append(list, *c)
	}
	slices.SortFunc(list, func(a, b LoginCount) int { return cmp.Compare(a.Protocol, b.Protocol) })
	return list
}

// ForgetLogins counts from 0 again.
func (u *Users) ForgetLogins() {
	u.logins.mu.Lock()
	defer u.logins.mu.Unlock()
	clear(u.logins.byProtocol)
}
