package main

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// The kinds of scenario: how the load is made and which phases are measured.
const (
	kindFlow    = "flow"    // publish and consume at full speed, or at a fixed rate; one phase
	kindBacklog = "backlog" // fill queues without consumers, perhaps start the broker again, then drain them
	kindClient  = "client"  // a flow with RabbitMQ's Go client in place of ours
	kindIdle    = "idle"    // open connections, then leave them alone
	kindChurn   = "churn"   // open a connection and a channel, close both, again and again
	kindDeclare = "declare" // declare durable queues, then delete them
	kindStart   = "start"   // start the broker again and again
)

// Scenario describes one load. Its fields are the keys of -set, spelt as in JSON.
type Scenario struct {
	Name  string `json:"name"`
	About string `json:"about"`
	Kind  string `json:"kind"`

	Queues     int    `json:"queues,omitempty"`
	Publishers int    `json:"publishers,omitempty"` // connections; in churn and declare: workers
	Consumers  int    `json:"consumers,omitempty"`  // connections; 0: nobody consumes what is published
	Exchange   string `json:"exchange,omitempty"`   // "" default, fanout, topic
	Bindings   int    `json:"bindings,omitempty"`   // of a topic exchange
	QueueType  string `json:"queue-type,omitempty"` // x-queue-type; "" leaves it to the broker

	Body       int  `json:"body,omitempty"` // bytes
	Persistent bool `json:"persistent"`
	Window     int  `json:"window,omitempty"` // unconfirmed publishes per publisher; 0: no confirms
	AutoAck    bool `json:"auto-ack"`
	Prefetch   int  `json:"prefetch,omitempty"` // 0: unlimited
	Multiple   bool `json:"multiple,omitempty"` // one ack per read instead of one per message

	Rate      int `json:"rate,omitempty"`       // messages/s of all publishers together; 0: as fast as possible
	InFlight  int `json:"in-flight,omitempty"`  // most messages published and not yet consumed; 0: unlimited
	Count     int `json:"count,omitempty"`      // messages of a backlog, connections, queues to declare, starts
	First     int `json:"first,omitempty"`      // messages of a backlog that come before those that are measured; 0: a fifth
	SyncDelay int `json:"sync-delay,omitempty"` // ms added to every sync of the broker's files; needs a command that starts it

	Restart bool `json:"restart,omitempty"` // start the broker again, if there is a command: before the run, or before a backlog is drained
}

const (
	defaultInFlight = 20_000
	steady          = "steady" // the one phase of a flow
	streamType      = "stream" // of a queue; its consumers need a prefetch and acks, and start at an offset
)

func flow(name, about string, change func(*Scenario)) Scenario {
	s := Scenario{
		Name: name, About: about, Kind: kindFlow, Queues: 1, Publishers: 1, Consumers: 1, Body: 1024,
		AutoAck: true, InFlight: defaultInFlight,
	}
	change(&s)
	return s
}

// confirmed is a flow of persistent messages with confirms, and an ack for each.
func confirmed(name, about string, change func(*Scenario)) Scenario {
	return flow(name, about, func(s *Scenario) {
		s.Persistent, s.Window, s.AutoAck, s.Prefetch = true, 1000, false, 1000
		change(s)
	})
}

// scenarios returns everything there is to run, in the order of a full run: starts first, while there is no data yet.
func scenarios() []Scenario {
	return slices.Concat([]Scenario{
		{Name: "start", About: "start the broker, leave it alone, end it, several times", Kind: kindStart, Publishers: 1, Count: 5},
	}, throughputScenarios(), []Scenario{
		flow("latency/transient", "5 000/s, open loop", func(s *Scenario) { s.Rate, s.InFlight = 5000, 0 }),
		confirmed("latency/confirmed", "5 000/s persistent with confirms and manual acks, open loop", func(s *Scenario) {
			s.Rate, s.InFlight, s.Prefetch = 5000, 0, 100
		}),
		{
			Name: "backlog/1M", About: "1 000 000 persistent messages in, the broker started again, then out", Kind: kindBacklog,
			Queues: 1, Publishers: 1, Consumers: 1, Body: 1024, Persistent: true, Window: 1000, Prefetch: 1000, Count: 1_000_000,
			Restart: true,
		},
		{
			Name: "backlog/10M", About: "10 000 000 of 100 bytes: memory for each that waits", Kind: kindBacklog,
			Queues: 1, Publishers: 1, Consumers: 1, Body: 100, Persistent: true, Window: 1000, Prefetch: 1000, Count: 10_000_000, First: 4_000_000,
		},
		flow("large/transient", "1 MiB messages", func(s *Scenario) { s.Body, s.InFlight = 1<<20, 32 }),
		confirmed("large/persistent", "1 MiB messages, confirms with a window of 10", func(s *Scenario) {
			s.Body, s.InFlight, s.Window, s.Prefetch = 1<<20, 32, 10, 10
		}),
		{Name: "idle/1000", About: "connections with one channel that do nothing", Kind: kindIdle, Publishers: 4, Count: 1000, Restart: true},
		{Name: "churn/connections", About: "connect, open a channel, close, 4 at a time", Kind: kindChurn, Publishers: 4},
		{Name: "declare/10000", About: "declare durable queues one after another, then delete them", Kind: kindDeclare, Publishers: 1, Count: 10_000, Restart: true},
	}, streamScenarios(), []Scenario{
		{
			Name: "client/confirmed", About: "amqp091-go: persistent, confirms with a window of 1000, an ack for each", Kind: kindClient,
			Queues: 1, Publishers: 1, Consumers: 1, Body: 1024, Persistent: true, Window: 1000, Prefetch: 1000, InFlight: 2000,
		},
	})
}

func throughputScenarios() []Scenario {
	four := func(s *Scenario) { s.Queues, s.Publishers, s.Consumers = 4, 4, 4 }
	return []Scenario{
		flow("transient/16B", "no confirms, auto-ack", func(s *Scenario) { s.Body = 16 }),
		flow("transient/1KiB", "no confirms, auto-ack", func(*Scenario) {}),
		flow("transient/16B-4", "4 queues, each with a publisher and a consumer", func(s *Scenario) { s.Body = 16; four(s) }),
		flow("transient/1KiB-4", "4 queues, each with a publisher and a consumer", four),
		flow("transient/ack-1", "no confirms, manual acks, prefetch 1", func(s *Scenario) { s.AutoAck, s.Prefetch = false, 1 }),
		flow("transient/ack-200", "no confirms, manual acks, prefetch 200", func(s *Scenario) { s.AutoAck, s.Prefetch = false, 200 }),
		flow("transient/shared", "one queue, 5 publishers, 5 consumers, manual acks", func(s *Scenario) {
			s.Publishers, s.Consumers, s.AutoAck, s.Prefetch = 5, 5, false, 100
		}),
		confirmed("persistent/confirm-1", "confirms one by one, manual acks", func(s *Scenario) { s.Window = 1 }),
		confirmed("persistent/confirm-100", "confirms with a window of 100, manual acks", func(s *Scenario) { s.Window = 100 }),
		confirmed("persistent/confirm-1000", "confirms with a window of 1000, manual acks", func(*Scenario) {}),
		confirmed("persistent/100-queues", "the same over 100 queues", func(s *Scenario) { s.Queues = 100 }),
		confirmed("persistent/no-consumer", "confirms with a window of 1000, nobody consumes", func(s *Scenario) { s.Consumers, s.InFlight = 0, 0 }),
		confirmed("persistent/slow-sync", "every sync takes 5 ms longer, window of 100", func(s *Scenario) { s.Window, s.SyncDelay = 100, 5 }),
		flow("fanout/50", "one publisher, 50 queues, 10 consuming connections", func(s *Scenario) {
			s.Exchange, s.Queues, s.Consumers, s.InFlight = "fanout", 50, 10, 2000
		}),
		flow("topic/10000", "10 000 topic bindings, every message matches one", func(s *Scenario) {
			s.Exchange, s.Queues, s.Bindings, s.Consumers = "topic", 10, 10_000, 2
		}),
	}
}

func streamScenarios() []Scenario {
	return []Scenario{
		confirmed("stream/publish", "into a stream, confirms with a window of 1000, no reader", func(s *Scenario) {
			s.QueueType, s.Consumers, s.InFlight = streamType, 0, 0
		}),
		confirmed("stream/read", "a stream of 1 000 000 messages from its start, acks in bulk", func(s *Scenario) {
			s.Kind, s.QueueType, s.Multiple, s.Count, s.InFlight = kindBacklog, streamType, true, 1_000_000, 0
		}),
		confirmed("stream/both", "publish and read at once, acks in bulk", func(s *Scenario) {
			s.QueueType, s.Multiple, s.InFlight = streamType, true, 0
		}),
	}
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
		"in-flight": &s.InFlight, "count": &s.Count, "sync-delay": &s.SyncDelay,
	}
	bools := map[string]*bool{"persistent": &s.Persistent, "auto-ack": &s.AutoAck, "multiple": &s.Multiple, "restart": &s.Restart}
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
	moves := s.Kind == kindFlow || s.Kind == kindBacklog || s.Kind == kindClient
	switch {
	case s.Publishers < 1:
		return fmt.Errorf("%s: publishers must be at least 1", s.Name)
	case moves && s.Queues < 1:
		return fmt.Errorf("%s: needs a queue", s.Name)
	case moves && s.Consumers < 1 && (s.Kind != kindFlow || s.InFlight > 0 || s.Window < 1):
		return fmt.Errorf("%s: needs a consumer, or confirms and no bound on what is in flight", s.Name)
	case !moves && s.Kind != kindChurn && s.Count < 1, s.Kind == kindBacklog && s.Count < 5:
		return fmt.Errorf("%s: count is too small", s.Name)
	case s.Rate > 0 && s.Body < 8:
		return fmt.Errorf("%s: a body of 8 bytes is needed for the time", s.Name)
	case s.Exchange != "" && s.Exchange != "fanout" && s.Exchange != "topic":
		return fmt.Errorf("%s: unknown exchange %q", s.Name, s.Exchange)
	case s.Exchange == "topic" && s.Bindings < s.Queues:
		return fmt.Errorf("%s: fewer bindings than queues", s.Name)
	case (s.Kind == kindBacklog || s.Kind == kindClient) && s.Window < 1:
		return fmt.Errorf("%s: works with confirms: window must be at least 1", s.Name)
	case s.QueueType == streamType && s.Consumers > 0 && (s.AutoAck || s.Prefetch < 1):
		return fmt.Errorf("%s: a stream is read with acks and a prefetch", s.Name)
	}
	return nil
}
