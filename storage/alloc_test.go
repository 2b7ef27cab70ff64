package storage

import (
	"runtime"
	"testing"
)

// One published, committed and settled message costs no allocation beyond its Message.
func TestSteadyStateDoesNotAllocatePerMessage(t *testing.T) {
	o := testOptions(t, t.TempDir())
	o.JournalSegment, o.JournalMax = 16<<20, 64<<20
	s := mustOpen(t, o)
	defer mustClose(t, s)
	q := createQueue(t, s)
	c := &windowConfirms{}
	c.cond.L = &c.mu
	body := make([]byte, 1024)
	const n = 10_000
	messages := make([]Message, 3*n)
	run := func(lo, hi uint64) {
		for i := lo; i < hi; i++ {
			c.acquire(500)
			m := &messages[i]
			m.Body, m.Confirm, m.ConfirmSeq = body, c, i
			m.Targets.Store(1)
			if err := s.Reserve(len(body)); err != nil {
				t.Fatal(err)
			}
			q.Append(i, m)
			if i >= 500 {
				q.Settle(i - 500)
			}
		}
	}
	run(0, n) // lists and pools grow to their size
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	run(n, 3*n)
	runtime.ReadMemStats(&after)
	if per := float64(after.Mallocs-before.Mallocs) / (2 * n); per > 0.1 {
		t.Errorf("%.2f allocations per message", per)
	}
	if per := float64(after.TotalAlloc-before.TotalAlloc) / (2 * n); per > 64 {
		t.Errorf("%.0f bytes allocated per message", per)
	}
}
