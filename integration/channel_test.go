package integration

import (
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

func TestChannelRefusals(t *testing.T) {
	t.Parallel()
	refuse(t, []refusal{
		{
			name: "flow off", do: func(_ *testing.T, s *scene) { _ = s.ch.Flow(false) },
			code: 540, text: "NOT_IMPLEMENTED - active=false",
		},
	})
}

func TestChannelFlowOnIsEchoed(t *testing.T) {
	t.Parallel()
	c := wireDial(t)
	c.send(1, channelFlow, args{}.bits(true))
	if r := c.expect(1, channelFlowOk); r.octet() != 1 {
		t.Fatal("flow-ok(active=false)")
	}
}

func TestAccessRequestIsAnswered(t *testing.T) {
	t.Parallel()
	c := wireDial(t)
	c.send(1, accessRequest, args{}.shortstr("/data").bits(false, true, true, true, true))
	if ticket := c.expect(1, accessRequestOk).short(); ticket != 1 {
		t.Fatalf("ticket %d, want 1", ticket)
	}
}

func TestChannelNumberIsReusable(t *testing.T) {
	t.Parallel()
	c := wireDial(t)
	for range 50 {
		c.openChannel(7)
		c.consume(7, c.declare(7), "tag", false)
		c.send(7, channelClose, args{}.short(200).shortstr("bye").short(0).short(0))
		c.expect(7, channelCloseOk)
	}
	// After an exception too, once the client has confirmed it.
	for range 20 {
		c.openChannel(7)
		c.send(7, queuePurge, args{}.short(0).shortstr("absent").bits(false))
		c.wantClose(7, 404, "NOT_FOUND - no queue 'absent' in vhost '"+sut.uri.Vhost+"'")
	}
}

func TestClosingChannelIgnoresEverythingUntilCloseOk(t *testing.T) {
	t.Parallel()
	c := wireDial(t)
	c.openChannel(2)
	q := c.declare(2)
	c.send(1, queuePurge, args{}.short(0).shortstr("absent").bits(false))
	r := c.expect(1, channelClose)
	if code := r.short(); code != 404 {
		t.Fatalf("closed with %d", code)
	}
	if text, class, method := r.shortstr(), r.short(), r.short(); class != 50 || method != 30 {
		t.Fatalf("%s by %d.%d, want the method that failed", text, class, method)
	}
	c.publish(1, publishArgs("", q, true, false), nil, "ignored")
	c.send(1, queueDeclare, args{}.short(0).shortstr("amq.refused").bits(false, false, false, false, false).emptyTable())
	c.quiet(2, q)
	if n, _ := c.inspect(2, q); n != 0 {
		t.Fatal("a publish on a closed channel has reached the queue")
	}
	// Closes may cross: the client's close is answered.
	c.send(1, channelClose, args{}.short(200).shortstr("").short(0).short(0))
	c.expect(1, channelCloseOk)
	c.send(1, channelCloseOk, nil)
	c.openChannel(1)
}

func TestRepliesKeepTheOrderOfRequests(t *testing.T) {
	t.Parallel()
	c := wireDial(t)
	x, q := nameFor(t, "x"), nameFor(t, "q")
	removeExchange(t, x)
	var burst []byte
	declareExchange := args{}.short(0).shortstr(x).shortstr("fanout").bits(false, false, false, false, false).emptyTable()
	declareQueue := args{}.short(0).shortstr(q).bits(false, false, true, false, false).emptyTable()
	burst = appendMethod(burst, 1, exchangeDeclare, declareExchange)
	burst = appendMethod(burst, 1, queueDeclare, declareQueue)
	burst = appendMethod(burst, 1, queueBind, args{}.short(0).shortstr("").shortstr(x).shortstr("k").bits(false).emptyTable())
	burst = appendMethod(burst, 1, basicPublish, publishArgs(x, "", false, false))
	burst = c.appendContent(burst, 1, nil, []byte("pipelined"))
	burst = appendMethod(burst, 1, basicGet, args{}.short(0).shortstr("").bits(true))
	burst = appendMethod(burst, 1, queueDelete, args{}.short(0).shortstr("").bits(false, false, false))
	c.write(burst)
	c.expect(1, id(40, 11))
	c.expect(1, queueDeclareOk)
	c.expect(1, queueBindOk)
	c.expect(1, basicGetOk)
	if m := c.content(1); string(m.body) != "pipelined" {
		t.Fatalf("got %q", m.body)
	}
	c.expect(1, queueDeleteOk)
}

func TestChannelExceptionLeavesOtherChannelsAlone(t *testing.T) {
	t.Parallel()
	conn := dial(t)
	good, bad := channel(t, conn), channel(t, conn)
	q := privateQueue(t, good, nil)
	deliveries := consume(t, good, q, "", nil)
	publish(t, good, "", q, "1")
	d := wantDelivery(t, deliveries, "1", false)
	closed := bad.NotifyClose(make(chan *amqp.Error, 1))
	must(t, bad.Ack(99, false))
	if e := await(t, "exception", closed); e.Code != 406 {
		t.Fatal(e)
	}
	ack(t, d, false)
	publish(t, good, "", q, "2")
	wantDelivery(t, deliveries, "2", false)
}

func TestChannelCloseReleasesConsumers(t *testing.T) {
	t.Parallel()
	conn := dial(t)
	ch, watcher := channel(t, conn), channel(t, conn)
	q := privateQueue(t, watcher, nil)
	for range 10 {
		consume(t, ch, q, "", nil)
	}
	if got := inspect(t, watcher, q).Consumers; got != 10 {
		t.Fatalf("%d consumers", got)
	}
	must(t, ch.Close())
	if got := inspect(t, watcher, q).Consumers; got != 0 {
		t.Fatalf("%d consumers after close-ok", got)
	}
}
