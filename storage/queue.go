package storage

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// Queue is what the store knows of one queue. Append and the Settle methods are called in the
// order that shall last, normally under the caller's queue lock; they never touch the disk.
type Queue struct {
	id uint64
	s  *Store

	// redeliveredBelow is set before Open returns: recovered messages below it may have been
	// handed out before.
	redeliveredBelow uint64
	recoveredBytes   uint64

	limit     atomic.Uint64 // durable delivery limit
	requested atomic.Uint64 // delivery limit asked for, at least limit; written under mu
	delivered atomic.Uint64 // one past the highest handed out

	mu      sync.Mutex // after the caller's queue lock, before Store.mu
	live    liveSet
	next    uint64 // one past the highest appended
	taken   uint64 // one past the highest a batch has taken
	pending pendingList
	settled []run      // settlements of taken messages, not yet in a batch
	noted   []notedSeq // notes not yet in a batch
	waiters []limitWaiter
	written uint64 // delivery limit written to the journal
	queued  bool   // in Store.dirty or held by the committer
	urgent  bool   // so, and the committer was told not to wait
	deleted bool

	// Checkpointed state. Every live message below badgerHi is in Badger, in one of records;
	// every other one is in the journal or not yet written.
	badgerHi uint64
	records  []recordInfo // ascending, not overlapping; only the checkpointer changes it
	average  uint64       // bytes per message in records
	changed  bool         // differs from its last state record
	died     bool         // something was settled since a checkpoint looked for dead records

	told uint64 // the last batch with something that the queue tells of; owned by the committer

	// Owned by Open, then by the checkpointer.
	recordDigest uint64 // of the state record, 0 if there is none
}

// run is the range [lo, hi) of sequence numbers.
type run struct{ lo, hi uint64 }

type limitWaiter struct {
	upTo uint64
	done func()
}

// QueueState is a queue as Open found it; later calls see it move on, except Bytes and
// RedeliveredBelow.
type QueueState struct {
	NextSeq          uint64 // the next Append must not be below
	FirstSeq         uint64 // first live message, NextSeq if none
	Ready            uint64 // live messages
	Bytes            uint64 // body bytes of the live messages at Open
	RedeliveredBelow uint64 // recovered messages below carry Redelivered
}

func newQueue(s *Store, id, limit uint64) *Queue {
	q := &Queue{id: id, s: s, written: limit, changed: true}
	q.limit.Store(limit)
	q.requested.Store(limit)
	return q
}

// ID returns the queue's id.
func (q *Queue) ID() uint64 { return q.id }

// State returns counts and bounds.
func (q *Queue) State() QueueState {
	q.mu.Lock()
	defer q.mu.Unlock()
	first, ok := q.live.first(0)
	if !ok {
		first = q.next
	}
	return QueueState{
		NextSeq:          q.next,
		FirstSeq:         first,
		Ready:            q.live.count,
		Bytes:            q.recoveredBytes,
		RedeliveredBelow: q.redeliveredBelow,
	}
}

// Live is the number of messages that the queue has in the store, or on their way there.
func (q *Queue) Live() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return int(q.live.count)
}

// Append stores m under seq, which must be above every seq appended before. The publisher has
// called Reserve. m.Targets counts this queue already.
func (q *Queue) Append(seq uint64, m *Message) { q.append(seq, m, nil) }

func (q *Queue) append(seq uint64, m *Message, n *Note) {
	size := m.size()
	if size > maxBody {
		panic(fmt.Sprintf("storage: message of %d bytes", size))
	}
	if m.Followed {
		m.Await()
	}
	if m.Follows != nil {
		m.Follows.followedBy(q)
	}
	charge := refOverhead
	if !m.charged.Swap(true) {
		charge = size
	}
	q.s.unwritten.Add(int64(charge))
	q.mu.Lock()
	if seq < q.next {
		q.mu.Unlock()
		panic(fmt.Sprintf("storage: queue %d: message %d appended after %d", q.id, seq, q.next-1))
	}
	q.next = seq + 1
	if !q.deleted {
		q.live.add(seq, m.Transient)
		if n != nil && q.live.setNote(seq, n) && !m.Transient {
			q.noted = append(q.noted, notedSeq{seq, *n})
		}
	}
	q.pending.push(pendingMessage{seq: seq, charge: uint32(charge), m: m})
	q.wakeLocked(true)
	q.mu.Unlock()
}

// Await counts a target of m down once everything that was appended to the queue before is on disk. m itself is not
// appended.
func (q *Queue) Await(m *Message) {
	q.mu.Lock()
	q.pending.push(pendingMessage{m: m, awaits: true})
	q.wakeLocked(true)
	q.mu.Unlock()
}

// Settle ends the life of a message: it was acknowledged, dropped or expired. If no batch has
// taken it yet it is never written, and counts as stored for its confirm. Unknown and dead
// messages are ignored.
func (q *Queue) Settle(seq uint64) {
	q.mu.Lock()
	if q.live.remove(seq) && seq < q.taken {
		q.settleLocked(seq, seq+1)
		if seq < q.badgerHi {
			q.s.addDead(q.average)
		}
	}
	q.mu.Unlock()
}

// SettleWith settles a message of the queue on disk in the batch with which m, which is held and was appended to
// wherever it goes, is written, or later, never before: so a crash finds the one or the other, and both only if one
// batch did not hold them. The message lives on until then. It releases m.
func (q *Queue) SettleWith(seq uint64, m *Message) {
	m.followedBy(q)
	q.mu.Lock()
	q.pending.push(pendingMessage{seq: seq, m: m, settles: true})
	m.Release()
	q.wakeLocked(true)
	q.mu.Unlock()
}

// Release ends the hold of m, which was appended to the queue or is followed by what was.
func (q *Queue) Release(m *Message) {
	q.mu.Lock()
	m.Release()
	q.wakeLocked(true)
	q.mu.Unlock()
}

// moved ends the life of a message of which a batch that is on disk says so.
func (q *Queue) moved(seq uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.live.remove(seq) {
		q.died = true
		if seq < q.badgerHi {
			q.s.addDead(q.average)
		}
	}
}

// SettleRange settles every live message in [lo, hi).
func (q *Queue) SettleRange(lo, hi uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	below := q.live.removeRange(lo, min(hi, q.badgerHi))
	if below > 0 {
		q.s.addDead(below * q.average)
	}
	if below+q.live.removeRange(max(lo, q.badgerHi), hi) > 0 && lo < q.taken {
		q.settleLocked(lo, min(hi, q.taken))
	}
}

func (q *Queue) settleLocked(lo, hi uint64) {
	q.changed, q.died = true, true
	if n := len(q.settled); n > 0 && q.settled[n-1].hi == lo {
		q.settled[n-1].hi = hi
	} else {
		q.settled = append(q.settled, run{lo, hi})
	}
	q.wakeLocked(false)
}

// Stored reports whether a live message has been written, so that Read can bring it back. It
// need not be synced.
func (q *Queue) Stored(seq uint64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if seq < q.badgerHi {
		return q.live.has(seq)
	}
	return q.live.location(seq) != 0
}

// DeliverLimit returns the bound below which messages may be handed out for the first time: it
// is durable, so after a crash all of them are known to be possible redeliveries.
func (q *Queue) DeliverLimit() uint64 { return q.limit.Load() }

// ExtendDeliverLimit makes the delivery limit durable up to at least upTo, rounded up to a block.
// done, if not nil, is called by the committer once that is so, without locks, and never if the
// store dies first. It must not block.
func (q *Queue) ExtendDeliverLimit(upTo uint64, done func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.deleted {
		return
	}
	q.requestLocked(upTo)
	if done != nil {
		q.waiters = append(q.waiters, limitWaiter{upTo, done})
	}
	q.wakeLocked(true)
}

func (q *Queue) requestLocked(upTo uint64) {
	if upTo > q.requested.Load() {
		q.requested.Store((upTo + limitBlock - 1) / limitBlock * limitBlock)
	}
}

// SetDelivered notes that seq was handed out, so that an orderly Close can write the exact
// limit. It asks for a higher limit by itself when half a block is left, so that queues which are
// consumed steadily do not wait for one. Called under the caller's queue lock.
func (q *Queue) SetDelivered(seq uint64) {
	if seq < q.delivered.Load() {
		return
	}
	q.delivered.Store(seq + 1)
	if seq+limitBlock/2 >= q.requested.Load() {
		q.ExtendDeliverLimit(seq+limitBlock, nil)
	}
}

// wakeLocked puts the queue on the committer's list. Only what somebody waits for is urgent;
// settlements go with the next batch or after settleDelay.
func (q *Queue) wakeLocked(urgent bool) {
	if q.queued && (q.urgent || !urgent) {
		return
	}
	known := q.queued
	q.queued = true
	q.urgent = q.urgent || urgent
	q.s.enqueueDirty(q, !known, urgent)
}

// addDead counts bytes that a clean-up would free in Badger.
func (s *Store) addDead(n uint64) {
	if s.deadBytes.Add(int64(n)) >= s.cleanTrigger() {
		signal(s.checkpointWake)
	}
}

// markDeleted makes the committer let go of what is pending.
func (q *Queue) markDeleted() {
	q.mu.Lock()
	q.s.addDead(q.live.countRange(0, q.badgerHi) * q.average)
	q.deleted = true
	q.settled, q.noted = nil, nil
	q.waiters = nil
	q.wakeLocked(true)
	q.mu.Unlock()
}

// pendingMessage is a message no batch has taken, or what has to come in the order of those.
type pendingMessage struct {
	seq     uint64
	m       *Message
	charge  uint32
	awaits  bool // nothing to write: m waits for what is before
	settles bool // nothing to write but that seq is settled, when m has been
}

// early reports whether a pending message has to wait for another one, or for its own publisher.
func (p *pendingMessage) early() bool {
	switch m := p.m; {
	case p.settles:
		return m.untaken.Load() > 0
	case m.Follows != nil:
		return m.Follows.untaken.Load() > 0
	default:
		return m.Followed && m.untaken.Load() >= held
	}
}

// pendingList is a FIFO that reuses its memory.
type pendingList struct {
	items []pendingMessage
	head  int
}

// maxKeptEntries is how much capacity lists keep when they run empty.
const maxKeptEntries = 64 << 10

func (l *pendingList) push(p pendingMessage) { l.items = append(l.items, p) }

func (l *pendingList) empty() bool { return l.head == len(l.items) }

func (l *pendingList) front() *pendingMessage { return &l.items[l.head] }

func (l *pendingList) pop() {
	l.items[l.head].m = nil
	l.head++
	switch {
	case l.head == len(l.items):
		l.head = 0
		if cap(l.items) > maxKeptEntries {
			l.items = nil
		} else {
			l.items = l.items[:0]
		}
	case l.head >= 1024 && l.head*2 >= len(l.items):
		n := copy(l.items, l.items[l.head:])
		clear(l.items[n:])
		l.items = l.items[:n]
		l.head = 0
	}
}
