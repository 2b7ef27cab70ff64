package queue

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/storage"
)

// inOrder checks that list is the messages from..., each once and none redelivered.
func inOrder(t testing.TB, list []got, from int) {
	t.Helper()
	for i, g := range list {
		if want := string(body(from + i)); g.body != want || g.redelivered {
			t.Fatalf("delivery %d is %q (redelivered=%t), want %q", i, g.body, g.redelivered, want)
		}
	}
}

// TestPagingReturnsEveryMessageOnceInOrder drops all bodies but the head's from memory again
// and again, while a consumer with little prefetch drains the queue.
func TestPagingReturnsEveryMessageOnceInOrder(t *testing.T) {
	r := newRig(t)
	q := r.durable("long")
	c := newConfirms()
	const n = 6000
	for i := range n {
		r.publish(c, uint64(i)+1, body(i), false, q)
	}
	c.all(t, n)
	if freed := q.PageOut(1 << 40); freed == 0 {
		t.Fatal("nothing was paged out")
	}
	if have := q.Info(); have.Memory > headWindow*(20+q.aroundLocked()) || have.Ready != n {
		t.Fatalf("after paging out: %+v", have)
	}
	s := newSink(-1)
	subscribe(t, q, 1, s, 100)
	for done := 0; done < n; done += 50 {
		list := s.take(t, 50)
		inOrder(t, list, done)
		ack(q, list...)
		if done%500 == 0 {
			q.PageOut(1 << 40) // also bodies that the consumer holds
		}
	}
	if have := q.Info(); have.Ready != 0 || have.Unacked != 0 || have.Memory != 0 {
		t.Errorf("after the last ack: %+v", have)
	}
}

// TestSmallMessagesWeighMoreThanTheirBodies: without bodies to speak of, messages take memory all the same, and leave it.
func TestSmallMessagesWeighMoreThanTheirBodies(t *testing.T) {
	r := newRig(t)
	q := r.durable("small")
	c := newConfirms()
	const n, properties = 4000, 500
	p := amqp.Properties{Flags: amqp.PropHeaders, Headers: amqp.Table{{Name: "h", Value: amqp.String(strings.Repeat("p", properties))}}.Append(nil)}
	for i := range n {
		m := &storage.Message{Properties: p.Append(nil), Body: []byte{1}, Confirm: c, ConfirmSeq: uint64(i) + 1}
		m.Targets.Store(2)
		var w Wakes
		q.Publish(m, &w)
		m.Done()
	}
	c.all(t, n)
	all := q.Info().Memory
	if all < n*(properties+messageSize) || all > n*2*(properties+messageSize) {
		t.Fatalf("%d messages take %d bytes", n, all)
	}
	if freed := q.PageOut(all / 2); freed < all/2 || q.Info().Memory+freed != all {
		t.Errorf("of %d bytes %d were freed, %d are left", all, freed, q.Info().Memory)
	}
}

// TestRequeuedMessagesComeBackFromDisk drops the bodies of outstanding messages.
func TestRequeuedMessagesComeBackFromDisk(t *testing.T) {
	r := newRig(t)
	q := r.durable("requeued")
	c := newConfirms()
	const n = 50
	for i := range n {
		r.publish(c, uint64(i)+1, body(i), false, q)
	}
	c.all(t, n)
	s := newSink(-1)
	k := subscribe(t, q, 1, s, 0)
	held := s.take(t, n)
	if q.PageOut(1<<40) == 0 || q.Info().Memory != 0 {
		t.Fatalf("outstanding bodies are still in memory: %+v", q.Info())
	}
	var w Wakes
	q.Unsubscribe(k.ID, &w)
	seqs := make([]uint64, n)
	for i, g := range held {
		seqs[i] = g.seq
	}
	q.Requeue(seqs, false, &w)
	subscribe(t, q, 2, s, 0)
	for i, g := range s.take(t, n) {
		if g.body != string(body(i)) || !g.redelivered {
			t.Fatalf("delivery %d is %q, redelivered=%t", i, g.body, g.redelivered)
		}
	}
}

func TestGetWaitsForAPage(t *testing.T) {
	r := newRig(t)
	q := r.durable("paged")
	c := newConfirms()
	const n = 2 * headWindow
	for i := range n {
		r.publish(c, uint64(i)+1, body(i), false, q)
	}
	c.all(t, n)
	q.PageOut(1 << 40)
	for i := range n {
		d, left, ok, err := q.Get(true, nil)
		if err != nil || !ok || left != n-1-i || string(d.Message.Body) != string(body(i)) {
			t.Fatalf("get %d: %q, %d left, ok=%t, %v", i, d.Message.Body, left, ok, err)
		}
	}
	if _, _, ok, err := q.Get(true, nil); ok || err != nil {
		t.Errorf("get of an empty queue: ok=%t, %v", ok, err)
	}
}

func TestGetEndsWhenStoppedOrDeleted(t *testing.T) {
	r := newRig(t)
	for _, how := range []string{"stop", "delete"} {
		t.Run(how, func(t *testing.T) {
			closed := NewPager(0) // never reads anything
			defer closed.Close()
			q := r.durable(how)
			q.Pager = closed
			c := newConfirms()
			for i := range 2 * headWindow {
				r.publish(c, uint64(i)+1, body(i), false, q)
			}
			c.all(t, 2*headWindow)
			q.PageOut(1 << 40)
			for range headWindow {
				if _, _, ok, err := q.Get(true, nil); !ok || err != nil {
					t.Fatalf("get from the head: ok=%t, %v", ok, err)
				}
			}
			stop, result := make(chan struct{}), make(chan error)
			go func() {
				_, _, _, err := q.Get(true, stop)
				result <- err
			}()
			want := ErrStopped
			if how == "stop" {
				close(stop)
			} else {
				want = ErrDeleted
				if _, _, err := q.Delete(false, false); err != nil {
					t.Fatal(err)
				}
			}
			if err := <-result; !errors.Is(err, want) {
				t.Errorf("got %v, want %v", err, want)
			}
		})
	}
}

// TestDeleteConfirmsWhatItTakesAlong: a message whose queue goes is not owed to anybody.
func TestDeleteConfirmsWhatItTakesAlong(t *testing.T) {
	r := newRig(t)
	gone, kept := r.durable("gone"), r.durable("kept")
	c := newConfirms()
	const n = 500
	for i := range n {
		if i == n/2 {
			ready, _, err := gone.Delete(false, false)
			if err != nil || ready != n/2 {
				t.Fatalf("delete: %d ready, %v", ready, err)
			}
			r.drop(gone)
		}
		r.publish(c, uint64(i)+1, body(i), false, gone, kept)
	}
	c.all(t, n)
	if have := kept.Info().Ready; have != n {
		t.Errorf("%d messages in the other queue, want %d", have, n)
	}
	if _, _, err := gone.Delete(false, false); !errors.Is(err, ErrDeleted) {
		t.Errorf("second delete: %v", err)
	}
	if err := gone.Subscribe(&Consumer{ID: 1, Sink: newSink(-1)}, nil, &Wakes{}); !errors.Is(err, ErrDeleted) {
		t.Errorf("subscribe after delete: %v", err)
	}
}

// TestNothingIsDeliveredBeyondTheDurableLimit watches the bound from within the deliveries.
func TestNothingIsDeliveredBeyondTheDurableLimit(t *testing.T) {
	r := newRig(t)
	q := r.durable("limited")
	s := &limitSink{sink: newSink(-1), q: q}
	var w Wakes
	if err := q.Subscribe(&Consumer{ID: 1, NoAck: true, Queue: q, Sink: s}, nil, &w); err != nil {
		t.Fatal(err)
	}
	const n = 3 * deliveryAhead
	for i := range n {
		r.publish(nil, 0, body(i), i%2 == 0, q)
	}
	inOrder(t, s.take(t, n), 0)
	if s.beyond > 0 {
		t.Errorf("%d deliveries beyond the durable limit", s.beyond)
	}
}

type limitSink struct {
	*sink
	q      *Queue
	beyond int // written under the queue's lock
}

func (s *limitSink) Deliver(c *Consumer, d *Delivery, w *Wakes) {
	if d.Seq >= s.q.Store.DeliverLimit() {
		s.beyond++
	}
	s.sink.Deliver(c, d, w)
}

// TestPurgeDoesNotStrandTheQueueBeyondItsDeliverLimit: what is behind a purge of more than
// the limit allows must still be delivered, without a delivery in between to raise it.
func TestPurgeDoesNotStrandTheQueueBeyondItsDeliverLimit(t *testing.T) {
	for _, how := range []string{"consumer", "get"} {
		t.Run(how, func(t *testing.T) {
			r := newRig(t)
			q := r.durable("purged")
			const n = 2*deliveryAhead + 100
			for i := range n {
				r.publish(nil, 0, nil, i%64 != 0, q)
			}
			if purged, _ := q.Purge(); purged != n {
				t.Fatalf("purged %d", purged)
			}
			r.publish(nil, 0, body(1), false, q)
			if how == "get" {
				stop := make(chan struct{})
				timer := time.AfterFunc(20*time.Second, func() { close(stop) })
				defer timer.Stop()
				if _, _, ok, err := q.Get(true, stop); !ok || err != nil {
					t.Fatalf("get: ok=%t, %v", ok, err)
				}
				return
			}
			s := newSink(-1)
			subscribe(t, q, 1, s, 0)
			inOrder(t, s.take(t, 1), 1)
		})
	}
}

// TestParkedConsumerGoesOnWhereItStopped: a refused consumer gets nothing, others go on.
func TestParkedConsumerGoesOnWhereItStopped(t *testing.T) {
	q := New(Options{Declaration: Declaration{Name: "transient"}, Timers: testTimers(t)})
	r := &rig{t: t}
	slow, quick := newSink(1), newSink(-1)
	subscribe(t, q, 1, slow, 0)
	subscribe(t, q, 2, quick, 0)
	for i := range 10 {
		r.publish(nil, 0, body(i), true, q)
	}
	inOrder(t, slow.take(t, 1), 0)
	inOrder(t, quick.take(t, 9), 1)
	slow.open(2)
	for i := range 4 {
		r.publish(nil, 0, body(i), true, q)
	}
	slow.take(t, 2)
	quick.take(t, 2)
}

func TestDeleteConditions(t *testing.T) {
	q := New(Options{Declaration: Declaration{Name: "q"}, Timers: testTimers(t)})
	(&rig{t: t}).publish(nil, 0, body(0), true, q)
	if _, _, err := q.Delete(true, true); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("if-empty of a queue with a message: %v", err)
	}
	s := newSink(0)
	k := subscribe(t, q, 1, s, 0)
	if _, _, err := q.Delete(true, false); !errors.Is(err, ErrInUse) {
		t.Errorf("if-unused of a queue with a consumer: %v", err)
	}
	if err := q.Subscribe(&Consumer{ID: 2, Exclusive: true, Sink: s}, nil, &Wakes{}); !errors.Is(err, ErrExclusive) {
		t.Errorf("exclusive beside another: %v", err)
	}
	ready, consumers, err := q.Delete(false, false)
	if err != nil || ready != 1 || len(consumers) != 1 || consumers[0] != k {
		t.Errorf("delete: %d ready, consumers %v, %v", ready, consumers, err)
	}
	if have := q.Info(); have != (Info{}) {
		t.Errorf("a deleted queue still has %+v", have)
	}
}

// TestReopenedQueueContinues: what was not acked comes back, flagged if it had been
// delivered, also after the watermark was exact.
func TestReopenedQueueContinues(t *testing.T) {
	dir := t.TempDir()
	r := &rig{t: t, store: openStore(t, dir), pager: NewPager(1)}
	q := r.durable("q")
	c := newConfirms()
	for i := range 20 {
		r.publish(c, uint64(i)+1, body(i), false, q)
	}
	c.all(t, 20)
	s := newSink(-1)
	subscribe(t, q, 1, s, 10)
	list := s.take(t, 10)
	ack(q, list[3], list[0]) // makes room for two more
	s.take(t, 2)
	q.Stop()
	r.pager.Close()
	if err := r.store.Close(); err != nil {
		t.Fatal(err)
	}

	r = &rig{t: t, store: openStore(t, dir), pager: NewPager(1)}
	defer r.pager.Close()
	defer func() { _ = r.store.Close() }()
	q = New(Options{Declaration: Declaration{ID: q.ID, Name: "q", Durable: true}, Store: r.store.Queue(q.ID), Pager: r.pager, Timers: r.timers})
	s = newSink(-1)
	subscribe(t, q, 2, s, 0)
	var want []string
	for i := range 20 {
		if i != 0 && i != 3 {
			want = append(want, fmt.Sprintf("%s %t", body(i), i < 12))
		}
	}
	for i, g := range s.take(t, 18) {
		if have := fmt.Sprintf("%s %t", g.body, g.redelivered); have != want[i] {
			t.Errorf("delivery %d: %s, want %s", i, have, want[i])
		}
	}
}

// TestOnlyOtherPrioritiesCostANote: messages of the default priority need neither a note in the store nor a place of
// their own after a restart, and come in their turn nevertheless.
func TestOnlyOtherPrioritiesCostANote(t *testing.T) {
	dir := t.TempDir()
	var r *rig
	live := func() {
		r = &rig{t: t, store: openStore(t, dir), pager: NewPager(1), timers: NewTimers()}
		r.timers.Start()
	}
	end := func() {
		r.timers.Close()
		r.pager.Close()
		if err := r.store.Close(); err != nil {
			t.Fatal(err)
		}
	}
	live()
	o := Options{Declaration: Declaration{ID: r.durable("q").ID, Name: "q", Durable: true}, MaxPriority: 31, DefaultPriority: 4}
	open := func() *Queue {
		o.Store, o.Pager, o.Timers = r.store.Queue(o.ID), r.pager, r.timers
		o.OnFault = func(_ *Queue, err error) { t.Error(err) }
		return New(o)
	}
	q := open()
	const n, every = 3000, 100
	c := newConfirms()
	var want [3][]string // high, default, low
	for i := range n {
		p := amqp.Properties{}
		level := 1
		switch i % every {
		case 1:
			p.Flags, p.Priority, level = amqp.PropPriority, 9, 0
		case 2:
			p.Flags, p.Priority, level = amqp.PropPriority, 0, 2
		case 3:
			p.Flags, p.Priority = amqp.PropPriority, 4 // as without
		}
		m := &storage.Message{RoutingKey: "key", Properties: p.Append(nil), Body: body(i), Confirm: c, ConfirmSeq: uint64(i) + 1}
		m.Targets.Store(1)
		if err := r.store.Reserve(len(m.Body)); err != nil {
			t.Fatal(err)
		}
		var w Wakes
		q.Publish(m, &w)
		w.Flush()
		want[level] = append(want[level], string(m.Body))
	}
	c.all(t, n)
	for life := range 2 {
		if notes := len(q.Store.Notes()); notes != 2*n/every-life {
			t.Errorf("life %d: %d notes", life, notes)
		}
		if life == 0 {
			q.PageOut(1 << 30)
			d, left, ok, err := q.Get(true, nil)
			if err != nil || !ok || left != n-1 || string(d.Message.Body) != want[0][0] {
				t.Fatalf("got %q, %d left, %v", d.Message.Body, left, err)
			}
			want[0] = want[0][1:]
			q.Stop()
			end()
			live()
			q = open()
		}
	}
	defer end()
	if have := q.Info(); have.Ready != n-1 || have.Memory != 0 {
		t.Errorf("after a restart: %+v", have)
	}
	for i, b := range slices.Concat(want[0], want[1], want[2]) {
		d, _, ok, err := q.Get(true, nil)
		if err != nil || !ok || string(d.Message.Body) != b {
			t.Fatalf("message %d: want %q, got %+v, %v", i, b, d, err)
		}
	}
}
