package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// twoFiles are results beside two peers, of which the second is better at 1 MiB.
func twoFiles(t *testing.T) []saved {
	t.Helper()
	result := func(label, scenario string, p Phase) Result {
		p.Name = steady
		return Result{Scenario: Scenario{Name: scenario}, Broker: Broker{Label: label, Version: "4.3.6"}, Phases: []Phase{p}}
	}
	rate := func(v float64) Phase {
		return Phase{Delivered: 1, DeliverRate: v, Cost: &Cost{CPU: 1.5, KernelShare: 0.25}}
	}
	var first, second saved
	first.add([]Result{
		result("SettMQ", "large/transient", rate(1200)), result("Lavin", "large/transient", rate(300)),
		result("SettMQ", "transient/1KiB", rate(500_000)), result("Lavin", "transient/1KiB", rate(250_000)),
		result("SettMQ", "transient/1KiB-4", rate(400_000)), result("Lavin", "transient/1KiB-4", rate(1)),
		result("SettMQ", "persistent/confirm-1", Phase{Confirm: &Latency{P50: 110.123456}, Sync: 100}),
		result("SettMQ", "persistent/slow-sync", Phase{ConfirmRate: 15_000.5}),
		{Scenario: Scenario{Name: "persistent/confirm-1"}, Broker: Broker{Label: "Lavin"}, Error: "it fell over", Phases: []Phase{{Name: steady, Confirm: &Latency{P50: 1}}}},
	}, [2]string{"SettMQ", "Lavin"})
	second.add([]Result{
		result("SettMQ", "large/transient", rate(1000)), result("Rabbit", "large/transient", rate(800)),
	}, [2]string{"SettMQ", "Rabbit"})
	return []saved{first, second}
}

func TestGoalsAreJudgedBesideTheBestPeer(t *testing.T) {
	text := goalTable(twoFiles(t))
	for _, want := range []string{
		// The best peer counts, and only what ran beside it.
		"| 1 MiB, transient | ≥ 1.25 × 800 | 1 100 (1 000–1 200) | Lavin 300; Rabbit 800 | yes | 0.25 / 0.25 / 0.25 |",
		"| transient, auto-ack, 1 KiB | ≥ 2.50 × 250 000 | 500 000 | Lavin 250 000 | no |",
		"| 1 KiB, 4 queues, each with producer and consumer | ≥ 1.00 × transient/1KiB | 400 000 | Lavin 1.00 | no |",
		"| confirm window 1: p50 as fdatasyncs | ≤ 1.20 | 1.10 |  | yes |", // a failed run is no measurement
		"| syncs 5 ms slower, window 100 | ≥ 15 000 | 15 000 |  | yes |",
		"| transient, auto-ack, 16 B | ≥ 2.00 × 979 000 (LavinMQ, another machine) | not run |  |  |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestReportReplacesWhatIsMarked(t *testing.T) {
	dir := t.TempDir()
	var names []string
	for i, s := range twoFiles(t) {
		names = append(names, filepath.Join(dir, string(rune('a'+i))+".json"))
		if err := s.write(names[i]); err != nil {
			t.Fatal(err)
		}
	}
	readme := filepath.Join(dir, "README.md")
	if err := os.WriteFile(readme, []byte("before\n<!-- bench:begin -->\nold\n<!-- bench:end -->\nafter\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	if err := command(append([]string{"report", "-table", readme}, names...), &log, &log); err != nil {
		t.Fatal(err, log.String())
	}
	b, _ := os.ReadFile(readme)
	text := string(b)
	for _, want := range []string{
		"before\n<!-- bench:begin -->\n", "\n<!-- bench:end -->\nafter\n", "Lavin 4.3.6",
		"| scenario | SettMQ | Lavin | ratio | Rabbit | ratio | CPU µs, SettMQ / Lavin / Rabbit |\n",
		"| 1 MiB, transient | 1 100 | 300 | 4.00 | 800 | 1.25 | 1.50 / 1.50 / 1.50 |\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "old") {
		t.Error("the old table is still there")
	}
	if err := os.WriteFile(readme, []byte("no marks\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := command(append([]string{"report", "-table", readme}, names...), &log, &log); err == nil {
		t.Error("a file without marks is accepted")
	}
}

func TestSavedRunsReplaceThoseOfTheirScenario(t *testing.T) {
	run := func(label string, rate float64) Result {
		return Result{Scenario: Scenario{Name: "s"}, Broker: Broker{Label: label}, Phases: []Phase{{Name: steady, DeliverRate: rate}}}
	}
	labels := [2]string{"A", "B"}
	name := filepath.Join(t.TempDir(), "r.json")
	var s saved
	s.add([]Result{run("A", 1), run("B", 2), {Scenario: Scenario{Name: "other"}, Broker: Broker{Label: "A"}}}, labels)
	s.add([]Result{run("A", 12345.678), run("B", 4), run("A", 5), run("B", 6)}, labels)
	if err := s.write(name); err != nil {
		t.Fatal(err)
	}
	var back saved
	if err := back.load(name); err != nil {
		t.Fatal(err)
	}
	c := columnNamed("deliver/s")
	if got := back.values("s", steady, 0, c); len(got) != 2 || got[0] != 12350 || got[1] != 5 {
		t.Errorf("A: %v", got)
	}
	if got := back.values("s", steady, 1, c); len(got) != 2 || got[0] != 4 {
		t.Errorf("B: %v", got)
	}
	if len(back.Runs) != 5 || len(back.Scenarios) != 2 || len(back.Brokers) != 2 {
		t.Errorf("%d runs, %d scenarios, %d brokers", len(back.Runs), len(back.Scenarios), len(back.Brokers))
	}
}
