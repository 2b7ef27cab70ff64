package storage

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// taker is a committer whose batches are looked at instead of written.
type taker struct {
	committer
	batchOf map[*Message]uint64 // the last batch with the message in it
}

func newTaker(queues ...*Queue) *taker {
	s := &Store{checkpointWake: make(chan struct{}, 1)}
	for i, q := range queues {
		*q = Queue{id: uint64(i + 1), s: s}
	}
	return &taker{committer: committer{s: s}, batchOf: make(map[*Message]uint64)}
}

// next builds a batch and returns how many messages are in it.
func (k *taker) next() int {
	k.batch++
	k.take()
	for _, it := range k.items {
		k.batchOf[it.m] = k.batch
	}
	n := len(k.items)
	k.finish()
	return n
}

func TestFollowerIsNeverWrittenBeforeWhatItFollows(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var a, b, followers Queue
	k := newTaker(&a, &b, &followers)
	type pair struct{ m, follower *Message }
	var pairs []pair
	var next [3]uint64
	for range 300 {
		for range rng.IntN(20) {
			m := &Message{Followed: true, Body: make([]byte, rng.IntN(1<<rng.IntN(22)))}
			e := &Message{Follows: m}
			targets := rng.IntN(4)
			for i, q := range []*Queue{&a, &b} {
				if targets&(1<<i) != 0 {
					q.Append(next[i], m)
					next[i]++
				}
			}
			followers.Append(next[2], e)
			next[2]++
			if rng.IntN(4) == 0 { // consumed before it is written
				a.Settle(next[0] - 1)
			}
			pairs = append(pairs, pair{m, e})
		}
		k.next()
	}
	for k.next() > 0 {
	}
	late := 0
	for i, p := range pairs {
		m, e := k.batchOf[p.m], k.batchOf[p.follower]
		if e == 0 || e < m {
			t.Fatalf("message %d is in batch %d, what follows it in %d", i, m, e)
		}
		if m > 0 && e > m {
			late++
		}
	}
	t.Logf("%d of %d in a later batch", late, len(pairs))
}

func TestFollowerIsInTheBatchOfWhatItFollows(t *testing.T) {
	var q, followers Queue
	k := newTaker(&followers, &q) // what follows is looked at first
	const n = 5000
	var pairs [n][2]*Message
	for i := range pairs {
		m := &Message{Followed: true, Body: make([]byte, 2000)}
		pairs[i] = [2]*Message{m, {Follows: m}}
		q.Append(uint64(i), m)
		followers.Append(uint64(i), pairs[i][1])
	}
	for k.next() > 0 {
	}
	if k.batchOf[pairs[0][0]] == k.batchOf[pairs[n-1][0]] {
		t.Fatal("one batch took everything")
	}
	for i, p := range pairs {
		if m, e := k.batchOf[p[0]], k.batchOf[p[1]]; m != e {
			t.Fatalf("message %d is in batch %d, what follows it in %d", i, m, e)
		}
	}
}

// A batch that took the followers before they were there takes them when it takes what they follow.
func TestFollowerComesWhileABatchIsTaken(t *testing.T) {
	var q, window, source Queue
	k := newTaker(&q, &window, &source)
	source.Append(0, &Message{})
	k.next()
	for round := range uint64(3) {
		k.batch++
		m := &Message{Body: make([]byte, maxBatch/3*int(round))}
		e := &Message{Follows: m}
		plain := &Message{Followed: true}
		k.take() // nobody has anything
		m.Hold()
		q.Append(round, m)
		window.Append(2*round, e)
		window.Append(2*round+1, plain) // not of this batch: it could be followed itself
		if round == 0 {
			source.SettleWith(0, m)
		} else {
			window.Release(m)
		}
		if size, _ := k.takeQueue(&q, 0); size == 0 {
			t.Fatal("not taken")
		}
		k.takeEarly(maxBatch)
		taken := func(m *Message) bool {
			return slices.ContainsFunc(k.items, func(it batchItem) bool { return it.m == m })
		}
		if !taken(m) || !taken(e) || taken(plain) || round == 0 && len(k.moved) != 1 {
			t.Fatalf("round %d: the message %v, its follower %v, another %v; %d settled", round, taken(m), taken(e), taken(plain), len(k.moved))
		}
		k.finish()
		if k.next() != 1 || k.batchOf[plain] == 0 {
			t.Fatal("left behind for good")
		}
	}
}

// As a publisher appends them, with the committer at work in between: one is enough to fill a batch.
func TestFollowerOfAHeldMessageIsInItsBatch(t *testing.T) {
	var q, followers Queue
	k := newTaker(&q, &followers)
	for i := range uint64(10) {
		m := &Message{Body: make([]byte, maxBatch)}
		m.Hold()
		q.Append(i, m)
		k.next()
		e := &Message{Follows: m}
		followers.Append(i, e)
		if n := k.next(); n > 0 {
			t.Fatal("taken while it is held")
		}
		followers.Release(m)
		if _, urgent, _ := k.s.workWaiting(len(k.queues) > 0); !urgent {
			t.Fatal("nobody is told that it is held no more")
		}
		if k.next(); k.batchOf[m] == 0 || k.batchOf[m] != k.batchOf[e] {
			t.Fatalf("message %d is in batch %d, what follows it in %d", i, k.batchOf[m], k.batchOf[e])
		}
	}
}

func TestFollowerOfWhatIsWrittenElsewhereWaitsWithoutHaste(t *testing.T) {
	var followers Queue
	k := newTaker(&followers)
	m := &Message{Followed: true}
	m.Await()
	followers.Append(0, &Message{Follows: m})
	if n := k.next(); n > 0 {
		t.Fatal("written before what it follows")
	}
	if work, urgent, _ := k.s.workWaiting(len(k.queues) > 0); !work || urgent {
		t.Fatalf("work %v, urgent %v", work, urgent)
	}
	m.Written()
	if n := k.next(); n != 1 {
		t.Fatal("not written after what it follows")
	}
	m.Await()
	followers.Append(1, &Message{Follows: m})
	k.s.closed = true
	k.next()
	if work, _, _ := k.s.workWaiting(len(k.queues) > 0); work {
		t.Fatal("a closed store waits for what nobody writes")
	}
}

// A message and the settlement that comes with it are in one batch, whenever a batch is taken.
func TestMovedMessageIsSettledInTheBatchOfItsCopy(t *testing.T) {
	var to, from Queue
	k := newTaker(&from, &to)
	from.Append(0, &Message{})
	k.next()
	m := &Message{}
	m.Hold()
	to.Append(0, m)
	if n := k.next(); n > 0 {
		t.Fatal("taken while it is held")
	}
	from.SettleWith(0, m)
	if _, urgent, _ := k.s.workWaiting(false); !urgent {
		t.Fatal("nobody is told that it is held no more")
	}
	k.batch++
	k.take()
	if len(k.items) != 1 || len(k.moved) != 1 || len(k.runs) != 1 || k.runs[0] != (run{0, 1}) {
		t.Fatalf("the batch has messages %v, and settles %v", k.items, k.runs)
	}
	if !from.live.has(0) {
		t.Fatal("gone before it is on disk")
	}
	k.finish()

	m = &Message{}
	m.Hold()
	to.Append(1, m)
	m.Release() // refused elsewhere
	if n := k.next(); n != 1 {
		t.Fatal("not taken when it is held no more")
	}
}

func TestMovedMessageIsNotSettledBeforeItsCopyIsWritten(t *testing.T) {
	var to, from Queue
	k := newTaker(&from, &to)
	from.Append(0, &Message{})
	k.next()
	for i := range uint64(2) { // fill a batch
		to.Append(i, &Message{Body: make([]byte, maxBatch/2)})
	}
	m := &Message{}
	m.Hold()
	to.Append(2, m)
	from.SettleWith(0, m)
	for {
		k.batch++
		k.take()
		taken := slices.ContainsFunc(k.items, func(it batchItem) bool { return it.m == m })
		if settled := len(k.moved) > 0; settled != taken {
			t.Fatalf("settled %v, its copy written %v", settled, taken)
		}
		k.finish()
		if taken {
			return
		}
	}
}

type confirmedSeqs []uint64

func (c *confirmedSeqs) Confirm(seqs []uint64, _ bool) { *c = append(*c, seqs...) }

func TestAwaitComesAfterWhatWasAppendedBefore(t *testing.T) {
	var q, followers Queue
	k := newTaker(&q, &followers)
	var got confirmedSeqs
	first := &Message{Followed: true, Confirm: &got, ConfirmSeq: 1}
	first.Targets.Store(2)
	first.Await()
	q.Append(0, first)
	followers.Append(0, &Message{Follows: first})
	for i, queue := range []*Queue{&followers, &q} {
		m := &Message{Confirm: &got, ConfirmSeq: uint64(2 + i)}
		m.Targets.Store(1)
		queue.Await(m)
	}
	k.next()
	if len(got) != 1 || got[0] != 3 {
		t.Fatalf("confirmed %v while the first was not written everywhere, want 3", got)
	}
	first.Written()
	k.next()
	if len(got) != 3 || got[1] != 1 || got[2] != 2 {
		t.Fatalf("confirmed %v, want 3 1 2", got)
	}
}

// A change waits for the messages that were appended before it, also if they fill more than one batch.
func TestEmptyChangeComesBehindWhatWasAppended(t *testing.T) {
	var q Queue
	k := newTaker(&q)
	k.s.overlay, k.s.queues = map[string]overlayEntry{}, map[uint64]*Queue{}
	var got confirmedSeqs
	for i := range uint64(4) {
		m := &Message{Body: make([]byte, 3<<20), Confirm: &got, ConfirmSeq: i}
		m.Targets.Store(1)
		q.Append(i, m)
	}
	ticket := k.s.Apply(Change{})
	for range 10 {
		k.batch++
		if _, err := k.build(); err != nil {
			t.Fatal(err)
		}
		k.finish()
		select {
		case <-ticket.done:
			if len(got) != 4 {
				t.Fatalf("the change is done when %d of 4 messages are written", len(got))
			}
			return
		default:
		}
	}
	t.Fatal("the change is never done")
}

// An empty change waits for a message also if both come while a batch is being taken.
func TestEmptyChangeIsNotInABatchWithoutWhatWasAppended(t *testing.T) {
	var q Queue
	k := newTaker(&q)
	var got confirmedSeqs
	k.take()
	m := &Message{Confirm: &got, ConfirmSeq: 1}
	m.Targets.Store(1)
	q.Append(1, m)
	ticket := k.s.Apply(Change{})
	k.takeChanges()
	k.finish()
	select {
	case <-ticket.done:
		t.Fatal("the change is done and the message is not written")
	default:
	}
	k.batch++
	if _, err := k.build(); err != nil {
		t.Fatal(err)
	}
	k.finish()
	<-ticket.done
	if len(got) != 1 {
		t.Fatal("the message is not written with the change")
	}
}
