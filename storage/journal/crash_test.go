package journal_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/settmq/settmq/storage/journal"
	"github.com/settmq/settmq/storage/journal/faultfs"
)

// scene is a log whose last batch was not synced: the state before and after its write.
type scene struct {
	before, after map[string][]byte
	durable, all  []entry
}

// stage writes records, syncs, and appends one more of size last. With recycled the
// segments have lived before, so that old records stand where new ones are torn.
func stage(t testing.TB, seed uint64, last int, recycled bool) *scene {
	t.Helper()
	fs := faultfs.New(seed)
	rng := newRand(seed)
	j, _ := mustOpen(t, options(fs))
	if recycled {
		for j.Active() < 6 {
			mustAppend(t, j, rng, 1+rng.IntN(3000))
			mustSync(t, j)
			if err := j.Release(j.Active()); err != nil {
				t.Fatal(err)
			}
			j.Settle()
		}
	}
	sc := &scene{}
	first := j.Active() + 1
	for range 20 {
		if e := mustAppend(t, j, rng, 1+rng.IntN(3000)); e.pos.Segment >= first {
			sc.durable = append(sc.durable, e)
		}
	}
	for len(sc.durable) < 10 {
		if e := mustAppend(t, j, rng, 1+rng.IntN(3000)); e.pos.Segment >= first {
			sc.durable = append(sc.durable, e)
		}
	}
	mustSync(t, j)
	if err := j.Release(first); err != nil {
		t.Fatal(err)
	}
	j.Settle()
	sc.before = contents(t, fs)
	sc.all = append(sc.durable[:len(sc.durable):len(sc.durable)], mustAppend(t, j, rng, last))
	j.Settle()
	sc.after = contents(t, fs)
	fs.Kill()
	drop(j)
	return sc
}

func contents(t testing.TB, fs *faultfs.FS) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for _, name := range fs.Names() {
		b, err := fs.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = b
	}
	return files
}

// changes lists the byte ranges in which the last batch was written, as sector numbers
// per file.
func (sc *scene) changes() (sectors []place) {
	for name, after := range sc.after {
		before, ok := sc.before[name]
		if !ok || len(before) != len(after) {
			continue // a file prepared meanwhile
		}
		for off := 0; off < len(after); off += 512 {
			if string(before[off:off+512]) != string(after[off:off+512]) {
				sectors = append(sectors, place{name, off})
			}
		}
	}
	return sectors
}

type place struct {
	name string
	off  int
}

// image builds a file system with the after state of only some bytes.
func (sc *scene) image(apply func(files map[string][]byte)) *faultfs.FS {
	files := map[string][]byte{}
	for name, b := range sc.after {
		if before, ok := sc.before[name]; ok {
			b = before
		}
		files[name] = append([]byte(nil), b...)
	}
	apply(files)
	fs := faultfs.New(1)
	for name, b := range files {
		fs.WriteFile(name, b)
	}
	return fs
}

// reopenTwice opens after a crash, appends, and opens again: what is appended after a
// torn end must follow it, and nothing torn may come back.
func (sc *scene) reopenTwice(t *testing.T, fs *faultfs.FS, rng *rand.Rand) int {
	t.Helper()
	j, got, err := open(options(fs), 0)
	if err != nil {
		t.Fatal(err)
	}
	checkPrefix(t, got, sc.all, len(sc.durable))
	more := append(got[:len(got):len(got)], mustAppend(t, j, rng, 1+rng.IntN(2000)))
	mustSync(t, j)
	fs = fs.PowerCut(rng)
	drop(j)
	j, again := mustOpen(t, options(fs))
	if d := differ(again, more); d != "" {
		t.Fatal(d)
	}
	mustClose(t, j)
	return len(got)
}

func TestWriteTornAtEveryByteLosesOnlyTheUnsyncedRecord(t *testing.T) {
	for _, recycled := range []bool{false, true} {
		for _, last := range []int{8100, 40, 100} {
			t.Run(fmt.Sprintf("recycled=%v/%d", recycled, last), func(t *testing.T) {
				sc := stage(t, 11, last, recycled)
				changed := sc.changes()
				if len(changed) == 0 {
					t.Fatal("the last record changed nothing")
				}
				name := changed[0].name
				start := changed[0].off
				end := changed[len(changed)-1].off + 512
				rng := newRand(1)
				whole := 0
				for cut := start; cut <= end; cut += stride {
					fs := sc.image(func(files map[string][]byte) {
						copy(files[name][start:cut], sc.after[name][start:cut])
					})
					if cut%(16*stride) == 0 || cut > end-20 || cut < start+200 {
						if sc.reopenTwice(t, fs, rng) == len(sc.all) {
							whole++
						}
						continue
					}
					j, got := mustOpen(t, options(fs))
					checkPrefix(t, got, sc.all, len(sc.durable))
					if len(got) == len(sc.all) {
						whole++
					}
					mustClose(t, j)
				}
				if whole == 0 && stride == 1 {
					t.Error("the whole write did not bring the record back")
				}
			})
		}
	}
}

func TestAnySubsetOfUnsyncedSectorsLosesOnlyTheUnsyncedRecord(t *testing.T) {
	for seed := range uint64(8) {
		sc := stage(t, 100+seed, []int{30000, 5000, 150000, 600}[seed%4], seed%2 == 0)
		changed := sc.changes()
		rng := newRand(seed)
		for range 60 {
			keep := rng.Float64()
			fs := sc.image(func(files map[string][]byte) {
				for _, p := range changed {
					if rng.Float64() < keep {
						copy(files[p.name][p.off:p.off+512], sc.after[p.name][p.off:])
					}
				}
			})
			sc.reopenTwice(t, fs, rng)
		}
	}
}

// Records appended without a sync in between, as a pipelining committer does, may reach
// the disk in any order. A valid one behind a hole is no corruption, and it must not come
// back when a new record of the old one's size fills the hole.
func TestRecordBehindAHoleNeverComesBack(t *testing.T) {
	fs := faultfs.New(1)
	rng := newRand(6)
	j, _ := mustOpen(t, options(fs))
	want := []entry{mustAppend(t, j, rng, 500)}
	mustSync(t, j)
	hole := mustAppend(t, j, rng, 5000)
	ghost := mustAppend(t, j, rng, 5000)
	j.Settle()
	fs = fs.Kill()
	drop(j)
	name := filepath.Join(dir, "0000000000000001.seg")
	b, err := fs.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	old := bytes.Clone(b)
	clear(b[hole.pos.Offset+64 : hole.pos.Offset+2000])
	fs.WriteFile(name, b)

	j, got := mustOpen(t, options(fs))
	if d := differ(got, want); d != "" {
		t.Fatal(d)
	}
	if !j.Recovery().Torn {
		t.Error("the dropped end was not noticed")
	}
	want = append(want, mustAppend(t, j, rng, 5000))
	if want[1].pos != hole.pos {
		t.Fatalf("the new record is at %v, not over the torn one at %v", want[1].pos, hole.pos)
	}
	mustSync(t, j)
	// The mark behind the new record would hide the ghost at the same place. It is not
	// synced, so a power cut may take it and leave the old sector.
	b, err = fs.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	copy(b[ghost.pos.Offset:], old[ghost.pos.Offset:])
	fs = fs.Kill()
	drop(j)
	fs.WriteFile(name, b)
	j, got = mustOpen(t, options(fs))
	if d := differ(got, want); d != "" {
		t.Fatal(d)
	}
	mustClose(t, j)
}

// Power cuts in a row: what one recovery leaves must be as good as what a run leaves, also
// where a torn record reached over several segments that were then removed, and also where
// replay starts at the segment that was active then, as after a checkpoint.
func TestPowerCutAfterPowerCutLosesOnlyUnsyncedRecords(t *testing.T) {
	sizes := []int{10, 3000, 30000, 70000, 200000}
	for seed := range uint64(320 / stride) {
		fs := faultfs.New(seed)
		rng := newRand(seed)
		o := options(fs)
		o.Spares = rng.IntN(4) - 1
		o.SegmentSize = []int64{8 << 10, 32 << 10}[rng.IntN(2)]
		var want []entry
		synced, from := 0, uint64(0)
		for range 12 {
			j, got, err := open(o, from)
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			checkPrefix(t, got, want, synced)
			if rng.IntN(4) == 0 {
				from = j.Active()
				if err := j.Release(from); err != nil {
					t.Fatal(err)
				}
				for len(got) > 0 && got[0].pos.Segment < from {
					got = got[1:]
				}
			}
			want, synced = got, len(got)
			for range rng.IntN(3) {
				want = append(want, mustAppend(t, j, rng, rng.IntN(sizes[rng.IntN(len(sizes))])))
				if rng.IntN(3) == 0 {
					mustSync(t, j)
					synced = len(want)
				}
			}
			if rng.IntN(5) == 0 {
				fs = fs.Kill()
				synced = len(want)
			} else {
				fs = fs.PowerCut(rng)
			}
			drop(j)
			o.FS = fs
		}
	}
}

// A power cut can leave the seal of a segment and nothing of the first record in the next one,
// which is then active. A checkpoint may have replay start there before a record is synced in it.
func TestReplayMayStartAtAnActiveSegmentWithoutARecord(t *testing.T) {
	for seed := range uint64(10) {
		fs := faultfs.New(seed)
		rng := newRand(seed)
		j, _ := mustOpen(t, options(fs))
		var prepared []byte
		for pos := (journal.Position{}); pos.Segment < 2; {
			mustSync(t, j)
			j.Settle()
			prepared, _ = fs.ReadFile(segmentName(2)) // not there at first
			pos = mustAppend(t, j, rng, 1000).pos
		}
		fs = fs.Kill()
		drop(j)
		fs.WriteFile(segmentName(2), prepared)
		j, _ = mustOpen(t, options(fs))
		if end := (journal.Position{Segment: 2, Offset: journal.PageSize}); j.Recovery().End != end {
			t.Fatalf("the log ends at %v, not at %v", j.Recovery().End, end)
		}
		if err := j.Release(2); err != nil {
			t.Fatal(err)
		}
		fs = fs.PowerCut(rng)
		drop(j)
		j, got, err := open(options(fs), 2)
		if err != nil || len(got) > 0 {
			t.Fatalf("seed %d: %d records, %v", seed, len(got), err)
		}
		want := []entry{mustAppend(t, j, rng, 1000)}
		mustSync(t, j)
		fs = fs.PowerCut(rng)
		drop(j)
		j, got, err = open(options(fs), 2)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if d := differ(got, want); d != "" {
			t.Fatal(d)
		}
		mustClose(t, j)
	}
}

// TestFailureOfTheNthCallIsFinal lets each call in a run fail once. R-06.
func TestFailureOfTheNthCallIsFinal(t *testing.T) {
	boom := errors.New("boom")
	for _, ops := range []faultfs.Op{
		faultfs.OpMutate, faultfs.OpWrite, faultfs.OpSync, faultfs.OpRename, faultfs.OpSyncDir,
		faultfs.OpAllocate, faultfs.OpRemove, faultfs.OpOpen, faultfs.OpRead, faultfs.OpReadDir,
	} {
		failed := 0
		for n := 1; ; n++ {
			fs := faultfs.New(uint64(n))
			rng := newRand(uint64(n))
			fs.FailAt(ops, n, boom)
			before := fs.Calls(ops)
			want, synced, tried, err := failingRun(t, fs, rng)
			if err == nil {
				if fs.Calls(ops)-before >= n {
					t.Fatalf("call %d of %b failed unnoticed", n, ops)
				}
				break
			}
			failed++
			if !errors.Is(err, boom) {
				t.Fatalf("call %d of %b: %v", n, ops, err)
			}
			fs = fs.PowerCut(rng)
			j, got, err := open(options(fs), 0)
			if err != nil {
				t.Fatalf("open after call %d of %b failed: %v", n, ops, err)
			}
			for len(want) > 0 && want[0].pos.Segment < j.Segments()[0].ID {
				want, synced = want[1:], synced-1
			}
			if n := len(want); len(got) == n+1 && bytes.Equal(got[n].data, tried) {
				got = got[:n] // the Append that failed has written everything
			}
			checkPrefix(t, got, want, synced)
			mustClose(t, j)
		}
		if failed == 0 && ops != faultfs.OpRemove {
			t.Errorf("no call of %b ever failed", ops)
		}
	}
}

// A segment that could not be taken out of the log stays, and so must the ones behind it,
// also those that a later Release named: a gap would look like corruption.
func TestFailedRecycleLeavesNoGap(t *testing.T) {
	boom := errors.New("boom")
	for _, first := range []int{1, 2} { // how many the batch that fails has
		fs := faultfs.New(1)
		rng := newRand(1)
		j, _ := mustOpen(t, options(fs))
		var want []entry
		for len(j.Segments()) < 6 {
			want = append(want, mustAppend(t, j, rng, 3000))
		}
		mustSync(t, j)
		j.Settle()
		fs.FailAt(faultfs.OpRename|faultfs.OpRemove, 1, boom) // once: a second try would succeed
		for _, n := range []int{first, 1} {
			if err := j.Recycle(n); !errors.Is(err, boom) {
				t.Fatalf("recycling %d: %v", n, err)
			}
		}
		drop(j)
		j, got := mustOpen(t, options(fs))
		if d := differ(got, want); d != "" {
			t.Fatal(d)
		}
		mustClose(t, j)
	}
}

// failingRun works until something fails and checks that the failure is final; only a
// failed ReadAt is not.
func failingRun(t *testing.T, fs *faultfs.FS, rng *rand.Rand) (want []entry, synced int, tried []byte, err error) {
	t.Helper()
	for range 2 {
		j, got, err := open(options(fs), 0)
		if err != nil {
			return want, synced, tried, err
		}
		for len(want) > 0 && want[0].pos.Segment < j.Segments()[0].ID {
			want, synced = want[1:], synced-1
		}
		if d := differ(got, want); d != "" {
			t.Fatal(d)
		}
		tried, err = work(j, rng, &want, &synced)
		j.Settle()
		if err == nil {
			err = j.Err()
		}
		if err != nil {
			if j.Err() != nil {
				if _, e := j.Append([][]byte{{1}}); e == nil {
					t.Fatalf("Append succeeded after %v", err)
				}
				if e := j.Sync(); e == nil {
					t.Fatalf("Sync succeeded after %v", err)
				}
			}
			drop(j)
			return want, synced, tried, err
		}
		if err := j.Close(); err != nil {
			return want, synced, tried, err
		}
	}
	return want, synced, nil, nil
}

func work(j *journal.Journal, rng *rand.Rand, want *[]entry, synced *int) (tried []byte, err error) {
	for i := range 25 {
		data := randomBytes(rng, rng.IntN(12000))
		e, err := appendRecord(j, rng, data)
		if err != nil {
			return data, err
		}
		*want = append(*want, e)
		if err := j.ReadAt(e.pos, 0, make([]byte, len(e.data))); err != nil {
			return nil, err
		}
		if i%4 != 0 {
			continue
		}
		if err := j.Sync(); err != nil {
			return nil, err
		}
		*synced = len(*want)
		if err := j.Release(j.Active()); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func TestFullDiskFailsTheAppendAndNothingElse(t *testing.T) {
	for _, sparse := range []bool{false, true} {
		fs := faultfs.New(1)
		fs.SparseAllocate(sparse)
		o := options(fs)
		o.Spares = -1
		j, _ := mustOpen(t, o)
		rng := newRand(2)
		fs.SetQuota(300 << 10)
		var want []entry
		for round := range 3 {
			refused := 0
			for refused < 5 {
				e, err := appendRecord(j, rng, randomBytes(rng, 10000))
				switch {
				case err == nil:
					want = append(want, e)
				case errors.Is(err, journal.ErrNoSpace) && errors.Is(err, syscall.ENOSPC):
					refused++
					mustSync(t, j) // what is there can still be made durable
				default:
					t.Fatal(err)
				}
			}
			if round == 0 && len(want) < 20 {
				t.Fatalf("only %d records fit in 300 KiB", len(want))
			}
			// A record that fits into what is left is not refused.
			small, err := appendRecord(j, rng, randomBytes(rng, 10))
			if err != nil {
				t.Fatalf("a small record: %v", err)
			}
			want = append(want, small)
			mustSync(t, j)
			if err := j.Release(j.Active() - 1); err != nil {
				t.Fatal(err)
			}
			j.Settle()
			for want[0].pos.Segment < j.Segments()[0].ID {
				want = want[1:]
			}
		}
		o.FS = fs.Kill()
		drop(j)
		j, got := mustOpen(t, o)
		if d := differ(got, want); d != "" {
			t.Fatal(d)
		}
		mustClose(t, j)
	}
}

func TestFullDiskAtTheFirstStartIsErrNoSpace(t *testing.T) {
	fs := faultfs.New(1)
	fs.SetQuota(10 << 10)
	if _, _, err := open(options(fs), 0); !errors.Is(err, journal.ErrNoSpace) {
		t.Fatalf("open: %v", err)
	}
	fs.SetQuota(-1)
	j, _ := mustOpen(t, options(fs))
	mustClose(t, j)
	if len(fs.Names()) != 1 {
		t.Errorf("files: %v", fs.Names())
	}
}
