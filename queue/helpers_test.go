package queue

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/settmq/settmq/queue/fifo"
	"github.com/settmq/settmq/storage"
)

// openStore opens a store with everything small.
func openStore(t testing.TB, dir string) *storage.Store {
	t.Helper()
	s, err := storage.Open(storage.Options{
		Dir: dir, JournalSegment: 256 << 10, JournalMax: 1 << 20, Small: true, MinFree: 1,
		Log:       zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.ErrorLevel),
		OnFailure: func(err error) { t.Errorf("the store failed: %v", err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// rig is a store with a pager, closed with the test.
type rig struct {
	t      testing.TB
	store  *storage.Store
	pager  *Pager
	timers *Timers
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, store: openStore(t, t.TempDir()), pager: NewPager(2), timers: NewTimers()}
	r.timers.Start()
	t.Cleanup(func() {
		r.timers.Close()
		r.pager.Close()
		if err := r.store.Close(); err != nil {
			t.Errorf("closing the store: %v", err)
		}
	})
	return r
}

// durable makes a durable queue.
func (r *rig) durable(name string) *Queue {
	r.t.Helper()
	id := r.store.NextID()
	if err := r.store.Apply(storage.Change{CreateQueues: []uint64{id}}).Wait(); err != nil {
		r.t.Fatal(err)
	}
	return New(Options{
		Declaration: Declaration{ID: id, Name: name, Durable: true}, Store: r.store.Queue(id), Pager: r.pager, Timers: r.timers,
		OnFault: func(q *Queue, err error) { r.t.Errorf("queue %s: %v", q.Name, err) },
	})
}

// testTimers are timers for a queue without a store.
func testTimers(t testing.TB) *Timers {
	timers := NewTimers()
	timers.Start()
	t.Cleanup(timers.Close)
	return timers
}

// drop forgets a deleted queue's messages, as the vhost does.
func (r *rig) drop(q *Queue) {
	r.t.Helper()
	if err := r.store.Apply(storage.Change{DeleteQueues: []uint64{q.ID}}).Wait(); err != nil {
		r.t.Fatal(err)
	}
}

// publish puts a message in the queues; c, if not nil, is told n when it is safe.
func (r *rig) publish(c storage.Confirmer, n uint64, body []byte, transient bool, queues ...*Queue) {
	var w Wakes
	m := &storage.Message{RoutingKey: "key", Properties: []byte{0, 0}, Body: body, Transient: transient}
	if c != nil {
		m.Confirm, m.ConfirmSeq = c, n
	}
	stores := int32(0)
	for _, q := range queues {
		if q.Lasts() && !transient {
			stores++
		}
	}
	m.Targets.Store(stores + 1)
	if stores > 0 {
		if err := r.store.Reserve(len(body)); err != nil {
			r.t.Errorf("reserve: %v", err)
			return
		}
	}
	for _, q := range queues {
		q.Publish(m, &w)
	}
	m.Done()
	w.Flush()
}

func body(n int) []byte { return fmt.Appendf(nil, "message %d", n) }

// await polls nothing: it waits for the condition behind a sync.Cond, which whoever changes
// it broadcasts, and gives up after a while.
func await(t testing.TB, mu *sync.Mutex, cond *sync.Cond, what string, ok func() bool) {
	t.Helper()
	const patience = 20 * time.Second
	expired := false
	timer := time.AfterFunc(patience, func() {
		mu.Lock()
		expired = true
		mu.Unlock()
		cond.Broadcast()
	})
	defer timer.Stop()
	mu.Lock()
	defer mu.Unlock()
	for !ok() {
		if expired {
			t.Fatalf("%s did not come about in %v", what, patience)
		}
		cond.Wait()
	}
}

// confirms collects what the store confirmed.
type confirms struct {
	mu   sync.Mutex
	cond sync.Cond
	seen map[uint64]int // guarded by mu
}

func newConfirms() *confirms {
	c := &confirms{seen: make(map[uint64]int)}
	c.cond.L = &c.mu
	return c
}

func (c *confirms) Confirm(seqs []uint64, _ bool) {
	c.mu.Lock()
	for _, seq := range seqs {
		c.seen[seq]++
	}
	c.mu.Unlock()
	c.cond.Broadcast()
}

// all waits until 1…n are confirmed and checks that none was twice.
func (c *confirms) all(t testing.TB, n uint64) {
	t.Helper()
	await(t, &c.mu, &c.cond, fmt.Sprintf("%d confirms", n), func() bool { return uint64(len(c.seen)) >= n })
	c.mu.Lock()
	defer c.mu.Unlock()
	for seq := uint64(1); seq <= n; seq++ {
		if c.seen[seq] != 1 {
			t.Errorf("message %d was confirmed %d times", seq, c.seen[seq])
		}
	}
}

// got is a delivery that a sink took.
type got struct {
	seq         uint64
	body        string
	redelivered bool
}

// sink is a channel of a connection: it takes deliveries while it has room.
type sink struct {
	mu        sync.Mutex
	cond      sync.Cond
	room      int // deliveries it still admits; negative: no limit. Guarded by mu, as all below
	refused   []*Consumer
	list      []got
	cancelled int
	woken     int
}

func newSink(room int) *sink {
	s := &sink{room: room}
	s.cond.L = &s.mu
	return s
}

func (s *sink) Admit(c *Consumer, _ uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.room == 0 {
		s.refused = append(s.refused, c)
		return false
	}
	s.room--
	return true
}

func (s *sink) Deliver(_ *Consumer, d *Delivery, w *Wakes) {
	s.mu.Lock()
	s.list = append(s.list, got{d.Seq, string(d.Message.Body), d.Redelivered})
	s.mu.Unlock()
	w.Add(s)
}

func (s *sink) Cancelled(*Consumer) {
	s.mu.Lock()
	s.cancelled++
	s.mu.Unlock()
	s.cond.Broadcast()
}

// TimedOut returns all that was delivered and not taken.
func (s *sink) TimedOut(*Consumer, int64, *Wakes) (seqs []uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cancelled++
	for _, d := range s.list {
		seqs = append(seqs, d.seq)
	}
	s.list = nil
	s.cond.Broadcast()
	return seqs
}

func (s *sink) Wake(bool) {
	s.mu.Lock()
	s.woken++
	s.mu.Unlock()
	s.cond.Broadcast()
}

// take waits for n deliveries and takes them.
func (s *sink) take(t testing.TB, n int) []got {
	t.Helper()
	await(t, &s.mu, &s.cond, fmt.Sprintf("delivery of %d", n), func() bool { return len(s.list) >= n })
	s.mu.Lock()
	defer s.mu.Unlock()
	list := slices.Clone(s.list[:n])
	s.list = slices.Delete(s.list, 0, n)
	return list
}

// open makes room for n more and unparks who was refused.
func (s *sink) open(n int) {
	s.mu.Lock()
	s.room += n
	refused := s.refused
	s.refused = nil
	s.mu.Unlock()
	var w Wakes
	for _, c := range refused {
		c.Queue.Unpark(c.ID, &w)
	}
	w.Flush()
}

func subscribe(t testing.TB, q *Queue, id fifo.ConsumerID, s *sink, prefetch uint32) *Consumer {
	t.Helper()
	c := &Consumer{ID: id, Tag: fmt.Sprint("c", id), Prefetch: prefetch, Queue: q, Sink: s}
	var w Wakes
	if err := q.Subscribe(c, nil, &w); err != nil {
		t.Fatal(err)
	}
	w.Flush()
	return c
}

func ack(q *Queue, list ...got) {
	var w Wakes
	seqs := make([]uint64, len(list))
	for i, g := range list {
		seqs[i] = g.seq
	}
	q.Ack(seqs, &w)
	w.Flush()
}

// deadline ends loops that wait for what other goroutines do.
type deadline struct {
	t    testing.TB
	last time.Time
}

func newDeadline(t testing.TB) deadline { return deadline{t, time.Now().Add(20 * time.Second)} }

func (d deadline) check(what string) {
	d.t.Helper()
	if time.Now().After(d.last) {
		d.t.Fatalf("%s did not come about", what)
	}
	runtime.Gosched()
}
