package integration

import (
	"fmt"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// What queues do beyond first in, first out goes on after a restart and after a kill -9.
func TestRulesSurviveTheBroker(t *testing.T) {
	for _, e := range ends {
		t.Run(e.name, func(t *testing.T) {
			b := ownBroker(t)
			conn := dialURL(t, b.URL())
			ch := channel(t, conn)
			confirmMode(t, ch)
			var after []func(*testing.T, *amqp.Channel)
			for _, prepare := range []func(*testing.T, *amqp.Channel) func(*testing.T, *amqp.Channel){
				survivingExpiry, survivingPriorities, survivingLimit, survivingDelays, survivingReturns,
			} {
				after = append(after, prepare(t, ch))
			}
			must(t, e.end(b))
			must(t, b.Start())
			ch = channel(t, dialURL(t, b.URL()))
			for _, check := range after {
				check(t, ch)
			}
		})
	}
}

func durableQueue(t *testing.T, ch *amqp.Channel, name string, args amqp.Table) string {
	t.Helper()
	name = uniqueName(name)
	_, err := ch.QueueDeclare(name, true, false, false, false, args)
	must(t, err)
	removeQueue(t, name)
	return name
}

func survivingExpiry(t *testing.T, ch *amqp.Channel) func(*testing.T, *amqp.Channel) {
	dead := durableQueue(t, ch, "dead", nil)
	q := durableQueue(t, ch, "expiry", amqp.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
	publishConfirmed(t, ch, "", q, expiring("long", 600000), expiring("short", 1000))
	return func(t *testing.T, ch *amqp.Channel) {
		if sut.settmq { // RabbitMQ keeps it behind the long one
			d := wantDelivery(t, consume(t, ch, dead, "", nil), "short", false)
			wantHeaders(t, death(t, d, 0, 1), amqp.Table{"reason": "expired", "original-expiration": "1000"})
		}
		if d := get(t, ch, q, true); string(d.Body) != "long" || d.Expiration != "600000" {
			t.Errorf("got %q with expiration %q", d.Body, d.Expiration)
		}
	}
}

func survivingPriorities(t *testing.T, ch *amqp.Channel) func(*testing.T, *amqp.Channel) {
	q := durableQueue(t, ch, "priorities", amqp.Table{"x-max-priority": int32(10)})
	publishConfirmed(t, ch, "", q, prioritised("a", 1), prioritised("b", 9), prioritised("c", 5), prioritised("d", 9))
	return func(t *testing.T, ch *amqp.Channel) { wantBodies(t, ch, q, "b", "d", "c", "a") }
}

func survivingLimit(t *testing.T, ch *amqp.Channel) func(*testing.T, *amqp.Channel) {
	q := durableQueue(t, ch, "limit", amqp.Table{"x-max-length": int32(3)})
	publishConfirmed(t, ch, "", q, persistent("a", "b", "c", "d")...)
	return func(t *testing.T, ch *amqp.Channel) {
		publish(t, ch, "", q, "e", "f")
		wantBodies(t, ch, q, "d", "e", "f")
	}
}

func survivingDelays(t *testing.T, ch *amqp.Channel) func(*testing.T, *amqp.Channel) {
	if !sut.settmq {
		return func(*testing.T, *amqp.Channel) {}
	}
	x := uniqueName("delays")
	must(t, ch.ExchangeDeclare(x, "x-delayed-message", true, false, false, false, amqp.Table{"x-delayed-type": "fanout"}))
	removeExchange(t, x)
	q := durableQueue(t, ch, "delayed", nil)
	bind(t, ch, q, "", x, nil)
	start := time.Now()
	publishConfirmed(t, ch, x, "", delayed("late", int32(4000)), delayed("soon", int32(1)), delayed("never", int32(600000)))
	return func(t *testing.T, ch *amqp.Channel) {
		in := consume(t, ch, q, "", nil)
		if d := receive(t, in); string(d.Body) != "soon" {
			t.Errorf("got %q first", d.Body)
		}
		if d := receive(t, in); string(d.Body) != "late" || time.Since(start) < 4*time.Second {
			t.Errorf("got %q after %v", d.Body, time.Since(start))
		}
	}
}

// Failed deliveries count across the end of the broker.
func survivingReturns(t *testing.T, ch *amqp.Channel) func(*testing.T, *amqp.Channel) {
	if !sut.settmq { // a quorum queue's feature there
		return func(*testing.T, *amqp.Channel) {}
	}
	dead := durableQueue(t, ch, "poison", nil)
	q := durableQueue(t, ch, "returns", amqp.Table{
		"x-delivery-limit": int32(2), "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead,
	})
	fail := func(t *testing.T, ch *amqp.Channel) {
		t.Helper()
		d := get(t, ch, q, false)
		must(t, d.Reject(true))
	}
	publishConfirmed(t, ch, "", q, persistent("m")...)
	fail(t, ch)
	fail(t, ch)
	// Something durable behind the second return, so that the kill does not come before it.
	durableQueue(t, ch, "marker", nil)
	return func(t *testing.T, ch *amqp.Channel) {
		fail(t, ch)
		d := wantDelivery(t, consume(t, ch, dead, "", nil), "m", false)
		wantHeaders(t, death(t, d, 0, 1), amqp.Table{"reason": "delivery_limit", "queue": q})
	}
}

// A broker that is killed while messages are dead-lettered loses none of them, and doubles none.
func TestDeadLettersSurviveAKill(t *testing.T) {
	b := ownBroker(t)
	const n = 3000
	conn := dialURL(t, b.URL())
	ch := channel(t, conn)
	confirmMode(t, ch)
	dead := durableQueue(t, ch, "dead", nil)
	q := durableQueue(t, ch, "q", amqp.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
	for i := 0; i < n; i += 100 {
		var some []amqp.Publishing
		for j := i; j < i+100; j++ {
			some = append(some, persistent(fmt.Sprint(j))...)
		}
		publishConfirmed(t, ch, "", q, some...)
	}
	in, err := ch.Consume(q, "", false, false, false, false, nil)
	must(t, err)
	killed := make(chan error, 1)
	i := 0
	for d := range in { // until the connection breaks
		if d.Reject(false) != nil {
			break
		}
		if i++; i == n/3 {
			go func() { killed <- b.Kill() }()
		}
		if i == n {
			break
		}
	}
	must(t, await(t, "kill", killed))
	must(t, b.Start())
	ch = channel(t, dialURL(t, b.URL()))
	seen := make(map[string]int)
	for _, name := range []string{q, dead} {
		for _, body := range drain(t, ch, name) {
			seen[body]++
		}
	}
	lost, twice := 0, 0
	for i := range n {
		switch seen[fmt.Sprint(i)] {
		case 0:
			lost++
		case 1:
		default:
			twice++
		}
	}
	if lost > 0 || twice > 0 && sut.settmq {
		t.Errorf("of %d messages %d are lost, %d are there twice", n, lost, twice)
	}
}

// A strategy of at-least-once keeps dead letters that nobody takes.
func TestDeadLettersWaitForTheirExchange(t *testing.T) {
	t.Parallel()
	ch := open(t)
	x := uniqueName("later")
	args := amqp.Table{
		"x-dead-letter-exchange": x, "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish",
	}
	if !sut.settmq {
		t.Skip("RabbitMQ does so for quorum queues only, and looks again after minutes")
	}
	q := sharedQueue(t, ch, args)
	publishConfirmed(t, openConfirming(t), "", q, persistent("a", "b")...)
	for range 2 {
		d := get(t, ch, q, false)
		must(t, d.Reject(false))
	}
	wantReady(t, ch, q, 0)
	must(t, ch.ExchangeDeclare(x, "fanout", true, false, false, false, nil))
	removeExchange(t, x)
	to := sharedQueue(t, ch, nil)
	bind(t, ch, to, "", x, nil)
	in := consume(t, ch, to, "", nil)
	for range 2 {
		receive(t, in)
	}
	wantReady(t, ch, q, 0)
}

// The keys in BCC are with a message after a restart, and nobody sees them.
func TestBlindKeysSurvive(t *testing.T) {
	var q, blind string
	lives(t, func(t *testing.T, ch *amqp.Channel, names *durableNames) {
		x := names.exchange(t, ch, "direct", true, nil)
		q, blind = names.queue(t, ch, "q", true, amqp.Table{"x-dead-letter-exchange": x}), names.queue(t, ch, "blind", true, nil)
		bind(t, ch, blind, "bcc", x, nil)
		confirmMode(t, ch)
		p := persistent("m")[0]
		p.Headers = amqp.Table{"BCC": []any{"bcc"}, "h": "v"}
		publishConfirmed(t, ch, "", q, p)
	}, func(t *testing.T, ch *amqp.Channel, _ *durableNames) {
		d := get(t, ch, q, false)
		if d.Headers["BCC"] != nil || d.Headers["h"] != "v" {
			t.Errorf("the headers are %v", d.Headers)
		}
		nack(t, d, false, false)
		eventually(t, func() error { return hasReady(ch, blind, 1) })
		if d = get(t, ch, blind, true); d.Headers["BCC"] != nil {
			t.Errorf("the headers of the dead letter are %v", d.Headers)
		}
	})
}
