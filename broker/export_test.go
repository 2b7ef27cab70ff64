package broker

import (
	"bytes"
	"strings"
	"testing"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/broker/definitions"
)

func written(t testing.TB, d *definitions.Definitions, vhost string) string {
	t.Helper()
	var b bytes.Buffer
	ok(t, definitions.Write(&b, d, vhost))
	return b.String()
}

// TestExportComesBack: what one broker exports, another imports, and exports alike.
func TestExportComesBack(t *testing.T) {
	b := newBroker(t)
	if _, err := b.Import(parse(t, exported)); err != nil {
		t.Fatal(err)
	}
	v := b.VHost("prod")
	ok(t, v.SetMetadata(VHostMetadata{Description: "pröduction", Tags: []string{"a", "b"}, DefaultQueueType: "classic"}))
	ok(t, v.SetLimit(MaxQueues, 17))
	ok(t, b.Users().SetLimit("ann", MaxChannels, 3))
	setPolicy(t, v, OperatorPolicy, "o", `{"pattern":"","definition":{"max-length":5},"priority":-3}`)
	_, err := v.SetParameter("federation-upstream", "far", []byte(`{"uri":"amqp://far"}`))
	ok(t, err)
	declareExchange(t, v, "h", "headers", field("x-n", amqp.Int64(5)), field("x-f", amqp.Float64(2)), field("x-b", amqp.Bool(true)))
	bind(t, v, "h", "all", "<&>", QueueResource, field("x-match", amqp.String("any")), field("n", amqp.Int64(-1)))
	bind(t, v, "h", "all", "<&>", QueueResource, field("x-match", amqp.String("any")), field("l", texts("x", "y")))
	_, refusal := v.DeclareQueue(actor{id: 1}, QueueDeclare{Name: "private", Exclusive: true})
	must(t, refusal)
	bind(t, v, "h", "private", "", QueueResource)

	text := written(t, b.Export(), "")
	if strings.Contains(text, "private") || !strings.Contains(text, "pröduction") || strings.Contains(text, "amq.direct") {
		t.Errorf("exported\n%s", text)
	}
	other := newBroker(t)
	if _, err := other.Import(parse(t, text)); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if again := written(t, other.Export(), ""); again != text {
		t.Errorf("exported again\n%s\nfirst\n%s", again, text)
	}

	// One vhost, taken into one of another name.
	single := written(t, v.Export(), "prod")
	d, parseErr := definitions.Parse(strings.NewReader(single), definitions.Options{VHost: "copy"})
	ok(t, parseErr)
	if _, err := b.Import(d); err != nil {
		t.Fatal(err)
	}
	if again := written(t, b.VHost("copy").Export(), "copy"); strings.ReplaceAll(again, "copy", "prod") != single {
		t.Errorf("exported again\n%s\nfirst\n%s", again, single)
	}
	if l := b.VHost("copy").Limits(); l[MaxQueues] != 17 {
		t.Errorf("limits of the copy: %v", l)
	}
}

// Every kind of value that a table can hold becomes JSON.
func TestExportOfStrangeArguments(t *testing.T) {
	v := newBroker(t).VHost("/")
	declareExchange(t, v, "x", "direct",
		field("\xff", amqp.String("\xff")), field("i", amqp.Uint8(200)), field("d", amqp.Decimal(2, 314)), field("t", amqp.Timestamp(5)),
		field("v", amqp.Void()), field("x", amqp.Binary([]byte("b"))), field("f", amqp.Float32(0.5)), field("T", amqp.TableValue(amqp.Table{field("k", amqp.Int16(-3))})))
	d := parse(t, written(t, v.Export(), ""))
	want := amqp.Table{
		field("T", amqp.TableValue(amqp.Table{field("k", amqp.Int64(-3))})), field("d", amqp.Float64(3.14)), field("f", amqp.Float64(0.5)), field("i", amqp.Int64(200)),
		field("t", amqp.Int64(5)), field("v", amqp.Void()), field("x", amqp.String("b")), field("\ufffd", amqp.String("\ufffd")),
	}
	if got := d.Exchanges[0].Arguments; !got.Equal(want) {
		t.Errorf("arguments are %v\nwant %v", got, want)
	}
}

// TestImportOfA3xExport: mirrored queues are no matter of settings any more.
func TestImportOfA3xExport(t *testing.T) {
	b := newBroker(t)
	report, err := b.Import(parse(t, `{
	 "policies": [
	  {"vhost": "/", "name": "ha", "pattern": ".*", "apply-to": "all", "definition": {"ha-mode": "all", "ha-sync-mode": "automatic"}, "priority": 0},
	  {"vhost": "/", "name": "both", "pattern": "^b", "apply-to": "queues", "definition": {"ha-mode": "exactly", "ha-params": 2, "max-length": 10, "queue-master-locator": "min-masters"}, "priority": 1}],
	 "parameters": [
	  {"vhost": "/", "component": "operator_policy", "name": "cap", "value": {"pattern": "", "definition": {"max-length": 7}, "priority": 0, "apply-to": "queues"}},
	  {"vhost": "/", "component": "vhost-limits", "name": "limits", "value": {"max-connections": 100}},
	  {"vhost": "/", "component": "mqtt", "name": "x", "value": {}}],
	 "queues": [{"name": "b", "vhost": "/", "durable": true, "arguments": {}}]}`))
	if want := (ImportReport{Policies: 2, Parameters: 1, Queues: 1}); err != nil || report != want {
		t.Fatalf("%+v, %v, want %+v", report, err, want)
	}
	v := b.VHost("/")
	if v.Policy(UserPolicy, "ha") != nil {
		t.Error("a policy of which nothing is left was imported")
	}
	if e := v.QueuePolicy(v.queues["b"]); e == nil || len(e.Definition) != 1 || e.Definition["max-length"] != int64(7) {
		t.Errorf("the queue obeys %+v", e)
	}
	if n := v.Limits()[MaxConnections]; n != 100 {
		t.Errorf("connection limit %d", n)
	}
}

// TestImportedPoliciesReachWhatIsThere: also queues and exchanges that the file does not have.
func TestImportedPoliciesReachWhatIsThere(t *testing.T) {
	b := newBroker(t)
	v := b.VHost("/")
	q := declareQueue(t, v, "old", true)
	declareExchange(t, v, "x", "direct")
	_, err := b.Import(parse(t, `{
	 "policies": [{"vhost": "/", "name": "p", "pattern": "", "definition": {"max-length": 3, "alternate-exchange": "y"}}],
	 "queues": [{"name": "new", "vhost": "/", "durable": true}]}`))
	ok(t, err)
	for _, q := range []Queue{q, v.queues["new"]} {
		if e := v.QueuePolicy(q); e == nil || e.Policy.Name != "p" {
			t.Errorf("queue %s obeys %+v", q.About().Name, e)
		}
	}
	if v.exchanges["x"].alternate != "y" {
		t.Error("the exchange does not obey")
	}
	for _, bad := range []string{
		`{"policies": [{"vhost": "/", "name": "p", "pattern": "", "definition": {"max-length": -3}}]}`,
		`{"parameters": [{"vhost": "/", "component": "operator_policy", "name": "p", "value": {"pattern": "", "definition": {"dead-letter-exchange": "x"}}}]}`,
		`{"parameters": [{"vhost": "nowhere", "component": "shovel", "name": "p", "value": {}}]}`,
		`{"vhosts": [{"name": "/", "default_queue_type": "fast"}]}`,
		`{"vhosts": [{"name": "/", "limits": {"max-foo": 1}}]}`,
		`{"users": [{"name": "u", "password": "p", "limits": {"max-foo": 1}}]}`,
	} {
		if _, err := b.Import(parse(t, bad)); err == nil {
			t.Errorf("imported %s", bad)
		}
	}
}
