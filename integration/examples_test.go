package integration

import (
	"errors"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// The examples in docs/, as they stand there.

func TestExampleTTL(t *testing.T) {
	ch := open(t)
	body := []byte("m")
	removeQueue(t, "orders")
	q, err := ch.QueueDeclare("orders", true, false, false, false, amqp.Table{"x-message-ttl": int32(60000)})
	must(t, err)
	err = ch.Publish("", "orders", false, false, amqp.Publishing{Expiration: "5000", Body: body})
	must(t, err)
	if d := get(t, ch, q.Name, true); d.Expiration != "5000" {
		t.Errorf("expiration is %q", d.Expiration)
	}
}

func TestExampleDeadLetters(t *testing.T) {
	ch := open(t)
	removeExchange(t, "graveyard")
	removeQueue(t, "work")
	must(t, ch.ExchangeDeclare("graveyard", "topic", true, false, false, false, nil))
	var err error
	_, err = ch.QueueDeclare("work", true, false, false, false, amqp.Table{
		"x-dead-letter-exchange":    "graveyard",
		"x-dead-letter-routing-key": "work.failed", // without it: the keys the message had
	})
	must(t, err)
	dead := privateQueue(t, ch, nil)
	bind(t, ch, dead, "*.failed", "graveyard", nil)
	publish(t, ch, "", "work", "m")
	d := get(t, ch, "work", false)
	must(t, d.Reject(false))
	receive(t, consume(t, ch, dead, "", nil)) // RabbitMQ flags it redelivered
}

func TestExampleLengthLimit(t *testing.T) {
	ch := open(t)
	removeQueue(t, "latest")
	var err error
	_, err = ch.QueueDeclare("latest", true, false, false, false, amqp.Table{"x-max-length": int32(1000)})
	must(t, err)
	for range 1005 {
		publish(t, ch, "", "latest", "m")
	}
	wantReady(t, ch, "latest", 1000)
}

func TestExamplePriorities(t *testing.T) {
	ch := open(t)
	body := []byte("urgent")
	removeQueue(t, "jobs")
	var err error
	_, err = ch.QueueDeclare("jobs", true, false, false, false, amqp.Table{"x-max-priority": int32(10)})
	must(t, err)
	err = ch.Publish("", "jobs", false, false, amqp.Publishing{Priority: 7, Body: body})
	must(t, err)
	publish(t, ch, "", "jobs", "not urgent")
	wantReady(t, ch, "jobs", 2)
	msgs, err := ch.Consume("jobs", "", false, false, false, false, amqp.Table{"x-priority": int32(5)})
	must(t, err)
	wantDelivery(t, msgs, "urgent", false)
	wantDelivery(t, msgs, "not urgent", false)
}

func TestExampleSingleActiveConsumer(t *testing.T) {
	ch := open(t)
	removeQueue(t, "ordered")
	var err error
	_, err = ch.QueueDeclare("ordered", true, false, false, false, amqp.Table{"x-single-active-consumer": true})
	must(t, err)
	_, err = ch.Consume("ordered", "", false, true, false, false, nil)
	var e *amqp.Error
	if !errors.As(err, &e) || e.Code != amqp.AccessRefused {
		t.Errorf("an exclusive consumer is answered with %v", err)
	}
}

func TestExampleQuorumQueue(t *testing.T) {
	ch := open(t)
	removeQueue(t, "payments")
	var err error
	_, err = ch.QueueDeclare("payments", true, false, false, false, amqp.Table{
		"x-queue-type":           "quorum",
		"x-delivery-limit":       int32(5),
		"x-dead-letter-exchange": "graveyard",
	})
	must(t, err)
	publishConfirmed(t, openConfirming(t), "", "payments", persistent("m")...)
	in := consume(t, ch, "payments", "", nil)
	for range 6 {
		must(t, receive(t, in).Reject(true))
	}
	wantReady(t, ch, "payments", 0)
}

func TestExampleDelayedRetry(t *testing.T) {
	ch := open(t)
	removeQueue(t, "flaky")
	var err error
	_, err = ch.QueueDeclare("flaky", true, false, false, false, amqp.Table{
		"x-queue-type":         "quorum",
		"x-delayed-retry-type": "failed",
		"x-delayed-retry-min":  int32(1000),
		"x-delayed-retry-max":  int32(60000),
	})
	must(t, err)
	publishConfirmed(t, openConfirming(t), "", "flaky", persistent("poison", "m")...)
	prefetch(t, ch, 1, false)
	in := consume(t, ch, "flaky", "", nil)
	must(t, receive(t, in).Reject(true))
	ack(t, wantDelivery(t, in, "m", false), false)
	wantDelivery(t, in, "poison", true)
}

func TestExampleSenderSelectedDistribution(t *testing.T) {
	ch := open(t)
	body := []byte("invoice")
	queues := []string{"billing", "audit", "archive"}
	for _, q := range queues {
		removeQueue(t, q)
		durable(t, ch, q, nil)
	}
	err := ch.Confirm(false)
	must(t, err)
	err = ch.Publish("", "billing", false, false, amqp.Publishing{
		Headers: amqp.Table{"CC": []any{"audit"}, "BCC": []any{"archive"}},
		Body:    body,
	})
	must(t, err)
	for _, q := range queues {
		d := receive(t, consume(t, ch, q, "", nil))
		if _, blind := d.Headers["BCC"]; blind || d.Headers["CC"] == nil || d.RoutingKey != "billing" {
			t.Errorf("queue %s: routing key %q, headers %v", q, d.RoutingKey, d.Headers)
		}
	}
}

func TestExampleUserID(t *testing.T) {
	ch := open(t)
	body, user := []byte("order"), sut.uri.Username
	removeQueue(t, "orders")
	durable(t, ch, "orders", nil)
	err := ch.Confirm(false)
	must(t, err)
	err = ch.Publish("", "orders", false, false, amqp.Publishing{UserId: user, Body: body})
	must(t, err)
	if d := receive(t, consume(t, ch, "orders", "", nil)); d.UserId != user {
		t.Errorf("user-id %q, want %q", d.UserId, user)
	}
}
