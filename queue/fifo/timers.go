package fifo

import "slices"

// quantum is the precision of deadlines in milliseconds: they are rounded up to a multiple of it.
const quantum = 16

// run says that messages with seqs in [lo, hi) have something to do at a time, or at a place: see key. Those that are
// gone by then do not matter.
type run struct{ key, lo, hi uint64 }

func (r *run) before(o *run) bool { return r.key < o.key || r.key == o.key && r.lo < o.lo }

// timerKey orders runs by time; the low 8 bits are the priority of the messages.
func timerKey(at int64, priority uint8) uint64 {
	return min((uint64(max(at, 1))+quantum-1)/quantum, 1<<55)<<8 | uint64(priority)
}

// dueKey is the highest key that is due at a time.
func dueKey(now int64) uint64 {
	return min(uint64(max(now, 0))/quantum, 1<<55)<<8 | 0xff
}

func keyTime(key uint64) int64 { return int64(key >> 8 * quantum) }

// runHeap is a binary heap with the smallest run first.
type runHeap []run

func (h *runHeap) push(r run) {
	*h = append(*h, r)
	h.up(len(*h) - 1)
}

func (h runHeap) up(i int) {
	for r := h[i]; i > 0; {
		parent := (i - 1) / 2
		if !r.before(&h[parent]) {
			break
		}
		h[i], h[parent] = h[parent], r
		i = parent
	}
}

func (h runHeap) down(i int) {
	r := h[i]
	for {
		child := 2*i + 1
		if child >= len(h) {
			break
		}
		if child+1 < len(h) && h[child+1].before(&h[child]) {
			child++
		}
		if !h[child].before(&r) {
			break
		}
		h[i], h[child] = h[child], r
		i = child
	}
}

// remove takes out the run at index i.
func (h *runHeap) remove(i int) {
	last := len(*h) - 1
	(*h)[i] = (*h)[last]
	*h = (*h)[:last]
	if i < last {
		h.down(i)
		h.up(i)
	}
	h.shrink()
}

// shrink gives memory back when most of it is unused.
func (h *runHeap) shrink() {
	if n, c := len(*h), cap(*h); c > sweepSlack && n < c/4 {
		*h = append(make(runHeap, 0, max(2*n, sweepSlack/2)), *h...)
	}
}

// keep removes the runs that f does not want.
func (h *runHeap) keep(f func(run) bool) {
	*h = slices.DeleteFunc(*h, func(r run) bool { return !f(r) })
	for i := len(*h)/2 - 1; i >= 0; i-- {
		h.down(i)
	}
	h.shrink()
}

// timers are the runs of a queue by time. Messages of one priority, time and consecutive seqs share a run, so that a
// uniform time to live costs a run for each quantum.
type timers struct {
	heap runHeap
	open run // the newest one, not in the heap yet, if lo < hi
	next int // index in heap where the search for runs without messages goes on
}

func (t *timers) add(key, seq uint64) {
	if t.open.key == key && t.open.hi == seq && t.open.lo < seq {
		t.open.hi++
		return
	}
	t.close()
	t.open = run{key, seq, seq + 1}
}

func (t *timers) close() {
	if t.open.lo < t.open.hi {
		t.heap.push(t.open)
		t.open = run{}
	}
}

func (t *timers) len() int { return len(t.heap) }

// due returns the first run whose time has come, nil if there is none. The caller shortens it by advance.
func (t *timers) due(now int64) *run {
	limit := dueKey(now)
	if t.open.lo < t.open.hi && t.open.key <= limit {
		t.close()
	}
	if len(t.heap) == 0 || t.heap[0].key > limit {
		return nil
	}
	return &t.heap[0]
}

// advance says that the first run is done with below seq.
func (t *timers) advance(seq uint64) {
	if r := &t.heap[0]; seq < r.hi {
		r.lo = max(r.lo, seq)
		t.heap.down(0)
	} else {
		t.heap.remove(0)
	}
}

// first returns the earliest time.
func (t *timers) first() (at int64, ok bool) {
	key := ^uint64(0)
	if len(t.heap) > 0 {
		key = t.heap[0].key
	}
	if t.open.lo < t.open.hi {
		key = min(key, t.open.key)
	}
	return keyTime(key), key != ^uint64(0)
}

// reset drops all runs.
func (t *timers) reset() {
	t.heap, t.open, t.next = t.heap[:0], run{}, 0
	t.heap.shrink()
}

// sweep looks at a few runs and removes those that live says no to.
func (t *timers) sweep(live func(run) bool) {
	for range sweepStep {
		if t.next >= len(t.heap) {
			t.next = 0
		}
		if len(t.heap) == 0 {
			return
		}
		if live(t.heap[t.next]) {
			t.next++
		} else {
			t.heap.remove(t.next)
		}
	}
}

const (
	sweepStep  = 8  // runs looked at in one call
	sweepSlack = 64 // runs that may be there without a message
)
