package main

import (
	"strings"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		v    []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := median(tt.v); got != tt.want {
			t.Errorf("median(%v) = %v, want %v", tt.v, got, tt.want)
		}
	}
}

func TestNumbers(t *testing.T) {
	for v, want := range map[float64]string{0: "0.00", 0.012345: "0.0123", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 1234.5: "1 234", 1234567: "1 234 567"} {
		if got := decimal(v); got != want {
			t.Errorf("decimal(%v) = %q, want %q", v, got, want)
		}
	}
	if got := count(12.7); got != "13" {
		t.Errorf("count(12.7) = %q", got)
	}
}

func TestPhaseRatesAndUnits(t *testing.T) {
	p := Phase{Seconds: 2, Published: 10, Confirmed: 8, Delivered: 400}
	p.finish(1 << 20)
	if p.PublishRate != 5 || p.ConfirmRate != 4 || p.DeliverRate != 200 || p.DeliverMiB != 200 || p.units() != 400 {
		t.Errorf("got %+v", p)
	}
	if (&Phase{Confirmed: 8, Published: 10}).units() != 8 || (&Phase{Operations: 3}).units() != 3 {
		t.Error("units of a phase without deliveries")
	}
}

func TestMarkdownComparesMedians(t *testing.T) {
	result := func(label string, rate, cpu float64) Result {
		return Result{
			Scenario: Scenario{Name: "s"}, Broker: Broker{Label: label},
			Phases: []Phase{{Name: "steady", Delivered: 1, DeliverRate: rate, Cost: &Cost{CPU: cpu}}},
		}
	}
	failed := Result{Scenario: Scenario{Name: "t"}, Broker: Broker{Label: "second"}, Error: "no | luck", Undelivered: 3}
	text := markdown([]Result{
		result("first", 3000, 5), result("second", 1000, 4), result("first", 2000, 5), result("second", 900, 6),
		result("first", 9000, 5), result("second", 1100, 9), failed,
	}, 3)
	for _, want := range []string{
		"| s | steady | deliver/s | 3 000 (2 000–9 000) ✔ | 1 000 (900–1 100) | 3.00 |\n",
		"| s | steady | CPU µs/unit | 5.00 (5.00–5.00) | 6.00 (4.00–9.00) | 0.83 |\n",
		"**second, t failed**: no | luck",
		"second, t: 3 undelivered",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("missing %q in:\n%s", want, text)
		}
	}
	if strings.Contains(text, "confirm") {
		t.Errorf("a figure that nobody has:\n%s", text)
	}
	if got := markdown(nil, 3); !strings.Contains(got, "no comparison") {
		t.Errorf("nothing to compare: %s", got)
	}
}
