package broker

import (
	"os"
	"strings"
	"testing"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/broker/definitions"
	"github.com/settmq/settmq/queue"
)

const exported = `{
 "rabbit_version": "3.13.7",
 "users": [
  {"name": "ann", "password_hash": "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR", "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": ["administrator"]},
  {"name": "guest", "password_hash": "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR", "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": ""}
 ],
 "vhosts": [{"name": "/"}, {"name": "prod"}],
 "permissions": [
  {"user": "ann", "vhost": "prod", "configure": ".*", "write": "^(?!amq\\.).*", "read": ".*"},
  {"user": "guest", "vhost": "/", "configure": "", "write": "", "read": ".*"}
 ],
 "topic_permissions": [{"user": "ann", "vhost": "prod", "exchange": "events", "write": "^ann", "read": ".*"}],
 "policies": [{"vhost": "prod", "name": "p", "pattern": ".*", "apply-to": "all", "definition": {"max-length": 5}, "priority": 0}],
 "parameters": [],
 "global_parameters": [{"name": "cluster_name", "value": "old"}],
 "exchanges": [
  {"name": "events", "vhost": "prod", "type": "topic", "durable": true, "auto_delete": false, "internal": false, "arguments": {"alternate-exchange": "lost"}},
  {"name": "lost", "vhost": "prod", "type": "fanout", "durable": true, "auto_delete": false, "internal": false, "arguments": {}}
 ],
 "queues": [
  {"name": "all", "vhost": "prod", "durable": true, "auto_delete": false, "arguments": {"x-queue-type": "classic"}},
  {"name": "amq.gen-old", "vhost": "prod", "durable": true, "auto_delete": false, "arguments": {}},
  {"name": "all", "vhost": "/", "durable": true, "auto_delete": false, "arguments": {}}
 ],
 "bindings": [
  {"source": "events", "vhost": "prod", "destination": "all", "destination_type": "queue", "routing_key": "#.created", "arguments": {}},
  {"source": "events", "vhost": "prod", "destination": "lost", "destination_type": "exchange", "routing_key": "x", "arguments": {}},
  {"source": "lost", "vhost": "prod", "destination": "amq.gen-old", "destination_type": "queue", "routing_key": "", "arguments": {}}
 ]
}`

func parse(t testing.TB, text string) *definitions.Definitions {
	t.Helper()
	d, err := definitions.Parse(strings.NewReader(text), definitions.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestImportTakesEverythingOverAndIsIdempotent imports twice, restarts, and imports again.
func TestImportTakesEverythingOverAndIsIdempotent(t *testing.T) {
	o := testOptions(t, t.TempDir(), nil)
	b := open(t, o)
	d := parse(t, exported)
	report, err := b.Import(d)
	if err != nil {
		t.Fatal(err)
	}
	if want := (ImportReport{VHosts: 1, Users: 2, Permissions: 3, Exchanges: 2, Queues: 3, Bindings: 3, Policies: 1, Parameters: 1}); report != want {
		t.Errorf("first import: %+v\nwant %+v", report, want)
	}
	before := snapshot(b.VHost("prod")).String()
	again := ImportReport{Users: 2, Permissions: 3, Present: 9, Parameters: 1}
	if report, err = b.Import(d); err != nil || report != again {
		t.Errorf("second import: %+v, %v", report, err)
	}
	closeBroker(t, b)
	b = open(t, o)
	defer closeBroker(t, b)
	if after := snapshot(b.VHost("prod")).String(); after != before {
		t.Errorf("after a restart\n%s\nbefore\n%s", after, before)
	}
	if report, err = b.Import(d); err != nil || report != again {
		t.Errorf("import after a restart: %+v, %v", report, err)
	}
	if _, err := b.Users().Authenticate("ann", "test12", localhost); err != nil {
		t.Errorf("login with the imported hash: %v", err)
	}
	r := b.VHost("prod").NewRouter()
	expectRoute(t, r, "events", "order.created", "all")
	expectRoute(t, r, "events", "other", "amq.gen-old")
	if b.Users().MayEnter("guest", "prod") || !b.Users().MayEnter("ann", "prod") {
		t.Error("permissions differ from the file's")
	}
}

// TestImportIsAllOrNothing: one problem anywhere and nothing changes; all problems are named.
func TestImportIsAllOrNothing(t *testing.T) {
	b := newBroker(t)
	v := b.VHost("/")
	declareQueue(t, v, "q", false)
	declareExchange(t, v, "x", "direct")
	before := snapshot(v).String()
	for _, tt := range []struct{ name, text, problem string }{
		{"queue of other properties", `{"queues": [{"name": "new", "vhost": "/", "durable": true}, {"name": "q", "vhost": "/", "durable": true}]}`, "inequivalent arg 'durable' for queue 'q'"},
		{"exchange of another type", `{"queues": [{"name": "new", "vhost": "/", "durable": true}], "exchanges": [{"name": "x", "vhost": "/", "type": "fanout", "durable": true}]}`, "inequivalent arg 'type' for exchange 'x'"},
		{"queue type that is not there", `{"queues": [{"name": "new", "vhost": "/", "durable": true, "arguments": {"x-queue-type": "other"}}]}`, "x-queue-type"},
		{"binding from nowhere", `{"queues": [{"name": "new", "vhost": "/", "durable": true}], "bindings": [{"source": "none", "vhost": "/", "destination": "new", "destination_type": "queue", "routing_key": "", "arguments": {}}]}`, "there is no such source"},
		{"binding to nowhere", `{"bindings": [{"source": "x", "vhost": "/", "destination": "new", "destination_type": "queue", "routing_key": "", "arguments": {}}]}`, "there is no such queue"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			report, err := b.Import(parse(t, tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.problem) {
				t.Errorf("got %v, want a problem with %q", err, tt.problem)
			}
			if report != (ImportReport{}) {
				t.Errorf("report of nothing: %+v", report)
			}
			if after := snapshot(v).String(); after != before {
				t.Errorf("changed to\n%s", after)
			}
		})
	}
	// A program that embeds the broker may import what no parser has seen.
	for name, d := range map[string]*definitions.Definitions{
		"unknown vhost":                   {Queues: []definitions.Queue{{VHost: "none", Name: "new", Durable: true}}},
		"unknown user":                    {Permissions: []definitions.Permission{{User: "none", VHost: "/"}}},
		"unknown type":                    {Exchanges: []definitions.Exchange{{VHost: "/", Name: "new", Type: "none"}}},
		"binding to the default exchange": {Bindings: []definitions.Binding{{VHost: "/", Source: "x", ToExchange: true}}},
		"a bad match":                     {Bindings: []definitions.Binding{{VHost: "/", Source: "amq.headers", Destination: "q", Arguments: amqp.Table{field("x-match", amqp.String("none"))}}}},
		"many": {
			VHosts: []definitions.VHost{{Name: "new"}}, Users: []definitions.User{{}},
			Queues: []definitions.Queue{{VHost: "new", Name: "ok", Durable: true}, {VHost: "none", Name: "a"}, {VHost: "gone", Name: "b"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := b.Import(d)
			if err == nil {
				t.Fatal("accepted")
			}
			if name == "many" && (!strings.Contains(err.Error(), "'none'") || !strings.Contains(err.Error(), "'gone'")) {
				t.Errorf("not all problems are named: %v", err)
			}
			if b.VHost("new") != nil || snapshot(v).String() != before {
				t.Error("something changed")
			}
		})
	}
}

func TestImportRespectsTheVHostLimit(t *testing.T) {
	b := newBroker(t, func(o *Options) { o.Limits.MaxVHosts = 2 })
	if _, err := b.Import(parse(t, `{"vhosts": [{"name": "a"}, {"name": "b"}]}`)); err == nil || b.VHost("a") != nil {
		t.Errorf("three vhosts of two: %v", err)
	}
	if _, err := b.Import(parse(t, `{"vhosts": [{"name": "a"}, {"name": "/"}]}`)); err != nil {
		t.Error(err)
	}
}

// TestImportOfQuorumQueues: they come with their rules, and a queue without a type gets that of its vhost.
func TestImportOfQuorumQueues(t *testing.T) {
	o := testOptions(t, t.TempDir(), nil)
	b := open(t, o)
	d := parse(t, `{
	 "vhosts": [{"name": "/", "default_queue_type": "quorum"}],
	 "queues": [
	  {"name": "named", "vhost": "/", "durable": true, "auto_delete": false, "type": "quorum", "arguments": {"x-queue-type": "quorum", "x-delivery-limit": 3}},
	  {"name": "by default", "vhost": "/", "durable": true, "auto_delete": false, "arguments": {}}
	 ]}`)
	if _, err := b.Import(d); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		for name, limit := range map[string]int64{"named": 3, "by default": DefaultDeliveryLimit} {
			q, err := b.VHost("/").UseQueue(System{}, name)
			must(t, err)
			c := q.(*queue.Queue)
			if TypeOf(q) != QuorumQueue || c.MaxPriority != 31 || c.DefaultPriority != 4 || !c.KeepsTransient || c.Settings.DeliveryLimit != queue.Some(limit) {
				t.Errorf("%s: a %v queue with %+v", name, TypeOf(q), c.Options)
			}
		}
	}
	check()
	closeBroker(t, b)
	b = open(t, o)
	defer closeBroker(t, b)
	check()
	_, refused := b.VHost("/").DeclareQueue(actor{id: 1}, QueueDeclare{Name: "by default", Durable: true})
	must(t, refused) // the type is in its arguments
}

// What RabbitMQ takes of a file that is uploaded, and what an export of it has in it.
func TestMergeLeavesWhatIsThere(t *testing.T) {
	b := newBroker(t)
	v := b.VHost("/")
	declareQueue(t, v, "q", false)
	declareExchange(t, v, "x", "direct")
	file := parse(t, `{
		"queues": [{"name": "q", "vhost": "/", "durable": true}, {"name": "amq.mine", "vhost": "/", "durable": true}],
		"exchanges": [{"name": "x", "vhost": "/", "type": "fanout", "durable": true}, {"name": "amq.rabbitmq.log", "vhost": "/", "type": "topic", "durable": true}],
		"bindings": [
			{"source": "gone", "vhost": "/", "destination": "q", "destination_type": "queue", "routing_key": "", "arguments": {}},
			{"source": "x", "vhost": "/", "destination": "gone", "destination_type": "queue", "routing_key": "", "arguments": {}},
			{"source": "x", "vhost": "/", "destination": "q", "destination_type": "queue", "routing_key": "k", "arguments": {}}]}`)
	if _, err := b.Import(file); err == nil {
		t.Error("an import that is not lenient took the file")
	}
	report, err := b.Merge(file)
	if err != nil {
		t.Fatal(err)
	}
	if want := (ImportReport{Exchanges: 1, Queues: 1, Bindings: 1, Present: 2}); report != want {
		t.Errorf("report %+v, want %+v", report, want)
	}
	if q := v.Queue("q"); q.About().Durable {
		t.Error("the queue was replaced")
	}
	if x := v.Exchange("x"); x.Type != "direct" {
		t.Errorf("the exchange is of type %s", x.Type)
	}
	if v.Queue("amq.mine") == nil || v.Exchange("amq.rabbitmq.log") == nil {
		t.Error("names that only definitions may have were not taken over")
	}
}

func TestImportSwitchesTheFirehoseOn(t *testing.T) {
	b := newBroker(t)
	if _, err := b.Import(parse(t, `{"vhosts": [{"name": "v", "tracing": true}, {"name": "w"}]}`)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"v": true, "w": false} {
		if v := b.VHost(name); v.Tracing() != want || v.Export().VHosts[0].Tracing != want {
			t.Errorf("%s: the firehose is on: %v, want %v", name, v.Tracing(), want)
		}
	}
}

// The export of a RabbitMQ 4.3.6 with something of everything comes over with nothing refused.
func TestImportOfARealExport(t *testing.T) {
	o := testOptions(t, t.TempDir(), nil)
	b := open(t, o)
	text, err := os.ReadFile("definitions/testdata/shop-4.3.json")
	if err != nil {
		t.Fatal(err)
	}
	d := parse(t, string(text))
	report, err := b.Import(d)
	if err != nil {
		t.Fatal(err)
	}
	if want := (ImportReport{VHosts: 1, Users: 2, Permissions: 4, Exchanges: 4, Queues: 5, Bindings: 5, Policies: 2, Parameters: 3}); report != want {
		t.Errorf("%+v\nwant %+v", report, want)
	}
	closeBroker(t, b)
	b = open(t, o)
	defer closeBroker(t, b)
	v := b.VHost("shop2")
	expectRoute(t, v.NewRouter(), "orders", "order.new", "work")
	expectRoute(t, v.NewRouter(), "orders", "nobody", "dead") // by the alternate exchange
	if _, err := b.Users().Authenticate("ann", "test12", localhost); err != nil {
		t.Errorf("login with the imported hash: %v", err)
	}
}
