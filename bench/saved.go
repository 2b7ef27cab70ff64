package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"time"
)

// saved is a comparison as it is kept in bench/results: two brokers, the first one ours,
// one run a line, figures to four digits.
type saved struct {
	Machine   Machine    `json:"machine"`
	Brokers   []Broker   `json:"brokers"`
	Scenarios []Scenario `json:"scenarios"`
	Runs      []savedRun `json:"runs"`
}

// savedRun is a Result without what all runs of a file have in common.
type savedRun struct {
	Scenario string    `json:"scenario"`
	Broker   int       `json:"broker"` // index
	Started  time.Time `json:"started"`
	Version  string    `json:"version,omitempty"` // of the broker, as it says
	Probe    *Probe    `json:"fsync_probe,omitempty"`
	Phases   []Phase   `json:"phases"`

	Undelivered uint64 `json:"undelivered,omitempty"`
	Nacked      uint64 `json:"nacked,omitempty"`
	Error       string `json:"error,omitempty"`
	Skipped     string `json:"skipped,omitempty"`
}

// load reads a file of results; a file that does not exist is an empty one.
func (s *saved) load(name string) error {
	b, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(b, s)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// add takes over the results of two brokers. What it had of the same scenarios goes, so that
// a table can be measured piece by piece.
func (s *saved) add(results []Result, labels [2]string) {
	if len(results) == 0 {
		return
	}
	s.Machine = results[0].Machine
	s.Machine.Probe = nil
	brokers := make([]Broker, len(labels))
	for _, r := range results {
		i := slices.Index(labels[:], r.Broker.Label)
		brokers[max(i, 0)] = r.Broker
		s.Runs = slices.DeleteFunc(s.Runs, func(old savedRun) bool { return old.Scenario == r.Scenario.Name })
		s.Scenarios = slices.DeleteFunc(s.Scenarios, func(old Scenario) bool { return old.Name == r.Scenario.Name })
	}
	s.Brokers = brokers
	for _, r := range results {
		if !slices.ContainsFunc(s.Scenarios, func(old Scenario) bool { return old.Name == r.Scenario.Name }) {
			s.Scenarios = append(s.Scenarios, r.Scenario)
		}
		s.Runs = append(s.Runs, savedRun{
			Scenario: r.Scenario.Name, Broker: slices.Index(labels[:], r.Broker.Label), Started: r.Started, Version: r.Broker.Version,
			Probe: r.Machine.Probe, Phases: r.Phases, Undelivered: r.Undelivered, Nacked: r.Nacked, Error: r.Error, Skipped: r.Skipped,
		})
	}
}

// write keeps the file readable for diff: a line for a run.
func (s *saved) write(name string) error {
	var b bytes.Buffer
	b.WriteString("{\n")
	if err := appendLine(&b, "machine", s.Machine); err != nil {
		return err
	}
	if err := errors.Join(appendLines(&b, "brokers", s.Brokers), appendLines(&b, "scenarios", s.Scenarios), appendLines(&b, "runs", s.Runs)); err != nil {
		return err
	}
	b.Truncate(b.Len() - 2) // the last comma
	b.WriteString("\n}\n")
	return os.WriteFile(name, b.Bytes(), 0o644)
}

func appendLine(b *bytes.Buffer, key string, v any) error {
	line, err := compact(v)
	fmt.Fprintf(b, " %q: %s,\n", key, line)
	return err
}

func appendLines[T any](b *bytes.Buffer, key string, list []T) error {
	fmt.Fprintf(b, " %q: [", key)
	for i, v := range list {
		line, err := compact(v)
		if err != nil {
			return err
		}
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(b, "\n  %s", line)
	}
	b.WriteString("\n ],\n")
	return nil
}

// compact is v as JSON on one line, fractions rounded to four digits.
func compact(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var tree any
	if err := json.Unmarshal(b, &tree); err != nil {
		return nil, err
	}
	return json.Marshal(rounded(tree))
}

func rounded(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = rounded(v[k])
		}
	case []any:
		for i := range v {
			v[i] = rounded(v[i])
		}
	case float64:
		if v != math.Trunc(v) {
			scale := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(v))))
			return math.Round(v*scale) / scale
		}
	}
	return v
}

// values returns a figure of a phase in every good run of a scenario on a broker.
func (s *saved) values(scenario, phase string, broker int, c column) (list []float64) {
	for _, r := range s.Runs {
		if r.Scenario != scenario || r.Broker != broker || r.Error != "" || r.Skipped != "" {
			continue
		}
		for i := range r.Phases {
			if p := &r.Phases[i]; p.Name == phase {
				if v, ok := c.value(p); ok {
					list = append(list, v)
				}
			}
		}
	}
	return list
}
