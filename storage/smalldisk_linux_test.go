package storage

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// A disk of 128 MiB is filled until publishers are held and drained again, three times: no
// failure, nothing lost, and room again every time.
func TestSmallDiskFillsAndDrains(t *testing.T) {
	dir := smallDiskAt(t)
	low := make(chan bool, 64)
	s, err := Open(Options{
		Dir: dir + "/data", MinFree: 1, Log: zerolog.Nop(),
		OnFailure: func(err error) { t.Errorf("store failed: %v", err) },
		OnSpace:   func(l bool) { low <- l },
	})
	if err != nil {
		t.Fatal(err)
	}
	q := createQueue(t, s)
	next := uint64(0)
	for round := range 3 {
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for ; ; next++ {
				select {
				case <-stop:
					return
				default:
				}
				m := &Message{Body: bodyOf(1, next, 20_000)}
				if err := s.Reserve(len(m.Body)); err != nil {
					if !errors.Is(err, ErrClosed) {
						t.Errorf("reserve: %v", err)
					}
					return
				}
				q.Append(next, m)
			}
		})
		awaitSpaceIs(t, low, true)
		if s.Stats().Unwritten < 0 {
			t.Error("negative budget")
		}
		// The publisher is held, or will be at its next message. Drain while it is.
		close(stop)
		got := 0
		for deadline := time.Now().Add(patience); ; {
			items := readAll(t, q, 0)
			for _, it := range items {
				q.Settle(it.Seq)
			}
			got += len(items)
			if q.State().Ready == 0 && !s.shortOfSpace() {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("round %d: no space after draining %d messages: %+v", round, got, s.Stats())
			}
		}
		wg.Wait()
		for _, it := range readAll(t, q, 0) {
			q.Settle(it.Seq)
		}
		// How many depends on how much was given back before the first one came.
		if got == 0 {
			t.Errorf("round %d: no message fits", round)
		}
		for len(low) > 0 {
			<-low
		}
	}
	mustClose(t, s)
}

// smallDiskAt mounts a disk of 128 MiB.
func smallDiskAt(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=128m"); err != nil {
		t.Skipf("cannot mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// leave has a file of others fill the disk but for some space.
func leave(t *testing.T, dir string, space int64) {
	t.Helper()
	name := filepath.Join(dir, "others")
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	free, _, err := diskSpace(dir)
	if err == nil && free > space {
		err = os.WriteFile(name, make([]byte, free-space), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// until polls for what no signal tells.
func until(t *testing.T, otherwise string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(otherwise)
		}
	}
}

// What a drained backlog takes of a disk that is nearly full is given back also if the store is
// opened again in between, when its counters of what to clean up begin anew.
func TestDrainedBacklogIsCleanedUpAfterAReopen(t *testing.T) {
	for _, left := range []string{"checkpoints", "reclaims"} {
		t.Run(left, func(t *testing.T) {
			dir := smallDiskAt(t)
			low := make(chan bool, 64)
			var drained atomic.Bool
			o := Options{
				Dir: filepath.Join(dir, "data"), MinFree: 1, Log: zerolog.Nop(),
				OnFailure: func(err error) { t.Errorf("store failed: %v", err) },
				OnSpace:   func(l bool) { low <- l },
				overdue:   func() bool { return true },
				paused:    func(what string) bool { return drained.Load() && what == left },
			}
			s := mustOpen(t, o)
			q := createQueue(t, s)
			var full atomic.Bool
			var wg sync.WaitGroup
			wg.Go(func() {
				for seq := uint64(0); ; seq++ {
					m := &Message{Body: bodyOf(1, seq, 20_000)}
					if s.Reserve(len(m.Body)) != nil || full.Load() {
						return
					}
					q.Append(seq, m)
				}
			})
			awaitSpaceIs(t, low, true)
			full.Store(true)
			// Nothing is left in the journal that would be a reason for a checkpoint.
			if err := s.checkpointNowAndWait(); err != nil {
				t.Fatal(err)
			}
			drained.Store(true)
			for _, it := range readAll(t, q, 0) {
				q.Settle(it.Seq)
			}
			if err := errors.Join(s.Apply(Change{}).Wait(), s.checkpointNowAndWait()); err != nil {
				t.Fatal(err)
			}
			records := keys(t, s, keyRecord)
			mustClose(t, s)
			wg.Wait()
			if (records == 0) != (left == "reclaims") {
				t.Fatalf("%d records are left", records)
			}

			leave(t, dir, 28<<20) // publishers are held, and there is enough for cleaning up
			o.paused = nil
			s = mustOpen(t, o)
			defer mustClose(t, s)
			until(t, "publishers are still held", func() bool { return s.Stats().Reclaims > 0 && !s.shortOfSpace() })
		})
	}
}

func awaitSpaceIs(t *testing.T, ch chan bool, want bool) {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case got := <-ch:
			if got == want {
				return
			}
		case <-timeout:
			t.Fatalf("space never became low=%v", want)
		}
	}
}
