package main

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
)

// The kinds of scenario: how the load is made and which phases are measured.
const (
	kindFlow    = "flow"    // publish and consume at full speed, or at a fixed rate; one phase
	kindBacklog = "backlog" // fill queues without consumers, then drain them
	kindIdle    = "idle"    // open connections, then leave them alone
	kindChurn   = "churn"   // open a connection and a channel, close both, again and again
	kindDeclare = "declare" // declare durable queues, then delete them
)

// Scenario describes one load. Its fields are the keys of -set, spelt as in JSON.
type Scenario struct {
	Name  string `json:"name"`
	About string `json:"about"`
	Kind  string `json:"kind"`

	Queues     int    `json:"queues,omitempty"`
	Publishers int    `json:"publishers,omitempty"` // connections; in churn and declare: workers
	Consumers  int    `json:"consumers,omitempty"`  // connections
	Exchange   string `json:"exchange,omitempty"`   // "" default, fanout, topic
	Bindings   int    `json:"bindings,omitempty"`   // of a topic exchange
	QueueType  string `json:"queue-type,omitempty"` // x-queue-type; "" leaves it to the broker

	Body       int  `json:"body,omitempty"` // bytes
	Persistent bool `json:"persistent"`
	Window     int  `json:"window,omitempty"` // unconfirmed publishes per publisher; 0: no confirms
	AutoAck    bool `json:"auto-ack"`
	Prefetch   int  `json:"prefetch,omitempty"` // 0: unlimited
	Multiple   bool `json:"multiple,omitempty"` // one ack per read instead of one per message

	Rate     int `json:"rate,omitempty"`      // messages/s of all publishers together; 0: as fast as possible
	InFlight int `json:"in-flight,omitempty"` // most messages published and not yet consumed; 0: unlimited
	Count    int `json:"count,omitempty"`     // messages of a backlog, connections, queues to declare
}

const defaultInFlight = 20_000

func flow(name, about string, change func(*Scenario)) Scenario {
	s := Scenario{
		Name: name, About: about, Kind: kindFlow, Queues: 1, Publishers: 1, Consumers: 1, Body: 256,
		AutoAck: true, InFlight: defaultInFlight,
	}
	change(&s)
	return s
}

// scenarios returns everything there is to run, in the order of a full run.
func scenarios() []Scenario {
	var list []Scenario
	for _, mode := range []string{"transient", "persistent"} {
		list = append(list, throughputScenarios(mode, mode == "persistent")...)
	}
	list = append(list,
		flow("fanout/50", "one publisher, 50 queues, 10 consuming connections", func(s *Scenario) {
			s.Exchange, s.Queues, s.Consumers, s.InFlight = "fanout", 50, 10, 2000
		}),
		flow("topic/10000", "10 000 topic bindings, every message matches one", func(s *Scenario) {
			s.Exchange, s.Queues, s.Bindings, s.Consumers = "topic", 10, 10_000, 2
		}),
		flow("latency/transient", "5 000/s, open loop", func(s *Scenario) { s.Rate, s.InFlight = 5000, 0 }),
		flow("latency/confirmed", "2 000/s persistent with confirms and manual acks, open loop", func(s *Scenario) {
			s.Rate, s.InFlight, s.Persistent, s.Window, s.AutoAck, s.Prefetch = 2000, 0, true, 1, false, 100
		}),
		Scenario{
			Name: "backlog/transient", About: "200 000 messages in, then out", Kind: kindBacklog, Queues: 1, Publishers: 1,
			Consumers: 1, Body: 256, Window: 1000, AutoAck: true, Count: 200_000,
		},
		Scenario{
			Name: "backlog/persistent", About: "200 000 messages in, then out with manual acks", Kind: kindBacklog, Queues: 1,
			Publishers: 1, Consumers: 1, Body: 256, Persistent: true, Window: 1000, Prefetch: 1000, Count: 200_000,
		},
		flow("large/transient", "1 MiB messages", func(s *Scenario) { s.Body, s.InFlight = 1<<20, 32 }),
		flow("large/persistent", "1 MiB messages, confirms with a window of 10", func(s *Scenario) {
			s.Body, s.InFlight, s.Persistent, s.Window, s.AutoAck, s.Prefetch = 1<<20, 32, true, 10, false, 10
		}),
		Scenario{Name: "idle/1000", About: "connections with one channel that do nothing", Kind: kindIdle, Publishers: 4, Count: 1000},
		Scenario{Name: "churn/connections", About: "connect, open a channel, close, 4 at a time", Kind: kindChurn, Publishers: 4},
		Scenario{Name: "declare/10000", About: "declare durable queues one after another, then delete them", Kind: kindDeclare, Publishers: 1, Count: 10_000},
	)
	return list
}

func throughputScenarios(mode string, persistent bool) []Scenario {
	add := func(name, about string, change func(*Scenario)) Scenario {
		return flow(mode+"/"+name, about, func(s *Scenario) { s.Persistent = persistent; change(s) })
	}
	list := []Scenario{
		add("auto", "no confirms, auto-ack", func(*Scenario) {}),
		add("auto-prefetch-100", "no confirms, auto-ack with a prefetch, which ought not to matter", func(s *Scenario) { s.Prefetch = 100 }),
	}
	for _, prefetch := range []int{1, 100, 1000} {
		list = append(list, add(fmt.Sprintf("ack-prefetch-%d", prefetch), "no confirms, manual acks", func(s *Scenario) {
			s.AutoAck, s.Prefetch = false, prefetch
		}))
	}
	for _, window := range []int{1, 100, 1000} {
		list = append(list, add(fmt.Sprintf("confirm-%d", window), "confirms, manual acks", func(s *Scenario) {
			s.Window, s.AutoAck, s.Prefetch = window, false, 1000
		}))
	}
	return append(list,
		add("shared-queue", "one queue, 5 publishers, 5 consumers", func(s *Scenario) {
			s.Publishers, s.Consumers, s.AutoAck, s.Prefetch = 5, 5, false, 100
		}),
		add("many", "10 queues, each with a publisher and a consumer, confirms", func(s *Scenario) {
			s.Queues, s.Publishers, s.Consumers, s.Window, s.AutoAck, s.Prefetch = 10, 10, 10, 100, false, 100
		}),
	)
}

// selectScenarios returns those whose names match one of the patterns: a name, a prefix up
// to a slash, or a shell pattern.
func selectScenarios(all []Scenario, patterns []string) ([]Scenario, error) {
	if len(patterns) == 0 {
		return all, nil
	}
	used := make([]bool, len(patterns))
	var list []Scenario
	for _, s := range all {
		take := false
		for i, p := range patterns {
			ok, err := path.Match(p, s.Name)
			if err != nil {
				return nil, fmt.Errorf("pattern %q: %w", p, err)
			}
			if ok || strings.HasPrefix(s.Name, p+"/") {
				take, used[i] = true, true
			}
		}
		if take {
			list = append(list, s)
		}
	}
	for i, p := range patterns {
		if !used[i] {
			return nil, fmt.Errorf("no scenario matches %q", p)
		}
	}
	return list, nil
}

// set changes fields as "key=value,key=value" says.
func (s *Scenario) set(assignments string) error {
	for a := range strings.SplitSeq(assignments, ",") {
		if a == "" {
			continue
		}
		key, value, ok := strings.Cut(a, "=")
		if !ok {
			return fmt.Errorf("-set %s: not key=value", a)
		}
		if err := s.setOne(key, value); err != nil {
			return fmt.Errorf("-set %s: %w", a, err)
		}
	}
	return nil
}

func (s *Scenario) setOne(key, value string) (err error) {
	ints := map[string]*int{
		"queues": &s.Queues, "publishers": &s.Publishers, "consumers": &s.Consumers, "bindings": &s.Bindings,
		"body": &s.Body, "window": &s.Window, "prefetch": &s.Prefetch, "rate": &s.Rate,
		"in-flight": &s.InFlight, "count": &s.Count,
	}
	bools := map[string]*bool{"persistent": &s.Persistent, "auto-ack": &s.AutoAck, "multiple": &s.Multiple}
	texts := map[string]*string{"exchange": &s.Exchange, "queue-type": &s.QueueType}
	switch {
	case ints[key] != nil:
		*ints[key], err = strconv.Atoi(value)
		if err == nil && *ints[key] < 0 {
			err = errors.New("negative")
		}
	case bools[key] != nil:
		*bools[key], err = strconv.ParseBool(value)
	case texts[key] != nil:
		*texts[key] = value
	default:
		err = errors.New("no such key")
	}
	return err
}

// check reports what cannot be run.
func (s *Scenario) check() error {
	switch {
	case s.Publishers < 1:
		return fmt.Errorf("%s: publishers must be at least 1", s.Name)
	case (s.Kind == kindFlow || s.Kind == kindBacklog) && (s.Queues < 1 || s.Consumers < 1):
		return fmt.Errorf("%s: needs a queue and a consumer", s.Name)
	case s.Kind != kindFlow && s.Kind != kindChurn && s.Count < 1:
		return fmt.Errorf("%s: count must be at least 1", s.Name)
	case s.Rate > 0 && s.Body < 8:
		return fmt.Errorf("%s: a body of 8 bytes is needed for the time", s.Name)
	case s.Exchange != "" && s.Exchange != "fanout" && s.Exchange != "topic":
		return fmt.Errorf("%s: unknown exchange %q", s.Name, s.Exchange)
	case s.Exchange == "topic" && s.Bindings < s.Queues:
		return fmt.Errorf("%s: fewer bindings than queues", s.Name)
	case s.Kind == kindBacklog && s.Window < 1:
		return fmt.Errorf("%s: a backlog is filled with confirms: window must be at least 1", s.Name)
	}
	return nil
}
