package queue

import (
	"errors"
	"sync"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/queue/fifo"
	"github.com/settmq/settmq/storage"
)

var (
	// ErrDeleted is returned when the queue was deleted while the caller held it.
	ErrDeleted = errors.New("queue deleted")
	// ErrExclusive is returned by Subscribe when an exclusive consumer stands in the way.
	ErrExclusive = fifo.ErrExclusive
	// ErrNotEmpty and ErrInUse are returned by a conditional Delete.
	ErrNotEmpty = errors.New("queue not empty")
	// ErrInUse says that the queue has consumers.
	ErrInUse = errors.New("queue in use")
	// ErrStopped is returned by Get when its caller's stop channel closed first.
	ErrStopped = errors.New("stopped")
)

// deliveryAhead is how far the durable delivery watermark is asked for beyond the newest
// delivery. Twice the half-way mark must outlast a slow sync at full rate.
const deliveryAhead = 16384

// Declaration is what a queue of any kind was declared as. It does not change during its life.
type Declaration struct {
	ID         uint64 // never reused; names the queue in the store
	Name       string
	Durable    bool
	AutoDelete bool
	// Owner is the connection that may use an exclusive queue, 0 for other queues.
	Owner     uint64
	Arguments amqp.Table
}

// About returns the declaration: what an interface of queues can ask for. It must not be changed.
func (d *Declaration) About() *Declaration { return d }

// Exclusive reports whether the queue belongs to one connection.
func (d *Declaration) Exclusive() bool { return d.Owner != 0 }

// Options say what a queue is and whom it works with. They do not change during its life.
type Options struct {
	Declaration

	// Store keeps the messages of a durable queue; nil for a queue that does not last.
	Store *storage.Queue
	// Pager reads bodies back from Store; required with it.
	Pager *Pager
	// OnUnused is called, without locks held, when the last consumer has left.
	OnUnused func(*Queue)
	// OnFault is called once, without locks held, when stored messages cannot be read.
	OnFault func(*Queue, error)

	// Settings are those to start with; see [Queue.Configure].
	Settings Settings
	// Timers wake the queue, and tell its time; required.
	Timers *Timers
	// OnDeadLetter sends a dead letter; required. It is called without locks held, for one
	// letter of a queue at a time.
	OnDeadLetter func(*Queue, *DeadLetter, *Wakes) Outcome
	// OnExpired is called, without locks held, when the queue was unused for so long that it
	// is to be deleted. It is called again if the queue is still there.
	OnExpired func(*Queue)

	// MaxPriority is the highest priority that is told apart, 0 for none. Messages without
	// a priority have DefaultPriority.
	MaxPriority, DefaultPriority uint8
	// SingleActive gives messages to one consumer at a time; Preempt lets one of a higher
	// priority take over from it.
	SingleActive, Preempt bool
	// GroupHeader names the header of messages that says which group they belong to: the messages of a
	// group go to one consumer at a time, in order. Empty: there are no groups. Not with MaxPriority.
	GroupHeader string
	// Delay, if not nil, makes the queue a waiting room: a message stays for so many milliseconds
	// and is a dead letter then. Its own expiration does not count.
	Delay func(*storage.Message) int64
	// CountReturns keeps the number of returns of a message across restarts, as a delivery
	// limit does.
	CountReturns bool
	// ServesReturnsFirst gives consumers what came back before a length limit may drop it.
	ServesReturnsFirst bool
	// KeepsTransient says that the queue stores every message: whoever publishes a transient one makes it
	// persistent before.
	KeepsTransient bool
}

// Queue is a live queue. All methods may be called from any goroutine.
type Queue struct {
	Options // immutable
	// looksAt are the flags of the properties that publishing has to look at; immutable.
	looksAt uint16

	mu        sync.Mutex
	m         *fifo.Machine[*storage.Message] // guarded by mu, as all that follows
	consumers map[fifo.ConsumerID]*Consumer
	waiters   []chan struct{} // gets that wait for a page or the delivery limit
	delivered uint64          // one past the newest seq ever handed out
	extending bool            // a higher delivery limit is on its way to the disk
	deleted   bool
	fault     error
	set       Settings
	special   bool  // publishing has to look at limits or deadlines
	timer     timer // guarded by the timers
	armed     int64 // when the timer wakes the queue; 0: not
	retryAt   int64 // when refused dead letters are tried again; 0: there are none
	lastUse   int64 // when the queue was used last, for its expiry
	dead      deaths
	present   *present // the keys of what is in the queue; nil unless it deduplicates
	waits     waits
	stats     MessageStats
	deadStats DeadStats
	next      fifo.Delivery[*storage.Message]
	out       Delivery
	usual     int64   // bytes of properties of a message, an average of the last ones
	counted   counted // what out refers to when it tells its counts

	sending sync.Mutex // before mu: dead letters are sent in order
}

// New makes the live queue of o. A queue with a store starts with what the store recovered.
func New(o Options) *Queue {
	q := &Queue{Options: o, consumers: make(map[fifo.ConsumerID]*Consumer), looksAt: amqp.PropExpiration}
	if o.MaxPriority > 0 {
		q.looksAt |= amqp.PropPriority
	}
	q.timer.of = q
	q.m = fifo.New[*storage.Message](q.machineOptions())
	if o.Settings.Deduplicate {
		q.present = newPresent()
	}
	if o.Store != nil {
		q.restore()
	}
	q.Configure(o.Settings)
	return q
}

func (q *Queue) machineOptions() fifo.Options {
	return fifo.Options{
		MaxPriority: q.MaxPriority, DefaultPriority: q.DefaultPriority,
		SingleActive: q.SingleActive, Preempt: q.Preempt, Groups: q.GroupHeader != "",
	}
}

// Lasts reports whether persistent messages put in this queue survive a restart.
func (q *Queue) Lasts() bool { return q.Store != nil }

// Publish appends m, unless the queue is full and refuses: then it returns false. If the queue
// is durable and m persistent, m.Targets must already count this queue; it is counted down when
// the message is stored, consumed, refused or lost with the deleted queue.
func (q *Queue) Publish(m *storage.Message, w *Wakes) bool {
	q.mu.Lock()
	if q.deleted {
		q.mu.Unlock()
		if q.keeps(m) {
			m.Done()
		}
		return true
	}
	if q.special || m.Died || amqp.HasProperty(m.Properties, q.looksAt) {
		accepted := q.publishSpecialLocked(m, w)
		q.mu.Unlock()
		if !accepted && q.keeps(m) {
			m.Done()
		}
		return accepted
	}
	q.stats.Publish++
	q.weighLocked(m)
	seq := q.m.Enqueue(fifo.Item[*storage.Message]{Payload: m, Size: uint32(len(m.Body)), Priority: q.DefaultPriority})
	if q.keeps(m) {
		q.stats.DiskWrites++
		q.Store.Append(seq, m)
	}
	q.pumpLocked(w)
	q.mu.Unlock()
	return true
}

// Await counts a target of m, which the queue would store, down once everything that was published to the queue before
// is on disk.
func (q *Queue) Await(m *storage.Message) {
	if q.keeps(m) {
		q.Store.Await(m)
	} else {
		m.Done()
	}
}

// keeps reports whether m is written to the store when it is put in this queue. A nil m is
// a message whose body was dropped from memory: only stored ones are.
func (q *Queue) keeps(m *storage.Message) bool {
	return q.Store != nil && (m == nil || !m.Transient)
}

// Subscribe adds a consumer, which may get deliveries before Subscribe returns. confirm is
// called under the lock before the first of them, so that consume-ok precedes it.
func (q *Queue) Subscribe(c *Consumer, confirm func(), w *Wakes) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.deleted {
		return ErrDeleted
	}
	if q.fault != nil {
		return q.fault
	}
	if q.SingleActive && c.Exclusive {
		return ErrExclusive // as RabbitMQ refuses it
	}
	err := q.m.Subscribe(fifo.Consumer{ID: c.ID, Prefetch: c.Prefetch, NoAck: c.NoAck, Exclusive: c.Exclusive, Priority: c.Priority})
	if err != nil {
		return err
	}
	c.Queue = q
	q.consumers[c.ID] = c
	if confirm != nil {
		confirm()
	}
	q.extendLocked()
	q.pumpLocked(w)
	return nil
}

// Unsubscribe removes a consumer; what it holds stays outstanding. It may end an
// auto-delete queue.
func (q *Queue) Unsubscribe(id fifo.ConsumerID, w *Wakes) {
	q.mu.Lock()
	if _, ok := q.consumers[id]; !ok {
		q.mu.Unlock()
		return
	}
	delete(q.consumers, id)
	q.m.Unsubscribe(id)
	q.usedLocked()
	q.pumpLocked(w)
	unused := len(q.consumers) == 0 && !q.deleted
	q.mu.Unlock()
	if unused && q.OnUnused != nil {
		q.OnUnused(q)
	}
}

// SetPrefetch changes the limit of a consumer while it consumes; 0 removes it.
func (q *Queue) SetPrefetch(id fifo.ConsumerID, n uint32, w *Wakes) {
	q.mu.Lock()
	q.m.SetPrefetch(id, n)
	q.pumpLocked(w)
	q.mu.Unlock()
}

// Unpark lets a consumer that its sink refused take deliveries again.
func (q *Queue) Unpark(id fifo.ConsumerID, w *Wakes) {
	q.mu.Lock()
	q.m.Unpark(id)
	q.pumpLocked(w)
	q.mu.Unlock()
}

// Ack settles outstanding deliveries for good; seqs that are not outstanding are ignored.
func (q *Queue) Ack(seqs []uint64, w *Wakes) {
	q.mu.Lock()
	for _, seq := range seqs {
		it, ok := q.m.Ack(seq)
		q.present.remove(seq)
		if !ok {
			continue
		}
		q.stats.Ack++
		if q.keeps(it.Payload) && !q.deleted {
			q.Store.Settle(seq)
		}
	}
	q.pumpLocked(w)
	q.mu.Unlock()
}

// Reject settles outstanding deliveries for good, as dead letters if the queue has somewhere to
// send them.
func (q *Queue) Reject(seqs []uint64, w *Wakes) {
	q.mu.Lock()
	for _, seq := range seqs {
		q.buryLocked(seq, Rejected, w)
	}
	q.pumpLocked(w)
	q.mu.Unlock()
}

// Requeue puts outstanding deliveries back to their original positions, flagged redelivered. failed
// says that the deliveries failed, which a delivery limit and a delayed retry look at.
func (q *Queue) Requeue(seqs []uint64, failed bool, w *Wakes) {
	q.mu.Lock()
	for _, seq := range seqs {
		if q.plainReturns() {
			q.m.Requeue(seq, failed)
		} else {
			q.returnLocked(seq, failed, w)
		}
	}
	if !q.ServesReturnsFirst {
		q.trimLocked(w)
	}
	q.pumpLocked(w)
	q.trimLocked(w)
	q.mu.Unlock()
}

// Purge drops the ready messages and returns their number. Outstanding ones stay. It never
// fails; other kinds of queues refuse it.
func (q *Queue) Purge() (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.m.Purge(func(lo, hi uint64) {
		q.present.removeRange(lo, hi)
		if q.Store != nil {
			q.Store.SettleRange(lo, hi)
		}
	}), nil
}

// Delete marks the queue deleted, unless a condition forbids it (ErrNotEmpty, checked
// before ErrInUse), and returns the number of ready messages that went with it and the
// consumers it had. From then on every publish is dropped. Forgetting the stored messages
// and telling the consumers is up to the caller, after it released its locks.
func (q *Queue) Delete(ifUnused, ifEmpty bool) (ready int, consumers []*Consumer, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.deleted:
		return 0, nil, ErrDeleted
	case ifEmpty && q.m.Ready() > 0:
		return 0, nil, ErrNotEmpty
	case ifUnused && len(q.consumers) > 0:
		return 0, nil, ErrInUse
	}
	q.deleted = true
	ready = q.m.Ready()
	for id, c := range q.consumers {
		consumers = append(consumers, c)
		q.m.Unsubscribe(id)
	}
	clear(q.consumers)
	q.m = fifo.New[*storage.Message](fifo.Options{}) // lets the messages go
	q.dead, q.present = deaths{}, nil
	q.waits = waits{}
	q.Timers.stop(&q.timer)
	q.releaseWaitersLocked()
	return ready, consumers, nil
}

// Stop hands the store the exact delivery watermark, for a clean shutdown. Nothing may be delivered
// afterwards.
func (q *Queue) Stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.Store != nil && !q.deleted && q.delivered > 0 {
		q.Store.SetDelivered(q.delivered - 1)
	}
}

// ActiveConsumer returns the consumer that gets the messages, 0 for none. single is false in a queue without a single
// active consumer: all of them get messages there.
func (q *Queue) ActiveConsumer() (id fifo.ConsumerID, single bool) {
	if !q.SingleActive {
		return 0, false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.m.Active(), true
}

// Info is a snapshot of a queue's counters.
type Info struct {
	Ready, Unacked, Consumers int
	Memory                    uint64 // what the messages in memory take, about: bodies and all that belongs to them
	ReadyBytes                uint64 // body bytes of the ready messages
	CanTake                   bool   // a consumer takes the next message at once
}

// Info returns the counters of this moment.
func (q *Queue) Info() Info {
	q.mu.Lock()
	defer q.mu.Unlock()
	ready, other := q.m.InMemory()
	return Info{Ready: q.m.Ready(), Unacked: q.m.Unacked(), Consumers: len(q.consumers), Memory: q.memoryLocked(ready + other), ReadyBytes: q.m.ReadyBytes(), CanTake: q.m.CanTake()}
}
