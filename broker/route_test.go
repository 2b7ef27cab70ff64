package broker

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/storage"
)

func TestExchangeCyclesEndAndReachEachQueueOnce(t *testing.T) {
	v := newBroker(t).VHost("/")
	for _, x := range []string{"a", "b", "c"} {
		declareExchange(t, v, x, "fanout")
		declareQueue(t, v, "q"+x, false)
		bind(t, v, x, "q"+x, "", QueueResource)
		bind(t, v, x, "q"+x, "another key", QueueResource)
	}
	bind(t, v, "a", "b", "", ExchangeResource)
	bind(t, v, "b", "c", "", ExchangeResource)
	bind(t, v, "c", "a", "", ExchangeResource)
	bind(t, v, "a", "a", "", ExchangeResource)
	r := v.NewRouter()
	expectRoute(t, r, "b", "k", "qa", "qb", "qc")
	// Cycles go as easily as they came.
	must(t, v.DeleteExchange(actor{id: 1}, "a", false))
	expectRoute(t, r, "b", "k", "qb", "qc")
}

func TestAlternateExchangeGetsWhatNothingMatches(t *testing.T) {
	v := newBroker(t).VHost("/")
	alternate := func(name string) amqp.Field { return field("alternate-exchange", amqp.String(name)) }
	declareExchange(t, v, "main", "direct", alternate("second"))
	declareExchange(t, v, "second", "topic", alternate("last"))
	declareExchange(t, v, "last", "fanout", alternate("main")) // a ring of alternates
	declareExchange(t, v, "sink", "direct")
	for _, q := range []string{"qm", "qs", "ql"} {
		declareQueue(t, v, q, false)
	}
	bind(t, v, "main", "qm", "m", QueueResource)
	bind(t, v, "main", "sink", "swallowed", ExchangeResource)
	bind(t, v, "second", "qs", "s.#", QueueResource)
	r := v.NewRouter()
	expectRoute(t, r, "main", "m", "qm")
	expectRoute(t, r, "main", "s.x", "qs")
	expectRoute(t, r, "main", "other") // last has no bindings, main is visited already
	bind(t, v, "last", "ql", "", QueueResource)
	expectRoute(t, r, "main", "other", "ql")
	// A binding that matches counts, also when its exchange leads nowhere.
	expectRoute(t, r, "main", "swallowed")
	must(t, v.DeleteExchange(actor{id: 1}, "second", false))
	expectRoute(t, r, "main", "s.x")
	declareExchange(t, v, "second", "fanout")
	bind(t, v, "second", "qs", "", QueueResource)
	expectRoute(t, r, "main", "s.x", "qs")
}

func TestSenderSelectedQueues(t *testing.T) {
	v := newBroker(t).VHost("/")
	declareExchange(t, v, "topic", "topic")
	declareExchange(t, v, "headers", "headers")
	for _, q := range []string{"to", "cc", "bcc", "h"} {
		declareQueue(t, v, q, false)
		bind(t, v, "topic", q, q+".#", QueueResource)
	}
	bind(t, v, "headers", "h", "", QueueResource, field("x-match", amqp.String("any")), field("k", amqp.Int32(1)))
	r := v.NewRouter()
	cc, bcc := field("CC", texts("cc", "to", "cc")), field("BCC", texts("bcc", "none"))
	for _, tt := range []struct {
		exchange, key string
		headers       []amqp.Field
		want          []string
	}{
		{"", "to", nil, []string{"to"}},
		{"", "to", []amqp.Field{cc}, []string{"cc", "to"}},
		{"", "to", []amqp.Field{cc, bcc}, []string{"bcc", "cc", "to"}},
		{"", "nowhere", []amqp.Field{bcc}, []string{"bcc"}},
		{"", "to", nil, []string{"to"}}, // the extra keys of the last one are not remembered
		{"topic", "to.x", []amqp.Field{field("CC", texts("cc.y.z"))}, []string{"cc", "to"}},
		{"headers", "", []amqp.Field{field("k", amqp.Int32(1)), cc}, []string{"h"}},
		{"headers", "", []amqp.Field{field("k", amqp.Int32(2)), cc}, nil},
		{"", "to", []amqp.Field{field("CC", amqp.ArrayValue(amqp.Int32(3)))}, []string{"to"}},
	} {
		if got := routed(t, r, tt.exchange, tt.key, tt.headers...); !slices.Equal(got, tt.want) && len(got)+len(tt.want) > 0 {
			t.Errorf("%q %q with %v goes to %v, want %v", tt.exchange, tt.key, tt.headers, got, tt.want)
		}
	}
	p := amqp.Properties{Flags: amqp.PropHeaders, Headers: amqp.Table{field("BCC", amqp.String("to"))}.Append(nil)}
	_, err := r.Route(nil, []byte("to"), &p)
	refused(t, err, 406, `PRECONDITION_FAILED - invalid message: {unacceptable_type_in_header,"BCC",longstr}`)
}

func TestPublishRefusals(t *testing.T) {
	v := newBroker(t).VHost("/")
	must(t, v.DeclareExchange(System{}, ExchangeDeclare{Name: "in", Type: "fanout", Internal: true}))
	r := v.NewRouter()
	for range 2 { // refusals are not cached as routes
		_, err := r.Route([]byte("absent"), nil, &amqp.Properties{})
		refused(t, err, 404, "NOT_FOUND - no exchange 'absent' in vhost '/'")
		_, err = r.Route([]byte("in"), nil, &amqp.Properties{})
		refused(t, err, 403, "ACCESS_REFUSED - cannot publish to internal exchange 'in' in vhost '/'")
	}
	declareExchange(t, v, "absent", "fanout")
	expectRoute(t, r, "absent", "")
}

func TestRouterForgetsWhenItRemembersTooMuch(t *testing.T) {
	v := newBroker(t).VHost("/")
	declareExchange(t, v, "x", "fanout")
	declareQueue(t, v, "q", false)
	bind(t, v, "x", "q", "", QueueResource)
	r := v.NewRouter()
	for i := range 3 * maxCachedRoutes {
		expectRoute(t, r, "x", fmt.Sprint(i), "q")
		if len(r.cache) > maxCachedRoutes+1 {
			t.Fatalf("%d routes are remembered", len(r.cache))
		}
	}
}

// markedSink counts the marked messages that it gets.
type markedSink struct {
	noSink
	n atomic.Int32
}

func (s *markedSink) Admit(*queue.Consumer, uint32) bool { return true }

func (s *markedSink) Deliver(_ *queue.Consumer, d *queue.Delivery, _ *queue.Wakes) {
	if d.Message.Exchange == "marked" {
		s.n.Add(1)
	}
}

// TestRoutesAreNeverStale publishes from several goroutines, with a router each, while
// another one binds and unbinds. A publish that begins after Bind returned reaches the
// queue, one that begins after Unbind returned does not.
func TestRoutesAreNeverStale(t *testing.T) {
	v := newBroker(t).VHost("/")
	declareExchange(t, v, "x", "topic")
	kept := declareQueue(t, v, "kept", false)
	bind(t, v, "x", "kept", "#", QueueResource)
	var noise sync.WaitGroup
	stop := make(chan struct{})
	published := make([]int, 3)
	for i := range published {
		noise.Go(func() {
			r := v.NewRouter()
			var w queue.Wakes
			for {
				select {
				case <-stop:
					return
				default:
				}
				rt, err := r.Route([]byte("x"), []byte("a.b"), &amqp.Properties{})
				if err != nil {
					t.Errorf("route: %v", err)
					return
				}
				rt.Publish(&storage.Message{Transient: true}, &w)
				published[i]++
			}
		})
	}
	r := v.NewRouter()
	var w queue.Wakes
	publish := func() {
		rt, err := r.Route([]byte("x"), []byte("a.b"), &amqp.Properties{})
		must(t, err)
		rt.Publish(&storage.Message{Transient: true, Exchange: "marked"}, &w)
	}
	mine := 0
	for round := range 200 {
		name := fmt.Sprintf("q%d", round%3)
		q := declareQueue(t, v, name, false)
		s := &markedSink{}
		if err := q.Subscribe(&queue.Consumer{ID: v.broker.NextConsumerID(), NoAck: true, Queue: q, Sink: s}, nil, &w); err != nil {
			t.Fatal(err)
		}
		publish()
		mine++
		if n := s.n.Load(); n != 0 {
			t.Fatalf("round %d: a queue without a binding got a message", round)
		}
		bind(t, v, "x", name, "a.*", QueueResource)
		publish()
		mine++
		if n := s.n.Load(); n != 1 {
			t.Fatalf("round %d: the queue got %d of 1 messages published after it was bound", round, n)
		}
		if _, err := v.DeleteQueue(actor{id: 1}, name, false, false); err != nil {
			t.Fatal(err)
		}
		expectRoute(t, r, "x", "a.b", "kept")
	}
	close(stop)
	noise.Wait()
	if n := kept.Info().Ready; n != mine+published[0]+published[1]+published[2] {
		t.Errorf("%d messages in the queue that was always bound, %d were published", n, mine+published[0]+published[1]+published[2])
	}
}
