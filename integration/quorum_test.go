package integration

import (
	"errors"
	"fmt"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// quorumQueue declares a quorum queue that is removed when the test ends.
func quorumQueue(t testing.TB, ch *amqp.Channel, args amqp.Table) string {
	t.Helper()
	all := amqp.Table{"x-queue-type": "quorum"}
	for k, v := range args {
		all[k] = v
	}
	return sharedQueue(t, ch, all)
}

// wantCounts checks what a delivery tells about those before; -1 stands for no header.
func wantCounts(t *testing.T, d amqp.Delivery, acquired, failed int) amqp.Delivery {
	t.Helper()
	for name, want := range map[string]int{"x-acquired-count": acquired, "x-delivery-count": failed} {
		v, ok := d.Headers[name]
		if want < 0 && ok || want >= 0 && v != int64(want) {
			t.Errorf("%q has %s %#v, want %d", d.Body, name, v, want)
		}
	}
	if d.Redelivered != (acquired > 0) {
		t.Errorf("%q redelivered=%t after %d deliveries", d.Body, d.Redelivered, acquired)
	}
	return d
}

func TestQuorumQueueTellsItsCounts(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q := quorumQueue(t, ch, nil)
	publishConfirmed(t, openConfirming(t), "", q, amqp.Publishing{Headers: amqp.Table{"mine": "kept"}, Body: []byte("m")})
	d := wantCounts(t, get(t, ch, q, false), -1, -1)
	nack(t, d, false, true) // no failure
	d = wantCounts(t, get(t, ch, q, false), 1, -1)
	wantHeaders(t, d.Headers, amqp.Table{"mine": "kept"})
	must(t, d.Reject(true)) // a failure
	d = wantCounts(t, get(t, ch, q, false), 2, 1)
	wantHeaders(t, d.Headers, amqp.Table{"mine": "kept"})
	must(t, ch.Recover(true)) // none
	in := consume(t, ch, q, "", nil)
	wantCounts(t, receive(t, in), 3, 1)
	must(t, ch.Close()) // a failure
	wantCounts(t, receive(t, consume(t, open(t), q, "", nil)), 4, 2)
}

func TestQuorumQueueReturnsTwoMessages(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q := quorumQueue(t, ch, nil)
	publishConfirmed(t, openConfirming(t), "", q, persistent("a", "b", "c")...)
	prefetch(t, ch, 2, false)
	in := consume(t, ch, q, "", nil)
	first := receive(t, in)
	must(t, receive(t, in).Reject(true))
	wantCounts(t, wantDelivery(t, in, "b", true), 1, 1) // before what was never handed out
	must(t, first.Ack(false))
	wantCounts(t, wantDelivery(t, in, "c", false), -1, -1)
}

func TestQuorumPriorities(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q := quorumQueue(t, ch, nil)
	publishConfirmed(t, openConfirming(t), "", q,
		prioritised("none", 0), prioritised("3", 3), prioritised("255", 255), prioritised("5", 5),
		prioritised("4", 4), prioritised("31", 31), prioritised("1", 1), prioritised("30", 30), prioritised("none too", 0))
	wantBodies(t, ch, q, "255", "31", "30", "5", "none", "4", "none too", "3", "1")
}

func TestQuorumDeliveryLimit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		args   amqp.Table
		allows int // failed deliveries, -1 for any number
	}{
		{"default", nil, 20},
		{"2", amqp.Table{"x-delivery-limit": int32(2)}, 2},
		{"none", amqp.Table{"x-delivery-limit": int32(-1)}, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ch := open(t)
			args := amqp.Table{"x-queue-type": "quorum"}
			for k, v := range c.args {
				args[k] = v
			}
			from, to, _ := deadLettered(t, ch, args)
			publishConfirmed(t, openConfirming(t), "", from, persistent("m")...)
			in := consume(t, ch, from, "", nil)
			fail := c.allows
			if fail < 0 {
				fail = 25
			}
			for i := range fail {
				d := receive(t, in)
				if i == 0 {
					nack(t, d, false, true) // counts for nothing
					d = receive(t, in)
				}
				must(t, d.Reject(true))
			}
			d := receive(t, in)
			wantHeaders(t, d.Headers, amqp.Table{"x-delivery-count": int64(fail)})
			if c.allows < 0 {
				ack(t, d, false)
				return
			}
			must(t, d.Reject(true))
			dead := receive(t, consume(t, ch, to, "", nil))
			wantHeaders(t, dead.Headers, amqp.Table{"x-first-death-reason": "delivery_limit", "x-first-death-queue": from})
			wantHeaders(t, death(t, dead, 0, 1), amqp.Table{"reason": "delivery_limit", "count": int64(1)})
			wantReady(t, ch, from, 0)
		})
	}
}

func TestLostChannelsCountAsFailures(t *testing.T) {
	t.Parallel()
	ch := open(t)
	from, to, _ := deadLettered(t, ch, amqp.Table{"x-queue-type": "quorum", "x-delivery-limit": int32(1)})
	publishConfirmed(t, openConfirming(t), "", from, persistent("m")...)
	for range 2 {
		conn := dial(t)
		receive(t, consume(t, channel(t, conn), from, "", nil))
		must(t, conn.Close())
	}
	wantDelivery(t, consume(t, ch, to, "", nil), "m", false)
}

func TestDeliveryLimitOfAClassicQueue(t *testing.T) {
	t.Parallel()
	needs(t, "classic-queue-arguments")
	ch := open(t)
	from, to, _ := deadLettered(t, ch, amqp.Table{"x-delivery-limit": int32(1)})
	publish(t, ch, "", from, "m")
	in := consume(t, ch, from, "", nil)
	must(t, wantCounts(t, receive(t, in), -1, -1).Reject(true))
	must(t, wantCounts(t, receive(t, in), 1, 1).Reject(true))
	wantDelivery(t, consume(t, ch, to, "", nil), "m", false)
}

func TestQuorumRefusals(t *testing.T) {
	t.Parallel()
	quorum := amqp.Table{"x-queue-type": "quorum"}
	conditional := func(flag string) string {
		return "NOT_IMPLEMENTED - cannot delete queue '{q}' in vhost '{vhost}'. queue.delete operations with " + flag + " flag set are not supported by quorum queues"
	}
	refuse(t, []refusal{
		{name: "delete if unused", do: func(t *testing.T, s *scene) {
			s.declare(t, quorum)
			_, _ = s.ch.QueueDelete(s.q, true, false, false)
		}, code: 540, text: conditional("if-unused")},
		{name: "delete if empty", do: func(t *testing.T, s *scene) {
			s.declare(t, quorum)
			_, _ = s.ch.QueueDelete(s.q, false, true, false)
		}, code: 540, text: conditional("if-empty")},
		{name: "delete if unused and empty", do: func(t *testing.T, s *scene) {
			s.declare(t, quorum)
			_, _ = s.ch.QueueDelete(s.q, true, true, false)
		}, code: 540, text: conditional("if-unused")},
		{name: "get past a single active consumer", do: func(t *testing.T, s *scene) {
			s.declare(t, amqp.Table{"x-queue-type": "quorum", "x-single-active-consumer": true})
			_, _, _ = s.ch.Get(s.q, false)
		}, code: 405, text: "RESOURCE_LOCKED - cannot obtain access to locked queue '{q}' in vhost '{vhost}'. basic.get operations are not supported by <<\"quorum\">> queues with single active consumer"},
	})
}

// Quorum queues do not look at the exclusive flag of basic.consume.
func TestExclusiveConsumersOfAQuorumQueue(t *testing.T) {
	t.Parallel()
	ch := open(t)
	for _, args := range []amqp.Table{nil, {"x-single-active-consumer": true}} {
		q := quorumQueue(t, ch, args)
		for range 2 {
			_, err := ch.Consume(q, "", false, true, false, false, nil)
			must(t, err)
		}
	}
}

func TestQuorumSingleActiveConsumerGivesWay(t *testing.T) {
	t.Parallel()
	ch, out := open(t), openConfirming(t)
	q := quorumQueue(t, ch, amqp.Table{"x-single-active-consumer": true})
	first := consume(t, ch, q, "first", nil)
	publishConfirmed(t, out, "", q, persistent("a")...)
	held := wantDelivery(t, first, "a", false)
	second := consume(t, ch, q, "second", amqp.Table{"x-priority": int32(5)})
	publishConfirmed(t, out, "", q, persistent("b")...)
	ack(t, held, false) // from now on the other one
	ack(t, wantDelivery(t, second, "b", false), false)
	publishConfirmed(t, out, "", q, persistent("c")...)
	wantDelivery(t, second, "c", false)
}

func TestQuorumQueueExpires(t *testing.T) {
	t.Parallel()
	ch := open(t)
	const after = 1500 * time.Millisecond
	args := amqp.Table{"x-queue-type": "quorum", "x-expires": int32(after / time.Millisecond)}
	q := nameFor(t, "q")
	removeQueue(t, q)
	declared := time.Now()
	_, err := ch.QueueDeclare(q, true, false, false, false, args)
	must(t, err)
	// Asking for it does not keep it alive.
	eventually(t, func() error {
		_, err := channel(t, dial(t)).QueueDeclarePassive(q, true, false, false, false, nil)
		var e *amqp.Error
		if errors.As(err, &e) && e.Code == amqp.NotFound {
			return nil
		}
		if time.Since(declared) > 4*after {
			t.Fatal("declarations keep the queue")
		}
		return fmt.Errorf("the queue is still there: %w", err)
	})
	if time.Since(declared) < after {
		t.Error("gone too early")
	}
}

func TestQuorumDeadLettersWaitForTheirExchange(t *testing.T) {
	t.Parallel()
	ch := open(t)
	x := nameFor(t, "later")
	removeExchange(t, x)
	to := sharedQueue(t, ch, nil)
	from := quorumQueue(t, ch, amqp.Table{
		"x-dead-letter-exchange": x, "x-dead-letter-routing-key": "dead", "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish",
	})
	publishConfirmed(t, openConfirming(t), "", from, persistent("a", "b")...)
	for range 2 {
		d := get(t, ch, from, false)
		must(t, d.Reject(false))
	}
	wantReady(t, ch, from, 0)
	must(t, ch.ExchangeDeclare(x, "direct", true, false, false, false, nil))
	bind(t, ch, to, "dead", x, nil)
	if !sut.settmq {
		t.Skip("RabbitMQ tries again after three minutes")
	}
	in := consume(t, ch, to, "", nil)
	for _, body := range []string{"a", "b"} {
		d := receive(t, in)
		if string(d.Body) != body {
			t.Errorf("got %q, want %q", d.Body, body)
		}
		wantHeaders(t, d.Headers, amqp.Table{"x-first-death-reason": "rejected", "x-first-death-queue": from})
	}
}

func TestDelayedRetry(t *testing.T) {
	t.Parallel()
	const wait = 300 * time.Millisecond
	for _, c := range []struct {
		kind             string
		failed, returned bool // which of them wait
	}{{"all", true, true}, {"failed", true, false}, {"returned", false, true}} {
		t.Run(c.kind, func(t *testing.T) {
			t.Parallel()
			ch := open(t)
			q := quorumQueue(t, ch, amqp.Table{
				"x-delayed-retry-type": c.kind, "x-delayed-retry-min": int32(wait / time.Millisecond), "x-delayed-retry-max": int32(2 * wait / time.Millisecond),
			})
			publishConfirmed(t, openConfirming(t), "", q, persistent("m")...)
			in := consume(t, ch, q, "", nil)
			d := receive(t, in)
			for i := range 3 { // the wait grows with the failures, up to the highest
				back := time.Now()
				must(t, d.Reject(true))
				d = receive(t, in)
				if least := wait * time.Duration(min(i+1, 2)); c.failed && time.Since(back) < least {
					t.Errorf("failure %d: back after %v, want %v", i+1, time.Since(back), least)
				}
			}
			back := time.Now()
			nack(t, d, false, true)
			receive(t, in)
			if c.returned && time.Since(back) < wait {
				t.Errorf("returned: back after %v", time.Since(back))
			}
		})
	}
}

// A quorum queue stores every message, and leaves the delivery mode as it is.
func TestBadDelayedRetryIsRefused(t *testing.T) {
	t.Parallel()
	for _, bad := range []amqp.Table{{"x-delayed-retry-type": "sometimes"}, {"x-delayed-retry-min": int32(-1)}, {"x-delivery-limit": "many"}} {
		ch := open(t)
		bad["x-queue-type"] = "quorum"
		name := nameFor(t, "q")
		removeQueue(t, name)
		_, err := ch.QueueDeclare(name, true, false, false, false, bad)
		if differs(t, "quorum-argument-values") != (err == nil) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestQuorumQueueKeepsTransientMessages(t *testing.T) {
	var quorum, classic string
	lives(t, func(t *testing.T, ch *amqp.Channel, names *durableNames) {
		quorum = names.queue(t, ch, "quorum", true, amqp.Table{"x-queue-type": "quorum"})
		classic = names.queue(t, ch, "classic", true, nil)
		x := names.exchange(t, ch, "fanout", true, nil)
		bind(t, ch, quorum, "", x, nil)
		bind(t, ch, classic, "", x, nil)
		confirmMode(t, ch)
		publishConfirmed(t, ch, x, "", amqp.Publishing{DeliveryMode: amqp.Transient, Body: []byte("transient")})
		publishConfirmed(t, ch, x, "", persistent("persistent")...)
		publishConfirmed(t, ch, "", quorum, prioritised("high", 9), amqp.Publishing{DeliveryMode: amqp.Transient, Priority: 2, Body: []byte("low")})
		// Counts outlast the broker, too.
		d := get(t, ch, quorum, false)
		must(t, d.Reject(true))
	}, func(t *testing.T, ch *amqp.Channel, names *durableNames) {
		d := get(t, ch, quorum, true)
		if string(d.Body) != "high" {
			t.Errorf("first is %q", d.Body)
		}
		if !names.crash || !sut.settmq {
			wantCounts(t, d, 1, 1)
		}
		d = get(t, ch, quorum, true)
		if string(d.Body) != "transient" || d.DeliveryMode != amqp.Transient {
			t.Errorf("got %q with delivery mode %d", d.Body, d.DeliveryMode)
		}
		wantBodies(t, ch, quorum, "persistent", "low")
		wantBodies(t, ch, classic, "persistent")
	})
}
