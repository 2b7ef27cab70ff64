package main

import (
	"testing"
	"time"

	"github.com/settmq/settmq/internal/testbroker"
)

func TestMain(m *testing.M) { testbroker.Main(m) }

// TestTortureShort is the program with small figures: on a child of its own, or with cut
// connections on AMQP_URL.
func TestTortureShort(t *testing.T) {
	if testing.Short() {
		t.Skip("takes about ten seconds")
	}
	o := DefaultOptions()
	o.Kills, o.Messages, o.Duration = 6, 5000, 90*time.Second
	o.Seed = 1
	o.Dir = t.TempDir()
	o.DrainEvery = 3
	o.Progress = t.Output()
	o.URL, _ = testbroker.External()
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(r.Line())
	if !r.OK {
		r.Report(t.Output())
		t.Fail()
	}
	if r.StreamConfirmed == 0 || r.StreamDeliveries < r.StreamConfirmed {
		t.Errorf("too little happened in streams: %d confirmed, %d deliveries", r.StreamConfirmed, r.StreamDeliveries)
	}
	if r.Kills < o.Kills || r.Stats.Confirmed < o.Messages || r.Stats.Redelivered == 0 {
		t.Errorf("too little happened: %+v", r.Stats)
	}
}

// TestResultNamesEveryViolation keeps every kind in the closing line.
func TestResultNamesEveryViolation(t *testing.T) {
	r := Result{Counts: map[Kind]int{Lost: 1, Duplicate: 2, Disorder: 3, Ghost: 4, Died: 5}}
	const want = "torture: FAILED: 0 kills (0 more in recovery), 0 confirmed, 0 deliveries, in streams 0 and 0; 1 lost, 2 unflagged duplicates, " +
		"3 order breaks, 9 other violations; restart median 0 ms, max 0 ms; 0 s, seed 0"
	if got := r.Line(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
