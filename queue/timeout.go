package queue

import (
	"slices"

	"github.com/settmq/settmq/queue/fifo"
)

// wait is a delivery that has to be settled until a time. It is over, whatever the time, when the
// message was settled, or was handed out again since.
type wait struct {
	at       int64
	seq      uint64
	acquired uint16
	c        *Consumer
}

// waits are the deliveries of a queue that may take too long. Settled ones stay until there are
// too many of them, or the first time has come: an ack costs nothing.
type waits struct {
	list  []wait
	first int64 // no wait ends before; 0: there is none
	tidy  int   // settled ones are looked for when the list is longer
}

// waitsSlack is how many waits are kept, at least, before settled ones are looked for.
const waitsSlack = 1024

// timeLimit returns how long a consumer may hold a delivery, in milliseconds, 0 for no limit.
func (q *Queue) timeLimit(c *Consumer) int64 {
	if c.NoAck {
		return 0
	}
	if c.Timeout.Set {
		return c.Timeout.Value.Milliseconds()
	}
	return q.set.ConsumerTimeout.Value.Milliseconds()
}

// waitLocked notes that the delivery in q.out has to be settled within limit milliseconds.
func (q *Queue) waitLocked(c *Consumer, limit int64) {
	t := &q.waits
	w := wait{q.Timers.Now() + limit, q.out.Seq, q.out.Acquired, c}
	if len(t.list) >= max(t.tidy, waitsSlack) {
		q.tidyWaitsLocked()
		t.tidy = 2 * len(t.list)
	}
	t.list = append(t.list, w)
	if t.first == 0 || w.at < t.first {
		t.first = w.at
	}
	q.wakeLocked(t.first)
}

// tidyWaitsLocked forgets the waits that are over.
func (q *Queue) tidyWaitsLocked() {
	t := &q.waits
	t.list = slices.DeleteFunc(t.list, func(w wait) bool {
		have, ok := q.m.Outstanding(w.seq)
		return !ok || have.Acquired != w.acquired+1 && have.Acquired < 1<<16-1
	})
	t.first = 0
	for i := range t.list {
		if t.first == 0 || t.list[i].at < t.first {
			t.first = t.list[i].at
		}
	}
	if len(t.list) == 0 && cap(t.list) > waitsSlack {
		t.list = nil
	}
}

// lateLocked returns the consumers that hold a delivery for too long, each once, and forgets what
// they hold.
func (q *Queue) lateLocked(now int64) (late []*Consumer) {
	t := &q.waits
	if t.first == 0 || t.first > now {
		return nil
	}
	q.tidyWaitsLocked()
	if t.first == 0 || t.first > now {
		return nil
	}
	for i := range t.list {
		if w := &t.list[i]; w.at <= now && !slices.Contains(late, w.c) {
			late = append(late, w.c)
		}
	}
	t.list = slices.DeleteFunc(t.list, func(w wait) bool { return slices.Contains(late, w.c) })
	q.tidyWaitsLocked()
	return late
}

// timeOut ends a consumer that held a delivery for too long. What it holds goes back, without counting as failed, as in
// RabbitMQ. Called without locks.
func (q *Queue) timeOut(c *Consumer, w *Wakes) {
	q.Unsubscribe(c.ID, w) // first, so that nothing comes back to it
	q.mu.Lock()
	limit := q.timeLimit(c)
	q.mu.Unlock()
	if seqs := c.Sink.TimedOut(c, limit, w); len(seqs) > 0 {
		q.Requeue(seqs, false, w)
	}
}

// Lost is the source of deliveries that were taken from their consumer: settling them has no effect.
var Lost Source = lost{}

type lost struct{}

func (lost) About() *Declaration                 { return &Declaration{} }
func (lost) Lasts() bool                         { return false }
func (lost) Unsubscribe(fifo.ConsumerID, *Wakes) {}
func (lost) Unpark(fifo.ConsumerID, *Wakes)      {}
func (lost) Ack([]uint64, *Wakes)                {}
func (lost) Reject([]uint64, *Wakes)             {}
func (lost) Requeue([]uint64, bool, *Wakes)      {}
