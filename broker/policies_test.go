package broker

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/storage"
)

func policy(t testing.TB, kind PolicyKind, name, object string) *Policy {
	t.Helper()
	p, err := ParsePolicy(kind, name, []byte(object))
	if err != nil {
		t.Fatalf("policy %s: %v", name, err)
	}
	return p
}

func setPolicy(t testing.TB, v *VHost, kind PolicyKind, name, object string) {
	t.Helper()
	if _, err := v.SetPolicy(kind, policy(t, kind, name, object)); err != nil {
		t.Fatal(err)
	}
}

// The texts are those with which RabbitMQ 4.3.6 answers to the same object.
func TestPolicyRefusals(t *testing.T) {
	for _, c := range []struct {
		kind         PolicyKind
		object, text string
	}{
		{UserPolicy, `{"pattern":"^a","definition":{"message-ttl":-1}}`, `-1 is not a valid message TTL`},
		{UserPolicy, `{"pattern":"^a","definition":{"message-ttl":"5"}}`, `<<"5">> is not a valid message TTL`},
		{UserPolicy, `{"pattern":"^a","definition":{"foo":"5","bar":[1,2],"max-length":3}}`, `[{<<"bar">>,[1,2]},{<<"foo">>,<<"5">>}] are not recognised policy settings`},
		{UserPolicy, `{"pattern":"^a","definition":{"ha-mode":"all"}}`, `[{<<"ha-mode">>,<<"all">>}] are not recognised policy settings`},
		{UserPolicy, `{"pattern":"a","definition":{}}`, `no policy provided`},
		{UserPolicy, `{"pattern":"a","definition":{"max-length":3},"apply-to":"foo"}`, `apply-to 'foo' unrecognised; should be one of: 'queues', 'classic_queues',  'quorum_queues', 'streams', 'exchanges', or 'all'`},
		{UserPolicy, `{"pattern":"a","definition":{"max-length":3},"priority":"3"}`, `priority should be a number, actually was <<"3">>`},
		{UserPolicy, `{"pattern":5,"definition":{"max-length":3}}`, `pattern should be a binary but was 5`},
		{UserPolicy, `{"pattern":"a","definition":{"max-length":null}}`, `null is not a valid maximum length`},
		{UserPolicy, `{"pattern":"a","definition":{"max-length":1.5}}`, `1.5 is not a valid maximum length`},
		{UserPolicy, `{"pattern":"a","definition":{"overflow":{"a":"b"}}}`, `#{<<"a">> => <<"b">>} is not a valid overflow value`},
		{UserPolicy, `{"pattern":"a","definition":{"overflow":true,"max-length":-1}}`, `-1 is not a valid maximum length`},
		{UserPolicy, `{"pattern":"a","definition":{"delayed-retry-type":"all"}}`, `delayed-retry-min is required when delayed-retry-type is all`},
		{UserPolicy, `{"pattern":"a","definition":{"delayed-retry-type":"all","delayed-retry-min":10,"delayed-retry-max":5}}`, `delayed-retry-max (5) must not be smaller than delayed-retry-min (10)`},
		{UserPolicy, `{"pattern":"a","definition":{"max-age":"5x"}}`, `<<"5x">> is not a valid max age`},
		{UserPolicy, `{"pattern":"a","definition":{"max-priority":5}}`, `[{<<"max-priority">>,5}] are not recognised policy settings`},
		{UserPolicy, `{"pattern":"a","definition":{"stream-filter-size-bytes":5}}`, `5 is not a valid filter size. Valid range is 16-255`},
		{UserPolicy, `{"pattern":"a","definition":{"consumer-timeout":-5}}`, `-5 is not a valid consumer timeout`},
		{UserPolicy, `{"pattern":"a","definition":{"x-cache-size":0}}`, `"x-cache-size" must be an integer greater than 0, got 0`},
		{UserPolicy, `{"pattern":"a","definition":{"x-message-deduplication":"yes"}}`, `"x-message-deduplication" must be a boolean, got <<"yes">>`},
		{OperatorPolicy, `{"pattern":"a","definition":{"dead-letter-exchange":"x"}}`, `[{<<"dead-letter-exchange">>,<<"x">>}] are not recognised policy settings`},
		{UserPolicy, `{"definition":{"max-length":3}}`, `Key "pattern" not found in p`},
		{UserPolicy, `{"pattern":"a"}`, `Key "definition" not found in p`},
		{UserPolicy, `{"pattern":"a","definition":[1]}`, `definition must be a dictionary: [1]`},
	} {
		_, err := ParsePolicy(c.kind, "p", []byte(c.object))
		var bad *InvalidError
		if !errors.As(err, &bad) || err.Error() != "Validation failed\n\n"+c.text+"\n" {
			t.Errorf("%s\nrefused with %q\nwant         %q", c.object, err, c.text)
		}
	}
	for _, object := range []string{``, `5`, `{"pattern":"(","definition":{"max-length":1}}`, `{"pattern":"","definition":{"max-length":1}} {}`} {
		if _, err := ParsePolicy(UserPolicy, "p", []byte(object)); err == nil {
			t.Errorf("%q is taken for a policy", object)
		}
	}
}

// Which policy applies: what RabbitMQ 4.3.6 says of the same policies and queues. Of equal
// priorities it takes any.
func TestWhichPolicyApplies(t *testing.T) {
	s := &policySet{}
	for name, object := range map[string]string{
		"stream":   `{"pattern":"","definition":{"max-length":3,"max-age":"5D"},"priority":9}`, // for no type at all
		"quorum":   `{"pattern":"","definition":{"delivery-limit":5},"priority":8}`,
		"low":      `{"pattern":"","definition":{"max-length":7,"alternate-exchange":"x"},"priority":-2}`,
		"b":        `{"pattern":"^tie","definition":{"max-length":1},"priority":3,"apply-to":"queues"}`,
		"a":        `{"pattern":"^tie","definition":{"max-length":1},"priority":3,"apply-to":"queues"}`,
		"inner":    `{"pattern":"middle","definition":{"max-length-bytes":1},"priority":10}`,
		"streams":  `{"pattern":".*","definition":{"max-age":"1D"},"priority":1,"apply-to":"streams"}`,
		"classics": `{"pattern":"^c$","definition":{"delivery-limit":1},"priority":20,"apply-to":"classic_queues"}`,
		"x":        `{"pattern":"^x$","definition":{"alternate-exchange":"y"},"apply-to":"exchanges"}`,
		"pcre":     `{"pattern":"^(?!no).*neg$","definition":{"max-length":1},"priority":30}`,
	} {
		s = s.with(UserPolicy, name, policy(t, UserPolicy, name, object))
	}
	s = s.with(OperatorPolicy, "op", policy(t, OperatorPolicy, "op", `{"pattern":"","definition":{"max-length":5,"delivery-limit":-1}}`))
	name := func(e *EffectivePolicy) string {
		if e == nil {
			return ""
		}
		n := ""
		if e.Policy != nil {
			n = e.Policy.Name
		}
		if e.Operator != nil {
			n += "+" + e.Operator.Name
		}
		return n
	}
	for _, c := range []struct {
		queue string
		kind  QueueType
		want  string
	}{
		{"q", ClassicQueue, "low"},
		{"q", QuorumQueue, "quorum+op"},
		{"q", StreamQueue, "streams"},
		{"tie1", ClassicQueue, "a"},
		{"in the middle", ClassicQueue, "inner"},
		{"in the middle", StreamQueue, "inner"},
		{"c", ClassicQueue, "classics"},
		{"c", QuorumQueue, "quorum+op"},
		{"oneg", ClassicQueue, "pcre"},
		{"noneg", ClassicQueue, "low"},
	} {
		if got := name(s.forQueue(c.queue, c.kind)); got != c.want {
			t.Errorf("%s queue %s obeys %q, want %q", c.kind, c.queue, got, c.want)
		}
	}
	for x, want := range map[string]string{"x": "stream+op", "middle": "inner+op"} {
		if got := name(s.forExchange(x)); got != want {
			t.Errorf("exchange %s obeys %q, want %q", x, got, want)
		}
	}
}

func TestPolicyAndOperatorPolicyTogether(t *testing.T) {
	got := mergePolicies(
		map[string]any{"max-length": int64(10), "message-ttl": int64(5), "overflow": "drop-head", "dead-letter-exchange": "x", "delivery-limit": int64(-1), "delayed-retry-min": int64(1)},
		map[string]any{"max-length": int64(7), "expires": int64(9), "overflow": "reject-publish", "delivery-limit": int64(4), "delayed-retry-min": int64(3), "message-ttl": int64(6)},
	)
	want := `#{<<"dead-letter-exchange">> => <<"x">>,<<"delayed-retry-min">> => 3,<<"delivery-limit">> => 4,<<"expires">> => 9,` +
		`<<"max-length">> => 7,<<"message-ttl">> => 5,<<"overflow">> => <<"reject-publish">>}`
	if erlang(got) != want {
		t.Errorf("together %s\nwant     %s", erlang(got), want)
	}
}

func TestAlternateExchangeByPolicy(t *testing.T) {
	v := newBroker(t).VHost("/")
	for _, x := range []string{"x", "own", "lost", "mine"} {
		if x == "own" {
			declareExchange(t, v, x, "direct", field("alternate-exchange", amqp.String("mine")))
			continue
		}
		declareExchange(t, v, x, "fanout")
	}
	declareExchange(t, v, "direct", "direct")
	declareQueue(t, v, "by policy", true)
	declareQueue(t, v, "by argument", true)
	bind(t, v, "lost", "by policy", "", QueueResource)
	bind(t, v, "mine", "by argument", "", QueueResource)
	r := v.NewRouter()
	expectRoute(t, r, "direct", "k")
	setPolicy(t, v, UserPolicy, "ae", `{"pattern":"^(direct|own|late)$","definition":{"alternate-exchange":"lost"}}`)
	expectRoute(t, r, "direct", "k", "by policy")
	expectRoute(t, r, "own", "k", "by argument")
	declareExchange(t, v, "late", "topic")
	expectRoute(t, r, "late", "k", "by policy")
	if e := v.ExchangePolicy("late"); e == nil || e.Policy.Name != "ae" {
		t.Errorf("the exchange obeys %+v", e)
	}
	if err := v.ClearPolicy(UserPolicy, "ae"); err != nil {
		t.Fatal(err)
	}
	expectRoute(t, r, "direct", "k")
	expectRoute(t, r, "own", "k", "by argument")
	if err := v.ClearPolicy(UserPolicy, "ae"); !errors.Is(err, ErrNoSuch) {
		t.Errorf("cleared twice: %v", err)
	}
}

// TestPoliciesLast: policies are there after a restart and hold for what is there again.
func TestPoliciesLast(t *testing.T) {
	o := testOptions(t, t.TempDir(), nil)
	b := open(t, o)
	v := b.VHost("/")
	declareQueue(t, v, "q1", true)
	declareExchange(t, v, "x1", "direct")
	setPolicy(t, v, UserPolicy, "p", `{"pattern":"1$","definition":{"max-length":9007199254740993,"alternate-exchange":"x"},"priority":-4}`)
	setPolicy(t, v, UserPolicy, "gone", `{"pattern":"","definition":{"max-length":3}}`)
	setPolicy(t, v, OperatorPolicy, "o", `{"pattern":"","definition":{"max-length":5}}`)
	if err := v.ClearPolicy(UserPolicy, "gone"); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		e := v.QueuePolicy(v.queues["q1"])
		if e == nil || e.Policy.Name != "p" || e.Operator.Name != "o" || e.Definition["max-length"] != int64(5) {
			t.Errorf("queue obeys %+v", e)
		}
		if e := v.ExchangePolicy("x1"); e == nil || e.Definition["alternate-exchange"] != "x" {
			t.Errorf("exchange obeys %+v", e)
		}
		if p := v.Policy(UserPolicy, "p"); p == nil || p.Priority != -4 || !strings.Contains(string(p.Definition), "9007199254740993") {
			t.Errorf("policy is %+v", p)
		}
		if n := len(v.Policies(UserPolicy)); n != 1 {
			t.Errorf("%d policies, want 1", n)
		}
	}
	check()
	closeBroker(t, b)
	b = open(t, o)
	defer closeBroker(t, b)
	v = b.VHost("/")
	check()
}

// TestPoliciesOfManyQueues: a change reaches 10 000 queues, and queues
// that are declared meanwhile obey the policy of their time or a newer one.
func TestPoliciesOfManyQueues(t *testing.T) {
	v := newBroker(t).VHost("/")
	for i := range 10000 {
		_, err := v.DeclareQueue(actor{id: 1}, QueueDeclare{Name: fmt.Sprint("q", i)})
		must(t, err)
	}
	for i := range 20 {
		setPolicy(t, v, UserPolicy, fmt.Sprint("other", i), fmt.Sprintf(`{"pattern":"^other%d","definition":{"max-length":1},"priority":5}`, i))
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 500 {
			_, err := v.DeclareQueue(actor{id: 1}, QueueDeclare{Name: fmt.Sprint("late", i)})
			must(t, err)
		}
	})
	start := time.Now()
	setPolicy(t, v, UserPolicy, "first", `{"pattern":"","definition":{"max-length":1}}`)
	took := time.Since(start)
	setPolicy(t, v, UserPolicy, "last", `{"pattern":"","definition":{"max-length":2},"priority":1}`)
	wg.Wait()
	if took > 10*time.Second { // some 20 ms on an idle machine
		t.Errorf("a policy of 10000 queues took %v", took)
	}
	t.Logf("a policy of 10000 queues took %v", took)
	for _, q := range v.Queues() {
		if e := v.QueuePolicy(q); e == nil || e.Policy.Name != "last" {
			t.Fatalf("queue %s obeys %+v", q.About().Name, e)
		}
	}
	for name := range v.queues {
		if _, err := v.DeleteQueue(System{}, name, false, false); err != nil {
			t.Fatal(err)
		}
	}
	if len(v.policyOf) > 0 {
		t.Errorf("%d deleted queues are remembered", len(v.policyOf))
	}
}

// configured is a queue that notes its settings.
type configured struct {
	Queue
	settings queue.Settings
	times    int
}

func (c *configured) Configure(s queue.Settings) {
	c.settings = s
	c.times++
}

func TestQueuesAreConfiguredWhenTheirPolicyChanges(t *testing.T) {
	v := newBroker(t).VHost("/")
	q, err := v.DeclareQueue(actor{id: 1}, QueueDeclare{Name: "q", Durable: true})
	must(t, err)
	c := &configured{Queue: q}
	v.queues["q"] = c
	want := func(times int, s queue.Settings) {
		t.Helper()
		if c.times != times || c.settings != s {
			t.Errorf("configured %d times, at last with %+v\nwant %d, %+v", c.times, c.settings, times, s)
		}
	}
	setPolicy(t, v, UserPolicy, "other", `{"pattern":"z","definition":{"max-length":1}}`)
	want(0, queue.Settings{})
	setPolicy(t, v, UserPolicy, "p", `{"pattern":"q","definition":{"max-length":10}}`)
	want(1, queue.Settings{MaxLength: queue.Some[int64](10)})
	setPolicy(t, v, OperatorPolicy, "p", `{"pattern":"q","definition":{"max-length":7,"overflow":"reject-publish"}}`)
	want(2, queue.Settings{MaxLength: queue.Some[int64](7), Overflow: queue.RejectPublish})
	if err := v.ClearPolicy(UserPolicy, "p"); err != nil {
		t.Fatal(err)
	}
	if err := v.ClearPolicy(OperatorPolicy, "p"); err != nil {
		t.Fatal(err)
	}
	want(4, queue.Settings{})
}

func TestPolicyReachesAQueueInUse(t *testing.T) {
	v := newBroker(t).VHost("/")
	q := declareQueue(t, v, "q", true)
	r := v.NewRouter()
	publish := func() {
		rt, err := r.Route(nil, []byte("q"), &amqp.Properties{})
		must(t, err)
		rt.Publish(&storage.Message{RoutingKey: "q"}, &queue.Wakes{})
	}
	for range 5 {
		publish()
	}
	setPolicy(t, v, UserPolicy, "p", `{"pattern":"","definition":{"max-length":2}}`)
	ready := func(want int) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); q.Info().Ready != want; {
			if time.Now().After(deadline) {
				t.Fatalf("%d messages are ready, want %d", q.Info().Ready, want)
			}
			time.Sleep(time.Millisecond)
		}
	}
	ready(2)
	publish()
	ready(2)
	ok(t, v.ClearPolicy(UserPolicy, "p"))
	publish()
	ready(3)
}

// A pattern that takes long is matched before a declaration has the vhost's lock, and not again with it.
func TestSlowPatternsAreMatchedWithoutTheLock(t *testing.T) {
	v := newBroker(t).VHost("/")
	setPolicy(t, v, UserPolicy, "p", `{"pattern":"^(?!x)(a+)+$","definition":{"max-length":1}}`)
	name := strings.Repeat("a", 40) + "!"
	set := v.policies
	for _, c := range []struct {
		target  policyTarget
		declare func()
	}{
		{policyTarget{kind: ClassicQueue, name: name}, func() { declareQueue(t, v, name, true) }},
		{policyTarget{exchange: true, name: name}, func() { declareExchange(t, v, name, "fanout") }},
	} {
		v.mu.RLock() // nothing can be declared
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.declare()
		}()
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
			set.mu.Lock()
			_, found := set.found[c.target]
			set.mu.Unlock()
			if found {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("not matched while somebody else has the lock")
			}
		}
		v.mu.RUnlock()
		<-done
	}
	if e := v.QueuePolicy(declareQueue(t, v, "aaa", true)); e == nil || e.Policy.Name != "p" {
		t.Error("the policy does not apply")
	}
	if e := v.QueuePolicy(v.Queue(name)); e != nil {
		t.Error("a match that takes too long is a match")
	}
}
