package journal_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"path/filepath"
	"strings"
	"testing"

	"github.com/settmq/settmq/storage/journal"
	"github.com/settmq/settmq/storage/journal/faultfs"
)

// durableLog is a log of several segments in which every record was synced, as a
// killed process leaves it.
func durableLog(t testing.TB, segment int64, records, maxSize int) (*faultfs.FS, []entry) {
	t.Helper()
	fs := faultfs.New(1)
	o := options(fs)
	o.SegmentSize = segment
	j, _ := mustOpen(t, o)
	rng := newRand(77)
	var want []entry
	for range records {
		want = append(want, mustAppend(t, j, rng, rng.IntN(maxSize)))
		mustSync(t, j)
	}
	j.Settle()
	fs = fs.Kill()
	drop(j)
	return fs, want
}

func segmentFiles(fs *faultfs.FS) (names []string) {
	for _, name := range fs.Names() {
		if strings.HasSuffix(name, ".seg") {
			names = append(names, name)
		}
	}
	return names
}

// harmlessOrDetected opens a damaged log: either nothing is missing, or it is refused, and
// then AcceptLoss brings back all but at most lost records, says so, and heals it.
func harmlessOrDetected(t *testing.T, fs *faultfs.FS, segment int64, want []entry, lost int, what string) (detected bool) {
	t.Helper()
	o := options(fs)
	o.SegmentSize = segment
	damaged := fs.Clone()
	j, got, err := open(o, 0)
	if err == nil {
		if d := differ(got, want); d != "" {
			t.Fatalf("%s: silent: %s", what, d)
		}
		active := segmentName(j.Active())
		mustClose(t, j)
		if b, err := fs.ReadFile(active); err != nil || int64(len(b)) != segment {
			t.Fatalf("%s: %s was left with %d bytes: its space is not reserved", what, active, len(b))
		}
		return false
	}
	if !isCorrupt(err) {
		t.Fatalf("%s: %v", what, err)
	}
	o.FS = damaged
	o.AcceptLoss = true
	var losses []journal.Loss
	o.OnLoss = func(l journal.Loss) { losses = append(losses, l) }
	j, got, err = open(o, 0)
	if err != nil {
		t.Fatalf("%s: accepting the loss: %v", what, err)
	}
	if len(losses) == 0 || len(j.Recovery().Lost) != len(losses) {
		t.Fatalf("%s: %v, but nothing was reported as lost", what, err)
	}
	if missing := subsequence(t, got, want); missing > lost {
		t.Fatalf("%s: %d records lost, want at most %d; reported: %+v", what, missing, lost, losses)
	}
	var segments []entry
	for _, s := range j.Segments() {
		if err := j.ReplaySegment(s.ID, func(pos journal.Position, record []byte) error {
			segments = append(segments, entry{pos, bytes.Clone(record)})
			return nil
		}); err != nil {
			t.Fatalf("%s: segment %d after the loss: %v", what, s.ID, err)
		}
	}
	if d := differ(segments, got); d != "" {
		t.Fatalf("%s: ReplaySegment: %s", what, d)
	}
	got = append(got, mustAppend(t, j, newRand(1), 3000))
	mustSync(t, j)
	damaged = damaged.PowerCut(newRand(1))
	drop(j)
	o.FS, o.AcceptLoss = damaged, false
	j, again, err := open(o, 0)
	if err != nil {
		t.Fatalf("%s: open after an accepted loss: %v", what, err)
	}
	if d := differ(again, got); d != "" {
		t.Fatalf("%s: after an accepted loss: %s", what, d)
	}
	mustClose(t, j)
	return true
}

// subsequence fails unless got is want with some records left out, and counts those.
func subsequence(t *testing.T, got, want []entry) (missing int) {
	t.Helper()
	i := 0
	for _, e := range want {
		if i < len(got) && got[i].pos == e.pos && bytes.Equal(got[i].data, e.data) {
			i++
		} else {
			missing++
		}
	}
	if i < len(got) {
		t.Fatalf("record at %v is not one that was appended", got[i].pos)
	}
	return missing
}

func TestFlippedBitIsHarmlessOrDetected(t *testing.T) {
	const segment = 16 << 10
	base, want := durableLog(t, segment, 24, 4000)
	rng := newRand(5)
	flips, detected := 0, 0
	for _, name := range segmentFiles(base) {
		b, err := base.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for off := range b {
			inHead := off < 64 || off >= 512 && off < 512+64
			if !inHead && rng.IntN(24) != 0 || off%stride != 0 {
				continue
			}
			fs := base.Clone()
			fs.Flip(name, int64(off), 1<<rng.IntN(8))
			flips++
			if harmlessOrDetected(t, fs, segment, want, 2, filepath.Base(name)+" flipped") {
				detected++
			}
		}
	}
	t.Logf("%d flips, %d detected, the others harmless", flips, detected)
	if detected < flips/3 {
		t.Errorf("only %d of %d flips were detected", detected, flips)
	}
}

// Every byte of the last synced record and of every header matters: none may be
// taken for the torn end of the log.
func TestFlippedBitInTheLastSyncedRecordIsDetected(t *testing.T) {
	const segment = 64 << 10
	base, want := durableLog(t, segment, 12, 3000)
	last := want[len(want)-1]
	name := filepath.Join(dir, "0000000000000001.seg")
	rng := newRand(8)
	end := int64(last.pos.Offset) + journal.FragHeader + int64(len(last.data))
	for off := int64(last.pos.Offset); off < end; off++ {
		fs := base.Clone()
		fs.Flip(name, off, 1<<rng.IntN(8))
		if _, _, err := open(options(fs), 0); !isCorrupt(err) {
			t.Fatalf("flip %d bytes into the last record: %v", off-int64(last.pos.Offset), err)
		}
	}
}

func TestWideDamageBeforeDurableRecordsIsDetected(t *testing.T) {
	const segment = 16 << 10
	base, want := durableLog(t, segment, 40, 6000)
	rng := newRand(12)
	files := segmentFiles(base)
	last := want[len(want)-1].pos
	for i := range 400 {
		fs := base.Clone()
		id := rng.IntN(int(last.Segment))
		name := files[id]
		b, err := fs.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		end := len(b)
		if id+1 == int(last.Segment) {
			end = int(last.Offset)
		}
		from := rng.IntN(end)
		to := from + rng.IntN(end-from)
		switch i % 3 {
		case 0:
			clear(b[from:to])
		case 1:
			copy(b[from:to], randomBytes(rng, to-from))
		case 2: // a piece of the log at the wrong place
			copy(b[from:to], b[rng.IntN(from+1):])
		}
		fs.WriteFile(name, b)
		harmlessOrDetected(t, fs, segment, want, len(want), "wide damage in "+filepath.Base(name))
	}
}

func TestTruncatedSegmentIsHarmlessOrDetected(t *testing.T) {
	const segment = 16 << 10
	base, want := durableLog(t, segment, 27, 4000)
	rng := newRand(3)
	if last := want[len(want)-1]; int(last.pos.Offset)+len(last.data) > segment*3/4 {
		t.Fatalf("the last segment is too full to be cut behind its records: %v", last.pos)
	}
	for _, name := range segmentFiles(base) {
		whole, err := base.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for cut := range len(whole) {
			if cut > 100 && rng.IntN(40) != 0 || cut%stride != 0 {
				continue
			}
			fs := base.Clone()
			fs.WriteFile(name, whole[:cut])
			harmlessOrDetected(t, fs, segment, want, len(want), filepath.Base(name)+" truncated")
		}
	}
}

func TestMissingSegmentIsDetected(t *testing.T) {
	const segment = 16 << 10
	base, want := durableLog(t, segment, 24, 4000)
	last := want[len(want)-1].pos.Segment
	for id, name := range segmentFiles(base) {
		fs := base.Clone()
		if err := fs.Remove(name); err != nil {
			t.Fatal(err)
		}
		if id == 0 {
			// Without its first segment the log is one that was released up to here.
			if _, _, err := open(journal.Options{FS: fs, Dir: dir, SegmentSize: segment}, 1); !isCorrupt(err) {
				t.Errorf("first segment missing: %v", err)
			}
			continue
		}
		if got := harmlessOrDetected(t, fs, segment, want, len(want), filepath.Base(name)+" missing"); got != (uint64(id) < last) {
			t.Errorf("segment %d missing: detected %v", id+1, got)
		}
	}
}

func TestExchangedSegmentsAreDetected(t *testing.T) {
	const segment = 16 << 10
	fs, want := durableLog(t, segment, 24, 4000)
	files := segmentFiles(fs)
	a, _ := fs.ReadFile(files[1])
	b, _ := fs.ReadFile(files[2])
	fs.WriteFile(files[1], b)
	fs.WriteFile(files[2], a)
	if !harmlessOrDetected(t, fs, segment, want, len(want), "exchanged files") {
		t.Error("not detected")
	}
}

func TestStartBeyondTheLogIsCorrupt(t *testing.T) {
	const segment = 16 << 10
	base, _ := durableLog(t, segment, 24, 4000)
	for _, fs := range []*faultfs.FS{base, faultfs.New(1)} {
		o := options(fs)
		o.SegmentSize = segment
		if _, _, err := open(o, 99); !isCorrupt(err) {
			t.Fatalf("replay from a segment that is not there: %v", err)
		}
		o.AcceptLoss = true
		j, got, err := open(o, 99)
		if err != nil || len(got) != 0 {
			t.Fatalf("accepting it: %v, %d records", err, len(got))
		}
		e := mustAppend(t, j, newRand(1), 10)
		if e.pos.Segment < 99 {
			t.Errorf("the log goes on at %v, before the segment that was asked for", e.pos)
		}
		mustClose(t, j)
		o.AcceptLoss = false
		j, got, err = open(o, 99)
		if err != nil {
			t.Fatal(err)
		}
		if d := differ(got, []entry{e}); d != "" {
			t.Fatal(d)
		}
		mustClose(t, j)
	}
}

func TestNewerFormatIsRefused(t *testing.T) {
	fs, _ := durableLog(t, 16<<10, 3, 100)
	name := segmentFiles(fs)[0]
	b, err := fs.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[8] = 200
	binary.LittleEndian.PutUint32(b[60:], crc32.Checksum(b[:60], crc32.MakeTable(crc32.Castagnoli)))
	fs.WriteFile(name, b)
	if _, err := journal.Open(options(fs)); !errors.Is(err, journal.ErrNewerFormat) {
		t.Fatalf("open: %v", err)
	}
}

func TestUnreadableSectorIsCorrupt(t *testing.T) {
	fs, _ := durableLog(t, 16<<10, 24, 4000)
	eio := errors.New("input/output error")
	j, err := journal.Open(options(fs))
	if err != nil {
		t.Fatal(err)
	}
	fs.FailAt(faultfs.OpRead, 2, eio)
	err = j.Replay(0, func(journal.Position, []byte) error { return nil })
	if !isCorrupt(err) || !errors.Is(err, eio) {
		t.Fatalf("replay: %v", err)
	}
	mustClose(t, j)
}

// Nobody who chooses the contents of records can forge a part of the log: not with a
// copy of the log itself, not behind a torn end.
func TestRecordThatHoldsALogIsOnlyARecord(t *testing.T) {
	fs, want := durableLog(t, 64<<10, 12, 3000)
	image, err := fs.ReadFile(segmentFiles(fs)[0])
	if err != nil {
		t.Fatal(err)
	}
	j, _ := mustOpen(t, options(fs))
	for range 3 {
		e, err := appendRecord(j, newRand(2), image)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, e)
		mustSync(t, j)
	}
	torn := mustAppend(t, j, newRand(9), 3000)
	if _, err := appendRecord(j, newRand(2), image); err != nil {
		t.Fatal(err)
	}
	fs = fs.Kill()
	drop(j)
	fs.Flip(segmentName(torn.pos.Segment), int64(torn.pos.Offset)+100, 1)
	j, got := mustOpen(t, options(fs))
	if d := differ(got, want); d != "" {
		t.Fatal(d)
	}
	mustClose(t, j)
}

// FuzzReplay opens logs with arbitrary bytes in them: no panic, no record that was not
// written unless its bytes say so, and after AcceptLoss always a usable log.
func FuzzReplay(f *testing.F) {
	base, want := durableLog(f, 8<<10, 10, 2000)
	names := segmentFiles(base)
	for i, e := range want {
		f.Add(uint8(e.pos.Segment-1), e.pos.Offset+uint32(i), []byte{1, 2, 3, 4, 5, 6, 7, 8})
		f.Add(uint8(e.pos.Segment-1), e.pos.Offset, make([]byte, 100))
	}
	image, err := base.ReadFile(names[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint8(1), uint32(0), image)
	f.Add(uint8(0), uint32(4096), image[:4096])
	f.Fuzz(func(t *testing.T, file uint8, off uint32, data []byte) {
		fs := base.Clone()
		name := names[int(file)%len(names)]
		b, err := fs.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		off %= uint32(len(b) + 1)
		b = append(b[:off], append(data, b[min(len(b), int(off)+len(data)):]...)...)
		fs.WriteFile(name, b)
		for _, accept := range []bool{false, true} {
			o := options(fs.Clone())
			o.SegmentSize, o.AcceptLoss = 8<<10, accept
			j, _, err := open(o, 0)
			if err != nil {
				if !isCorrupt(err) && !errors.Is(err, journal.ErrNewerFormat) || accept && isCorrupt(err) {
					t.Fatalf("accept %v: %v", accept, err)
				}
				continue
			}
			e := mustAppend(t, j, newRand(1), 1000)
			p := make([]byte, len(e.data))
			if err := j.ReadAt(e.pos, 0, p); err != nil || !bytes.Equal(p, e.data) {
				t.Fatalf("read: %v", err)
			}
			mustClose(t, j)
			o.AcceptLoss = false
			if j, got := mustOpen(t, o); len(got) == 0 || !bytes.Equal(got[len(got)-1].data, e.data) {
				t.Fatal("the record appended last is not there")
			} else {
				mustClose(t, j)
			}
		}
	})
}

// FuzzForgedHeader puts headers with valid checksums and arbitrary fields over the records
// of a log. Whatever they say, opening ends, without a panic, and what it leaves can be
// appended to.
func FuzzForgedHeader(f *testing.F) {
	base, want := durableLog(f, 8<<10, 10, 2000)
	names := segmentFiles(base)
	for kind := range uint8(9) {
		for i := range uint8(4) {
			f.Add(i, kind, i, uint32(i)*700, uint64(0), uint64(i), false)
			f.Add(i+3, kind, i, ^uint32(0), ^uint64(0), ^uint64(0), true)
		}
	}
	f.Fuzz(func(t *testing.T, record, kind, flags uint8, length uint32, seq, synced uint64, rechain bool) {
		e := want[int(record)%len(want)]
		fs := base.Clone()
		name := names[e.pos.Segment-1]
		b, err := fs.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		oldSeq, oldSynced, epoch, link, _, _, ok := journal.Header(b, int(e.pos.Offset))
		if !ok {
			t.Fatalf("no header at %v", e.pos)
		}
		if rechain {
			link++
		}
		journal.Forge(b, int(e.pos.Offset), kind, flags, length, epoch, link, oldSeq+seq, oldSynced+synced)
		fs.WriteFile(name, b)
		for _, accept := range []bool{false, true} {
			o := options(fs.Clone())
			o.SegmentSize, o.AcceptLoss = 8<<10, accept
			j, _, err := open(o, 0)
			if err != nil {
				if !isCorrupt(err) || accept {
					t.Fatalf("accept %v: %v", accept, err)
				}
				continue
			}
			e := mustAppend(t, j, newRand(1), 1000)
			mustClose(t, j)
			o.AcceptLoss = false
			if j, got := mustOpen(t, o); len(got) == 0 || !bytes.Equal(got[len(got)-1].data, e.data) {
				t.Fatal("the record appended last is not there")
			} else {
				mustClose(t, j)
			}
		}
	})
}
