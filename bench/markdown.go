package main

import (
	"fmt"
	"slices"
	"strings"
)

// column is a figure of a phase.
type column struct {
	name   string
	value  func(p *Phase) (float64, bool) // false: the phase has none
	format func(v float64) string
	better direction
}

// direction tells which way a figure is better.
type direction uint8

const (
	neither direction = iota
	more
	less
)

func rate(get func(p *Phase) float64) func(p *Phase) (float64, bool) {
	return func(p *Phase) (float64, bool) { v := get(p); return v, v > 0 }
}

func latency(which func(p *Phase) *Latency, get func(l *Latency) float64) func(p *Phase) (float64, bool) {
	return func(p *Phase) (float64, bool) {
		if l := which(p); l != nil {
			return get(l), true
		}
		return 0, false
	}
}

func cost(get func(c *Cost) float64) func(p *Phase) (float64, bool) {
	return func(p *Phase) (float64, bool) {
		if p.Cost == nil {
			return 0, false
		}
		return get(p.Cost), true
	}
}

func positiveCost(get func(c *Cost) float64) func(p *Phase) (float64, bool) {
	return func(p *Phase) (float64, bool) {
		if p.Cost == nil || get(p.Cost) <= 0 {
			return 0, false
		}
		return get(p.Cost), true
	}
}

var (
	confirmOf  = func(p *Phase) *Latency { return p.Confirm }
	endToEndOf = func(p *Phase) *Latency { return p.EndToEnd }
	operateOf  = func(p *Phase) *Latency { return p.Operate }
	p50        = func(l *Latency) float64 { return l.P50 }
	p99        = func(l *Latency) float64 { return l.P99 }
	p999       = func(l *Latency) float64 { return l.P999 }
)

var columns = []column{
	{"publish/s", rate(func(p *Phase) float64 { return p.PublishRate }), count, more},
	{"confirm/s", rate(func(p *Phase) float64 { return p.ConfirmRate }), count, more},
	{"deliver/s", rate(func(p *Phase) float64 { return p.DeliverRate }), count, more},
	{"deliver MiB/s", rate(func(p *Phase) float64 { return p.DeliverMiB }), decimal, more},
	{"op/s", rate(func(p *Phase) float64 { return p.OperationRate }), count, more},
	{"confirm p50 µs", latency(confirmOf, p50), count, less},
	{"confirm p99 µs", latency(confirmOf, p99), count, less},
	{"confirm p99.9 µs", latency(confirmOf, p999), count, less},
	{"confirm p50 in syncs", func(p *Phase) (float64, bool) {
		if p.Confirm == nil || p.Sync == 0 {
			return 0, false
		}
		return p.Confirm.P50 / p.Sync, true
	}, decimal, less},
	{"end-to-end p50 µs", latency(endToEndOf, p50), count, less},
	{"end-to-end p99 µs", latency(endToEndOf, p99), count, less},
	{"end-to-end p99.9 µs", latency(endToEndOf, p999), count, less},
	{"op p50 µs", latency(operateOf, p50), count, less},
	{"op p99 µs", latency(operateOf, p99), count, less},
	{"seconds", func(p *Phase) (float64, bool) { return p.Seconds, p.Operations > 0 || p.First > 0 }, decimal, less},
	{"first delivery s", rate(func(p *Phase) float64 { return p.First }), decimal, less},
	{"start s", rate(func(p *Phase) float64 { return p.Start }), decimal, less},
	{"CPU µs/unit", func(p *Phase) (float64, bool) {
		if p.Cost == nil || p.units() == 0 {
			return 0, false
		}
		return p.Cost.CPU, true
	}, decimal, less},
	{"kernel share", cost(func(c *Cost) float64 { return c.KernelShare }), decimal, neither},
	{"cores", cost(func(c *Cost) float64 { return c.Cores }), decimal, neither},
	{"RSS MiB", cost(func(c *Cost) float64 { return float64(c.RSSMax) / (1 << 20) }), decimal, less},
	{"RSS B/unit", positiveCost(func(c *Cost) float64 { return c.PerUnit }), decimal, less},
	{"anonymous MiB", cost(func(c *Cost) float64 { return float64(c.Anonymous) / (1 << 20) }), decimal, less},
	{"binary MiB", positiveCost(func(c *Cost) float64 { return float64(c.Binary) / (1 << 20) }), decimal, less},
	{"disk MiB", cost(func(c *Cost) float64 { return float64(c.WrittenBytes) / (1 << 20) }), decimal, less},
	{"generator CPU µs/unit", func(p *Phase) (float64, bool) { return p.GeneratorCPU, p.GeneratorCPU > 0 }, decimal, neither},
}

// count renders a number whose digits after the point do not matter.
func count(v float64) string {
	if v < 10 {
		return decimal(v)
	}
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}

// decimal renders three significant digits.
func decimal(v float64) string {
	switch {
	case v >= 1000:
		return count(v)
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 0.1 || v == 0:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// median returns the middle value; of an even number the mean of the middle two.
func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Clone(v)
	slices.Sort(s)
	if len(s)%2 == 1 {
		return s[len(s)/2]
	}
	return (s[len(s)/2-1] + s[len(s)/2]) / 2
}

// markdown renders a comparison: medians with the least and the most of the rounds, and
// the ratio of the medians.
func markdown(results []Result, rounds int) string {
	var b strings.Builder
	var names, labels []string
	by := map[[2]string][]Result{}
	for _, r := range results {
		if !slices.Contains(names, r.Scenario.Name) {
			names = append(names, r.Scenario.Name)
		}
		if !slices.Contains(labels, r.Broker.Label) {
			labels = append(labels, r.Broker.Label)
		}
		k := [2]string{r.Scenario.Name, r.Broker.Label}
		by[k] = append(by[k], r)
	}
	if len(results) == 0 || len(labels) != 2 {
		return "no comparison: results of two brokers are needed\n"
	}
	preamble(&b, results, labels, rounds)
	fmt.Fprintf(&b, "| scenario | phase | figure | %s | %s | ratio |\n|---|---|---|---|---|---|\n", labels[0], labels[1])
	for _, name := range names {
		rows(&b, name, by[[2]string{name, labels[0]}], by[[2]string{name, labels[1]}])
	}
	for _, r := range results {
		if r.Error != "" {
			fmt.Fprintf(&b, "\n**%s, %s failed**: %s\n", r.Broker.Label, r.Scenario.Name, r.Error)
		}
		if n := r.Undelivered + r.Nacked + r.Returned + r.Blocked; n > 0 {
			fmt.Fprintf(&b, "\n%s, %s: %d undelivered, %d nacked, %d returned, blocked %d times\n",
				r.Broker.Label, r.Scenario.Name, r.Undelivered, r.Nacked, r.Returned, r.Blocked)
		}
	}
	return b.String()
}

func preamble(b *strings.Builder, results []Result, labels []string, rounds int) {
	m := results[0].Machine
	fmt.Fprintf(b, "%s, %d cores, %s, kernel %s; generator and brokers on the same machine, loopback TCP.\n", m.CPU, m.Cores, m.OS, m.Kernel)
	if p := m.Probe; p != nil {
		fmt.Fprintf(b, "4 KiB + fdatasync: append %s/s (p50 %s µs), overwrite %s/s (p50 %s µs).\n",
			count(p.AppendPerS), count(p.AppendP50us), count(p.OverwritePerS), count(p.OverwriteP50us))
	}
	fmt.Fprintf(b, "Median of %d rounds in turn (least to most); ratio = first / second; ✔ marks the better one if the rounds do not overlap.\n", rounds)
	for _, label := range labels {
		for _, r := range results {
			if r.Broker.Label == label && r.Broker.Settings != "" {
				fmt.Fprintf(b, "Settings of %s: %s.\n", label, r.Broker.Settings)
				break
			}
		}
	}
	b.WriteByte('\n')
}

// rows writes a line for every figure that both brokers have.
func rows(b *strings.Builder, name string, first, second []Result) {
	for _, phase := range phaseNames(first, second) {
		for _, c := range columns {
			x, y := values(first, phase, c), values(second, phase, c)
			if len(x) == 0 || len(y) == 0 {
				continue
			}
			mx, my := median(x), median(y)
			better := c.better
			if first[0].Scenario.Rate > 0 && better == more {
				better = neither // the rate was given
			}
			markX, markY := marks(x, y, better)
			ratio := "–"
			if my != 0 {
				ratio = decimal(mx / my)
			}
			fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s |\n", name, phase, c.name, cell(x, c)+markX, cell(y, c)+markY, ratio)
		}
	}
}

func phaseNames(lists ...[]Result) (names []string) {
	for _, list := range lists {
		for _, r := range list {
			for _, p := range r.Phases {
				if !slices.Contains(names, p.Name) {
					names = append(names, p.Name)
				}
			}
		}
	}
	return names
}

func values(results []Result, phase string, c column) (v []float64) {
	for _, r := range results {
		for i := range r.Phases {
			if p := &r.Phases[i]; p.Name == phase {
				if x, ok := c.value(p); ok {
					v = append(v, x)
				}
			}
		}
	}
	return v
}

func cell(v []float64, c column) string {
	if len(v) == 1 {
		return c.format(v[0])
	}
	return fmt.Sprintf("%s (%s–%s)", c.format(median(v)), c.format(slices.Min(v)), c.format(slices.Max(v)))
}

// marks returns a mark for the side whose worst round is better than the best of the other.
func marks(x, y []float64, better direction) (string, string) {
	const mark = " ✔"
	switch {
	case better == neither || overlap(x, y):
		return "", ""
	case (slices.Min(x) > slices.Max(y)) == (better == more):
		return mark, ""
	}
	return "", mark
}

func overlap(x, y []float64) bool {
	return slices.Max(x) >= slices.Min(y) && slices.Max(y) >= slices.Min(x)
}
