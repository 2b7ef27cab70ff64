package main

import (
	"fmt"
	"time"

	"github.com/settmq/settmq/bench/histogram"
)

// window follows the publishes of one channel until they are confirmed. Tags count from 1
// as the channel's delivery tags do.
type window struct {
	at     []time.Duration // when tag % len(at) was published
	done   []bool          // confirmed, though an older one is not
	oldest uint64          // first tag not confirmed
	next   uint64          // tag of the next publish
}

func newWindow(size int) *window {
	return &window{at: make([]time.Duration, size), done: make([]bool, size), oldest: 1, next: 1}
}

// outstanding is the number of tags from the oldest unconfirmed one on.
func (w *window) outstanding() int { return int(w.next - w.oldest) }

// room is how many more may be published.
func (w *window) room() int { return len(w.at) - w.outstanding() }

// publish notes n publishes at one time, n at most room.
func (w *window) publish(n int, at time.Duration) {
	for range n {
		i := w.next % uint64(len(w.at))
		w.at[i], w.done[i] = at, false
		w.next++
	}
}

// settle handles a confirm that arrived at now and returns how many publishes it settled;
// h, unless nil, gets their latencies. A confirm for what was never published is an error.
func (w *window) settle(tag uint64, multiple bool, now time.Duration, h *histogram.Histogram) (n int, err error) {
	if multiple && tag == 0 {
		tag = w.next - 1 // all so far
	}
	if tag == 0 || tag >= w.next {
		return 0, fmt.Errorf("confirm for tag %d, only %d were published", tag, w.next-1)
	}
	first := tag
	if multiple {
		first = w.oldest
	}
	for t := first; t <= tag; t++ {
		i := t % uint64(len(w.at))
		if t < w.oldest || w.done[i] {
			if !multiple {
				return 0, fmt.Errorf("second confirm for tag %d", t)
			}
			continue
		}
		w.done[i] = true
		n++
		if h != nil {
			h.Record(now - w.at[i])
		}
	}
	for w.oldest < w.next && w.done[w.oldest%uint64(len(w.at))] {
		w.oldest++
	}
	return n, nil
}
