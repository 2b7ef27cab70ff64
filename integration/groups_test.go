package integration

import (
	"fmt"
	"sync"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// withGroups are the arguments of a queue with message groups; the test is skipped where there are none.
func withGroups(t *testing.T, more amqp.Table) amqp.Table {
	t.Helper()
	if !sut.settmq {
		t.Skip("RabbitMQ has no message groups")
	}
	args := amqp.Table{"x-message-groups": true}
	for k, v := range more {
		args[k] = v
	}
	return args
}

// inGroup are persistent messages of a group.
func inGroup(group any, bodies ...string) []amqp.Publishing {
	list := persistent(bodies...)
	for i := range list {
		list[i].Headers = amqp.Table{"x-group-id": group}
	}
	return list
}

// wantQuiet checks that no delivery was sent before the answer to a request on its channel.
func wantQuiet(t *testing.T, ch *amqp.Channel, deliveries <-chan amqp.Delivery) {
	t.Helper()
	must(t, ch.ExchangeDeclarePassive("amq.direct", "direct", true, false, false, false, nil))
	select {
	case d := <-deliveries:
		t.Fatalf("%q is delivered", d.Body)
	default:
	}
}

// Three consumers work on twenty groups at the same time: each group comes in order, and to one of them at a time.
func TestMessageGroupsComeInOrder(t *testing.T) {
	t.Parallel()
	q := sharedQueue(t, open(t), withGroups(t, nil))
	const groups, each = 20, 30
	var (
		mu    sync.Mutex
		next  [groups]int // what comes next of a group
		holds [groups]map[int]int
		took  [3]int
		left  = groups * each
		done  = make(chan struct{}, 1)
	)
	start := func(d amqp.Delivery, id int) (g int) {
		var n int
		if _, err := fmt.Sscanf(string(d.Body), "%d/%d", &g, &n); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		if n != next[g] {
			t.Errorf("of group %d comes %d instead of %d", g, n, next[g])
		}
		next[g] = n + 1
		if holds[g] == nil {
			holds[g] = map[int]int{}
		}
		for other, n := range holds[g] {
			if other != id && n > 0 {
				t.Errorf("%q goes to consumer %d while %d has messages of its group", d.Body, id, other)
			}
		}
		holds[g][id]++
		took[id]++
		return g
	}
	finish := func(g, id int) {
		mu.Lock()
		defer mu.Unlock()
		holds[g][id]--
		if left--; left == 0 {
			done <- struct{}{}
		}
	}
	for id := range 3 {
		ch := open(t)
		prefetch(t, ch, 1+4*id, false)
		in := consume(t, ch, q, "", nil)
		go func() {
			for d := range in {
				g := start(d, id)
				finish(g, id)
				if err := d.Ack(false); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	pub := openConfirming(t)
	for n := range each {
		for g := range groups {
			publishConfirmed(t, pub, "", q, inGroup(int32(g), fmt.Sprintf("%d/%d", g, n))...)
		}
	}
	await(t, "the last message", done)
	mu.Lock()
	defer mu.Unlock()
	for id, n := range took {
		if n == 0 {
			t.Errorf("consumer %d of 3 got nothing", id+1)
		}
	}
}

// Who does not get on with his messages keeps their group, and nothing else.
func TestBusyConsumerHoldsUpItsGroupOnly(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q := sharedQueue(t, ch, withGroups(t, nil))
	busy, other := open(t), open(t)
	prefetch(t, busy, 1, false)
	slow := consume(t, busy, q, "busy", nil)
	pub := openConfirming(t)
	publishConfirmed(t, pub, "", q, inGroup("a", "a1")...)
	held := wantDelivery(t, slow, "a1", false)
	publishConfirmed(t, pub, "", q, inGroup("a", "a2", "a3")...)
	publishConfirmed(t, pub, "", q, inGroup(int64(7), "7 first")...)
	publishConfirmed(t, pub, "", q, inGroup("7", "7 second")...)
	publishConfirmed(t, pub, "", q, persistent("of no group")...)
	fast := consume(t, other, q, "", nil)
	for _, want := range []string{"7 first", "7 second", "of no group"} {
		wantDelivery(t, fast, want, false)
	}
	wantQuiet(t, other, fast)
	if _, ok, err := ch.Get(q, true); ok || err != nil {
		t.Errorf("basic.get takes a message of a group that a consumer has: %v", err)
	}
	wantReady(t, ch, q, 2)
	must(t, busy.Cancel("busy", false))
	ack(t, held, false)
	wantDelivery(t, fast, "a2", false)
	wantDelivery(t, fast, "a3", false)
}

// What a consumer held when its connection ended goes to another one, in its order.
func TestGroupOfALostConsumerGoesOn(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q := sharedQueue(t, ch, withGroups(t, nil))
	conn := dial(t)
	lost := channel(t, conn)
	prefetch(t, lost, 2, false)
	first := consume(t, lost, q, "", nil)
	publishConfirmed(t, openConfirming(t), "", q, inGroup("a", "a1", "a2", "a3", "a4")...)
	wantDelivery(t, first, "a1", false)
	wantDelivery(t, first, "a2", false)
	second := consume(t, ch, q, "", nil)
	wantQuiet(t, ch, second)
	must(t, conn.Close())
	for i, want := range []string{"a1", "a2", "a3", "a4"} {
		wantDelivery(t, second, want, i < 2)
	}
}

// A cancelled consumer keeps the groups of what it has not settled.
func TestGroupOfACancelledConsumer(t *testing.T) {
	t.Parallel()
	ch, other := open(t), open(t)
	q := sharedQueue(t, ch, withGroups(t, nil))
	first := consume(t, ch, q, "first", nil)
	pub := openConfirming(t)
	publishConfirmed(t, pub, "", q, inGroup("a", "a1")...)
	held := wantDelivery(t, first, "a1", false)
	must(t, ch.Cancel("first", false))
	publishConfirmed(t, pub, "", q, inGroup("a", "a2")...)
	second := consume(t, other, q, "", nil)
	wantQuiet(t, other, second)
	must(t, held.Reject(true))
	wantDelivery(t, second, "a1", true)
	wantDelivery(t, second, "a2", false)
}

// Expiry and rejection take messages out of a group, which goes on with the next.
func TestDeadLettersOfAGroup(t *testing.T) {
	t.Parallel()
	ch := open(t)
	dead := sharedQueue(t, ch, nil)
	q := sharedQueue(t, ch, withGroups(t, amqp.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}))
	prefetch(t, ch, 1, false)
	in := consume(t, ch, q, "", nil)
	messages := inGroup("a", "rejected", "expired", "last")
	messages[1].Expiration = "1"
	publishConfirmed(t, openConfirming(t), "", q, messages...)
	d := wantDelivery(t, in, "rejected", false)
	letters := consume(t, open(t), dead, "", nil)
	wantDelivery(t, letters, "expired", false)
	must(t, d.Reject(false))
	wantDelivery(t, letters, "rejected", false)
	wantDelivery(t, in, "last", false)
}

// After a restart messages are in the groups they were in, also those that wait for their retry.
func TestMessageGroupsSurvive(t *testing.T) {
	var q string
	lives(t, func(t *testing.T, ch *amqp.Channel, names *durableNames) {
		q = names.queue(t, ch, "groups", true, withGroups(t, amqp.Table{
			"x-delayed-retry-type": "all", "x-delayed-retry-min": int32(3_600_000), "x-group-header": "customer",
		}))
		confirmMode(t, ch)
		for _, m := range []string{"a1", "b1", "c1", "a2", "b2", "c2"} {
			p := amqp.Publishing{Headers: amqp.Table{"customer": m[:1]}, Body: []byte(m), DeliveryMode: amqp.Persistent}
			publishConfirmed(t, ch, "", q, p)
		}
		d := get(t, ch, q, false)
		must(t, d.Reject(true)) // a1 waits
		wantReady(t, ch, q, 5)
		names.exchange(t, ch, "fanout", true, nil) // answered when everything before is on disk
	}, func(t *testing.T, ch *amqp.Channel, names *durableNames) {
		first, second := channel(t, dialURL(t, names.url)), channel(t, dialURL(t, names.url))
		prefetch(t, first, 1, false)
		prefetch(t, second, 2, false)
		one := consume(t, first, q, "", nil)
		b1 := receive(t, one)
		two := consume(t, second, q, "", nil)
		for _, want := range []string{"c1", "c2"} {
			if d := receive(t, two); string(d.Body) != want {
				t.Fatalf("%q comes instead of %q", d.Body, want)
			}
		}
		if string(b1.Body) != "b1" {
			t.Errorf("%q comes first", b1.Body)
		}
		wantReady(t, ch, q, 2) // a2 behind a1, b2 behind b1
		_ = b1.Ack(false)
		if d := receive(t, one); string(d.Body) != "b2" {
			t.Errorf("%q comes after b1", d.Body)
		}
	})
}

func TestMessageGroupRefusals(t *testing.T) {
	t.Parallel()
	withGroups(t, nil)
	declare := func(args amqp.Table) func(*testing.T, *scene) {
		return func(_ *testing.T, s *scene) { _, _ = s.ch.QueueDeclare(s.q, true, false, false, false, args) }
	}
	const invalid = "PRECONDITION_FAILED - invalid arg '%s' for queue '{q}' in vhost '{vhost}': %s"
	refuse(t, []refusal{
		{
			name: "with priorities", do: declare(amqp.Table{"x-message-groups": true, "x-max-priority": int32(5)}),
			code: 406, text: fmt.Sprintf(invalid, "x-message-groups", "message_groups_and_priorities"),
		},
		{
			name: "no bool", do: declare(amqp.Table{"x-message-groups": "true"}),
			code: 406, text: fmt.Sprintf(invalid, "x-message-groups", "{unacceptable_type,longstr}"),
		},
		{
			name: "header without groups", do: declare(amqp.Table{"x-group-header": "customer"}),
			code: 406, text: fmt.Sprintf(invalid, "x-group-header", "group_header_but_no_message_groups"),
		},
		{
			name: "empty header", do: declare(amqp.Table{"x-message-groups": true, "x-group-header": ""}),
			code: 406, text: fmt.Sprintf(invalid, "x-group-header", "empty_group_header"),
		},
		{
			name: "other queue type", do: declare(amqp.Table{"x-queue-type": "stream", "x-message-groups": true}),
			code: 406, text: "PRECONDITION_FAILED - invalid arg 'x-message-groups' for queue '{q}' in vhost '{vhost}' of queue type rabbit_stream_queue",
		},
		{
			name: "declared without", do: func(t *testing.T, s *scene) {
				s.declare(t, amqp.Table{"x-message-groups": true})
				_, _ = s.ch.QueueDeclare(s.q, true, false, false, false, nil)
			},
			code: 406, text: "PRECONDITION_FAILED - inequivalent arg 'x-message-groups' for queue '{q}' in vhost '{vhost}': received none but current is the value 'true' of type 'bool'",
		},
	})
}

func TestExampleMessageGroups(t *testing.T) {
	t.Parallel()
	withGroups(t, nil)
	ch := open(t)
	removeQueue(t, "payments")
	body := []byte("m")
	var err error
	_, err = ch.QueueDeclare("payments", true, false, false, false, amqp.Table{"x-message-groups": true})
	must(t, err)
	err = ch.Publish("", "payments", false, false, amqp.Publishing{
		Headers: amqp.Table{"x-group-id": "account-4711"},
		Body:    body, DeliveryMode: amqp.Persistent,
	})
	must(t, err)
	wantDelivery(t, consume(t, ch, "payments", "", nil), "m", false)
}
