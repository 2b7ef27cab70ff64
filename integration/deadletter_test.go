package integration

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// deadLettered makes a queue with args whose dead letters go to a second queue by a direct
// exchange of its own, under the key they died with.
func deadLettered(t *testing.T, ch *amqp.Channel, args amqp.Table) (from, to, exchange string) {
	t.Helper()
	exchange = newExchange(t, ch, "direct", nil)
	to = sharedQueue(t, ch, nil)
	all := amqp.Table{"x-dead-letter-exchange": exchange}
	for k, v := range args {
		all[k] = v
	}
	from = sharedQueue(t, ch, all)
	key := from
	if k, ok := args["x-dead-letter-routing-key"].(string); ok {
		key = k
	}
	bind(t, ch, to, key, exchange, nil)
	return from, to, exchange
}

// death checks one entry of x-death and returns it.
func death(t *testing.T, d amqp.Delivery, i, of int) amqp.Table {
	t.Helper()
	list, _ := d.Headers["x-death"].([]any)
	if len(list) != of {
		t.Fatalf("x-death has %d entries, want %d: %v", len(list), of, d.Headers)
	}
	e, _ := list[i].(amqp.Table)
	return e
}

func wantHeaders(t *testing.T, got amqp.Table, want amqp.Table) {
	t.Helper()
	for k, v := range want {
		if !reflect.DeepEqual(got[k], v) {
			t.Errorf("header %s is %#v, want %#v", k, got[k], v)
		}
	}
}

// Where a dead letter keeps its routing keys, all of them count, also those in BCC, which nobody sees. With another key for
// dead letters that one alone counts, also when the message dies again.
func TestDeadLettersGoByAllTheirKeys(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"classic", "quorum"} {
		for _, key := range []string{"key", "other"} {
			t.Run(kind+" "+key, func(t *testing.T) {
				t.Parallel()
				ch := open(t)
				confirmMode(t, ch)
				in, first, second := newExchange(t, ch, "direct", nil), newExchange(t, ch, "direct", nil), newExchange(t, ch, "direct", nil)
				args := amqp.Table{"x-queue-type": kind, "x-dead-letter-exchange": first}
				if key == "other" {
					args["x-dead-letter-routing-key"] = key
				}
				from := sharedQueue(t, ch, args)
				bind(t, ch, from, "key", in, nil)
				next := sharedQueue(t, ch, amqp.Table{"x-queue-type": kind, "x-dead-letter-exchange": second})
				bind(t, ch, next, key, first, nil)
				queues := make(map[string]string)
				for _, k := range []string{"key", "cc", "bcc", "other"} {
					queues[k] = sharedQueue(t, ch, nil)
					bind(t, ch, queues[k], k, first, nil)
					bind(t, ch, queues[k], k, second, nil)
				}
				p := persistent("m")[0]
				p.Headers = amqp.Table{"CC": []any{"cc"}, "BCC": []any{"bcc"}}
				publishConfirmed(t, ch, in, "key", p)
				d := get(t, ch, from, false)
				if d.Headers["BCC"] != nil {
					t.Error("BCC is seen")
				}
				nack(t, d, false, false)
				eventually(t, func() error { return hasReady(ch, next, 1) })
				d = get(t, ch, next, false)
				if d.Headers["BCC"] != nil {
					t.Error("BCC is seen in the dead letter")
				}
				wantHeaders(t, death(t, d, 0, 1), amqp.Table{"routing-keys": []any{"key", "cc"}})
				nack(t, d, false, false)
				want := map[string]int{"key": 2, "cc": 2, "bcc": 2}
				if key == "other" {
					want = map[string]int{"other": 2}
				}
				for k, q := range queues {
					eventually(t, func() error { return hasReady(ch, q, want[k]) })
				}
			})
		}
	}
}

// The first delivery from a queue is the first, wherever the message comes from.
func TestDeadLettersAreNotRedelivered(t *testing.T) {
	t.Parallel()
	ch := open(t)
	from, to, _ := deadLettered(t, ch, nil)
	publish(t, ch, "", from, "m")
	must(t, get(t, ch, from, false).Reject(false))
	eventually(t, func() error { return hasReady(ch, to, 1) })
	if d := get(t, ch, to, true); d.Redelivered != differs(t, "dead-letter-redelivered") {
		t.Errorf("redelivered is %v", d.Redelivered)
	}
}

func TestRejectedMessageIsDeadLettered(t *testing.T) {
	t.Parallel()
	ch := open(t)
	from, to, x := deadLettered(t, ch, nil)
	publishMessage(t, ch, "", from, amqp.Publishing{
		Headers: amqp.Table{"mine": "kept"}, MessageId: "id", DeliveryMode: amqp.Persistent, Body: []byte("m"),
	})
	dead := consume(t, ch, to, "", nil)
	d := get(t, ch, from, false)
	before := time.Now().Add(-2 * time.Second)
	must(t, d.Reject(false))
	got := receive(t, dead)
	if string(got.Body) != "m" || got.MessageId != "id" || got.Exchange != x || got.RoutingKey != from || got.Redelivered {
		t.Errorf("dead letter is %+v", got)
	}
	wantHeaders(t, got.Headers, amqp.Table{
		"mine": "kept", "x-first-death-queue": from, "x-first-death-reason": "rejected", "x-first-death-exchange": "",
		"x-last-death-queue": from, "x-last-death-reason": "rejected", "x-last-death-exchange": "",
	})
	e := death(t, got, 0, 1)
	wantHeaders(t, e, amqp.Table{"count": int64(1), "reason": "rejected", "queue": from, "exchange": "", "routing-keys": []any{from}})
	if at, ok := e["time"].(time.Time); !ok || at.Before(before) || at.After(time.Now().Add(time.Second)) {
		t.Errorf("time of death is %v", e["time"])
	}
	if _, ok := e["original-expiration"]; ok {
		t.Error("there was no expiration")
	}
}

func TestNackMultipleDeadLettersInOrder(t *testing.T) {
	t.Parallel()
	ch := open(t)
	from, to, _ := deadLettered(t, ch, nil)
	in := consume(t, ch, from, "", nil)
	var last amqp.Delivery
	for i := range 50 {
		publish(t, ch, "", from, fmt.Sprint(i))
	}
	for range 50 {
		last = receive(t, in)
	}
	nack(t, last, true, false)
	dead := consume(t, ch, to, "", nil)
	for i := range 50 {
		if d := receive(t, dead); string(d.Body) != fmt.Sprint(i) {
			t.Fatalf("dead letter %d is %q", i, d.Body)
		}
	}
}

func TestDeadLetterRoutingKeyReplacesAllKeys(t *testing.T) {
	t.Parallel()
	ch := open(t)
	key := uniqueName("key")
	from, to, x := deadLettered(t, ch, amqp.Table{"x-dead-letter-routing-key": key})
	other := sharedQueue(t, ch, nil)
	bind(t, ch, other, "copy", x, nil)
	publishMessage(t, ch, "", from, amqp.Publishing{Headers: amqp.Table{"CC": []any{"copy"}}, Body: []byte("m")})
	d := get(t, ch, from, false)
	must(t, d.Reject(false))
	dead := receive(t, consume(t, ch, to, "", nil))
	if dead.RoutingKey != key {
		t.Errorf("routing key is %q", dead.RoutingKey)
	}
	wantHeaders(t, death(t, dead, 0, 1), amqp.Table{"routing-keys": []any{from, "copy"}})
	wantReady(t, ch, other, 0)
}

func TestDeadLetterGoesToCopiedKeysToo(t *testing.T) {
	t.Parallel()
	ch := open(t)
	from, to, x := deadLettered(t, ch, nil)
	other := sharedQueue(t, ch, nil)
	bind(t, ch, other, "copy", x, nil)
	publishMessage(t, ch, "", from, amqp.Publishing{Headers: amqp.Table{"CC": []any{"copy"}}, Body: []byte("m")})
	d := get(t, ch, from, false)
	must(t, d.Reject(false))
	receive(t, consume(t, ch, to, "", nil))
	receive(t, consume(t, ch, other, "", nil))
}

func TestDeadLetterWithoutExchangeIsDropped(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q := sharedQueue(t, ch, amqp.Table{"x-dead-letter-exchange": uniqueName("nowhere")})
	publish(t, ch, "", q, "a", "b")
	d := get(t, ch, q, false)
	must(t, d.Reject(false))
	wantBodies(t, ch, q, "b")
}

// A message that expired twice in one queue has one entry with a count of two.
func TestDeathsAreCountedPerQueueAndReason(t *testing.T) {
	t.Parallel()
	ch := open(t)
	// work -rejected-> retry -expired-> work
	retry, work := nameFor(t, "retry"), nameFor(t, "work")
	for name, args := range map[string]amqp.Table{
		retry: {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": work, "x-message-ttl": int32(1)},
		work:  {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": retry},
	} {
		_, err := ch.QueueDeclare(name, true, false, false, false, args)
		must(t, err)
		removeQueue(t, name)
	}
	publish(t, ch, "", work, "m")
	in := consume(t, ch, work, "", nil)
	for range 3 {
		d := receive(t, in)
		must(t, d.Reject(false))
	}
	d := receive(t, in)
	wantHeaders(t, death(t, d, 0, 2), amqp.Table{"queue": retry, "reason": "expired", "count": int64(3), "exchange": ""})
	wantHeaders(t, death(t, d, 1, 2), amqp.Table{"queue": work, "reason": "rejected", "count": int64(3), "exchange": "", "routing-keys": []any{work}})
	wantHeaders(t, d.Headers, amqp.Table{
		"x-first-death-queue": work, "x-first-death-reason": "rejected",
		"x-last-death-queue": retry, "x-last-death-reason": "expired",
	})
}

// What expires in a circle, with nobody rejecting it, is dropped when it comes round.
func TestCyclesWithoutARejectionEnd(t *testing.T) {
	t.Parallel()
	ch := open(t)
	a, b := nameFor(t, "a"), nameFor(t, "b")
	for name, to := range map[string]string{a: b, b: a} {
		_, err := ch.QueueDeclare(name, true, false, false, false, amqp.Table{
			"x-dead-letter-exchange": "", "x-dead-letter-routing-key": to, "x-message-ttl": int32(20),
		})
		must(t, err)
		removeQueue(t, name)
	}
	end := sharedQueue(t, ch, nil)
	publish(t, ch, "", a, "m")
	// A second message on the same way, once it is through, proves that the first one is.
	for range 5 {
		publish(t, ch, "", end, "tick")
		eventually(t, func() error {
			if n := inspect(t, ch, a).Messages + inspect(t, ch, b).Messages; n > 0 {
				return fmt.Errorf("%d messages", n)
			}
			return nil
		})
	}
}

// A client's own x-death is no history: it is handed on until the broker writes its own.
func TestClientsDeathsAreNotCounted(t *testing.T) {
	t.Parallel()
	ch := open(t)
	from, to, _ := deadLettered(t, ch, nil)
	publishMessage(t, ch, "", from, amqp.Publishing{Headers: amqp.Table{
		"x-death": []any{amqp.Table{"queue": from, "reason": "rejected", "count": int64(41)}}, "x-first-death-queue": "lie",
	}, Body: []byte("m")})
	d := get(t, ch, from, false)
	if list, _ := d.Headers["x-death"].([]any); len(list) != 1 {
		t.Errorf("x-death is %v on the way in", d.Headers["x-death"])
	}
	must(t, d.Reject(false))
	got := receive(t, consume(t, ch, to, "", nil))
	wantHeaders(t, death(t, got, 0, 1), amqp.Table{"count": int64(1), "queue": from})
	wantHeaders(t, got.Headers, amqp.Table{"x-first-death-queue": from})
}

func TestUnroutableDeadLettersAreGone(t *testing.T) {
	t.Parallel()
	ch := open(t)
	x := newExchange(t, ch, "direct", nil)
	q := sharedQueue(t, ch, amqp.Table{"x-dead-letter-exchange": x})
	publish(t, ch, "", q, "m")
	d := get(t, ch, q, false)
	must(t, d.Reject(false))
	wantReady(t, ch, q, 0)
}
