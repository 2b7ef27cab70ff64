package integration

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

const lockedText = "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{q}' in vhost '{vhost}'. It could be originally declared on another connection or the exclusive property value does not match that of the original declaration."

func TestQueueRefusals(t *testing.T) {
	t.Parallel()
	redeclare := func(durable, autoDelete bool, args, again amqp.Table) func(*testing.T, *scene) {
		return func(t *testing.T, s *scene) {
			s.declare(t, args)
			_, _ = s.ch.QueueDeclare(s.q, durable, autoDelete, false, false, again)
		}
	}
	const inequivalent = "PRECONDITION_FAILED - inequivalent arg '%s' for queue '{q}' in vhost '{vhost}': %s"
	refuse(t, []refusal{
		{name: "passive, absent", do: func(_ *testing.T, s *scene) {
			_, _ = s.ch.QueueDeclarePassive(s.q, true, false, false, false, nil)
		}, code: 404, text: "NOT_FOUND - no queue '{q}' in vhost '{vhost}'"},
		{name: "reserved prefix", do: func(_ *testing.T, s *scene) {
			_, _ = s.ch.QueueDeclare("amq.mine", true, false, false, false, nil)
		}, code: 403, text: "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'"},
		{name: "server-named queue cannot be redeclared", do: func(t *testing.T, s *scene) {
			q, err := s.ch.QueueDeclare("", false, false, true, false, nil)
			must(t, err)
			s.q = q.Name
			_, _ = s.ch.QueueDeclare(q.Name, false, false, true, false, nil)
		}, code: 403, text: "ACCESS_REFUSED - queue name '{q}' contains reserved prefix 'amq.*'"},
		{
			name: "other durability", do: redeclare(false, true, nil, nil),
			code: 406, text: fmt.Sprintf(inequivalent, "durable", "received 'false' but current is 'true'"),
		},
		{
			name: "other auto-delete", do: redeclare(true, true, nil, amqp.Table{"x-expires": int32(1000)}),
			code: 406, text: fmt.Sprintf(inequivalent, "auto_delete", "received 'true' but current is 'false'"),
		},
		{name: "exclusive requested for a shared queue", do: func(t *testing.T, s *scene) {
			s.declare(t, nil)
			_, _ = s.ch.QueueDeclare(s.q, true, false, true, false, nil)
		}, code: 405, text: lockedText},
		{name: "exclusive not requested by the owner", do: func(t *testing.T, s *scene) {
			_, err := s.ch.QueueDeclare(s.q, true, false, true, false, nil)
			must(t, err)
			_, _ = s.ch.QueueDeclare(s.q, true, false, false, false, nil)
		}, code: 405, text: lockedText},
		{
			name: "argument added", do: redeclare(true, false, nil, amqp.Table{"x-message-ttl": int64(60000)}),
			code: 406, text: fmt.Sprintf(inequivalent, "x-message-ttl", "received the value '60000' of type 'long' but current is none"),
		},
		{
			name: "argument left out", do: redeclare(true, false, amqp.Table{"x-message-ttl": int32(60000)}, nil),
			code: 406, text: fmt.Sprintf(inequivalent, "x-message-ttl", "received none but current is the value '60000' of type 'signedint'"),
		},
		{
			name: "argument changed", do: redeclare(true, false, amqp.Table{"x-max-length": int32(10)}, amqp.Table{"x-max-length": int32(5)}),
			code: 406, text: fmt.Sprintf(inequivalent, "x-max-length", "received '5' but current is '10'"),
		},
		{
			name: "argument, string changed", do: redeclare(true, false, amqp.Table{"x-dead-letter-exchange": "a"}, amqp.Table{"x-dead-letter-exchange": "b"}),
			code: 406, text: fmt.Sprintf(inequivalent, "x-dead-letter-exchange", "received 'b' but current is 'a'"),
		},
		{name: "delete if empty, not empty", do: func(t *testing.T, s *scene) {
			s.declare(t, nil)
			publish(t, s.ch, "", s.q, "m")
			_, _ = s.ch.QueueDelete(s.q, false, true, false)
		}, code: 406, text: "PRECONDITION_FAILED - queue '{q}' in vhost '{vhost}' not empty"},
		{name: "delete if unused, in use", do: func(t *testing.T, s *scene) {
			s.declare(t, nil)
			consume(t, s.ch, s.q, "", nil)
			_, _ = s.ch.QueueDelete(s.q, true, false, false)
		}, code: 406, text: "PRECONDITION_FAILED - queue '{q}' in vhost '{vhost}' in use"},
		{name: "delete if empty and unused, neither", do: func(t *testing.T, s *scene) {
			s.declare(t, nil)
			prefetch(t, s.ch, 1, false)
			consume(t, s.ch, s.q, "", nil)
			publish(t, s.ch, "", s.q, "m", "m")
			wantReady(t, s.ch, s.q, 1)
			_, _ = s.ch.QueueDelete(s.q, true, true, false)
		}, code: 406, text: "PRECONDITION_FAILED - queue '{q}' in vhost '{vhost}' not empty"},
		{name: "no queue declared yet, bind", do: func(_ *testing.T, s *scene) {
			_ = s.ch.QueueBind("", "k", "amq.direct", false, nil)
		}, code: 404, text: "NOT_FOUND - no previously declared queue"},
		{name: "no queue declared yet, consume", do: func(_ *testing.T, s *scene) {
			_, _ = s.ch.Consume("", "", false, false, false, false, nil)
		}, code: 404, text: "NOT_FOUND - no previously declared queue"},
		{name: "no queue declared yet, get", do: func(_ *testing.T, s *scene) {
			_, _, _ = s.ch.Get("", false)
		}, code: 404, text: "NOT_FOUND - no previously declared queue"},
		{name: "no queue declared yet, purge", do: func(_ *testing.T, s *scene) {
			_, _ = s.ch.QueuePurge("", false)
		}, code: 404, text: "NOT_FOUND - no previously declared queue"},
		{name: "no queue declared yet, delete", do: func(_ *testing.T, s *scene) {
			_, _ = s.ch.QueueDelete("", false, false, false)
		}, code: 404, text: "NOT_FOUND - no previously declared queue"},
		{
			name: "purge absent", do: func(_ *testing.T, s *scene) { _, _ = s.ch.QueuePurge(s.q, false) },
			code: 404, text: "NOT_FOUND - no queue '{q}' in vhost '{vhost}'",
		},
		{name: "bind, queue missing", do: func(_ *testing.T, s *scene) {
			_ = s.ch.QueueBind(s.q, "k", "amq.direct", false, nil)
		}, code: 404, text: "NOT_FOUND - no queue '{q}' in vhost '{vhost}'"},
		{name: "bind, exchange missing", do: func(t *testing.T, s *scene) {
			s.declare(t, nil)
			_ = s.ch.QueueBind(s.q, "k", s.x, false, nil)
		}, code: 404, text: "NOT_FOUND - no exchange '{x}' in vhost '{vhost}'"},
		{name: "bind, both missing", do: func(_ *testing.T, s *scene) {
			_ = s.ch.QueueBind(s.q, "k", s.x, false, nil)
		}, code: 404, text: "NOT_FOUND - no exchange '{x}' in vhost '{vhost}'"},
		{name: "bind to default exchange", do: func(t *testing.T, s *scene) {
			s.declare(t, nil)
			_ = s.ch.QueueBind(s.q, "k", "", false, nil)
		}, code: 403, text: "ACCESS_REFUSED - operation not permitted on the default exchange"},
		{name: "unbind from default exchange", do: func(t *testing.T, s *scene) {
			s.declare(t, nil)
			_ = s.ch.QueueUnbind(s.q, s.q, "", nil)
		}, code: 403, text: "ACCESS_REFUSED - operation not permitted on the default exchange"},
		{name: "nowait, refused all the same", do: func(_ *testing.T, s *scene) {
			_, _ = s.ch.QueueDeclare("amq.mine", true, false, false, true, nil)
		}, code: 403, text: "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'"},
		{name: "transient and shared", do: func(t *testing.T, s *scene) {
			if !differs(t, "transient-queues") {
				t.Skip("accepted, see TestTransientSharedQueue")
			}
			_, _ = s.ch.QueueDeclare(s.q, false, false, false, false, nil)
		}, code: 541, text: "INTERNAL_ERROR - Feature `transient_nonexcl_queues` is deprecated.…"},
	})
}

func TestQueueArgumentRefusals(t *testing.T) {
	t.Parallel()
	const (
		invalid = "PRECONDITION_FAILED - invalid arg '%s' for queue '{q}' in vhost '{vhost}': %s"
		foreign = "PRECONDITION_FAILED - invalid arg '%s' for queue '{q}' in vhost '{vhost}' of queue type %s"
	)
	cases := []struct {
		args amqp.Table
		text string
	}{
		{amqp.Table{"x-message-ttl": "5"}, fmt.Sprintf(invalid, "x-message-ttl", `"expected integer, got longstr"`)},
		{amqp.Table{"x-message-ttl": int32(-5)}, fmt.Sprintf(invalid, "x-message-ttl", "{value_negative,-5}")},
		{amqp.Table{"x-message-ttl": int64(315360000001)}, fmt.Sprintf(invalid, "x-message-ttl", "{value_too_large,315360000001}")},
		{amqp.Table{"x-expires": int32(0)}, fmt.Sprintf(invalid, "x-expires", "{value_zero,0}")},
		{amqp.Table{"x-expires": int32(-1)}, fmt.Sprintf(invalid, "x-expires", "{value_negative,-1}")},
		{amqp.Table{"x-expires": true}, fmt.Sprintf(invalid, "x-expires", `"expected integer, got bool"`)},
		{amqp.Table{"x-max-length": int32(-1)}, fmt.Sprintf(invalid, "x-max-length", "{value_negative,-1}")},
		{amqp.Table{"x-max-length": "10"}, fmt.Sprintf(invalid, "x-max-length", `"expected integer, got longstr"`)},
		{amqp.Table{"x-max-length-bytes": float64(10)}, fmt.Sprintf(invalid, "x-max-length-bytes", `"expected integer, got double"`)},
		{amqp.Table{"x-max-priority": int32(300)}, fmt.Sprintf(invalid, "x-max-priority", "{max_value_exceeded,300}")},
		{amqp.Table{"x-max-priority": int32(-1)}, fmt.Sprintf(invalid, "x-max-priority", "{value_negative,-1}")},
		{amqp.Table{"x-overflow": "drop-tail"}, fmt.Sprintf(invalid, "x-overflow", "invalid_overflow")},
		{amqp.Table{"x-dead-letter-routing-key": "k"}, fmt.Sprintf(invalid, "x-dead-letter-routing-key", "routing_key_but_no_dlx_defined")},
		{amqp.Table{"x-dead-letter-exchange": int32(1)}, "PRECONDITION_FAILED - invalid type 'signedint' for arg 'x-dead-letter-exchange' in queue '{q}' in vhost '{vhost}'"},
		{amqp.Table{"x-single-active-consumer": "true"}, fmt.Sprintf(invalid, "x-single-active-consumer", "{unacceptable_type,longstr}")},
		{amqp.Table{"x-queue-type": "lazy"}, fmt.Sprintf(invalid, "x-queue-type", `"unsupported queue type 'lazy'"`)},
		{amqp.Table{"x-queue-version": int32(1)}, fmt.Sprintf(invalid, "x-queue-version", `"unsupported queue version '1'"`)},
		{amqp.Table{"x-queue-type": int32(1)}, fmt.Sprintf(invalid, "x-queue-type", "{unacceptable_type,signedint}")},
		{amqp.Table{"x-queue-version": "2"}, fmt.Sprintf(invalid, "x-queue-version", `"expected integer, got longstr"`)},
		{amqp.Table{"x-queue-leader-locator": "here"}, fmt.Sprintf(invalid, "x-queue-leader-locator", "invalid_queue_locator_arg")},
		{amqp.Table{"x-quorum-initial-group-size": int32(3)}, fmt.Sprintf(foreign, "x-quorum-initial-group-size", "rabbit_classic_queue")},
		{amqp.Table{"x-max-age": "1D"}, fmt.Sprintf(foreign, "x-max-age", "rabbit_classic_queue")},
		// An argument with a bad value goes before one that does not belong here.
		{amqp.Table{"x-max-age": "1D", "x-max-length": int32(-1)}, fmt.Sprintf(invalid, "x-max-length", "{value_negative,-1}")},

		{amqp.Table{"x-queue-type": "quorum", "x-max-priority": int32(5)}, fmt.Sprintf(foreign, "x-max-priority", "rabbit_quorum_queue")},
		{amqp.Table{"x-queue-type": "quorum", "x-queue-mode": "lazy"}, fmt.Sprintf(foreign, "x-queue-mode", "rabbit_quorum_queue")},
		{amqp.Table{"x-queue-type": "quorum", "x-max-age": "1D"}, fmt.Sprintf(foreign, "x-max-age", "rabbit_quorum_queue")},
		{amqp.Table{"x-queue-type": "quorum", "x-dead-letter-strategy": "once"}, fmt.Sprintf(invalid, "x-dead-letter-strategy", "invalid_dlx_strategy")},
		{amqp.Table{"x-queue-type": "quorum", "x-quorum-initial-group-size": int32(0)}, fmt.Sprintf(invalid, "x-quorum-initial-group-size", "{value_zero,0}")},
		{amqp.Table{"x-queue-type": "quorum", "x-consumer-timeout": int32(-1)}, fmt.Sprintf(invalid, "x-consumer-timeout", "{value_negative,-1}")},

		{amqp.Table{"x-queue-type": "stream", "x-message-ttl": int32(5)}, fmt.Sprintf(foreign, "x-message-ttl", "rabbit_stream_queue")},
		{amqp.Table{"x-queue-type": "stream", "x-max-length": int32(5)}, fmt.Sprintf(foreign, "x-max-length", "rabbit_stream_queue")},
		{amqp.Table{"x-queue-type": "stream", "x-dead-letter-exchange": "x"}, fmt.Sprintf(foreign, "x-dead-letter-exchange", "rabbit_stream_queue")},
		{amqp.Table{"x-queue-type": "stream", "x-single-active-consumer": true}, fmt.Sprintf(foreign, "x-single-active-consumer", "rabbit_stream_queue")},
		{amqp.Table{"x-queue-type": "stream", "x-max-age": "5x"}, fmt.Sprintf(invalid, "x-max-age", "invalid_max_age")},
		{amqp.Table{"x-queue-type": "stream", "x-max-age": "0D"}, fmt.Sprintf(invalid, "x-max-age", "invalid_max_age")},
		{amqp.Table{"x-queue-type": "stream", "x-max-age": "D"}, fmt.Sprintf(invalid, "x-max-age", "invalid_max_age")},
		{amqp.Table{"x-queue-type": "stream", "x-max-age": int32(5)}, fmt.Sprintf(invalid, "x-max-age", "{unacceptable_type,signedint}")},
		{amqp.Table{"x-queue-type": "stream", "x-initial-cluster-size": int32(0)}, fmt.Sprintf(invalid, "x-initial-cluster-size", "{value_zero,0}")},
		{amqp.Table{"x-queue-type": "stream", "x-stream-max-segment-size-bytes": int64(3000000001)}, "PRECONDITION_FAILED - Exceeded max value for x-stream-max-segment-size-bytes"},
		{amqp.Table{"x-queue-type": "stream", "x-stream-filter-size-bytes": int32(15)}, "PRECONDITION_FAILED - Invalid value for x-stream-filter-size-bytes"},
	}
	var table []refusal
	for _, c := range cases {
		table = append(table, refusal{
			name: fmt.Sprint(c.args), code: 406, text: c.text,
			do: func(_ *testing.T, s *scene) { _, _ = s.ch.QueueDeclare(s.q, true, false, false, false, c.args) },
		})
	}
	table = append(table,
		refusal{name: "unknown type without a name", code: 406, text: "PRECONDITION_FAILED - unknown queue type 'lazy'", do: func(_ *testing.T, s *scene) {
			_, _ = s.ch.QueueDeclare("", true, false, false, false, amqp.Table{"x-queue-type": "lazy"})
		}},
		refusal{name: "exclusive stream with a bad filter size", code: 406, do: func(_ *testing.T, s *scene) {
			_, _ = s.ch.QueueDeclare(s.q, true, false, true, false, amqp.Table{"x-queue-type": "stream", "x-stream-filter-size-bytes": int32(1)})
		}, text: "PRECONDITION_FAILED - invalid property 'exclusive-owner' for queue '{q}' in vhost '{vhost}'"})
	for _, kind := range []string{"quorum", "stream"} {
		args := amqp.Table{"x-queue-type": kind}
		property := func(name string) string {
			return "PRECONDITION_FAILED - invalid property '" + name + "' for queue '{q}' in vhost '{vhost}'"
		}
		table = append(table,
			refusal{name: kind + " without a name", code: 406, text: "PRECONDITION_FAILED - Cannot declare a server-named queue for type rabbit_" + kind + "_queue", do: func(_ *testing.T, s *scene) {
				_, _ = s.ch.QueueDeclare("", true, false, false, false, args)
			}},
			refusal{name: "transient " + kind, code: 406, text: property("non-durable"), do: func(_ *testing.T, s *scene) {
				_, _ = s.ch.QueueDeclare(s.q, false, false, false, false, args)
			}},
			refusal{name: "auto-delete " + kind, code: 406, text: property("auto-delete"), do: func(_ *testing.T, s *scene) {
				_, _ = s.ch.QueueDeclare(s.q, false, true, false, false, args)
			}},
			refusal{name: "exclusive " + kind, code: 406, text: property("exclusive-owner"), do: func(_ *testing.T, s *scene) {
				_, _ = s.ch.QueueDeclare(s.q, true, false, true, false, args)
			}})
	}
	refuse(t, table)
}

func TestQueueRedeclareIsEquivalent(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name         string
		first, again amqp.Table
	}{
		{"same", nil, nil},
		{"integers of other widths", amqp.Table{"x-max-length": int32(10)}, amqp.Table{"x-max-length": int64(10)}},
		{"small integers", amqp.Table{"x-max-length": int8(10)}, amqp.Table{"x-max-length": uint16(10)}},
		{"unknown arguments", amqp.Table{"x-mine": "1"}, amqp.Table{"x-yours": "2"}},
		{"queue type spelt out", nil, amqp.Table{"x-queue-type": "classic"}},
		{"queue type left out", amqp.Table{"x-queue-type": "classic"}, nil},
		{"queue mode and version", amqp.Table{"x-queue-mode": "lazy", "x-queue-version": int32(2)}, amqp.Table{"x-queue-mode": "lazy", "x-queue-version": int64(2)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ch := open(t)
			q := nameFor(t, "q")
			removeQueue(t, q)
			_, err := ch.QueueDeclare(q, true, false, false, false, c.first)
			must(t, err)
			publish(t, ch, "", q, "m")
			wantReady(t, ch, q, 1)
			again, err := ch.QueueDeclare(q, true, false, false, false, c.again)
			must(t, err)
			if again.Messages != 1 || again.Consumers != 0 {
				t.Fatalf("declare-ok counts %d messages, %d consumers", again.Messages, again.Consumers)
			}
		})
	}
}

func TestQueueDeclareCountsReadyMessagesAndConsumers(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q := privateQueue(t, ch, nil)
	publish(t, ch, "", q, "1", "2", "3")
	d := get(t, ch, q, false)
	wantReady(t, ch, q, 2)
	if got := inspect(t, ch, q); got.Messages != 2 || got.Consumers != 0 {
		t.Fatalf("%d messages, %d consumers; want 2 ready ones, the unacknowledged one does not count", got.Messages, got.Consumers)
	}
	nack(t, d, false, true)
	wantReady(t, ch, q, 3)
	prefetch(t, ch, 1, false)
	consume(t, ch, q, "a", nil)
	consume(t, ch, q, "b", nil)
	wantReady(t, ch, q, 1)
	if got := inspect(t, ch, q); got.Messages != 1 || got.Consumers != 2 {
		t.Fatalf("%d messages, %d consumers; want 1 and 2", got.Messages, got.Consumers)
	}
}

func TestServerNamedQueue(t *testing.T) {
	t.Parallel()
	ch := open(t)
	form := regexp.MustCompile(`^amq\.gen-[A-Za-z0-9_-]{22}$`)
	seen := map[string]bool{}
	for range 10 {
		q, err := ch.QueueDeclare("", false, false, true, false, nil)
		must(t, err)
		if !form.MatchString(q.Name) || seen[q.Name] {
			t.Fatalf("server named a queue %q", q.Name)
		}
		seen[q.Name] = true
	}
	for name := range seen {
		_, err := ch.QueueDeclarePassive(name, false, false, true, false, nil)
		must(t, err)
	}
}

func TestEmptyQueueNameMeansTheLastDeclared(t *testing.T) {
	t.Parallel()
	ch := open(t)
	x := newExchange(t, ch, "direct", nil)
	first, last := privateQueue(t, ch, nil), privateQueue(t, ch, nil)

	bind(t, ch, "", "k", x, nil)
	bind(t, ch, "", "", x, nil) // both empty: the key is the queue's name too
	publish(t, ch, x, "k", "by key")
	publish(t, ch, x, last, "by name")
	publish(t, ch, x, "", "by nothing")
	wantBodies(t, ch, last, "by key", "by name")

	// A passive declare counts as the last one.
	_, err := ch.QueueDeclarePassive(first, false, false, true, false, nil)
	must(t, err)
	publish(t, ch, "", first, "m1", "m2", "m3")
	if d := get(t, ch, "", true); string(d.Body) != "m1" {
		t.Fatalf("get from the last declared queue: %q", d.Body)
	}
	wantDelivery(t, consume(t, ch, "", "c", nil), "m2", false)
	must(t, ch.Cancel("c", false))
	if n, err := ch.QueueDelete("", false, false, false); err != nil || n != 0 {
		t.Fatalf("delete: %d ready messages, %v", n, err)
	}
	if _, err := ch.QueueDeclare(first, false, false, true, false, nil); err != nil {
		t.Fatal(err)
	}
	wantReady(t, ch, first, 0)
}

func TestExclusiveQueueIsClosedToOtherConnections(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		do   func(ch *amqp.Channel, q string) error
	}{
		{"declare", func(ch *amqp.Channel, q string) error {
			_, err := ch.QueueDeclare(q, false, false, true, false, nil)
			return err
		}},
		{"declare, not exclusive", func(ch *amqp.Channel, q string) error {
			_, err := ch.QueueDeclare(q, true, false, false, false, nil)
			return err
		}},
		{"declare, passive", func(ch *amqp.Channel, q string) error {
			_, err := ch.QueueDeclarePassive(q, false, false, true, false, nil)
			return err
		}},
		{"bind", func(ch *amqp.Channel, q string) error { return ch.QueueBind(q, "k", "amq.direct", false, nil) }},
		{"unbind", func(ch *amqp.Channel, q string) error { return ch.QueueUnbind(q, "k", "amq.direct", nil) }},
		{"consume", func(ch *amqp.Channel, q string) error {
			_, err := ch.Consume(q, "", false, false, false, false, nil)
			return err
		}},
		{"get", func(ch *amqp.Channel, q string) error { _, _, err := ch.Get(q, true); return err }},
		{"purge", func(ch *amqp.Channel, q string) error { _, err := ch.QueuePurge(q, false); return err }},
		{"delete", func(ch *amqp.Channel, q string) error { _, err := ch.QueueDelete(q, false, false, false); return err }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			owner := open(t)
			q := privateQueue(t, owner, nil)
			bind(t, owner, q, "k", "amq.direct", nil)
			e := amqpError(t, c.do(open(t), q))
			want := replyText(strings.NewReplacer("{q}", q, "{vhost}", sut.uri.Vhost).Replace(lockedText))
			if e.Code != 405 || e.Reason != want {
				t.Fatalf("refused with %d %q\nwant         405 %q", e.Code, e.Reason, want)
			}
		})
	}
}

func TestExclusiveQueueAcceptsPublishesFromAnyone(t *testing.T) {
	t.Parallel()
	owner, other := open(t), open(t)
	q := privateQueue(t, owner, nil)
	publish(t, other, "", q, "m")
	wantReady(t, owner, q, 1)
	// Another channel of the owner's connection may use the queue as well.
	wantBodies(t, owner, q, "m")
}

func TestExclusiveQueueGoesWithItsConnection(t *testing.T) {
	t.Parallel()
	for _, durable := range []bool{false, true} {
		owner := dial(t)
		ch := channel(t, owner)
		q := nameFor(t, "q")
		_, err := ch.QueueDeclare(q, durable, false, true, false, nil)
		must(t, err)
		publish(t, ch, "", q, "m")
		must(t, ch.Close())
		wantReady(t, channel(t, owner), q, 1) // it belongs to the connection, not to the channel
		must(t, owner.Close())

		// Gone before close-ok: the name is free for the next connection at once.
		awaitRelease(t, q)
		next := open(t)
		declared, err := next.QueueDeclare(q, durable, false, true, false, nil)
		must(t, err)
		if declared.Messages != 0 {
			t.Fatalf("durable=%t: the messages of the exclusive queue are still there", durable)
		}
	}
}

func TestExclusiveQueueDurabilityIsNotCompared(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q := nameFor(t, "q")
	_, err := ch.QueueDeclare(q, true, false, true, false, nil)
	must(t, err)
	if _, err = ch.QueueDeclare(q, false, false, true, false, nil); err != nil {
		t.Skipf("this broker keeps durable on exclusive queues: %v", err)
	}
}

func TestTransientSharedQueue(t *testing.T) {
	t.Parallel()
	needs(t, "transient-queues")
	ch, other := open(t), open(t)
	q := nameFor(t, "q")
	_, err := ch.QueueDeclare(q, false, false, false, false, nil)
	must(t, err)
	removeQueue(t, q)
	publishMessage(t, ch, "", q, persistent("m")[0])
	wantReady(t, other, q, 1)
	wantBodies(t, other, q, "m")
}

// queueExists asks on a channel of its own, because the answer no closes it.
func queueExists(t *testing.T, conn *amqp.Connection, name string) bool {
	t.Helper()
	ch := channel(t, conn)
	_, err := ch.QueueDeclarePassive(name, false, false, false, false, nil)
	if err == nil {
		must(t, ch.Close())
		return true
	}
	if e := amqpError(t, err); e.Code != amqp.NotFound {
		t.Fatal(err)
	}
	return false
}

func TestAutoDeleteQueueGoesWithItsLastConsumer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		end  func(t *testing.T, conn *amqp.Connection, ch *amqp.Channel)
	}{
		{"cancel", func(t *testing.T, _ *amqp.Connection, ch *amqp.Channel) { must(t, ch.Cancel("c", false)) }},
		{"channel closed", func(t *testing.T, _ *amqp.Connection, ch *amqp.Channel) { must(t, ch.Close()) }},
		{"connection closed", func(t *testing.T, conn *amqp.Connection, _ *amqp.Channel) { must(t, conn.Close()) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			watcher := dial(t)
			conn := dial(t)
			ch := channel(t, conn)
			q := nameFor(t, "q")
			_, err := ch.QueueDeclare(q, true, true, false, false, nil)
			must(t, err)
			removeQueue(t, q)

			// Neither idleness nor basic.get deletes it.
			if _, ok, err := ch.Get(q, true); ok || err != nil {
				t.Fatalf("get: %t, %v", ok, err)
			}
			other := channel(t, watcher)
			consume(t, ch, q, "c", nil)
			consume(t, other, q, "other", nil)
			must(t, other.Cancel("other", false))
			if !queueExists(t, watcher, q) {
				t.Fatal("gone although a consumer is left")
			}
			c.end(t, conn, ch)
			if c.name == "connection closed" { // close-ok may overtake the effects on shared queues
				eventually(t, func() error {
					if queueExists(t, watcher, q) {
						return fmt.Errorf("the queue stays after %s", c.name)
					}
					return nil
				})
			} else if queueExists(t, watcher, q) {
				t.Fatal("stays after its last consumer")
			}
		})
	}
}

func TestQueueDelete(t *testing.T) {
	t.Parallel()
	t.Run("counts ready messages", func(t *testing.T) {
		t.Parallel()
		ch := open(t)
		q := privateQueue(t, ch, nil)
		publish(t, ch, "", q, "1", "2", "3")
		get(t, ch, q, false)
		n, err := ch.QueueDelete(q, false, false, false)
		if err != nil || n != 2 {
			t.Fatalf("delete-ok counts %d, %v; want 2", n, err)
		}
	})
	t.Run("absent", func(t *testing.T) {
		t.Parallel()
		ch := open(t)
		for _, flags := range [][2]bool{{false, false}, {true, false}, {false, true}} {
			if n, err := ch.QueueDelete(uniqueName("absent"), flags[0], flags[1], false); n != 0 || err != nil {
				t.Fatalf("delete: %d, %v", n, err)
			}
		}
	})
	t.Run("if empty looks at ready messages", func(t *testing.T) {
		t.Parallel()
		ch := open(t)
		q := privateQueue(t, ch, nil)
		publish(t, ch, "", q, "m")
		get(t, ch, q, false)
		if _, err := ch.QueueDelete(q, false, true, false); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("bindings go with it", func(t *testing.T) {
		t.Parallel()
		ch := open(t)
		x, q := newExchange(t, ch, "fanout", nil), privateQueue(t, ch, nil)
		bind(t, ch, q, "", x, nil)
		_, err := ch.QueueDelete(q, false, false, false)
		must(t, err)
		_, err = ch.QueueDeclare(q, false, false, true, false, nil)
		must(t, err)
		publish(t, ch, x, "", "m")
		wantReady(t, ch, q, 0)
		must(t, ch.ExchangeDelete(x, true, false))
	})
	t.Run("acks for a deleted queue are accepted", func(t *testing.T) {
		t.Parallel()
		ch := open(t)
		q := privateQueue(t, ch, nil)
		publish(t, ch, "", q, "1", "2")
		first, second := get(t, ch, q, false), get(t, ch, q, false)
		_, err := ch.QueueDelete(q, false, false, false)
		must(t, err)
		ack(t, first, false)
		nack(t, second, false, true)
		privateQueue(t, ch, nil) // the channel lives
	})
}

// A check that fails must not have changed anything.
func TestRefusedDeleteLeavesTheQueueAlone(t *testing.T) {
	t.Parallel()
	conn := dial(t)
	ch := channel(t, conn)
	q := sharedQueue(t, ch, nil)
	bind(t, ch, q, q, "amq.direct", nil)
	prefetch(t, ch, 1, false)
	deliveries := consume(t, ch, q, "", nil)
	publish(t, ch, "amq.direct", q, "1", "2")
	first := wantDelivery(t, deliveries, "1", false)
	wantReady(t, ch, q, 1)
	for _, flags := range [][2]bool{{false, true}, {true, false}} {
		_, err := channel(t, conn).QueueDelete(q, flags[0], flags[1], false)
		if e := amqpError(t, err); e.Code != amqp.PreconditionFailed {
			t.Fatal(err)
		}
		publish(t, ch, "amq.direct", q, "more")
		declared, err := ch.QueueDeclare(q, true, false, false, false, nil)
		must(t, err)
		if declared.Consumers != 1 {
			t.Fatalf("%d consumers", declared.Consumers)
		}
	}
	ack(t, first, false)
	ack(t, wantDelivery(t, deliveries, "2", false), false)
	ack(t, wantDelivery(t, deliveries, "more", false), false)
	wantDelivery(t, deliveries, "more", false)
}

func TestPurgeLeavesUnacknowledgedMessages(t *testing.T) {
	t.Parallel()
	ch := open(t)
	q := privateQueue(t, ch, nil)
	publish(t, ch, "", q, "1", "2", "3", "4")
	d := get(t, ch, q, false)
	if n, err := ch.QueuePurge(q, false); err != nil || n != 3 {
		t.Fatalf("purge-ok counts %d, %v; want 3", n, err)
	}
	wantReady(t, ch, q, 0)
	nack(t, d, false, true)
	d = get(t, ch, q, false)
	if string(d.Body) != "1" || !d.Redelivered {
		t.Fatalf("after the purge the requeued message is %q, redelivered=%t", d.Body, d.Redelivered)
	}
	if n, err := ch.QueuePurge(q, false); err != nil || n != 0 {
		t.Fatalf("purge of an empty queue: %d, %v", n, err)
	}
}

// An argument that is accepted must have its effect; a broker may refuse one that it does not serve.
func TestAcceptedQueueArgumentsAreEnforced(t *testing.T) {
	t.Parallel()
	declare := func(t *testing.T, args amqp.Table) (*amqp.Channel, string) {
		t.Helper()
		ch := open(t)
		q := nameFor(t, "q")
		if _, err := ch.QueueDeclare(q, false, false, true, false, args); err != nil {
			t.Skipf("refused, which is as good: %v", err)
		}
		return ch, q
	}
	t.Run("x-max-length", func(t *testing.T) {
		t.Parallel()
		ch, q := declare(t, amqp.Table{"x-max-length": int32(2)})
		publish(t, ch, "", q, "1", "2", "3")
		wantBodies(t, ch, q, "2", "3")
	})
	t.Run("x-max-length-bytes", func(t *testing.T) {
		t.Parallel()
		ch, q := declare(t, amqp.Table{"x-max-length-bytes": int32(6)})
		publish(t, ch, "", q, "aaa", "bbb", "ccc")
		wantBodies(t, ch, q, "bbb", "ccc")
	})
	t.Run("x-overflow", func(t *testing.T) {
		t.Parallel()
		ch, q := declare(t, amqp.Table{"x-max-length": int32(2), "x-overflow": "reject-publish"})
		publish(t, ch, "", q, "1", "2", "3")
		wantBodies(t, ch, q, "1", "2")
	})
	t.Run("x-message-ttl", func(t *testing.T) {
		t.Parallel()
		ch, q := declare(t, amqp.Table{"x-message-ttl": int32(0)})
		publish(t, ch, "", q, "1", "2")
		wantReady(t, ch, q, 0)
	})
	t.Run("x-expires", func(t *testing.T) {
		t.Parallel()
		conn := dial(t)
		q := nameFor(t, "q")
		if _, err := channel(t, conn).QueueDeclare(q, true, false, false, false, amqp.Table{"x-expires": int32(1)}); err != nil {
			t.Skipf("refused, which is as good: %v", err)
		}
		removeQueue(t, q)
		// A passive declare is a use that renews the lease, so ask only now and then for longer.
		eventually(t, func() error {
			if queueExists(t, conn, q) {
				return fmt.Errorf("queue %q is not deleted", q)
			}
			return nil
		})
	})
	t.Run("x-max-priority", func(t *testing.T) {
		t.Parallel()
		ch, q := declare(t, amqp.Table{"x-max-priority": int32(2)})
		for _, p := range []uint8{0, 1, 2, 9, 1} {
			publishMessage(t, ch, "", q, amqp.Publishing{Priority: p, Body: fmt.Append(nil, p)})
		}
		wantBodies(t, ch, q, "2", "9", "1", "1", "0")
	})
	t.Run("x-dead-letter-exchange", func(t *testing.T) {
		t.Parallel()
		target := nameFor(t, "target")
		ch, q := declare(t, amqp.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": target})
		_, err := ch.QueueDeclare(target, false, false, true, false, nil)
		must(t, err)
		publish(t, ch, "", q, "m")
		nack(t, get(t, ch, q, false), false, false)
		wantReady(t, ch, target, 1)
		wantBodies(t, ch, q)
	})
	t.Run("x-single-active-consumer", func(t *testing.T) {
		t.Parallel()
		ch, q := declare(t, amqp.Table{"x-single-active-consumer": true})
		prefetch(t, ch, 1, false)
		first := consume(t, ch, q, "first", nil)
		consume(t, ch, q, "second", nil)
		publish(t, ch, "", q, "1", "2")
		ack(t, wantDelivery(t, first, "1", false), false)
		wantDelivery(t, first, "2", false)
	})
}

func TestQueueNowait(t *testing.T) {
	t.Parallel()
	c := wireDial(t)
	q, x := nameFor(t, "q"), nameFor(t, "x")
	removeExchange(t, x)
	// No replies but those of the methods without nowait.
	c.send(1, exchangeDeclare, args{}.short(0).shortstr(x).shortstr("fanout").bits(false, false, false, false, true).emptyTable())
	c.send(1, queueDeclare, args{}.short(0).shortstr(q).bits(false, false, true, false, true).emptyTable())
	c.send(1, queueBind, args{}.short(0).shortstr(q).shortstr(x).shortstr("k").bits(true).emptyTable())
	c.publish(1, publishArgs(x, "", false, false), nil, "m")
	c.wantReady(1, q, 1)
	c.send(1, queuePurge, args{}.short(0).shortstr(q).bits(true))
	c.wantReady(1, q, 0)
	c.send(1, exchangeBind, args{}.short(0).shortstr(x).shortstr(x).shortstr("").bits(true).emptyTable())
	c.send(1, exchangeUnbind, args{}.short(0).shortstr(x).shortstr(x).shortstr("").bits(true).emptyTable())
	c.send(1, queueDelete, args{}.short(0).shortstr(q).bits(false, false, true))
	c.send(1, exchangeDelete, args{}.short(0).shortstr(x).bits(false, true))
	c.send(1, confirmSelect, args{}.bits(true))
	c.send(1, queueDeclare, args{}.short(0).shortstr(q).bits(true, false, false, false, false).emptyTable())
	c.wantClose(1, 404, "NOT_FOUND - no queue '"+q+"' in vhost '"+sut.uri.Vhost+"'")
}
