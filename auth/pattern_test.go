package auth

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dlclark/regexp2"
)

func TestPatternMatchesAsRabbitMQDoes(t *testing.T) {
	for _, tc := range []struct {
		pattern string
		yes, no []string
	}{
		{"", []string{""}, []string{"a", "amq.default", "\n"}},
		{".*", []string{"", "a", "amq.topic", "a\nb"}, nil},
		{"^$", []string{""}, []string{"a"}},
		{"orders", []string{"orders", "old-orders-2"}, []string{"order", "Orders"}},
		{"^orders$", []string{"orders"}, []string{"orders2", "myorders"}},
		{"^(a|b)\\.", []string{"a.x", "b."}, []string{"c.a.", "ab"}},
		{"^amq\\.gen.*|^tmp-", []string{"amq.gen-1", "tmp-x"}, []string{"amqxgen"}},
		{"(?i)^ABC", []string{"abcd"}, []string{"xabc"}},
		{"^.$", []string{"ü"}, []string{"ab"}},
		// From here on: what the linear engine cannot do.
		{"^(?!amq\\.).*", []string{"orders", "amq"}, []string{"amq.topic", "amq."}},
		{"^(?=.*-eu$)orders", []string{"orders-eu"}, []string{"orders-us", "my-orders-eu"}},
		{"(?<!x)queue$", []string{"queue", "yqueue"}, []string{"xqueue"}},
		{"^(\\w+)-\\1$", []string{"ab-ab"}, []string{"ab-ba"}},
	} {
		p, err := CompilePattern(tc.pattern)
		if err != nil {
			t.Errorf("%q: %v", tc.pattern, err)
			continue
		}
		if p.String() != tc.pattern {
			t.Errorf("%q: String is %q", tc.pattern, p)
		}
		for _, name := range tc.yes {
			if !p.Match(name) {
				t.Errorf("%q does not match %q", tc.pattern, name)
			}
		}
		for _, name := range tc.no {
			if p.Match(name) {
				t.Errorf("%q matches %q", tc.pattern, name)
			}
		}
		if p.Match(strings.Repeat("x", MaxName+1)) {
			t.Errorf("%q matches a name that is too long", tc.pattern)
		}
	}
}

func TestBadPatternsAreErrors(t *testing.T) {
	for _, s := range []string{"(", "[a", "*", "a{2,1}", "(?P<", "\xff", strings.Repeat("a", MaxPattern+1), strings.Repeat("(", 5000)} {
		if _, err := CompilePattern(s); !errors.Is(err, ErrBadPattern) {
			t.Errorf("%.20q: error %v", s, err)
		}
	}
}

func TestCatastrophicPatternIsRefusedInTime(t *testing.T) {
	p, err := CompilePattern("^(?=(a+)+$)(a+)+$")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(regexp2.StopTimeoutClock)
	start := time.Now()
	if p.Match(strings.Repeat("a", 60) + "!") {
		t.Error("matches")
	}
	if d := time.Since(start); d > 10*matchTimeout {
		t.Errorf("took %v", d)
	}
	if !p.Match("aaa") {
		t.Error("the pattern is of no use after a timeout")
	}
}

func TestNilPatternMatchesNothing(t *testing.T) {
	var p *Pattern
	if p.Match("") || p.Match("a") || p.String() != "" {
		t.Error("nil pattern matches")
	}
}

func TestPatternIsSafeForConcurrentUse(t *testing.T) {
	for _, s := range []string{"^orders", "^(?!amq\\.).*"} {
		p, err := CompilePattern(s)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 200 {
					if !p.Match("orders") || p.Match("amq.topic") {
						t.Errorf("%q: wrong answer", s)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	regexp2.StopTimeoutClock()
}

func TestCommonPatternsMatchWithoutAllocating(t *testing.T) {
	for _, s := range []string{".*", "", "^orders\\."} {
		p, err := CompilePattern(s)
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(100, func() { p.Match("orders.created.eu") }); n != 0 {
			t.Errorf("%q: %v allocations", s, n)
		}
	}
}

func BenchmarkPatternMatch(b *testing.B) {
	for name, s := range map[string]string{"all": ".*", "prefix": "^orders\\.", "lookahead": "^(?!amq\\.).*"} {
		b.Run(name, func(b *testing.B) {
			p, err := CompilePattern(s)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				p.Match("orders.created.eu")
			}
		})
	}
}
