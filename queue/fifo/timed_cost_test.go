package fifo

import (
	"math/rand/v2"
	"runtime"
	"testing"
)

// timed enqueues n messages whose deadlines f gives.
func timed(m *Machine[*int], n int, f func(i int) int64) {
	payload := new(int)
	for i := range n {
		m.Enqueue(Item[*int]{Payload: payload, Size: 1, Deadline: f(i)})
	}
}

// TestUniformTimeToLiveCostsNothing: ten messages a millisecond that live equally long share their timers.
func TestUniformTimeToLiveCostsNothing(t *testing.T) {
	m := New[*int](Options{})
	timed(m, 1_000_000, func(i int) int64 { return 60_000 + int64(i/10) })
	if n := m.timing.expiry.len(); n > 1_000_000/160+2 {
		t.Errorf("%d runs", n)
	}
}

// TestRandomDeadlinesAreSmall: a million cold messages with deadlines of their own need 24 bytes each, and expire.
func TestRandomDeadlinesAreSmall(t *testing.T) {
	before := heap()
	m := New[*int](Options{})
	r := rand.New(rand.NewPCG(1, 2))
	payload := new(int)
	for range 1000 {
		timed(m, 1000, func(int) int64 { return 1 + r.Int64N(1_000_000) })
		m.PageOut(100, 1<<30, func(uint64) bool { return true })
	}
	if used := heap() - before; used > 31<<20 {
		t.Errorf("%d bytes used", used)
	}
	const now = 250_000
	var items []LoadedItem[*int]
	var d Delivery[*int]
	expired := 0
	for {
		for m.Expire(now, false, &d) {
			expired++
		}
		want := m.NeedsLoad(0)
		if want == nil {
			break
		}
		items = items[:0]
		for _, w := range want {
			for seq := w.From; seq < w.To; seq++ {
				items = append(items, LoadedItem[*int]{Seq: seq, Payload: payload, Size: 1})
			}
		}
		m.Loaded(items, want[len(want)-1].To)
	}
	if expired < 245_000 || expired > 255_000 || m.Ready() != 1_000_000-expired {
		t.Errorf("%d expired, %d are left", expired, m.Ready())
	}
	runtime.KeepAlive(m)
}

// TestTimersFollowTheMessages: what was handled long before its deadline leaves no timers, though one message stays.
func TestTimersFollowTheMessages(t *testing.T) {
	for name, step := range map[string]int64{"one each": 1000, "uniform": 1} {
		t.Run(name, func(t *testing.T) {
			m := withConsumers(t, 1, 0)
			enqueue(m, 1)
			deliver(t, m, 1)
			for i := range 300_000 {
				timed(m, 1, func(int) int64 { return 1e9 + int64(i)*step })
				m.Ack(deliver(t, m, 1)[0])
				if n := m.timing.expiry.len(); n > 4*sweepSlack {
					t.Fatalf("%d runs for %d messages", n, m.Unacked())
				}
			}
		})
	}
	t.Run("drained", func(t *testing.T) {
		m := withConsumers(t, 1, 0)
		timed(m, 300_000, func(i int) int64 { return 1e9 + int64(i*7919%300_000)*100 })
		for i := range 299_000 {
			m.Ack(deliver(t, m, 1)[0])
			if live := 300_000 - i; m.timing.expiry.len() > 4*live+4*sweepSlack {
				t.Fatalf("%d runs for %d messages", m.timing.expiry.len(), live)
			}
		}
		if c := cap(m.timing.expiry.heap); c > 20_000 {
			t.Errorf("room for %d runs", c)
		}
	})
}

// TestManyPrioritiesAreSmall: 255 levels that were in use and ran empty need no memory.
func TestManyPrioritiesAreSmall(t *testing.T) {
	before := heap()
	m := New[*int](Options{MaxPriority: 255})
	fresh := heap() - before
	for range 3 {
		for i := range 100_000 {
			m.Enqueue(Item[*int]{Size: 1, Priority: uint8(i)})
		}
		var d Delivery[*int]
		for last := uint8(255); m.Get(noLimit, true, &d); last = d.Priority {
			if d.Priority > last {
				t.Fatalf("priority %d after %d", d.Priority, last)
			}
		}
	}
	if left := heap() - before; fresh > 4<<10 || left > 20<<10 {
		t.Errorf("%d bytes at first, %d left", fresh, left)
	}
	runtime.KeepAlive(m)
}

// TestBlockedGroupsAreLookedAtOnce: a slow consumer has a group with a backlog; the others go on at full speed, until
// the window is full.
func TestBlockedGroupsAreLookedAtOnce(t *testing.T) {
	m := New[*int](Options{Groups: true})
	for id := range 2 {
		if err := m.Subscribe(Consumer{ID: ConsumerID(id + 1), Prefetch: 1}); err != nil {
			t.Fatal(err)
		}
	}
	m.Enqueue(Item[*int]{Size: 1, Group: 1})
	slow := deliver(t, m, 1)[0]
	for range groupWindow {
		m.Enqueue(Item[*int]{Size: 1, Group: 1})
	}
	m.Enqueue(Item[*int]{Size: 1, Group: 2})
	m.Enqueue(Item[*int]{Size: 1, Group: 1})
	m.Enqueue(Item[*int]{Size: 1, Group: 2})
	m.Ack(deliver(t, m, 1)[0])
	var d Delivery[*int]
	asked := 0
	count := admitFunc(func(ConsumerID, uint32) bool { asked++; return true })
	if m.Next(noLimit, count, &d) || asked > 0 || m.groups.aside.head.n != groupWindow {
		t.Fatalf("%d is handed out, %d aside, %d asked", d.Seq, m.groups.aside.head.n, asked)
	}
	m.Ack(slow)
	for want := uint64(1); m.Ready() > 0; want++ {
		if want == groupWindow+1 {
			want++ // handed out
		}
		if !m.Next(noLimit, count, &d) || d.Seq != want {
			t.Fatalf("got %d, want %d", d.Seq, want)
		}
		m.Ack(d.Seq)
	}
	if n := len(m.groups.byID); n > 2 || len(m.groups.moving) > 2 {
		t.Errorf("%d groups, %d moving are left", n, len(m.groups.moving))
	}
}

// featureCycles are steady states of queues that use what others do not pay for.
var featureCycles = map[string]struct {
	options Options
	item    func(i int) Item[*int]
}{
	"uniform-ttl":   {Options{}, func(i int) Item[*int] { return Item[*int]{Size: 1, Deadline: 60_000 + int64(i/100)} }},
	"random-expiry": {Options{}, func(i int) Item[*int] { return Item[*int]{Size: 1, Deadline: 1 + int64(i*7919%1_000_000)} }},
	"priorities":    {Options{MaxPriority: 10}, func(i int) Item[*int] { return Item[*int]{Size: 1, Priority: uint8(i % 11)} }},
	"groups":        {Options{Groups: true}, func(i int) Item[*int] { return Item[*int]{Size: 1, Group: uint16(i % 50)} }},
	"single-active": {Options{SingleActive: true}, func(int) Item[*int] { return Item[*int]{Size: 1} }},
}

// featureCycle returns a step of publish + deliver + ack with 100 messages waiting.
func featureCycle(tb testing.TB, name string) func() {
	f := featureCycles[name]
	m := New[*int](f.options)
	for i := range 10 {
		if err := m.Subscribe(Consumer{ID: ConsumerID(i + 1)}); err != nil {
			tb.Fatal(err)
		}
	}
	i := 0
	for ; i < 100; i++ {
		m.Enqueue(f.item(i))
	}
	var d Delivery[*int]
	return func() {
		m.Enqueue(f.item(i))
		i++
		if !m.Next(noLimit, admitAll{}, &d) {
			tb.Fatal("nothing moves")
		}
		m.Ack(d.Seq)
	}
}

func TestFeaturesDoNotAllocate(t *testing.T) {
	for name := range featureCycles {
		t.Run(name, func(t *testing.T) {
			step := featureCycle(t, name)
			for range 5000 {
				step()
			}
			if allocs := testing.AllocsPerRun(20, func() {
				for range 1000 {
					step()
				}
			}); allocs > 0 {
				t.Errorf("%v allocations in 1000 messages", allocs)
			}
		})
	}
}

func BenchmarkFeatures(b *testing.B) {
	for name := range featureCycles {
		b.Run(name, func(b *testing.B) {
			step := featureCycle(b, name)
			b.ReportAllocs()
			for b.Loop() {
				step()
			}
		})
	}
}

// BenchmarkExpire: a million messages come with random deadlines and expire.
func BenchmarkExpire(b *testing.B) {
	const n = 1_000_000
	r := rand.New(rand.NewPCG(1, 2))
	b.ReportAllocs()
	for b.Loop() {
		m := New[*int](Options{})
		timed(m, n, func(int) int64 { return 1 + r.Int64N(60_000) })
		var d Delivery[*int]
		for now := int64(0); m.Ready() > 0; now += quantum {
			for m.Expire(now, false, &d) {
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/message")
}
