package queue

import (
	"testing"
	"time"
)

// TestSettledDeliveriesCostNoWaits: they are not kept until their time, which may be far away.
func TestSettledDeliveriesCostNoWaits(t *testing.T) {
	r := newRig(t)
	q := r.durable("acked")
	q.Configure(Settings{ConsumerTimeout: Some(time.Hour)})
	s := newSink(-1)
	subscribe(t, q, 1, s, 10)
	for i := range 5 * waitsSlack {
		r.publish(nil, 0, body(i), true, q)
		ack(q, s.take(t, 1)...)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if n := len(q.waits.list); n > waitsSlack {
		t.Errorf("%d waits", n)
	}
}

// TestTimeoutTakesBackWhatTheConsumerHolds: of others nothing, and nothing that was settled or redelivered.
func TestTimeoutTakesBackWhatTheConsumerHolds(t *testing.T) {
	r := newRig(t)
	q := r.durable("late")
	q.Configure(Settings{ConsumerTimeout: Some(time.Hour)})
	stuck, other := newSink(2), newSink(0)
	subscribe(t, q, 1, stuck, 0)
	subscribe(t, q, 2, other, 0)
	for i := range 3 {
		r.publish(nil, 0, body(i), true, q)
	}
	await(t, &stuck.mu, &stuck.cond, "two deliveries", func() bool { return len(stuck.list) == 2 })
	q.tick(q.Timers.Now() + time.Hour.Milliseconds() + 1)
	other.open(10)
	list := other.take(t, 3)
	if list[0].seq != 0 || !list[0].redelivered || !list[1].redelivered || list[2].redelivered {
		t.Errorf("the other consumer gets %v", list)
	}
	if stuck.cancelled != 1 || other.cancelled != 0 {
		t.Errorf("%d and %d were cancelled", stuck.cancelled, other.cancelled)
	}
	if d := q.Info(); d.Consumers != 1 || d.Unacked != 3 {
		t.Errorf("%+v", d)
	}
}
