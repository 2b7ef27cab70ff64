package queue

import (
	"errors"
	"slices"
	"testing"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/storage"
)

// peeked are the bodies of what Peek shows.
func peeked(t *testing.T, q *Queue, max int) (bodies []string, redelivered int) {
	t.Helper()
	list, err := q.Peek(max, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range list {
		bodies = append(bodies, string(d.Message.Body))
		if d.Redelivered {
			redelivered++
		}
	}
	return bodies, redelivered
}

func TestPeekChangesNothing(t *testing.T) {
	r := newRig(t)
	q := r.durable("q")
	var want []string
	for i := range 5 {
		r.publish(nil, 0, body(i), false, q)
		want = append(want, string(body(i)))
	}
	for range 3 {
		if got, redelivered := peeked(t, q, 10); !slices.Equal(got, want) || redelivered != 0 {
			t.Fatalf("peek shows %q, %d of them redelivered", got, redelivered)
		}
	}
	if got, _ := peeked(t, q, 2); !slices.Equal(got, want[:2]) {
		t.Errorf("a peek of two shows %q", got)
	}
	if i := q.Info(); i.Ready != 5 || i.Unacked != 0 {
		t.Errorf("%+v", i)
	}
	// What is held is not shown, and what came back says so.
	var w Wakes
	first, _, _, err := q.Get(false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := peeked(t, q, 10); !slices.Equal(got, want[1:]) {
		t.Errorf("behind one that is held peek shows %q", got)
	}
	q.Requeue([]uint64{first.Seq}, false, &w)
	w.Flush()
	if got, redelivered := peeked(t, q, 10); !slices.Equal(got, want) || redelivered != 1 {
		t.Errorf("after a requeue peek shows %q, %d of them redelivered", got, redelivered)
	}
	for i := range 5 {
		d, _, ok, err := q.Get(true, nil)
		if err != nil || !ok || string(d.Message.Body) != want[i] || d.Redelivered != (i == 0) {
			t.Fatalf("get %d: %q redelivered %v, %v %v", i, d.Message.Body, d.Redelivered, ok, err)
		}
	}
	if got, _ := peeked(t, q, 10); len(got) != 0 {
		t.Errorf("an empty queue shows %q", got)
	}
}

// What was dropped from memory is read back, as far as one look goes.
func TestPeekReadsFromDisk(t *testing.T) {
	r := newRig(t)
	q := r.durable("q")
	const n = MaxPeek + 300
	for i := range n {
		r.publish(nil, 0, body(i), false, q)
	}
	if err := r.store.Apply(storage.Change{}).Wait(); err != nil { // so that everything is stored
		t.Fatal(err)
	}
	q.PageOut(^uint64(0))
	got, _ := peeked(t, q, n)
	if len(got) != MaxPeek {
		t.Fatalf("%d messages, want %d", len(got), MaxPeek)
	}
	for i := range got {
		if got[i] != string(body(i)) {
			t.Fatalf("message %d is %q", i, got[i])
		}
	}
	if _, _, err := q.Delete(false, false); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Peek(1, nil); !errors.Is(err, ErrDeleted) {
		t.Errorf("a deleted queue: %v", err)
	}
	r.drop(q)
}

func TestPeekFollowsPriorities(t *testing.T) {
	q := New(Options{Declaration: Declaration{ID: 1, Name: "q"}, Timers: testTimers(t), MaxPriority: 5})
	var w Wakes
	for i, priority := range []uint8{0, 5, 3, 5} {
		p := amqp.Properties{Flags: amqp.PropPriority, Priority: priority}
		q.Publish(&storage.Message{Properties: p.Append(nil), Body: body(i)}, &w)
	}
	w.Flush()
	want := []string{string(body(1)), string(body(3)), string(body(2)), string(body(0))}
	if got, _ := peeked(t, q, 10); !slices.Equal(got, want) {
		t.Errorf("peek shows %q, want %q", got, want)
	}
}
