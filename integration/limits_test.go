package integration

import (
	"fmt"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

func TestMaxLengthDropsTheOldest(t *testing.T) {
	t.Parallel()
	ch := open(t)
	from, to, _ := deadLettered(t, ch, amqp.Table{"x-max-length": int32(2)})
	publishConfirmed(t, openConfirming(t), "", from, persistent("a", "b", "c", "d")...)
	wantBodies(t, ch, from, "c", "d")
	dead := consume(t, ch, to, "", nil)
	for _, body := range []string{"a", "b"} {
		d := wantDelivery(t, dead, body, false)
		wantHeaders(t, death(t, d, 0, 1), amqp.Table{"reason": "maxlen", "queue": from})
	}
}

func TestMaxLengthBytes(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q := sharedQueue(t, ch, amqp.Table{"x-max-length-bytes": int32(10)})
	publish(t, ch, "", q, "12345", "67890", "a")
	wantBodies(t, ch, q, "67890", "a")
	publish(t, ch, "", q, "this one alone is too long")
	wantReady(t, ch, q, 0)
}

func TestMaxLengthBytesOfAQuorumQueue(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q := sharedQueue(t, ch, amqp.Table{"x-max-length-bytes": int32(10), "x-queue-type": "quorum"})
	publishConfirmed(t, openConfirming(t), "", q, persistent("12345", "67890")...)
	want := 2
	if differs(t, "quorum-length-bytes") {
		want = 1
	}
	eventually(t, func() error { return hasReady(ch, q, want) })
}

// Messages that a consumer holds do not count.
func TestMaxLengthCountsReadyMessages(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q := sharedQueue(t, ch, amqp.Table{"x-max-length": int32(1)})
	in := consume(t, ch, q, "", nil)
	publish(t, ch, "", q, "a", "b", "c")
	for _, body := range []string{"a", "b", "c"} {
		wantDelivery(t, in, body, false)
	}
}

// What comes back counts again, and is the oldest.
func TestMaxLengthHoldsForReturnedMessages(t *testing.T) {
	for _, kind := range []string{"classic", "quorum"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			ch := open(t)
			from, to, _ := deadLettered(t, ch, amqp.Table{"x-max-length": int32(1), "x-queue-type": kind})
			publishConfirmed(t, openConfirming(t), "", from, persistent("a")...)
			d := get(t, ch, from, false)
			publishConfirmed(t, openConfirming(t), "", from, persistent("b")...)
			must(t, d.Nack(false, true))
			dead := receive(t, consume(t, ch, to, "", nil))
			wantHeaders(t, death(t, dead, 0, 1), amqp.Table{"reason": "maxlen", "queue": from})
			if string(dead.Body) != "a" {
				t.Errorf("%q was dropped", dead.Body)
			}
			eventually(t, func() error { return hasReady(ch, from, 1) })
		})
	}
}

// A classic queue drops what has no room when it comes back, a quorum queue asks its consumers before.
func TestMaxLengthOfReturnedMessagesWithAConsumer(t *testing.T) {
	for _, kind := range []string{"classic", "quorum"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			ch := open(t)
			q := sharedQueue(t, ch, amqp.Table{"x-max-length": int32(0), "x-queue-type": kind})
			in := consume(t, ch, q, "", nil)
			publishConfirmed(t, openConfirming(t), "", q, persistent("a")...)
			must(t, receive(t, in).Nack(false, true))
			if kind == "quorum" {
				wantDelivery(t, in, "a", true)
			}
			publishConfirmed(t, openConfirming(t), "", q, persistent("b")...)
			wantDelivery(t, in, "b", false)
		})
	}
}

// What has no room and no time to live had no room.
func TestMaxLengthZeroGoesBeforeATimeToLiveOfZero(t *testing.T) {
	t.Parallel()
	ch := open(t)
	from, to, _ := deadLettered(t, ch, amqp.Table{"x-max-length": int32(0), "x-message-ttl": int32(0)})
	publishConfirmed(t, openConfirming(t), "", from, persistent("a")...)
	wantHeaders(t, death(t, receive(t, consume(t, ch, to, "", nil)), 0, 1), amqp.Table{"reason": "maxlen"})
}

func TestMaxLengthZeroStillServesAReadyConsumer(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q := sharedQueue(t, ch, amqp.Table{"x-max-length": int32(0)})
	publish(t, ch, "", q, "a")
	wantReady(t, ch, q, 0)
	in := consume(t, ch, q, "", nil)
	publish(t, ch, "", q, "b")
	wantDelivery(t, in, "b", false)
}

// outcomes publishes bodies in confirm mode and returns what became of each.
func outcomes(t *testing.T, exchange, key string, bodies ...string) (acks []bool) {
	t.Helper()
	ch := open(t)
	confirmMode(t, ch)
	for _, b := range bodies {
		c, err := ch.PublishWithDeferredConfirm(exchange, key, false, false, amqp.Publishing{Body: []byte(b), DeliveryMode: amqp.Persistent})
		must(t, err)
		acks = append(acks, await(t, "confirm", done(c)))
	}
	return acks
}

func TestRejectPublish(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"reject-publish", "reject-publish-dlx"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			ch := open(t)
			from, to, _ := deadLettered(t, ch, amqp.Table{"x-max-length": int32(2), "x-overflow": how})
			if got := fmt.Sprint(outcomes(t, "", from, "a", "b", "c")); got != "[true true false]" {
				t.Errorf("confirms are %v", got)
			}
			wantBodies(t, ch, from, "a", "b")
			if how == "reject-publish" {
				wantReady(t, ch, to, 0)
			} else {
				d := wantDelivery(t, consume(t, ch, to, "", nil), "c", false)
				wantHeaders(t, death(t, d, 0, 1), amqp.Table{"reason": "maxlen"})
			}
			if got := fmt.Sprint(outcomes(t, "", from, "d")); got != "[true]" {
				t.Errorf("with room again the confirm is %v", got)
			}
		})
	}
}

// One queue that refuses costs the publisher a nack; the others have the message.
func TestRejectPublishOfOneQueueAmongOthers(t *testing.T) {
	t.Parallel()
	ch := open(t)
	x := newExchange(t, ch, "fanout", nil)
	full := sharedQueue(t, ch, amqp.Table{"x-max-length": int32(1), "x-overflow": "reject-publish"})
	free := sharedQueue(t, ch, nil)
	bind(t, ch, full, "", x, nil)
	bind(t, ch, free, "", x, nil)
	if got := fmt.Sprint(outcomes(t, x, "", "a", "b")); got != "[true false]" {
		t.Errorf("confirms are %v", got)
	}
	wantBodies(t, ch, full, "a")
	wantBodies(t, ch, free, "a", "b")
}

func TestRejectPublishEndsATransaction(t *testing.T) {
	t.Parallel()
	refuse(t, []refusal{{name: "partial", do: func(t *testing.T, s *scene) {
		s.declare(t, amqp.Table{"x-max-length": int32(1), "x-overflow": "reject-publish"})
		must(t, s.ch.Tx())
		publish(t, s.ch, "", s.q, "a", "b")
		_ = s.ch.TxCommit()
	}, code: 406, text: "PRECONDITION_FAILED - partial tx completion"}})
}
