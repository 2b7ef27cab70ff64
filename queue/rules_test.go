package queue

import (
	"fmt"
	"testing"
	"time"

	"github.com/settmq/settmq/storage"
)

// rules makes a durable queue with settings whose dead letters go into another one.
func (r *rig) rules(name string, s Settings, dead *Queue) *Queue {
	r.t.Helper()
	id := r.store.NextID()
	if err := r.store.Apply(storage.Change{CreateQueues: []uint64{id}}).Wait(); err != nil {
		r.t.Fatal(err)
	}
	s.DeadLetterExchange = Some("dead")
	return New(Options{
		Declaration: Declaration{ID: id, Name: name, Durable: true}, Store: r.store.Queue(id), Pager: r.pager, Timers: r.timers,
		OnFault:  func(q *Queue, err error) { r.t.Errorf("queue %s: %v", q.Name, err) },
		Settings: s,
		OnDeadLetter: func(_ *Queue, l *DeadLetter, w *Wakes) Outcome {
			m := &storage.Message{Properties: l.Message.Properties, Body: l.Message.Body, Confirm: l.Confirm, ConfirmSeq: l.Seq}
			m.Targets.Store(2)
			dead.Publish(m, w)
			m.Done()
			return Stored
		},
	})
}

func (r *rig) awaitInfo(q *Queue, what string, ok func(Info) bool) {
	r.t.Helper()
	for d := newDeadline(r.t); !ok(q.Info()); {
		d.check(fmt.Sprintf("%s: %+v", what, q.Info()))
	}
}

// TestPagedOutMessagesExpire lets messages expire whose bodies are on disk only, in a queue
// without consumers: they are read back and dead-lettered, each once and in order.
func TestPagedOutMessagesExpire(t *testing.T) {
	r := newRig(t)
	dead := r.durable("dead")
	q := r.rules("q", Settings{MessageTTL: Some(500 * time.Millisecond)}, dead)
	c := newConfirms()
	const n = 5000
	for i := range n {
		r.publish(c, uint64(i)+1, body(i), false, q)
	}
	c.all(t, n)
	if q.PageOut(1<<40) == 0 {
		t.Fatal("nothing was paged out")
	}
	s := newSink(-1)
	subscribe(t, dead, 1, s, 0)
	inOrder(t, s.take(t, n), 0)
	r.awaitInfo(q, "the end of the queue", func(i Info) bool { return i.Ready == 0 && i.Memory == 0 })
	for d := newDeadline(t); q.Store.State().Ready != 0; {
		d.check("settling what was dead-lettered")
	}
}

// TestLimitOfAPagedOutQueue shortens a queue whose messages are on disk: it needs no consumer for
// that, and the dead letters come in order.
func TestLimitOfAPagedOutQueue(t *testing.T) {
	r := newRig(t)
	dead := r.durable("dead")
	q := r.rules("q", Settings{}, dead)
	c := newConfirms()
	const n, kept = 4000, 10
	for i := range n {
		r.publish(c, uint64(i)+1, body(i), false, q)
	}
	c.all(t, n)
	q.PageOut(1 << 40)
	q.Configure(Settings{MaxLength: Some[int64](kept), DeadLetterExchange: Some("dead")})
	s := newSink(-1)
	subscribe(t, dead, 1, s, 0)
	inOrder(t, s.take(t, n-kept), 0)
	if have := q.Info(); have.Ready != kept {
		t.Errorf("%d messages are left", have.Ready)
	}
}

// TestRejectedMessagesOutOfMemory dead-letters outstanding messages whose bodies were dropped.
func TestRejectedMessagesOutOfMemory(t *testing.T) {
	r := newRig(t)
	dead := r.durable("dead")
	q := r.rules("q", Settings{}, dead)
	c := newConfirms()
	const n = 300
	for i := range n {
		r.publish(c, uint64(i)+1, body(i), false, q)
	}
	c.all(t, n)
	s := newSink(-1)
	subscribe(t, q, 1, s, 0)
	var seqs []uint64
	for _, g := range s.take(t, n) {
		seqs = append(seqs, g.seq)
	}
	q.PageOut(1 << 40)
	var w Wakes
	q.Reject(seqs, &w)
	w.Flush()
	to := newSink(-1)
	subscribe(t, dead, 2, to, 0)
	inOrder(t, to.take(t, n), 0)
}
