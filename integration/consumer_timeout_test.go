package integration

import (
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// What a stuck consumer holds goes to another one. That is no failed delivery: slow work must not end as a dead letter.
func TestConsumerTimeoutOfAQuorumQueue(t *testing.T) {
	t.Parallel()
	stuck, other := open(t), open(t)
	q := sharedQueue(t, stuck, amqp.Table{"x-queue-type": "quorum", "x-consumer-timeout": int32(1000)})
	cancelled := stuck.NotifyCancel(make(chan string, 1))
	prefetch(t, stuck, 1, false)
	in := consume(t, stuck, q, "stuck", nil)
	publishConfirmed(t, openConfirming(t), "", q, persistent("m")...)
	receive(t, in)
	waiting := consume(t, other, q, "", nil)
	if tag := await(t, "cancel notice", cancelled); tag != "stuck" {
		t.Errorf("%q is cancelled", tag)
	}
	d := wantDelivery(t, waiting, "m", true)
	wantHeaders(t, d.Headers, amqp.Table{"x-acquired-count": int64(1)})
	if failed, ok := d.Headers["x-delivery-count"]; ok {
		t.Errorf("x-delivery-count is %v", failed)
	}
	ack(t, d, false)
}

// A stuck consumer is cancelled, and what it holds goes to another one. A late ack has no effect.
func TestConsumerTimeout(t *testing.T) {
	t.Parallel()
	if !sut.settmq {
		t.Skip("RabbitMQ has it for quorum queues only")
	}
	stuck, other := open(t), open(t)
	q := sharedQueue(t, stuck, amqp.Table{"x-consumer-timeout": int32(100)})
	cancelled := stuck.NotifyCancel(make(chan string, 1))
	prefetch(t, stuck, 2, false)
	publishConfirmed(t, openConfirming(t), "", q, persistent("m1", "m2", "m3")...)
	in := consume(t, stuck, q, "stuck", nil) // not before: its time must not run while the disk is waited for
	settled := receive(t, in)
	ack(t, settled, false)
	late := receive(t, in)
	if tag := await(t, "cancel notice", cancelled); tag != "stuck" {
		t.Errorf("%q is cancelled", tag)
	}
	// Its own argument goes before the queue's.
	patient := consume(t, other, q, "", amqp.Table{"x-consumer-timeout": int32(3_600_000)})
	m2 := wantDelivery(t, patient, "m2", true)
	wantDelivery(t, patient, "m3", true)
	ack(t, late, false)
	if n := inspect(t, stuck, q).Messages; n != 0 { // the channel still works
		t.Errorf("%d messages are ready", n)
	}
	must(t, m2.Reject(true))
	wantDelivery(t, patient, "m2", true)
}

func TestExampleConsumerTimeout(t *testing.T) {
	t.Parallel()
	if !sut.settmq {
		t.Skip("RabbitMQ has it for quorum queues only")
	}
	ch := open(t)
	removeQueue(t, "slow")
	var err error
	_, err = ch.QueueDeclare("slow", true, false, false, false, amqp.Table{"x-consumer-timeout": int32(60000)}) // milliseconds
	must(t, err)
	msgs, err := ch.Consume("slow", "", false, false, false, false, amqp.Table{"x-consumer-timeout": int32(600000)})
	must(t, err)
	publish(t, ch, "", "slow", "m")
	wantDelivery(t, msgs, "m", false)
}
