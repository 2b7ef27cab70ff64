package fifo

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
)

type admitAll struct{}

func (admitAll) Admit(ConsumerID, uint32) bool { return true }

const noLimit = 1 << 63

// withConsumers returns a machine with consumers 1..n of the given prefetch.
func withConsumers(tb testing.TB, n int, prefetch uint32) *Machine[*int] {
	tb.Helper()
	m := New[*int](Options{})
	for i := range n {
		if err := m.Subscribe(Consumer{ID: ConsumerID(i + 1), Prefetch: prefetch}); err != nil {
			tb.Fatal(err)
		}
	}
	return m
}

func enqueue(m *Machine[*int], n int) {
	payload := new(int)
	for range n {
		m.Enqueue(Item[*int]{Payload: payload, Size: 1})
	}
}

// deliver hands out n messages and fails if they do not move.
func deliver(tb testing.TB, m *Machine[*int], n int) (seqs []uint64) {
	tb.Helper()
	var d Delivery[*int]
	for range n {
		if !m.Next(noLimit, admitAll{}, &d) {
			tb.Fatalf("nothing moves: %d ready", m.Ready())
		}
		seqs = append(seqs, d.Seq)
	}
	return seqs
}

// cycle is publish + deliver + ack, with the acknowledgements a window behind the deliveries.
type cycle struct {
	m       *Machine[*int]
	payload *int
	window  []uint64
	at      int
	d       Delivery[*int]
}

func newCycle(tb testing.TB, m *Machine[*int], ready, unacked int) *cycle {
	tb.Helper()
	c := &cycle{m: m, payload: new(int)}
	enqueue(m, ready+unacked)
	c.window = deliver(tb, m, unacked)
	return c
}

func (c *cycle) step() bool {
	c.m.Enqueue(Item[*int]{Payload: c.payload, Size: 1})
	if len(c.window) == 0 {
		ok := c.m.Next(noLimit, admitAll{}, &c.d)
		_, acked := c.m.Ack(c.d.Seq)
		return ok && acked
	}
	_, acked := c.m.Ack(c.window[c.at])
	ok := c.m.Next(noLimit, admitAll{}, &c.d)
	c.window[c.at] = c.d.Seq
	if c.at++; c.at == len(c.window) {
		c.at = 0
	}
	return ok && acked
}

// cycles are the steady states whose cost is watched.
var cycles = []struct {
	name                       string
	consumers, ready, unacked  int
	prefetch                   uint32
	shuffle, blocked, priority bool
}{
	{name: "one", consumers: 1},
	{name: "prefetch=100", consumers: 1, unacked: 100, prefetch: 100},
	{name: "backlog=100k", consumers: 1, ready: 100_000, unacked: 100, prefetch: 100},
	{name: "any-order", consumers: 1, unacked: 1000, prefetch: 1000, shuffle: true},
	{name: "consumers=1000", consumers: 1000, unacked: 1000, prefetch: 10, shuffle: true},
	{name: "consumers=1000,prefetch=1", consumers: 1000, unacked: 1000, prefetch: 1, shuffle: true},
	{name: "blocked=10000", consumers: 1, unacked: 1, prefetch: 10, blocked: true},
	{name: "blocked-priorities=10000", consumers: 1, unacked: 1, prefetch: 10, blocked: true, priority: true},
	{name: "unacked=1M", consumers: 10, unacked: 1_000_000},
	{name: "unacked=1M,any-order", consumers: 10, unacked: 1_000_000, shuffle: true},
}

func (c *cycle) shuffle() {
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(c.window), func(i, k int) { c.window[i], c.window[k] = c.window[k], c.window[i] })
}

func steadyState(tb testing.TB, i int) *cycle {
	tb.Helper()
	k := cycles[i]
	m := withConsumers(tb, k.consumers, k.prefetch)
	for b := range 10_000 {
		if !k.blocked {
			break
		}
		c := Consumer{ID: ConsumerID(100_000 + b)}
		if k.priority {
			c.Priority = int32(b + 1)
		}
		if err := m.Subscribe(c); err != nil {
			tb.Fatal(err)
		}
		m.Park(c.ID)
	}
	c := newCycle(tb, m, k.ready, k.unacked)
	if k.shuffle {
		c.shuffle()
	}
	return c
}

// TestSteadyStateDoesNotAllocate: publish + deliver + ack cost no allocation.
func TestSteadyStateDoesNotAllocate(t *testing.T) {
	for i, k := range cycles {
		if k.unacked >= 1_000_000 {
			continue // the same code, only slow to set up
		}
		t.Run(k.name, func(t *testing.T) {
			c := steadyState(t, i)
			for range 2 * len(c.window) {
				c.step()
			}
			const steps = 1000
			allocs := testing.AllocsPerRun(20, func() {
				for range steps {
					if !c.step() {
						t.Fatal("nothing moves")
					}
				}
			})
			// A thousand messages in arbitrary order fill and empty blocks unevenly: now and then one is made.
			if budget := 0.0; allocs > budget && !(k.shuffle && allocs < steps/20) {
				t.Errorf("%v allocations in %d messages", allocs, steps)
			}
		})
	}
}

func heap() int {
	var s runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools and cleanups kept over the first
	runtime.ReadMemStats(&s)
	return int(s.HeapAlloc)
}

// TestMemoryReturnsAfterABurst: a queue that had a million messages, ready and then outstanding, is small again.
func TestMemoryReturnsAfterABurst(t *testing.T) {
	before := heap()
	m := withConsumers(t, 100, 0)
	enqueue(m, 1_000_000)
	full := heap() - before
	if perMessage := full / 1_000_000; perMessage > 36 {
		t.Errorf("%d bytes for each ready message, want 32 and a little", perMessage)
	}
	seqs := deliver(t, m, 1_000_000)
	for _, seq := range seqs {
		m.Ack(seq)
	}
	seqs = nil
	for i := range 100 {
		m.Unsubscribe(ConsumerID(i + 1))
	}
	// Of 32 MB. The runtime and the testing package have some of it.
	if left := heap() - before; left > 64<<10 {
		t.Errorf("%d bytes left", left)
	}
	runtime.KeepAlive(m)
	runtime.KeepAlive(seqs)
}

// TestStuckMessagesDoNotHoldBlocks: one message in a hundred stays outstanding; the others' memory goes.
func TestStuckMessagesDoNotHoldBlocks(t *testing.T) {
	before := heap()
	m := withConsumers(t, 1, 0)
	for i := range 1_000_000 {
		enqueue(m, 1)
		if deliver(t, m, 1); i%100 != 0 {
			m.Ack(uint64(i))
		}
	}
	if perMessage := (heap() - before) / m.Unacked(); perMessage > 100 {
		t.Errorf("%d bytes for each of %d stuck messages", perMessage, m.Unacked())
	}
	for i := range 1_000_000 {
		enqueue(m, 1)
		deliver(t, m, 1)
		if i%100 != 0 {
			continue
		}
		m.Ack(uint64(i))
	}
	runtime.KeepAlive(m)
}

// TestColdMessagesCostNothing: ten million paged out messages have no memory of their own.
func TestColdMessagesCostNothing(t *testing.T) {
	before := heap()
	restored := New[*int](Options{})
	restored.Restore(10_000_000, 0, 10_000_000, 1<<40)
	paged := New[*int](Options{})
	for range 1000 {
		enqueue(paged, 10_000)
		if n, _ := paged.PageOut(1000, 1<<30, func(uint64) bool { return true }); n < 9000 {
			t.Fatalf("only %d paged out", n)
		}
	}
	if restored.Ready() != 10_000_000 || paged.Ready() != 10_000_000 {
		t.Fatalf("%d and %d ready", restored.Ready(), paged.Ready())
	}
	if used := heap() - before; used > 64<<10 {
		t.Errorf("%d bytes used", used)
	}
	runtime.KeepAlive(restored)
	runtime.KeepAlive(paged)
}

func BenchmarkPublishDeliverAck(b *testing.B) {
	for i, k := range cycles {
		b.Run(k.name, func(b *testing.B) {
			c := steadyState(b, i)
			b.ReportAllocs()
			for b.Loop() {
				if !c.step() {
					b.Fatal("nothing moves")
				}
			}
		})
	}
}

// BenchmarkRequeue: n outstanding messages go back; the figure is for one of them.
func BenchmarkRequeue(b *testing.B) {
	for _, n := range []int{1000, 10_000, 100_000, 1_000_000} {
		for _, order := range []string{"ascending", "descending", "random"} {
			b.Run(fmt.Sprintf("%d/%s", n, order), func(b *testing.B) {
				m := withConsumers(b, 1, 0)
				c := newCycle(b, m, 1000, n)
				switch order {
				case "random":
					c.shuffle()
				case "descending":
					for i := range n {
						c.window[i] = uint64(n - 1 - i)
					}
				}
				b.ReportAllocs()
				b.ResetTimer()
				for i := 0; i < b.N; i++ {
					if i%n == 0 && i > 0 {
						b.StopTimer()
						deliver(b, m, n)
						b.StartTimer()
					}
					if !m.Requeue(c.window[i%n], false) {
						b.Fatal("not outstanding")
					}
				}
			})
		}
	}
}

// BenchmarkPaging pages a message out and back in.
func BenchmarkPaging(b *testing.B) {
	const batch = 1000
	m := withConsumers(b, 1, 0)
	stored := func(uint64) bool { return true }
	enqueue(m, batch)
	payload := new(int)
	items := make([]LoadedItem[*int], batch)
	b.ReportAllocs()
	for i := 0; i < b.N; i += batch {
		if n, _ := m.PageOut(0, batch, stored); n != batch {
			b.Fatal(n)
		}
		from := m.NeedsLoad(1)[0].From
		for k := range items {
			items[k] = LoadedItem[*int]{Seq: from + uint64(k), Payload: payload, Size: 1}
		}
		if m.Loaded(items, from+batch); m.Ready() != batch {
			b.Fatal(m.Ready())
		}
	}
}
