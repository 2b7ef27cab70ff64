package journal_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/settmq/settmq/storage/journal"
	"github.com/settmq/settmq/storage/journal/faultfs"
)

// TestModel drives a journal with random operations, kills and power cuts, against a
// list of records.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fs := faultfs.New(1)
		m := &model{fs: fs, rng: newRand(rapid.Uint64().Draw(t, "seed"))}
		m.o = options(fs)
		m.o.SegmentSize = rapid.SampledFrom([]int64{8 << 10, 16 << 10, 64 << 10}).Draw(t, "segment")
		m.o.Spares = rapid.SampledFrom([]int{-1, 1, 2}).Draw(t, "spares")
		fs.SparseAllocate(rapid.Bool().Draw(t, "sparse"))
		m.reopen(t)
		t.Repeat(map[string]func(*rapid.T){
			"append":   m.append,
			"sync":     m.sync,
			"read":     m.read,
			"segments": m.segments,
			"release":  m.release,
			"close":    func(t *rapid.T) { m.check(t, m.j.Close()); m.synced = len(m.want); m.reopen(t) },
			"kill":     func(t *rapid.T) { m.synced = len(m.want); m.restart(t, m.fs.Kill()) },
			"powercut": m.powercut,
		})
		drop(m.j)
	})
}

type model struct {
	fs     *faultfs.FS
	o      journal.Options
	rng    *rand.Rand
	j      *journal.Journal
	want   []entry
	synced int    // records that must survive anything
	from   uint64 // oldest segment that is needed
}

func (m *model) check(t *rapid.T, err error) {
	if err != nil {
		t.Fatal(err)
	}
}

func (m *model) reopen(t *rapid.T) {
	j, got, err := open(m.o, m.from)
	m.check(t, err)
	if len(got) < m.synced || len(got) > len(m.want) {
		t.Fatalf("%d records, want %d to %d", len(got), m.synced, len(m.want))
	}
	if d := differ(got, m.want[:len(got)]); d != "" {
		t.Fatal(d)
	}
	m.j, m.want, m.synced = j, m.want[:len(got)], len(got)
	if m.from == 0 {
		m.from = 1
	}
}

func (m *model) append(t *rapid.T) {
	n := rapid.SampledFrom([]int{0, 1, 7, 100, 4000, 4048, 8191, 30000, 70000, 300000}).Draw(t, "n")
	e, err := appendRecord(m.j, m.rng, randomBytes(m.rng, m.rng.IntN(n+1)))
	m.check(t, err)
	if n := len(m.want); n > 0 && !m.want[n-1].pos.Less(e.pos) {
		t.Fatalf("%v does not follow %v", e.pos, m.want[n-1].pos)
	}
	m.want = append(m.want, e)
}

func (m *model) sync(t *rapid.T) {
	m.check(t, m.j.Sync())
	m.synced = len(m.want)
}

func (m *model) powercut(t *rapid.T) {
	m.restart(t, m.fs.PowerCut(m.rng))
}

// restart goes on with what the dead process left.
func (m *model) restart(t *rapid.T, left *faultfs.FS) {
	drop(m.j)
	m.fs, m.o.FS = left, left
	m.reopen(t)
}

func (m *model) read(t *rapid.T) {
	if len(m.want) == 0 {
		return
	}
	e := m.want[m.rng.IntN(len(m.want))]
	off := m.rng.IntN(len(e.data) + 1)
	p := make([]byte, m.rng.IntN(len(e.data)-off+1))
	m.check(t, m.j.ReadAt(e.pos, uint64(off), p))
	if !bytes.Equal(p, e.data[off:off+len(p)]) {
		t.Fatalf("read of %v+%d differs", e.pos, off)
	}
	if err := m.j.ReadAt(e.pos, uint64(off), make([]byte, len(e.data)-off+1)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("read beyond the record: %v", err)
	}
}

func (m *model) segments(t *rapid.T) {
	var got []entry
	for _, s := range m.j.Segments() {
		m.check(t, m.j.ReplaySegment(s.ID, func(pos journal.Position, record []byte) error {
			got = append(got, entry{pos, bytes.Clone(record)})
			return nil
		}))
	}
	if d := differ(got, m.want); d != "" {
		t.Fatal(d)
	}
}

func (m *model) release(t *rapid.T) {
	upTo := m.from + uint64(m.rng.IntN(3))
	m.check(t, m.j.Release(upTo))
	oldest := m.j.Segments()[0].ID
	if oldest > max(upTo, m.from) {
		t.Fatalf("released up to %d, wanted %d", oldest, upTo)
	}
	gone := 0
	for gone < len(m.want) && m.want[gone].pos.Segment < oldest {
		gone++
	}
	m.want, m.synced, m.from = m.want[gone:], max(0, m.synced-gone), oldest
}

func TestRecordsComeBackFromTheRealFileSystem(t *testing.T) {
	o := journal.Options{Dir: t.TempDir(), SegmentSize: 256 << 10}
	rng := newRand(3)
	var want []entry
	for range 4 {
		j, got := mustOpen(t, o)
		if d := differ(got, want); d != "" {
			t.Fatal(d)
		}
		for i := range 100 {
			n := rng.IntN(20000)
			if i == 50 {
				n = 11 << 20 // several fragments, writes and segments
			}
			want = append(want, mustAppend(t, j, rng, n))
			if i%3 == 0 {
				mustSync(t, j)
			}
		}
		for _, e := range want {
			p := make([]byte, len(e.data))
			if err := j.ReadAt(e.pos, 0, p); err != nil || !bytes.Equal(p, e.data) {
				t.Fatalf("read %v: %v", e.pos, err)
			}
		}
		if free, err := j.Free(); err != nil || free == 0 {
			t.Fatalf("free: %d, %v", free, err)
		}
		mustClose(t, j)
	}
}

func TestCallsInTheWrongStateAreRefused(t *testing.T) {
	fs := faultfs.New(1)
	j, err := journal.Open(options(fs))
	if err != nil {
		t.Fatal(err)
	}
	nothing := func(journal.Position, []byte) error { return nil }
	if _, err := j.Append([][]byte{{1}}); !errors.Is(err, journal.ErrNotReplayed) {
		t.Errorf("Append before Replay: %v", err)
	}
	if err := j.ReplaySegment(1, nothing); !errors.Is(err, journal.ErrNotReplayed) {
		t.Errorf("ReplaySegment before Replay: %v", err)
	}
	if err := j.Replay(0, nothing); err != nil {
		t.Fatal(err)
	}
	if err := j.Replay(0, nothing); err == nil {
		t.Error("a second Replay succeeded")
	}
	if err := j.ReplaySegment(9, nothing); !errors.Is(err, journal.ErrReleased) {
		t.Errorf("ReplaySegment of a segment that is not there: %v", err)
	}
	mustClose(t, j)
	for name, err := range map[string]error{
		"Close": j.Close(), "Sync": j.Sync(), "Release": j.Release(1),
		"ReadAt": j.ReadAt(journal.Position{Segment: 1, Offset: journal.PageSize}, 0, nil),
	} {
		if !errors.Is(err, journal.ErrClosed) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
	if _, err := j.Append(nil); !errors.Is(err, journal.ErrClosed) {
		t.Errorf("Append after Close: %v", err)
	}
}

func TestErrorOfTheCallbackEndsReplay(t *testing.T) {
	fs := faultfs.New(1)
	j, _ := mustOpen(t, options(fs))
	mustAppend(t, j, newRand(1), 10)
	boom := errors.New("boom")
	fail := func(journal.Position, []byte) error { return boom }
	if err := j.ReplaySegment(1, fail); !errors.Is(err, boom) {
		t.Errorf("ReplaySegment: %v", err)
	}
	mustClose(t, j)
	if j, err := journal.Open(options(fs)); err != nil {
		t.Fatal(err)
	} else {
		if err := j.Replay(0, fail); !errors.Is(err, boom) {
			t.Errorf("Replay: %v", err)
		}
		mustClose(t, j)
	}
}

func TestReadRefusesPositionsThatAreNoRecord(t *testing.T) {
	fs := faultfs.New(1)
	j, _ := mustOpen(t, options(fs))
	defer drop(j)
	rng := newRand(5)
	big := mustAppend(t, j, rng, 200000)
	for off := range uint32(64 << 10) {
		pos := journal.Position{Segment: big.pos.Segment, Offset: off}
		if err := j.ReadAt(pos, 0, make([]byte, 1)); (err == nil) != (pos == big.pos) {
			t.Fatalf("ReadAt(%v): %v", pos, err)
		}
	}
	for _, pos := range []journal.Position{{0, 0}, {99, journal.PageSize}, {2, journal.PageSize}, {1, 1<<32 - 1}} {
		if err := j.ReadAt(pos, 0, make([]byte, 1)); err == nil {
			t.Errorf("ReadAt(%v) succeeded", pos)
		}
	}
}

func TestReleasedSegmentsAreReusedAndTheDiskStaysBounded(t *testing.T) {
	fs := faultfs.New(1)
	o := options(fs)
	j, _ := mustOpen(t, o)
	rng := newRand(9)
	var want []entry
	for i := range 2000 {
		e := mustAppend(t, j, rng, rng.IntN(3000))
		want = append(want, e)
		if i%10 == 0 {
			mustSync(t, j)
			if err := j.Release(j.Active()); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(fs.Names()); n > 12 {
			// The keeper may lag behind, but not without bound.
			j.Settle()
			if n := len(fs.Names()); n > 6 {
				t.Fatalf("%d files: %v", n, fs.Names())
			}
		}
	}
	mustSync(t, j)
	if err := j.Release(j.Active()); err != nil {
		t.Fatal(err)
	}
	j.Settle()
	oldest := j.Active()
	for len(want) > 0 && want[0].pos.Segment < oldest {
		if err := j.ReadAt(want[0].pos, 0, nil); !errors.Is(err, journal.ErrReleased) {
			t.Fatalf("read of a released record: %v", err)
		}
		want = want[1:]
	}
	if n := fs.Calls(faultfs.OpAllocate); oldest < 40 || n > 10 {
		t.Errorf("%d files were made for %d segments", n, oldest)
	}
	mustClose(t, j)
	j, got, err := open(o, oldest)
	if err != nil {
		t.Fatal(err)
	}
	if d := differ(got, want); d != "" {
		t.Fatal(d)
	}
	mustClose(t, j)
}

// A released segment must still be there after a crash if the start of its successor is
// not durable: the successor could not be told from a torn one.
func TestReleaseKeepsWhatADurableLogStillNeeds(t *testing.T) {
	fs := faultfs.New(1)
	j, _ := mustOpen(t, options(fs))
	rng := newRand(4)
	for j.Active() == 1 {
		mustAppend(t, j, rng, 4000)
	}
	if err := j.Release(2); err != nil {
		t.Fatal(err)
	}
	if first := j.Segments()[0].ID; first != 1 {
		t.Fatalf("segment 1 was released before segment 2 was durable; the first is %d", first)
	}
	mustSync(t, j)
	if err := j.Release(2); err != nil {
		t.Fatal(err)
	}
	if first := j.Segments()[0].ID; first != 2 {
		t.Fatalf("the first segment is %d, want 2", first)
	}
	mustClose(t, j)
}

func TestSyncReadAndReleaseRunBesideAppend(t *testing.T) {
	o := journal.Options{Dir: t.TempDir(), SegmentSize: 128 << 10}
	j, _ := mustOpen(t, o)
	var mu sync.Mutex
	var want []entry
	stop := make(chan struct{})
	var wg sync.WaitGroup
	beside := func(f func(*rand.Rand) error) {
		wg.Go(func() {
			rng := newRand(2)
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := f(rng); err != nil && !errors.Is(err, journal.ErrReleased) {
					t.Error(err)
					return
				}
				runtime.Gosched()
			}
		})
	}
	beside(func(*rand.Rand) error { return j.Sync() })
	beside(func(rng *rand.Rand) error {
		if a := j.Active(); a > 6 {
			return j.Release(a - 5)
		}
		return nil
	})
	beside(func(rng *rand.Rand) error {
		mu.Lock()
		n := len(want)
		var e entry
		if n > 0 {
			e = want[max(0, n-1-rng.IntN(100))]
		}
		mu.Unlock()
		p := make([]byte, len(e.data))
		if n == 0 {
			return nil
		}
		if err := j.ReadAt(e.pos, 0, p); err != nil {
			return err
		}
		if !bytes.Equal(p, e.data) {
			return errors.New("wrong bytes")
		}
		return nil
	})
	beside(func(*rand.Rand) error {
		return j.ReplaySegment(j.Segments()[0].ID, func(journal.Position, []byte) error { return nil })
	})
	rng := newRand(1)
	for range 1500 {
		e := mustAppend(t, j, rng, rng.IntN(5000))
		mu.Lock()
		want = append(want, e)
		mu.Unlock()
	}
	close(stop)
	wg.Wait()
	mustClose(t, j)
	oldest := uint64(0)
	j, got := mustOpen(t, o)
	if len(got) > 0 {
		oldest = j.Segments()[0].ID
	}
	for len(want) > 0 && want[0].pos.Segment < oldest {
		want = want[1:]
	}
	if d := differ(got, want); d != "" {
		t.Fatal(d)
	}
	mustClose(t, j)
}

func TestLaterSegmentSizesApplyToNewSegments(t *testing.T) {
	fs := faultfs.New(1)
	rng := newRand(8)
	var want []entry
	for _, size := range []int64{64 << 10, 16 << 10, 8192, 130 << 10, 10000} {
		o := options(fs)
		o.SegmentSize = size
		j, got := mustOpen(t, o)
		if d := differ(got, want); d != "" {
			t.Fatal(d)
		}
		for range 40 {
			want = append(want, mustAppend(t, j, rng, rng.IntN(8000)))
		}
		mustClose(t, j)
	}
}
