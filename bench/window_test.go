package main

import (
	"testing"
	"time"

	"github.com/settmq/settmq/bench/histogram"
)

func TestWindowSettlesInAnyOrder(t *testing.T) {
	w := newWindow(4)
	var h histogram.Histogram
	w.publish(2, 10)
	w.publish(2, 20)
	steps := []struct {
		tag      uint64
		multiple bool
		settled  int
		room     int
	}{
		{3, false, 1, 0}, // the oldest still counts
		{1, false, 1, 1},
		{2, true, 1, 3},
		{4, true, 1, 4},
	}
	for _, s := range steps {
		n, err := w.settle(s.tag, s.multiple, 100, &h)
		if err != nil || n != s.settled || w.room() != s.room {
			t.Errorf("tag %d: settled %d (%v), room %d; want %d and %d", s.tag, n, err, w.room(), s.settled, s.room)
		}
	}
	if h.Count() != 4 || h.Max() != 90 || h.Mean() != 85*time.Nanosecond {
		t.Errorf("%d latencies, at most %v, mean %v", h.Count(), h.Max(), h.Mean())
	}
	w.publish(3, 30)
	if n, err := w.settle(0, true, 40, nil); n != 3 || err != nil || w.outstanding() != 0 {
		t.Errorf("tag 0, multiple: settled %d, %v, %d outstanding", n, err, w.outstanding())
	}
}

func TestWindowRefusesConfirmsForNothing(t *testing.T) {
	w := newWindow(4)
	w.publish(2, 0)
	for _, tag := range []uint64{0, 3, 1 << 40} {
		if _, err := w.settle(tag, false, 0, nil); err == nil {
			t.Errorf("tag %d was never published", tag)
		}
	}
	if _, err := w.settle(1, false, 0, nil); err != nil {
		t.Error(err)
	}
	if _, err := w.settle(1, false, 0, nil); err == nil {
		t.Error("a tag is confirmed twice")
	}
	if n, err := w.settle(1, true, 0, nil); n != 0 || err != nil {
		t.Errorf("a multiple that settles nothing: %d, %v", n, err)
	}
}
