package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// routed publishes one message and tells which of the queues got it, and how often.
type routed struct {
	ch     *amqp.Channel
	queues map[string]string // label → queue
	count  int
}

func newRouted(t *testing.T) *routed {
	return &routed{ch: open(t), queues: map[string]string{}}
}

// queue declares a queue under a label.
func (r *routed) queue(t *testing.T, label string) string {
	t.Helper()
	r.queues[label] = privateQueue(t, r.ch, nil)
	return r.queues[label]
}

// want publishes and compares the labels of the queues reached, in order, repeated if reached
// more than once. basic.get takes its turn behind the publish, so absence is proof.
func (r *routed) want(t *testing.T, exchange, key string, p amqp.Publishing, labels ...string) {
	t.Helper()
	r.count++
	p.Body = fmt.Append(nil, "message ", r.count)
	publishMessage(t, r.ch, exchange, key, p)
	var got []string
	for label, q := range r.queues {
		for _, body := range drain(t, r.ch, q) {
			if body != string(p.Body) {
				t.Fatalf("%s holds %q, want %q", label, body, p.Body)
			}
			got = append(got, label)
		}
	}
	slices.Sort(got)
	slices.Sort(labels)
	if !slices.Equal(got, labels) {
		t.Errorf("key %q headers %v reached %q, want %q", key, p.Headers, got, labels)
	}
}

func TestDefaultExchangeRoutesByQueueName(t *testing.T) {
	t.Parallel()
	r := newRouted(t)
	a := r.queue(t, "a")
	r.queue(t, "b")
	r.want(t, "", a, amqp.Publishing{}, "a")
	r.want(t, "", a+".", amqp.Publishing{})
	r.want(t, "", strings.ToUpper(a), amqp.Publishing{})
	r.want(t, "", "", amqp.Publishing{})
}

func TestDirectExchange(t *testing.T) {
	t.Parallel()
	r := newRouted(t)
	x := newExchange(t, r.ch, "direct", nil)
	for label, keys := range map[string][]string{"one": {"k", "k2"}, "two": {"k"}, "empty": {""}, "dots": {"k.*", "#"}} {
		q := r.queue(t, label)
		for _, k := range keys {
			bind(t, r.ch, q, k, x, nil)
		}
	}
	r.want(t, x, "k", amqp.Publishing{}, "one", "two")
	r.want(t, x, "k2", amqp.Publishing{}, "one")
	r.want(t, x, "", amqp.Publishing{}, "empty")
	r.want(t, x, "k.*", amqp.Publishing{}, "dots")
	r.want(t, x, "k.a", amqp.Publishing{})
	r.want(t, x, "K", amqp.Publishing{})
}

func TestFanoutExchangeIgnoresTheKey(t *testing.T) {
	t.Parallel()
	r := newRouted(t)
	x := newExchange(t, r.ch, "fanout", nil)
	bind(t, r.ch, r.queue(t, "a"), "", x, nil)
	bind(t, r.ch, r.queue(t, "b"), "key", x, nil)
	r.queue(t, "unbound")
	r.want(t, x, "", amqp.Publishing{}, "a", "b")
	r.want(t, x, "other", amqp.Publishing{}, "a", "b")
}

func TestTopicExchange(t *testing.T) {
	t.Parallel()
	r := newRouted(t)
	x := newExchange(t, r.ch, "topic", nil)
	for _, pattern := range []string{
		"", "a", "a.b", "*", "#", "a.*", "*.b", "a.#", "#.b", "*.*", "a.*.c", "a.#.c", "#.b.#", "*.#", "*.", "a.", "a.**", "a*", "#.#", "#.*",
	} {
		bind(t, r.ch, r.queue(t, pattern), pattern, x, nil)
	}
	for key, want := range map[string][]string{
		"":        {"", "#", "#.#"},
		"a":       {"a", "*", "#", "a.#", "*.#", "#.#", "#.*"},
		"b":       {"*", "#", "#.b", "#.b.#", "*.#", "#.#", "#.*"},
		"a.b":     {"a.b", "#", "a.*", "*.b", "a.#", "#.b", "*.*", "#.b.#", "*.#", "#.#", "#.*"},
		"a.":      {"#", "a.*", "a.#", "*.*", "*.#", "*.", "a.", "#.#", "#.*"},
		".b":      {"#", "*.b", "#.b", "*.*", "#.b.#", "*.#", "#.#", "#.*"},
		".":       {"#", "*.*", "*.#", "*.", "#.#", "#.*"},
		"a.c":     {"#", "a.*", "a.#", "*.*", "a.#.c", "*.#", "#.#", "#.*"},
		"a.b.c":   {"#", "a.#", "a.*.c", "a.#.c", "#.b.#", "*.#", "#.#", "#.*"},
		"a.b.b.c": {"#", "a.#", "a.#.c", "#.b.#", "*.#", "#.#", "#.*"},
		"A.b":     {"#", "*.b", "#.b", "*.*", "#.b.#", "*.#", "#.#", "#.*"},
		"a.**":    {"#", "a.*", "a.#", "*.*", "*.#", "a.**", "#.#", "#.*"},
		"ab":      {"*", "#", "*.#", "#.#", "#.*"},
		"*":       {"*", "#", "*.#", "#.#", "#.*"},
	} {
		r.want(t, x, key, amqp.Publishing{}, want...)
	}
	must(t, r.ch.QueueUnbind(r.queues["#"], "#", x, nil))
	must(t, r.ch.QueueUnbind(r.queues["a.*"], "a.*", x, nil))
	r.want(t, x, "a.x", amqp.Publishing{}, "a.#", "*.*", "*.#", "#.#", "#.*")
}

func TestTopicKeyWithManyWildcards(t *testing.T) {
	t.Parallel()
	needs(t, "topic-wildcards")
	r := newRouted(t)
	x := newExchange(t, r.ch, "topic", nil)
	bind(t, r.ch, r.queue(t, "many"), "#.a.#.a.#.a.#.b", x, nil)
	r.want(t, x, "a.x.a.a.y.b", amqp.Publishing{}, "many")
	r.want(t, x, "a.x.a.y.b", amqp.Publishing{})
	// A key that makes backtracking matchers work for ever.
	hostile := strings.Repeat("a.", 120) + "c"
	r.want(t, x, hostile, amqp.Publishing{})
}

func TestHeadersExchange(t *testing.T) {
	t.Parallel()
	r := newRouted(t)
	x := newExchange(t, r.ch, "headers", nil)
	for label, args := range map[string]amqp.Table{
		"all":        {"x-match": "all", "a": "1", "b": int32(2)},
		"default":    {"a": "1", "b": int32(2)},
		"any":        {"x-match": "any", "a": "1", "b": int32(2)},
		"all-x":      {"x-match": "all-with-x", "a": "1", "x-c": "3"},
		"any-x":      {"x-match": "any-with-x", "x-c": "3"},
		"skips x-":   {"x-match": "all", "a": "1", "x-c": "3"},
		"only x-":    {"x-match": "any", "x-c": "3"},
		"presence":   {"x-match": "all", "p": nil},
		"nothing":    nil,
		"any of 0":   {"x-match": "any"},
		"bool":       {"x-match": "any", "t": true},
		"float":      {"x-match": "any", "f": float64(1)},
		"wide int":   {"x-match": "any", "n": int64(7)},
		"str number": {"x-match": "any", "n": "7"},
	} {
		bind(t, r.ch, r.queue(t, label), "ignored key", x, args)
	}
	always := []string{"nothing"}
	for _, c := range []struct {
		headers amqp.Table
		want    []string
	}{
		{nil, nil},
		{amqp.Table{"a": "1"}, []string{"any", "skips x-"}},
		{amqp.Table{"a": "2"}, nil},
		{amqp.Table{"a": "1", "b": int32(2)}, []string{"all", "default", "any", "skips x-"}},
		{amqp.Table{"a": "1", "b": int8(2)}, []string{"all", "default", "any", "skips x-"}},
		{amqp.Table{"a": "1", "b": "2"}, []string{"any", "skips x-"}},
		{amqp.Table{"a": "1", "b": float64(2)}, []string{"any", "skips x-"}},
		{amqp.Table{"a": "1", "x-c": "3"}, []string{"any", "all-x", "any-x", "skips x-"}},
		{amqp.Table{"x-c": "3"}, []string{"any-x"}},
		{amqp.Table{"p": "whatever"}, []string{"presence"}},
		{amqp.Table{"p": nil}, []string{"presence"}},
		{amqp.Table{"p": amqp.Table{"deep": int32(1)}}, []string{"presence"}},
		{amqp.Table{"t": true}, []string{"bool"}},
		{amqp.Table{"t": false}, nil},
		{amqp.Table{"t": int32(1)}, nil},
		{amqp.Table{"f": float64(1)}, []string{"float"}},
		{amqp.Table{"f": int32(1)}, nil},
		{amqp.Table{"n": int32(7)}, []string{"wide int"}},
		{amqp.Table{"n": uint16(7)}, []string{"wide int"}},
		{amqp.Table{"n": "7"}, []string{"str number"}},
		{amqp.Table{"A": "1"}, nil},
	} {
		r.want(t, x, "any key", amqp.Publishing{Headers: c.headers}, append(slices.Clone(always), c.want...)...)
	}
}

func TestMessageReachesAQueueOnce(t *testing.T) {
	t.Parallel()
	r := newRouted(t)
	x, inner := newExchange(t, r.ch, "topic", nil), newExchange(t, r.ch, "fanout", nil)
	q := r.queue(t, "q")
	for _, key := range []string{"#", "*", "k", "k"} {
		bind(t, r.ch, q, key, x, nil)
	}
	bind(t, r.ch, q, "k", x, amqp.Table{"arg": int32(1)})
	bindExchange(t, r.ch, inner, "#", x, nil)
	bind(t, r.ch, q, "", inner, nil)
	r.want(t, x, "k", amqp.Publishing{Headers: amqp.Table{"CC": []any{"k", "other"}}}, "q")
}

func TestBindingIdentity(t *testing.T) {
	t.Parallel()
	r := newRouted(t)
	x := newExchange(t, r.ch, "direct", nil)
	q := r.queue(t, "q")
	bind(t, r.ch, q, "k", x, nil)
	bind(t, r.ch, q, "k", x, nil) // the same one
	bind(t, r.ch, q, "k", x, amqp.Table{"a": int32(1)})
	must(t, r.ch.QueueUnbind(q, "k", x, nil))
	r.want(t, x, "k", amqp.Publishing{}, "q")                                       // the other one still stands
	must(t, r.ch.QueueUnbind(q, "k", x, amqp.Table{"a": int32(2)}))                 // other value: not it
	r.want(t, x, "k", amqp.Publishing{}, "q")                                       //
	must(t, r.ch.QueueUnbind(q, "k", x, amqp.Table{"a": int32(1)}))                 //
	r.want(t, x, "k", amqp.Publishing{})                                            //
	must(t, r.ch.QueueUnbind(q, "k", x, nil))                                       // absent binding
	must(t, r.ch.QueueUnbind(q, "k", uniqueName("no-x"), nil))                      // absent exchange
	must(t, r.ch.QueueUnbind(uniqueName("no-q"), "k", x, nil))                      // absent queue
	must(t, r.ch.ExchangeUnbind(uniqueName("no-x"), "k", x, false, nil))            //
	must(t, r.ch.ExchangeUnbind(x, "k", uniqueName("no-x"), false, nil))            //
	must(t, r.ch.ExchangeUnbind("amq.direct", "k", x, false, amqp.Table{"a": "b"})) //
}

func TestExchangeBindingsMayFormCycles(t *testing.T) {
	t.Parallel()
	r := newRouted(t)
	var x []string
	for i := range 4 {
		x = append(x, newExchange(t, r.ch, "fanout", nil))
		bind(t, r.ch, r.queue(t, fmt.Sprint(i)), "", x[i], nil)
	}
	for i := range x {
		bindExchange(t, r.ch, x[(i+1)%4], "", x[i], nil)
	}
	bindExchange(t, r.ch, x[0], "", x[0], nil)
	for i := range x {
		r.want(t, x[i], "", amqp.Publishing{}, "0", "1", "2", "3")
	}
	must(t, r.ch.ExchangeUnbind(x[2], "", x[1], false, nil))
	r.want(t, x[0], "", amqp.Publishing{}, "0", "1")
	r.want(t, x[2], "", amqp.Publishing{}, "0", "1", "2", "3")
}

func TestExchangeBindingsFilterAtEachStep(t *testing.T) {
	t.Parallel()
	r := newRouted(t)
	outer, middle, inner := newExchange(t, r.ch, "topic", nil), newExchange(t, r.ch, "direct", nil), newExchange(t, r.ch, "headers", nil)
	bindExchange(t, r.ch, middle, "a.#", outer, nil)
	bindExchange(t, r.ch, inner, "a.b", middle, nil)
	bind(t, r.ch, r.queue(t, "q"), "", inner, amqp.Table{"h": "1"})
	r.want(t, outer, "a.b", amqp.Publishing{Headers: amqp.Table{"h": "1"}}, "q")
	r.want(t, outer, "a.b", amqp.Publishing{})
	r.want(t, outer, "a.c", amqp.Publishing{Headers: amqp.Table{"h": "1"}})
	r.want(t, outer, "b", amqp.Publishing{Headers: amqp.Table{"h": "1"}})
}

func TestAlternateExchange(t *testing.T) {
	t.Parallel()
	r := newRouted(t)
	fallback := newExchange(t, r.ch, "fanout", nil)
	x := newExchange(t, r.ch, "direct", amqp.Table{"alternate-exchange": fallback})
	bind(t, r.ch, r.queue(t, "main"), "k", x, nil)
	bind(t, r.ch, r.queue(t, "fallback"), "", fallback, nil)
	r.want(t, x, "k", amqp.Publishing{}, "main")
	r.want(t, x, "other", amqp.Publishing{}, "fallback")

	// A match that leads nowhere is a match.
	dead := newExchange(t, r.ch, "fanout", nil)
	bindExchange(t, r.ch, dead, "dead", x, nil)
	r.want(t, x, "dead", amqp.Publishing{})

	// An exchange reached by a binding has its own alternate.
	outer := newExchange(t, r.ch, "fanout", nil)
	bindExchange(t, r.ch, x, "", outer, nil)
	r.want(t, outer, "unknown", amqp.Publishing{}, "fallback")
}

func TestAlternateExchangeChainsAndCycles(t *testing.T) {
	t.Parallel()
	r := newRouted(t)
	a, b, c := nameFor(t, "a"), nameFor(t, "b"), nameFor(t, "c")
	for x, alternate := range map[string]string{a: b, b: c, c: a} {
		must(t, r.ch.ExchangeDeclare(x, "direct", false, false, false, false, amqp.Table{"alternate-exchange": alternate}))
		removeExchange(t, x)
	}
	bind(t, r.ch, r.queue(t, "c"), "k", c, nil)
	r.want(t, a, "k", amqp.Publishing{}, "c")
	r.want(t, a, "lost", amqp.Publishing{})
	must(t, r.ch.ExchangeDelete(b, false, false))
	r.want(t, a, "k", amqp.Publishing{}) // the alternate need not exist
}

func TestCCAndBCCAddRoutingKeys(t *testing.T) {
	t.Parallel()
	ch := open(t)
	x := newExchange(t, ch, "direct", nil)
	queues := map[string]string{}
	for _, key := range []string{"main", "cc", "bcc", "7", "cc2"} {
		queues[key] = privateQueue(t, ch, nil)
		bind(t, ch, queues[key], key, x, nil)
	}
	publishMessage(t, ch, x, "main", amqp.Publishing{Headers: amqp.Table{
		"CC": []any{"cc", int32(7), "cc2"}, "BCC": []any{"bcc", "cc"}, "cc": "not a routing key", "keep": true,
	}})
	for _, key := range []string{"main", "cc", "bcc", "cc2"} {
		d := get(t, ch, queues[key], true)
		if d.RoutingKey != "main" {
			t.Errorf("queue %s: routing key %q, want the published one", key, d.RoutingKey)
		}
		if _, ok := d.Headers["BCC"]; ok {
			t.Errorf("queue %s: BCC is delivered", key)
		}
		if cc, _ := d.Headers["CC"].([]any); len(cc) != 3 || d.Headers["keep"] != true {
			t.Errorf("queue %s: headers %v, want all but BCC", key, d.Headers)
		}
		wantBodies(t, ch, queues[key])
	}
	wantBodies(t, ch, queues["7"])

	// Through the default exchange they name queues.
	publishMessage(t, ch, "", queues["main"], amqp.Publishing{Body: []byte("m"), Headers: amqp.Table{"CC": []any{queues["cc"], queues["main"]}}})
	wantBodies(t, ch, queues["main"], "m")
	wantBodies(t, ch, queues["cc"], "m")
}

func TestFanoutDeliversToManyChannelsOfOneConnection(t *testing.T) {
	t.Parallel()
	const consumers, messages = 8, 500
	conn := dial(t)
	pub := channel(t, conn)
	x := newExchange(t, pub, "fanout", nil)
	type stream struct {
		ch         *amqp.Channel
		deliveries <-chan amqp.Delivery
	}
	var streams []stream
	for range consumers {
		ch := channel(t, conn)
		q := privateQueue(t, ch, nil)
		bind(t, ch, q, "", x, nil)
		d, err := ch.Consume(q, "", true, true, false, false, nil)
		must(t, err)
		streams = append(streams, stream{ch, d})
	}
	done := make(chan error, consumers)
	for _, s := range streams {
		go func() {
			for i := range messages {
				select {
				case d := <-s.deliveries:
					if want := fmt.Sprint("message ", i); string(d.Body) != want {
						done <- fmt.Errorf("delivered %q, want %q", d.Body, want)
						return
					}
				case <-time.After(patience):
					done <- fmt.Errorf("message %d is not delivered", i)
					return
				}
			}
			done <- nil
		}()
	}
	for i := range messages {
		publish(t, pub, x, "", fmt.Sprint("message ", i))
	}
	for range consumers {
		must(t, <-done)
	}
}
