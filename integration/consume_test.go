package integration

import (
	"fmt"
	"regexp"
	"slices"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

func TestConsumeRefusals(t *testing.T) {
	t.Parallel()
	consumeWith := func(noAck, exclusive bool, args amqp.Table) func(*testing.T, *scene) {
		return func(t *testing.T, s *scene) {
			s.declare(t, nil)
			consume(t, channel(t, s.conn), s.q, "first", nil)
			_, _ = s.ch.Consume(s.q, "", noAck, exclusive, false, false, args)
		}
	}
	refuse(t, []refusal{
		{name: "no such queue", do: func(_ *testing.T, s *scene) {
			_, _ = s.ch.Consume(s.q, "", false, false, false, false, nil)
		}, code: 404, text: "NOT_FOUND - no queue '{q}' in vhost '{vhost}'"},
		{
			name: "get, no such queue", do: func(_ *testing.T, s *scene) { _, _, _ = s.ch.Get(s.q, false) },
			code: 404, text: "NOT_FOUND - no queue '{q}' in vhost '{vhost}'",
		},
		{name: "tag in use", do: func(t *testing.T, s *scene) {
			s.declare(t, nil)
			consume(t, s.ch, s.q, "tag", nil)
			_, _ = s.ch.Consume(s.q, "tag", false, false, false, false, nil)
		}, code: 530, text: "NOT_ALLOWED - attempt to reuse consumer tag 'tag'"},
		{
			name: "exclusive, others there", do: consumeWith(false, true, nil),
			code: 403, text: "ACCESS_REFUSED - queue '{q}' in vhost '{vhost}' in exclusive use",
		},
		{name: "another one beside an exclusive one", do: func(t *testing.T, s *scene) {
			s.declare(t, nil)
			_, err := channel(t, s.conn).Consume(s.q, "", false, true, false, false, nil)
			must(t, err)
			_, _ = s.ch.Consume(s.q, "", false, false, false, false, nil)
		}, code: 403, text: "ACCESS_REFUSED - queue '{q}' in vhost '{vhost}' in exclusive use"},
		{
			name: "priority is no number", do: consumeWith(false, false, amqp.Table{"x-priority": "high"}),
			code: 406, text: `PRECONDITION_FAILED - invalid arg 'x-priority' for queue '{q}' in vhost '{vhost}': "expected integer, got longstr"`,
		},
		{name: "nowait, refused all the same", do: func(_ *testing.T, s *scene) {
			_, _ = s.ch.Consume(s.q, "tag", false, false, false, true, nil)
		}, code: 404, text: "NOT_FOUND - no queue '{q}' in vhost '{vhost}'"},
	})
}

func TestConsumerTags(t *testing.T) {
	t.Parallel()
	c := wireDial(t)
	c.openChannel(2)
	q := c.declare(1)
	form := regexp.MustCompile(`^amq\.ctag-[A-Za-z0-9_-]{22}$`)
	first, second := c.consume(1, q, "", false), c.consume(1, q, "", false)
	if !form.MatchString(first) || !form.MatchString(second) || first == second {
		t.Fatalf("server chose the tags %q and %q", first, second)
	}
	// Unique per channel only, and free again after a cancel.
	c.consume(1, q, "tag", false)
	c.consume(2, q, "tag", false)
	c.send(1, basicCancel, args{}.shortstr("tag").bits(false))
	c.expect(1, basicCancelOk)
	c.consume(1, q, "tag", false)
	if _, consumers := c.inspect(1, q); consumers != 4 {
		t.Fatalf("%d consumers, want 4", consumers)
	}
}

func TestConsumeOkPrecedesDeliveries(t *testing.T) {
	t.Parallel()
	c := wireDial(t)
	q := c.declare(1)
	for i := range 10 {
		c.publish(1, publishArgs("", q, false, false), nil, fmt.Sprint(i))
	}
	c.wantReady(1, q, 10)
	c.consume(1, q, "tag", true) // reads consume-ok as the next frame
	for i := range uint64(10) {
		d := c.deliver(1)
		if string(d.body) != fmt.Sprint(i) || d.tag != i+1 || d.consumer != "tag" || d.redelivered {
			t.Fatalf("delivery %d: %q, tag %d, consumer %q, redelivered %t", i, d.body, d.tag, d.consumer, d.redelivered)
		}
	}
	c.send(1, basicConsume, args{}.short(0).shortstr(q).shortstr("silent").bits(false, true, false, true).emptyTable()) // nowait
	c.publish(1, publishArgs("", q, false, false), nil, "a")
	c.publish(1, publishArgs("", q, false, false), nil, "b")
	got := []string{c.deliver(1).consumer, c.deliver(1).consumer}
	slices.Sort(got)
	if !slices.Equal(got, []string{"silent", "tag"}) {
		t.Fatalf("delivered to %q, want both consumers, round robin", got)
	}
}

func TestDeliveryTagsCountDeliveriesAndGets(t *testing.T) {
	t.Parallel()
	c := wireDial(t)
	q := c.declare(1)
	for i := range 4 {
		c.publish(1, publishArgs("", q, false, false), nil, fmt.Sprint(i))
	}
	for i, noAck := range []bool{true, false} {
		c.send(1, basicGet, args{}.short(0).shortstr(q).bits(noAck))
		r := c.expect(1, basicGetOk)
		tag, redelivered, exchange, key, left := r.longlong(), r.octet(), r.shortstr(), r.shortstr(), r.long()
		if tag != uint64(i+1) || redelivered != 0 || exchange != "" || key != q || left != uint32(3-i) {
			t.Fatalf("get-ok %d: tag %d, redelivered %d, exchange %q, key %q, %d left", i, tag, redelivered, exchange, key, left)
		}
		c.content(1)
	}
	c.consume(1, q, "tag", true)
	for want := uint64(3); want <= 4; want++ {
		if d := c.deliver(1); d.tag != want {
			t.Fatalf("delivery tag %d, want %d", d.tag, want)
		}
	}
	c.send(1, basicGet, args{}.short(0).shortstr(q).bits(false))
	if r := c.expect(1, basicGetEmpty); r.shortstr() != "" {
		t.Fatal("get-empty has a text in its reserved field")
	}
}

func TestGetCountsWhatIsLeft(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q := privateQueue(t, ch, nil)
	publish(t, ch, "", q, "0", "1", "2", "3")
	for i := range 4 {
		d := get(t, ch, q, false)
		if string(d.Body) != fmt.Sprint(i) || int(d.MessageCount) != 3-i || d.Redelivered {
			t.Fatalf("get %d: %q, %d left, redelivered %t", i, d.Body, d.MessageCount, d.Redelivered)
		}
	}
	if _, ok, err := ch.Get(q, false); ok || err != nil {
		t.Fatalf("get of an empty queue: %t, %v", ok, err)
	}
	must(t, ch.Nack(4, true, true))
	for i := range 4 {
		d := get(t, ch, q, true)
		if string(d.Body) != fmt.Sprint(i) || int(d.MessageCount) != 3-i || !d.Redelivered {
			t.Fatalf("get %d after requeue: %q, %d left, redelivered %t", i, d.Body, d.MessageCount, d.Redelivered)
		}
	}
}

func TestNoLocalIsIgnored(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q := privateQueue(t, ch, nil)
	deliveries, err := ch.Consume(q, "", true, false, true, false, nil)
	must(t, err)
	publish(t, ch, "", q, "own")
	wantDelivery(t, deliveries, "own", false)
}

func TestConsumersTakeTurns(t *testing.T) {
	t.Parallel()
	const consumers, rounds = 4, 25
	c := wireDial(t)
	q := c.declare(1)
	for i := range consumers {
		c.consume(1, q, fmt.Sprint(i), true)
	}
	for i := range consumers * rounds {
		c.publish(1, publishArgs("", q, false, false), nil, fmt.Sprint(i))
	}
	got := map[string]int{}
	for i := range consumers * rounds {
		d := c.deliver(1)
		if string(d.body) != fmt.Sprint(i) {
			t.Fatalf("delivery %d is %q: consumers of one channel see the queue's order", i, d.body)
		}
		got[d.consumer]++
	}
	for i := range consumers {
		if n := got[fmt.Sprint(i)]; n != rounds {
			t.Fatalf("shares %v, want %d each", got, rounds)
		}
	}
}

func TestSlowConsumerDoesNotStopTheOthers(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q := privateQueue(t, ch, nil)
	prefetch(t, ch, 1, false)
	slow, fast := consume(t, ch, q, "slow", nil), consume(t, ch, q, "fast", nil)
	for i := range 20 {
		publish(t, ch, "", q, fmt.Sprint(i))
	}
	stuck := receive(t, slow)
	seen := []string{string(stuck.Body)}
	for range 19 {
		d := receive(t, fast)
		seen = append(seen, string(d.Body))
		ack(t, d, false)
	}
	slices.Sort(seen)
	if seen = slices.Compact(seen); len(seen) != 20 {
		t.Fatalf("%d different messages of 20: %q", len(seen), seen)
	}
}

func TestHigherPriorityConsumersAreServedFirst(t *testing.T) {
	t.Parallel()
	c := wireDial(t)
	q := c.declare(1)
	c.send(1, basicQos, args{}.long(0).short(2).bits(false))
	c.expect(1, basicQosOk)
	for tag, priority := range map[string]uint32{"low": 0xffffffff, "high": 10} { // -1 and 10
		c.send(1, basicConsume, args{}.short(0).shortstr(q).shortstr(tag).bits(false, false, false, false).
			table(args{}.name("x-priority").octet('I').long(priority)))
		c.expect(1, basicConsumeOk)
	}
	c.consume(1, q, "normal", false)
	var order []string
	var tags []uint64
	next := func(n int) {
		t.Helper()
		for range n {
			c.publish(1, publishArgs("", q, false, false), nil, "m")
			d := c.deliver(1)
			order = append(order, d.consumer)
			tags = append(tags, d.tag)
		}
	}
	next(6)
	if want := []string{"high", "high", "normal", "normal", "low", "low"}; !slices.Equal(order, want) {
		t.Fatalf("delivered to %q, want %q", order, want)
	}
	// Credit that comes back is used from the top as well.
	for _, tag := range tags {
		c.send(1, basicAck, args{}.longlong(tag).bits(false))
	}
	c.wantReady(1, q, 0)
	order = nil
	next(3)
	if want := []string{"high", "high", "normal"}; !slices.Equal(order, want) {
		t.Fatalf("after the acks delivered to %q, want %q", order, want)
	}
}

func TestExclusiveConsumer(t *testing.T) {
	t.Parallel()
	conn := dial(t)
	owner, other := channel(t, conn), channel(t, conn)
	q := sharedQueue(t, owner, nil)
	_, err := owner.Consume(q, "owner", false, true, false, false, nil)
	must(t, err)
	// basic.get is still allowed; the message is with the consumer, so there is nothing to get.
	if _, ok, err := other.Get(q, true); ok || err != nil {
		t.Fatalf("get beside an exclusive consumer: %t, %v", ok, err)
	}
	must(t, owner.Cancel("owner", false))
	consume(t, other, q, "", nil)
}

func TestCancel(t *testing.T) {
	t.Parallel()
	c := wireDial(t)
	q := c.declare(1)
	c.consume(1, q, "tag", false)
	c.publish(1, publishArgs("", q, false, false), nil, "before")
	held := c.deliver(1)

	c.send(1, basicCancel, args{}.shortstr("tag").bits(false))
	if got := c.expect(1, basicCancelOk).shortstr(); got != "tag" {
		t.Fatalf("cancel-ok for %q", got)
	}
	c.send(1, basicCancel, args{}.shortstr("unknown").bits(false))
	if got := c.expect(1, basicCancelOk).shortstr(); got != "unknown" {
		t.Fatalf("cancel-ok for %q", got)
	}
	c.send(1, basicCancel, args{}.shortstr("unknown").bits(true)) // nowait
	c.publish(1, publishArgs("", q, false, false), nil, "after")
	c.wantReady(1, q, 1) // nothing is delivered, nothing came back

	// What was delivered is still this channel's to settle.
	c.send(1, basicNack, args{}.longlong(held.tag).bits(false, true))
	c.wantReady(1, q, 2)
	c.consume(1, q, "again", true)
	for _, want := range []string{"before", "after"} {
		if d := c.deliver(1); string(d.body) != want || d.redelivered != (want == "before") {
			t.Fatalf("delivered %q redelivered=%t, want %q", d.body, d.redelivered, want)
		}
	}
}

func TestCancelNotification(t *testing.T) {
	t.Parallel()
	t.Run("queue deleted", func(t *testing.T) {
		t.Parallel()
		ch, other := open(t), open(t)
		q := sharedQueue(t, ch, nil)
		cancels := ch.NotifyCancel(make(chan string, 1))
		deliveries := consume(t, ch, q, "tag", nil)
		_, err := other.QueueDelete(q, false, false, false)
		must(t, err)
		if tag := await(t, "basic.cancel", cancels); tag != "tag" {
			t.Fatalf("cancelled %q", tag)
		}
		for d := range deliveries {
			t.Fatalf("delivered %q", d.Body)
		}
		consume(t, ch, privateQueue(t, ch, nil), "tag", nil) // the tag is free, the channel lives
	})
	t.Run("on the deleting channel", func(t *testing.T) {
		t.Parallel()
		c := wireDial(t)
		q := c.declare(1)
		c.consume(1, q, "tag", false)
		c.send(1, queueDelete, args{}.short(0).shortstr(q).bits(false, false, false))
		var cancelled, deleted bool
		for range 2 { // in either order
			switch f := c.next(); f.method() {
			case basicCancel:
				r := &reader{t, f.payload[4:]}
				cancelled = r.shortstr() == "tag" && r.octet() == 1 // nowait
			case queueDeleteOk:
				deleted = true
			default:
				t.Fatalf("got %s", describe(f))
			}
		}
		if !cancelled || !deleted {
			t.Fatalf("cancelled %t, deleted %t", cancelled, deleted)
		}
		if !differs(t, "cancel-ok") {
			c.send(1, basicCancelOk, args{}.shortstr("tag"))
		}
		c.declare(1)
	})
	t.Run("not to clients without the capability", func(t *testing.T) {
		t.Parallel()
		c := wireTCP(t)
		c.handshake(wireOptions{})
		c.openChannel(1)
		q := c.declare(1)
		c.consume(1, q, "tag", false)
		c.send(1, queueDelete, args{}.short(0).shortstr(q).bits(false, false, false))
		c.expect(1, queueDeleteOk)
		c.declare(1)
		c.declare(1)
	})
}

func TestConsumersMayChooseTheSameTagOnOtherQueues(t *testing.T) {
	t.Parallel()
	conn := dial(t)
	a, b := channel(t, conn), channel(t, conn)
	qa, qb := privateQueue(t, a, nil), privateQueue(t, b, nil)
	da, db := consume(t, a, qa, "tag", nil), consume(t, b, qb, "tag", nil)
	publish(t, a, "", qb, "b")
	publish(t, a, "", qa, "a")
	wantDelivery(t, da, "a", false)
	wantDelivery(t, db, "b", false)
}
