package integration

import (
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

func TestPredeclaredExchangesCanBeRedeclared(t *testing.T) {
	t.Parallel()
	ch := open(t)
	for name, kind := range map[string]string{
		"amq.direct": "direct", "amq.fanout": "fanout", "amq.topic": "topic", "amq.headers": "headers", "amq.match": "headers",
	} {
		if err := ch.ExchangeDeclare(name, kind, true, false, false, false, nil); err != nil {
			t.Fatalf("%s is not a durable %s exchange: %v", name, kind, err)
		}
		if err := ch.ExchangeDeclarePassive(name, "no-such-type", false, true, true, false, nil); err != nil {
			t.Fatalf("%s, passively: %v", name, err)
		}
	}
	if err := ch.ExchangeDeclare("amq.rabbitmq.trace", "topic", true, false, true, false, nil); err != nil {
		t.Fatalf("amq.rabbitmq.trace is not a durable internal topic exchange: %v", err)
	}
}

func TestExchangeRefusals(t *testing.T) {
	t.Parallel()
	declare := func(name func(*scene) string, kind string, durable, autoDelete, internal bool, args amqp.Table) func(*testing.T, *scene) {
		return func(_ *testing.T, s *scene) {
			_ = s.ch.ExchangeDeclare(name(s), kind, durable, autoDelete, internal, false, args)
		}
	}
	x := func(s *scene) string { return s.x }
	fixed := func(name string) func(*scene) string { return func(*scene) string { return name } }
	redeclare := func(kind string, durable, autoDelete, internal bool, args amqp.Table) func(*testing.T, *scene) {
		return func(t *testing.T, s *scene) {
			must(t, s.ch.ExchangeDeclare(s.x, "direct", true, false, false, false, nil))
			declare(x, kind, durable, autoDelete, internal, args)(t, s)
		}
	}
	refuse(t, []refusal{
		{
			name: "unknown type", do: declare(x, "no-such-type", true, false, false, nil),
			code: 406, text: "PRECONDITION_FAILED - unknown exchange type 'no-such-type'",
		},
		{
			name: "unknown type before name", do: declare(fixed(""), "nope", true, false, false, nil),
			code: 406, text: "PRECONDITION_FAILED - unknown exchange type 'nope'",
		},
		{
			name: "default exchange", do: declare(fixed(""), "direct", true, false, false, nil),
			code: 403, text: "ACCESS_REFUSED - operation not permitted on the default exchange",
		},
		{name: "default exchange, passive", do: func(_ *testing.T, s *scene) {
			_ = s.ch.ExchangeDeclarePassive("", "direct", true, false, false, false, nil)
		}, code: 403, text: "ACCESS_REFUSED - operation not permitted on the default exchange"},
		{
			name: "reserved prefix", do: declare(fixed("amq.mine"), "direct", true, false, false, nil),
			code: 403, text: "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'",
		},
		{
			name: "reserved name with other type", do: declare(fixed("amq.direct"), "fanout", true, false, false, nil),
			code: 406, text: "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'amq.direct' in vhost '{vhost}': received 'fanout' but current is 'direct'",
		},
		{
			name: "alternate exchange is no string", do: declare(x, "direct", true, false, false, amqp.Table{"alternate-exchange": int32(1)}),
			code: 406, text: "PRECONDITION_FAILED - invalid type 'signedint' for arg 'alternate-exchange' in exchange '{x}' in vhost '{vhost}'",
		},
		{
			name: "other type", do: redeclare("fanout", false, true, true, nil),
			code: 406, text: "PRECONDITION_FAILED - inequivalent arg 'type' for exchange '{x}' in vhost '{vhost}': received 'fanout' but current is 'direct'",
		},
		{
			name: "other durability", do: redeclare("direct", false, true, true, nil),
			code: 406, text: "PRECONDITION_FAILED - inequivalent arg 'durable' for exchange '{x}' in vhost '{vhost}': received 'false' but current is 'true'",
		},
		{
			name: "other auto-delete", do: redeclare("direct", true, true, true, nil),
			code: 406, text: "PRECONDITION_FAILED - inequivalent arg 'auto_delete' for exchange '{x}' in vhost '{vhost}': received 'true' but current is 'false'",
		},
		{
			name: "other internal", do: redeclare("direct", true, false, true, nil),
			code: 406, text: "PRECONDITION_FAILED - inequivalent arg 'internal' for exchange '{x}' in vhost '{vhost}': received 'true' but current is 'false'",
		},
		{
			name: "other alternate exchange", do: redeclare("direct", true, false, false, amqp.Table{"alternate-exchange": "amq.fanout"}),
			code: 406, text: "PRECONDITION_FAILED - inequivalent arg 'alternate-exchange' for exchange '{x}' in vhost '{vhost}': received the value 'amq.fanout' of type 'longstr' but current is none",
		},
		{name: "passive, absent", do: func(_ *testing.T, s *scene) {
			_ = s.ch.ExchangeDeclarePassive(s.x, "direct", true, false, false, false, nil)
		}, code: 404, text: "NOT_FOUND - no exchange '{x}' in vhost '{vhost}'"},
		{name: "nowait, refused all the same", do: func(_ *testing.T, s *scene) {
			_ = s.ch.ExchangeDeclare(s.x, "nope", true, false, false, true, nil)
		}, code: 406, text: "PRECONDITION_FAILED - unknown exchange type 'nope'"},
		{
			name: "delete default", do: func(_ *testing.T, s *scene) { _ = s.ch.ExchangeDelete("", false, false) },
			code: 403, text: "ACCESS_REFUSED - operation not permitted on the default exchange",
		},
		{
			name: "delete predeclared", do: func(_ *testing.T, s *scene) { _ = s.ch.ExchangeDelete("amq.topic", false, false) },
			code: 403, text: "ACCESS_REFUSED - deletion of system exchange 'amq.topic' in vhost '{vhost}' not allowed",
		},
		{name: "delete if unused, in use", do: func(t *testing.T, s *scene) {
			s.declareExchange(t, "fanout")
			bind(t, s.ch, privateQueue(t, s.ch, nil), "", s.x, nil)
			_ = s.ch.ExchangeDelete(s.x, true, false)
		}, code: 406, text: "PRECONDITION_FAILED - exchange '{x}' in vhost '{vhost}' in use"},
		{name: "bind exchange, source missing", do: func(t *testing.T, s *scene) {
			s.declareExchange(t, "fanout")
			_ = s.ch.ExchangeBind(s.x, "", s.x2, false, nil)
		}, code: 404, text: "NOT_FOUND - no exchange '{x2}' in vhost '{vhost}'"},
		{name: "bind exchange, destination missing", do: func(t *testing.T, s *scene) {
			s.declareExchange(t, "fanout")
			_ = s.ch.ExchangeBind(s.x2, "", s.x, false, nil)
		}, code: 404, text: "NOT_FOUND - no exchange '{x2}' in vhost '{vhost}'"},
		{name: "bind exchange, both missing", do: func(_ *testing.T, s *scene) {
			_ = s.ch.ExchangeBind(s.x2, "", s.x, false, nil)
		}, code: 404, text: "NOT_FOUND - no exchange '{x}' in vhost '{vhost}'"},
		{name: "bind exchange to default", do: func(t *testing.T, s *scene) {
			s.declareExchange(t, "fanout")
			_ = s.ch.ExchangeBind(s.x, "", "", false, nil)
		}, code: 403, text: "ACCESS_REFUSED - operation not permitted on the default exchange"},
		{name: "bind default to exchange", do: func(t *testing.T, s *scene) {
			s.declareExchange(t, "fanout")
			_ = s.ch.ExchangeBind("", "", s.x, false, nil)
		}, code: 403, text: "ACCESS_REFUSED - operation not permitted on the default exchange"},
		{name: "unbind default", do: func(t *testing.T, s *scene) {
			s.declareExchange(t, "fanout")
			_ = s.ch.ExchangeUnbind(s.x, "", "", false, nil)
		}, code: 403, text: "ACCESS_REFUSED - operation not permitted on the default exchange"},
		{name: "publish to internal exchange", do: func(t *testing.T, s *scene) {
			must(t, s.ch.ExchangeDeclare(s.x, "fanout", false, false, true, false, nil))
			publish(t, s.ch, s.x, "", "m")
		}, code: 403, text: "ACCESS_REFUSED - cannot publish to internal exchange '{x}' in vhost '{vhost}'"},
		{name: "topic key with three #", unless: "", do: func(t *testing.T, s *scene) {
			if !differs(t, "topic-wildcards") {
				t.Skip("accepted, see TestTopicKeyWithManyWildcards")
			}
			s.declareExchange(t, "topic")
			_ = s.ch.QueueBind(privateQueue(t, s.ch, nil), "#.a.#.b.#", s.x, false, nil)
		}, code: 406, text: "PRECONDITION_FAILED - Topic binding key '#.a.#.b.#' uses 3 '#' wildcards, at most 2 are allowed"},
		{name: "headers binding, unknown x-match", do: func(t *testing.T, s *scene) {
			s.declareExchange(t, "headers")
			_ = s.ch.QueueBind(privateQueue(t, s.ch, nil), "", s.x, false, amqp.Table{"x-match": "foo"})
		}, code: 406, text: `PRECONDITION_FAILED - Invalid x-match field value <<"foo">>; expected all, any, all-with-x, or any-with-x`},
		{name: "headers binding, x-match is no string", do: func(t *testing.T, s *scene) {
			s.declareExchange(t, "headers")
			_ = s.ch.QueueBind(privateQueue(t, s.ch, nil), "", s.x, false, amqp.Table{"x-match": int32(1)})
		}, code: 406, text: `PRECONDITION_FAILED - Invalid x-match field type signedint (value 1); expected longstr`},
	})
}

func TestExchangeRedeclareIgnoresUnknownArguments(t *testing.T) {
	t.Parallel()
	ch := open(t)
	name := newExchange(t, ch, "direct", amqp.Table{"x-mine": "1"})
	must(t, ch.ExchangeDeclare(name, "direct", false, false, false, false, amqp.Table{"x-mine": "2", "x-yours": true}))
}

func TestExchangeDeleteIsIdempotent(t *testing.T) {
	t.Parallel()
	ch := open(t)
	must(t, ch.ExchangeDelete(uniqueName("absent"), false, false))
	must(t, ch.ExchangeDelete(uniqueName("absent"), true, false))
	name := newExchange(t, ch, "fanout", nil)
	q := privateQueue(t, ch, nil)
	bind(t, ch, q, "", name, nil)
	must(t, ch.ExchangeDelete(name, false, false))
	must(t, ch.ExchangeDelete(name, false, false))

	// The binding went with it: a new exchange of that name starts empty.
	must(t, ch.ExchangeDeclare(name, "fanout", false, false, false, false, nil))
	publish(t, ch, name, "", "m")
	wantBodies(t, ch, q)
}

func TestExchangeInUseCountsOnlyBindingsFromIt(t *testing.T) {
	t.Parallel()
	ch := open(t)
	source, destination := newExchange(t, ch, "fanout", nil), newExchange(t, ch, "fanout", nil)
	bindExchange(t, ch, destination, "", source, nil)
	must(t, ch.ExchangeDelete(destination, true, false))
	must(t, ch.ExchangeDelete(source, true, false)) // its only binding led to the deleted one
}

// exchangeExists asks on a channel of its own, because the answer no closes it.
func exchangeExists(t *testing.T, conn *amqp.Connection, name string) bool {
	t.Helper()
	ch := channel(t, conn)
	err := ch.ExchangeDeclarePassive(name, "direct", false, false, false, false, nil)
	if err == nil {
		must(t, ch.Close())
		return true
	}
	if e := amqpError(t, err); e.Code != amqp.NotFound {
		t.Fatal(err)
	}
	return false
}

func TestAutoDeleteExchangeGoesWithItsLastBinding(t *testing.T) {
	t.Parallel()
	declare := func(t *testing.T, ch *amqp.Channel) string {
		name := nameFor(t, "auto")
		must(t, ch.ExchangeDeclare(name, "direct", false, true, false, false, nil))
		removeExchange(t, name)
		return name
	}
	t.Run("unbind", func(t *testing.T) {
		t.Parallel()
		conn := dial(t)
		ch := channel(t, conn)
		x, q := declare(t, ch), privateQueue(t, ch, nil)
		if !exchangeExists(t, conn, x) {
			t.Fatal("gone before it was ever bound")
		}
		bind(t, ch, q, "a", x, nil)
		bind(t, ch, q, "b", x, nil)
		must(t, ch.QueueUnbind(q, "a", x, nil))
		if !exchangeExists(t, conn, x) {
			t.Fatal("gone with the first of two bindings")
		}
		must(t, ch.QueueUnbind(q, "b", x, nil))
		if exchangeExists(t, conn, x) {
			t.Fatal("stays after the last binding is gone")
		}
	})
	t.Run("queue deleted", func(t *testing.T) {
		t.Parallel()
		conn := dial(t)
		ch := channel(t, conn)
		x, q := declare(t, ch), privateQueue(t, ch, nil)
		bind(t, ch, q, "a", x, nil)
		_, err := ch.QueueDelete(q, false, false, false)
		must(t, err)
		if exchangeExists(t, conn, x) {
			t.Fatal("stays after its only queue is gone")
		}
	})
	t.Run("chain", func(t *testing.T) {
		t.Parallel()
		conn := dial(t)
		ch := channel(t, conn)
		first, second, q := declare(t, ch), declare(t, ch), privateQueue(t, ch, nil)
		bindExchange(t, ch, second, "", first, nil)
		bind(t, ch, q, "", second, nil)
		_, err := ch.QueueDelete(q, false, false, false)
		must(t, err)
		for _, x := range []string{second, first} {
			if exchangeExists(t, conn, x) {
				t.Fatalf("%s stays", x)
			}
		}
	})
	t.Run("binding to it does not count", func(t *testing.T) {
		t.Parallel()
		conn := dial(t)
		ch := channel(t, conn)
		source, x := newExchange(t, ch, "fanout", nil), declare(t, ch)
		bindExchange(t, ch, x, "", source, nil)
		must(t, ch.ExchangeUnbind(x, "", source, false, nil))
		if !exchangeExists(t, conn, x) {
			t.Fatal("gone with a binding of which it was the destination")
		}
	})
}

func TestInternalExchangeIsReachedThroughBindings(t *testing.T) {
	t.Parallel()
	ch := open(t)
	outer, inner := newExchange(t, ch, "fanout", nil), nameFor(t, "inner")
	must(t, ch.ExchangeDeclare(inner, "fanout", false, false, true, false, nil))
	removeExchange(t, inner)
	q := privateQueue(t, ch, nil)
	bindExchange(t, ch, inner, "", outer, nil)
	bind(t, ch, q, "", inner, nil)
	publish(t, ch, outer, "", "m")
	wantBodies(t, ch, q, "m")
}

func TestNamesLoseLineBreaks(t *testing.T) {
	t.Parallel()
	ch := open(t)
	x, q := nameFor(t, "x"), nameFor(t, "q")
	must(t, ch.ExchangeDeclare(x+"\r\n", "fanout", false, false, false, false, nil))
	removeExchange(t, x)
	must(t, ch.ExchangeDeclarePassive(x, "fanout", false, false, false, false, nil))
	declared, err := ch.QueueDeclare("\n"+q+"\r", false, false, true, false, nil)
	must(t, err)
	if declared.Name != q {
		t.Fatalf("queue %q was declared as %q", q, declared.Name)
	}
	bind(t, ch, q+"\n", "", x+"\r", nil)
	publish(t, ch, x, "", "m")
	wantBodies(t, ch, q, "m")
}

func TestNamesMayHoldAnyText(t *testing.T) {
	t.Parallel()
	ch := open(t)
	base := uniqueName("")
	long := make([]byte, 255-len(base))
	for i := range long {
		long[i] = 'n'
	}
	for _, suffix := range []string{"/", "a b", "ñ☃𝄞", "\x01\t", "%2F", "#.*", "'quoted\"", string(long)} {
		name := base + suffix
		must(t, ch.ExchangeDeclare(name, "topic", false, false, false, false, nil))
		removeExchange(t, name)
		q, err := ch.QueueDeclare(name, false, false, true, false, nil)
		must(t, err)
		if q.Name != name {
			t.Fatalf("declared %q, got %q", name, q.Name)
		}
		bind(t, ch, name, name, name, nil)
		publish(t, ch, "", name, "by name")
		wantBodies(t, ch, name, "by name")
	}
}
