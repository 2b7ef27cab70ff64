package exchange

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"github.com/settmq/settmq/amqp"
)

func hashRouter(args ...amqp.Field) Router {
	x, _ := New(ConsistentHash, args, testEnv)
	return x
}

// pick routes a message, which must go to exactly one destination.
func pick(t interface{ Fatalf(string, ...any) }, x Router, m *Message) string {
	got := x.Route(nil, m)
	if len(got) != 1 {
		t.Fatalf("routed to %v, want one destination", names(got))
	}
	return got[0].(*dest).name
}

// chiSquare compares counts with the shares they should have.
func chiSquare(counts, shares []float64) (sum float64) {
	n, total := 0.0, 0.0
	for i := range counts {
		n += counts[i]
		total += shares[i]
	}
	for i := range counts {
		want := n * shares[i] / total
		sum += (counts[i] - want) * (counts[i] - want) / want
	}
	return sum
}

// TestConsistentHashDistribution: keys that look alike are spread as evenly as chance would, by
// weight. The bound is that of one in a million runs with random numbers.
func TestConsistentHashDistribution(t *testing.T) {
	for _, weights := range [][]int{{1, 1}, {1, 1, 1, 1, 1}, {10, 10, 10, 10}, {1, 2}, {1, 2, 3, 4}, {1, 100}, {5000, 10000, 10000}} {
		x := hashRouter()
		index := map[string]int{}
		shares := make([]float64, len(weights))
		for i, w := range weights {
			d := &dest{fmt.Sprintf("queue-%d", i)}
			index[d.name], shares[i] = i, float64(w)
			x.Bind(strconv.Itoa(w), nil, d)
		}
		for _, form := range []string{"%d", "key-%d", "orders.eu.%08d", "a-rather-long-common-prefix/customer/%d/order"} {
			counts := make([]float64, len(weights))
			for i := range 20_000 {
				counts[index[pick(t, x, &Message{RoutingKey: fmt.Sprintf(form, i)})]]++
			}
			// Mean and deviation of chi square are k and sqrt(2k).
			k := float64(len(weights) - 1)
			if c := chiSquare(counts, shares); c > k+5*math.Sqrt(2*k)+12 {
				t.Errorf("weights %v, keys %q: %v, chi square %.1f", weights, form, counts, c)
			}
		}
	}
}

// TestConsistentHashMovesAsLittleAsCanBe: a new binding only takes keys, one that goes only
// gives its own away, a greater weight only takes; and the order of the bindings, hence a
// restart, changes nothing.
func TestConsistentHashMovesAsLittleAsCanBe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "n")
		weights := rapid.SliceOfN(rapid.IntRange(1, 20), n, n).Draw(t, "weights")
		x := hashRouter()
		ds := make([]*dest, n)
		for i := range ds {
			ds[i] = &dest{fmt.Sprintf("q%d", i)}
			x.Bind(strconv.Itoa(weights[i]), nil, ds[i])
		}
		route := func(x Router) (to []string) {
			for i := range 300 {
				to = append(to, pick(t, x, &Message{RoutingKey: strconv.Itoa(i)}))
			}
			return to
		}
		before := route(x)

		other := hashRouter()
		for _, i := range rapid.Permutation(slices.Collect(indexes(n))).Draw(t, "order") {
			other.Bind(strconv.Itoa(weights[i]), nil, ds[i])
		}
		if !slices.Equal(route(other), before) {
			t.Fatalf("the order of bindings matters")
		}

		w := strconv.Itoa(rapid.IntRange(1, 20).Draw(t, "weight of the new one"))
		added := &dest{"new"}
		x.Bind(w, nil, added)
		for i, to := range route(x) {
			if to != before[i] && to != "new" {
				t.Fatalf("key %d moved from %s to %s when another was bound", i, before[i], to)
			}
		}
		x.Unbind(w, nil, added)
		if !slices.Equal(route(x), before) {
			t.Fatalf("binding and unbinding is not the same as nothing")
		}

		i := rapid.IntRange(0, n-1).Draw(t, "which")
		x.Unbind(strconv.Itoa(weights[i]), nil, ds[i])
		x.Bind(strconv.Itoa(weights[i]+5), nil, ds[i])
		for k, to := range route(x) {
			if to != before[k] && to != ds[i].name {
				t.Fatalf("key %d moved from %s to %s when %s got heavier", k, before[k], to, ds[i].name)
			}
		}
	})
}

func indexes(n int) func(func(int) bool) {
	return func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
	}
}

// TestConsistentHashIsTheSameForEver: these values must not change from one version to the next.
func TestConsistentHashIsTheSameForEver(t *testing.T) {
	x := hashRouter()
	for i := range 5 {
		x.Bind(strconv.Itoa(i+1), nil, &dest{fmt.Sprintf("q%d", i)})
	}
	var got []string
	for i := range 16 {
		got = append(got, pick(t, x, &Message{RoutingKey: fmt.Sprintf("key%d", i)}))
	}
	want := []string{"q4", "q2", "q4", "q4", "q3", "q4", "q4", "q4", "q0", "q4", "q0", "q2", "q2", "q1", "q4", "q3"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestConsistentHashSecondBindingOfADestinationDoesNotCount(t *testing.T) {
	x := hashRouter()
	a, b := &dest{"a"}, &dest{"b"}
	x.Bind("1", nil, a)
	x.Bind("1", nil, b)
	share := func() (n int) {
		for i := range 2000 {
			if pick(t, x, &Message{RoutingKey: strconv.Itoa(i)}) == "a" {
				n++
			}
		}
		return n
	}
	even := share()
	x.Bind("100", nil, a)
	if n := share(); n != even {
		t.Errorf("a got %d keys with a second binding, %d before", n, even)
	}
	x.Unbind("1", nil, a)
	if n := share(); n < 1900 {
		t.Errorf("a got %d of 2000 keys with weight 100 to 1", n)
	}
	x.Unbind("7", nil, a) // never bound
	x.Unbind("100", nil, a)
	if n := share(); n != 0 {
		t.Errorf("a got %d keys without a binding", n)
	}
}

func TestConsistentHashOfHeadersAndProperties(t *testing.T) {
	headers := func(h ...amqp.Field) *amqp.Properties {
		return &amqp.Properties{Flags: amqp.PropHeaders, Headers: amqp.Table(h).Append(nil)}
	}
	h := func(v amqp.Value) *amqp.Properties { return headers(amqp.Field{Name: "h", Value: v}) }
	byHeader := amqp.Field{Name: "hash-header", Value: amqp.String("h")}
	by := func(p string) amqp.Field { return amqp.Field{Name: "hash-property", Value: amqp.String(p)} }
	for _, tt := range []struct {
		name string
		arg  amqp.Field
		a, b *amqp.Properties
		same bool
	}{
		{"integers of other widths", byHeader, h(amqp.Int8(5)), h(amqp.Int64(5)), true},
		{"a string is no number", byHeader, h(amqp.String("5")), h(amqp.Int64(5)), false},
		{"other headers do not matter", byHeader, h(amqp.String("x")), headers(amqp.Field{Name: "a", Value: amqp.Void()}, amqp.Field{Name: "h", Value: amqp.String("x")}), true},
		{"without the header", byHeader, &amqp.Properties{}, headers(amqp.Field{Name: "H", Value: amqp.Int32(1)}), true},
		{"tables", byHeader, h(amqp.TableValue(amqp.Table{{Name: "a", Value: amqp.Int32(1)}})), h(amqp.TableValue(amqp.Table{{Name: "a", Value: amqp.Int32(2)}})), false},
		{"message-id", by("message_id"), &amqp.Properties{Flags: amqp.PropMessageID, MessageID: []byte("1")}, &amqp.Properties{Flags: amqp.PropMessageID, MessageID: []byte("2")}, false},
		{"correlation-id", by("correlation_id"), &amqp.Properties{Flags: amqp.PropCorrelationID, CorrelationID: []byte("1")}, &amqp.Properties{Flags: amqp.PropCorrelationID, CorrelationID: []byte("2")}, false},
		{"timestamp", by("timestamp"), &amqp.Properties{Flags: amqp.PropTimestamp, Timestamp: 1}, &amqp.Properties{Flags: amqp.PropTimestamp, Timestamp: 2}, false},
		{"without the property", by("timestamp"), &amqp.Properties{}, &amqp.Properties{Timestamp: 2}, true},
		{"another property", by("message_id"), &amqp.Properties{Flags: amqp.PropCorrelationID, CorrelationID: []byte("1")}, &amqp.Properties{}, true},
	} {
		x := hashRouter(tt.arg)
		for i := range 1000 { // so many that two hash keys share one with small probability
			x.Bind("1", nil, &dest{strconv.Itoa(i)})
		}
		if x.Needs()&MessageProperties == 0 {
			t.Errorf("%s: the router does not ask for properties", tt.name)
		}
		// The routing key must not matter.
		a, b := pick(t, x, &Message{RoutingKey: "k1", Properties: tt.a}), pick(t, x, &Message{RoutingKey: "k2", Properties: tt.b})
		if (a == b) != tt.same {
			t.Errorf("%s: %s and %s", tt.name, a, b)
		}
	}
}

func TestModulusHashIsEvenAndStable(t *testing.T) {
	x, _ := New(ModulusHash, nil, testEnv)
	y, _ := New(ModulusHash, nil, testEnv)
	a, b, c := &dest{"a"}, &dest{"b"}, &dest{"c"}
	for _, d := range []*dest{a, b, c} {
		x.Bind("", nil, d)
	}
	for _, d := range []*dest{c, a, b} {
		y.Bind("", nil, d)
	}
	counts := map[string]float64{}
	for i := range 9000 {
		m := &Message{RoutingKey: fmt.Sprint("key", i)}
		to := pick(t, x, m)
		counts[to]++
		if other := pick(t, y, m); other != to {
			t.Fatalf("%s goes to %s or to %s, by the order of bindings", m.RoutingKey, to, other)
		}
	}
	if s := chiSquare([]float64{counts["a"], counts["b"], counts["c"]}, []float64{1, 1, 1}); s > 25 {
		t.Errorf("%v, chi square %.1f", counts, s)
	}
}

// TestRandomCountsBindings: a queue with more bindings gets more, as in RabbitMQ.
func TestRandomCountsBindings(t *testing.T) {
	for _, kind := range []string{Random, LocalRandom} {
		x, _ := New(kind, anyArgs, testEnv)
		a, b := &dest{"a"}, &dest{"b"}
		for i := range 3 {
			x.Bind(strconv.Itoa(i), nil, a)
		}
		x.Bind("", nil, b)
		counts := map[string]float64{}
		for range 8000 {
			counts[pick(t, x, &Message{})]++
		}
		if s := chiSquare([]float64{counts["a"], counts["b"]}, []float64{3, 1}); s > 25 {
			t.Errorf("%s: %v", kind, counts)
		}
		x.Unbind("0", nil, a)
		x.Unbind("1", nil, a)
		x.Unbind("2", nil, a)
		for range 100 {
			if pick(t, x, &Message{}) == "a" {
				t.Fatalf("%s: a is not bound any more", kind)
			}
		}
		if x.Needs().Cacheable() {
			t.Errorf("%s: the first result would hold for ever", kind)
		}
	}
}

func TestNeeds(t *testing.T) {
	for kind, want := range map[string]Needs{
		Direct: EveryKey, Topic: EveryKey, Fanout: 0, RecentHistory: 0, Headers: MessageHeaders, ConsistentHash: 0, ModulusHash: 0,
		Random: Chance, LocalRandom: Chance,
	} {
		x, _ := New(kind, anyArgs, testEnv)
		if got := x.Needs(); got != want {
			t.Errorf("%s: %b, want %b", kind, got, want)
		}
	}
}

func TestHashesRouteWithoutAllocating(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations are not counted under the race detector")
	}
	m := &Message{RoutingKey: "key", Properties: &amqp.Properties{Flags: amqp.PropMessageID, MessageID: []byte("1")}}
	for _, x := range []Router{hashRouter(), hashRouter(amqp.Field{Name: "hash-property", Value: amqp.String("message_id")}), &modulusHash{spread{env: testEnv}}} {
		for i := range 10 {
			x.Bind(strconv.Itoa(i+1), nil, &dest{strconv.Itoa(i)})
		}
		dst := make([]Destination, 0, 1)
		if n := testing.AllocsPerRun(1000, func() { dst = x.Route(dst[:0], m) }); n != 0 {
			t.Errorf("%T: %v allocations", x, n)
		}
	}
}

func BenchmarkConsistentHash(b *testing.B) {
	for _, n := range []int{4, 64, 1024} {
		for name, w := range map[string]int{"equal": 0, "weighted": 1} {
			x := hashRouter()
			for i := range n {
				x.Bind(strconv.Itoa(10+w*i%5), nil, &dest{strconv.Itoa(i)})
			}
			b.Run(fmt.Sprintf("bindings=%d/%s", n, name), func(b *testing.B) { benchmarkRoute(b, x, &Message{RoutingKey: "orders.eu.12345"}) })
		}
	}
}
