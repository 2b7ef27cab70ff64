package storage

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// windowConfirms lets a publisher wait until at most window messages are unconfirmed.
type windowConfirms struct {
	mu   sync.Mutex
	cond sync.Cond
	open int
}

func (c *windowConfirms) Confirm(seqs []uint64, _ bool) {
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

// fill publishes n messages of the given size and waits for all confirms.
func fill(b *testing.B, s *Store, q *Queue, from, n uint64, size int) {
	b.Helper()
	c := &windowConfirms{}
	c.cond.L = &c.mu
	body := make([]byte, size)
	for i := from; i < from+n; i++ {
		c.acquire(4000)
		m := &Message{Exchange: "ex", RoutingKey: "key", Body: body, Confirm: c, ConfirmSeq: i}
		m.Targets.Store(1)
		if err := s.Reserve(size); err != nil {
			b.Fatal(err)
		}
		q.Append(i, m)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.open > 0 {
		c.cond.Wait()
	}
}

// drain reads and settles everything.
func drain(b *testing.B, q *Queue) (n uint64) {
	b.Helper()
	var items []Stored
	for from := q.State().FirstSeq; ; {
		var err error
		items, from, err = q.Read(items[:0], from, 1000, 2<<20)
		if err != nil {
			b.Fatal(err)
		}
		if len(items) == 0 {
			return n
		}
		for i := range items {
			q.Settle(items[i].Seq)
		}
		n += uint64(len(items))
	}
}

// BenchmarkBacklog fills a queue with 1 KiB messages (1 GiB when b.N is 1 048 576), opens the
// store again, and drains it.
func BenchmarkBacklog(b *testing.B) {
	for _, size := range []int{100, 1024} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			o := Options{Dir: b.TempDir(), Log: zerolog.Nop(), OnFailure: func(err error) { panic(err) }}
			s := mustOpen(b, o)
			q := createQueue(b, s)
			n := uint64(b.N)
			b.SetBytes(int64(size))
			b.ResetTimer()
			start := time.Now()
			fill(b, s, q, 0, n, size)
			b.ReportMetric(float64(n)/time.Since(start).Seconds(), "fill/s")
			mustClose(b, s)
			start = time.Now()
			s = mustOpen(b, o)
			b.ReportMetric(time.Since(start).Seconds()*1000, "open-ms")
			start = time.Now()
			if got := drain(b, s.Queue(q.ID())); got != n {
				b.Fatalf("drained %d of %d", got, n)
			}
			b.ReportMetric(float64(n)/time.Since(start).Seconds(), "drain/s")
			b.StopTimer()
			mustClose(b, s)
		})
	}
}
