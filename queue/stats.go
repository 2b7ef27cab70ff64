package queue

import (
	"slices"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/queue/fifo"
	"github.com/settmq/settmq/storage"
)

// MessageStats are numbers of messages since the object was made that they belong to: a queue, a channel, a vhost.
// The names are RabbitMQ's. They only grow.
type MessageStats struct {
	Publish          uint64 // to a channel, or put in a queue
	Confirm          uint64
	ReturnUnroutable uint64 // that no queue was there for, mandatory ones
	DropUnroutable   uint64 // and others
	Deliver          uint64 // to consumers that acknowledge
	DeliverNoAck     uint64
	Get              uint64 // with basic.get, to be acknowledged
	GetNoAck         uint64
	GetEmpty         uint64 // basic.gets that found nothing
	Redeliver        uint64 // of all deliveries those that were not the first
	Ack              uint64 // not rejected
	DiskReads        uint64
	DiskWrites       uint64
}

// DeliverGet is the number of all deliveries.
func (s *MessageStats) DeliverGet() uint64 {
	return s.Deliver + s.DeliverNoAck + s.Get + s.GetNoAck
}

// Add adds o.
func (s *MessageStats) Add(o *MessageStats) {
	s.Publish += o.Publish
	s.Confirm += o.Confirm
	s.ReturnUnroutable += o.ReturnUnroutable
	s.DropUnroutable += o.DropUnroutable
	s.Deliver += o.Deliver
	s.DeliverNoAck += o.DeliverNoAck
	s.Get += o.Get
	s.GetNoAck += o.GetNoAck
	s.GetEmpty += o.GetEmpty
	s.Redeliver += o.Redeliver
	s.Ack += o.Ack
	s.DiskReads += o.DiskReads
	s.DiskWrites += o.DiskWrites
}

// Since returns what was counted since before, an earlier state of the same counters.
func (s *MessageStats) Since(before *MessageStats) MessageStats {
	return MessageStats{
		Publish: s.Publish - before.Publish, Confirm: s.Confirm - before.Confirm,
		ReturnUnroutable: s.ReturnUnroutable - before.ReturnUnroutable, DropUnroutable: s.DropUnroutable - before.DropUnroutable,
		Deliver: s.Deliver - before.Deliver, DeliverNoAck: s.DeliverNoAck - before.DeliverNoAck,
		Get: s.Get - before.Get, GetNoAck: s.GetNoAck - before.GetNoAck, GetEmpty: s.GetEmpty - before.GetEmpty,
		Redeliver: s.Redeliver - before.Redeliver, Ack: s.Ack - before.Ack,
		DiskReads: s.DiskReads - before.DiskReads, DiskWrites: s.DiskWrites - before.DiskWrites,
	}
}

// Delivered counts a delivery, to a consumer or, if got, by basic.get.
func (s *MessageStats) Delivered(d *Delivery, got bool) {
	switch {
	case got && d.NoAck:
		s.GetNoAck++
	case got:
		s.Get++
	case d.NoAck:
		s.DeliverNoAck++
	default:
		s.Deliver++
	}
	if d.Redelivered {
		s.Redeliver++
	}
}

// Strategy is what becomes of the dead letters of a queue.
type Strategy uint8

// The strategies, by RabbitMQ's names.
const (
	DeadDisabled Strategy = iota // they are dropped
	DeadAtMostOnce
	DeadAtLeastOnce
)

// String returns RabbitMQ's name.
func (s Strategy) String() string {
	return [...]string{"disabled", "at_most_once", "at_least_once"}[s]
}

// Reasons are those for a dead letter, in the order of [DeadStats].
var Reasons = [...]Reason{Rejected, Expired, MaxLen, DeliveryLimit}

// DeadStats counts messages that left a queue unconsumed, whether or not there was somewhere to send them.
type DeadStats struct {
	Died      [len(Reasons)][3]uint64 // by reason and strategy
	Confirmed uint64                  // of those sent at least once: safe in their new queues
}

// Add adds o.
func (s *DeadStats) Add(o *DeadStats) {
	for i := range s.Died {
		for j := range s.Died[i] {
			s.Died[i][j] += o.Died[i][j]
		}
	}
	s.Confirmed += o.Confirmed
}

func (s *DeadStats) died(reason Reason, set *Settings) {
	how := DeadDisabled
	switch {
	case set.DeadLetterAtLeastOnce:
		how = DeadAtLeastOnce
	case set.DeadLetterExchange.Set:
		how = DeadAtMostOnce
	}
	s.Died[slices.Index(Reasons[:], reason)][how]++
}

// Details are a snapshot of a queue, for those who watch it.
type Details struct {
	Ready, Unacked, Consumers int
	Delayed                   int // returned, and held back for a while
	Leaving                   int // dead letters that are not safe elsewhere yet
	// Bytes are those of the bodies. What is delayed or leaving counts among the unacked ones.
	ReadyBytes, UnackedBytes, LoadedBytes uint64
	Loaded                                uint64 // what the messages in memory take, about: bodies and all that belongs to them
	ReadyLoaded, UnackedLoaded            int    // in memory
	Stored                                int    // on disk or on the way there
	MessageStats                          MessageStats
	Dead                                  DeadStats
	// Next is the seq of the next message, Head that of the first ready one, HandedOut the bound below which all were
	// handed out, FirstUnacked the first of those that were not settled; Head and FirstUnacked are Next without one.
	// Streams have none.
	Next, Head, HandedOut, FirstUnacked uint64
	// CanTake says that a message published now would go to a consumer at once.
	CanTake bool
	Failed  bool // its stored messages cannot be read
	// Segments and FirstTimestamp are a stream's: its files, and when its first message was written, in ms.
	Segments       int
	FirstTimestamp int64
}

// Messages is the number of all messages.
func (d *Details) Messages() int { return d.Ready + d.Unacked + d.Delayed + d.Leaving }

// Persistent tells how many messages are stored, and their body bytes: where others are among them, in proportion.
func (d *Details) Persistent() (n int, bytes uint64) {
	all := d.Messages()
	if n = min(d.Stored, all); n == 0 {
		return 0, 0
	}
	bytes = d.ReadyBytes + d.UnackedBytes
	if n < all {
		bytes = uint64(float64(bytes) * float64(n) / float64(all))
	}
	return n, bytes
}

// Sizes of what a queue keeps in memory for a message, beside its body.
const (
	queueSize   = 2 << 10
	itemSize    = 40
	messageSize = 256
)

// Memory is about what the queue takes, in bytes.
func (d *Details) Memory() uint64 { return queueSize + d.Loaded + uint64(d.Unacked)*itemSize }

// memoryLocked is about what the messages in memory, so many of them, take, in bytes.
func (q *Queue) memoryLocked(messages int) uint64 {
	return q.m.LoadedBytes() + uint64(messages)*q.aroundLocked()
}

// aroundLocked is what a message in memory takes beside its body.
func (q *Queue) aroundLocked() uint64 { return itemSize + messageSize + uint64(q.usual) }

// weighLocked takes a message that comes into memory into the average.
func (q *Queue) weighLocked(m *storage.Message) {
	q.usual += (int64(len(m.Properties)) - q.usual + 8) >> 4
}

// Details returns the counters of this moment, in d.
func (q *Queue) Details(d *Details) {
	*d = Details{}
	q.mu.Lock()
	defer q.mu.Unlock()
	d.Ready, d.Unacked, d.Consumers, d.Delayed, d.Leaving = q.m.Ready(), q.m.Unacked(), len(q.consumers), q.m.Held(), q.m.Leaving()
	d.ReadyBytes, d.UnackedBytes, d.LoadedBytes = q.m.ReadyBytes(), q.m.UnackedBytes(), q.m.LoadedBytes()
	d.ReadyLoaded, d.UnackedLoaded = q.m.InMemory()
	d.Loaded = q.memoryLocked(d.ReadyLoaded + d.UnackedLoaded)
	if q.Store != nil {
		d.Stored = q.Store.Live()
	}
	d.MessageStats, d.Dead = q.stats, q.deadStats
	d.Next, d.HandedOut = q.m.NextSeq(), q.m.HandedOut()
	d.Head, d.FirstUnacked = d.Next, d.Next
	if seq, _, ok := q.m.Head(); ok {
		d.Head = seq
	}
	if seq, ok := q.m.FirstUnacked(); ok {
		d.FirstUnacked = seq
	}
	d.CanTake, d.Failed = q.m.CanTake(), q.fault != nil
}

// HeadTimestamp is the timestamp of the message to be delivered next, in seconds; false if it has none, or is not in
// memory.
func (q *Queue) HeadTimestamp() (uint64, bool) {
	var m *storage.Message
	q.mu.Lock()
	q.m.Peek(1, func(d *fifo.Delivery[*storage.Message]) { m = d.Payload })
	q.mu.Unlock()
	var p amqp.Properties
	if m == nil || !amqp.HasProperty(m.Properties, amqp.PropTimestamp) || amqp.ParseProperties(m.Properties, &p) != nil {
		return 0, false
	}
	return p.Timestamp, true
}
