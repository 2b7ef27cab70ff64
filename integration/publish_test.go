package integration

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func TestPublishRefusals(t *testing.T) {
	t.Parallel()
	send := func(p amqp.Publishing) func(*testing.T, *scene) {
		return func(t *testing.T, s *scene) { publishMessage(t, s.ch, "", s.q, p) }
	}
	header := func(name string, value any) func(*testing.T, *scene) {
		return send(amqp.Publishing{Headers: amqp.Table{name: value}})
	}
	refuse(t, []refusal{
		{
			name: "no such exchange", do: func(t *testing.T, s *scene) { publish(t, s.ch, s.x, "k", "m") },
			code: 404, text: "NOT_FOUND - no exchange '{x}' in vhost '{vhost}'",
		},
		{name: "no such exchange, before other faults", do: func(t *testing.T, s *scene) {
			publishMessage(t, s.ch, s.x, "k", amqp.Publishing{Expiration: "bad", UserId: "nobody"})
		}, code: 404, text: "NOT_FOUND - no exchange '{x}' in vhost '{vhost}'"},
		{name: "immediate", do: func(t *testing.T, s *scene) {
			must(t, s.ch.Publish("", s.q, false, true, amqp.Publishing{Body: []byte("m")}))
		}, code: 540, text: "NOT_IMPLEMENTED - immediate=true"},
		{name: "immediate, before no such exchange", do: func(t *testing.T, s *scene) {
			must(t, s.ch.Publish(s.x, "k", true, true, amqp.Publishing{}))
		}, code: 540, text: "NOT_IMPLEMENTED - immediate=true"},
		{
			name: "one byte over 16 MiB", do: send(amqp.Publishing{Body: make([]byte, 16<<20+1)}),
			code: 406, text: "PRECONDITION_FAILED - message size 16777217 is larger than configured max size 16777216",
		},
		{
			name: "user-id of somebody else", do: send(amqp.Publishing{UserId: "nobody"}),
			code: 406, text: "PRECONDITION_FAILED - user_id property set to 'nobody' but authenticated user was '{user}'",
		},
		{
			name: "expiration is no number", do: send(amqp.Publishing{Expiration: "soon"}),
			code: 406, text: "PRECONDITION_FAILED - invalid expiration 'soon': no_integer",
		},
		{
			name: "expiration with a unit", do: send(amqp.Publishing{Expiration: "10s"}),
			code: 406, text: `PRECONDITION_FAILED - invalid expiration '10s': {leftover_string,"s"}`,
		},
		{
			name: "expiration is negative", do: send(amqp.Publishing{Expiration: "-1"}),
			code: 406, text: "PRECONDITION_FAILED - invalid expiration '-1': {value_negative,-1}",
		},
		{
			name: "expiration over ten years", do: send(amqp.Publishing{Expiration: "315360000001"}),
			code: 406, text: "PRECONDITION_FAILED - invalid expiration '315360000001': {value_too_large,315360000001}",
		},
		{
			name: "CC is a string", do: header("CC", "key"),
			code: 406, text: `PRECONDITION_FAILED - invalid message: {unacceptable_type_in_header,"CC",longstr}`,
		},
		{
			name: "CC that is no list to no exchange", do: func(t *testing.T, s *scene) {
				publishMessage(t, s.ch, s.x, "k", amqp.Publishing{Headers: amqp.Table{"CC": "other"}})
			},
			code: 404, text: "NOT_FOUND - no exchange '{x}' in vhost '{vhost}'",
		},
		{
			name: "BCC is a number", do: header("BCC", int32(1)),
			code: 406, text: `PRECONDITION_FAILED - invalid message: {unacceptable_type_in_header,"BCC",signedint}`,
		},
	})
}

func TestUserIDOfTheUserIsAccepted(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q := privateQueue(t, ch, nil)
	publishMessage(t, ch, "", q, amqp.Publishing{UserId: sut.uri.Username})
	if d := get(t, ch, q, true); d.UserId != sut.uri.Username {
		t.Fatalf("user-id %q", d.UserId)
	}
}

func TestBodiesOfEverySize(t *testing.T) {
	t.Parallel()
	conn := dial(t)
	ch := channel(t, conn)
	q := privateQueue(t, ch, nil)
	frame := conn.Config.FrameSize
	deliveries, err := ch.Consume(q, "", true, false, false, false, nil)
	must(t, err)
	for _, size := range []int{0, 1, 4088, 4089, frame - 9, frame - 8, frame - 7, 2 * (frame - 8), 1<<20 + 1, 16 << 20} {
		body := make([]byte, size)
		for i := range body {
			body[i] = byte(i * 31 >> 3)
		}
		publishMessage(t, ch, "", q, amqp.Publishing{Body: body})
		if d := receive(t, deliveries); !bytes.Equal(d.Body, body) {
			t.Fatalf("a body of %d bytes comes back as %d other bytes", size, len(d.Body))
		}
	}
}

func TestEmptyBodyHasNoBodyFrame(t *testing.T) {
	t.Parallel()
	c := wireDial(t)
	q := c.declare(1)
	c.publish(1, publishArgs("", q, false, false), nil, "")
	c.publish(1, publishArgs("", q, false, false), nil, "x")
	c.consume(1, q, "c", true)
	if d := c.deliver(1); len(d.body) != 0 || d.frames != 0 {
		t.Fatalf("%d bytes in %d frames", len(d.body), d.frames)
	}
	if d := c.deliver(1); string(d.body) != "x" {
		t.Fatalf("the next message is %q", d.body)
	}
}

func TestBodyFramesKeepToFrameMax(t *testing.T) {
	t.Parallel()
	const small = 8192
	c := wireTCP(t)
	c.handshake(wireOptions{frameMax: small})
	c.openChannel(1)
	q := c.declare(1)
	body := strings.Repeat("0123456789abcdef", 5000)
	big := open(t) // the publisher's frames are larger
	publish(t, big, "", q, body)
	c.consume(1, q, "c", true)
	d := c.deliver(1) // checks each frame
	if string(d.body) != body {
		t.Fatal("the body has changed")
	}
	if want := (len(body) + small - 9) / (small - 8); d.frames != want {
		t.Fatalf("%d body frames, want %d full ones", d.frames, want)
	}
}

func TestPropertiesComeBack(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q := privateQueue(t, ch, nil)
	sent := amqp.Publishing{
		ContentType: "text/plain", ContentEncoding: "utf-8", DeliveryMode: 2, Priority: 7,
		CorrelationId: "c-1", ReplyTo: "r", Expiration: "60000", MessageId: "m-1",
		Timestamp: time.Unix(1700000000, 0), Type: "t", UserId: sut.uri.Username, AppId: "app",
		Headers: amqp.Table{"k": "v"}, Body: []byte("body"),
	}
	publishMessage(t, ch, "", q, sent)
	d := get(t, ch, q, true)
	got := amqp.Publishing{
		ContentType: d.ContentType, ContentEncoding: d.ContentEncoding, DeliveryMode: d.DeliveryMode, Priority: d.Priority,
		CorrelationId: d.CorrelationId, ReplyTo: d.ReplyTo, Expiration: d.Expiration, MessageId: d.MessageId,
		Timestamp: d.Timestamp, Type: d.Type, UserId: d.UserId, AppId: d.AppId, Headers: d.Headers, Body: d.Body,
	}
	if a, b := fmt.Sprintf("%+v", sent), fmt.Sprintf("%+v", got); a != b {
		t.Fatalf("sent %s\ngot  %s", a, b)
	}
	if d.Exchange != "" || d.RoutingKey != q || d.Redelivered {
		t.Fatalf("exchange %q, key %q, redelivered %t", d.Exchange, d.RoutingKey, d.Redelivered)
	}
}

// headerTable joins fields to a table. Where the broker sorts headers, the result is sorted too.
func headerTable(t testing.TB, fields ...args) (sent, delivered args) {
	var table args
	for _, f := range fields {
		table = append(table, f...)
	}
	sent = args{}.table(table)
	if differs(t, "header-order") {
		table = nil
		slices.SortFunc(fields, func(a, b args) int { return strings.Compare(string(a[1:1+int(a[0])]), string(b[1:1+int(b[0])])) })
		for _, f := range fields {
			table = append(table, f...)
		}
	}
	return sent, args{}.table(table)
}

// everyType are header fields with a value of every type letter.
func everyType() []args {
	field := func(name string, letter byte) args { return args{}.name(name).octet(letter) }
	return []args{
		field("t", 't').octet(1),
		field("false", 't').octet(0),
		field("b", 'b').octet(0x80),
		field("B", 'B').octet(0xff),
		field("s", 's').short(0x8001),
		field("u", 'u').short(0xfffe),
		field("I", 'I').long(0x80000002),
		field("i", 'i').long(0xfffffffd),
		field("l", 'l').longlong(0x8000000000000003),
		field("f", 'f').long(0x3fc00000),
		field("d", 'd').longlong(0x400921fb54442d18),
		field("D", 'D').octet(2).long(12345),
		field("S", 'S').longstr("text \x00\xff with any bytes"),
		field("S empty", 'S').longstr(""),
		field("A", 'A').longstr("t\x01" + "I\x00\x00\x00\x07" + "S\x00\x00\x00\x01s" + "V" + "A\x00\x00\x00\x00"),
		field("T", 'T').longlong(1700000000),
		field("F", 'F').longstr(string(args{}.name("inner").octet('F').table(args{}.str("deep", "est")))),
		field("F empty", 'F').emptyTable(),
		field("V", 'V'),
		field("x", 'x').longstr("\x00\x01\xfe"),
		field("", 'S').longstr("a name may be empty"),
		field(strings.Repeat("n", 255), 't').octet(1),
	}
}

func TestHeadersComeBackByteForByte(t *testing.T) {
	t.Parallel()
	every, everyBack := headerTable(t, everyType()...)
	unsorted, unsortedBack := headerTable(t, args{}.str("z", "1"), args{}.str("a", "2"), args{}.str("m", "3"))
	all := func(headers args) args {
		return args{}.short(0xfffc).shortstr("text/plain").shortstr("gzip").raw(headers...).octet(1).octet(0).
			shortstr("correlation").shortstr("reply-to").shortstr("60000").shortstr("message-id").longlong(1).
			shortstr("type").shortstr(sut.uri.Username).shortstr("app-id").shortstr("cluster-id")
	}
	for name, p := range map[string]struct{ sent, delivered args }{
		"no properties":     {sent: args{}.short(0)},
		"every type":        {args{}.short(1 << 13).raw(every...), args{}.short(1 << 13).raw(everyBack...)},
		"unsorted":          {args{}.short(1 << 13).raw(unsorted...), args{}.short(1 << 13).raw(unsortedBack...)},
		"empty table":       {sent: args{}.short(1 << 13).emptyTable()},
		"every property":    {all(every), all(everyBack)},
		"empty strings":     {sent: args{}.short(1<<15 | 1<<10 | 1<<2).shortstr("").shortstr("").shortstr("")},
		"delivery mode 9":   {sent: args{}.short(1 << 12).octet(9)},
		"highest timestamp": {sent: args{}.short(1 << 6).longlong(1<<64 - 1)},
		"priority 255":      {sent: args{}.short(1 << 11).octet(255)},
		"not UTF-8":         {sent: args{}.short(1<<15 | 1<<7).shortstr("\xff\xfe").shortstr("\x00")},
	} {
		if p.delivered == nil {
			p.delivered = p.sent
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := wireDial(t)
			q := c.declare(1)
			c.publish(1, publishArgs("", q, false, false), p.sent, "delivered")
			c.publish(1, publishArgs("", q, false, false), p.sent, "fetched")
			// Wait before consuming, so that the message has been in the queue.
			c.wantReady(1, q, 2)
			c.send(1, basicGet, args{}.short(0).shortstr(q).bits(true))
			c.expect(1, basicGetOk)
			check := func(how string, m content) {
				if !bytes.Equal(m.properties, p.delivered) {
					t.Errorf("%s with\n%swant\n%s", how, hex.Dump(m.properties), hex.Dump(p.delivered))
				}
			}
			check("fetched", c.content(1))
			c.consume(1, q, "c", false)
			d := c.deliver(1)
			check("delivered", d.content)
			c.send(1, basicNack, args{}.longlong(d.tag).bits(false, true))
			check("delivered again", c.deliver(1).content)
		})
	}
}

func TestExchangeAndKeyComeBackByteForByte(t *testing.T) {
	t.Parallel()
	c := wireDial(t)
	q := c.declare(1)
	c.send(1, queueBind, args{}.short(0).shortstr(q).shortstr("amq.topic").shortstr(q+".#").octet(0).emptyTable())
	c.expect(1, queueBindOk)
	c.consume(1, q, "tag", true)
	for _, key := range []string{q, q + ".", q + ".ä", q + ".\xff\xfe not utf-8", q + "." + strings.Repeat("k", 254-len(q))} {
		c.publish(1, publishArgs("amq.topic", key, false, false), nil, "m")
		if d := c.deliver(1); d.key != key || d.exchange != "amq.topic" || d.consumer != "tag" {
			t.Errorf("published with %q, delivered with %q by %q to %q", key, d.key, d.exchange, d.consumer)
		}
	}
}

func TestUnroutableMandatoryIsReturned(t *testing.T) {
	t.Parallel()
	ch := open(t)
	x := newExchange(t, ch, "direct", nil)
	q := privateQueue(t, ch, nil)
	bind(t, ch, q, "bound", x, nil)
	returns := ch.NotifyReturn(make(chan amqp.Return, 10))
	must(t, ch.Publish(x, "bound", true, false, amqp.Publishing{Body: []byte("routed")}))
	must(t, ch.Publish(x, "lost", false, false, amqp.Publishing{Body: []byte("dropped")}))
	must(t, ch.Publish(x, "lost", true, false, amqp.Publishing{
		Body: []byte("returned"), MessageId: "id", DeliveryMode: 2, Headers: amqp.Table{"h": "v", "BCC": []any{"nobody"}},
	}))
	r := await(t, "basic.return", returns)
	if r.ReplyCode != 312 || r.ReplyText != "NO_ROUTE" || r.Exchange != x || r.RoutingKey != "lost" {
		t.Fatalf("returned with %d %q, exchange %q, key %q", r.ReplyCode, r.ReplyText, r.Exchange, r.RoutingKey)
	}
	if string(r.Body) != "returned" || r.MessageId != "id" || r.DeliveryMode != 2 || r.Headers["h"] != "v" {
		t.Fatalf("returned content %q %+v", r.Body, r)
	}
	if _, ok := r.Headers["BCC"]; ok {
		t.Error("BCC is shown in the return")
	}
	wantBodies(t, ch, q, "routed")
	select {
	case r := <-returns:
		t.Fatalf("%q is returned too", r.Body)
	default:
	}
}

func TestMandatoryLooksAtTheFinalSet(t *testing.T) {
	t.Parallel()
	ch := open(t)
	returns := ch.NotifyReturn(make(chan amqp.Return, 10))
	fallback := newExchange(t, ch, "fanout", nil)
	x := newExchange(t, ch, "direct", amqp.Table{"alternate-exchange": fallback})
	must(t, ch.Publish(x, "k", true, false, amqp.Publishing{Body: []byte("1")}))
	if r := await(t, "basic.return", returns); string(r.Body) != "1" || r.Exchange != x {
		t.Fatalf("returned %q by %q", r.Body, r.Exchange)
	}
	q := privateQueue(t, ch, nil)
	bind(t, ch, q, "", fallback, nil)
	must(t, ch.Publish(x, "k", true, false, amqp.Publishing{Body: []byte("2")}))
	wantBodies(t, ch, q, "2")
	// A queue named by CC counts as a destination.
	must(t, ch.Publish("", "nowhere", true, false, amqp.Publishing{Body: []byte("3"), Headers: amqp.Table{"CC": []any{q}}}))
	wantBodies(t, ch, q, "3")
	select {
	case r := <-returns:
		t.Fatalf("%q is returned", r.Body)
	default:
	}
}

func TestPublishesKeepTheirOrder(t *testing.T) {
	t.Parallel()
	const n = 2000
	ch := open(t)
	x := newExchange(t, ch, "topic", nil)
	a, b := privateQueue(t, ch, nil), privateQueue(t, ch, nil)
	bind(t, ch, a, "#", x, nil)
	bind(t, ch, b, "k", x, nil)
	for i := range n {
		p := amqp.Publishing{Body: fmt.Append(nil, i), DeliveryMode: uint8(1 + i%2)}
		publishMessage(t, ch, x, "k", p)
	}
	for _, q := range []string{a, b} {
		deliveries, err := ch.Consume(q, q, true, false, false, false, nil)
		must(t, err)
		for i := range n {
			wantDelivery(t, deliveries, fmt.Sprint(i), false)
		}
		must(t, ch.Cancel(q, false))
	}
}

func TestInterleavedContentOfTwoChannels(t *testing.T) {
	t.Parallel()
	c := wireDial(t)
	c.openChannel(2)
	q := c.declare(1)
	first := c.appendContent(appendMethod(nil, 1, basicPublish, publishArgs("", q, false, false)), 1, nil, []byte("first"))
	second := c.appendContent(appendMethod(nil, 2, basicPublish, publishArgs("", q, false, false)), 2, nil, []byte("second"))
	// Frame by frame, alternating: method, method, header, header, body, body.
	var mixed []byte
	for len(first) > 0 || len(second) > 0 {
		for _, s := range []*[]byte{&first, &second} {
			if len(*s) == 0 {
				continue
			}
			size := 8 + int((*s)[3])<<24 + int((*s)[4])<<16 + int((*s)[5])<<8 + int((*s)[6])
			mixed = append(mixed, (*s)[:size]...)
			*s = (*s)[size:]
		}
	}
	c.write(mixed)
	c.wantReady(1, q, 2)
	c.consume(1, q, "c", true)
	got := map[string]bool{string(c.deliver(1).body): true, string(c.deliver(1).body): true}
	if !got["first"] || !got["second"] {
		t.Fatalf("delivered %v", got)
	}
}
