package storage

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// A disk of 128 MiB is filled until publishers are held and drained again, three times: no
// failure, nothing lost, and room again every time.
func TestSmallDiskFillsAndDrains(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=128m"); err != nil {
		t.Skipf("cannot mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
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
		if got < 100 {
			t.Errorf("round %d: only %d messages fit", round, got)
		}
		for len(low) > 0 {
			<-low
		}
	}
	mustClose(t, s)
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
