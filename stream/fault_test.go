package stream

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/storage"
	"github.com/settmq/settmq/storage/journal"
	"github.com/settmq/settmq/storage/journal/faultfs"
)

var errDisk = errors.New("the disk is broken")

// history is what was published to a stream, over several lives of its broker.
type history struct {
	t         testing.TB
	bodies    [][]byte
	confirmed int // a prefix is
}

// publish appends n messages and waits until at least wanted of them are confirmed, or the store has failed.
func (h *history) publish(r *rig, s *Stream, rng *rand.Rand, n, wanted, maxSize int) {
	h.t.Helper()
	c := newConfirmer()
	from := len(h.bodies)
	for i := range n {
		b := bytes.Repeat([]byte{byte(from + i)}, rng.IntN(maxSize))
		b = append(b, fmt.Sprint(from+i)...)
		h.bodies = append(h.bodies, b)
		s.Publish(message(c, uint64(from+i), b), nil)
	}
	waitUntil(h.t, func() bool {
		r.store.mu.Lock()
		failed := r.store.failed != nil
		r.store.mu.Unlock()
		c.mu.Lock()
		defer c.mu.Unlock()
		return failed || len(c.seqs) >= wanted
	})
	h.note(c, from)
}

func (h *history) note(c *confirmer, from int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := from; c.seqs[uint64(i)]; i++ {
		h.confirmed = i + 1
	}
	for seq := range c.seqs {
		if int(seq) >= h.confirmed {
			h.t.Errorf("%d is confirmed but %d is not", seq, h.confirmed)
		}
	}
}

// check reads a stream from its first message on. What was confirmed must be there, and everything as it was
// published; what was not confirmed and is not there is forgotten.
func (h *history) check(s *Stream) {
	h.t.Helper()
	first, next := s.log.bounds()
	if int(next) < h.confirmed || int(next) > len(h.bodies) {
		h.t.Fatalf("the log ends at %d of %d, %d are confirmed", next, len(h.bodies), h.confirmed)
	}
	c, k := consume(h.t, s, plenty, fromFirst())
	for i, g := range k.wait(h.t, int(next-first)) {
		if g.offset != first+uint64(i) || g.body != string(h.bodies[g.offset]) {
			h.t.Fatalf("message %d is %d of %d bytes, want %d bytes", first+uint64(i), g.offset, len(g.body), len(h.bodies[first+uint64(i)]))
		}
	}
	c.Queue.Unsubscribe(c.ID, nil)
	h.bodies = h.bodies[:next]
	h.confirmed = int(next)
}

// end ends an engine that is dead and goes on with the files it left.
func (r *rig) end(left *faultfs.FS) {
	_ = r.engine.Close() // it can do nothing any more
	r.fs, r.store = left, newStore()
}

var smallSegments = queue.Settings{MaxSegmentBytes: queue.Some[int64](1)}

// TestWhatWasConfirmedSurvivesKillsAndPowerCuts goes through several lives, each ended at a random moment.
func TestWhatWasConfirmedSurvivesKillsAndPowerCuts(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 3))
		fs := faultfs.New(seed)
		r := newRig(t, fs, "/d/streams")
		h := &history{t: t}
		for range 6 {
			s := r.open(smallSegments)
			h.check(s)
			n := 1 + rng.IntN(40)
			h.publish(r, s, rng, n, rng.IntN(n+1), 1+rng.IntN(9000))
			if rng.IntN(3) == 0 {
				fs = fs.Kill()
			} else {
				fs = fs.PowerCut(rng)
			}
			r.end(fs)
		}
		h.check(r.open(smallSegments))
		r.close()
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestNothingIsConfirmedAfterTheFirstFailure lets the n-th call fail, for every n that matters.
func TestNothingIsConfirmedAfterTheFirstFailure(t *testing.T) {
	for _, op := range []faultfs.Op{faultfs.OpWrite, faultfs.OpSync, faultfs.OpSyncDir, faultfs.OpAllocate, faultfs.OpRemove, faultfs.OpOpen} {
		for n := 1; n < 40; n++ {
			rng := rand.New(rand.NewPCG(uint64(n), uint64(op)))
			fs := faultfs.New(uint64(n))
			r := newRig(t, fs, "/d/streams")
			settings := smallSegments
			settings.MaxLengthBytes = queue.Some[int64](300 << 10)
			s := r.open(settings)
			fs.FailAt(op, n, errDisk)
			h := &history{t: t}
			for range 10 {
				h.publish(r, s, rng, 10, 10, 9000)
			}
			r.store.mu.Lock()
			failed := r.store.failed
			r.store.mu.Unlock()
			if failed != nil && !errors.Is(failed, errDisk) {
				t.Fatalf("call %d of %b: failed with %v", n, op, failed)
			}
			r.end(fs.Kill())
			h.check(r.open(settings))
			r.close()
			if t.Failed() {
				t.Fatalf("call %d of %b", n, op)
			}
		}
	}
}

// A process may be killed when it has made a segment and not its name last: the next one does that before it confirms
// what it writes there.
func TestNameThatAKilledProcessMadeLasts(t *testing.T) {
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 4))
		fs := faultfs.New(seed)
		r := newRig(t, fs, "/d/streams")
		h := &history{t: t}
		s := r.open(smallSegments)
		fs.FailAt(faultfs.OpSyncDir, 1, errDisk)
		h.publish(r, s, rng, 1, 1, 10)
		fs = fs.Kill()
		r.end(fs)
		s = r.open(smallSegments)
		h.check(s)
		h.publish(r, s, rng, 5, 5, 10)
		fs = fs.PowerCut(rng)
		r.end(fs)
		h.check(r.open(smallSegments))
		r.close()
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// killedAtSync kills its process right before the n-th sync of a file.
type killedAtSync struct {
	*faultfs.FS
	n    int
	left *faultfs.FS // what the next process finds
}

func (k *killedAtSync) OpenFile(name string, create bool) (journal.File, error) {
	f, err := k.FS.OpenFile(name, create)
	return killedFile{f, k}, err
}

type killedFile struct {
	journal.File
	k *killedAtSync
}

func (f killedFile) Sync() error {
	if f.k.n--; f.k.n == 0 {
		f.k.left = f.k.Kill()
	}
	return f.File.Sync()
}

// The same of its head, when nothing but the head is left to tell the next offset.
func TestHeadThatAKilledProcessWroteLasts(t *testing.T) {
	settings := smallSegments
	settings.MaxLengthBytes = queue.Some[int64](1)
	for n := 1; n <= 12; n++ {
		for seed := range uint64(8) {
			rng := rand.New(rand.NewPCG(seed, 5))
			k := &killedAtSync{FS: faultfs.New(seed), n: n}
			r := newRig(t, k, "/d/streams")
			h := &history{t: t}
			s := r.open(smallSegments)
			for range 12 {
				h.publish(r, s, rng, 10, 10, 9000)
			}
			r.end(k.left)
			_, want := r.open(settings).log.bounds()
			r.engine.Retain()
			left := k.left.PowerCut(rng)
			r.end(left)
			if _, next := r.open(settings).log.bounds(); next != want {
				t.Errorf("sync %d, seed %d: the log ends at %d, not at %d", n, seed, next, want)
			}
			r.close()
		}
	}
}

// damagedLog makes a log of several segments and returns its history.
func damagedLog(t *testing.T, fs *faultfs.FS) (*rig, *history) {
	t.Helper()
	r := newRig(t, fs, "/d/streams")
	s := r.open(smallSegments)
	h := &history{t: t}
	rng := rand.New(rand.NewPCG(5, 5))
	for range 12 {
		h.publish(r, s, rng, 10, 10, 4000)
	}
	r.close()
	if h.confirmed != 120 {
		t.Fatalf("%d confirmed", h.confirmed)
	}
	return r, h
}

// TestDamageIsReportedAndNeverDelivered flips bits everywhere.
func TestDamageIsReportedAndNeverDelivered(t *testing.T) {
	base := faultfs.New(1)
	r, h := damagedLog(t, base)
	names, err := base.ReadDir("/d/streams")
	if err != nil {
		t.Fatal(err)
	}
	reported := 0
	for _, name := range names {
		path := filepath.Join("/d/streams", name)
		f, err := base.OpenFile(path, false)
		if err != nil {
			t.Fatal(err)
		}
		size, _ := f.Size()
		data := make([]byte, size)
		_, _ = f.ReadAt(data, 0)
		data = bytes.TrimRight(data, "\x00")
		for at := int64(0); at < int64(len(data)); at += 1 + at%211 {
			fs := base.Clone()
			fs.Flip(path, at, 1<<(at%8))
			r.fs, r.damaged, r.faults, r.store = fs, true, 0, newStore()
			if !h.readDamaged(t, r) {
				reported++
			}
		}
	}
	if reported < 100 {
		t.Errorf("only %d flips were found", reported)
	}
}

// readDamaged opens a log with damage somewhere. It returns false if that was reported; otherwise every message must be
// there. In any case what is delivered is what was published.
func (h *history) readDamaged(t *testing.T, r *rig) (whole bool) {
	t.Helper()
	s, err := r.tryOpen(smallSegments)
	if err != nil {
		var c *storage.CorruptError
		if !errors.As(err, &c) {
			t.Fatalf("not a report of damage: %v", err)
		}
		return false
	}
	defer r.close()
	_, k := consume(t, s, plenty, fromFirst())
	waitFor(t, &k.changed, func() bool { return k.cancelled || len(k.got) == len(h.bodies) })
	for i, g := range k.list() {
		if g.offset != uint64(i) || g.body != string(h.bodies[i]) {
			t.Fatalf("message %d is %d with %d bytes", i, g.offset, len(g.body))
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return !k.cancelled
}

// TestRecoverGoesOnWithoutWhatIsDamaged: the rest can be read, under its old offsets, and the loss is told.
func TestRecoverGoesOnWithoutWhatIsDamaged(t *testing.T) {
	base := faultfs.New(1)
	r, h := damagedLog(t, base)
	for segment := range 3 {
		for at := int64(0); at < 60_000; at += 1777 {
			fs := base.Clone()
			names, err := fs.ReadDir("/d/streams")
			if err != nil {
				t.Fatal(err)
			}
			var logs []string
			for _, n := range names {
				if strings.HasSuffix(n, ".log") {
					logs = append(logs, n)
				}
			}
			fs.Flip(filepath.Join("/d/streams", logs[segment]), at, 4)
			lost := uint64(0)
			losses := 0
			err = Recover("/d/streams", fs, func(l storage.Loss) { losses++; lost += l.Count })
			if err != nil {
				t.Fatalf("segment %d, byte %d: %v", segment, at, err)
			}
			r.fs, r.damaged, r.faults, r.store = fs, false, 0, newStore()
			s := r.open(smallSegments)
			_, next := s.log.bounds()
			_, k := consume(t, s, plenty, fromFirst())
			c := newConfirmer()
			s.Publish(message(c, 0, []byte("last")), nil)
			c.wait(t, 1)
			waitFor(t, &k.changed, func() bool { return len(k.got) > 0 && k.got[len(k.got)-1].body == "last" })
			list := k.list()
			for _, g := range list[:len(list)-1] {
				if g.body != string(h.bodies[g.offset]) {
					t.Fatalf("segment %d, byte %d: message %d has %d bytes", segment, at, g.offset, len(g.body))
				}
			}
			if missing := 120 - (len(list) - 1); missing > 0 && losses == 0 || next > 120 {
				t.Errorf("segment %d, byte %d: %d missing, losses of %d told, next is %d", segment, at, missing, lost, next)
			}
			r.close()
		}
	}
}

// TestIndexFilesAreMadeAnew: without them everything is found by the headers of the chunks.
func TestIndexFilesAreMadeAnew(t *testing.T) {
	fs := faultfs.New(1)
	r, h := damagedLog(t, fs)
	names, _ := fs.ReadDir("/d/streams")
	for i, n := range names {
		if !strings.HasSuffix(n, ".idx") {
			continue
		}
		path := filepath.Join("/d/streams", n)
		if i%2 == 0 {
			fs.Flip(path, 30, 1)
		} else if err := fs.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	r.store = newStore()
	h.check(r.open(smallSegments))
	r.close()
}

func TestAFullDiskHoldsPublishersAndLosesNothing(t *testing.T) {
	for _, sparse := range []bool{false, true} {
		fs := faultfs.New(1)
		fs.SparseAllocate(sparse)
		r := newRig(t, fs, "/d/streams")
		s := r.open(queue.Settings{})
		fs.SetQuota(400 << 10)
		c := newConfirmer()
		body := make([]byte, 10_000)
		for i := range 60 {
			s.Publish(message(c, uint64(i), body), nil)
			if i < 20 {
				c.wait(t, i+1)
			}
		}
		waitFor(t, &r.store.changed, func() bool { return r.store.held })
		fs.SetQuota(-1)
		c.wait(t, 60)
		waitFor(t, &r.store.changed, func() bool { return !r.store.held && r.store.charged == 0 })
		if r.store.failed != nil {
			t.Errorf("the store failed: %v", r.store.failed)
		}
		_, k := consume(t, s, plenty, fromFirst())
		k.wait(t, 60)
		r.close()
	}
}

func TestAFullDiskAtTheFirstMessage(t *testing.T) {
	fs := faultfs.New(1)
	r := newRig(t, fs, "/d/streams")
	s := r.open(queue.Settings{})
	fs.FailAt(faultfs.OpAllocate, 1, syscall.ENOSPC)
	publish(t, s, 0, 10)
	_, k := consume(t, s, plenty, fromFirst())
	check(t, k.wait(t, 10), 0, 10)
	r.close()
}
