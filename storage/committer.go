package storage

import (
	"errors"
	"slices"
	"time"
)

// settleDelay is how long settlements wait for company when nobody waits for anything else.
const settleDelay = 20 * time.Millisecond

// spaceRetry is how often a batch that found no disk space is tried again.
const spaceRetry = time.Second

// committer turns what is pending into journal records. All of it is owned by its goroutine.
type committer struct {
	s *Store
	w batchWriter

	queues []*Queue // taken off Store.dirty, still to be looked at
	spare  []*Queue
	early  []*Queue // whose next message has to wait for another one, or for its publisher
	tell   []*Queue // that tell of what is in the batch
	behind []*Queue // that had messages which are not in the batch

	barriers map[*Ticket]struct{} // of empty changes, that wait for queues that were behind

	batch   uint64 // number of the batch being built, from 1
	items   []batchItem
	taken   []takenQueue
	runs    []run // scratch of settlements
	notes   []notedSeq
	metaBuf []byte
	tickets []*Ticket
	before  int // changes applied before the messages were taken
	stamp   uint64
	cancel  []*Message
	waited  []*Message // that wait for what is in this batch, or was before
	moved   []movedSeq // that are settled with what is in this batch, or was before
	charge  int64
	last    bool // nothing else that is followed comes into the batch
	refs    Confirms
}

// batchItem is one target of one message in the batch being built.
type batchItem struct {
	seq    uint64
	m      *Message
	at     uint32
	shared bool
}

// movedSeq is a message that ends with the batch.
type movedSeq struct {
	q   *Queue
	seq uint64
}

// takenQueue is what a batch takes from one queue.
type takenQueue struct {
	q       *Queue
	lo, hi  int // range in items
	settled []run
	notes   []notedSeq
	limit   uint64 // 0: no new one
	kind    byte
	waiters []limitWaiter
}

// run commits until the store is closed or fails.
func (c *committer) run() {
	defer close(c.s.committerDone)
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	var lazyUntil time.Time
	for {
		work, urgent, closing := c.s.workWaiting(len(c.queues) > 0)
		switch {
		case urgent || work && closing:
		case closing:
			if len(c.barriers) > 0 { // the store failed elsewhere
				c.abandon(c.s.goneError())
			}
			return
		case work:
			if now := time.Now(); lazyUntil.IsZero() {
				lazyUntil = now.Add(settleDelay)
				timer.Reset(settleDelay)
			} else if now.Before(lazyUntil) {
				timer.Reset(lazyUntil.Sub(now))
			} else {
				break // waited long enough
			}
			select {
			case <-c.s.wake:
			case <-timer.C:
			}
			continue
		default:
			<-c.s.wake
			continue
		}
		lazyUntil = time.Time{}
		if err := c.commit(); err != nil {
			c.s.fail(err)
			c.abandon(err)
			return
		}
	}
}

// commit builds, writes and syncs one batch and tells everybody who waited for it.
func (c *committer) commit() error {
	bufs, err := c.build()
	if err != nil {
		return err
	}
	// Whatever was settled before its batch needs no disk for its confirm.
	for _, m := range c.cancel {
		c.refs.Done(m)
	}
	c.refs.Flush()
	if bufs != nil {
		if err := c.write(bufs); err != nil {
			return err
		}
	} else {
		c.s.afterSync(position{Segment: c.s.lastSynced()}, c.stamp) // an empty change
	}
	c.finish()
	return nil
}

// write appends the record, publishes where its messages lie, and syncs.
func (c *committer) write(bufs [][]byte) error {
	s := c.s
	pos, err := c.append(bufs)
	if err != nil {
		return err
	}
	c.publish(pos)
	if s.opts.SyncDelay > 0 {
		time.Sleep(s.opts.SyncDelay)
	}
	if err := s.timedSync(); err != nil {
		return err
	}
	s.recordWritten(bufs)
	s.batches.Add(1)
	// Before a checkpoint can begin behind this batch, and after a checkpoint without the batch could lose them.
	for _, v := range c.moved {
		v.q.moved(v.seq)
	}
	s.afterSync(pos, c.stamp)
	return nil
}

// append writes the record and holds publishers while there is no space for it.
func (c *committer) append(bufs [][]byte) (position, error) {
	s := c.s
	for {
		pos, err := s.journal.Append(bufs)
		if !isNoSpace(err) {
			if err == nil {
				s.setHeld(heldNoSpace, false)
			}
			return pos, err
		}
		s.setHeld(heldNoSpace, true)
		if !s.awaitSpace(spaceRetry) {
			return pos, errors.Join(ErrDiskFull, err)
		}
	}
}

// build takes everything pending, up to maxBatch, and encodes it. A nil result means that there
// is nothing to write.
func (c *committer) build() ([][]byte, error) {
	c.batch++
	c.w.reset()
	c.take()
	c.takeChanges()
	c.encodeMessages()
	msgEnd := c.w.offset()
	for i := range c.taken {
		c.encodeState(&c.taken[i])
	}
	stateEnd := c.w.offset()
	c.w.buf = append(c.w.buf, c.metaBuf...)
	if c.w.offset() == batchHeaderSize {
		return nil, nil
	}
	return c.w.finish(msgEnd, stateEnd, 0), nil
}

// takeChanges takes the metadata: after the messages, and it is replayed before them, so that a change
// applied before a message was appended is never in a later batch than the message. An empty change
// tells of the messages appended before it: one that came while they were taken is left to the next
// batch, for they may be, too.
func (c *committer) takeChanges() {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	c.metaBuf, s.metaBuf = s.metaBuf, c.metaBuf[:0]
	c.stamp = s.stamp
	all, n := s.tickets, min(c.before, len(s.tickets)) // there are none any more if the store has failed
	s.tickets, c.tickets = c.tickets[:0], all[:n]
	for _, t := range all[n:] {
		if t.empty {
			s.tickets = append(s.tickets, t)
		} else {
			c.tickets = append(c.tickets, t)
		}
	}
}

// take moves pending work of the dirty queues into the batch.
func (c *committer) take() {
	s := c.s
	s.mu.Lock()
	s.urgent = false
	c.before = len(s.tickets)
	c.queues = append(c.queues, s.dirty...)
	clear(s.dirty)
	s.dirty = s.dirty[:0]
	s.mu.Unlock()

	size := 0
	left := c.spare[:0]
	var cut *Queue
	for _, q := range c.queues {
		if size >= maxBatch {
			left = append(left, q)
			continue
		}
		var more bool
		if size, more = c.takeQueue(q, size); more {
			if cut != nil {
				left = append(left, cut)
			}
			cut = q
		}
	}
	if cut != nil {
		left = append(left, cut) // the others come first next time
	}
	clear(c.queues)
	c.queues, c.spare = left, c.queues[:0]
	c.takeEarly(size)
}

// takeEarly looks once more at the queues whose messages follow others: those may be in the batch by now, and what
// follows a held message has to be. What still waits is for a stream, or for a queue that was found too late for this
// batch; it is looked at again with the next one.
func (c *committer) takeEarly(size int) {
	again := c.early
	c.early = nil
	c.last = true // or there would be no end to it
	for _, list := range [][]*Queue{again, c.tell} {
		for _, q := range list {
			var more bool
			if size, more = c.takeQueue(q, size); more {
				c.queues = append(c.queues, q)
			}
		}
	}
	c.last = false
	clear(c.tell)
	c.tell = c.tell[:0]
	c.behind = append(append(c.behind[:0], c.queues...), c.early...)
	if len(c.early) > 0 && (len(c.queues) > 0 || !c.s.idleAndClosed()) {
		for _, q := range c.early {
			c.s.enqueueDirty(q, true, false)
		}
	}
	clear(c.early)
	clear(again)
	c.early = again[:0]
}

// takeQueue takes what one queue has pending as long as the batch has room. It returns the
// batch's size and whether something was left behind.
func (c *committer) takeQueue(q *Queue, size int) (newSize int, more bool) {
	t := takenQueue{q: q, lo: len(c.items)}
	q.mu.Lock()
	defer q.mu.Unlock()
	early := false
	for !q.pending.empty() {
		p := q.pending.front()
		if early = p.early(); early {
			break
		}
		if more = c.last && p.m.Followed && p.m.batch != c.batch && !p.settles && !p.awaits; more {
			break
		}
		if p.settles {
			if !q.deleted && p.seq < q.taken && q.live.has(p.seq) {
				q.settled = append(q.settled, run{p.seq, p.seq + 1})
				q.changed = true
				c.moved = append(c.moved, movedSeq{q, p.seq})
			}
			q.pending.pop()
			continue
		}
		if p.awaits {
			c.waited = append(c.waited, p.m)
			q.pending.pop()
			continue
		}
		if q.deleted || !q.live.has(p.seq) {
			c.cancel = append(c.cancel, p.m)
		} else {
			n := refOverhead
			if p.m.batch != c.batch {
				if n = p.m.size(); int64(n) > q.s.largest.Load() {
					q.s.largest.Store(int64(n))
				}
				if p.m.Followed {
					n += followerSize
				}
			}
			if p.m.Follows != nil && p.m.Follows.batch == c.batch {
				n = 0 // there is room kept for it
			}
			if n > 0 && size > 0 && size+n > maxBatch {
				more = true
				break
			}
			size += n
			// Marked here so that further targets count as references; the offset follows when
			// the batch is encoded.
			if p.m.batch != c.batch {
				p.m.batch, p.m.at, p.m.shared = c.batch, 0, false
			} else {
				p.m.shared = true
			}
			c.items = append(c.items, batchItem{seq: p.seq, m: p.m})
		}
		if p.m.Followed {
			c.tellOf(p.m)
			p.m.Written()
		}
		c.charge += int64(p.charge)
		q.taken = p.seq + 1
		q.pending.pop()
	}
	t.hi = len(c.items)
	if t.hi > t.lo {
		q.changed = true
	}
	c.takeStateLocked(q, &t)
	switch {
	case early:
		q.urgent = false
		c.early = append(c.early, q)
	case !more:
		q.queued, q.urgent = false, false
	}
	if t.hi > t.lo || len(t.settled) > 0 || len(t.notes) > 0 || t.limit > 0 || len(t.waiters) > 0 {
		c.taken = append(c.taken, t)
	}
	return size, more
}

// tellOf notes who tells of a message that the batch takes, or that it need not take any more.
func (c *committer) tellOf(m *Message) {
	for f := m.then; f != nil; f = f.next {
		if f.q.told != c.batch {
			f.q.told = c.batch
			c.tell = append(c.tell, f.q)
		}
	}
	if m.untaken.Load() == 1 {
		m.then = nil
	}
}

func (c *committer) takeStateLocked(q *Queue, t *takenQueue) {
	if q.deleted {
		return
	}
	if len(q.settled) > 0 {
		lo := len(c.runs)
		c.runs = append(c.runs, q.settled...)
		t.settled = c.runs[lo:len(c.runs):len(c.runs)]
		if q.settled = q.settled[:0]; cap(q.settled) > maxKeptEntries {
			q.settled = nil
		}
	}
	c.takeNotesLocked(q, t)
	if want := q.requested.Load(); want > q.written {
		q.written = want
		q.changed = true
		t.limit, t.kind = want, opLimit
	}
	if len(q.waiters) > 0 {
		t.waiters = q.waiters
		q.waiters = nil
	}
}

func (c *committer) encodeMessages() {
	for i := range c.taken {
		t := &c.taken[i]
		for j := t.lo; j < t.hi; j++ {
			it := &c.items[j]
			if it.m.at == 0 {
				it.m.at = c.w.message(t.q.id, it.seq, it.m)
			} else {
				c.w.ref(it.m.at, t.q.id, it.seq, it.m)
			}
			it.at, it.shared = it.m.at, it.m.shared
		}
	}
}

func (c *committer) encodeState(t *takenQueue) {
	if len(t.settled) > 0 {
		c.w.settle(t.q.id, mergeRuns(t.settled))
	}
	if len(t.notes) > 0 {
		c.w.notes(t.q.id, t.notes)
	}
	if t.limit > 0 {
		c.w.limit(t.kind, t.q.id, t.limit)
	}
}

// mergeRuns sorts runs and joins those that touch, in place.
func mergeRuns(runs []run) []run {
	if !slices.IsSortedFunc(runs, compareRuns) {
		slices.SortFunc(runs, compareRuns)
	}
	out := runs[:1]
	for _, r := range runs[1:] {
		if last := &out[len(out)-1]; r.lo <= last.hi {
			last.hi = max(last.hi, r.hi)
		} else {
			out = append(out, r)
		}
	}
	return out
}

func compareRuns(a, b run) int {
	switch {
	case a.lo < b.lo:
		return -1
	case a.lo > b.lo:
		return 1
	}
	return 0
}

// publish tells the queues where their messages lie, a stretch at a time so that nobody waits
// long for a queue's lock.
func (c *committer) publish(pos position) {
	const stretch = 512
	for i := range c.taken {
		t := &c.taken[i]
		for lo := t.lo; lo < t.hi; lo += stretch {
			items := c.items[lo:min(lo+stretch, t.hi)]
			t.q.mu.Lock()
			for j := range items {
				t.q.live.setLocation(items[j].seq, makeLocation(pos, items[j].at, items[j].shared))
			}
			t.q.mu.Unlock()
		}
	}
}

// finish runs after the sync: confirms, tickets, limits, budget.
func (c *committer) finish() {
	s := c.s
	s.release(c.charge)
	for i := range c.items {
		c.refs.Done(c.items[i].m)
	}
	for _, m := range c.waited {
		c.refs.Done(m)
	}
	c.refs.Flush()
	for _, t := range c.tickets {
		if t.empty && len(c.behind) > 0 {
			c.awaitBehind(t)
		} else {
			t.resolve(nil)
		}
	}
	for i := range c.taken {
		t := &c.taken[i]
		if t.limit > 0 {
			t.q.limit.Store(t.limit)
		}
		for _, w := range t.waiters {
			w.done()
		}
	}
	c.clear()
}

// awaitBehind resolves the ticket of an empty change when what the queues have pending is written, which did not all go into
// the batch.
func (c *committer) awaitBehind(t *Ticket) {
	if c.barriers == nil {
		c.barriers = make(map[*Ticket]struct{})
	}
	c.barriers[t] = struct{}{}
	m := &Message{Confirm: &barrier{c, t}}
	m.Targets.Store(int32(len(c.behind)))
	for _, q := range c.behind {
		q.Await(m)
	}
}

// barrier is told, by the committer itself, when the queues have caught up.
type barrier struct {
	c *committer
	t *Ticket
}

// Confirm implements Confirmer.
func (b *barrier) Confirm([]uint64, bool) {
	delete(b.c.barriers, b.t)
	b.t.resolve(nil)
}

// abandon lets go of a batch that failed: nothing of it is confirmed.
func (c *committer) abandon(err error) {
	for _, t := range c.tickets {
		t.resolve(err)
	}
	for t := range c.barriers {
		t.resolve(err)
	}
	c.barriers = nil
	c.clear()
}

func (c *committer) clear() {
	c.items = recycle(c.items)
	c.taken = recycle(c.taken)
	c.cancel = recycle(c.cancel)
	c.waited = recycle(c.waited)
	c.moved = recycle(c.moved)
	c.behind = recycle(c.behind)
	c.tickets = recycle(c.tickets)
	c.runs = recycle(c.runs)
	c.notes = recycle(c.notes)
	c.charge = 0
	if cap(c.metaBuf) > 1<<20 {
		c.metaBuf = nil
	}
}

// recycle empties a list, keeping its memory unless that is unusually much.
func recycle[T any](s []T) []T {
	if cap(s) > maxKeptEntries {
		return nil
	}
	clear(s)
	return s[:0]
}
