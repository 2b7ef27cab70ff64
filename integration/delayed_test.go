package integration

import (
	"fmt"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// delayedExchange declares a delayed exchange with a queue bound to it, or skips where the plugin is missing.
func delayedExchange(t *testing.T, ch *amqp.Channel, kind, key string) (exchange, queue string) {
	t.Helper()
	if !sut.settmq {
		t.Skip("RabbitMQ has delayed exchanges in a plugin only, which is archived")
	}
	exchange = newExchange(t, ch, "x-delayed-message", amqp.Table{"x-delayed-type": kind})
	queue = sharedQueue(t, ch, nil)
	bind(t, ch, queue, key, exchange, nil)
	return exchange, queue
}

func delayed(body string, ms any) amqp.Publishing {
	return amqp.Publishing{Headers: amqp.Table{"x-delay": ms}, Body: []byte(body), DeliveryMode: amqp.Persistent}
}

func TestDelayedMessages(t *testing.T) {
	t.Parallel()
	ch := open(t)
	x, q := delayedExchange(t, ch, "topic", "a.*")
	in := consume(t, ch, q, "", nil)
	start := time.Now()
	for _, m := range []amqp.Publishing{
		delayed("third", int64(600)), delayed("second", "300"), delayed("first", int16(100)),
		delayed("at once", int32(0)), delayed("at once too", int32(-5)),
		{Body: []byte("no header")},
	} {
		publishMessage(t, ch, x, "a.b", m)
	}
	for _, want := range []struct {
		body  string
		after time.Duration
	}{{"at once", 0}, {"at once too", 0}, {"no header", 0}, {"first", 100}, {"second", 300}, {"third", 600}} {
		d := wantDelivery(t, in, want.body, false)
		if d.Exchange != x || d.RoutingKey != "a.b" {
			t.Errorf("%q comes from %q with key %q", d.Body, d.Exchange, d.RoutingKey)
		}
		if took := time.Since(start); took < want.after*time.Millisecond {
			t.Errorf("%q came after %v, too early", want.body, took)
		}
		if want.body == "second" {
			wantHeaders(t, d.Headers, amqp.Table{"x-delay": int32(-300)})
			if _, ok := d.Headers["x-death"]; ok {
				t.Error("a delay is no death")
			}
		}
	}
}

// Routing is decided when the time has come.
func TestDelayedMessageIsRoutedWhenItsTimeHasCome(t *testing.T) {
	t.Parallel()
	ch := open(t)
	x, first := delayedExchange(t, ch, "direct", "k")
	publishConfirmed(t, openConfirming(t), x, "k", delayed("m", int32(300)))
	must(t, ch.QueueUnbind(first, "k", x, nil))
	second := sharedQueue(t, ch, nil)
	bind(t, ch, second, "k", x, nil)
	wantDelivery(t, consume(t, ch, second, "", nil), "m", false)
	wantReady(t, ch, first, 0)
}

func TestDeletingADelayedExchangeCancelsWhatWaits(t *testing.T) {
	t.Parallel()
	ch := open(t)
	x, q := delayedExchange(t, ch, "fanout", "")
	publishConfirmed(t, openConfirming(t), x, "", delayed("m", int32(100)))
	must(t, ch.ExchangeDelete(x, false, false))
	must(t, ch.ExchangeDeclare(x, "x-delayed-message", true, false, false, false, amqp.Table{"x-delayed-type": "fanout"}))
	bind(t, ch, q, "", x, nil)
	publishMessage(t, ch, x, "", delayed("later", int32(200)))
	wantDelivery(t, consume(t, ch, q, "", nil), "later", false)
}

func TestDelayedExchangeRefusals(t *testing.T) {
	t.Parallel()
	if !sut.settmq {
		t.Skip("RabbitMQ has delayed exchanges in a plugin only, which is archived")
	}
	declare := func(args amqp.Table) func(*testing.T, *scene) {
		return func(_ *testing.T, s *scene) {
			_ = s.ch.ExchangeDeclare(s.x, "x-delayed-message", true, false, false, false, args)
		}
	}
	const text = "PRECONDITION_FAILED - Invalid argument, 'x-delayed-type' must be an existing exchange type"
	refuse(t, []refusal{
		{name: "no type", do: declare(nil), code: 406, text: text},
		{name: "type is no string", do: declare(amqp.Table{"x-delayed-type": int32(1)}), code: 406, text: text},
		{name: "delayed twice", do: declare(amqp.Table{"x-delayed-type": "x-delayed-message"}), code: 406, text: text},
		{
			name: "unknown type", do: declare(amqp.Table{"x-delayed-type": "magic"}),
			code: 406, text: "PRECONDITION_FAILED - unknown exchange type 'magic'",
		},
	})
}

// NServiceBus and kombu build long delays from queues with a time to live, one behind the other.
func TestChainOfTTLs(t *testing.T) {
	t.Parallel()
	ch := open(t)
	const levels = 28
	end := sharedQueue(t, ch, nil)
	next := end
	for range levels {
		next = sharedQueue(t, ch, amqp.Table{"x-message-ttl": int32(1), "x-dead-letter-exchange": "", "x-dead-letter-routing-key": next})
	}
	in := consume(t, ch, end, "", nil)
	for i := range 100 {
		publish(t, ch, "", next, fmt.Sprint(i))
	}
	for i := range 100 {
		if d := receive(t, in); string(d.Body) != fmt.Sprint(i) {
			t.Fatalf("message %d is %q", i, d.Body)
		}
	}
}

func TestExampleDelayedMessage(t *testing.T) {
	t.Parallel()
	ch := open(t)
	_, q := delayedExchange(t, ch, "fanout", "")
	removeExchange(t, "reminders")
	body := []byte("m")
	err := ch.ExchangeDeclare("reminders", "x-delayed-message", true, false, false, false, amqp.Table{"x-delayed-type": "direct"})
	must(t, err)
	bind(t, ch, q, "mail", "reminders", nil)
	err = ch.Publish("reminders", "mail", false, false, amqp.Publishing{
		Headers: amqp.Table{"x-delay": int32(50)}, // milliseconds
		Body:    body, DeliveryMode: amqp.Persistent,
	})
	must(t, err)
	wantDelivery(t, consume(t, ch, q, "", nil), "m", false)
}

func TestDelayedMessageGoesByAllItsKeys(t *testing.T) {
	t.Parallel()
	ch := open(t)
	x, q := delayedExchange(t, ch, "direct", "key")
	copies, blind := sharedQueue(t, ch, nil), sharedQueue(t, ch, nil)
	bind(t, ch, copies, "cc", x, nil)
	bind(t, ch, blind, "bcc", x, nil)
	m := delayed("m", 1)
	m.Headers["CC"], m.Headers["BCC"] = []any{"cc"}, []any{"bcc"}
	publishMessage(t, ch, x, "key", m)
	for _, to := range []string{q, copies, blind} {
		eventually(t, func() error { return hasReady(ch, to, 1) })
		if d := get(t, ch, to, true); d.Headers["BCC"] != nil {
			t.Errorf("BCC is seen: %v", d.Headers)
		}
	}
}
