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

// Deduplication by windows, with the names of the community's plugin rabbitmq_message_deduplication: what is published to
// an exchange of type x-message-deduplication goes nowhere from there if its key went through within the exchange's window,
// nor does it go to a queue with a window, see [queueWindow]. A queue without one knows what is in it, see [queue.KeyOf].
//
// A route is found as if nothing were a duplicate, and may be remembered. Whether something is one shows when it is
// published, one message of a vhost at a time: of two equal messages one goes through, and the other is confirmed when that
// one is safe. What a queue refuses leaves no key, so that it can be sent again.

// window is one on the way of a message.
type window struct {
	*queue.Window
	queue Queue // that it is before; nil: it is an exchange's
}

// windows are those of a broker, to be swept.
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

// newWindow makes a window, with what the store of this id recovered; 0: it does not last.
func (v *VHost) newWindow(storeID uint64, l queue.WindowLimits) *queue.Window {
	var s *storage.Queue
	if storeID != 0 {
		s = v.broker.store.Queue(storeID)
	}
	w := queue.NewWindow(s, v.broker.timers.Now, l)
	v.broker.windows.add(w)
	return w
}

// windowLimits are what arguments and, before them, the policy say.
func windowLimits(args amqp.Table, policy map[string]any) queue.WindowLimits {
	l := queue.WindowLimits{
		Size:        exchange.CacheNumber(args, "x-cache-size"),
		TTL:         exchange.CacheNumber(args, "x-cache-ttl"),
		ByMessageID: byMessageID(args, policy),
	}
	if n, ok := policy["x-cache-size"].(int64); ok {
		l.Size = n
	}
	if n, ok := policy["x-cache-ttl"].(int64); ok {
		l.TTL = n
	}
	return l
}

// queueWindow knows what a queue had for longer than the messages are in it.
type queueWindow struct {
	*queue.Window
	storeID uint64 // 0: it does not last
}

// queueWindowLimits has a Size of 0 if the queue has no window.
func queueWindowLimits(args amqp.Table, policy map[string]any) queue.WindowLimits {
	if !(merge{args, policy}).deduplicate() {
		return queue.WindowLimits{}
	}
	return windowLimits(args, policy)
}

// newQueueWindowLocked makes the window of a queue, nil if it has none. The caller stores the queue's record.
func (v *VHost) newQueueWindowLocked(d QueueDeclare) *queueWindow {
	t := typeOf(d.Arguments)
	l := queueWindowLimits(d.Arguments, v.policies.forQueue(d.Name, t).values())
	if l.Size == 0 || t == StreamQueue {
		return nil
	}
	var w queueWindow
	if d.Durable && exchange.CachePersists(d.Arguments) {
		w.storeID = v.broker.newStore()
	}
	w.Window = v.newWindow(w.storeID, l)
	return &w
}

// setWindowLocked brings the window of a queue in line with the queue's policy. One that it had stays, and knows nothing
// while it is not wanted.
func (v *VHost) setWindowLocked(q Queue) {
	about := q.About()
	if w := v.windowOf[q]; w != nil {
		w.SetLimits(queueWindowLimits(about.Arguments, v.policyOf[q].values()))
		return
	}
	d := QueueDeclare{Name: about.Name, Durable: about.Durable, AutoDelete: about.AutoDelete, Arguments: about.Arguments}
	w := v.newQueueWindowLocked(d)
	if w == nil {
		return
	}
	v.windowOf[q] = w
	v.changedLocked()
	if q.Lasts() {
		var c storage.Change
		v.putQueue(about.ID, d, w, &c)
		v.applyLocked(c)
	}
}

// byMessageID reports whether messages without the header are known by their message-id.
func byMessageID(args amqp.Table, policy map[string]any) bool {
	v, _ := args.Get(exchange.DeduplicationProperty)
	p, _ := policy[exchange.DeduplicationProperty].(string)
	return cmp.Or(p, v.Text()) == exchange.MessageID
}

// passage is one publish through windows.
type passage struct {
	message  *storage.Message
	through  []window    // that will remember the message
	keys     []queue.Key // by which they do
	known    []window    // that know it already
	refused  []Queue     // that did not take it
	keep     bool        // windows that last store its key
	wait     bool        // it is confirmed when the one that is known is safe
	wherever []Queue     // where that one is, if a window that knows it does not last
}

// diedIn reports whether a dead letter was in the queue of that name before.
func diedIn(properties []byte, name string) bool {
	v, _ := amqp.LookupHeader(amqp.HeadersOf(properties), "x-death")
	return slices.ContainsFunc(v.Array(), func(d amqp.Value) bool {
		q, _ := d.Table().Get("queue")
		return q.Text() == name
	})
}

// knows is asked for every window that the message comes to.
func (p *passage) knows(w window) bool {
	k, ok := w.Key(p.message.Properties)
	if w.queue != nil && p.message.Died && diedIn(p.message.Properties, w.queue.About().Name) {
		return false // it comes back, as in a loop of retries
	}
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

// publishOnce is Publish for a route through windows.
func (rt *Route) publishOnce(m *storage.Message, w *queue.Wakes) (accepted bool) {
	v := rt.vhost
	v.once.Lock()
	defer v.once.Unlock()
	p := passage{message: m}
	for _, win := range rt.windows {
		p.knows(win)
	}
	now := rt
	if known := p.known; len(known) > 0 {
		// It is not as it was planned: what lies behind a window that knows the message is out, the alternate
		// exchange of an exchange is in.
		r := v.ownRouters.Get().(*Router)
		defer v.ownRouters.Put(r)
		now = r.routeOnce(rt, m, &p)
		if p.wait = rt.Stores(m) && m.Confirm != nil; p.wait && slices.ContainsFunc(p.known, window.Forgetful) {
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
	*p = passage{message: m}
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.exchanges[rt.Exchange] != rt.from {
		return &Route{}
	}
	r.walk.knows, r.walk.without = p.knows, rt.without
	defer func() { r.walk.knows, r.walk.without = nil, nil }()
	return r.evaluateLocked(rt.from, m.RoutingKey, rt.ExtraKeys, &props)
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
	return slices.IndexFunc(p.through, window.Lasts)
}

// settle has the windows remember the message, or has it wait for the one that they know.
func (p *passage) settle(m *storage.Message, accepted bool) {
	for i, win := range p.through {
		store := p.keep && win.Lasts()
		taken := accepted
		if win.queue != nil {
			taken = !slices.Contains(p.refused, win.queue)
		}
		switch {
		case taken:
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
