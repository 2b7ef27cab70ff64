package integration

import (
	"errors"
	"fmt"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// expiring is a message with an expiration in milliseconds.
func expiring(body string, ms int) amqp.Publishing {
	return amqp.Publishing{Body: []byte(body), Expiration: fmt.Sprint(ms), DeliveryMode: amqp.Persistent}
}

func TestQueueTTL(t *testing.T) {
	t.Parallel()
	ch := open(t)
	from, to, _ := deadLettered(t, ch, amqp.Table{"x-message-ttl": int32(150)})
	start := time.Now()
	publishConfirmed(t, openConfirming(t), "", from, persistent("a", "b")...)
	dead := consume(t, ch, to, "", nil)
	for _, want := range []string{"a", "b"} {
		d := wantDelivery(t, dead, want, false)
		wantHeaders(t, death(t, d, 0, 1), amqp.Table{"reason": "expired", "queue": from})
	}
	if took := time.Since(start); took < 140*time.Millisecond {
		t.Errorf("expired after %v", took)
	}
	wantReady(t, ch, from, 0)
}

func TestExpirationIsInTheHistoryAndNotInTheDeadLetter(t *testing.T) {
	t.Parallel()
	ch := open(t)
	from, to, _ := deadLettered(t, ch, nil)
	publishMessage(t, ch, "", from, expiring("m", 10))
	d := receive(t, consume(t, ch, to, "", nil))
	if d.Expiration != "" {
		t.Errorf("the dead letter has expiration %q", d.Expiration)
	}
	wantHeaders(t, death(t, d, 0, 1), amqp.Table{"reason": "expired", "original-expiration": "10"})
}

func TestTTLZero(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q := sharedQueue(t, ch, nil)
	confirmMode(t, ch)
	p := expiring("nobody is here", 0)
	p.DeliveryMode = amqp.Persistent
	publishConfirmed(t, ch, "", q, p)
	wantBodies(t, ch, q) // at once
	in := consume(t, ch, q, "", nil)
	publishMessage(t, ch, "", q, expiring("m", 0))
	wantDelivery(t, in, "m", false)
}

// RabbitMQ looks at the head of a queue only; here a message goes when its time has come.
func TestShortExpirationBehindALongOne(t *testing.T) {
	t.Parallel()
	needs(t, "expiry-in-place")
	ch := open(t)
	from, to, _ := deadLettered(t, ch, nil)
	publishMessage(t, ch, "", from, expiring("long", 60000))
	publishMessage(t, ch, "", from, expiring("short", 20))
	wantDelivery(t, consume(t, ch, to, "", nil), "short", false)
	wantBodies(t, ch, from, "long")
}

func TestShorterTTLHolds(t *testing.T) {
	t.Parallel()
	ch := open(t)
	from, to, _ := deadLettered(t, ch, amqp.Table{"x-message-ttl": int32(30)})
	publishMessage(t, ch, "", from, expiring("m", 60000))
	receive(t, consume(t, ch, to, "", nil))
}

// An unacknowledged message does not expire; once returned after its time it is gone.
func TestOutstandingMessagesDoNotExpire(t *testing.T) {
	t.Parallel()
	ch := open(t)
	from, to, _ := deadLettered(t, ch, amqp.Table{"x-message-ttl": int32(100)})
	publish(t, ch, "", from, "held", "waits")
	d := get(t, ch, from, false)
	dead := consume(t, ch, to, "", nil)
	wantDelivery(t, dead, "waits", false) // time has passed
	must(t, d.Reject(true))
	wantDelivery(t, dead, "held", false)
	wantReady(t, ch, from, 0)
}

func TestQueueExpires(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q := nameFor(t, "q")
	_, err := ch.QueueDeclare(q, true, false, false, false, amqp.Table{"x-expires": int32(400)})
	must(t, err)
	removeQueue(t, q)
	in, err := ch.Consume(q, "c", true, false, false, false, nil)
	must(t, err)
	publish(t, ch, "", q, "m")
	receive(t, in)
	// A consumer keeps it: no message does.
	gone := func() bool {
		_, err := channel(t, dial(t)).QueueDeclarePassive(q, true, false, false, false, nil)
		var e *amqp.Error
		return errors.As(err, &e) && e.Code == amqp.NotFound
	}
	if gone() {
		t.Fatal("it is gone with a consumer")
	}
	must(t, ch.Cancel("c", false))
	publish(t, ch, "", q, "m")
	cancelled := time.Now()
	exists := make(chan bool, 1)
	go func() {
		// Looking at it passively is use; so look as something else does.
		ch := channel(t, dial(t))
		ret := ch.NotifyReturn(make(chan amqp.Return, 1))
		for {
			if err := ch.Publish("", q, true, false, amqp.Publishing{}); err != nil {
				exists <- false
				return
			}
			select {
			case <-ret:
				exists <- false
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	await(t, "expiry of the queue", exists)
	if took := time.Since(cancelled); took < 380*time.Millisecond {
		t.Errorf("expired after %v", took)
	}
}
