package integration

import (
	"fmt"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

func TestQosRefusals(t *testing.T) {
	t.Parallel()
	refuse(t, []refusal{
		{
			name: "prefetch size", do: func(_ *testing.T, s *scene) { _ = s.ch.Qos(1, 1024, false) },
			code: 540, text: "NOT_IMPLEMENTED - prefetch_size!=0 (1024)",
		},
		{
			name: "prefetch size, global", do: func(_ *testing.T, s *scene) { _ = s.ch.Qos(0, 1, true) },
			code: 540, text: "NOT_IMPLEMENTED - prefetch_size!=0 (1)",
		},
	})
}

// backlog declares a queue with n messages "0", "1", …
func backlog(t *testing.T, ch *amqp.Channel, n int) string {
	t.Helper()
	q := privateQueue(t, ch, nil)
	for i := range n {
		publish(t, ch, "", q, fmt.Sprint(i))
	}
	wantReady(t, ch, q, n)
	return q
}

func TestPrefetchLimitsEachConsumer(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q := backlog(t, ch, 20)
	prefetch(t, ch, 3, false)
	first := consume(t, ch, q, "first", nil)
	var held []amqp.Delivery
	for i := range 3 {
		held = append(held, wantDelivery(t, first, fmt.Sprint(i), false))
	}
	wantReady(t, ch, q, 17)

	// A later qos is for later consumers.
	prefetch(t, ch, 5, false)
	second := consume(t, ch, q, "second", nil)
	for i := range 5 {
		wantDelivery(t, second, fmt.Sprint(3+i), false)
	}
	wantReady(t, ch, q, 12)

	// Every acknowledgement makes room for one, on its own consumer.
	ack(t, held[1], false)
	held = append(held, wantDelivery(t, first, "8", false))
	wantReady(t, ch, q, 11)
	ack(t, held[2], true) // 0 and 2, of the first consumer
	wantDelivery(t, first, "9", false)
	wantDelivery(t, first, "10", false)
	wantReady(t, ch, q, 9)

	// A rejected one makes room as well; it is the first of the queue again.
	nack(t, held[3], false, true)
	wantDelivery(t, first, "8", true)
	wantReady(t, ch, q, 9)
}

func TestPrefetchZeroIsUnlimited(t *testing.T) {
	t.Parallel()
	const n = 3000
	ch := open(t)
	q := backlog(t, ch, n)
	prefetch(t, ch, 1, false)
	prefetch(t, ch, 0, false)
	deliveries := consume(t, ch, q, "", nil)
	for i := range n {
		wantDelivery(t, deliveries, fmt.Sprint(i), false)
	}
	wantReady(t, ch, q, 0)
}

func TestPrefetchDoesNotLimitConsumersWithoutAcks(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q := backlog(t, ch, 50)
	prefetch(t, ch, 1, false)
	deliveries, err := ch.Consume(q, "", true, false, false, false, nil)
	must(t, err)
	for i := range 50 {
		wantDelivery(t, deliveries, fmt.Sprint(i), false)
	}
}

func TestPrefetchDoesNotLimitGet(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q := backlog(t, ch, 5)
	prefetch(t, ch, 1, false)
	for range 3 {
		get(t, ch, q, false)
	}
	// What was fetched does not use up the consumer's credit.
	wantDelivery(t, consume(t, ch, q, "", nil), "3", false)
	wantReady(t, ch, q, 1)
}

func TestPrefetchIsOfTheChannel(t *testing.T) {
	t.Parallel()
	conn := dial(t)
	one, two := channel(t, conn), channel(t, conn)
	q := backlog(t, one, 10)
	prefetch(t, one, 1, false)
	consume(t, one, q, "", nil)
	wantReady(t, one, q, 9)
	consume(t, two, q, "", nil) // no limit was set here
	wantReady(t, one, q, 0)
}

func TestCancelledConsumerKeepsItsMessages(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q := backlog(t, ch, 5)
	prefetch(t, ch, 2, false)
	first := consume(t, ch, q, "first", nil)
	held := []amqp.Delivery{wantDelivery(t, first, "0", false), wantDelivery(t, first, "1", false)}
	must(t, ch.Cancel("first", false))
	second := consume(t, ch, q, "second", nil) // starts with its own credit
	wantDelivery(t, second, "2", false)
	wantDelivery(t, second, "3", false)
	wantReady(t, ch, q, 1)
	ack(t, held[0], false) // gives credit to nobody
	ack(t, held[1], false)
	wantReady(t, ch, q, 1)
}

func TestGlobalPrefetchIsShared(t *testing.T) {
	t.Parallel()
	needs(t, "global-qos")
	c := wireDial(t)
	q := c.declare(1)
	for i := range 20 {
		c.publish(1, publishArgs("", q, false, false), nil, fmt.Sprint(i))
	}
	c.wantReady(1, q, 20)
	qos := func(count uint16, global bool) {
		t.Helper()
		c.send(1, basicQos, args{}.long(0).short(count).bits(global))
		c.expect(1, basicQosOk)
	}
	held := map[string][]uint64{}
	take := func(n int) {
		t.Helper()
		for range n {
			d := c.deliver(1)
			held[d.consumer] = append(held[d.consumer], d.tag)
		}
	}
	settle := func(consumer string) {
		t.Helper()
		c.send(1, basicAck, args{}.longlong(held[consumer][0]).bits(false))
		held[consumer] = held[consumer][1:]
	}
	// Two for each consumer, three for the channel: both limits hold.
	qos(2, false)
	qos(3, true)
	c.consume(1, q, "a", false)
	take(2)
	c.consume(1, q, "b", false)
	take(1)
	c.wantReady(1, q, 17)
	if len(held["a"]) != 2 || len(held["b"]) != 1 {
		t.Fatalf("a and b hold %v", held)
	}
	settle("a")
	take(1) // to either of them
	c.wantReady(1, q, 16)
	settle("b")
	take(1)
	c.wantReady(1, q, 15)

	// Another channel is not limited by it.
	c.openChannel(2)
	c.consume(2, q, "other", false)
	for range 15 {
		c.deliver(2)
	}
	c.wantReady(1, q, 0)
}

func TestPrefetchPerConsumerLiftsTheGlobalOne(t *testing.T) {
	t.Parallel()
	needs(t, "global-qos")
	ch := open(t)
	q := backlog(t, ch, 20)
	prefetch(t, ch, 3, true)
	consume(t, ch, q, "a", nil)
	wantReady(t, ch, q, 17)
	prefetch(t, ch, 5, false)
	consume(t, ch, q, "b", nil)
	wantReady(t, ch, q, 0) // a is unlimited now
}

func TestGlobalPrefetchChangesWhileConsuming(t *testing.T) {
	t.Parallel()
	needs(t, "global-qos")
	ch := open(t)
	q := backlog(t, ch, 30)
	prefetch(t, ch, 2, true)
	deliveries := consume(t, ch, q, "tag", nil)
	next := 0
	take := func(n int) (last amqp.Delivery) {
		t.Helper()
		for range n {
			last = wantDelivery(t, deliveries, fmt.Sprint(next), false)
			next++
		}
		wantReady(t, ch, q, 30-next)
		return last
	}
	take(2)
	prefetch(t, ch, 5, true) // more: at once
	last := take(3)
	prefetch(t, ch, 1, true) // fewer: what is out stays out, nothing new comes
	wantReady(t, ch, q, 25)
	must(t, ch.Ack(last.DeliveryTag-1, true)) // one of five is left, that is the limit
	wantReady(t, ch, q, 25)
	ack(t, last, false)
	take(1)
	prefetch(t, ch, 0, true) // none: everything comes
	take(24)
}

func TestGlobalPrefetchIsPerConsumerWhereItIsNotSupported(t *testing.T) {
	t.Parallel()
	if !differs(t, "global-qos") {
		t.Skip("the broker has a real limit per channel")
	}
	ch := open(t)
	q := backlog(t, ch, 5)
	prefetch(t, ch, 1, true)
	wantDelivery(t, consume(t, ch, q, "a", nil), "0", false)
	wantDelivery(t, consume(t, ch, q, "b", nil), "1", false)
	wantReady(t, ch, q, 3)
}

// Messages that were fetched with basic.get do not use up the channel's prefetch.
func TestGlobalPrefetchDoesNotCountGets(t *testing.T) {
	t.Parallel()
	ch := open(t)
	needs(t, "global-qos")
	q := privateQueue(t, ch, nil)
	publish(t, ch, "", q, "got", "consumed")
	d := get(t, ch, q, false)
	must(t, ch.Qos(1, 0, true))
	in := consume(t, ch, q, "", nil)
	if differs(t, "gets-in-global-qos") {
		must(t, d.Ack(false))
		wantReady(t, ch, q, 1) // although nothing is outstanding
		return
	}
	wantDelivery(t, in, "consumed", false)
}

func TestGlobalQosAndConsumersWithoutAcks(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q, other := privateQueue(t, ch, nil), privateQueue(t, ch, nil)
	must(t, ch.Qos(1, 0, true))
	in := consume(t, ch, q, "", nil)
	publish(t, ch, "", q, "held")
	held := receive(t, in)
	free, err := ch.Consume(other, "", true, false, false, false, nil)
	must(t, err)
	publish(t, ch, "", other, "free")
	if differs(t, "no-ack-in-global-qos") {
		wantReady(t, ch, other, 1)
		must(t, held.Ack(false))
	}
	wantDelivery(t, free, "free", false)
}
