package storage

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/settmq/settmq/storage/journal/faultfs"
)

// publishUntilFailure publishes until the store refuses and returns how many messages it took.
func publishUntilFailure(s *Store, q *Queue, c *confirms, n uint64) uint64 {
	for i := range n {
		m := &Message{Body: bodyOf(1, i, 2000), Confirm: c, ConfirmSeq: i}
		m.Targets.Store(1)
		if s.Reserve(len(m.Body)) != nil {
			return i
		}
		q.Append(i, m)
		if i%16 == 15 { // many batches
			if s.Apply(Change{}).Wait() != nil {
				return i + 1
			}
		}
	}
	return n
}

func TestFirstFailureEndsAllConfirms(t *testing.T) {
	for _, op := range []struct {
		name string
		op   faultfs.Op
	}{{"write", faultfs.OpWrite}, {"sync", faultfs.OpSync}} {
		for n := 1; n <= 40; n += 3 {
			t.Run(fmt.Sprintf("%s/%d", op.name, n), func(t *testing.T) { failAt(t, op.op, n) })
		}
	}
}

func failAt(t *testing.T, op faultfs.Op, n int) {
	disk := faultfs.New(uint64(n))
	o := testOptions(t, t.TempDir())
	o.FS = disk
	failed := make(chan error, 2)
	o.OnFailure = func(err error) { failed <- err }
	s := mustOpen(t, o)
	q := createQueue(t, s)
	c := newConfirms()
	disk.FailAt(op, n, syscall.EIO) // once: a second try would succeed
	publishUntilFailure(s, q, c, 2000)
	select {
	case err := <-failed:
		if !errors.Is(err, syscall.EIO) {
			t.Fatalf("failed with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("no failure was reported")
	}
	given := len(c.seqs)
	var fe *FailedError
	if err := s.Reserve(1); !errors.As(err, &fe) {
		t.Fatalf("reserve after failure: %v", err)
	}
	if err := s.Apply(Change{Put: []KV{{Key: []byte("k")}}}).Wait(); !errors.As(err, &fe) {
		t.Fatalf("apply after failure: %v", err)
	}
	late := &Message{Confirm: c, ConfirmSeq: 1 << 40}
	late.Targets.Store(1)
	q.Append(1<<40, late)
	if err := s.Close(); !errors.As(err, &fe) {
		t.Fatalf("close after failure: %v", err)
	}
	if len(c.seqs) != given || len(failed) > 0 {
		t.Fatalf("%d confirms and %d reports after the failure", len(c.seqs)-given, len(failed))
	}
	disk.Heal()
	disk = disk.PowerCut(rand.New(rand.NewPCG(uint64(n), 2)))
	o = testOptions(t, o.Dir)
	o.FS = disk
	s = mustOpen(t, o)
	defer mustClose(t, s)
	found := make(map[uint64]bool)
	for _, it := range readAll(t, s.Queue(q.ID()), 0) {
		if !bytes.Equal(it.Message.Body, bodyOf(1, it.Seq, 2000)) {
			t.Fatalf("message %d has wrong bytes", it.Seq)
		}
		found[it.Seq] = true
	}
	for _, seq := range c.seqs {
		if !found[seq] {
			t.Fatalf("confirmed message %d is lost", seq)
		}
	}
}

func TestFullDiskHoldsPublishersUntilThereIsSpace(t *testing.T) {
	disk := faultfs.New(1)
	o := testOptions(t, t.TempDir())
	o.FS = disk
	o.MinFree = 1
	o.CommitBudget = 1 << 20 // less than is published, so that a slow committer lets nobody through
	space := make(chan bool, 16)
	o.OnSpace = func(low bool) { space <- low }
	s := mustOpen(t, o)
	defer mustClose(t, s)
	q := createQueue(t, s)
	c := newConfirms()
	publish := func(i uint64) error {
		m := &Message{Body: bodyOf(1, i, 50_000), Confirm: c, ConfirmSeq: i}
		m.Targets.Store(1)
		if err := s.Reserve(len(m.Body)); err != nil {
			return err
		}
		q.Append(i, m)
		return nil
	}
	if err := publish(0); err != nil {
		t.Fatal(err)
	}
	c.wait(t, 1)               // there is something to read
	disk.SetQuota(disk.Used()) // nothing more can be allocated
	published := make(chan int)
	go func() {
		for i := uint64(1); i < 200; i++ {
			if err := publish(i); err != nil {
				t.Errorf("reserve: %v", err)
				break
			}
		}
		close(published)
	}()
	if low := <-space; !low {
		t.Fatal("space was reported to be back first")
	}
	select {
	case <-published:
		t.Fatal("publishers were not held")
	default:
	}
	if items := readAll(t, q, 0); len(items) == 0 {
		t.Fatal("what is there can not be read")
	}
	disk.SetQuota(-1)
	if low := <-space; low {
		t.Fatal("space was not reported to be back")
	}
	<-published
	c.wait(t, 200)
}

// damage opens a directory that f has damaged and returns the error of opening it or of reading
// everything in it, or whether what was read is all there was.
func damage(t *testing.T, dir string, want map[uint64][]byte, f func()) (err error, complete bool) {
	t.Helper()
	f()
	o := testOptions(t, dir)
	o.Log = zerolog.Nop()
	s, err := Open(o)
	if err != nil {
		return err, false
	}
	defer mustClose(t, s)
	q := s.Queue(1)
	if q == nil {
		return nil, false
	}
	n := 0
	for from := uint64(0); ; {
		items, next, err := q.Read(nil, from, 100, 1<<20)
		if err != nil {
			return err, false
		}
		for _, it := range items {
			if !bytes.Equal(it.Message.Body, want[it.Seq]) {
				t.Fatalf("message %d has wrong bytes", it.Seq)
			}
			n++
		}
		if len(items) == 0 {
			break
		}
		from = next
	}
	meta := 0
	err = s.Scan([]byte("key"), func(k, v []byte) error {
		if string(v) != "value of "+string(k) {
			t.Fatalf("metadata %q is %q", k, v)
		}
		meta++
		return nil
	})
	return err, err == nil && n == len(want) && meta == 20
}

func TestDamageIsDetectedOrHarmless(t *testing.T) {
	seed := t.TempDir()
	want := makeSeed(t, seed)
	rng := rand.New(rand.NewPCG(3, 4))
	flips := 0
	for i := 0; flips < 80; i++ {
		dir := filepath.Join(t.TempDir(), fmt.Sprint(i))
		copySparse(t, seed, dir)
		path, off := pickByte(t, dir, rng)
		if path == "" {
			continue
		}
		flips++
		err, complete := damage(t, dir, want, func() {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b[off] ^= 1 << rng.IntN(8)
			if err := os.WriteFile(path, b, 0o640); err != nil {
				t.Fatal(err)
			}
		})
		name, _ := filepath.Rel(dir, path)
		var ce *CorruptError
		switch {
		case err == nil && !complete:
			t.Errorf("bit flip at byte %d of %s: silent loss", off, name)
		case err != nil && !errors.As(err, &ce) && !errors.Is(err, ErrNewerFormat):
			t.Errorf("bit flip at byte %d of %s: untyped error %v", off, name, err)
		}
		_ = os.RemoveAll(dir) // only to save space
	}
}

// makeSeed fills a directory whose files of every kind hold something, closed in order.
func makeSeed(t *testing.T, dir string) map[uint64][]byte {
	t.Helper()
	o := testOptions(t, dir)
	// No checkpoint but the one below: one that comes early may find so few messages that Badger
	// keeps their record beside the key instead of in a value log.
	o.JournalMax = 64 << 20
	s := mustOpen(t, o)
	q := createQueue(t, s)
	if q.ID() != 1 {
		t.Fatalf("queue %d", q.ID())
	}
	c := newConfirms()
	want := make(map[uint64][]byte)
	publishSome := func(lo, hi uint64) {
		for i := lo; i < hi; i++ {
			size := int(i % 7 * 500)
			if i%40 == 0 {
				size = 300_000
			}
			want[i] = bodyOf(1, i, size)
			publish(t, s, c, i, i, want[i], q)
		}
		c.wait(t, int(hi))
	}
	publishSome(0, 200)
	var puts []KV
	for i := range 20 {
		k := fmt.Sprintf("key%02d", i)
		puts = append(puts, KV{[]byte(k), []byte("value of " + k)})
	}
	if err := s.Apply(Change{Put: puts}).Wait(); err != nil {
		t.Fatal(err)
	}
	runCheckpoint(t, s)
	publishSome(200, 300)
	mustClose(t, s)
	return want
}

// pickByte chooses a byte of one of the files that holds something.
func pickByte(t *testing.T, dir string, rng *rand.Rand) (path string, off int) {
	t.Helper()
	var paths []string
	for _, sub := range []string{"journal", "state"} {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			// DISCARD is a statistic; Badger writes the value logs' headers without reading them.
			if e.Name() != "DISCARD" && e.Name() != "LOCK" {
				paths = append(paths, filepath.Join(dir, sub, e.Name()))
			}
		}
	}
	path = paths[rng.IntN(len(paths))]
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	used := len(bytes.TrimRight(b, "\x00"))
	if used == 0 {
		return "", 0
	}
	return path, rng.IntN(used)
}

func TestMissingFilesAreRefused(t *testing.T) {
	seed := t.TempDir()
	want := makeSeed(t, seed)
	for _, glob := range []string{"format", "journal/*", "state/MANIFEST", "state/*.sst", "state/*.vlog"} {
		t.Run(strings.ReplaceAll(glob, "/", "_"), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "copy")
			copySparse(t, seed, dir)
			err, complete := damage(t, dir, want, func() {
				names, err := filepath.Glob(filepath.Join(dir, glob))
				if err != nil || len(names) == 0 {
					t.Fatalf("nothing to remove: %v", err)
				}
				for _, name := range names {
					if err := os.Remove(name); err != nil {
						t.Fatal(err)
					}
				}
			})
			var ce *CorruptError
			if !errors.As(err, &ce) {
				t.Fatalf("got %v, complete: %v", err, complete)
			}
		})
	}
}

func TestAcceptLossDropsOnlyWhatIsDamaged(t *testing.T) {
	seed := t.TempDir()
	want := makeSeed(t, seed)
	for name, crashed := range map[string]bool{"after an orderly end": false, "after a crash": true} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "copy")
			copySparse(t, seed, dir)
			if last := newestValueLog(filepath.Join(dir, "state")); !valueLogEmpty(last) {
				t.Errorf("%s is not empty", last)
			} else if crashed {
				if err := os.Remove(last); err != nil {
					t.Fatal(err)
				}
			}
			dropsOnlyWhatIsDamaged(t, dir, maps.Clone(want))
		})
	}
}

func dropsOnlyWhatIsDamaged(t *testing.T, dir string, want map[uint64][]byte) {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(dir, "state", "*.vlog"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("no value log: %v", err)
	}
	b, err := os.ReadFile(logs[0])
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b, want[3])
	if at < 0 {
		t.Fatal("message 3 is not in the value log")
	}
	b[at+10] ^= 1
	if err := os.WriteFile(logs[0], b, 0o640); err != nil {
		t.Fatal(err)
	}
	o := testOptions(t, dir)
	o.Log = zerolog.Nop()
	o.AcceptLoss = true
	var losses []Loss
	o.OnLoss = func(l Loss) { losses = append(losses, l) }
	s := mustOpen(t, o)
	delete(want, 3)
	expect(t, s.Queue(1), want)
	if len(losses) != 1 || losses[0].Count != 1 || losses[0].Queue != 1 {
		t.Fatalf("reported losses: %+v", losses)
	}
	mustClose(t, s)
	s = mustOpen(t, testOptions(t, dir))
	expect(t, s.Queue(1), want)
	mustClose(t, s)
}

func TestNewerFormatIsRefused(t *testing.T) {
	dir := t.TempDir()
	mustClose(t, mustOpen(t, testOptions(t, dir)))
	if err := os.WriteFile(filepath.Join(dir, "format"), []byte("settmq storage format 99\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(testOptions(t, dir)); !errors.Is(err, ErrNewerFormat) {
		t.Fatalf("open: %v", err)
	}
}
