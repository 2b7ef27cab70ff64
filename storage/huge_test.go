package storage

import (
	"bytes"
	"os"
	"runtime"
	"testing"
)

// The largest message the broker takes goes through the journal, a checkpoint and a restart.
// SETTMQ_HUGE=1 makes it 512 MiB; 40 MiB cross segments and chunks just as well.
func TestHugeMessage(t *testing.T) {
	size := 40 << 20
	o := testOptions(t, t.TempDir())
	if os.Getenv("SETTMQ_HUGE") != "" {
		size = 512 << 20
		o.Small, o.JournalSegment, o.JournalMax = false, 0, 0
	}
	s := mustOpen(t, o)
	q := createQueue(t, s)
	c := newConfirms()
	body := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	publish(t, s, c, 1, 1, body, q)
	c.wait(t, 1)
	check := func(q *Queue) {
		t.Helper()
		items := readAll(t, q, 0)
		if len(items) != 1 || !bytes.Equal(items[0].Message.Body, body) {
			t.Fatal("the message is not what it was")
		}
	}
	check(q)
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	runCheckpoint(t, s)
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > uint64(size)/2+64<<20 {
		t.Errorf("the checkpoint allocated %d bytes for a body of %d", n, size)
	}
	if len(q.records) == 0 {
		t.Fatal("nothing was moved")
	}
	check(q)
	mustClose(t, s)
	s = mustOpen(t, o)
	check(s.Queue(q.ID()))
	mustClose(t, s)
}
