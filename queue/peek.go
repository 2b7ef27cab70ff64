package queue

import (
	"github.com/settmq/settmq/queue/fifo"
	"github.com/settmq/settmq/storage"
)

// MaxPeek is how many messages can be looked at at once.
const MaxPeek = headWindow

// Peek returns copies of up to max of the messages that would be handed out next, MaxPeek at most, and changes
// nothing: neither their order, nor what a later delivery says of them. It waits for messages to be read from the disk,
// never for one to arrive; closing stop ends the wait with ErrStopped.
func (q *Queue) Peek(max int, stop <-chan struct{}) (list []Delivery, err error) {
	max = min(max, MaxPeek)
	for {
		var w Wakes
		list, wait, err := q.tryPeek(max, &w)
		w.Flush()
		if wait == nil {
			return list, err
		}
		select {
		case <-wait:
		case <-stop:
			return nil, ErrStopped
		}
	}
}

// tryPeek is one attempt of Peek: its result, or a channel that closes when it is worth trying again.
func (q *Queue) tryPeek(max int, w *Wakes) (list []Delivery, wait <-chan struct{}, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.deleted:
		return nil, nil, ErrDeleted
	case q.fault != nil:
		return nil, nil, q.fault
	}
	q.timeLocked(w)
	_, complete := q.m.Peek(max, func(d *fifo.Delivery[*storage.Message]) {
		out := Delivery{Seq: d.Seq, Message: d.Payload, Redelivered: d.Redelivered, Deliveries: d.Deliveries, Acquired: d.Acquired, Lasting: true}
		if out.Acquired > 0 && !q.plainReturns() {
			var c counted // of its own: the caller keeps it
			out.Message = c.tell(&out)
		}
		list = append(list, out)
	})
	if complete || q.Store == nil {
		return list, nil, nil
	}
	ch := make(chan struct{})
	q.waiters = append(q.waiters, ch)
	q.refillLocked()
	if !q.m.Loading() { // what it could be is here: the rest is behind the window
		q.releaseWaitersLocked()
		return list, nil, nil
	}
	return nil, ch, nil
}
