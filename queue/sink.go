package queue

import (
	"time"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/queue/fifo"
	"github.com/settmq/settmq/storage"
)

// KeptBody is the size in bytes from which a sink may keep a delivered body as it is. Of smaller ones, and of
// everything else in a delivery to [Sink.Deliver], it takes a copy: they may be gone when that returns.
const KeptBody = 16 << 10

// Delivery is a message handed to a consumer, or fetched with basic.get.
type Delivery struct {
	Seq         uint64 // position in the queue; what Ack and Requeue take
	Message     *storage.Message
	Redelivered bool
	Deliveries  uint16 // failed deliveries before this one
	Acquired    uint16 // how often it was handed out before
	NoAck       bool   // gone from the queue already, nothing to settle
	// Lasting says that the body is never used again for something else, so that a sink may
	// keep one smaller than KeptBody too.
	Lasting bool
}

// Sink takes a consumer's deliveries: a channel of a connection. Both methods are called
// with the queue's lock held and must not block or call back into a queue.
type Sink interface {
	// Admit reports whether a delivery of size body bytes may go to c now: its connection
	// has room and its channel a token. After a refusal the consumer gets nothing until
	// [Queue.Unpark]; the sink sees to that call.
	Admit(c *Consumer, size uint32) bool
	// Deliver takes a delivery that was just admitted and adds the connection's writer to w.
	Deliver(c *Consumer, d *Delivery, w *Wakes)
	// Cancelled tells the sink that the queue dropped the consumer, after the queue was
	// deleted. It is called without the queue's lock.
	Cancelled(c *Consumer)
	// TimedOut tells the sink that c held a delivery for longer than limit milliseconds and is no
	// consumer any more. It returns what c holds, which the queue requeues; a later settlement of
	// it by the client must have no effect. It is called without the queue's lock.
	TimedOut(c *Consumer, limit int64, w *Wakes) (seqs []uint64)
}

// Source is what feeds a consumer, as its channel sees it: the queue, whatever its kind, or the
// consumer's own place in it.
type Source interface {
	// About says which queue it is.
	About() *Declaration
	// Lasts reports whether what is settled here has to be written to disk.
	Lasts() bool
	// Unsubscribe ends a consumer; what it holds stays outstanding.
	Unsubscribe(id fifo.ConsumerID, w *Wakes)
	// Unpark lets a consumer that its sink refused take deliveries again.
	Unpark(id fifo.ConsumerID, w *Wakes)
	// Ack settles deliveries for good. Reject refuses them for good: they are dead letters.
	Ack(seqs []uint64, w *Wakes)
	Reject(seqs []uint64, w *Wakes)
	// Requeue gives deliveries back to be delivered again; failed says that this counts
	// towards a delivery limit.
	Requeue(seqs []uint64, failed bool, w *Wakes)
}

// Consumer is one basic.consume on a queue. Its fields do not change after Subscribe; the
// sink may find its own state again through Sink and Tag.
type Consumer struct {
	ID        fifo.ConsumerID // unique in the broker, never 0
	Tag       string
	Prefetch  uint32 // most outstanding deliveries, 0 = no limit
	NoAck     bool
	Exclusive bool
	Priority  int32
	Queue     Source // set by Subscribe
	Arguments amqp.Table
	// Timeout, if set, goes before the queue's [Settings.ConsumerTimeout]; 0 is no limit.
	Timeout Optional[time.Duration]

	// MaxWaiting is how many bytes may wait for the consumer's socket when it gets a delivery; 0 leaves it to the
	// sink. It is set by Subscribe.
	MaxWaiting int
	Sink       Sink
}

// Waker is a connection's writer.
type Waker interface {
	// Wake makes the writer look at its outbox. It does not block. alone says that the
	// caller wakes nobody else: what a small write costs is then less than a change of
	// goroutines.
	Wake(alone bool)
}

// Wakes collects the writers that a burst of work has to wake, so that a connection which
// got fifty deliveries is woken once. It belongs to one goroutine.
//
// It also collects the queues that have dead letters to send, which cannot be done under a
// queue's lock.
type Wakes struct {
	list   []Waker
	shared bool
	dead   []*Queue
}

// Add remembers o. The caller makes sure that it is added once per wake (the outbox keeps
// a flag for it).
func (w *Wakes) Add(o Waker) { w.list = append(w.list, o) }

// Share notes that somebody else was woken meanwhile, the store's committer for one: nobody is
// woken alone by the next Flush, for what the caller does then holds the other one up.
func (w *Wakes) Share() { w.shared = true }

// Flush sends the dead letters, wakes all that were added and forgets them. Call it at the
// end of a burst and before anything that may block, without locks.
func (w *Wakes) Flush() {
	for i := 0; i < len(w.dead); i++ { // dead letters may cause others
		w.dead[i].sendDead(w)
	}
	clear(w.dead)
	w.dead = w.dead[:0]
	alone := len(w.list) == 1 && !w.shared
	for i, o := range w.list {
		o.Wake(alone)
		w.list[i] = nil
	}
	w.list, w.shared = w.list[:0], false
}
