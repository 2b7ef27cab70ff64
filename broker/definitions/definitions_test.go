package definitions

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/auth"
)

func parseFile(t *testing.T, name string, o Options) *Definitions {
	t.Helper()
	f, err := os.Open("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := Parse(f, o)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return d
}

func table(pairs ...any) amqp.Table {
	var t amqp.Table
	for i := 0; i < len(pairs); i += 2 {
		t = append(t, amqp.Field{Name: pairs[i].(string), Value: pairs[i+1].(amqp.Value)})
	}
	return t
}

func TestRabbitMQ43ExportOfABroker(t *testing.T) {
	d := parseFile(t, "cluster-4.3.json", Options{})
	if d.Version != "4.3.6" || d.Ignored != nil {
		t.Errorf("version %q, ignored %q", d.Version, d.Ignored)
	}
	type account struct {
		name, algorithm string
		password        bool
		tags            string
		limits          string
	}
	var accounts []account
	for _, u := range d.Users {
		accounts = append(accounts, account{u.Name, u.Algorithm, u.Verify("s3cret"), fmt.Sprint(u.Tags), fmt.Sprint(u.Limits)})
	}
	if want := []account{
		{"bob", auth.SHA256, true, "[monitoring management]", "[{max-channels 64}]"},
		{"by-certificate", "", false, "[]", "[]"},
		{"carol", auth.SHA512, true, "[]", "[]"},
		{"guest", auth.SHA256, false, "[administrator]", "[]"},
	}; !reflect.DeepEqual(accounts, want) {
		t.Errorf("users\n got %v\nwant %v", accounts, want)
	}
	if !d.Users[3].Verify("guest") {
		t.Error("guest cannot log in")
	}
	if want := []VHost{
		{Name: "/", Description: "Default virtual host", DefaultQueueType: "classic"},
		{Name: "shop", Description: "Shop", Tags: []string{"production", "eu"}, DefaultQueueType: "quorum", Limits: []Limit{{"max-connections", 100}, {"max-queues", 500}}},
	}; !reflect.DeepEqual(d.VHosts, want) {
		t.Errorf("vhosts\n got %+v\nwant %+v", d.VHosts, want)
	}
	if p := d.Permissions[1]; p.User != "bob" || p.VHost != "shop" || p.Allows(auth.Configure, "x") ||
		!p.Allows(auth.Write, "x") || p.Allows(auth.Write, "amq.topic") || !p.Allows(auth.Read, "orders2") {
		t.Errorf("permission %+v", p)
	}
	if want := []TopicPermission{{"bob", "shop", auth.TopicPermission{Exchange: "events", Write: `^{username}\..*`, Read: ".*"}}}; !reflect.DeepEqual(d.TopicPermissions, want) {
		t.Errorf("topic permissions %+v", d.TopicPermissions)
	}
	if want := []Exchange{
		{VHost: "/", Name: "amq.rabbitmq.log", Type: "topic", Durable: true},
		{VHost: "shop", Name: "by-header", Type: "headers", AutoDelete: true},
		{VHost: "shop", Name: "events", Type: "topic", Durable: true, Arguments: table("alternate-exchange", amqp.String("lost"))},
	}; !reflect.DeepEqual(d.Exchanges, want) {
		t.Errorf("exchanges\n got %+v\nwant %+v", d.Exchanges, want)
	}
	checkQueuesAndBindings(t, d)
	if want := []Policy{{VHost: "shop", Name: "ttl", Pattern: `^(?!amq\.)`, ApplyTo: "queues", Priority: 7, Definition: d.Policies[0].Definition}}; !reflect.DeepEqual(d.Policies, want) {
		t.Errorf("policies %+v", d.Policies)
	}
	got, err := Table(d.Policies[0].Definition)
	if want := table("dead-letter-exchange", amqp.String("lost"), "message-ttl", amqp.Int64(3600000)); err != nil || !got.Equal(want) {
		t.Errorf("definition %v, %v", got, err)
	}
	if p := d.Parameters; len(p) != 2 || p[0].Component != "operator_policy" || p[0].Name != "cap" || p[0].VHost != "shop" || p[1].Component != "vhost-limits" {
		t.Errorf("parameters %+v", p)
	}
	if g := d.GlobalParameters; len(g) != 2 || g[0].Name != "cluster_tags" || string(g[0].Value) != "[]" || g[1].Name != "mqtt_default_vhosts" {
		t.Errorf("global parameters %+v", g)
	}
}

func checkQueuesAndBindings(t *testing.T, d *Definitions) {
	t.Helper()
	if want := []Queue{
		{VHost: "shop", Name: "log", Type: "stream", Durable: true, Arguments: table("x-max-age", amqp.String("7D"), "x-queue-type", amqp.String("stream"))},
		{VHost: "shop", Name: "orders", Type: "quorum", Durable: true, Arguments: table(
			"x-dead-letter-exchange", amqp.String("lost"), "x-delivery-limit", amqp.Int64(5),
			"x-max-length-bytes", amqp.Int64(5368709120), "x-queue-type", amqp.String("quorum"))},
		{VHost: "shop", Name: "tmp", Type: "classic", AutoDelete: true, Arguments: table("x-expires", amqp.Int64(1800000), "x-queue-type", amqp.String("classic"))},
		{VHost: "shop", Name: "orders.eu/west ü", Type: "classic", Durable: true, Arguments: table(
			"x-custom", amqp.TableValue(table(
				"a", amqp.ArrayValue(amqp.Int64(1), amqp.Float64(2.5), amqp.String("x"), amqp.Bool(true), amqp.Void()),
				"b", amqp.TableValue(nil))),
			"x-max-priority", amqp.Int64(10), "x-message-ttl", amqp.Int64(60000),
			"x-overflow", amqp.String("reject-publish"), "x-queue-type", amqp.String("classic"))},
	}; !reflect.DeepEqual(d.Queues, want) {
		t.Errorf("queues\n got %+v\nwant %+v", d.Queues, want)
	}
	if want := []Binding{
		{VHost: "shop", Source: "events", Destination: "orders", RoutingKey: "order.#"},
		{VHost: "shop", Source: "by-header", Destination: "tmp", Arguments: table( // the integer is beyond what a double holds
			"big", amqp.Int64(-9007199254740993), "kind", amqp.String("a"), "prio", amqp.Int64(5), "x-match", amqp.String("any"))},
		{VHost: "shop", Source: "lost", Destination: "events", ToExchange: true},
	}; !reflect.DeepEqual(d.Bindings, want) {
		t.Errorf("bindings\n got %+v\nwant %+v", d.Bindings, want)
	}
}

func TestRabbitMQ43ExportOfAVHost(t *testing.T) {
	d := parseFile(t, "vhost-4.3.json", Options{VHost: "new"})
	if want := []VHost{{Name: "new", Description: "Shop", Tags: []string{"production", "eu"}, DefaultQueueType: "quorum", Limits: []Limit{{"max-connections", 100}, {"max-queues", 500}}}}; !reflect.DeepEqual(d.VHosts, want) {
		t.Errorf("vhosts\n got %+v\nwant %+v", d.VHosts, want)
	}
	if len(d.Queues) != 3 || len(d.Exchanges) != 2 || len(d.Bindings) != 3 || len(d.Policies) != 1 || len(d.Parameters) != 2 || d.Ignored != nil {
		t.Errorf("%+v", d)
	}
	if d.Queues[0].VHost != "new" || d.Exchanges[0].VHost != "new" || d.Bindings[0].VHost != "new" || d.Policies[0].VHost != "new" || d.Parameters[0].VHost != "new" {
		t.Errorf("not in the vhost asked for: %+v", d)
	}
}

func TestVHostExportIsRefusedWithoutAVHost(t *testing.T) {
	f, err := os.Open("testdata/vhost-4.3.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = Parse(f, Options{})
	if err == nil || !strings.Contains(err.Error(), "queues[0].vhost: is missing") {
		t.Errorf("got %v", err)
	}
}

// Before 3.6 passwords were MD5 without saying so, tags one text, and empty tables lists. The version
// stands at the end of the file.
func TestRabbitMQ35Export(t *testing.T) {
	d := parseFile(t, "cluster-3.5.json", Options{})
	u := d.Users[0]
	if u.Algorithm != auth.MD5 || !u.Verify("s3cret") || !reflect.DeepEqual(u.Tags, []string{"administrator", "monitoring"}) {
		t.Errorf("user %+v", u)
	}
	if d.Users[1].Verify("") || d.Users[1].Tags != nil {
		t.Errorf("user %+v", d.Users[1])
	}
	if d.Queues[0].Arguments != nil || !d.Exchanges[0].Internal {
		t.Errorf("%+v %+v", d.Queues, d.Exchanges)
	}
}

func TestHandWrittenFileNeedsLittle(t *testing.T) {
	d, err := Parse(strings.NewReader("\xef\xbb\xbf"+`{
		"users": [{"name": "a", "password": "clear"}, {"name": "b", "password_hash": "$2a$04$WCWVoHwx5DBNQyKuOzPtHOsp.DEjPhMFOm7S/rrrWZFxXCEV3cIpy", "hashing_algorithm": "lavinmq_bcrypt"}],
		"queues": [{"vhost": "/", "name": "q"}],
		"exchanges": [{"vhost": "/", "name": "e", "type": "direct"}],
		"bindings": [{"vhost": "/", "source": "e", "destination": "q"}],
		"policies": [{"vhost": "/", "name": "p", "pattern": "", "definition": {}}],
		"permissions": null, "shovels": [{"x": 1}], "bindings_v2": {}
	}`), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if !d.Users[0].Verify("clear") || d.Users[0].Algorithm != auth.SHA256 || d.Users[1].Algorithm != auth.Bcrypt {
		t.Errorf("users %+v", d.Users)
	}
	if q, e, p := d.Queues[0], d.Exchanges[0], d.Policies[0]; !q.Durable || q.AutoDelete || !e.Durable || e.AutoDelete || e.Internal || p.ApplyTo != "all" {
		t.Errorf("%+v %+v %+v", q, e, p)
	}
	if b := d.Bindings[0]; b.ToExchange || b.RoutingKey != "" {
		t.Errorf("%+v", b)
	}
	if !reflect.DeepEqual(d.Ignored, []string{"shovels", "bindings_v2"}) {
		t.Errorf("ignored %q", d.Ignored)
	}
}

func TestProblemsNameTheirPath(t *testing.T) {
	long := strings.Repeat("x", 256)
	deep := strings.Repeat(`{"a":`, 62) + "1" + strings.Repeat("}", 62)
	for _, tc := range []struct{ file, want string }{
		{``, "byte 0: not JSON: the file ends too early"},
		{`[]`, "byte 1: an object is needed"},
		{`{"users": [}`, "byte 11: not JSON: invalid character '}' looking for beginning of value"},
		{`{"users": [{"name": "a"}`, "byte 24: not JSON: the file ends too early"},
		{`{} {}`, "byte 4: something follows the object"},
		{`{"queues": {}}`, "queues: a list is needed"},
		{`{"queues": [], "queues": []}`, "queues: is there twice"},
		{`{"queues": [5]}`, "queues[0]: an object is needed"},
		{`{"queues": [{"vhost": "/", "name": "a"}, {"vhost": "/"}]}`, "queues[1].name: is missing"},
		{`{"queues": [{"vhost": "/", "name": null}]}`, "queues[0].name: is missing"},
		{`{"queues": [{"vhost": "/", "name": 7}]}`, "queues[0].name: a text is needed"},
		{`{"queues": [{"vhost": "/", "name": ""}]}`, "queues[0].name: a name of 0 bytes, it has 1 to 255"},
		{`{"queues": [{"vhost": "/", "name": "` + long + `"}]}`, "queues[0].name: a name of 256 bytes, it has 1 to 255"},
		{`{"queues": [{"name": "q"}]}`, "queues[0].vhost: is missing"},
		{`{"queues": [{"vhost": "/", "name": "a", "name": "b"}]}`, "queues[0].name: is there twice"},
		{`{"queues": [{"vhost": "/", "name": "a"}, {"vhost": "/", "name": "a"}]}`, "queues[1]: is the same as queues[0]"},
		{`{"queues": [{"vhost": "/", "name": "a", "durable": "yes"}]}`, "queues[0].durable: true or false is needed"},
		{`{"queues": [{"vhost": "/", "name": "a", "arguments": [1]}]}`, "queues[0].arguments: an object is needed"},
		{`{"queues": [{"vhost": "/", "name": "a", "arguments": {"x": {"y": [1, 1e999]}}}]}`, "queues[0].arguments.x.y[1]: 1e999 is not a number we can keep"},
		{`{"queues": [{"vhost": "/", "name": "a", "arguments": {"x": 9223372036854775808}}]}`, "queues[0].arguments.x: 9223372036854775808 does not fit into 64 bits"},
		{`{"queues": [{"vhost": "/", "name": "a", "arguments": {"x": 1, "x": 2}}]}`, "queues[0].arguments.x: is there twice"},
		{`{"queues": [{"vhost": "/", "name": "a", "arguments": {"` + long + `": 1}}]}`, `queues[0].arguments."` + long[:60] + `"...: a key of 256 bytes, at most 255`},
		{`{"queues": [{"vhost": "/", "name": "a", "arguments": ` + deep + `}]}`, "queues[0]: nested deeper than 64 levels"},
		{`{"unknown": ` + deep + `, "x": [[` + deep + `]]}`, "x: nested deeper than 64 levels"},
		{`{"queues": [{"vhost": "/", "name": "` + "\xff" + `"}]}`, "queues[0]: not UTF-8"},
		{`{"exchanges": [{"vhost": "/", "name": "e"}]}`, "exchanges[0].type: is missing"},
		{`{"bindings": [{"vhost": "/", "source": "e", "destination": "q", "destination_type": "topic"}]}`, `bindings[0].destination_type: "topic" is neither queue nor exchange`},
		{`{"bindings": [{"vhost": "/", "source": "e", "destination": "q", "routing_key": "` + long + `"}]}`, "bindings[0].routing_key: 256 bytes, at most 255"},
		{`{"users": [{"name": "u", "password_hash": "AAAA"}]}`, "users[0].password_hash: auth: malformed password hash: 3 bytes, want 36"},
		{`{"users": [{"name": "u", "password_hash": "AAAA", "hashing_algorithm": "rot13"}]}`, `users[0].password_hash: auth: unknown password hash algorithm "rot13"`},
		{`{"users": [{"name": "u", "tags": {"a": 1}}]}`, "users[0].tags: a list of texts is needed"},
		{`{"users": [{"name": "u", "limits": {"max-channels": "many"}}]}`, "users[0].limits.max-channels: a whole number is needed"},
		{`{"vhosts": [{"name": "v", "metadata": 1}]}`, "vhosts[0].metadata: an object is needed"},
		{`{"permissions": [{"user": "u", "vhost": "/", "configure": "(", "write": "", "read": ""}]}`, `permissions[0].configure: auth: bad pattern "("`},
		{`{"topic_permissions": [{"user": "u", "vhost": "/", "exchange": "e", "write": "", "read": "("}]}`, "topic_permissions[0]: read: auth: bad pattern"},
		{`{"policies": [{"vhost": "/", "name": "p", "pattern": "(", "definition": {}}]}`, "policies[0].pattern: auth: bad pattern"},
		{`{"policies": [{"vhost": "/", "name": "p", "pattern": "", "definition": []}]}`, "policies[0].definition: an object is needed"},
		{`{"policies": [{"vhost": "/", "name": "p", "pattern": "", "definition": {}, "apply-to": "everything"}]}`, `policies[0].apply-to: "everything" is not one of all,`},
		{`{"policies": [{"vhost": "/", "name": "p", "pattern": "", "definition": {}, "priority": 1.5}]}`, "policies[0].priority: a whole number is needed"},
		{`{"parameters": [{"vhost": "/", "component": "c", "name": "n"}]}`, "parameters[0].value: is missing"},
		{`{"global_parameters": [{"value": 1}]}`, "global_parameters[0].name: is missing"},
	} {
		d, err := Parse(strings.NewReader(tc.file), Options{})
		var e *Error
		if d != nil || !errors.As(err, &e) || len(e.Problems) != 1 || !strings.HasPrefix(err.Error(), tc.want) {
			t.Errorf("%.120s:\n got  %v\n want %s", tc.file, err, tc.want)
		}
	}
}

func TestAllProblemsAreReportedAndTheReportIsBounded(t *testing.T) {
	_, err := Parse(strings.NewReader(`{"queues": [{}, {"vhost": "/", "name": "q", "durable": 1}], "users": [{"password_hash": "?"}]}`), Options{})
	want := "queues[0].vhost: is missing\nqueues[0].name: is missing\nqueues[1].durable: true or false is needed\nusers[0].name: is missing\nusers[0].password_hash: "
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v", err)
	}

	file := `{"permissions": [` + strings.Repeat(`{"user": "u", "vhost": "/", "write": "(`+strings.Repeat("x", 5000)+`"},`, 200) + `{}]}`
	_, err = Parse(strings.NewReader(file), Options{})
	var e *Error
	if !errors.As(err, &e) || len(e.Problems) != maxProblems || e.More != 200+199-maxProblems+2 || len(err.Error()) > 100*1000 {
		t.Errorf("%d problems, %d more, %d bytes", len(e.Problems), e.More, len(err.Error()))
	}
}

func TestSizeLimit(t *testing.T) {
	file := `{"queues": [{"vhost": "/", "name": "q"}]}`
	for _, tc := range []struct {
		limit int
		want  error
	}{{len(file), nil}, {len(file) - 1, ErrTooLarge}, {1, ErrTooLarge}} {
		_, err := Parse(iotest.OneByteReader(strings.NewReader(file)), Options{MaxBytes: int64(tc.limit)})
		if !errors.Is(err, tc.want) {
			t.Errorf("limit %d: %v", tc.limit, err)
		}
	}
	// An endless file ends at the limit, in time proportional to it: blanks in small pieces used to take minutes.
	endless := io.MultiReader(strings.NewReader(`{"users": [`), blanks{})
	if _, err := Parse(endless, Options{}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("endless: %v", err)
	}
	// The reader's own failure is no problem of the file.
	broken := errors.New("broken")
	if _, err := Parse(io.MultiReader(strings.NewReader(`{"users": [`), iotest.ErrReader(broken)), Options{}); !errors.Is(err, broken) {
		t.Errorf("broken: %v", err)
	}
}

type blanks struct{}

func (blanks) Read(b []byte) (int, error) {
	b = b[:min(len(b), 100)]
	for i := range b {
		b[i] = ' '
	}
	return len(b), nil
}

func TestTableRefusesWhatTheWireCannotHold(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40)
	var wide strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&wide, `,"k%d":1`, i)
	}
	for _, text := range []string{`1`, `null`, ``, `{"a":1,"a":2}`, `{"a":1e400}`, deep, strings.Repeat("[", 100), `{` + wide.String()[1:] + `}`, `{"a":`} {
		if got, err := Table(json.RawMessage(text)); err == nil {
			t.Errorf("%.40s: %v", text, got)
		}
	}
	if got, err := Table(json.RawMessage(` {} `)); err != nil || len(got) != 0 {
		t.Errorf("{}: %v, %v", got, err)
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"cluster-4.3.json", "vhost-4.3.json", "cluster-3.5.json"} {
		b, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b), "")
		f.Add(string(b), "v")
	}
	f.Add(`{"queues":[{"vhost":"/","name":"q","arguments":{"a":[[],{},1e3,-0]}}]}`, "")
	f.Fuzz(func(t *testing.T, file, vhost string) {
		d, err := Parse(strings.NewReader(file), Options{VHost: vhost, MaxBytes: 1 << 20})
		if (d == nil) != (err != nil) {
			t.Fatalf("%v and %v", d, err)
		}
		if err != nil {
			if err.Error() == "" {
				t.Fatal("an error without a text")
			}
			return
		}
		for _, q := range d.Queues {
			if q.Name == "" || len(q.Name) > maxName || q.VHost == "" {
				t.Fatalf("queue %+v", q)
			}
			if got, _, err := amqp.ParseTable(q.Arguments.Append(nil)); err != nil || !got.Equal(q.Arguments) {
				t.Fatalf("arguments %v came back as %v, %v", q.Arguments, got, err)
			}
		}
		for _, p := range d.Policies {
			_, _ = Table(p.Definition)
		}
	})
}
