package exchange

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/settmq/settmq/amqp"
)

func field(name string, v amqp.Value) amqp.Field { return amqp.Field{Name: name, Value: v} }

func match(mode string, conds ...amqp.Field) amqp.Table {
	return append(amqp.Table{field("x-match", amqp.String(mode))}, conds...)
}

func TestHeadersMatch(t *testing.T) {
	str, i64, i32 := amqp.String, amqp.Int64, amqp.Int32
	void, yes := amqp.Void(), amqp.Bool(true)
	tests := []struct {
		name string
		args amqp.Table
		msg  amqp.Table
		want bool
	}{
		{"no arguments match everything", nil, nil, true},
		{"no arguments match any headers", nil, amqp.Table{field("a", i64(1))}, true},
		{"all of nothing", match("all"), nil, true},
		{"any of nothing", match("any"), amqp.Table{field("a", i64(1))}, false},
		{"any-with-x of nothing", match("any-with-x"), amqp.Table{field("x-match", str("any-with-x"))}, false},
		{"absent x-match means all", amqp.Table{field("a", i64(1)), field("b", i64(2))}, amqp.Table{field("a", i64(1))}, false},
		{
			"all, all there and more", match("all", field("a", i64(1)), field("b", str("x"))),
			amqp.Table{field("c", void), field("b", str("x")), field("a", i64(1))},
			true,
		},
		{"all, one missing", match("all", field("a", i64(1)), field("b", str("x"))), amqp.Table{field("a", i64(1))}, false},
		{
			"all, one different", match("all", field("a", i64(1)), field("b", str("x"))),
			amqp.Table{field("a", i64(1)), field("b", str("X"))},
			false,
		},
		{"any, one there", match("any", field("a", i64(1)), field("b", str("x"))), amqp.Table{field("b", str("x"))}, true},
		{"any, none there", match("any", field("a", i64(1)), field("b", str("x"))), amqp.Table{field("a", i64(2))}, false},
		{"any, no headers", match("any", field("a", i64(1))), nil, false},
		{"integers of different width", match("all", field("a", i64(5))), amqp.Table{field("a", i32(5))}, true},
		{"negative integers", match("all", field("a", i64(-5))), amqp.Table{field("a", i32(-5))}, true},
		{"string is not a number", match("all", field("a", str("5"))), amqp.Table{field("a", i64(5))}, false},
		{"bool is not a number", match("all", field("a", i64(1))), amqp.Table{field("a", yes)}, false},
		{"bools", match("all", field("a", yes)), amqp.Table{field("a", yes)}, true},
		{"other bool", match("all", field("a", yes)), amqp.Table{field("a", amqp.Bool(false))}, false},
		{"void asks for presence", match("all", field("a", void)), amqp.Table{field("a", str("whatever"))}, true},
		{"void, absent", match("all", field("a", void)), amqp.Table{field("b", void)}, false},
		{"void header is no value", match("all", field("a", i64(1))), amqp.Table{field("a", void)}, false},
		{"any with void", match("any", field("a", void), field("b", i64(1))), amqp.Table{field("a", i64(9))}, true},
		{"names are case-sensitive", match("all", field("a", i64(1))), amqp.Table{field("A", i64(1))}, false},
		{"all skips x-", match("all", field("x-a", i64(1)), field("a", i64(1))), amqp.Table{field("a", i64(1))}, true},
		{"all of x- only", match("all", field("x-a", i64(1))), nil, true},
		{"any skips x-", match("any", field("x-a", i64(1))), amqp.Table{field("x-a", i64(1))}, false},
		{"all-with-x wants x-", match("all-with-x", field("x-a", i64(1))), nil, false},
		{"all-with-x finds x-", match("all-with-x", field("x-a", i64(1))), amqp.Table{field("x-a", i64(1))}, true},
		{"any-with-x finds x-", match("any-with-x", field("x-a", i64(1)), field("b", i64(1))), amqp.Table{field("x-a", i64(1))}, true},
		{"x without dash is a header", match("all", field("xa", i64(1))), nil, false},
		{"long values", match("all", field("a", str(strings.Repeat("v", 1000)))), amqp.Table{field("a", str(strings.Repeat("v", 1000)))}, true},
		{"long values that differ", match("all", field("a", str(strings.Repeat("v", 1000)))), amqp.Table{field("a", str(strings.Repeat("v", 1001)))}, false},
		{"longstr and binary", match("all", field("a", str("bytes"))), amqp.Table{field("a", amqp.Binary([]byte("bytes")))}, true},
		{"floats of different width", match("all", field("a", amqp.Float64(0.5))), amqp.Table{field("a", amqp.Float32(0.5))}, true},
		{"integer is not a float", match("all", field("a", i64(1))), amqp.Table{field("a", amqp.Float64(1))}, false},
		{"timestamps", match("all", field("a", amqp.Timestamp(5))), amqp.Table{field("a", amqp.Timestamp(5))}, true},
		{"timestamp is not an integer", match("all", field("a", amqp.Timestamp(5))), amqp.Table{field("a", i64(5))}, false},
		{"empty value", match("all", field("a", str(""))), amqp.Table{field("a", str(""))}, true},
		{"name and value are not confused", match("all", field("ab", str("c"))), amqp.Table{field("a", str("bc"))}, false},
		{"first of repeated headers counts", match("all", field("a", i64(2))), amqp.Table{field("a", i64(1)), field("a", i64(2))}, false},
	}
	for _, tt := range tests {
		x, _ := New(Headers, nil, testEnv)
		x.Bind("ignored", tt.args, &dest{"d"})
		got := x.Route(nil, &Message{RoutingKey: "other", Headers: tt.msg})
		if (len(got) == 1) != tt.want || len(got) > 1 {
			t.Errorf("%s: %d destinations, want match %v", tt.name, len(got), tt.want)
		}
		x.Unbind("ignored", tt.args, &dest{"d"})
		if x.Empty() {
			t.Errorf("%s: unbinding another destination removed this one", tt.name)
		}
	}
}

func TestCheckBinding(t *testing.T) {
	tests := []struct {
		kind string
		args amqp.Table
		want string
	}{
		{Headers, nil, ""},
		{Headers, match("all"), ""},
		{Headers, match("any"), ""},
		{Headers, match("all-with-x"), ""},
		{Headers, match("any-with-x"), ""},
		{Headers, match("foo"), `PRECONDITION_FAILED - Invalid x-match field value <<"foo">>; expected all, any, all-with-x, or any-with-x`},
		{Headers, match(""), `PRECONDITION_FAILED - Invalid x-match field value <<>>; expected all, any, all-with-x, or any-with-x`},
		{Headers, amqp.Table{field("x-match", amqp.Int32(1))}, `PRECONDITION_FAILED - Invalid x-match field type signedint (value 1); expected longstr`},
		{Topic, match("foo"), ""},
		{Direct, match("foo"), ""},
		{Fanout, amqp.Table{field("x-match", amqp.Int32(1))}, ""},
	}
	for _, tt := range tests {
		err := CheckBinding(tt.kind, Binding{Key: "#.#.#.#", Arguments: tt.args})
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s %v: %v", tt.kind, tt.args, err)
		case tt.want != "" && (err == nil || err.Error() != tt.want || err.Code != 406):
			t.Errorf("%s %v:\n got %v\nwant %s", tt.kind, tt.args, err, tt.want)
		}
	}
}

// naiveHeaders is the definition: every condition is looked up in the message.
func naiveHeaders(args, h amqp.Table) bool {
	mode := "all"
	if v, ok := args.Get("x-match"); ok {
		mode = v.Text()
	}
	isAny := strings.HasPrefix(mode, "any")
	for _, c := range args {
		if c.Name == "x-match" || strings.HasPrefix(c.Name, "x-") && !strings.HasSuffix(mode, "-with-x") {
			continue
		}
		v, ok := h.Get(c.Name)
		if ok = ok && (c.Value.Kind() == amqp.KindVoid || c.Value.Equal(v)); ok == isAny {
			return isAny
		}
	}
	return !isAny
}

func randomTable(r *rand.Rand, n int) amqp.Table {
	var t amqp.Table
	for _, name := range []string{"a", "b", "c", "x-d", "e"} {
		if r.IntN(5) >= n {
			continue
		}
		v := [...]amqp.Value{
			amqp.Int64(1), amqp.Int32(1), amqp.Int64(2), amqp.String("1"), amqp.String("2"), amqp.Bool(true), amqp.Void(),
			amqp.Float64(1), amqp.Float32(1), amqp.Binary([]byte("1")), amqp.Timestamp(1), amqp.Decimal(0, 1),
		}[r.IntN(12)]
		t = append(t, field(name, v))
	}
	return t
}

// The index agrees with asking every binding, under random binding and unbinding.
func TestHeadersAgainstModel(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 3))
		x := &headers{}
		type binding struct {
			args amqp.Table
			d    *dest
		}
		var model []binding
		ds := []*dest{{"1"}, {"2"}, {"3"}}
		for range 400 {
			switch op := r.IntN(10); {
			case op < 3:
				args := randomTable(r, 2)
				if m := r.IntN(5); m < 4 {
					args = append(args, match([]string{"all", "any", "all-with-x", "any-with-x"}[m])...)
				}
				b := binding{args, ds[r.IntN(len(ds))]}
				x.Bind("", b.args, b.d)
				model = append(model, b)
			case op < 5 && len(model) > 0:
				i := r.IntN(len(model))
				x.Unbind("", model[i].args, model[i].d)
				model = slices.Delete(model, i, i+1)
			default:
				h := randomTable(r, 4)
				if r.IntN(4) == 0 { // enough headers to be sorted
					for i := range 20 {
						h = append(h, field(fmt.Sprint("m", i), amqp.Int64(1)))
					}
					r.Shuffle(len(h), func(i, j int) { h[i], h[j] = h[j], h[i] })
				}
				var want []string
				for _, b := range model {
					if naiveHeaders(b.args, h) {
						want = append(want, b.d.name)
					}
				}
				slices.Sort(want)
				want = slices.Compact(want)
				if got := slices.Compact(names(x.Route(nil, &Message{Headers: h}))); !slices.Equal(got, want) {
					t.Fatalf("seed %d: headers %v with %v: got %v, want %v", seed, h, model, got, want)
				}
			}
			if x.Empty() != (len(model) == 0) {
				t.Fatalf("seed %d: Empty() = %v with %d bindings", seed, x.Empty(), len(model))
			}
		}
		for _, b := range model {
			x.Unbind("", b.args, b.d)
		}
		if !x.Empty() || x.facts.len() != 0 || x.numbers.bound() != 0 {
			t.Fatalf("seed %d: something is left: %+v", seed, x)
		}
	}
}

func manyHeaders(n int) *headers {
	x := &headers{}
	for i := range n {
		x.Bind("", match("all", field("format", amqp.String("pdf")), field("customer", amqp.Int64(int64(i)))), topicDests[i%len(topicDests)])
	}
	return x
}

var headersMessage = &Message{Headers: amqp.Table{
	field("format", amqp.String("pdf")), field("customer", amqp.Int32(7)), field("other", amqp.Bool(true)),
}}

// Bindings that tell themselves apart by one header are not all compared.
func TestHeadersCostIsIndependentOfOtherBindings(t *testing.T) {
	for _, n := range []int{10, 10_000} {
		dst, steps := manyHeaders(n).route(nil, headersMessage.Headers)
		if len(dst) != 1 || steps > 6 {
			t.Errorf("%d bindings: %d destinations after %d comparisons", n, len(dst), steps)
		}
	}
}

// Repeated headers and rules with thousands of conditions neither multiply the work nor
// the destinations.
func TestHeadersHostileTablesAreBounded(t *testing.T) {
	const n = 1000
	x := &headers{}
	var anyOf, msg, repeated amqp.Table
	for i := range n {
		anyOf = append(anyOf, field(fmt.Sprint("h", i), amqp.Void()))
		msg = append(msg, field(fmt.Sprint("h", i), amqp.Int64(1)))
		repeated = append(repeated, field("h0", amqp.Int64(1)))
	}
	for i := range 100 {
		x.Bind("", append(match("any", field(fmt.Sprint("own", i), amqp.Void())), anyOf...), &dest{fmt.Sprint(i)})
		x.Bind("", append(match("all", field("own", amqp.Int64(int64(i)))), anyOf...), &dest{fmt.Sprint(i)})
	}
	x.Bind("", match("all", field("h0", amqp.Void())), &dest{"x"})
	for name, h := range map[string]amqp.Table{"many": msg, "repeated": repeated} {
		dst, steps := x.route(nil, h)
		if len(dst) > 201 || steps > 201*n {
			t.Errorf("%s: %d destinations after %d comparisons", name, len(dst), steps)
		}
	}
}

func TestHeadersRouteDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations are not counted under the race detector")
	}
	x := manyHeaders(100)
	x.Bind("", match("any", field("customer", amqp.Int64(7)), field("other", amqp.Void())), &dest{"any"})
	dst := make([]Destination, 0, 16)
	if n := testing.AllocsPerRun(1000, func() { dst = x.Route(dst[:0], headersMessage) }); n != 0 || len(dst) != 2 {
		t.Errorf("%v allocations, routed to %v", n, names(dst))
	}
}

func BenchmarkHeaders(b *testing.B) {
	for _, n := range []int{10, 10_000, 100_000} {
		x := manyHeaders(n)
		b.Run(fmt.Sprintf("bindings=%d", n), func(b *testing.B) { benchmarkRoute(b, x, headersMessage) })
	}
}
