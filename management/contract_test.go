package management

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// The contract is what a real RabbitMQ answered to the requests of testdata/*.requests, recorded in the .json file
// beside it by
//
//	MANAGEMENT_URL=http://127.0.0.1:15672 go test ./management -run TestContract -record
//
// The test makes the same requests here, in order, and compares the status, the keys and the JSON types of every answer,
// the values of what says what a thing is, and refusals to the letter.
var record = flag.Bool("record", false, "record the contract from the RabbitMQ at MANAGEMENT_URL")

// exchanged is a request and its answer.
type exchanged struct {
	Method string          `json:"method"`
	Path   string          `json:"path"`
	Body   string          `json:"body,omitempty"`
	Status int             `json:"status"`
	Answer json.RawMessage `json:"answer,omitempty"`
	Header string          `json:"location,omitempty"`
}

// Where answers are not RabbitMQ's, by request, and why. A key that begins with "-" is missing here, one with "+" is ours
// alone, "~" is of another type and "=" has another value; "body" is a refusal in other words, "status" another status. Keys of lists are those
// of their elements.
var differences = map[string]map[string]string{
	"GET /api/queues/":      {"~": ownBroker},
	"GET /api/cluster-name": {"=name": ownBroker},
	"GET /api/overview": {
		"-listeners.socket_opts.backlog": erlangOnly, "-listeners.socket_opts.nodelay": erlangOnly,
		"-listeners.socket_opts.linger": erlangOnly, "-listeners.socket_opts.exit_on_close": erlangOnly, "+settmq_version": "what runs here",
	},
	"GET /api/nodes":                                         nodeDifferences,
	"GET /api/nodes/{node}":                                  nodeDifferences,
	"GET /api/deprecated-features":                           {"=name": "they come in no order"},
	"GET /api/health/checks/port-listener/1":                 {"body": ownBroker},
	"GET /api/health/checks/protocol-listener/mqtt":          {"body": ownBroker},
	"GET /api/users":                                         {"=hashing_algorithm": ownBroker},
	"GET /api/permissions":                                   {"=user": ownBroker, "=vhost": ownBroker, "=write": ownBroker, "=read": ownBroker},
	"PUT /api/permissions/contract/contract-user":            {"body": "the words of another engine"},
	"PUT /api/topic-permissions/contract/contract-user":      {"body": "the words of another engine"},
	"GET /api/topic-permissions/contract/contract-user/nope": {"~": "RabbitMQ shows those of other exchanges"},
	"POST /api/definitions":                                  {"body": "ours says where and what"},
	"GET /api/definitions/contract": {
		"+exchanges.internal": "RabbitMQ loses it", "-metadata.default_queue_type": "only what was set, so that a default stays one",
	},
	"GET /api/queues/contract?disable_stats=true&enable_queue_totals=true": {"~exclusive": "null in RabbitMQ", "+internal": ownWords},
	"GET /api/queues/contract":                     {"+policy": "null in RabbitMQ's details alone", "+operator_policy": "null in RabbitMQ's details alone"},
	"POST /api/bindings/contract/e/amq.topic/q/q1": {"location": hashes},
	"GET /api/bindings/contract":                   {"=properties_key": hashes},
}

const (
	hashes = "arguments are hashed in our own way; clients take the key from a listing"
)

var nodeDifferences = func() map[string]string {
	d := map[string]string{
		"=applications.name": ownBroker, "=auth_mechanisms.name": ownBroker, "=exchange_types.name": "in our own order",
		"~config_files": ownBroker, "+contexts.node": "as in the overview", "+contexts.ssl_opts": "as in the overview",
	}
	for _, k := range []string{
		"context_switches", "gc_bytes_reclaimed", "gc_num", "io_read_avg_time", "io_read_bytes", "io_read_count", "io_reopen_count",
		"io_seek_avg_time", "io_seek_count", "io_sync_avg_time", "io_sync_count", "io_write_avg_time", "io_write_bytes", "io_write_count",
		"mnesia_disk_tx_count", "mnesia_ram_tx_count", "msg_store_read_count", "msg_store_write_count", "queue_index_read_count", "queue_index_write_count",
	} {
		d["-"+k], d["-"+k+"_details"] = erlangOnly, erlangOnly
	}
	for _, k := range []string{
		"channel_closed", "channel_consumer_deleted", "connection_closed", "consumer_deleted", "exchange_deleted", "node_node_deleted",
		"queue_deleted", "vhost_deleted",
	} {
		d["-metrics_gc_queue_length."+k] = erlangOnly
	}
	return d
}()

// everywhere are keys that are different wherever they stand.
var everywhere = map[string]string{
	"-garbage_collection": erlangOnly, "-messages_active_priorities": erlangOnly, "-messages_by_priority": erlangOnly,
	"-messages_ready_returned": erlangOnly, "-metrics_gc_queue_length.channel_closed": erlangOnly,
	"-cached_segments": erlangOnly, "-pending_raft_commands": erlangOnly, "+global_prefetch_count": "RabbitMQ 4 has no such prefetch any more",
	"-idle_since": "not before there was a sample", "+idle_since": "as soon as there was a sample", "=description": "our own words",
}

const (
	erlangOnly = "about the insides of RabbitMQ"
	ownBroker  = "another broker with other things in it"
	ownWords   = "our own words"
)

// stable are the keys whose values must be the same.
var stable = []string{
	"name", "vhost", "user", "durable", "auto_delete", "exclusive", "internal", "type", "arguments", "source", "destination",
	"destination_type", "routing_key", "pattern", "apply-to", "definition", "priority", "configure", "write", "read", "tags",
	"description", "value", "component", "policy", "operator_policy", "effective_policy_definition", "payload", "payload_encoding",
	"payload_bytes", "redelivered", "message_count", "properties", "routed", "default_queue_type", "hashing_algorithm",
	"filtered_count", "item_count", "page", "page_count", "page_size", "tracing", "protected_from_deletion", "exchange",
}

func TestContract(t *testing.T) {
	files, err := filepath.Glob("testdata/*.requests")
	if err != nil || len(files) == 0 {
		t.Fatalf("no requests: %v", err)
	}
	total := 0
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".requests"), func(t *testing.T) {
			a := newAPI(t)
			recorded := strings.TrimSuffix(file, ".requests") + ".json"
			if *record {
				if a.broker != nil {
					t.Fatal("MANAGEMENT_URL is not set")
				}
				writeContract(t, recorded, a.play(readRequests(t, file)))
				return
			}
			contract := readContract(t, recorded)
			got := a.play(readRequests(t, file))
			if len(contract) != len(got) {
				t.Fatalf("%d requests, and %d of them recorded", len(got), len(contract))
			}
			total += len(contract)
			for i, want := range contract {
				compareAnswers(t, want, got[i])
			}
		})
	}
	if !*record && total < 120 {
		t.Errorf("the contract has %d answers only", total)
	}
}

// readRequests reads lines of METHOD PATH BODY. "wait" lets a RabbitMQ gather its statistics.
func readRequests(t *testing.T, file string) (list []exchanged) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		method, rest, _ := strings.Cut(line, " ")
		path, body, _ := strings.Cut(rest, " ")
		list = append(list, exchanged{Method: method, Path: path, Body: body})
	}
	return list
}

// play makes the requests.
func (a *api) play(list []exchanged) (answers []exchanged) {
	node := a.node()
	for _, e := range list {
		if e.Method == "wait" {
			if a.broker == nil {
				time.Sleep(7 * time.Second) // RabbitMQ's statistics come every five
			}
			continue
		}
		r := a.request("guest", e.Method, strings.ReplaceAll(e.Path, "{node}", node), e.Body)
		w, answer := a.send(r)
		e.Status, e.Header = w.StatusCode, w.Header.Get("Location")
		answer = strings.ReplaceAll(answer, node, "NODE")
		if answer != "" {
			e.Answer = json.RawMessage(answer)
		}
		answers = append(answers, e)
	}
	return answers
}

func writeContract(t *testing.T, file string, list []exchanged) {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(list); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readContract(t *testing.T, file string) (list []exchanged) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &list)
	}
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func compareAnswers(t *testing.T, want, got exchanged) {
	t.Helper()
	name := want.Method + " " + want.Path
	c := &comparison{allowed: differences[name]}
	if want.Status != got.Status {
		c.differ("status", fmt.Sprintf("status %d, want %d: %s", got.Status, want.Status, got.Answer))
	}
	var w, g any
	if want.Answer != nil && json.Unmarshal(want.Answer, &w) != nil || got.Answer != nil && json.Unmarshal(got.Answer, &g) != nil {
		c.differ("body", fmt.Sprintf("not JSON: %s", got.Answer))
	}
	switch {
	case want.Status >= http.StatusBadRequest:
		if !reflect.DeepEqual(w, g) {
			c.differ("body", fmt.Sprintf("%s\nwant %s", got.Answer, want.Answer))
		}
	default:
		c.compare("", w, g)
	}
	if want.Header != got.Header {
		c.differ("location", fmt.Sprintf("location %q, want %q", got.Header, want.Header))
	}
	for _, problem := range c.problems {
		t.Errorf("%s %s: %s", name, want.Body, problem)
	}
}

// comparison is that of two answers.
type comparison struct {
	allowed  map[string]string
	problems []string
}

func (c *comparison) differ(key, what string) {
	bare := strings.TrimLeft(key, "-+~=")
	last := bare[strings.LastIndexByte(bare, '.')+1:]
	if c.allowed[key] != "" || everywhere[key] != "" || everywhere[key[:len(key)-len(bare)]+last] != "" {
		return
	}
	c.problems = append(c.problems, key+": "+what)
}

// compare looks at keys and types, and at the values of stable keys. path is the way to the value.
func (c *comparison) compare(path string, want, got any) {
	if kindOf(want) != kindOf(got) {
		c.differ("~"+path, fmt.Sprintf("%s, want %s", kindOf(got), kindOf(want)))
		return
	}
	last := path[strings.LastIndexByte(path, '.')+1:]
	if slices.Contains(stable, last) && !reflect.DeepEqual(want, got) {
		c.differ("="+path, fmt.Sprintf("%v, want %v", got, want))
		return
	}
	switch w := want.(type) {
	case map[string]any:
		g := got.(map[string]any)
		for _, k := range slices.Sorted(maps.Keys(w)) {
			if _, ok := g[k]; !ok {
				c.differ("-"+join(path, k), "missing")
				continue
			}
			c.compare(join(path, k), w[k], g[k])
		}
		for _, k := range slices.Sorted(maps.Keys(g)) {
			if _, ok := w[k]; !ok {
				c.differ("+"+join(path, k), "there is no such key")
			}
		}
	case []any:
		g := got.([]any)
		switch {
		case len(w) > 0 && len(g) == 0:
			c.differ("~"+path, "empty")
		case len(w) == len(g):
			for i := range w {
				c.compare(path, w[i], g[i])
			}
		case len(w) > 0:
			c.compare(path, w[0], g[0])
		}
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func kindOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "bool"
	case float64:
		return "number"
	case string:
		return "string"
	case []any:
		return "list"
	}
	return "object"
}
