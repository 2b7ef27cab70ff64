package broker

import (
	"errors"
	"strings"
	"testing"

	"github.com/settmq/settmq/amqp"
)

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestLimitsOfAVHost(t *testing.T) {
	o := testOptions(t, t.TempDir(), nil)
	b := open(t, o)
	v := b.VHost("/")
	declareQueue(t, v, "one", true)
	ok(t, v.SetLimit(MaxQueues, 1))
	ok(t, v.SetLimit(MaxConnections, 1))
	_, err := v.DeclareQueue(actor{id: 1}, QueueDeclare{Name: "two"})
	refused(t, err, 406, "PRECONDITION_FAILED - cannot declare queue 'two': queue limit in vhost '/' (1) is reached")
	declareQueue(t, v, "one", true) // is there already
	if _, err := b.Enter("guest", "/"); err != nil {
		t.Fatal(err)
	}
	_, err = b.Enter("guest", "/")
	refused(t, err, 530, "NOT_ALLOWED - access to vhost '/' refused for user 'guest': connection limit (1) is reached")
	b.Leave("guest", v)
	if _, err := b.Enter("guest", "/"); err != nil {
		t.Fatal(err)
	}
	b.Leave("guest", v)
	closeBroker(t, b)

	b = open(t, o)
	defer closeBroker(t, b)
	v = b.VHost("/")
	_, err = v.DeclareQueue(actor{id: 1}, QueueDeclare{Name: "two"})
	refused(t, err, 406, "")
	ok(t, v.SetLimit(MaxQueues, -1))
	declareQueue(t, v, "two", true)
	ok(t, v.ClearLimit(MaxQueues))
	if l := v.Limits(); len(l) != 1 || l[MaxConnections] != 1 {
		t.Errorf("limits are %v", l)
	}
	ok(t, v.SetLimit(MaxConnections, 0))
	_, err = b.Enter("guest", "/")
	refused(t, err, 530, "NOT_ALLOWED - access to vhost '/' refused for user 'guest': connection limit (0) is reached")
	if err := v.SetLimit("max-foo", 2); err == nil || err.Error() != "Validation failed\n\nUnrecognised terms [{<<\"max-foo\">>,2}] in limits\n" {
		t.Errorf("unknown limit: %v", err)
	}
	created, bad := v.SetParameter("vhost-limits", "limits", []byte(`{"max-queues":"x"}`))
	if created || bad == nil || bad.Error() != "Validation failed\n\nmax-queues should be a number, actually was <<\"x\">>\n" {
		t.Errorf("limit of a wrong type: %v", bad)
	}
}

func TestLimitsOfAUser(t *testing.T) {
	o := testOptions(t, t.TempDir(), nil)
	b := open(t, o)
	u := b.Users()
	ok(t, u.SetLimit("guest", MaxConnections, 1))
	ok(t, u.SetLimit("guest", MaxChannels, 2))
	closeBroker(t, b)
	b = open(t, o)
	defer closeBroker(t, b)
	u = b.Users()
	v, err := b.Enter("guest", "/")
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Enter("guest", "/")
	refused(t, err, 530, "NOT_ALLOWED - connection refused for user 'guest': user connection limit (1) is reached")
	s := u.NewSession(u.User("guest"), "/", 1)
	must(t, s.OpenChannel())
	must(t, s.OpenChannel())
	refused(t, s.OpenChannel(), 530, "NOT_ALLOWED - number of channels opened for user 'guest' has reached the maximum allowed user limit of 2")
	s.CloseChannels(1)
	must(t, s.OpenChannel())
	s.CloseChannels(2)
	b.Leave("guest", v)
	if len(u.usage) > 0 || v.connections != 0 {
		t.Errorf("still counted: %v, %d in the vhost", u.usage, v.connections)
	}
	if err := u.SetLimit("guest", "max-foo", 2); err == nil || err.Error() != `Unrecognised terms [{<<"max-foo">>,2}] in user-limits` {
		t.Errorf("unknown limit: %v", err)
	}
	if err := u.SetLimit("nobody", MaxChannels, 2); !errors.Is(err, ErrNoSuchUser) {
		t.Errorf("limit of nobody: %v", err)
	}
	ok(t, u.Delete("guest"))
	ok(t, u.Put(hashed(t, "guest", "guest")))
	if l := u.Limits("guest"); len(l) > 0 {
		t.Errorf("limits of a user who came back: %v", l)
	}
}

// A refusal by rights leaves no count behind.
func TestRefusedConnectionsAreNotCounted(t *testing.T) {
	b := newBroker(t)
	ok(t, b.Users().Put(hashed(t, "ann", "x")))
	_, err := b.Enter("ann", "/")
	refused(t, err, 530, "NOT_ALLOWED - access to vhost '/' refused for user 'ann'")
	if n := len(b.Users().usage); n > 0 || b.VHost("/").connections > 0 {
		t.Error("counted")
	}
}

func TestParameters(t *testing.T) {
	o := testOptions(t, t.TempDir(), nil)
	b := open(t, o)
	v := b.VHost("/")
	const upstream = `{"uri":"amqp://far","expires":3600000}`
	set := func(component, name, value string, created bool) {
		t.Helper()
		if got, err := v.SetParameter(component, name, []byte(value)); err != nil || got != created {
			t.Errorf("%s/%s: created %v, %v", component, name, got, err)
		}
	}
	for value, want := range map[string]string{
		`{}`: "null", `{"uri":"far"}`: `<<"far">>`, `{"uri":["amqp://far","http://far"]}`: `[<<"amqp://far">>,<<"http://far">>]`, `[]`: "null",
	} {
		_, err := v.SetParameter("federation-upstream", "far", []byte(value))
		if err == nil || !strings.Contains(err.Error(), "actually was "+want) {
			t.Errorf("%s: %v", value, err)
		}
	}
	set("federation-upstream", "far", `{"uri":["amqps://u:p@far/%2f?heartbeat=5"]}`, true)
	set("federation-upstream", "far", upstream, false)
	set("shovel", "s", `{"src-uri":"amqp://","dest-uri":["amqp://far"],"src-queue":"q"}`, true)
	set("operator_policy", "o", `{"pattern":"","definition":{"max-length":5}}`, true)
	set("vhost-limits", "limits", `{"max-queues":5}`, true)
	if _, err := v.SetParameter("foo", "x", []byte("1")); err == nil || err.Error() != "Validation failed\n\ncomponent foo not found\n" {
		t.Errorf("unknown component: %v", err)
	}
	if _, err := v.SetParameter("policy", "x", []byte("{}")); err == nil || err.Error() != "policies may not be set using this method" {
		t.Errorf("policy as a parameter: %v", err)
	}
	ok(t, v.ClearParameter("shovel", "s"))
	if err := v.ClearParameter("shovel", "s"); !errors.Is(err, ErrNoSuch) {
		t.Errorf("cleared twice: %v", err)
	}
	if created, err := b.SetGlobalParameter("cluster_name", []byte(`"here"`)); err != nil || !created {
		t.Errorf("global parameter: created %v, %v", created, err)
	}
	closeBroker(t, b)
	b = open(t, o)
	defer closeBroker(t, b)
	v = b.VHost("/")
	want := []Parameter{
		{"/", "federation-upstream", "far", []byte(upstream)},
		{"/", "operator_policy", "o", []byte(`{"pattern":"","apply-to":"all","priority":0,"definition":{"max-length":5}}`)},
		{"/", "vhost-limits", "limits", []byte(`{"max-queues":5}`)},
	}
	got := v.Parameters("")
	if len(got) != len(want) {
		t.Fatalf("%d parameters, want %d", len(got), len(want))
	}
	for i, p := range got {
		if p.Component != want[i].Component || p.Name != want[i].Name || string(p.Value) != string(want[i].Value) {
			t.Errorf("parameter %s/%s = %s\nwant %s/%s = %s", p.Component, p.Name, p.Value, want[i].Component, want[i].Name, want[i].Value)
		}
	}
	if n := len(v.Parameters("vhost-limits")); n != 1 {
		t.Errorf("%d limits", n)
	}
	if b.ClusterName() != "here" {
		t.Errorf("cluster name %q", b.ClusterName())
	}
	ok(t, b.ClearGlobalParameter("cluster_name"))
	if b.ClusterName() != "" || !errors.Is(b.ClearGlobalParameter("cluster_name"), ErrNoSuch) {
		t.Error("a cleared global parameter is there")
	}
	ok(t, v.ClearParameter("operator_policy", "o"))
	ok(t, v.ClearParameter("vhost-limits", "limits"))
	if n := len(v.Parameters("")); n != 1 {
		t.Errorf("%d parameters left", n)
	}
}

func TestDefaultQueueTypeOfAVHost(t *testing.T) {
	o := testOptions(t, t.TempDir(), nil)
	b := open(t, o)
	v := b.VHost("/")
	ok(t, v.SetMetadata(VHostMetadata{Description: "d", Tags: []string{"a"}, DefaultQueueType: "quorum"}))
	if err := v.SetMetadata(VHostMetadata{DefaultQueueType: "x"}); err == nil {
		t.Error("default queue type x")
	}
	closeBroker(t, b)
	b = open(t, o)
	defer closeBroker(t, b)
	v = b.VHost("/")
	if m := v.Metadata(); m.Description != "d" || m.DefaultQueueType != "quorum" || len(m.Tags) != 1 {
		t.Errorf("metadata are %+v", m)
	}
	q, err := v.DeclareQueue(actor{id: 1}, QueueDeclare{Name: "q", Durable: true})
	must(t, err)
	if k := typeOf(q.About().Arguments); k != QuorumQueue {
		t.Errorf("a %s queue", k)
	}
	_, err = v.DeclareQueue(actor{id: 1}, QueueDeclare{Name: "q", Durable: true, Arguments: amqp.Table{field("x-queue-type", amqp.String("classic"))}})
	refused(t, err, 406, "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'q' in vhost '/': received 'classic' but current is 'quorum'")
}
