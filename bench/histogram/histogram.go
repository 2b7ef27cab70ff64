// Package histogram counts durations and tells their percentiles.
//
// A Histogram has buckets whose width grows with the value, 64 to each power of two, so
// a percentile is at most 1.6 % above the true one, from a nanosecond to centuries, in
// 30 KiB and without allocating. It belongs to one goroutine; Merge brings those of many together.
package histogram

import (
	"math"
	"math/bits"
	"time"
)

const (
	subBits = 6 // 64 buckets per power of two
	subs    = 1 << subBits
	buckets = (64 - subBits + 1) * subs
)

// Histogram counts durations. The zero Histogram is empty.
type Histogram struct {
	counts [buckets]uint64
	total  uint64
	sum    float64 // nanoseconds
	max    uint64
}

// Record counts d. Negative durations count as 0.
func (h *Histogram) Record(d time.Duration) { h.RecordN(d, 1) }

// RecordN counts d n times.
func (h *Histogram) RecordN(d time.Duration, n uint64) {
	v := uint64(max(d, 0))
	h.counts[bucket(v)] += n
	h.total += n
	h.sum += float64(v) * float64(n)
	h.max = max(h.max, v)
}

// Merge adds all that o has counted.
func (h *Histogram) Merge(o *Histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.total += o.total
	h.sum += o.sum
	h.max = max(h.max, o.max)
}

// Reset empties h.
func (h *Histogram) Reset() { *h = Histogram{} }

// Count returns how many durations were recorded.
func (h *Histogram) Count() uint64 { return h.total }

// Max returns the longest duration, exactly.
func (h *Histogram) Max() time.Duration { return time.Duration(h.max) }

// Mean returns the average, or 0 if nothing was recorded.
func (h *Histogram) Mean() time.Duration {
	if h.total == 0 {
		return 0
	}
	return time.Duration(h.sum / float64(h.total))
}

// Quantile returns the duration which a share q (0 to 1) of all recorded ones do not
// exceed, rounded up to the end of its bucket but not above Max. It is 0 if nothing was recorded.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.total == 0 {
		return 0
	}
	rank := uint64(math.Ceil(min(max(q, 0), 1) * float64(h.total)))
	rank = max(rank, 1)
	var seen uint64
	for i, n := range h.counts {
		if seen += n; seen >= rank {
			return time.Duration(min(upper(i), h.max))
		}
	}
	return h.Max()
}

// bucket returns the index for v: v itself below 64, and beyond that the position of the
// highest bit with the six bits after it.
func bucket(v uint64) int {
	if v < subs {
		return int(v)
	}
	shift := bits.Len64(v) - 1 - subBits
	return (shift+1)*subs + int(v>>shift) - subs
}

// upper returns the largest value of bucket i.
func upper(i int) uint64 {
	if i < subs {
		return uint64(i)
	}
	shift := i/subs - 1
	return uint64(i%subs+subs+1)<<shift - 1
}
