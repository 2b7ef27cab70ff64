package histogram

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestBucketsCoverEveryValueOnce(t *testing.T) {
	for i := range buckets - 1 {
		if bucket(upper(i)) != i || bucket(upper(i)+1) != i+1 {
			t.Fatalf("bucket %d ends at %d, which is in %d; the next value in %d", i, upper(i), bucket(upper(i)), bucket(upper(i)+1))
		}
	}
	if bucket(math.MaxUint64) != buckets-1 || upper(buckets-1) != math.MaxUint64 {
		t.Errorf("the largest value is in bucket %d of %d", bucket(math.MaxUint64), buckets)
	}
}

func TestQuantilesAgreeWithSorting(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var h, part Histogram
	var all []time.Duration
	for i := range 100_000 {
		d := time.Duration(math.Exp(r.NormFloat64()*2 + 11))
		all = append(all, d)
		if i%3 == 0 {
			h.Record(d)
		} else {
			part.Record(d)
		}
	}
	h.Merge(&part)
	slices.Sort(all)
	for _, q := range []float64{0, 0.5, 0.9, 0.99, 0.999, 1} {
		want := all[max(int(math.Ceil(q*float64(len(all))))-1, 0)]
		got := h.Quantile(q)
		if got < want || float64(got) > float64(want)*1.017 {
			t.Errorf("quantile %v = %v, want %v", q, got, want)
		}
	}
	if h.Count() != uint64(len(all)) || h.Max() != all[len(all)-1] {
		t.Errorf("count %d, max %v", h.Count(), h.Max())
	}
	var sum time.Duration
	for _, d := range all {
		sum += d
	}
	if want := sum / time.Duration(len(all)); (h.Mean() - want).Abs() > want/1000 {
		t.Errorf("mean %v, want %v", h.Mean(), want)
	}
}

func TestEmptyAndOddValues(t *testing.T) {
	var h Histogram
	if h.Quantile(0.5) != 0 || h.Mean() != 0 || h.Max() != 0 {
		t.Error("an empty histogram has values")
	}
	h.Record(-5)
	h.RecordN(7, 3)
	if h.Quantile(0) != 0 || h.Quantile(0.5) != 7 || h.Count() != 4 {
		t.Errorf("got %v, %v, count %d", h.Quantile(0), h.Quantile(0.5), h.Count())
	}
	h.Reset()
	if h.Count() != 0 {
		t.Error("reset left something")
	}
	if n := testing.AllocsPerRun(100, func() { h.Record(time.Second) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
