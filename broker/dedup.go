package broker

import (
	"cmp"
	"slices"
	"sync"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/exchange"
	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/storage"
)

// Deduplication by exchanges, with the names of the community's plugin rabbitmq_message_deduplication: what is published to
// an exchange of type x-message-deduplication goes nowhere from there if its key went through within the exchange's window.
//
// A route is found as if nothing were a duplicate, and may be remembered. Whether something is one shows when it is
// published, one message of a vhost at a time: of two equal messages one goes through, and the other is confirmed when that
// one is safe. What a queue refuses leaves no key, so that it can be sent again.

// windows are those of a broker's exchanges, to be swept.
type windows struct {
	mu  sync.Mutex // a leaf
	all map[*queue.Window]struct{}
}

func (s *windows) add(w *queue.Window) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = make(map[*queue.Window]struct{})
	}
	s.all[w] = struct{}{}
}

func (s *windows) remove(w *queue.Window) {
	s.mu.Lock()
	delete(s.all, w)
	s.mu.Unlock()
}

// sweep forgets what is too old in windows that nothing is published to.
func (s *windows) sweep() {
	s.mu.Lock()
	list := make([]*queue.Window, 0, len(s.all))
	for w := range s.all {
		list = append(list, w)
	}
	s.mu.Unlock()
	for _, w := range list {
		w.Sweep()
	}
}

// newWindow makes the window of an exchange, with what its store recovered.
func (v *VHost) newWindow(x *Exchange) *queue.Window {
	var s *storage.Queue
	if x.storeID != 0 {
		s = v.broker.store.Queue(x.storeID)
	}
	w := queue.NewWindow(s, v.broker.timers.Now, x.windowLimits())
	v.broker.windows.add(w)
	return w
}

// windowLimits are what the exchange's arguments and, before them, its policy say.
func (x *Exchange) windowLimits() queue.WindowLimits {
	l := queue.WindowLimits{
		Size:        exchange.CacheNumber(x.Arguments, "x-cache-size"),
		TTL:         exchange.CacheNumber(x.Arguments, "x-cache-ttl"),
		ByMessageID: byMessageID(x.Arguments, x.policy.values()),
	}
	if n, ok := x.policy.values()["x-cache-size"].(int64); ok {
		l.Size = n
	}
	if n, ok := x.policy.values()["x-cache-ttl"].(int64); ok {
		l.TTL = n
	}
	return l
}

// byMessageID reports whether messages without the header are known by their message-id.
func byMessageID(args amqp.Table, policy map[string]any) bool {
	v, _ := args.Get(exchange.DeduplicationProperty)
	p, _ := policy[exchange.DeduplicationProperty].(string)
	return cmp.Or(p, v.Text()) == exchange.MessageID
}

// passage is one publish through exchanges that deduplicate.
type passage struct {
	properties []byte
	through    []*queue.Window // that will remember the message
	keys       []queue.Key     // by which they do
	known      []*queue.Window // that know it already
	keep       bool            // windows that last store its key
	wait       bool            // it is confirmed when the one that is known is safe
	wherever   []Queue         // where that one is, if a window that knows it does not last
}

// knows is asked for every window that the message comes to.
func (p *passage) knows(w *queue.Window) bool {
	k, ok := w.Key(p.properties)
	switch {
	case ok && w.Knows(k):
		p.known = append(p.known, w)
		return true
	case ok:
		p.through = append(p.through, w)
		p.keys = append(p.keys, k)
	}
	return false
}

// publishOnce is Publish for a route through exchanges that deduplicate.
func (rt *Route) publishOnce(m *storage.Message, w *queue.Wakes) (accepted bool) {
	v := rt.vhost
	v.once.Lock()
	defer v.once.Unlock()
	p := passage{properties: m.Properties}
	for _, win := range rt.windows {
		p.knows(win)
	}
	now := rt
	if known := p.known; len(known) > 0 {
		// It is not as it was planned: what lies behind a window that knows the message is out, its alternate
		// exchange is in.
		r := v.ownRouters.Get().(*Router)
		defer v.ownRouters.Put(r)
		now = r.routeOnce(rt, m, &p)
		if p.wait = rt.Stores(m) && m.Confirm != nil; p.wait && slices.ContainsFunc(p.known, (*queue.Window).Forgetful) {
			p.wherever = rt.Queues
		}
	}
	targets := now.targets(m)
	p.keep = targets > 0 || !m.Transient
	return now.put(m, targets+p.targets(), rt.Stores(m), &p, w)
}

// routeOnce finds the way of a message that a window on rt knows.
func (r *Router) routeOnce(rt *Route, m *storage.Message, p *passage) *Route {
	v := r.vhost
	var props amqp.Properties
	_ = amqp.ParseProperties(m.Properties, &props) // checked when it was published
	*p = passage{properties: m.Properties}
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.exchanges[rt.Exchange] != rt.from {
		return &Route{}
	}
	r.walk.knows = p.knows
	now := r.evaluateLocked(rt.from, m.RoutingKey, rt.ExtraKeys, &props)
	r.walk.knows = nil
	if rt.without != nil {
		now.Queues = slices.DeleteFunc(now.Queues, rt.without)
		now.countStores()
	}
	return now
}

// targets is how many targets settle needs.
func (p *passage) targets() (n int32) {
	for _, win := range p.through {
		if p.keep && win.Lasts() {
			n++
		}
	}
	if p.wait {
		for _, win := range p.known {
			if win.Lasts() {
				n++
			}
		}
		n += int32(len(p.wherever))
	}
	return n
}

// begin is called before the message goes to its queues: it is held until its keys are stored, so that one batch has
// them all.
func (p *passage) begin(m *storage.Message) {
	m.Followed = true
	if p.storing() >= 0 {
		m.Hold()
	}
}

// storing is the place of a window that stores the message's key; -1: none does.
func (p *passage) storing() int {
	if !p.keep {
		return -1
	}
	return slices.IndexFunc(p.through, (*queue.Window).Lasts)
}

// settle has the windows remember the message, or has it wait for the one that they know.
func (p *passage) settle(m *storage.Message, accepted bool) {
	for i, win := range p.through {
		store := p.keep && win.Lasts()
		switch {
		case accepted:
			win.Remember(p.keys[i], m, store)
		case store:
			m.Done()
		}
	}
	if i := p.storing(); i >= 0 {
		p.through[i].Release(m)
	}
	if !p.wait {
		return
	}
	for _, win := range p.known {
		if win.Lasts() {
			win.Await(m)
		}
	}
	for _, q := range p.wherever {
		q.Await(m)
	}
}
