package queue

import (
	"fmt"
	"testing"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/queue/fifo"
	"github.com/settmq/settmq/storage"
)

// grouped makes a durable queue with groups.
func (r *rig) grouped(name string) *Queue {
	o := r.durable(name).Options
	o.GroupHeader = "x-group-id"
	return New(o)
}

// publishIn puts a persistent message of a group in q.
func (r *rig) publishIn(q *Queue, group, body, expiration string) {
	p := amqp.Properties{Flags: amqp.PropHeaders, Headers: amqp.Table{{Name: "x-group-id", Value: amqp.String(group)}}.Append(nil)}
	if expiration != "" {
		p.Flags |= amqp.PropExpiration
		p.Expiration = []byte(expiration)
	}
	m := &storage.Message{Properties: p.Append(nil), Body: []byte(body)}
	m.Targets.Store(2)
	if err := r.store.Reserve(len(m.Body)); err != nil {
		r.t.Fatal(err)
	}
	var w Wakes
	q.Publish(m, &w)
	m.Done()
	w.Flush()
}

// TestGroupOfAMessage: the numbers must not change, for messages on disk are found in their groups by them.
func TestGroupOfAMessage(t *testing.T) {
	q := &Queue{Options: Options{GroupHeader: "x-group-id"}}
	for _, c := range []struct {
		name string
		v    amqp.Value
		want uint16
	}{
		{"text", amqp.String("customer-1"), 62925},
		{"other text", amqp.String("customer-2"), 63616},
		{"digits", amqp.String("-12"), 57568},
		{"integer", amqp.Int64(-12), 57568},
		{"small integer", amqp.Int8(-12), 57568},
		{"empty", amqp.String(""), 0},
		{"no text", amqp.Bool(true), 0},
	} {
		p := amqp.Properties{Flags: amqp.PropHeaders, Headers: amqp.Table{{Name: "x-group-id", Value: c.v}}.Append(nil)}
		if got := q.group(&storage.Message{Properties: p.Append(nil)}); got != c.want {
			t.Errorf("%s: group %d, want %d", c.name, got, c.want)
		}
	}
	if got := q.group(&storage.Message{Properties: []byte{0, 0}}); got != 0 {
		t.Errorf("without headers: group %d", got)
	}
}

// TestGroupsOutOfMemory: what was paged out is in its group when it is read back.
func TestGroupsOutOfMemory(t *testing.T) {
	r := newRig(t)
	q := r.grouped("long")
	const n, groups = 4000, 5
	for i := range n {
		r.publishIn(q, fmt.Sprint(i%groups), fmt.Sprint(i), "")
	}
	if err := r.store.Apply(storage.Change{}).Wait(); err != nil {
		t.Fatal(err)
	}
	if q.PageOut(1<<40) == 0 {
		t.Fatal("nothing was paged out")
	}
	sinks := []*sink{newSink(-1), newSink(-1), newSink(-1)}
	for i, s := range sinks {
		subscribe(t, q, fifo.ConsumerID(i+1), s, 2)
	}
	var last [groups]int
	for done := 0; done < n; {
		for _, s := range sinks {
			s.mu.Lock()
			k := len(s.list)
			s.mu.Unlock()
			for _, d := range s.take(t, k) {
				var i int
				if _, err := fmt.Sscan(d.body, &i); err != nil {
					t.Fatal(err)
				}
				if g := i % groups; i != g && i != last[g]+groups {
					t.Fatalf("%d comes after %d", i, last[g])
				}
				last[i%groups] = i
				ack(q, d)
				done++
			}
		}
		if done%100 == 0 {
			q.PageOut(1 << 40)
		}
	}
}

// TestGetPassesOverGroupsOfConsumers: it takes what is free, and does not wait for what is not.
func TestGetPassesOverGroupsOfConsumers(t *testing.T) {
	r := newRig(t)
	q := r.grouped("fetched")
	s := newSink(1)
	subscribe(t, q, 1, s, 0)
	for _, m := range []string{"a1", "a2", "b1", "a3"} {
		r.publishIn(q, m[:1], m, "")
	}
	held := s.take(t, 1)
	for _, want := range []string{"b1", ""} {
		d, left, ok, err := q.Get(false, nil)
		if err != nil || ok != (want != "") || ok && string(d.Message.Body) != want {
			t.Fatalf("get: %v, %d left, %t, %v; want %q", d.Message, left, ok, err, want)
		}
	}
	ack(q, held...)
	if d, _, ok, _ := q.Get(false, nil); !ok || string(d.Message.Body) != "a2" {
		t.Errorf("with the group free: %v", d.Message)
	}
}

// TestDeliveryLimitIsAheadOfWhatGroupsPassOver: a group that stands does not stop others, however far behind they are.
func TestDeliveryLimitIsAheadOfWhatGroupsPassOver(t *testing.T) {
	r := newRig(t)
	q := r.grouped("gap")
	slow := newSink(-1)
	subscribe(t, q, 1, slow, 1)
	r.publishIn(q, "a", "a1", "")
	slow.take(t, 1)
	r.publishIn(q, "a", "a2", "")
	for range deliveryAhead + 10 {
		r.publishIn(q, "c", "expires at once", "0")
	}
	for end := newDeadline(t); q.Info().Ready > 1; {
		end.check("expiry of all but a2")
	}
	r.publishIn(q, "b", "b1", "")
	s := newSink(-1)
	subscribe(t, q, 2, s, 0)
	if got := s.take(t, 1); got[0].body != "b1" {
		t.Errorf("delivered %v", got)
	}
}
