package queue

import (
	"fmt"

	"github.com/settmq/settmq/queue/fifo"
	"github.com/settmq/settmq/storage"
)

// headWindow is how many loaded messages are kept before the part of a queue that is on
// disk only; fewer make the pager read ahead.
const headWindow = 512

// pumpLocked hands out messages until nothing can move, then sees whether a page must be
// read or the delivery limit raised. Work per call is bounded by what the consumers' sinks
// admit.
func (q *Queue) pumpLocked(w *Wakes) {
	if q.timeLocked(w) {
		limit := q.limit()
		for q.m.Next(limit, (*admitter)(q), &q.next) {
			c := q.consumers[q.next.Consumer]
			q.handedOutLocked()
			q.stats.Delivered(&q.out, false)
			c.Sink.Deliver(c, &q.out, w)
			if limit := q.timeLimit(c); limit > 0 {
				q.waitLocked(c, limit)
			}
		}
	}
	q.out.Message, q.next.Payload = nil, nil
	q.counted.forget()
	q.refillLocked()
}

// handedOutLocked turns what the machine handed out into q.out and accounts for it.
func (q *Queue) handedOutLocked() {
	d := &q.next
	q.out = Delivery{Seq: d.Seq, Message: d.Payload, Redelivered: d.Redelivered, NoAck: d.NoAck, Lasting: true, Deliveries: d.Deliveries, Acquired: d.Acquired}
	if d.Seq >= q.delivered {
		q.delivered = d.Seq + 1
	}
	if d.NoAck {
		q.present.remove(d.Seq)
		if q.keeps(d.Payload) {
			q.Store.Settle(d.Seq)
		}
	}
	if d.Acquired > 0 && !q.plainReturns() {
		q.out.Message = q.counted.tell(&q.out)
	}
}

// refillLocked asks for what the next deliveries will need from the disk.
func (q *Queue) refillLocked() {
	if q.Store == nil || q.deleted || q.fault != nil {
		return
	}
	window := 0 // only what is due
	if len(q.consumers) > 0 || len(q.waiters) > 0 {
		window = headWindow
		q.extendLocked()
	} else if q.set.Overflow == DropHead && q.overLocked() {
		window = 1 // to be dropped
	}
	if want := q.m.NeedsLoad(window); want != nil {
		q.Pager.load(q, want)
	}
}

// limit is the exclusive bound of seqs that may be handed out.
func (q *Queue) limit() uint64 {
	if q.Store == nil {
		return ^uint64(0)
	}
	return q.Store.DeliverLimit()
}

// extendLocked keeps the durable delivery limit well ahead of the deliveries, and of the
// next message: a purge moves the head of the queue without any.
func (q *Queue) extendLocked() {
	if q.Store == nil || q.extending || q.deleted {
		return
	}
	at := q.delivered
	if head, _, ok := q.m.Head(); ok {
		at = max(at, head)
	}
	if q.GroupHeader != "" {
		at = max(at, q.m.Unseen())
	}
	if q.Store.DeliverLimit() >= at+deliveryAhead/2 {
		return
	}
	q.extending = true
	q.Store.ExtendDeliverLimit(at+deliveryAhead, q.limitExtended)
}

// limitExtended is called by the store's committer.
func (q *Queue) limitExtended() {
	var w Wakes
	q.mu.Lock()
	q.extending = false
	q.releaseWaitersLocked()
	if !q.deleted {
		q.pumpLocked(&w)
	}
	q.mu.Unlock()
	w.Flush()
}

// admitter shows the queue to its machine as a fifo.Admitter without offering Admit to
// everybody.
type admitter Queue

// Admit implements fifo.Admitter.
func (a *admitter) Admit(id fifo.ConsumerID, size uint32) bool {
	c := a.consumers[id]
	return c.Sink.Admit(c, size)
}

// Get takes the next ready message for basic.get, with the number of ready messages left;
// ok is false when there is none. It waits for a page to be read, or for the delivery
// limit, but never for a message to arrive; closing stop ends the wait with ErrStopped.
func (q *Queue) Get(noAck bool, stop <-chan struct{}) (d Delivery, left int, ok bool, err error) {
	var w Wakes
	for {
		wait, done := q.tryGet(noAck, &d, &left, &ok, &err, &w)
		w.Flush()
		if done {
			return d, left, ok, err
		}
		select {
		case <-wait:
		case <-stop:
			return Delivery{}, 0, false, ErrStopped
		}
	}
}

// tryGet is one attempt of Get: done, or a channel that closes when it is worth trying again.
func (q *Queue) tryGet(noAck bool, d *Delivery, left *int, ok *bool, err *error, w *Wakes) (wait <-chan struct{}, done bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.deleted:
		*err = ErrDeleted
		return nil, true
	case q.fault != nil:
		*err = q.fault
		return nil, true
	}
	q.usedLocked()
	settled := q.timeLocked(w)
	if q.m.Ready() == 0 {
		q.stats.GetEmpty++
		return nil, true
	}
	if settled && q.m.Get(q.limit(), noAck, &q.next) {
		q.handedOutLocked()
		q.stats.Delivered(&q.out, true)
		*d, *left, *ok = q.out, q.m.Ready(), true
		q.counted = counted{} // d keeps it
		q.out.Message, q.next.Payload = nil, nil
		return nil, true
	}
	ch := make(chan struct{})
	q.waiters = append(q.waiters, ch)
	q.refillLocked()
	if settled && q.GroupHeader != "" && !q.extending && !q.m.Loading() {
		q.releaseWaitersLocked()
		q.stats.GetEmpty++
		return nil, true // what is ready belongs to groups that consumers have
	}
	return ch, false
}

func (q *Queue) releaseWaitersLocked() {
	for _, ch := range q.waiters {
		close(ch)
	}
	q.waiters = nil
}

// PageOut drops stored messages from memory: first those behind the head of the queue, then those that consumers hold,
// until about want bytes, counted as [Info].Memory counts them, are free. It returns how many were freed.
func (q *Queue) PageOut(want uint64) (freed uint64) {
	if q.Store == nil {
		return 0
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	const step = 1024
	around := q.aroundLocked()
	for freed < want {
		n, bytes := q.m.PageOut(headWindow, step, q.Store.Stored)
		freed += bytes + uint64(n)*around
		if n == 0 {
			break
		}
	}
	for freed < want {
		n, bytes := q.m.ReleaseUnacked(step, q.Store.Stored)
		freed += bytes + uint64(n)*around
		if n == 0 {
			break
		}
	}
	return freed
}

// loaded takes a page that the pager read for the machine's request.
func (q *Queue) loaded(items []storage.Stored, next uint64, err error) {
	var w Wakes
	q.mu.Lock()
	if q.deleted {
		q.mu.Unlock()
		return
	}
	if err != nil {
		q.m.LoadFailed()
		q.mu.Unlock()
		q.fail(err)
		return
	}
	page := make([]fifo.LoadedItem[*storage.Message], len(items))
	for i, it := range items {
		Recovered(it.Message)
		q.weighLocked(it.Message)
		page[i] = fifo.LoadedItem[*storage.Message]{
			Seq: it.Seq, Payload: it.Message, Size: uint32(len(it.Message.Body)), Redelivered: it.Redelivered,
			Priority: it.Note.Priority ^ q.DefaultPriority, Group: q.group(it.Message),
			Deliveries: it.Note.Deliveries, Acquired: acquired(it.Note.Acquired, it.Redelivered),
		}
	}
	q.stats.DiskReads += uint64(len(items))
	missing := q.m.Loaded(page, next)
	q.releaseWaitersLocked()
	q.trimLocked(&w)
	q.pumpLocked(&w)
	q.mu.Unlock()
	w.Flush()
	if missing > 0 && q.OnFault != nil {
		q.OnFault(q, fmt.Errorf("%d stored messages before %d were not found", missing, next))
	}
}

// fail ends the deliveries of a queue whose messages cannot be read.
func (q *Queue) fail(err error) {
	q.mu.Lock()
	first := q.fault == nil
	q.fault = err
	q.releaseWaitersLocked()
	q.mu.Unlock()
	if first && q.OnFault != nil {
		q.OnFault(q, err)
	}
}

// restore gives a new machine what the store recovered.
func (q *Queue) restore() {
	s := q.Store.State()
	q.delivered = s.RedeliveredBelow
	notes := q.Store.Notes()
	for i := range notes {
		if n := &notes[i].Note; apart(n) {
			s.Ready--
			s.Bytes -= uint64(n.Size)
		}
	}
	q.m.Restore(s.NextSeq, s.FirstSeq, int(s.Ready), s.Bytes)
	for i := range notes {
		n := &notes[i]
		if q.present != nil && n.Note.Key != (Key{}) {
			q.present.add(n.Note.Key, n.Seq)
		}
		if apart(&n.Note) {
			q.restoreItem(n)
		} else {
			q.m.RestoreTimer(n.Seq, n.Note.Deadline)
		}
	}
}

// apart reports whether a stored message has a place of its own in the machine: it is on hold, or has another priority
// than the default one. In notes a priority is the difference (xor) from that, so that most messages need none.
func apart(n *storage.Note) bool { return n.NotBefore != 0 || n.Priority != 0 }

func (q *Queue) restoreItem(n *storage.NotedMessage) {
	q.m.RestoreItem(fifo.RestoredItem{
		Seq: n.Seq, Size: n.Note.Size, Priority: n.Note.Priority ^ q.DefaultPriority, Redelivered: n.Seq < q.delivered,
		Deliveries: n.Note.Deliveries, Acquired: acquired(n.Note.Acquired, n.Seq < q.delivered), Group: n.Note.Group,
		Deadline: n.Note.Deadline, NotBefore: n.Note.NotBefore,
	})
}
