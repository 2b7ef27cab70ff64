package integration

import (
	"fmt"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

func TestAckRefusals(t *testing.T) {
	t.Parallel()
	const unknown = "PRECONDITION_FAILED - unknown delivery tag %d"
	settle := func(f func(t *testing.T, s *scene)) func(*testing.T, *scene) {
		return func(t *testing.T, s *scene) {
			s.declare(t, nil)
			publish(t, s.ch, "", s.q, "1", "2")
			f(t, s)
		}
	}
	refuse(t, []refusal{
		{
			name: "ack, never delivered", do: settle(func(t *testing.T, s *scene) { must(t, s.ch.Ack(1, false)) }),
			code: 406, text: fmt.Sprintf(unknown, 1),
		},
		{name: "ack twice", do: settle(func(t *testing.T, s *scene) {
			d := get(t, s.ch, s.q, false)
			ack(t, d, false)
			ack(t, d, false)
		}), code: 406, text: fmt.Sprintf(unknown, 1)},
		{name: "ack after nack", do: settle(func(t *testing.T, s *scene) {
			d := get(t, s.ch, s.q, false)
			nack(t, d, false, true)
			ack(t, d, false)
		}), code: 406, text: fmt.Sprintf(unknown, 1)},
		{name: "ack of a delivery without acknowledgement", do: settle(func(t *testing.T, s *scene) {
			d := get(t, s.ch, s.q, true)
			must(t, s.ch.Ack(d.DeliveryTag, false))
		}), code: 406, text: fmt.Sprintf(unknown, 1)},
		{name: "ack 0, not multiple", do: settle(func(t *testing.T, s *scene) {
			get(t, s.ch, s.q, false)
			must(t, s.ch.Ack(0, false))
		}), code: 406, text: fmt.Sprintf(unknown, 0)},
		{name: "ack on another channel", do: settle(func(t *testing.T, s *scene) {
			d := get(t, channel(t, s.conn), s.q, false)
			must(t, s.ch.Ack(d.DeliveryTag, false))
		}), code: 406, text: fmt.Sprintf(unknown, 1)},
		{name: "ack multiple over the last tag", do: settle(func(t *testing.T, s *scene) {
			get(t, s.ch, s.q, false)
			must(t, s.ch.Ack(2, true))
		}), code: 406, text: fmt.Sprintf(unknown, 2)},
		{name: "ack multiple of a settled tag", do: settle(func(t *testing.T, s *scene) {
			get(t, s.ch, s.q, false)
			ack(t, get(t, s.ch, s.q, false), true)
			must(t, s.ch.Ack(1, true))
		}), code: 406, text: fmt.Sprintf(unknown, 1)},
		{
			name: "nack unknown", do: settle(func(t *testing.T, s *scene) { must(t, s.ch.Nack(7, false, true)) }),
			code: 406, text: fmt.Sprintf(unknown, 7),
		},
		{
			name: "reject unknown", do: settle(func(t *testing.T, s *scene) { must(t, s.ch.Reject(1<<40, false)) }),
			code: 406, text: fmt.Sprintf(unknown, 1<<40),
		},
		{
			name: "recover without requeue", do: settle(func(_ *testing.T, s *scene) { _ = s.ch.Recover(false) }),
			code: 540, text: "NOT_IMPLEMENTED - requeue=false",
		},
	})
}

func TestAckMultiple(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q := privateQueue(t, ch, nil)
	must(t, ch.Ack(0, true)) // everything outstanding, which is nothing
	must(t, ch.Nack(0, true, true))
	publish(t, ch, "", q, "1", "2", "3", "4", "5")
	var d []amqp.Delivery
	for range 5 {
		d = append(d, get(t, ch, q, false))
	}
	ack(t, d[1], false)
	ack(t, d[2], true) // 1 and 3
	must(t, ch.Ack(0, true))
	must(t, ch.Recover(true))
	wantBodies(t, ch, q)
}

func TestNackMultipleRequeuesInOrder(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q := privateQueue(t, ch, nil)
	publish(t, ch, "", q, "1", "2", "3", "4", "5", "6")
	var d []amqp.Delivery
	for range 5 {
		d = append(d, get(t, ch, q, false))
	}
	nack(t, d[2], true, true) // 1 2 3
	wantReady(t, ch, q, 4)
	must(t, ch.Nack(0, true, false)) // 4 5 are gone
	wantBodies(t, ch, q, "1", "2", "3", "6")
}

func TestRequeueKeepsOriginalPosition(t *testing.T) {
	t.Parallel()
	for name, requeue := range map[string]func(d amqp.Delivery) error{
		"reject": func(d amqp.Delivery) error { return d.Reject(true) },
		"nack":   func(d amqp.Delivery) error { return d.Nack(false, true) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ch := open(t)
			q := privateQueue(t, ch, nil)
			publish(t, ch, "", q, "1", "2", "3", "4", "5")
			var d []amqp.Delivery
			for range 4 {
				d = append(d, get(t, ch, q, false))
			}
			// In any order they go back to where they were.
			for _, i := range []int{2, 0, 3} {
				must(t, requeue(d[i]))
			}
			for _, want := range []struct {
				body        string
				redelivered bool
			}{{"1", true}, {"3", true}, {"4", true}, {"5", false}} {
				got := get(t, ch, q, true)
				if string(got.Body) != want.body || got.Redelivered != want.redelivered {
					t.Fatalf("got %q redelivered=%t, want %v", got.Body, got.Redelivered, want)
				}
			}
			must(t, requeue(d[1]))
			wantBodies(t, ch, q, "2")
		})
	}
}

func TestRejectWithoutRequeueDrops(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q := privateQueue(t, ch, nil)
	publish(t, ch, "", q, "1", "2", "3")
	must(t, get(t, ch, q, false).Reject(false))
	nack(t, get(t, ch, q, false), false, false)
	must(t, ch.Recover(true))
	wantBodies(t, ch, q, "3")
}

func TestRequeuedMessageGoesToAReadyConsumer(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q := privateQueue(t, ch, nil)
	prefetch(t, ch, 1, false)
	first := consume(t, ch, q, "first", nil)
	publish(t, ch, "", q, "m")
	d := wantDelivery(t, first, "m", false)
	second := consume(t, ch, q, "second", nil)
	must(t, ch.Cancel("first", false))
	nack(t, d, false, true)
	wantDelivery(t, second, "m", true)
}

func TestUnacknowledgedMessagesComeBack(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		end  func(t *testing.T, conn *amqp.Connection, ch *amqp.Channel)
	}{
		{"channel closed", func(t *testing.T, _ *amqp.Connection, ch *amqp.Channel) { must(t, ch.Close()) }},
		{"connection closed", func(t *testing.T, conn *amqp.Connection, _ *amqp.Channel) { must(t, conn.Close()) }},
		{"channel exception", func(t *testing.T, _ *amqp.Connection, ch *amqp.Channel) {
			if err := ch.ExchangeDeclarePassive(uniqueName("absent"), "direct", false, false, false, false, nil); err == nil {
				t.Fatal("no exception")
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			conn, watcher := dial(t), open(t)
			ch := channel(t, conn)
			q := sharedQueue(t, watcher, nil)
			publish(t, watcher, "", q, "1", "2", "3", "4", "5")
			wantReady(t, watcher, q, 5)
			prefetch(t, ch, 2, false)
			deliveries := consume(t, ch, q, "", nil)
			ack(t, wantDelivery(t, deliveries, "1", false), false)
			wantDelivery(t, deliveries, "2", false)
			wantDelivery(t, deliveries, "3", false)
			if d := get(t, ch, q, false); string(d.Body) != "4" {
				t.Fatalf("got %q", d.Body)
			}
			c.end(t, conn, ch)
			wantReady(t, watcher, q, 4)
			for _, want := range []string{"2", "3", "4", "5"} {
				d := get(t, watcher, q, true)
				if string(d.Body) != want || d.Redelivered != (want != "5") {
					t.Fatalf("got %q redelivered=%t, want %q", d.Body, d.Redelivered, want)
				}
			}
		})
	}
}

func TestRecover(t *testing.T) {
	t.Parallel()
	c := wireDial(t)
	q := c.declare(1)
	for _, body := range []string{"1", "2", "3"} {
		c.publish(1, publishArgs("", q, false, false), nil, body)
	}
	c.send(1, basicGet, args{}.short(0).shortstr(q).bits(false)) // gets are recovered as well
	c.expect(1, basicGetOk)
	c.content(1)
	c.consume(1, q, "tag", false)
	for _, want := range []string{"2", "3"} {
		if d := c.deliver(1); string(d.body) != want || d.redelivered {
			t.Fatalf("delivered %q redelivered=%t", d.body, d.redelivered)
		}
	}
	redelivered := func(tag uint64, bodies ...string) {
		t.Helper()
		for i, want := range bodies {
			d := c.deliver(1)
			if string(d.body) != want || !d.redelivered || d.tag != tag+uint64(i) {
				t.Fatalf("recovered %q redelivered=%t tag %d, want %q tag %d", d.body, d.redelivered, d.tag, want, tag+uint64(i))
			}
		}
	}
	c.send(1, basicRecover, args{}.bits(true))
	recovered := false
	var got []string
	for len(got) < 3 || !recovered { // recover-ok may stand anywhere among the deliveries
		switch f := c.next(); f.method() {
		case basicRecoverOk:
			recovered = true
		case basicDeliver:
			r := &reader{t, f.payload[4:]}
			r.shortstr()
			if tag := r.longlong(); tag != uint64(len(got)+4) {
				t.Fatalf("delivery tag %d, want %d", tag, len(got)+4)
			}
			if r.octet() != 1 {
				t.Fatal("recovered message is not marked redelivered")
			}
			got = append(got, string(c.content(1).body))
		default:
			t.Fatalf("got %s", describe(f))
		}
	}
	if fmt.Sprint(got) != "[1 2 3]" {
		t.Fatalf("recovered %q", got)
	}
	c.send(1, basicAck, args{}.longlong(4).bits(false))
	c.send(1, basicRecoverAsync, args{}.bits(true)) // no reply
	redelivered(7, "2", "3")
	c.send(1, basicAck, args{}.longlong(0).bits(true))
	c.quiet(1, q)
}

func TestRedeliveredStaysSet(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q := privateQueue(t, ch, nil)
	publish(t, ch, "", q, "m")
	for i := range 5 {
		d := get(t, ch, q, false)
		if d.Redelivered != (i > 0) {
			t.Fatalf("delivery %d has redelivered=%t", i, d.Redelivered)
		}
		nack(t, d, false, true)
	}
}
