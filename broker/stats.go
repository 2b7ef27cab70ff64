package broker

import (
	"sync"
	"sync/atomic"

	"github.com/settmq/settmq/queue"
)

// What is counted, and by whom. On the way of a message only such counters are touched as whoever is there owns
// already: a queue's under its lock, a channel's under its own, those of what a channel publishes by its reader.
// Collect gathers them from time to time, and whenever somebody asks, into those of vhosts and exchanges, which
// outlive channels.

// PublishStats counts what one channel published to one exchange. It is written by the channel's reader only.
type PublishStats struct {
	exchange *Exchange
	in, out  atomic.Uint64 // messages, and the copies of them put in queues
	returned atomic.Uint64
	dropped  atomic.Uint64

	told   ExchangeStats // guarded by Router.mu
	before uint64        // published before the channel was in confirm mode; guarded by Router.mu
}

// ExchangeStats are numbers of messages that were published to an exchange.
type ExchangeStats struct {
	In, Out           uint64 // messages, and the copies of them put in queues
	Confirm           uint64
	Returned, Dropped uint64 // unroutable ones
}

func (s *ExchangeStats) add(o *ExchangeStats) {
	s.In += o.In
	s.Out += o.Out
	s.Confirm += o.Confirm
	s.Returned += o.Returned
	s.Dropped += o.Dropped
}

func (s *ExchangeStats) since(o *ExchangeStats) ExchangeStats {
	return ExchangeStats{
		In: s.In - o.In, Out: s.Out - o.Out, Confirm: s.Confirm - o.Confirm, Returned: s.Returned - o.Returned, Dropped: s.Dropped - o.Dropped,
	}
}

// Count counts a publish on its way.
func (rt *Route) Count(mandatory bool) {
	c := rt.counts
	c.in.Add(1)
	switch n := len(rt.Queues); {
	case n > 0:
		c.out.Add(uint64(n))
	case rt.address:
	case mandatory:
		c.returned.Add(1)
	default:
		c.dropped.Add(1)
	}
}

// load returns the counts. Confirms are not known by exchange: see [Router.collect].
func (c *PublishStats) load() ExchangeStats {
	return ExchangeStats{In: c.in.Load(), Out: c.out.Load(), Confirm: c.told.Confirm, Returned: c.returned.Load(), Dropped: c.dropped.Load()}
}

// maxPublishStats bounds the exchanges that a channel has counters for; then those of the oldest are let go.
const maxPublishStats = 64

// countsFor returns the channel's counters for an exchange.
func (r *Router) countsFor(x *Exchange) *PublishStats {
	for _, c := range r.counts { // only the reader changes the list
		if c.exchange == x {
			return c
		}
	}
	c := &PublishStats{exchange: x}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.counts) >= maxPublishStats {
		r.collectLocked(0)
		first := r.counts[0].load()
		r.gone.add(&first)
		r.counts = append(r.counts[:0:0], r.counts[1:]...)
		clear(r.cache) // its routes have the old counters
	}
	r.counts = append(r.counts, c)
	return c
}

// Confirming notes that what is published from now on is confirmed.
func (r *Router) Confirming() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.counts {
		c.before = c.in.Load()
	}
}

// AddTo adds what was published through the router.
func (r *Router) AddTo(s *queue.MessageStats) {
	r.mu.Lock()
	defer r.mu.Unlock()
	sum := r.gone
	for _, c := range r.counts {
		one := c.load()
		sum.add(&one)
	}
	s.Publish += sum.In
	s.ReturnUnroutable += sum.Returned
	s.DropUnroutable += sum.Dropped
}

// Published calls f for every exchange that was published to, as far as there are counters for it.
func (r *Router) Published(f func(x *Exchange, s ExchangeStats)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.counts {
		f(c.exchange, c.load())
	}
}

// collectLocked tells the exchanges what was counted since the last time, with the confirms that the channel got since.
// These are shared out in the order of the exchanges, each at most what it was published: with all publishes confirmed
// every one is where it belongs.
func (r *Router) collectLocked(confirmed uint64) {
	confirmed += r.confirmed
	for _, c := range r.counts {
		now := c.load()
		n := min(confirmed, now.In-c.before-now.Confirm)
		confirmed -= n
		now.Confirm += n
		if news := now.since(&c.told); news != (ExchangeStats{}) {
			c.exchange.stats.add(&news)
		}
		c.told = now
	}
	r.confirmed = confirmed
}

// exchangeTotals are an exchange's counters.
type exchangeTotals struct {
	mu sync.Mutex // a leaf
	ExchangeStats
}

func (t *exchangeTotals) add(o *ExchangeStats) {
	t.mu.Lock()
	t.ExchangeStats.add(o)
	t.mu.Unlock()
}

// Stats returns what was published to the exchange, as of the last [Broker.Collect].
func (x *Exchange) Stats() ExchangeStats {
	x.stats.mu.Lock()
	defer x.stats.mu.Unlock()
	return x.stats.ExchangeStats
}

// Count adds what a channel counted to the vhost's numbers.
func (v *VHost) Count(r *Router, s *queue.MessageStats) {
	r.mu.Lock()
	r.collectLocked(s.Confirm)
	out := r.outLocked()
	r.mu.Unlock()
	v.stats.mu.Lock()
	v.stats.MessageStats.Add(s)
	v.stats.routed += out
	v.stats.mu.Unlock()
}

// countOwn counts a publish that came through no channel.
func (v *VHost) countOwn(rt *Route) {
	one := ExchangeStats{In: 1, Out: uint64(len(rt.Queues))}
	if rt.Unroutable() {
		one.Dropped = 1
	}
	rt.counts.exchange.stats.add(&one)
	v.stats.mu.Lock()
	defer v.stats.mu.Unlock()
	v.stats.Publish++
	v.stats.DropUnroutable += one.Dropped
	v.stats.routed += one.Out
}

// outLocked returns how many copies went to queues since the last call.
func (r *Router) outLocked() (news uint64) {
	all := r.gone.Out
	for _, c := range r.counts {
		all += c.told.Out
	}
	news, r.toldOut = all-r.toldOut, all
	return news
}

// vhostStats are the numbers of a vhost, of channels that are open and closed.
type vhostStats struct {
	mu sync.Mutex // a leaf
	queue.MessageStats
	routed uint64 // copies put in queues
}

// MessageStats returns the vhost's numbers as of the last [Broker.Collect]. Disk reads and writes are not among them.
func (v *VHost) MessageStats() queue.MessageStats {
	v.stats.mu.Lock()
	defer v.stats.mu.Unlock()
	return v.stats.MessageStats
}

// Collect brings the numbers of vhosts and exchanges up to date.
func (b *Broker) Collect() {
	for _, c := range b.Connections() {
		for _, ch := range c.Channels() {
			ch.Collect()
		}
	}
}

// QueueTotals are the numbers of all queues of a type, those that are gone included.
type QueueTotals struct {
	Type         QueueType
	MessageStats queue.MessageStats
	Dead         queue.DeadStats
}

// removedLocked keeps the numbers of a queue that is going.
func (v *VHost) removedLocked(q Queue) {
	var d queue.Details
	q.Details(&d)
	t := &v.past[TypeOf(q)]
	t.MessageStats.Add(&d.MessageStats)
	t.Dead.Add(&d.Dead)
}
