package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/settmq/settmq/internal/testbroker"
)

// object is a JSON object.
type object = map[string]any

// defined is a broker with definitions of the test. An external one is told by its management API,
// if MGMT_URL names that (http://guest:guest@127.0.0.1:15672).
type defined struct {
	url   string
	file  string             // of the definitions
	child *testbroker.Broker // nil: external
}

func newDefined(t *testing.T, definitions []byte) *defined {
	t.Helper()
	if sut.external {
		if u := os.Getenv("MGMT_URL"); u == "" || u == "none" {
			t.Skip("the broker cannot be told definitions: MGMT_URL is not set")
		}
		d := &defined{url: sut.url}
		d.tell(t, definitions)
		return d
	}
	d := &defined{file: filepath.Join(t.TempDir(), "definitions.json")}
	must(t, os.WriteFile(d.file, definitions, 0o600))
	d.child = testbroker.Start(t, testbroker.Options{Config: "load_definitions: " + d.file + "\n"})
	d.url = d.child.URL()
	return d
}

// change gives a broker other definitions; ours is started again for it.
func (d *defined) change(t *testing.T, definitions []byte) {
	t.Helper()
	if d.child == nil {
		d.tell(t, definitions)
		return
	}
	must(t, os.WriteFile(d.file, definitions, 0o600))
	_, err := d.child.Restart()
	must(t, err)
}

// tell imports definitions, and removes their vhosts and users with the test.
func (d *defined) tell(t *testing.T, definitions []byte) {
	t.Helper()
	request(t, http.MethodPost, "/api/definitions", definitions)
	var names struct{ VHosts, Users []struct{ Name string } }
	must(t, json.Unmarshal(definitions, &names))
	t.Cleanup(func() {
		for _, v := range names.VHosts {
			request(t, http.MethodDelete, "/api/vhosts/"+url.PathEscape(v.Name), nil)
		}
		for _, u := range names.Users {
			request(t, http.MethodDelete, "/api/users/"+url.PathEscape(u.Name), nil)
		}
	})
}

func request(t *testing.T, method, path string, body []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, os.Getenv("MGMT_URL")+path, bytes.NewReader(body))
	if method == http.MethodDelete {
		r, err = http.NewRequest(method, os.Getenv("MGMT_URL")+path, nil) // the test's context is over
	}
	must(t, err)
	r.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(r)
	must(t, err)
	defer answer.Body.Close()
	if answer.StatusCode >= 300 && (method != http.MethodDelete || answer.StatusCode != http.StatusNotFound) {
		text, _ := io.ReadAll(answer.Body)
		t.Fatalf("%s %s: %s %s", method, path, answer.Status, text)
	}
}

// uri is where a user finds a vhost.
func (d *defined) uri(t *testing.T, user, password, vhost string) amqp.URI {
	t.Helper()
	u, err := amqp.ParseURI(d.url)
	must(t, err)
	u.Username, u.Password, u.Vhost = user, password, vhost
	return u
}

// open opens a channel in a vhost, as guest, for publishConfirmed.
func (d *defined) open(t *testing.T, vhost string) *amqp.Channel {
	t.Helper()
	ch := channel(t, dialURL(t, d.uri(t, "guest", "guest", vhost).String()))
	confirmMode(t, ch)
	return ch
}

// wantRefused tries to open a connection.
func wantRefused(t *testing.T, uri amqp.URI, text string) {
	t.Helper()
	c := wireURI(t, uri)
	c.login(allCapabilities)
	tune := c.expect(0, connectionTune)
	c.send(0, connectionTuneOk, args{}.short(tune.short()).long(tune.long()).short(0))
	c.send(0, connectionOpen, args{}.shortstr(uri.Vhost).shortstr("").octet(0))
	c.wantClose(0, 530, text)
}

// forVHost makes definitions: a vhost for guest, with policies and operator policies.
func forVHost(t *testing.T, vhost object, policies, operator []object) []byte {
	t.Helper()
	all := object{
		"vhosts":      []object{vhost},
		"permissions": []object{{"user": "guest", "vhost": vhost["name"], "configure": ".*", "write": ".*", "read": ".*"}},
	}
	for i, p := range policies {
		p["vhost"], p["name"], p["priority"] = vhost["name"], fmt.Sprint("p", i), i
	}
	parameters := []object{}
	for i, p := range operator {
		p["priority"] = i
		parameters = append(parameters, object{"vhost": vhost["name"], "component": "operator_policy", "name": fmt.Sprint("o", i), "value": p})
	}
	all["policies"], all["parameters"] = append([]object{}, policies...), parameters // not null
	b, err := json.Marshal(all)
	must(t, err)
	return b
}

// durable declares a queue, or skips the test if its arguments are not served.
func durable(t *testing.T, ch *amqp.Channel, name string, args amqp.Table) {
	t.Helper()
	_, err := ch.QueueDeclare(name, true, false, false, false, args)
	must(t, err)
}

// served skips a test of a setting that SettMQ does not serve.
func served(t *testing.T, args amqp.Table) {
	t.Helper()
	name := uniqueName("served")
	_, err := open(t).QueueDeclare(name, true, false, false, false, args)
	must(t, err)
	removeQueue(t, name)
}

func TestPolicyGivesAlternateExchange(t *testing.T) {
	t.Parallel()
	v := uniqueName("v")
	d := newDefined(t, forVHost(t, object{"name": v}, []object{
		{"pattern": "^(x|own)$", "apply-to": "exchanges", "definition": object{"alternate-exchange": "lost"}},
	}, nil))
	ch := d.open(t, v)
	must(t, ch.ExchangeDeclare("lost", "fanout", true, false, false, false, nil))
	must(t, ch.ExchangeDeclare("x", "direct", true, false, false, false, nil))
	must(t, ch.ExchangeDeclare("own", "direct", true, false, false, false, amqp.Table{"alternate-exchange": "mine"}))
	must(t, ch.ExchangeDeclare("mine", "fanout", true, false, false, false, nil))
	durable(t, ch, "lost", nil)
	durable(t, ch, "mine", nil)
	must(t, ch.QueueBind("lost", "", "lost", false, nil))
	must(t, ch.QueueBind("mine", "", "mine", false, nil))
	publishConfirmed(t, ch, "x", "k", persistent("1")...)
	publishConfirmed(t, ch, "own", "k", persistent("2")...)
	wantBodies(t, ch, "lost", "1")
	wantBodies(t, ch, "mine", "2")
}

func TestPolicyAndArgumentGiveTheLowerLength(t *testing.T) {
	t.Parallel()
	served(t, amqp.Table{"x-max-length": 10})
	v := uniqueName("v")
	d := newDefined(t, forVHost(t, object{"name": v}, []object{
		{"pattern": "^q", "apply-to": "queues", "definition": object{"max-length": 5}},
		{"pattern": "^q.capped", "apply-to": "queues", "definition": object{"max-length": 4}},
	}, []object{{"pattern": "capped", "apply-to": "queues", "definition": object{"max-length": 2}}}))
	ch := d.open(t, v)
	want := map[string]int{"q": 5, "q less": 1, "q more": 5, "other": 7, "q capped": 2}
	for q := range want {
		args := map[string]amqp.Table{"q less": {"x-max-length": 1}, "q more": {"x-max-length": 6}}[q]
		durable(t, ch, q, args)
		publishConfirmed(t, ch, "", q, persistent("1", "2", "3", "4", "5", "6", "7")...)
	}
	for q, n := range want {
		eventually(t, func() error { return hasReady(ch, q, n) })
	}

	// Changed under what is there.
	d.change(t, forVHost(t, object{"name": v}, []object{
		{"pattern": "^q", "apply-to": "queues", "definition": object{"max-length": 3}},
	}, nil))
	ch = d.open(t, v)
	for q, n := range map[string]int{"q": 3, "q less": 1, "q more": 3, "other": 7, "q capped": 2} {
		eventually(t, func() error { return hasReady(ch, q, n) })
	}
	wantBodies(t, ch, "q", "5", "6", "7")
}

func TestPolicyThatRejectsPublishes(t *testing.T) {
	t.Parallel()
	v := uniqueName("v")
	d := newDefined(t, forVHost(t, object{"name": v}, nil, nil))
	ch := d.open(t, v)
	durable(t, ch, "q", nil)
	publishConfirmed(t, ch, "", "q", persistent("1", "2", "3")...)
	d.change(t, forVHost(t, object{"name": v}, []object{
		{"pattern": "^q", "apply-to": "queues", "definition": object{"max-length": 2, "overflow": "reject-publish"}},
	}, nil))
	ch = d.open(t, v)
	want := 3
	if differs(t, "policy-overflow") {
		want = 2
	}
	eventually(t, func() error { return hasReady(ch, "q", want) })
	confirmMode(t, ch)
	c, err := ch.PublishWithDeferredConfirm("", "q", false, false, persistent("4")[0])
	must(t, err)
	if await(t, "confirm", done(c)) {
		t.Error("a full queue took a message")
	}
	must(t, hasReady(ch, "q", want))
}

func hasReady(ch *amqp.Channel, queue string, want int) error {
	q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	if err != nil {
		return err
	}
	if q.Messages != want {
		return fmt.Errorf("queue %s has %d messages, want %d", queue, q.Messages, want)
	}
	return nil
}

func TestPolicyDeadLetters(t *testing.T) {
	t.Parallel()
	served(t, amqp.Table{"x-dead-letter-exchange": "", "x-message-ttl": 1000})
	v := uniqueName("v")
	d := newDefined(t, forVHost(t, object{"name": v}, []object{
		{"pattern": "^q", "apply-to": "queues", "definition": object{"dead-letter-exchange": "", "dead-letter-routing-key": "dead"}},
		{"pattern": "^q.ttl", "apply-to": "queues", "definition": object{"dead-letter-exchange": "", "dead-letter-routing-key": "dead", "message-ttl": 10}},
	}, nil))
	ch := d.open(t, v)
	for _, q := range []string{"dead", "argument"} {
		durable(t, ch, q, nil)
	}
	durable(t, ch, "q", nil)
	durable(t, ch, "q own", amqp.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "argument"})
	durable(t, ch, "q.ttl", nil)
	for _, q := range []string{"q", "q own"} {
		publishConfirmed(t, ch, "", q, persistent("rejected "+q)...)
		eventually(t, func() error { return hasReady(ch, q, 1) })
		m := get(t, ch, q, false)
		nack(t, m, false, false)
	}
	eventually(t, func() error { return hasReady(ch, "dead", 1) })
	wantBodies(t, ch, "dead", "rejected q")
	eventually(t, func() error { return hasReady(ch, "argument", 1) })
	wantBodies(t, ch, "argument", "rejected q own")
	publishConfirmed(t, ch, "", "q.ttl", persistent("expired")...)
	eventually(t, func() error { return hasReady(ch, "dead", 1) })
	wantBodies(t, ch, "dead", "expired")
}

func TestDefaultQueueTypeOfTheVHost(t *testing.T) {
	t.Parallel()
	served(t, amqp.Table{"x-queue-type": "quorum"})
	v := uniqueName("v")
	d := newDefined(t, forVHost(t, object{"name": v, "metadata": object{"description": "", "tags": []string{}, "default_queue_type": "quorum"}}, nil, nil))
	ch := d.open(t, v)
	durable(t, ch, "q", nil)
	durable(t, ch, "q", amqp.Table{"x-queue-type": "quorum"})
	_, err := ch.QueueDeclare("", false, false, true, false, nil)
	must(t, err)
	_, err = ch.QueueDeclare("q", true, false, false, false, amqp.Table{"x-queue-type": "classic"})
	want := "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'q' in vhost '" + v + "': received 'classic' but current is 'quorum'"
	if e := amqpError(t, err); e.Code != 406 || e.Reason != want {
		t.Errorf("refused with %d %q\nwant %q", e.Code, e.Reason, want)
	}
}

// jsonExample is a block of JSON in a page of docs/.
var jsonExample = regexp.MustCompile("(?ms)^```json\n(.*?)^```$")

// page returns the first example of a page of docs/ with names of its own.
func page(t *testing.T, name string, rename ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../docs", name))
	must(t, err)
	return []byte(strings.NewReplacer(rename...).Replace(jsonExample.FindStringSubmatch(string(b))[1]))
}

// TestPoliciesPage runs the example of docs/policies.md.
func TestPoliciesPage(t *testing.T) {
	t.Parallel()
	v := uniqueName("shop")
	d := newDefined(t, page(t, "policies.md", `"shop"`, `"`+v+`"`))
	ch := d.open(t, v)
	must(t, ch.ExchangeDeclare("unrouted", "fanout", true, false, false, false, nil))
	must(t, ch.ExchangeDeclare("orders", "direct", true, false, false, false, nil))
	durable(t, ch, "unrouted", nil)
	must(t, ch.QueueBind("unrouted", "", "unrouted", false, nil))
	publishConfirmed(t, ch, "orders", "nobody", persistent("m")...)
	wantBodies(t, ch, "unrouted", "m")
	served(t, amqp.Table{"x-dead-letter-exchange": "", "x-max-length": 3})
	durable(t, ch, "events.x", nil)
	durable(t, ch, "dead", nil)
	publishConfirmed(t, ch, "", "events.x", persistent("1", "2", "3", "4", "5")...)
	eventually(t, func() error { return hasReady(ch, "dead", 2) })
	wantBodies(t, ch, "events.x", "3", "4", "5")
	wantBodies(t, ch, "dead", "1", "2")
}

// TestLimitsPage runs the example of docs/limits.md.
func TestLimitsPage(t *testing.T) {
	t.Parallel()
	v, user := uniqueName("small"), uniqueName("batch")
	d := newDefined(t, page(t, "limits.md", `"small"`, `"`+v+`"`, `"batch"`, `"`+user+`"`))

	t.Run("queues and connections of a vhost", func(t *testing.T) {
		ch := d.open(t, v)
		durable(t, ch, "1", nil)
		durable(t, ch, "2", nil)
		durable(t, ch, "2", nil) // is there
		_, err := ch.QueueDeclare("3", true, false, false, false, nil)
		refusedWith(t, err, 406, "PRECONDITION_FAILED - cannot declare queue '3': queue limit in vhost '"+v+"' (2) is reached")
		wantRefused(t, d.uri(t, "guest", "guest", v), "NOT_ALLOWED - access to vhost '"+v+"' refused for user 'guest': connection limit (1) is reached")
	})
	t.Run("again after the connection has gone", func(t *testing.T) {
		eventually(t, func() error {
			conn, err := amqp.Dial(d.uri(t, "guest", "guest", v).String())
			if err == nil {
				must(t, conn.Close())
			}
			return err
		})
	})
	t.Run("connections and channels of a user", func(t *testing.T) {
		conn := dialURL(t, d.uri(t, user, "secret", "/").String())
		channel(t, conn)
		channel(t, conn)
		wantRefused(t, d.uri(t, user, "secret", "/"), "NOT_ALLOWED - connection refused for user '"+user+"': user connection limit (1) is reached")
		closed := conn.NotifyClose(make(chan *amqp.Error, 1))
		_, _ = conn.Channel()
		refusedWith(t, await(t, "the end of the connection", closed), 530, "NOT_ALLOWED - number of channels opened for user '"+user+"' has reached the maximum allowed user limit of 2")
	})
}

func refusedWith(t *testing.T, err error, code int, text string) {
	t.Helper()
	if e := amqpError(t, err); e.Code != code || e.Reason != text {
		t.Errorf("refused with %d %q\nwant         %d %q", e.Code, e.Reason, code, text)
	}
}
