package integration

import (
	"fmt"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

func prioritised(body string, p uint8) amqp.Publishing {
	return amqp.Publishing{Body: []byte(body), Priority: p, DeliveryMode: amqp.Persistent}
}

func TestMessagePriorities(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q := sharedQueue(t, ch, amqp.Table{"x-max-priority": int32(5)})
	publishConfirmed(t, openConfirming(t), "", q,
		prioritised("none 1", 0), prioritised("low", 1), prioritised("high 1", 5), prioritised("above", 200),
		prioritised("none 2", 0), prioritised("high 2", 5), prioritised("middle", 3))
	wantBodies(t, ch, q, "high 1", "above", "high 2", "middle", "low", "none 1", "none 2")
}

func TestReturnedMessageKeepsItsPriority(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q := sharedQueue(t, ch, amqp.Table{"x-max-priority": int32(10)})
	publishConfirmed(t, openConfirming(t), "", q, prioritised("a", 3), prioritised("b", 3))
	d := get(t, ch, q, false)
	publishConfirmed(t, openConfirming(t), "", q, prioritised("c", 7))
	must(t, d.Reject(true))
	wantBodies(t, ch, q, "c", "a", "b")
}

func TestMaxLengthOfAPriorityQueue(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q := sharedQueue(t, ch, amqp.Table{"x-max-priority": int32(10), "x-max-length": int32(2)})
	publishConfirmed(t, openConfirming(t), "", q, prioritised("a", 1), prioritised("b", 9), prioritised("c", 1))
	// The head is dropped, and the head is the message of the highest priority.
	wantBodies(t, ch, q, "a", "c")
}

func TestSingleActiveConsumer(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q := sharedQueue(t, ch, amqp.Table{"x-single-active-consumer": true})
	first := consume(t, ch, q, "first", nil)
	second := consume(t, ch, q, "second", nil)
	third := consume(t, ch, q, "third", amqp.Table{"x-priority": int32(10)})
	for i := range 10 {
		publish(t, ch, "", q, fmt.Sprint(i))
		ack(t, wantDelivery(t, first, fmt.Sprint(i), false), false)
	}
	// The waiting one of the highest priority takes over.
	must(t, ch.Cancel("first", false))
	publish(t, ch, "", q, "x")
	ack(t, wantDelivery(t, third, "x", false), false)
	must(t, ch.Cancel("third", false))
	publish(t, ch, "", q, "y")
	wantDelivery(t, second, "y", false)
}

func TestSingleActiveConsumerTakesOverWhatComesBack(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q := sharedQueue(t, ch, amqp.Table{"x-single-active-consumer": true})
	conn := dial(t)
	active := consume(t, channel(t, conn), q, "", nil)
	waiting := consume(t, ch, q, "", nil)
	publish(t, ch, "", q, "a", "b")
	receive(t, active)
	receive(t, active)
	must(t, conn.Close())
	wantDelivery(t, waiting, "a", true)
	wantDelivery(t, waiting, "b", true)
}

func TestExclusiveConsumerOnASingleActiveQueue(t *testing.T) {
	t.Parallel()
	refuse(t, []refusal{{name: "exclusive", do: func(t *testing.T, s *scene) {
		s.declare(t, amqp.Table{"x-single-active-consumer": true})
		_, _ = s.ch.Consume(s.q, "", false, true, false, false, nil)
	}, code: 403, text: "ACCESS_REFUSED - queue '{q}' in vhost '{vhost}' in exclusive use"}})
}
