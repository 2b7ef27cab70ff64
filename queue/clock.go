package queue

import (
	"container/heap"
	"sync"
	"time"
)

// Timers wake queues at the times they ask for, on one goroutine for all queues of a broker, and
// are the clock that deadlines are told by.
//
// The clock starts at the time of day and goes on with the monotonic clock: setting the machine's
// clock neither expires messages nor keeps them, until the next start reads the time of day again.
type Timers struct {
	start time.Time

	mu      sync.Mutex // after every queue's lock
	queues  timerHeap  // guarded by mu
	closed  bool       // guarded by mu
	wake    chan struct{}
	running sync.WaitGroup
}

// timer is a queue's place in the heap. It is guarded by Timers.mu.
type timer struct {
	at    int64 // milliseconds of the clock
	index int   // in the heap, from 1; 0: not in it
	of    *Queue
}

// NewTimers returns a clock that runs, and timers that wake nobody before Start.
func NewTimers() *Timers {
	return &Timers{start: time.Now(), wake: make(chan struct{}, 1)}
}

// Start has queues woken from now on, those first whose time came before: a broker starts its
// timers when everything is there that dead letters may go to. Close ends them.
func (t *Timers) Start() {
	t.running.Add(1)
	go t.run()
}

// Close stops the timers and waits for a queue that is being woken.
func (t *Timers) Close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.signal()
	t.running.Wait()
}

// Now returns the time in milliseconds since 1970.
func (t *Timers) Now() int64 {
	return t.start.UnixMilli() + time.Since(t.start).Milliseconds()
}

// set wakes k at a time, instead of when it was to be woken so far.
func (t *Timers) set(k *timer, at int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	first := len(t.queues) == 0 || at < t.queues[0].at
	k.at = at
	if k.index == 0 {
		heap.Push(&t.queues, k)
	} else {
		heap.Fix(&t.queues, k.index-1)
	}
	if first {
		t.signal()
	}
}

// stop forgets k.
func (t *Timers) stop(k *timer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k.index > 0 {
		heap.Remove(&t.queues, k.index-1)
	}
}

func (t *Timers) signal() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

func (t *Timers) run() {
	defer t.running.Done()
	alarm := time.NewTimer(time.Hour)
	defer alarm.Stop()
	for {
		k, wait, closed := t.due()
		switch {
		case closed:
			return
		case k != nil:
			k.of.tick(t.Now()) // without locks
		default:
			alarm.Reset(wait)
			select {
			case <-alarm.C:
			case <-t.wake:
			}
		}
	}
}

// due takes the first queue that is due out of the heap, or says how long there is none.
func (t *Timers) due() (k *timer, wait time.Duration, closed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, 0, true
	}
	if len(t.queues) == 0 {
		return nil, time.Hour, false
	}
	if wait = time.Duration(t.queues[0].at-t.Now()) * time.Millisecond; wait > 0 {
		return nil, min(wait, time.Hour), false
	}
	return heap.Pop(&t.queues).(*timer), 0, false
}

type timerHeap []*timer

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i+1, j+1
}

// Push is part of heap.Interface.
func (h *timerHeap) Push(x any) {
	k := x.(*timer)
	*h = append(*h, k)
	k.index = len(*h)
}

// Pop is part of heap.Interface.
func (h *timerHeap) Pop() any {
	old := *h
	k := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	k.index = 0
	return k
}
