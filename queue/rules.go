package queue

import (
	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/queue/fifo"
	"github.com/settmq/settmq/storage"
)

// What a queue does beyond first in, first out: lengths, deadlines, priorities, returns.

// expireStep is how many messages expire under one hold of the queue's lock.
const expireStep = 1024

// Configure makes the queue obey s from now on. A new time to live holds for messages that arrive
// later. What has to be done because of new limits is done by the timers a moment later, so
// Configure may be called with a lock held that comes before the queue's.
func (q *Queue) Configure(s Settings) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.deleted {
		return
	}
	q.set = s
	q.special = s.MessageTTL.Set || s.MaxLength.Set || s.MaxLengthBytes.Set || q.Delay != nil || q.GroupHeader != "" || s.Deduplicate
	if s.Deduplicate != (q.present != nil) {
		if q.present = nil; s.Deduplicate {
			q.present = newPresent()
		}
	}
	q.usedLocked()
	if len(q.dead.refused) > 0 {
		q.retryAt = 1 // the new settings may be what they waited for
	}
	if q.retryAt > 0 || q.overLocked() {
		q.wakeLocked(1)
	} else {
		q.armLocked()
	}
}

// wakeLocked has the timers wake the queue at a time, or before.
func (q *Queue) wakeLocked(at int64) {
	if q.deleted || q.armed > 0 && q.armed <= at {
		return // too early does no harm: tick looks again
	}
	q.armed = max(at, 1)
	q.Timers.set(&q.timer, at)
}

// publishSpecialLocked is Publish where something has to be looked at. It returns false if the
// queue is full and refuses the message.
func (q *Queue) publishSpecialLocked(m *storage.Message, w *Wakes) bool {
	now := q.Timers.Now()
	q.timeLocked(w) // what is due takes no room
	key, known := q.keyLocked(m)
	if known {
		if q.keeps(m) {
			q.Store.Await(m) // confirmed when the one that is here is safe
		}
		return true
	}
	if q.set.Overflow != DropHead && q.fullLocked(len(m.Body)) {
		if q.set.Overflow == RejectPublishDLX && q.set.DeadLetterExchange.Set {
			q.dieLocked(0, m, MaxLen, false, w)
		}
		return false
	}
	var p amqp.Properties
	if amqp.HasProperty(m.Properties, q.looksAt) && amqp.ParseProperties(m.Properties, &p) != nil {
		p = amqp.Properties{} // checked when it was published
	}
	deadline := q.deadline(m, &p, now)
	atOnce := deadline != 0 && deadline <= now
	it := fifo.Item[*storage.Message]{Payload: m, Size: uint32(len(m.Body)), Group: q.group(m), Priority: q.priority(&p)}
	if !atOnce {
		it.Deadline = deadline
	}
	q.stats.Publish++
	q.weighLocked(m)
	seq := q.m.Enqueue(it)
	if key != (Key{}) {
		q.present.add(key, seq)
	}
	if q.keeps(m) {
		q.stats.DiskWrites++
		n := storage.Note{Deadline: deadline, Priority: it.Priority ^ q.DefaultPriority, Died: m.Died, Key: key}
		if n == (storage.Note{}) {
			q.Store.Append(seq, m)
		} else {
			n.Size = it.Size
			q.Store.AppendNoted(seq, m, n)
		}
	}
	q.pumpLocked(w)
	if atOnce { // and no consumer took it
		if q.m.Ready() == 1 {
			q.trimLocked(w) // where there is no room for it at all that is the reason
		}
		q.m.Overdue(seq, it.Priority)
		q.expireLocked(now, w)
		q.armLocked()
	}
	q.trimLocked(w)
	return true
}

// keyLocked returns the key of a message, zero if it has none or the queue does not deduplicate, and whether a message with
// that key is in the queue.
func (q *Queue) keyLocked(m *storage.Message) (k Key, known bool) {
	if q.present == nil {
		return Key{}, false
	}
	k, ok := KeyOf(m.Properties, q.set.DeduplicateByMessageID)
	if ok {
		_, known = q.present.seqs[k]
	}
	return k, known
}

// deadline returns when a message that arrives now expires: after the queue's time to live or its
// own, whichever is shorter; 0 for never.
func (q *Queue) deadline(m *storage.Message, p *amqp.Properties, now int64) int64 {
	if q.Delay != nil {
		return now + q.Delay(m) + unrounded
	}
	ttl := int64(-1)
	if q.set.MessageTTL.Set {
		ttl = q.set.MessageTTL.Value.Milliseconds()
	}
	if p.Has(amqp.PropExpiration) {
		if own, why := amqp.ParseExpiration(p.Expiration); why == "" && (ttl < 0 || own < ttl) {
			ttl = own
		}
	}
	if ttl < 0 {
		return 0
	}
	return now + ttl
}

// priority returns a message's priority, at most the queue's highest.
func (q *Queue) priority(p *amqp.Properties) uint8 {
	if !p.Has(amqp.PropPriority) {
		return q.DefaultPriority
	}
	return min(p.Priority, q.MaxPriority)
}

// fullLocked reports whether a message of size body bytes has no room.
func (q *Queue) fullLocked(size int) bool {
	s := &q.set
	return s.MaxLength.Set && int64(q.lengthLocked())+1 > s.MaxLength.Value ||
		s.MaxLengthBytes.Set && int64(q.m.ReadyBytes())+int64(size) > s.MaxLengthBytes.Value
}

// overLocked reports whether the queue is longer than it may be.
func (q *Queue) overLocked() bool {
	s := &q.set
	return s.MaxLength.Set && int64(q.m.Ready()) > s.MaxLength.Value ||
		s.MaxLengthBytes.Set && int64(q.m.ReadyBytes()) > s.MaxLengthBytes.Value
}

// lengthLocked is what a limit counts: ready messages, and dead letters that cannot be sent, so
// that they do not gather without end.
func (q *Queue) lengthLocked() int { return q.m.Ready() + len(q.dead.refused) }

// trimLocked drops messages from the head until the queue is as short as it has to be. Where they
// are not in memory it asks for them, and goes on when they are.
func (q *Queue) trimLocked(w *Wakes) {
	for q.set.Overflow == DropHead && q.overLocked() {
		keep := q.keepsDead()
		if !q.m.DropHead(keep, &q.next) {
			q.refillLocked()
			break
		}
		q.leftLocked(keep, MaxLen, w)
	}
}

// timeLocked does what is due by the clock, before anything is handed out. It returns false if
// that is so much that the timers go on with it; nothing may be handed out until then.
func (q *Queue) timeLocked(w *Wakes) bool {
	at, timed := q.m.NextDeadline()
	if !timed {
		return true
	}
	now := q.Timers.Now()
	if at <= now {
		q.expireLocked(now, w)
		q.m.Release(now, expireStep)
		at, timed = q.m.NextDeadline()
	}
	q.armLocked()
	return !timed || at > now
}

// expireLocked takes out messages whose deadline has passed, up to expireStep of them.
func (q *Queue) expireLocked(now int64, w *Wakes) {
	keep := q.keepsDead()
	for range expireStep {
		if !q.m.Expire(now, keep, &q.next) {
			return
		}
		q.leftLocked(keep, Expired, w)
	}
}

// leftLocked takes care of the message in q.next, which has left the machine or, if kept, is
// leaving it.
func (q *Queue) leftLocked(kept bool, reason Reason, w *Wakes) {
	d := &q.next
	q.present.remove(d.Seq)
	if kept && d.Payload != nil && d.Payload.Transient {
		q.m.Ack(d.Seq) // the store does not have it
		kept = false
	}
	q.dieLocked(d.Seq, d.Payload, reason, kept, w)
	d.Payload = nil
}

// buryLocked takes an outstanding message out of the queue for a reason.
func (q *Queue) buryLocked(seq uint64, reason Reason, w *Wakes) {
	q.present.remove(seq)
	if !q.keepsDead() {
		if it, ok := q.m.Ack(seq); ok && !q.deleted {
			q.dieLocked(seq, it.Payload, reason, false, w)
		}
		return
	}
	it, ok := q.m.Bury(seq)
	if !ok {
		return
	}
	q.next.Seq, q.next.Payload = seq, it.Payload
	q.leftLocked(true, reason, w)
}

// plainReturns reports whether returned messages just go back to their places.
func (q *Queue) plainReturns() bool {
	return !q.CountReturns && !q.set.DeliveryLimit.Set && q.set.DelayedRetry == RetryDisabled
}

// returnLocked takes back a delivery: to its place, to wait, or, after too many, out of the queue.
func (q *Queue) returnLocked(seq uint64, failed bool, w *Wakes) {
	c, ok := q.m.Outstanding(seq)
	if !ok {
		return
	}
	if failed && c.Deliveries < 1<<16-1 {
		c.Deliveries++
	}
	if limit := &q.set.DeliveryLimit; limit.Set && int64(c.Deliveries) > limit.Value {
		q.buryLocked(seq, DeliveryLimit, w)
		return
	}
	until := q.retryTime(&c, failed)
	if until == 0 {
		q.m.Requeue(seq, failed)
	} else {
		q.m.Hold(seq, failed, until)
	}
	if q.Store != nil {
		q.Store.UpdateNote(seq, func(n *storage.Note) {
			n.Deliveries, n.Acquired, n.NotBefore, n.Size, n.Group = c.Deliveries, c.Acquired, until, c.Size, c.Group
		})
	}
}

// retryTime returns until when a returned message waits, 0 if it does not: RabbitMQ's delayed
// retry waits min × the number of failed deliveries, at most max.
func (q *Queue) retryTime(c *fifo.Counts, failed bool) int64 {
	s := &q.set
	switch {
	case s.DelayedRetry == RetryDisabled || c.Due,
		s.DelayedRetry == RetryFailed && !failed,
		s.DelayedRetry == RetryReturned && failed:
		return 0
	}
	wait := s.DelayedRetryMin.Or(0).Milliseconds() * max(int64(c.Deliveries), 1)
	if s.DelayedRetryMax.Set {
		wait = min(wait, s.DelayedRetryMax.Value.Milliseconds())
	}
	return q.Timers.Now() + wait + unrounded
}

// unrounded makes up for the clock's whole milliseconds where nothing may be early.
const unrounded = 1

// Touch notes that the queue was used: declared or fetched from.
func (q *Queue) Touch() {
	q.mu.Lock()
	q.usedLocked()
	q.armLocked()
	q.mu.Unlock()
}

// usedLocked starts the time after which an unused queue expires.
func (q *Queue) usedLocked() {
	if q.set.Expires.Set {
		q.lastUse = q.Timers.Now()
	}
}

// expiresAt returns when the queue itself expires if nobody uses it; 0 for never.
func (q *Queue) expiresAt() int64 {
	if !q.set.Expires.Set || len(q.consumers) > 0 || q.deleted {
		return 0
	}
	return q.lastUse + q.set.Expires.Value.Milliseconds()
}

// armLocked has the timers wake the queue when something is due next.
func (q *Queue) armLocked() {
	at, ok := q.m.NextDeadline()
	if !ok {
		at = 1<<63 - 1
	}
	if e := q.expiresAt(); e > 0 {
		at = min(at, e)
	}
	if q.retryAt > 0 {
		at = min(at, q.retryAt)
	}
	if q.waits.first > 0 {
		at = min(at, q.waits.first)
	}
	if at < 1<<63-1 {
		q.wakeLocked(at)
	}
}

// tick does what is due. It is called by the timers.
func (q *Queue) tick(now int64) {
	var w Wakes
	q.mu.Lock()
	q.armed = 0
	if q.deleted {
		q.mu.Unlock()
		return
	}
	late := q.lateLocked(now)
	if q.retryAt > 0 && q.retryAt <= now {
		q.retryLocked(&w)
	}
	at := q.expiresAt()
	expired := at > 0 && at <= now
	if expired {
		q.lastUse = now // asked again in a while, if it is still here
	}
	q.pumpLocked(&w)
	q.trimLocked(&w)
	q.releaseWaitersLocked() // gets wait for expiry to be done
	q.armLocked()
	q.mu.Unlock()
	for _, c := range late {
		q.timeOut(c, &w)
	}
	w.Flush()
	if expired && q.OnExpired != nil {
		q.OnExpired(q)
	}
}
