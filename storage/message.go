package storage

import (
	"slices"
	"sync/atomic"
)

// Message is what is stored: four byte fields and who waits for it. One Message may be appended to
// many queues; its bytes are then stored once. Everything exported is set before the first Append
// and immutable from then on, except Targets.
type Message struct {
	Exchange, RoutingKey string
	Properties, Body     []byte

	// Transient messages are stored only so that they can leave memory: they are not there any
	// more after a restart.
	Transient bool

	// Died says that the message was a dead letter before. A restart keeps it with the message's
	// note, if it has one.
	Died bool

	// Rejected is set by the publisher, before it drops its guard, when a queue did not take the
	// message: it tells its client itself, and Confirm is not called.
	Rejected bool

	// Followed is set by the publisher when another message, or a settlement, will follow this one.
	Followed bool
	untaken  atomic.Int32 // of a followed message: appended, and not yet in a batch; and held, if it is

	// Follows, if not nil, is the message that this one tells of: it is written in the batch with which that one is
	// everywhere it was appended to, or later, never before; and it counts down the targets of that one, which
	// count this one too. It has neither Confirm nor Targets of its own, and is appended last.
	Follows *Message
	then    *follower // of a held message: what follows it; the committer's since Release

	// Confirm, when not nil, is told ConfirmSeq once Targets has fallen to 0.
	Confirm    Confirmer
	ConfirmSeq uint64

	// Targets counts what the confirm waits for. The publisher adds 1 per durable queue before it
	// appends, and 1 more as a guard that it drops itself with Done at the end of its fan-out, so
	// that the confirm cannot go out while queues are still being added.
	Targets atomic.Int32
	charged atomic.Bool // bytes counted against the commit budget

	one [1]uint64 // backs the slice given to Confirm by Done

	// Owned by the committer.
	batch  uint64 // batch that wrote the message last
	at     uint32 // offset of its operation in that batch's record
	shared bool   // more than one target in that batch

	// Blind says that no client may see the properties as they are. The store does not keep it: who reads a message
	// back looks at its properties.
	Blind bool
}

// Confirmer is told which messages are safe. Confirm is called from the committer, or from the
// goroutine that calls [Message.Done], without any lock of the store held. It must not block and
// not call back into the store, except to settle messages; seqs ascend and are valid only during the
// call, and alone says that no other Confirmer is told with it. Its dynamic type is
// comparable, normally a pointer: confirms are grouped by it.
type Confirmer interface {
	Confirm(seqs []uint64, alone bool)
}

// Done drops one target and gives the confirm when it was the last.
func (m *Message) Done() {
	if m.Follows != nil {
		m = m.Follows
	}
	if m.Confirm == nil || m.Targets.Add(-1) != 0 {
		return
	}
	to := m.Confirm
	m.Confirm = nil // a message may outlive its publisher's connection by far
	if m.Rejected {
		return
	}
	m.one[0] = m.ConfirmSeq
	to.Confirm(m.one[:], false) // others may follow
}

// Await says that the message is about to be written somewhere: what follows it has to wait for Written. Only for
// followed messages; the store does both for its own queues.
func (m *Message) Await() { m.untaken.Add(1) }

// Written ends what Await began.
func (m *Message) Written() { m.untaken.Add(-1) }

// held is what Hold adds to Message.untaken: more than any number of queues, and it can be added a few times.
const held = 1 << 28

// Hold keeps the message out of every batch until Release, [Queue.Release] or [Queue.SettleWith]. It is called before the message is
// appended, for the moment that this takes: whoever appends to the same queues waits, too. It may be held more than once.
func (m *Message) Hold() {
	m.Followed = true
	m.untaken.Add(held)
}

// follower is a queue that tells of a message.
type follower struct {
	q    *Queue
	next *follower
}

// followedBy notes that q tells of m. Without a hold it would be too late for that.
func (m *Message) followedBy(q *Queue) {
	if m.untaken.Load() >= held {
		m.then = &follower{q, m.then}
	}
}

// Release ends Hold when nothing goes with the message. The committer may notice with some delay.
func (m *Message) Release() { m.untaken.Add(-held) }

// size is what a message weighs in the commit budget and in a batch: an upper bound of its
// encoded length.
func (m *Message) size() int {
	return messageOverhead + len(m.Exchange) + len(m.RoutingKey) + len(m.Properties) + len(m.Body)
}

// Stored is a message read back.
type Stored struct {
	Seq     uint64
	Message *Message
	// Redelivered says that the message may have been handed out before the last restart.
	Redelivered bool
	Note        Note // zero if none was kept
}

// Confirms gathers confirms by Confirmer, so that each is told once for many messages. It belongs to one goroutine
// and is reused.
type Confirms struct {
	runs  []confirmRun
	used  int
	index map[Confirmer]int
}

type confirmRun struct {
	to   Confirmer
	seqs []uint64
}

// Done drops a target of m and notes the confirm if it was the last.
func (r *Confirms) Done(m *Message) {
	if m.Follows != nil {
		m = m.Follows
	}
	if m.Confirm == nil || m.Targets.Add(-1) != 0 {
		return
	}
	to := m.Confirm
	m.Confirm = nil
	if !m.Rejected {
		r.add(to, m.ConfirmSeq)
	}
}

func (r *Confirms) add(to Confirmer, seq uint64) {
	// Messages of one publisher come in runs, so the last one is mostly the right one.
	if r.used > 0 && r.runs[r.used-1].to == to {
		run := &r.runs[r.used-1]
		run.seqs = append(run.seqs, seq)
		return
	}
	i, ok := r.index[to]
	if !ok {
		if r.index == nil {
			r.index = make(map[Confirmer]int)
		}
		if r.used == len(r.runs) {
			r.runs = append(r.runs, confirmRun{})
		}
		i = r.used
		r.used++
		r.runs[i].to = to
		r.index[to] = i
	}
	r.runs[i].seqs = append(r.runs[i].seqs, seq)
}

// Flush gives all confirms noted so far.
func (r *Confirms) Flush() {
	for i := range r.runs[:r.used] {
		run := &r.runs[i]
		// Messages of one channel can reach the batch through several queues.
		if !slices.IsSorted(run.seqs) {
			slices.Sort(run.seqs)
		}
		run.to.Confirm(run.seqs, r.used == 1)
		run.to = nil
		run.seqs = run.seqs[:0]
		if cap(run.seqs) > maxKeptEntries {
			run.seqs = nil
		}
	}
	r.used = 0
	clear(r.index)
}
