package exchange

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/settmq/settmq/amqp"
)

// testEnv names destinations of the tests; its random numbers are always the same ones.
var testEnv = Environment{
	Name:   func(d Destination) string { return d.(*dest).name },
	Random: rand.New(rand.NewPCG(1, 1)).IntN,
}

// raceEnabled is set by race_test.go.
var raceEnabled bool

// anyArgs do for every kind.
var anyArgs = amqp.Table{{Name: "x-delayed-type", Value: amqp.String(Direct)}}

func TestNewKnowsItsKinds(t *testing.T) {
	for _, kind := range Kinds() {
		x, ok := New(kind, anyArgs, testEnv)
		if !ok || !x.Empty() {
			t.Errorf("New(%q) = %v, %v", kind, x, ok)
			continue
		}
		if !Known(kind) {
			t.Errorf("%s is not known", kind)
		}
		if got := x.Route(nil, &Message{RoutingKey: "a.b"}); got != nil {
			t.Errorf("%s: empty exchange routes to %v", kind, got)
		}
	}
	for _, kind := range []string{"", "Direct", "x-unknown", "headers ", Delayed} {
		if _, ok := New(kind, nil, testEnv); ok {
			t.Errorf("New(%q) is a router", kind)
		}
	}
}

func TestDirectMatchesTheExactKey(t *testing.T) {
	x, _ := New(Direct, nil, testEnv)
	for _, b := range [][2]string{{"a", "1"}, {"a", "2"}, {"b", "3"}, {"", "4"}, {"a.*", "5"}, {"#", "6"}} {
		x.Bind(b[0], nil, &dest{b[1]})
	}
	for key, want := range map[string][]string{
		"a": {"1", "2"}, "b": {"3"}, "": {"4"}, "a.*": {"5"}, "#": {"6"}, "A": nil, "a.b": nil, "a ": nil,
	} {
		if got := names(x.Route(nil, &Message{RoutingKey: key})); !slices.Equal(got, want) {
			t.Errorf("key %q: got %v, want %v", key, got, want)
		}
	}
}

func TestFanoutIgnoresKeys(t *testing.T) {
	x, _ := New(Fanout, nil, testEnv)
	a, b := &dest{"a"}, &dest{"b"}
	x.Bind("k", nil, a)
	x.Bind("", nil, b)
	x.Bind("other", nil, a)
	if got := names(x.Route(nil, &Message{RoutingKey: "anything"})); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("got %v", got)
	}
	x.Unbind("k", nil, a)
	if got := names(x.Route(nil, &Message{})); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("one of two bindings removed: got %v", got)
	}
	x.Unbind("other", nil, a)
	if got := names(x.Route(nil, &Message{})); !slices.Equal(got, []string{"b"}) {
		t.Errorf("both bindings removed: got %v", got)
	}
}

func TestRouteAppends(t *testing.T) {
	for _, kind := range Kinds() {
		x, _ := New(kind, anyArgs, testEnv)
		old, d := &dest{"old"}, &dest{"new"}
		x.Bind("k", nil, d)
		if got := names(x.Route([]Destination{old}, &Message{RoutingKey: "k"})); !slices.Equal(got, []string{"new", "old"}) {
			t.Errorf("%s: got %v", kind, got)
		}
	}
}

func TestUnbindingWhatIsNotBoundDoesNothing(t *testing.T) {
	for _, kind := range Kinds() {
		x, _ := New(kind, anyArgs, testEnv)
		a, b := &dest{"a"}, &dest{"b"}
		x.Unbind("k", nil, a)
		x.Bind("k", nil, a)
		x.Unbind("k", nil, b)
		x.Unbind("k.k", nil, b)
		if got := names(x.Route(nil, &Message{RoutingKey: "k"})); !slices.Equal(got, []string{"a"}) || x.Empty() {
			t.Errorf("%s: got %v", kind, got)
		}
		x.Unbind("k", nil, a)
		if !x.Empty() {
			t.Errorf("%s: not empty", kind)
		}
	}
}

// A bag agrees with a list in which every destination is counted.
func TestBagAgainstModel(t *testing.T) {
	for _, n := range []int{1, 2, 5, 40, 200} {
		r := rand.New(rand.NewPCG(uint64(n), 2))
		var b bag
		model := map[string]int{}
		ds := make([]*dest, n)
		for i := range ds {
			ds[i] = &dest{fmt.Sprint(i)}
		}
		for i := range 4000 {
			d := ds[r.IntN(n)]
			if growing := i/500%2 == 0; r.IntN(10) < 3 != growing {
				b.add(d)
				model[d.name]++
			} else {
				if got, want := b.remove(d), model[d.name] > 0; got != want {
					t.Fatalf("n=%d step %d: remove = %v, want %v", n, i, got, want)
				}
				if model[d.name]--; model[d.name] <= 0 {
					delete(model, d.name)
				}
			}
			var want []string
			for name := range model {
				want = append(want, name)
			}
			slices.Sort(want)
			if got := names(b.appendTo(nil)); !slices.Equal(got, want) {
				t.Fatalf("n=%d step %d: got %v, want %v", n, i, got, want)
			}
			if b.empty() != (len(model) == 0) {
				t.Fatalf("n=%d step %d: empty() = %v", n, i, b.empty())
			}
		}
		for _, d := range ds {
			for b.remove(d) {
			}
		}
		if b.first != nil || b.more != nil {
			t.Fatalf("n=%d: something is left: %+v", n, b)
		}
	}
}

func TestTableShrinks(t *testing.T) {
	var x table[int, int]
	for i := range 10_000 {
		x.set(i, i)
	}
	for i := range 9_990 {
		x.delete(i)
	}
	if x.peak > shrinkAbove {
		t.Errorf("%d entries in a map made for %d", x.len(), x.peak)
	}
	for i := 9_990; i < 10_000; i++ {
		if v, ok := x.get(i); !ok || v != i {
			t.Errorf("entry %d = %d, %v", i, v, ok)
		}
		x.delete(i)
	}
	if x.m != nil {
		t.Error("an empty table holds a map")
	}
}

func TestDirectAndFanoutRouteWithoutAllocating(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations are not counted under the race detector")
	}
	for _, kind := range []string{Direct, Fanout} {
		x, _ := New(kind, anyArgs, testEnv)
		for i := range 50 {
			x.Bind("k", nil, &dest{fmt.Sprint(i)})
		}
		dst := make([]Destination, 0, 50)
		m := &Message{RoutingKey: "k"}
		if n := testing.AllocsPerRun(1000, func() { dst = x.Route(dst[:0], m) }); n != 0 || len(dst) != 50 {
			t.Errorf("%s: %v allocations, %d destinations", kind, n, len(dst))
		}
	}
}

func BenchmarkDirect(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		x, _ := New(Direct, nil, testEnv)
		for i := range n {
			x.Bind(fmt.Sprint("key-", i), nil, topicDests[i%len(topicDests)])
		}
		b.Run(fmt.Sprintf("bindings=%d", n), func(b *testing.B) { benchmarkRoute(b, x, &Message{RoutingKey: "key-77"}) })
	}
}

func BenchmarkFanout(b *testing.B) {
	for _, n := range []int{1, 50, 10_000} {
		x, _ := New(Fanout, nil, testEnv)
		for i := range n {
			x.Bind("", nil, &dest{fmt.Sprint(i)})
		}
		b.Run(fmt.Sprintf("bindings=%d", n), func(b *testing.B) { benchmarkRoute(b, x, &Message{}) })
	}
}
