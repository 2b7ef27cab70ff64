package broker

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// eventsOf runs f in a broker with an event exchange and returns the keys of the events.
func eventsOf(t *testing.T, f func(b *Broker)) (keys []string) {
	t.Helper()
	b := newBroker(t, func(o *Options) { o.EventVHost = "/" })
	v := b.VHost("/")
	q := declareQueue(t, v, "events", false)
	bind(t, v, eventExchange, "events", "#", QueueResource)
	f(b)
	b.Event("end")
	for {
		d, _, ok, err := q.Get(true, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			waitFor(t, func() bool { return q.Info().Ready > 0 })
			continue
		}
		if d.Message.RoutingKey == "end" {
			return keys
		}
		keys = append(keys, d.Message.RoutingKey)
	}
}

func TestEventsOfAdministration(t *testing.T) {
	got := eventsOf(t, func(b *Broker) {
		do := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		v, err := b.CreateVHost("new")
		do(err)
		u := b.Users()
		usr := hashed(t, "u", "pw")
		do(u.Put(usr))
		tagged := *usr
		tagged.Tags = []string{"monitoring"}
		do(u.Put(&tagged))
		other := *hashed(t, "u", "other")
		other.Tags = tagged.Tags
		do(u.Put(&other))
		do(u.Grant("u", "new", permissions(t, "a", "b", "c")))
		do(u.Revoke("u", "new"))
		p, err := ParsePolicy(UserPolicy, "p", []byte(`{"pattern":"^x","definition":{"max-length":5}}`))
		do(err)
		_, err = v.SetPolicy(UserPolicy, p)
		do(err)
		do(v.ClearPolicy(UserPolicy, "p"))
		do(v.SetLimit("max-queues", 5))
		do(v.SetLimits(nil))
		_, err = b.SetGlobalParameter("g", []byte(`{"a":1}`))
		do(err)
		do(b.ClearGlobalParameter("g"))
		b.alarms.set(alarmMemory, true)
		b.alarms.set(alarmDisk, true)
		b.alarms.set(alarmMemory, false)
		b.alarms.set(alarmDisk, false)
		do(u.Delete("u"))
		do(u.Delete("u"))
	})
	want := []string{
		"binding.created", "vhost.created", "user.created", "user.tags.set", "user.password.changed", "permission.created", "permission.deleted",
		"policy.set", "policy.cleared", "vhost.limits.set", "vhost.limits.cleared", "parameter.set", "parameter.cleared",
		"alarm.set", "alarm.set", "alarm.cleared", "alarm.cleared", "user.deleted",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// TestEventsOfCascades: what goes with something else is told too.
func TestEventsOfCascades(t *testing.T) {
	got := eventsOf(t, func(b *Broker) {
		v := b.VHost("/")
		must(t, v.DeclareExchange(System{}, ExchangeDeclare{Name: "x", Type: "fanout", AutoDelete: true}))
		_, err := v.DeclareQueue(actor{id: 9}, QueueDeclare{Name: "q", Exclusive: true})
		must(t, err)
		must(t, v.Bind(actor{id: 9}, BindingSpec{Source: "x", Destination: "q", Kind: QueueResource}))
		v.ConnectionClosed(9)
	})
	want := []string{"binding.created", "exchange.created", "queue.created", "binding.created", "queue.deleted", "binding.deleted", "exchange.deleted"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// TestEventsNeverBlock: with the goroutine kept from publishing, events are dropped and counted.
func TestEventsNeverBlock(t *testing.T) {
	b := newBroker(t, func(o *Options) { o.EventVHost = "/" })
	v := b.VHost("/")
	declareQueue(t, v, "events", false)
	bind(t, v, eventExchange, "events", "#", QueueResource)
	v.mu.Lock() // announce needs it
	for i := range 2*maxEvents + 10 {
		b.Event("k", textField("n", fmt.Sprint(i)))
	}
	dropped := b.EventsDropped()
	v.mu.Unlock()
	if dropped < 10 {
		t.Errorf("%d events were dropped", dropped)
	}
}

func TestWithoutListenersNoEventIsMade(t *testing.T) {
	for _, vhost := range []string{"", "/"} {
		b := newBroker(t, func(o *Options) { o.EventVHost = vhost })
		if b.Listening() {
			t.Error("somebody listens")
		}
		if n := testing.AllocsPerRun(100, func() { b.Event("k") }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

// TestEventBindingSurvives: who listened before a restart listens after it.
func TestEventBindingSurvives(t *testing.T) {
	o := testOptions(t, t.TempDir(), nil)
	o.EventVHost = "/"
	b := open(t, o)
	v := b.VHost("/")
	declareQueue(t, v, "events", true)
	bind(t, v, eventExchange, "events", "queue.*", QueueResource)
	closeBroker(t, b)
	b = open(t, o)
	defer closeBroker(t, b)
	if !b.Listening() {
		t.Error("nobody listens")
	}
	declareQueue(t, b.VHost("/"), "q", false)
	q, err := b.VHost("/").UseQueue(System{}, "events")
	must(t, err)
	waitFor(t, func() bool { return q.Info().Ready == 1 })
}

// waitFor waits for something that another goroutine does.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not happen")
		}
	}
}
