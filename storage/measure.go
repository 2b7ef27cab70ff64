package storage

import (
	"slices"
	"sync/atomic"
	"time"
)

// Bounds of the histograms, each the largest value of its bucket.
var (
	syncBounds  = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10} // seconds
	batchBounds = []float64{512, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20}             // bytes
)

// Histogram counts values by size.
type Histogram struct {
	Bounds []float64 // the largest value of each bucket; what is larger is in Count only
	Counts []uint64  // values in each bucket, not in those below
	Count  uint64
	Sum    float64
}

// histogram is a Histogram that one goroutine adds to and any may read.
type histogram struct {
	counts [17]atomic.Uint64 // by bound; the one behind the last bound is what is larger
	sum    atomic.Uint64     // in whatever unit is added
}

func (h *histogram) add(bounds []float64, value float64, n uint64) {
	i, _ := slices.BinarySearch(bounds, value)
	h.counts[i].Add(1)
	h.sum.Add(n)
}

// read returns the values so far; unit is what the sum counts.
func (h *histogram) read(bounds []float64, unit float64) Histogram {
	r := Histogram{Bounds: bounds, Counts: make([]uint64, len(bounds)), Sum: float64(h.sum.Load()) * unit}
	for i := range h.counts[:len(bounds)+1] {
		n := h.counts[i].Load()
		r.Count += n
		if i < len(bounds) {
			r.Counts[i] = n
		}
	}
	return r
}

// measures are what is counted of the journal and of those who wait for it.
type measures struct {
	syncs, records histogram
	stalls         atomic.Uint64
	stalled        atomic.Int64 // ns
}

// timedSync is journal.Sync with the time it takes.
func (s *Store) timedSync() error {
	start := time.Now()
	err := s.journal.Sync()
	took := time.Since(start)
	s.measures.syncs.add(syncBounds, took.Seconds(), uint64(took))
	return err
}

func (s *Store) recordWritten(bufs [][]byte) {
	n := 0
	for _, b := range bufs {
		n += len(b)
	}
	s.measures.records.add(batchBounds, float64(n), uint64(n))
}

// Measures are how long syncs of the journal took, in seconds, how large what was written between two of them was, in
// bytes, and how often and how long publishers had to wait.
type Measures struct {
	Syncs, Records Histogram
	Stalls         uint64
	Stalled        time.Duration
}

// Measures returns the values so far.
func (s *Store) Measures() Measures {
	m := &s.measures
	return Measures{
		Syncs: m.syncs.read(syncBounds, 1e-9), Records: m.records.read(batchBounds, 1),
		Stalls: m.stalls.Load(), Stalled: time.Duration(m.stalled.Load()),
	}
}
