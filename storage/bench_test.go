package storage

import (
	"fmt"
	"sync"
	"testing"

	"github.com/rs/zerolog"
)

// windowConfirms lets a publisher wait until at most window messages are unconfirmed.
type windowConfirms struct {
	mu   sync.Mutex
	cond sync.Cond
	open int
	dups int
}

func (c *windowConfirms) Confirm(seqs []uint64) {
	c.mu.Lock()
	c.open -= len(seqs)
	c.mu.Unlock()
	c.cond.Broadcast()
}

func (c *windowConfirms) acquire(window int) {
	c.mu.Lock()
	for c.open >= window {
		c.cond.Wait()
	}
	c.open++
	c.mu.Unlock()
}

func benchStore(b *testing.B) *Store {
	s, err := Open(Options{Dir: b.TempDir(), Log: zerolog.Nop(), OnFailure: func(err error) { panic(err) }})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

// BenchmarkConfirmed publishes 1 KiB messages with a window of unconfirmed ones and settles each
// once it is confirmed, or rather a window behind.
func BenchmarkConfirmed(b *testing.B) {
	for _, window := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("window=%d", window), func(b *testing.B) {
			s := benchStore(b)
			q := createQueue(b, s)
			c := &windowConfirms{}
			c.cond.L = &c.mu
			body := make([]byte, 1024)
			b.SetBytes(1024)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range uint64(b.N) {
				c.acquire(window)
				m := &Message{Exchange: "ex", RoutingKey: "key", Body: body, Confirm: c, ConfirmSeq: i}
				m.Targets.Store(1)
				if err := s.Reserve(len(body)); err != nil {
					b.Fatal(err)
				}
				q.Append(i, m)
				if i >= uint64(window) {
					q.Settle(i - uint64(window))
				}
			}
			c.mu.Lock()
			for c.open > 0 {
				c.cond.Wait()
			}
			c.mu.Unlock()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/float64(s.batches.Load()), "msgs/batch")
		})
	}
}
