package exchange

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// dest is what the tests bind: a pointer with a name.
type dest struct{ name string }

func names(ds []Destination) []string {
	var out []string
	for _, d := range ds {
		out = append(out, d.(*dest).name)
	}
	slices.Sort(out)
	return out
}

// words splits a key as AMQP topics do: the empty key has no words.
func words(key string) []string {
	if key == "" {
		return nil
	}
	return strings.Split(key, ".")
}

// naiveMatch is the definition of a topic match, written down without any cleverness.
func naiveMatch(pattern, key []string) bool {
	if len(pattern) == 0 {
		return len(key) == 0
	}
	switch pattern[0] {
	case "#":
		return naiveMatch(pattern[1:], key) || len(key) > 0 && naiveMatch(pattern, key[1:])
	case "*":
		return len(key) > 0 && naiveMatch(pattern[1:], key[1:])
	default:
		return len(key) > 0 && pattern[0] == key[0] && naiveMatch(pattern[1:], key[1:])
	}
}

func topicMatches(pattern, key string) bool {
	var x topic
	x.Bind(pattern, nil, &dest{pattern})
	return len(x.Route(nil, &Message{RoutingKey: key})) > 0
}

func TestTopicMatch(t *testing.T) {
	tests := []struct {
		pattern string
		yes, no []string
	}{
		{"", []string{""}, []string{"a", ".", "a."}},
		{"a", []string{"a"}, []string{"", "A", "a.", ".a", "a.a", "aa"}},
		{"a.b.c", []string{"a.b.c"}, []string{"a.b", "a.b.c.d", "a.b.C", "a..c"}},
		{"*", []string{"a", "*", "#"}, []string{"", ".", "a.b"}},
		{"#", []string{"", "a", ".", "a.b.c", "...."}, nil},
		{"*.*", []string{"a.b", ".", "a.", ".b"}, []string{"", "a", "a.b.c"}},
		{"a.*", []string{"a.b", "a."}, []string{"a", "b.a", "a.b.c"}},
		{"*.a", []string{"b.a", ".a"}, []string{"a", "a.b"}},
		{"a.#", []string{"a", "a.", "a.b", "a.b.c"}, []string{"", "b", "aa", "ab.a"}},
		{"#.a", []string{"a", "b.a", "a.a", ".a", "c.b.a"}, []string{"", "a.b", "a."}},
		{"a.#.b", []string{"a.b", "a.c.b", "a.b.b", "a..b"}, []string{"a", "b", "ab", "a.b.c"}},
		{"#.a.#", []string{"a", "b.a", "a.b", "b.a.b", "a.a"}, []string{"", "b", "b.b"}},
		{"*.#", []string{"a", "a.b", ".", "a."}, []string{""}},
		{"#.*", []string{"a", "a.b", "."}, []string{""}},
		{"#.*.#", []string{"a", "a.b", "."}, []string{""}},
		{"#.#", []string{"", "a", "a.b"}, nil},
		{"#.#.#.a", []string{"a", "b.a", "b.c.d.a"}, []string{"", "a.b"}},
		{"*.#.*", []string{"a.b", ".", "a.b.c"}, []string{"", "a"}},
		{"#.a.#.b.#.c", []string{"a.b.c", "x.a.x.b.x.c"}, []string{"a.c.b", "b.a.c", "a.b.c.d"}},
		{"a.", []string{"a."}, []string{"a", "a.b", "a.."}},
		{".", []string{"."}, []string{"", "a", ".."}},
		{"*a", []string{"*a"}, []string{"ba", "a"}},
		{"#a.##", []string{"#a.##"}, []string{"a", "ba.b"}},
		{"*.stock.#", []string{"usd.stock", "eur.stock.db"}, []string{"stock.nasdaq", "a.b.stock"}},
	}
	for _, tt := range tests {
		for _, key := range tt.yes {
			if !topicMatches(tt.pattern, key) {
				t.Errorf("%q does not match %q", tt.pattern, key)
			}
		}
		for _, key := range tt.no {
			if topicMatches(tt.pattern, key) {
				t.Errorf("%q matches %q", tt.pattern, key)
			}
		}
	}
}

// Many bindings at once, with the destinations each key has to reach.
func TestTopicRoutesToEveryMatchingBinding(t *testing.T) {
	bindings := []string{
		"a.b.c", "a.*.c", "a.#.b", "a.b.b.c", "#", "#.#", "*", "*.*", "a.*", "*.b.c", "a.#",
		"a.#.#", "b.b.c", "a.b.b", "a.b", "b.c", "", "*.*.*", "vodka.martini", "a.b.c.d.#", "*.#",
		"#.*", "*.#.#", "#.#.*", "*.#.*.#", "..", "#.c",
	}
	var x topic
	for _, b := range bindings {
		x.Bind(b, nil, &dest{b})
	}
	for _, key := range []string{
		"", ".", "..", "a", "a.b", "a.b.c", "a.b.b", "a.c.c", "nothing.here.at.all", "b.b.c", "b.c",
		"oneword", "vodka.martini", "a.b.c.d", "a.b.c.d.e.f", "a..b", "*", "#",
	} {
		var want []string
		for _, b := range bindings {
			if naiveMatch(words(b), words(key)) {
				want = append(want, b)
			}
		}
		slices.Sort(want)
		if got := names(x.Route(nil, &Message{RoutingKey: key})); !slices.Equal(got, want) {
			t.Errorf("key %q\n got %q\nwant %q", key, got, want)
		}
	}
}

// randomKey joins up to n words of a small alphabet; wild adds the two wildcards.
func randomKey(r *rand.Rand, n int, wild bool) string {
	alphabet := []string{"a", "b", "c", "", "aa"}
	if wild {
		alphabet = append(alphabet, "*", "*", "#", "#", "#")
	}
	ws := make([]string, r.IntN(n+1))
	for i := range ws {
		ws[i] = alphabet[r.IntN(len(alphabet))]
	}
	return strings.Join(ws, ".")
}

// A trie under random binding and unbinding agrees with a list of patterns, and has
// nothing left when all is unbound.
func TestTopicAgainstModel(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		var x topic
		type binding struct {
			key string
			d   *dest
		}
		var model []binding
		ds := []*dest{{"1"}, {"2"}, {"3"}}
		for range 400 {
			switch op := r.IntN(10); {
			case op < 4:
				b := binding{randomKey(r, 5, true), ds[r.IntN(len(ds))]}
				if !slices.Contains(model, b) || r.IntN(4) == 0 { // also bindings that differ in arguments alone
					x.Bind(b.key, nil, b.d)
					model = append(model, b)
				}
			case op < 7 && len(model) > 0:
				i := r.IntN(len(model))
				x.Unbind(model[i].key, nil, model[i].d)
				model = slices.Delete(model, i, i+1)
			case op == 7:
				b := binding{randomKey(r, 5, true), &dest{"never bound"}}
				x.Unbind(b.key, nil, b.d)
			default:
				key := randomKey(r, 6, false)
				var want []string
				for _, b := range model {
					if naiveMatch(words(b.key), words(key)) {
						want = append(want, b.d.name)
					}
				}
				slices.Sort(want)
				want = slices.Compact(want)
				got := slices.Compact(names(x.Route(nil, &Message{RoutingKey: key})))
				if !slices.Equal(got, want) {
					t.Fatalf("seed %d: key %q with %v: got %v, want %v", seed, key, model, got, want)
				}
			}
			if x.Empty() != (len(model) == 0) {
				t.Fatalf("seed %d: Empty() = %v with %d bindings", seed, x.Empty(), len(model))
			}
		}
		for _, b := range model {
			x.Unbind(b.key, nil, b.d)
		}
		if !x.Empty() || !x.root.leaf() || !x.root.dests.empty() || x.nested.bound() != 0 {
			t.Fatalf("seed %d: something is left: %+v", seed, x)
		}
	}
}

func FuzzTopicMatch(f *testing.F) {
	for _, s := range [][2]string{
		{"", ""}, {"#", ""}, {"*.#", "a.b"}, {"#.a.#.b", "x.a.y.b"}, {"a.", "a."}, {"#.#.#.x", "a.b.c"}, {"*", "."},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, pattern, key string) {
		if strings.Count(pattern, "#") > 4 || len(key) > 64 { // the naive matcher is exponential
			return
		}
		if got, want := topicMatches(pattern, key), naiveMatch(words(pattern), words(key)); got != want {
			t.Errorf("pattern %q, key %q: got %v, want %v", pattern, key, got, want)
		}
	})
}

func (n *topicNode) count() int {
	sum := 1
	if n.star != nil {
		sum += n.star.count()
	}
	if n.hash != nil {
		sum += n.hash.count()
	}
	for _, e := range n.edges {
		sum += e.node.count()
	}
	if n.many != nil {
		for _, c := range n.many.m {
			sum += c.count()
		}
	}
	return sum
}

// Patterns and keys made to be expensive cost at most nodes × (words+1) steps.
func TestTopicHostilePatternsAreBounded(t *testing.T) {
	hash128 := strings.TrimSuffix(strings.Repeat("#.", 128), ".")
	var mixed []string
	for n := range 7 { // all patterns of '#', '*' and a literal up to 7 words
		level := []string{""}
		for range n + 1 {
			var next []string
			for _, p := range level {
				for _, w := range []string{"#", "*", "a"} {
					next = append(next, strings.TrimPrefix(p+"."+w, "."))
				}
			}
			level = next
		}
		mixed = append(mixed, level...)
	}
	tests := []struct {
		name     string
		patterns []string
		keys     []string
	}{
		{
			"hash chain with an end that fails",
			[]string{strings.TrimSuffix(hash128[:250], ".") + ".x"},
			[]string{strings.Repeat("a.", 127) + "y", strings.Repeat(".", 255)},
		},
		{"hash and star in turn", []string{strings.Repeat("#.*.", 63) + "x"}, []string{strings.Repeat("a.", 127) + "y"}},
		{"hash and literal in turn", []string{strings.Repeat("#.a.", 63) + "x"}, []string{strings.Repeat("a.", 127) + "y"}},
		{"every short pattern", mixed, []string{strings.Repeat("a.", 127) + "a", strings.Repeat("b.", 127) + "a", ""}},
		{"a key longer than a shortstr, as CC may carry", []string{"#.a.#.a.#.x"}, []string{strings.Repeat("a.", 5000)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var x topic
			for _, p := range tt.patterns {
				x.Bind(p, nil, &dest{p})
			}
			for _, key := range tt.keys {
				limit := x.root.count() * (len(words(key)) + 1)
				dst, steps := x.route(nil, key)
				if steps > limit {
					t.Errorf("%d steps, more than %d nodes × words", steps, limit)
				}
				if len(dst) > len(tt.patterns) {
					t.Errorf("%d destinations from %d bindings", len(dst), len(tt.patterns))
				}
			}
		})
	}
}

// Only branches that agree with the key cost something.
func TestTopicCostIsIndependentOfOtherBindings(t *testing.T) {
	for _, n := range []int{10, 100_000} {
		x := manyTopics(n)
		for key, limit := range map[string]int{"dev.7.temp": 10, "dev.7.nothing": 10, "none": 10} {
			if _, steps := x.route(nil, key); steps > limit {
				t.Errorf("%d bindings, key %s: %d steps", n, key, steps)
			}
		}
	}
}

func TestTopicGivesMemoryBack(t *testing.T) {
	x := manyTopics(20_000)
	for i := range 20_000 {
		if i != 7 {
			key, d := manyTopic(i)
			x.Unbind(key, nil, d)
		}
	}
	if n := x.root.count(); n != 4 { // the root, dev, 7, temp
		t.Errorf("%d nodes left for one binding", n)
	}
	if got := names(x.Route(nil, &Message{RoutingKey: "dev.7.temp"})); len(got) != 1 {
		t.Errorf("the binding that stays routes to %v", got)
	}
	if dev := x.root.child("dev"); dev.many != nil || cap(dev.edges) > edgeLimit {
		t.Errorf("one child is kept in a map")
	}
}

var topicDests = func() (ds [64]*dest) {
	for i := range ds {
		ds[i] = &dest{fmt.Sprint(i)}
	}
	return ds
}()

func manyTopic(i int) (string, Destination) {
	return fmt.Sprintf("dev.%d.temp", i), topicDests[i%len(topicDests)]
}

func manyTopics(n int) *topic {
	x := &topic{}
	for i := range n {
		key, d := manyTopic(i)
		x.Bind(key, nil, d)
	}
	return x
}

func TestTopicRouteDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations are not counted under the race detector")
	}
	x := manyTopics(1000)
	for _, p := range []string{"#", "dev.*.temp", "dev.#", "#.temp", "#.7.#", "*.*.*"} {
		x.Bind(p, nil, &dest{p})
	}
	dst := make([]Destination, 0, 64)
	m := &Message{RoutingKey: "dev.7.temp"}
	if n := testing.AllocsPerRun(1000, func() { dst = x.Route(dst[:0], m) }); n != 0 {
		t.Errorf("%v allocations per route", n)
	}
	if len(dst) != 7 {
		t.Errorf("routed to %v", names(dst))
	}
}

func TestTopicRouteIsSafeForConcurrentReaders(t *testing.T) {
	x := manyTopics(100)
	for _, p := range []string{"#.dev.#.temp", "#.7.#", "#.#.*"} {
		x.Bind(p, nil, &dest{p})
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			var dst []Destination
			for range 500 {
				if dst = x.Route(dst[:0], &Message{RoutingKey: "dev.7.temp"}); len(dst) != 4 {
					t.Errorf("routed to %v", names(dst))
					return
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkTopic(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		x := manyTopics(n)
		b.Run(fmt.Sprintf("bindings=%d/exact", n), func(b *testing.B) { benchmarkRoute(b, x, &Message{RoutingKey: "dev.7.temp"}) })
		b.Run(fmt.Sprintf("bindings=%d/none", n), func(b *testing.B) { benchmarkRoute(b, x, &Message{RoutingKey: "dev.x.temp"}) })
	}
	for _, n := range []int{10_000, 100_000} {
		x := &topic{}
		for i := range n {
			_, d := manyTopic(i)
			x.Bind(fmt.Sprintf("%d.*.%d.#", i%100, i/100), nil, d)
		}
		x.Bind("#.temp.*", nil, topicDests[0])
		b.Run(fmt.Sprintf("bindings=%d/wild", n), func(b *testing.B) { benchmarkRoute(b, x, &Message{RoutingKey: "7.x.42.temp.y"}) })
	}
	hostile := &topic{}
	hostile.Bind(strings.Repeat("#.a.", 63)+"x", nil, topicDests[0])
	b.Run("hostile", func(b *testing.B) { benchmarkRoute(b, hostile, &Message{RoutingKey: strings.Repeat("a.", 127) + "y"}) })
}

func benchmarkRoute(b *testing.B, x Router, m *Message) {
	b.ReportAllocs()
	dst := make([]Destination, 0, 64)
	for b.Loop() {
		dst = x.Route(dst[:0], m)
	}
}

func BenchmarkTopicBind(b *testing.B) {
	keys := make([]string, 100_000)
	for i := range keys {
		keys[i], _ = manyTopic(i)
	}
	var before, after runtime.MemStats
	b.ReportAllocs()
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		x := &topic{}
		for i, key := range keys {
			x.Bind(key, nil, topicDests[i%len(topicDests)])
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(x)
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(len(keys)), "heapB/binding")
}
