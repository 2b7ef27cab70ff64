package storage

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// expect checks that exactly the given messages live in q, in order, with their bodies.
func expect(t tb, q *Queue, want map[uint64][]byte) {
	t.Helper()
	items := readAll(t, q, 0)
	last := uint64(0)
	for i, it := range items {
		if i > 0 && it.Seq <= last {
			t.Fatalf("queue %d: message %d after %d", q.ID(), it.Seq, last)
		}
		last = it.Seq
		body, ok := want[it.Seq]
		if !ok {
			t.Fatalf("queue %d: message %d should be gone", q.ID(), it.Seq)
		}
		if !bytes.Equal(it.Message.Body, body) {
			t.Fatalf("queue %d: message %d has wrong bytes", q.ID(), it.Seq)
		}
	}
	if len(items) != len(want) {
		t.Fatalf("queue %d: %d messages, want %d", q.ID(), len(items), len(want))
	}
	if n := q.State().Ready; n != uint64(len(want)) {
		t.Fatalf("queue %d: counts %d messages, want %d", q.ID(), n, len(want))
	}
}

// runCheckpoint moves everything that is synced now out of the journal.
func runCheckpoint(t tb, s *Store) {
	t.Helper()
	q, c := createQueue(t, s), newConfirms()
	from := s.lastSynced()
	for i := 0; s.lastSynced() == from; i++ {
		publish(t, s, c, uint64(i), uint64(i), make([]byte, 50_000), q)
		c.wait(t, i+1)
	}
	if err := s.Apply(Change{DeleteQueues: []uint64{q.ID()}}).Wait(); err != nil {
		t.Fatal(err)
	}
	if err := s.checkpointNowAndWait(); err != nil {
		t.Fatalf("checkpoint: %v", err)
	}
}

// keys counts the keys of a table of the state database.
func keys(t tb, s *Store, table byte) (n int) {
	t.Helper()
	err := s.state.scan([]byte{table}, false, func(_, _ []byte) error { n++; return nil })
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestMessagesSurviveCheckpoints(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, testOptions(t, dir))
	a, b := createQueue(t, s), createQueue(t, s)
	inA, inB := map[uint64][]byte{}, map[uint64][]byte{}
	c := newConfirms()
	n := 0
	sizes := []int{0, 100, 3000, 5000, 70_000, 300_000, 1_500_000}
	for round := range 3 {
		for i := range uint64(60) {
			seq := uint64(round)*100 + i
			size := sizes[i%uint64(len(sizes))]
			if i > 20 {
				size = int(i)
			}
			body := bodyOf(a.ID(), seq, size)
			n++
			switch i % 3 {
			case 0:
				publish(t, s, c, uint64(n), seq, body, a)
				inA[seq] = body
			case 1:
				publish(t, s, c, uint64(n), seq, body, b)
				inB[seq] = body
			case 2:
				publish(t, s, c, uint64(n), seq, body, a, b)
				inA[seq], inB[seq] = body, body
			}
		}
		c.wait(t, n)
		runCheckpoint(t, s)
		expect(t, a, inA)
		expect(t, b, inB)
		for seq := range inA {
			if seq%5 == uint64(round) {
				a.Settle(seq)
				delete(inA, seq)
			}
		}
	}
	if a.badgerHi == 0 || len(a.records) == 0 || keys(t, s, keyBody) == 0 {
		t.Fatalf("nothing was moved: %d, %d records, %d bodies", a.badgerHi, len(a.records), keys(t, s, keyBody))
	}
	mustClose(t, s)
	for range 2 {
		s = mustOpen(t, testOptions(t, dir))
		a, b = s.Queue(a.ID()), s.Queue(b.ID())
		expect(t, a, inA)
		expect(t, b, inB)
		bytes := uint64(0)
		for _, body := range inA {
			bytes += uint64(len(body))
		}
		if got := a.State().Bytes; got != bytes {
			t.Fatalf("recovered %d bytes, want %d", got, bytes)
		}
		runCheckpoint(t, s)
		mustClose(t, s)
	}
}

// A kill while Badger writes a table, or between truncating and removing one, leaves a file that its
// MANIFEST does not name.
func TestTablesThatNobodyListsAreNoDamage(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, testOptions(t, dir))
	q := createQueue(t, s)
	c := newConfirms()
	want := map[uint64][]byte{0: bodyOf(q.ID(), 0, 500)}
	publish(t, s, c, 1, 0, want[0], q)
	c.wait(t, 1)
	runCheckpoint(t, s)
	mustClose(t, s)
	state := filepath.Join(dir, "state")
	whole, err := filepath.Glob(filepath.Join(state, "*.sst"))
	if err != nil || len(whole) == 0 {
		t.Fatalf("no table: %v", err)
	}
	data, err := os.ReadFile(whole[0])
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"000901.sst": nil, "000902.sst": data[:len(data)/2]} {
		if err := os.WriteFile(filepath.Join(state, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s = mustOpen(t, testOptions(t, dir))
	expect(t, s.Queue(q.ID()), want)
	mustClose(t, s)
	if left, _ := filepath.Glob(filepath.Join(state, "00090?.sst")); len(left) > 0 {
		t.Errorf("%v is still there", left)
	}
}

// Publishers that are held for want of space depend on it: nothing else may ever happen again.
func TestMessagesSettledDuringACheckpointAreLeftForTheNext(t *testing.T) {
	for name, before := range map[string]bool{"moved by this one": false, "moved by an earlier one": true} {
		t.Run(name, func(t *testing.T) {
			var settle func()
			o := testOptions(t, t.TempDir())
			o.afterBarrier = func(step string) {
				if step == "data" && settle != nil {
					settle()
					settle = nil
				}
			}
			s := mustOpen(t, o)
			q, c := createQueue(t, s), newConfirms()
			for seq := range uint64(20) {
				publish(t, s, c, seq+1, seq, bodyOf(q.ID(), seq, 3000), q)
			}
			c.wait(t, 20)
			if before {
				runCheckpoint(t, s)
			}
			// Taken by the checkpointer with its next request.
			settle = func() { q.SettleRange(0, 20) }
			runCheckpoint(t, s)
			if n := keys(t, s, keyRecord); n == 0 {
				t.Fatal("no record was written, or it is gone already")
			}
			if s.deadBytes.Load() <= 0 {
				t.Error("nothing asks for another checkpoint")
			}
			runCheckpoint(t, s)
			if n := keys(t, s, keyRecord); n > 0 {
				t.Errorf("%d records are left", n)
			}
			mustClose(t, s)
		})
	}
}

func TestDeadRecordsAndBodiesAreDeleted(t *testing.T) {
	s := mustOpen(t, testOptions(t, t.TempDir()))
	defer mustClose(t, s)
	a, b := createQueue(t, s), createQueue(t, s)
	c := newConfirms()
	const n = 200
	for i := range uint64(n) {
		publish(t, s, c, i, i, bodyOf(1, i, 6000), a, b)
	}
	c.wait(t, n)
	runCheckpoint(t, s)
	if keys(t, s, keyRecord) == 0 || keys(t, s, keyBody) == 0 {
		t.Fatal("nothing was moved")
	}
	a.SettleRange(0, n)
	runCheckpoint(t, s)
	expect(t, a, nil)
	if got := readAll(t, b, 0); len(got) < n-50 {
		t.Fatalf("purging one queue left %d messages in the other", len(got))
	}
	for i := range uint64(n) {
		b.Settle(i)
	}
	runCheckpoint(t, s)
	runCheckpoint(t, s)
	for _, table := range []byte{keyRecord, keyBody, keyBodyRefs, keyLive} {
		if k := keys(t, s, table); k != 0 {
			t.Errorf("%d keys of %c are left", k, table)
		}
	}
}

func TestDeletedQueueIsGoneForGood(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, testOptions(t, dir))
	a, b := createQueue(t, s), createQueue(t, s)
	c := newConfirms()
	inB := map[uint64][]byte{}
	for i := range uint64(400) {
		body := bodyOf(1, i, 2000)
		publish(t, s, c, i, i, body, a, b)
		inB[i] = body
	}
	c.wait(t, 400)
	runCheckpoint(t, s)
	if err := s.Apply(Change{DeleteQueues: []uint64{a.ID()}}).Wait(); err != nil {
		t.Fatal(err)
	}
	if s.Queue(a.ID()) != nil {
		t.Fatal("deleted queue is still there")
	}
	publish(t, s, c, 400, 400, nil, a) // a late publisher gets its confirm
	c.wait(t, 401)
	mustClose(t, s)
	s = mustOpen(t, testOptions(t, dir))
	defer func() { mustClose(t, s) }()
	if s.Queue(a.ID()) != nil {
		t.Fatal("deleted queue came back")
	}
	b = s.Queue(b.ID())
	expect(t, b, inB)
	runCheckpoint(t, s)
	expect(t, b, inB)
	if err := s.state.scan(queueKey(keyRecord, a.ID()), false, func(k, _ []byte) error {
		t.Errorf("key %x is left", k)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func TestFanOutIsStoredOnce(t *testing.T) {
	s := mustOpen(t, testOptions(t, t.TempDir()))
	defer mustClose(t, s)
	var queues []*Queue
	for range 20 {
		queues = append(queues, createQueue(t, s))
	}
	c := newConfirms()
	// One slow sync gathers each message's targets in one batch.
	s.opts.SyncDelay = 5 * time.Millisecond
	before := journalUsed(s)
	publish(t, s, c, 0, 0, bytes.Repeat([]byte("x"), 100_000), queues...)
	c.wait(t, 1)
	if used := journalUsed(s) - before; used > 300_000 {
		t.Fatalf("%d bytes for one body in 20 queues", used)
	}
	runCheckpoint(t, s)
	bodies := 0
	for _, q := range queues {
		for _, r := range q.records {
			bodies += int(r.count)
		}
	}
	if n := keys(t, s, keyBodyRefs); bodies != 20 || n > 2 {
		t.Fatalf("%d copies of bodies, %d shared bodies", bodies, n)
	}
	for _, q := range queues {
		items := readAll(t, q, 0)
		if !strings.HasPrefix(string(items[0].Message.Body), "xxx") || len(items[0].Message.Body) != 100_000 {
			t.Fatal("wrong body")
		}
	}
}

func journalUsed(s *Store) (n int64) {
	for _, seg := range s.journal.Segments() {
		n += seg.Used
	}
	return n
}

func TestDrainedBacklogGivesItsSpaceBack(t *testing.T) {
	o := testOptions(t, t.TempDir())
	s := mustOpen(t, o)
	defer mustClose(t, s)
	q := createQueue(t, s)
	c := newConfirms()
	const n = 1200
	for i := range uint64(n) {
		publish(t, s, c, i, i, bodyOf(1, i, 40_000), q)
	}
	c.wait(t, n)
	runCheckpoint(t, s)
	full := valueLogBytes(t, o.Dir)
	if full < n*40_000/2 {
		t.Fatalf("value logs of only %d bytes", full)
	}
	if said := s.Stats().StateBytes; said < n*40_000/2 || said > 2*full {
		t.Errorf("the state is said to have %d bytes, the value logs have %d", said, full)
	}
	q.SettleRange(0, n-100)
	runCheckpoint(t, s)
	runCheckpoint(t, s)
	if left := valueLogBytes(t, o.Dir); left > full*2/3 {
		t.Fatalf("%d of %d bytes are left after draining", left, full)
	}
	if items := readAll(t, q, 0); len(items) != 100 || !bytes.Equal(items[0].Message.Body, bodyOf(1, n-100, 40_000)) {
		t.Fatal("wrong messages after reclaim")
	}
}

// Space is taken back when it is worth the work, and not in the middle of a drain: nothing takes more of it then.
func TestReclaimTrigger(t *testing.T) {
	dir := t.TempDir()
	s := &Store{opts: Options{Dir: dir}, state: &stateDB{dir: dir}}
	want := func(step string, trigger uint64) {
		t.Helper()
		if got := s.reclaimTrigger(false); got != trigger {
			t.Errorf("%s: %d deleted bytes are worth it, want %d", step, got, trigger)
		}
		if got := s.reclaimTrigger(true); got != 64<<20 {
			t.Errorf("%s, once in a while: %d, want 64 MiB", step, got)
		}
	}
	want("nothing deleted", reclaimBusy)
	s.reclaimable = 1 << 30
	log := func(name string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	log("000002.vlog")
	want("one log, which is written to", math.MaxUint64)
	log("000001.vlog")
	want("one that is full", reclaimBusy)
	s.reclaimedTo = s.state.fullValueLogs()
	want("the same as after the last reclaim", math.MaxUint64)
	log("000003.vlog")
	want("one more", reclaimBusy)
	s.held.Store(heldNoSpace)
	if got := s.reclaimTrigger(false); got != reclaimIfShort {
		t.Errorf("short of space: %d, want %d", got, uint64(reclaimIfShort))
	}
}

// valueLogBytes is the disk space of Badger's value logs.
func valueLogBytes(t tb, dir string) (n int64) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "state", "*.vlog"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if info, err := os.Stat(name); err == nil {
			n += info.Size()
		}
	}
	return n
}

// Recovery must find out again who shares a body; the first reader of a message used to be taken
// for its only one.
func TestSharedBodyOutlivesOneReaderAfterRecovery(t *testing.T) {
	dir := t.TempDir()
	o := testOptions(t, dir)
	o.SyncDelay = 5 * time.Millisecond // gathers both targets in one batch
	s := mustOpen(t, o)
	a, b := createQueue(t, s), createQueue(t, s)
	c := newConfirms()
	for i := range uint64(20) {
		publish(t, s, c, i, i, bodyOf(1, i, 300_000), a, b)
	}
	c.wait(t, 20)
	mustClose(t, s)
	s = mustOpen(t, testOptions(t, dir))
	defer func() { mustClose(t, s) }()
	a, b = s.Queue(a.ID()), s.Queue(b.ID())
	runCheckpoint(t, s)
	b.SettleRange(0, 20)
	runCheckpoint(t, s)
	runCheckpoint(t, s)
	want := map[uint64][]byte{}
	for i := range uint64(20) {
		want[i] = bodyOf(1, i, 300_000)
	}
	expect(t, a, want)
}

// TestCloseSparesTheNextOpenAReplay: what little lives is moved out of the journal; a backlog is not.
func TestCloseSparesTheNextOpenAReplay(t *testing.T) {
	for _, backlog := range []bool{false, true} {
		o := testOptions(t, t.TempDir())
		o.JournalMax = 8 << 20                   // nothing is moved before
		o.overdue = func() bool { return false } // however slow the machine is
		s := mustOpen(t, o)
		q, c := createQueue(t, s), newConfirms()
		want := map[uint64][]byte{}
		const n, size = 400, 5_000
		for seq := range uint64(n) {
			body := bodyOf(q.ID(), seq, size)
			publish(t, s, c, seq, seq, body, q)
			want[seq] = body
		}
		c.wait(t, n)
		if !backlog {
			q.SettleRange(10, n-10)
			for seq := range uint64(n) {
				if seq >= 10 && seq < n-10 {
					delete(want, seq)
				}
			}
		}
		mustClose(t, s)

		s = mustOpen(t, o)
		r := s.Recovered()
		if all := uint64(n * size); !r.Clean || r.Messages != uint64(len(want)) || (r.Bytes > all/2) != backlog {
			t.Errorf("backlog %v: recovered %+v, wrote %d bytes", backlog, r, all)
		}
		expect(t, s.Queue(q.ID()), want)
		mustClose(t, s)
	}
}
