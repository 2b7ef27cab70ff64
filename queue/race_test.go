package queue

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/settmq/settmq/queue/fifo"
)

// busySink settles deliveries on goroutines of its own, as clients do, and checks the order
// of what the queue hands out. It is the sink of all consumers of one queue.
type busySink struct {
	q    *Queue
	work chan got // to the settlers; has room for every message

	mu    sync.Mutex
	first map[string]int  // publisher → newest message delivered for the first time; guarded by mu
	seen  map[string]bool // bodies ever delivered; guarded by mu
	gone  map[string]bool // acked; guarded by mu
	wrong []string        // guarded by mu
}

func (s *busySink) Admit(*Consumer, uint32) bool               { return true }
func (s *busySink) Cancelled(*Consumer)                        {}
func (s *busySink) TimedOut(*Consumer, int64, *Wakes) []uint64 { return nil }

func (s *busySink) Deliver(_ *Consumer, d *Delivery, _ *Wakes) {
	s.note(d)
	s.work <- got{d.Seq, string(d.Message.Body), d.Redelivered}
}

// note is called under the queue's lock, so it sees deliveries in their order.
func (s *busySink) note(d *Delivery) {
	text := string(d.Message.Body)
	var publisher string
	var n int
	if _, err := fmt.Sscanf(text, "%s %d", &publisher, &n); err != nil {
		s.fail("body %q: %v", text, err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.gone[text]:
		s.wrong = append(s.wrong, fmt.Sprintf("%q was delivered after its ack", text))
	case s.seen[text] != d.Redelivered:
		s.wrong = append(s.wrong, fmt.Sprintf("%q was delivered with redelivered=%t", text, d.Redelivered))
	case !d.Redelivered && n <= s.first[publisher]:
		s.wrong = append(s.wrong, fmt.Sprintf("%q was delivered after %d", text, s.first[publisher]))
	}
	if !d.Redelivered {
		s.first[publisher] = n
	}
	s.seen[text] = true
}

func (s *busySink) fail(format string, args ...any) {
	s.mu.Lock()
	s.wrong = append(s.wrong, fmt.Sprintf(format, args...))
	s.mu.Unlock()
}

// settle acks, or now and then requeues, until work is closed.
func (s *busySink) settle(rng *rand.Rand) {
	for g := range s.work {
		var w Wakes
		if rng.IntN(5) == 0 {
			s.q.Requeue([]uint64{g.seq}, false, &w)
			continue
		}
		s.mu.Lock()
		s.gone[g.body] = true
		s.mu.Unlock()
		s.q.Ack([]uint64{g.seq}, &w)
	}
}

// TestEverythingAtOnce runs publishers, consumers, gets, settlements, purges, paging and
// counters against two queues with a real store, and deletes one of them in the middle.
func TestEverythingAtOnce(t *testing.T) {
	const (
		publishers = 3
		each       = 1500
		consumers  = 3
		prefetch   = 40
		settlers   = 2
	)
	r := newRig(t)
	kept, doomed := r.durable("kept"), r.durable("doomed")
	c := newConfirms()
	var number atomic.Uint64
	var publishing sync.WaitGroup
	for p := range publishers {
		publishing.Go(func() {
			for i := 1; i <= each; i++ {
				text := fmt.Appendf(nil, "p%d %d", p, i)
				r.publish(c, number.Add(1), text, false, kept, doomed)
			}
		})
	}

	var busy sync.WaitGroup
	sinks := make(map[*Queue]*busySink)
	for n, q := range []*Queue{kept, doomed} {
		s := &busySink{
			q: q, work: make(chan got, publishers*each),
			first: make(map[string]int), seen: make(map[string]bool), gone: make(map[string]bool),
		}
		sinks[q] = s
		for i := range settlers {
			rng := rand.New(rand.NewPCG(uint64(n), uint64(i)))
			busy.Go(func() { s.settle(rng) })
		}
		for i := range consumers {
			if err := q.Subscribe(&Consumer{ID: fifo.ConsumerID(i + 1), Prefetch: prefetch, Queue: q, Sink: s}, nil, &Wakes{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	stop := make(chan struct{})
	var others sync.WaitGroup
	others.Go(func() { // consumers come and go
		var w Wakes
		for id := fifo.ConsumerID(consumers + 1); ; id++ {
			select {
			case <-stop:
				return
			default:
			}
			_ = kept.Subscribe(&Consumer{ID: id, Prefetch: 1, Queue: kept, Sink: sinks[kept]}, nil, &w)
			kept.SetPrefetch(id, 0, &w)
			kept.SetPrefetch(id, 1, &w)
			kept.Unsubscribe(id, &w)
		}
	})
	others.Go(func() { // the sampler
		for {
			select {
			case <-stop:
				return
			default:
			}
			kept.PageOut(1 << 20)
			doomed.PageOut(1 << 20)
			_ = kept.Info()
		}
	})
	others.Go(func() {
		half := uint64(publishers * each / 2)
		await(t, &c.mu, &c.cond, "half of the confirms", func() bool { return uint64(len(c.seen)) >= half })
		if _, gone, err := doomed.Delete(false, false); err != nil || len(gone) != consumers {
			t.Errorf("delete: %d consumers, %v", len(gone), err)
		}
		r.drop(doomed)
	})

	publishing.Wait()
	c.all(t, publishers*each)
	close(stop)
	others.Wait()
	// What is still there goes the usual way: the settlers ack until nothing is left.
	drain(t, kept)
	for _, s := range sinks {
		close(s.work)
	}
	busy.Wait()
	for q, s := range sinks {
		for _, wrong := range s.wrong {
			t.Errorf("queue %s: %s", q.Name, wrong)
		}
	}
	if n := len(sinks[kept].gone); n != publishers*each {
		t.Errorf("%d messages were acked, want %d", n, publishers*each)
	}
	if have := kept.Info(); have.Ready+have.Unacked != 0 || have.Memory != 0 {
		t.Errorf("after the last ack: %+v", have)
	}
}

// drain waits until a queue is empty, by watching it from a second, idle, consumer.
func drain(t testing.TB, q *Queue) {
	t.Helper()
	deadline := newDeadline(t)
	for q.Info().Ready+q.Info().Unacked > 0 {
		deadline.check("an empty queue")
	}
}

// TestPurgeWhilePublishingAndPaging: a purge takes what is there at its moment; counts add up.
func TestPurgeWhilePublishingAndPaging(t *testing.T) {
	r := newRig(t)
	q := r.durable("purged")
	c := newConfirms()
	const n = 4000
	var publishing, others sync.WaitGroup
	stop := make(chan struct{})
	publishing.Go(func() {
		for i := range n {
			r.publish(c, uint64(i)+1, body(i), false, q)
		}
	})
	purged, fetched := 0, 0
	others.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			n, _ := q.Purge()
			purged += n
			q.PageOut(1 << 20)
		}
	})
	others.Go(func() {
		for {
			_, _, ok, err := q.Get(true, nil)
			if err != nil {
				t.Errorf("get: %v", err)
				return
			}
			if ok {
				fetched++
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	publishing.Wait()
	c.all(t, n)
	close(stop)
	others.Wait()
	last, _ := q.Purge()
	if purged += last; purged+fetched != n {
		t.Errorf("%d purged and %d fetched of %d", purged, fetched, n)
	}
	if st := q.Store.State(); st.Ready != 0 {
		t.Errorf("the store still has %d messages", st.Ready)
	}
}
