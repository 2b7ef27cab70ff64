package broker

import (
	"slices"
	"sort"
	"time"

	"github.com/settmq/settmq/queue"
)

// maxMarks bounds what is kept of a queue; then every second mark goes, and ages are half as exact.
const maxMarks = 64

// marks say when seqs were reached, as far as samples tell: those below seq were there at a time. No message has to
// carry the time of its arrival for that.
type marks []struct {
	seq uint64
	at  time.Time
}

// note adds what a sample saw, and forgets what is below the first seq that matters.
func (m *marks) note(seq, first uint64, now time.Time) {
	i := sort.Search(len(*m), func(i int) bool { return (*m)[i].seq > first })
	*m = slices.Delete(*m, 0, i)
	if n := len(*m); seq > first && (n == 0 || (*m)[n-1].seq < seq) {
		*m = append(*m, struct {
			seq uint64
			at  time.Time
		}{seq, now})
	}
	if len(*m) > maxMarks {
		kept := (*m)[:0]
		for i, mark := range *m {
			if i%2 == 0 || i == len(*m)-1 {
				kept = append(kept, mark)
			}
		}
		*m = kept
	}
}

// since is when a seq was there for certain; the zero time if no sample has seen it.
func (m marks) since(seq uint64) time.Time {
	i := sort.Search(len(m), func(i int) bool { return m[i].seq > seq })
	if i == len(m) {
		return time.Time{}
	}
	return m[i].at
}

// ages are the marks of a queue.
type ages struct {
	arrived, handedOut marks
	round              uint64
}

func (w *watch) noteAges(q Queue, d *queue.Details, now time.Time) {
	if d.Next == 0 {
		return
	}
	a := w.ages[q]
	if a == nil {
		if w.ages == nil {
			w.ages = make(map[Queue]*ages)
		}
		a = new(ages)
		w.ages[q] = a
	}
	a.round = w.round
	a.arrived.note(d.Next, d.Head, now)
	a.handedOut.note(d.HandedOut, d.FirstUnacked, now)
}

func (w *watch) forgetAges() {
	for q, a := range w.ages {
		if a.round != w.round {
			delete(w.ages, q)
		}
	}
}

// Ages tells how long the first ready message of a queue and the first unacknowledged one have been that, at least: up
// to [StatsPeriod] longer, and not counting the time before a restart. It is 0 for those that no sample has seen. d are
// the queue's numbers of now.
func (b *Broker) Ages(q Queue, d *queue.Details) (ready, unacked time.Duration) {
	w := &b.watch
	w.taking.Lock()
	defer w.taking.Unlock()
	a := w.ages[q]
	if a == nil {
		return 0, 0
	}
	if at := a.arrived.since(d.Head); !at.IsZero() && d.Ready > 0 {
		ready = time.Since(at)
	}
	if at := a.handedOut.since(d.FirstUnacked); !at.IsZero() && d.Unacked > 0 {
		unacked = time.Since(at)
	}
	return ready, unacked
}
