package broker

import (
	"testing"

	"github.com/settmq/settmq/amqp"
)

// A route that a channel has used before costs nothing to find, to whatever kind of exchange.
func TestRememberedRouteAllocatesNothing(t *testing.T) {
	v, a := newBroker(t).VHost("/"), actor{id: 1}
	for _, name := range []string{"q1", "q2"} {
		_, err := v.DeclareQueue(a, QueueDeclare{Name: name, Durable: true})
		must(t, err)
		for _, source := range []string{"amq.direct", "amq.fanout", "amq.topic"} {
			must(t, v.Bind(a, BindingSpec{Source: source, Destination: name, Kind: QueueResource, RoutingKey: "a.b"}))
		}
	}
	r := v.NewRouter()
	for _, c := range []struct {
		exchange, key string
		queues        int
	}{{"", "q1", 1}, {"amq.direct", "a.b", 2}, {"amq.fanout", "any", 2}, {"amq.topic", "a.b", 2}, {"amq.topic", "nobody", 0}} {
		exchange, key := []byte(c.exchange), []byte(c.key)
		var p amqp.Properties
		if n := testing.AllocsPerRun(100, func() {
			rt, err := r.Route(exchange, key, &p)
			must(t, err)
			if len(rt.Queues) != c.queues {
				t.Fatalf("%s/%s: %d queues, want %d", c.exchange, c.key, len(rt.Queues), c.queues)
			}
		}); n != 0 {
			t.Errorf("%q/%q: %v allocations", c.exchange, c.key, n)
		}
	}
}
