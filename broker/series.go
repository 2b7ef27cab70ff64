package broker

import (
	"sync"
	"time"

	"github.com/settmq/settmq/queue"
)

const (
	// StatsPeriod is how often samples are taken for rates: RabbitMQ's collect_statistics_interval.
	StatsPeriod = 5 * time.Second
	// historyLength is how many samples a history has: RabbitMQ's shortest one, ten minutes.
	historyLength = 121
	// historyKept is how long a history goes on that nobody asks for.
	historyKept = 10 * time.Minute
	// utilisationWeight is that of the last second in a queue's utilisation.
	utilisationWeight = 0.2
)

// Series is what samples tell of an object: the last one and the one before, and the older ones if somebody asked.
// The zero value is that of an object of which there is no sample yet.
type Series[T comparable] struct {
	Before, Last         T
	BeforeTime, LastTime time.Time
	// Changed is when a sample was different from the one before, for the last time.
	Changed time.Time
	// History are samples as far back as there are any, the newest first.
	History []Point[T]

	utilisation float64
	ring        []Point[T]
	asked       time.Time // for the history
	round       uint64
}

// Point is a sample and its time.
type Point[T comparable] struct {
	At    time.Time
	Value T
}

// Rate is the growth of a number per second between the last two samples; never negative.
func (s *Series[T]) Rate(of func(*T) uint64) float64 {
	a, b := of(&s.Before), of(&s.Last)
	if s.BeforeTime.IsZero() || b <= a {
		return 0
	}
	return float64(b-a) / s.LastTime.Sub(s.BeforeTime).Seconds()
}

// Change is Rate for a number that may fall.
func (s *Series[T]) Change(of func(*T) int64) float64 {
	if s.BeforeTime.IsZero() {
		return 0
	}
	return float64(of(&s.Last)-of(&s.Before)) / s.LastTime.Sub(s.BeforeTime).Seconds()
}

// Utilisation is the part of the time, lately, in which a queue could have delivered at once.
func (s *Series[T]) Utilisation() float64 { return s.utilisation }

func (s *Series[T]) add(now time.Time, value T) {
	if s.LastTime.IsZero() || value != s.Last {
		s.Changed = now
	}
	s.Before, s.BeforeTime = s.Last, s.LastTime
	s.Last, s.LastTime = value, now
	switch {
	case now.Sub(s.asked) > historyKept:
		s.ring = nil
	case len(s.ring) < historyLength:
		s.ring = append(s.ring, Point[T]{now, value})
	default:
		copy(s.ring, s.ring[1:])
		s.ring[len(s.ring)-1] = Point[T]{now, value}
	}
}

// table are the series of the objects of a kind.
type table[K comparable, T comparable] struct {
	mu sync.Mutex // a leaf
	m  map[K]*Series[T]
}

// each takes a sample of every object that list brings, and forgets those that it does not bring.
func (t *table[K, T]) each(now time.Time, round uint64, list func(note func(K, T))) {
	list(func(k K, value T) {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.m == nil {
			t.m = make(map[K]*Series[T])
		}
		s := t.m[k]
		if s == nil {
			s = new(Series[T])
			t.m[k] = s
		}
		s.round = round
		s.add(now, value)
	})
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, s := range t.m {
		if s.round != round {
			delete(t.m, k)
		}
	}
}

// get returns the series of an object. With history the samples from now on are kept for a while.
func (t *table[K, T]) get(k K, history bool) Series[T] {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.m[k]
	if s == nil {
		return Series[T]{}
	}
	c := *s
	c.ring = nil
	if history {
		s.asked = time.Now()
		if len(s.ring) == 0 {
			s.ring = append(s.ring, Point[T]{s.LastTime, s.Last})
		}
		for i := len(s.ring) - 1; i >= 0; i-- {
			c.History = append(c.History, s.ring[i])
		}
	}
	return c
}

// QueueSample is what rates of a queue are made of.
type QueueSample struct {
	queue.MessageStats
	Ready, Unacked, Messages int
}

// TrafficSample is what rates of a connection are made of.
type TrafficSample struct{ ReceivedBytes, SentBytes uint64 }

// VHostSample is what rates of a vhost are made of. Disk reads and writes are those of queues that are there.
type VHostSample struct {
	queue.MessageStats
	Ready, Unacked, Messages int
	TrafficSample
}

// NodeSample is what rates of the broker as a whole are made of.
type NodeSample struct {
	VHostSample
	Churn                Churn
	MemoryUsed, DiskFree uint64 // bytes
}

// watch keeps the series of everything.
type watch struct {
	taking      sync.Mutex // before all locks but the vhosts'
	round       uint64     // guarded by taking
	queues      table[Queue, QueueSample]
	ages        map[Queue]*ages // guarded by taking
	exchanges   table[*Exchange, ExchangeStats]
	channels    table[Channel, queue.MessageStats]
	connections table[Connection, TrafficSample]
	vhosts      table[*VHost, VHostSample]
	node        table[*Broker, NodeSample]
}

// TakeSample takes the samples that rates are made of. The sampler calls it every [StatsPeriod].
func (b *Broker) TakeSample() {
	w, now := &b.watch, time.Now()
	w.taking.Lock()
	defer w.taking.Unlock()
	w.round++
	b.Collect()
	vhosts := b.VHosts()
	by := make(map[string]*VHostSample, len(vhosts))
	for _, v := range vhosts {
		by[v.name] = &VHostSample{MessageStats: v.MessageStats()}
	}
	w.queues.each(now, w.round, func(note func(Queue, QueueSample)) {
		var d queue.Details
		for _, v := range vhosts {
			sum := by[v.name]
			for _, q := range v.Queues() {
				q.Details(&d)
				s := QueueSample{d.MessageStats, d.Ready, d.Unacked, d.Messages()}
				note(q, s)
				w.noteAges(q, &d, now)
				sum.Ready += s.Ready
				sum.Unacked += s.Unacked
				sum.Messages += s.Messages
				sum.DiskReads += s.DiskReads
				sum.DiskWrites += s.DiskWrites
			}
		}
	})
	w.forgetAges()
	w.exchanges.each(now, w.round, func(note func(*Exchange, ExchangeStats)) {
		for _, v := range vhosts {
			for _, x := range v.Exchanges() {
				note(x, x.Stats())
			}
		}
	})
	connections := b.Connections()
	w.connections.each(now, w.round, func(note func(Connection, TrafficSample)) {
		for _, c := range connections {
			i := c.Info()
			s := TrafficSample{i.ReceivedBytes, i.SentBytes}
			note(c, s)
			if sum := by[c.About().VHost]; sum != nil {
				sum.ReceivedBytes += s.ReceivedBytes
				sum.SentBytes += s.SentBytes
			}
		}
	})
	w.channels.each(now, w.round, func(note func(Channel, queue.MessageStats)) {
		for _, c := range connections {
			for _, ch := range c.Channels() {
				note(ch, ch.Stats())
			}
		}
	})
	res := b.Resources()
	all := NodeSample{Churn: b.Churn(), MemoryUsed: res.MemoryUsed, DiskFree: res.DiskFree}
	w.vhosts.each(now, w.round, func(note func(*VHost, VHostSample)) {
		for _, v := range vhosts {
			s := by[v.name]
			note(v, *s)
			all.Add(s)
		}
	})
	w.node.each(now, w.round, func(note func(*Broker, NodeSample)) { note(b, all) })
}

// Add adds o.
func (s *VHostSample) Add(o *VHostSample) {
	s.MessageStats.Add(&o.MessageStats)
	s.Ready += o.Ready
	s.Unacked += o.Unacked
	s.Messages += o.Messages
	s.ReceivedBytes += o.ReceivedBytes
	s.SentBytes += o.SentBytes
}

// sampleUtilisation looks which queues with consumers could deliver now.
func (b *Broker) sampleUtilisation() {
	t := &b.watch.queues
	for _, v := range b.VHosts() {
		for _, q := range v.Queues() {
			i := q.Info()
			t.mu.Lock()
			if s := t.m[q]; s != nil {
				now := 0.0
				switch {
				case i.Consumers == 0:
					s.utilisation = 0
				case i.CanTake:
					now = 1
					fallthrough
				default:
					s.utilisation += (now - s.utilisation) * utilisationWeight
				}
			}
			t.mu.Unlock()
		}
	}
}

// QueueUtilisation is [Series.Utilisation] of a queue.
func (b *Broker) QueueUtilisation(q Queue) float64 {
	t := &b.watch.queues
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.m[q]; s != nil {
		return s.utilisation
	}
	return 0
}

// QueueSeries returns the samples of a queue. With history, the samples from now on are kept as long as somebody asks
// for them; so it is for the others.
func (b *Broker) QueueSeries(q Queue, history bool) Series[QueueSample] {
	return b.watch.queues.get(q, history)
}

// ExchangeSeries returns the samples of an exchange.
func (b *Broker) ExchangeSeries(x *Exchange, history bool) Series[ExchangeStats] {
	return b.watch.exchanges.get(x, history)
}

// ChannelSeries returns the samples of a channel.
func (b *Broker) ChannelSeries(ch Channel, history bool) Series[queue.MessageStats] {
	return b.watch.channels.get(ch, history)
}

// ConnectionSeries returns the samples of a connection.
func (b *Broker) ConnectionSeries(c Connection, history bool) Series[TrafficSample] {
	return b.watch.connections.get(c, history)
}

// VHostSeries returns the samples of a vhost.
func (b *Broker) VHostSeries(v *VHost, history bool) Series[VHostSample] {
	return b.watch.vhosts.get(v, history)
}

// NodeSeries returns the samples of the broker as a whole.
func (b *Broker) NodeSeries(history bool) Series[NodeSample] { return b.watch.node.get(b, history) }
