package main

import (
	"slices"
	"testing"
)

func TestScenariosAreSound(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range scenarios() {
		if err := s.check(); err != nil {
			t.Error(err)
		}
		if seen[s.Name] || s.Name == "" || s.About == "" {
			t.Errorf("scenario %q is repeated or not described", s.Name)
		}
		seen[s.Name] = true
	}
}

func TestSelectScenarios(t *testing.T) {
	all := scenarios()
	for pattern, want := range map[string]int{"transient": 7, "transient/1KiB": 1, "*/confirm-*": 3, "latency": 2, "idle/1000": 1, "start": 1} {
		if list, err := selectScenarios(all, []string{pattern}); err != nil || len(list) != want {
			t.Errorf("%s: %d scenarios, %v; want %d", pattern, len(list), err, want)
		}
	}
	if list, _ := selectScenarios(all, nil); len(list) != len(all) {
		t.Errorf("no pattern selects %d of %d", len(list), len(all))
	}
	for _, pattern := range []string{"trans", "nothing", "[", ""} {
		if _, err := selectScenarios(all, []string{"latency", pattern}); err == nil {
			t.Errorf("pattern %q selects something", pattern)
		}
	}
}

func TestSetChangesFields(t *testing.T) {
	s := throughputScenarios()[0]
	if err := s.set("body=1024,window=10,auto-ack=false,queue-type=quorum,persistent=true"); err != nil {
		t.Fatal(err)
	}
	if s.Body != 1024 || s.Window != 10 || s.AutoAck || s.QueueType != "quorum" || !s.Persistent {
		t.Errorf("got %+v", s)
	}
	for _, bad := range []string{"body", "body=x", "body=-1", "bodies=1", "auto-ack=perhaps", "name=x"} {
		if err := s.set(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	for _, bad := range []string{"publishers=0", "consumers=0", "consumers=0,in-flight=0", "queue-type=stream", "rate=10,body=4", "exchange=direct", "exchange=topic"} {
		s := throughputScenarios()[0]
		if err := s.set(bad); err != nil {
			t.Fatal(err)
		}
		if s.check() == nil {
			t.Errorf("%q can be run", bad)
		}
	}
}

// A goal whose names are wrong would never be measured.
func TestGoalsAreSound(t *testing.T) {
	named := map[string]bool{}
	for _, s := range scenarios() {
		named[s.Name] = true
	}
	for _, g := range goals() {
		known := slices.ContainsFunc(columns, func(c column) bool { return c.name == g.figure && c.better != neither })
		if !named[g.scenario] || g.than != "" && !named[g.than] || !known || g.row == "" {
			t.Errorf("%+v", g)
		}
		if g.factor > 0 && (g.limit > 0 || g.peerDone == 0) {
			t.Errorf("%s: a factor needs a peer and no limit", g.row)
		}
	}
}
