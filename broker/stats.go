package broker

import (
	"slices"
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
	sizes    [len(SizeBounds) + 1]atomic.Uint64 // messages, by the size of their bodies
	bytes    atomic.Uint64                      // of all bodies
	out      atomic.Uint64                      // copies put in queues
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

// SizeBounds are the bounds of [MessageSizes]: the largest body of each bucket, in bytes, as in RabbitMQ.
var SizeBounds = [...]int{100, 1e3, 1e4, 1e5, 1e6, 1e7, 5e7, 1e8}

// MessageSizes count messages by the size of their bodies. The last number is of those beyond all bounds.
type MessageSizes struct {
	Counts [len(SizeBounds) + 1]uint64
	Bytes  uint64 // of all bodies
}

func (s *MessageSizes) add(o *MessageSizes) {
	for i := range s.Counts {
		s.Counts[i] += o.Counts[i]
	}
	s.Bytes += o.Bytes
}

// Count counts a publish on its way, with a body of so many bytes.
func (rt *Route) Count(mandatory bool, size int) {
	c := rt.counts
	bucket := 0
	for bucket < len(SizeBounds) && size > SizeBounds[bucket] {
		bucket++
	}
	c.sizes[bucket].Add(1)
	c.bytes.Add(uint64(size))
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

// published is the number of messages.
func (c *PublishStats) published() (n uint64) {
	for i := range c.sizes {
		n += c.sizes[i].Load()
	}
	return n
}

// load returns the counts. Confirms are not known by exchange: see [Router.collect].
func (c *PublishStats) load() ExchangeStats {
	return ExchangeStats{In: c.published(), Out: c.out.Load(), Confirm: c.told.Confirm, Returned: c.returned.Load(), Dropped: c.dropped.Load()}
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
		first := r.counts[0]
		stats := first.load()
		r.gone.add(&stats)
		if r.confirming {
			r.goneAwaited += stats.In - first.before
		}
		r.goneSizes.add(first.loadSizes())
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
	r.confirming = true
	for _, c := range r.counts {
		c.before = c.published()
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

func (c *PublishStats) loadSizes() *MessageSizes {
	s := &MessageSizes{Bytes: c.bytes.Load()}
	for i := range c.sizes {
		s.Counts[i] = c.sizes[i].Load()
	}
	return s
}

// published are numbers of publishes that only the broker as a whole tells.
type published struct {
	routed  uint64 // copies put in queues
	awaited uint64 // messages that have to be confirmed
	sizes   MessageSizes
}

// newsLocked returns what came since the last call, of what was told to the exchanges.
func (r *Router) newsLocked() (news published) {
	now := published{routed: r.gone.Out, awaited: r.goneAwaited, sizes: r.goneSizes}
	for _, c := range r.counts {
		now.routed += c.told.Out
		if r.confirming {
			now.awaited += c.told.In - c.before
		}
		now.sizes.add(c.loadSizes())
	}
	news = now
	news.routed -= r.told.routed
	news.awaited -= r.told.awaited
	news.sizes.Bytes -= r.told.sizes.Bytes
	for i := range news.sizes.Counts {
		news.sizes.Counts[i] -= r.told.sizes.Counts[i]
	}
	r.told = now
	return news
}

// Count adds what a channel counted to the numbers of the vhost and of the broker.
func (v *VHost) Count(r *Router, s *queue.MessageStats) {
	r.mu.Lock()
	r.collectLocked(s.Confirm)
	news := r.newsLocked()
	r.mu.Unlock()
	v.stats.add(s)
	v.broker.stats.add(s)
	t := &v.broker.totals
	t.mu.Lock()
	defer t.mu.Unlock()
	t.routed += news.routed
	t.awaited += news.awaited
	t.sizes.add(&news.sizes)
}

// countOwn counts a publish that came through no channel.
func (v *VHost) countOwn(rt *Route, size int) {
	one := ExchangeStats{In: 1, Out: uint64(len(rt.Queues))}
	if rt.Unroutable() {
		one.Dropped = 1
	}
	rt.counts.exchange.stats.add(&one)
	s := queue.MessageStats{Publish: 1, DropUnroutable: one.Dropped}
	v.stats.add(&s)
	v.broker.stats.add(&s)
	bucket := 0
	for bucket < len(SizeBounds) && size > SizeBounds[bucket] {
		bucket++
	}
	t := &v.broker.totals
	t.mu.Lock()
	defer t.mu.Unlock()
	t.routed += one.Out
	t.sizes.Counts[bucket]++
	t.sizes.Bytes += uint64(size)
}

// messageTotals are numbers of messages of channels that are open and closed.
type messageTotals struct {
	mu sync.Mutex // a leaf
	queue.MessageStats
}

func (t *messageTotals) add(s *queue.MessageStats) {
	t.mu.Lock()
	t.MessageStats.Add(s)
	t.mu.Unlock()
}

func (t *messageTotals) read() queue.MessageStats {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.MessageStats
}

// publishTotals are those of all publishes.
type publishTotals struct {
	mu sync.Mutex // a leaf
	published
}

// MessageStats returns the vhost's numbers as of the last [Broker.Collect]. Disk reads and writes are not among them.
func (v *VHost) MessageStats() queue.MessageStats {
	return v.stats.read()
}

// Collect brings the numbers of vhosts and exchanges up to date.
func (b *Broker) Collect() {
	for _, c := range b.Connections() {
		for _, ch := range c.Channels() {
			ch.Collect()
		}
	}
}

// Totals are the numbers of the broker as of the last [Broker.Collect], those of what is gone included.
type Totals struct {
	// MessageStats is what channels did. Awaited publishes are those on channels in confirm mode; routed ones are copies,
	// one for each queue.
	queue.MessageStats
	Awaited, Routed uint64
	Sizes           MessageSizes
}

// Totals returns the numbers of the broker.
func (b *Broker) Totals() Totals {
	s := Totals{MessageStats: b.stats.read()}
	t := &b.totals
	t.mu.Lock()
	defer t.mu.Unlock()
	s.Awaited, s.Routed, s.Sizes = t.awaited, t.routed, t.sizes
	return s
}

// QueueTotals are the numbers of all queues of a type, those that are gone included.
type QueueTotals struct {
	Type         QueueType
	MessageStats queue.MessageStats
	Dead         queue.DeadStats
}

func (t *QueueTotals) add(s *queue.MessageStats, d *queue.DeadStats) {
	t.MessageStats.Add(s)
	t.Dead.Add(d)
}

// QueueTotals returns the numbers of each type of queue.
func (b *Broker) QueueTotals() []QueueTotals {
	b.mu.RLock()
	defer b.mu.RUnlock()
	list := slices.Clone(b.past[:])
	var d queue.Details
	for _, v := range b.vhosts {
		v.mu.RLock()
		for i := range v.past {
			list[i].add(&v.past[i].MessageStats, &v.past[i].Dead)
		}
		for _, q := range v.queues {
			q.Details(&d)
			list[TypeOf(q)].add(&d.MessageStats, &d.Dead)
		}
		v.mu.RUnlock()
	}
	for i := range list {
		list[i].Type = QueueType(i)
	}
	return list
}

// removedLocked keeps the numbers of a queue that is going.
func (v *VHost) removedLocked(q Queue) {
	var d queue.Details
	q.Details(&d)
	v.past[TypeOf(q)].add(&d.MessageStats, &d.Dead)
}

// vhostGoneLocked keeps the numbers of the queues of a vhost that is going, with all locks held.
func (b *Broker) vhostGoneLocked(v *VHost) {
	for i := range v.past {
		b.past[i].add(&v.past[i].MessageStats, &v.past[i].Dead)
	}
}
