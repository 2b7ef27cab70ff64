package broker

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/auth"
	"github.com/settmq/settmq/exchange"
	"github.com/settmq/settmq/storage"
)

// eventExchange is where events come out, in the vhost that the configuration names.
const eventExchange = "amq.rabbitmq.event"

// maxEvents bounds the events that wait to be published; more are dropped.
const maxEvents = 8192

// events is what happens in the broker, on its way to the event exchange. What happens is told
// under all kinds of locks, so it is published by a goroutine of its own, which nobody waits for.
type events struct {
	broker *Broker
	vhost  string

	bound   atomic.Bool // somebody listens
	dropped atomic.Uint64

	mu      sync.Mutex // a leaf
	waiting []event    // guarded by mu
	signal  chan struct{}
	stop    chan struct{}
	done    chan struct{}
}

type event struct {
	key     string
	at      time.Time
	headers amqp.Table
}

func newEvents(b *Broker, vhost string) *events {
	e := &events{broker: b, vhost: vhost, signal: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	go e.run()
	return e
}

// addEventExchange makes the event exchange, if it is not there from before, and lets events go to it.
func (b *Broker) addEventExchange(vhost string) error {
	v := b.VHost(vhost)
	if v == nil {
		return fmt.Errorf("event exchange: there is no vhost '%s'", vhost)
	}
	b.events = newEvents(b, vhost)
	v.mu.Lock()
	defer v.mu.Unlock()
	x := v.exchanges[eventExchange]
	if x == nil {
		var c storage.Change
		x = &Exchange{Name: eventExchange, Type: exchange.Topic, Durable: true, Internal: true}
		v.putExchangeLocked(x, &c)
		v.applyLocked(c)
	}
	b.events.bound.Store(len(x.outbound) > 0)
	b.alarms.Listen(b.alarmEvents())
	return nil
}

// alarmEvents returns a listener that tells of alarms by their kinds.
func (b *Broker) alarmEvents() func(reason string) {
	on := map[string]bool{}
	return func(reason string) {
		for _, source := range []string{"memory", "disk"} {
			now := strings.Contains(reason, source)
			if now == on[source] {
				continue
			}
			on[source] = now
			key := "alarm.cleared"
			if now {
				key = "alarm.set"
			}
			b.Event(key, textField("source", source), textField("node", b.node))
		}
	}
}

// close publishes what waits and ends the goroutine.
func (e *events) close() {
	if e == nil {
		return
	}
	close(e.stop)
	<-e.done
}

func (e *events) run() {
	defer close(e.done)
	for {
		select {
		case <-e.signal:
			e.publish()
		case <-e.stop:
			e.publish()
			return
		}
	}
}

func (e *events) publish() {
	e.mu.Lock()
	list := e.waiting
	e.waiting = nil
	e.mu.Unlock()
	v := e.broker.VHost(e.vhost)
	if v == nil {
		return
	}
	for _, ev := range list {
		headers := append(ev.headers, amqp.Field{Name: "timestamp_in_ms", Value: amqp.Int64(ev.at.UnixMilli())})
		p := &amqp.Properties{Flags: amqp.PropDeliveryMode | amqp.PropTimestamp, DeliveryMode: 2, Timestamp: uint64(ev.at.Unix())}
		v.announce(eventExchange, ev.key, p, headers, nil)
	}
}

// Listening reports whether anybody wants to know of events. Ask before you put one together.
func (b *Broker) Listening() bool { return b.events != nil && b.events.bound.Load() }

// Event tells the listeners of the event exchange what happened, if there are any: key is its
// name, such as queue.created. It does not block, and may be called under any lock. If too many
// wait already the event is dropped.
func (b *Broker) Event(key string, headers ...amqp.Field) {
	if !b.Listening() {
		return
	}
	e := b.events
	e.mu.Lock()
	full := len(e.waiting) >= maxEvents
	if !full {
		e.waiting = append(e.waiting, event{key, time.Now(), headers})
	}
	e.mu.Unlock()
	if full {
		e.dropped.Add(1)
		return
	}
	select {
	case e.signal <- struct{}{}:
	default:
	}
}

// EventsDropped is the number of events that came too fast to be published.
func (b *Broker) EventsDropped() uint64 {
	if b.events == nil {
		return 0
	}
	return b.events.dropped.Load()
}

// Fields of events.

func textField(name, v string) amqp.Field { return amqp.Field{Name: name, Value: amqp.String(v)} }

func boolField(name string, v bool) amqp.Field { return amqp.Field{Name: name, Value: amqp.Bool(v)} }

// EventTable renders a table as events have it: each field as an Erlang term.
func EventTable(name string, t amqp.Table) amqp.Field {
	list := make([]amqp.Value, len(t))
	for i := range t {
		term := amqp.AppendErlangTerm(nil, amqp.TableValue(t[i:i+1]))
		list[i] = amqp.String(string(term[1 : len(term)-1])) // without the brackets of the list
	}
	return amqp.Field{Name: name, Value: amqp.ArrayValue(list...)}
}

// byActor is who did it.
func byActor(a Actor) amqp.Field {
	return textField("user_who_performed_action", actorName(a))
}

// actorName is the user in whose name a asks.
func actorName(a Actor) string {
	if s, ok := a.(interface{ User() *auth.User }); ok {
		return s.User().Name
	}
	return "settmq-internal"
}

func (v *VHost) exchangeCreated(x *Exchange) {
	if v.broker.Listening() {
		v.broker.Event("exchange.created", textField("name", x.Name), textField("vhost", v.name), textField("type", x.Type),
			boolField("durable", x.Durable), boolField("auto_delete", x.AutoDelete), boolField("internal", x.Internal),
			EventTable("arguments", x.Arguments))
	}
}

func (v *VHost) queueCreated(q Queue, a Actor) {
	if v.broker.Listening() {
		d := q.About()
		v.broker.Event("queue.created", textField("name", d.Name), textField("vhost", v.name), textField("type", typeOf(d.Arguments).module()),
			boolField("durable", d.Durable), boolField("auto_delete", d.AutoDelete), boolField("exclusive", d.Owner != 0),
			EventTable("arguments", d.Arguments), byActor(a))
	}
}

// bindingChanged tells of a binding, and whether the event exchange has one still.
func (v *VHost) bindingChanged(key string, id bindingID, b *Binding) {
	if e := v.broker.events; e != nil && b.Source.Name == eventExchange && v.name == e.vhost {
		e.bound.Store(len(b.Source.outbound) > 0)
	}
	if v.broker.Listening() {
		kind := "exchange"
		if id.toQueue {
			kind = "queue"
		}
		v.broker.Event(key, textField("source_name", id.source), textField("source_kind", "exchange"), textField("destination_name", id.destination),
			textField("destination_kind", kind), textField("routing_key", id.key), EventTable("arguments", b.Arguments), textField("vhost", v.name))
	}
}

// event is the name of the event that a policy was set or cleared; operator policies are
// parameters.
func (k PolicyKind) event(what string) string {
	if k == UserPolicy {
		return "policy." + what
	}
	return "parameter." + what
}

func (v *VHost) policyFields(kind PolicyKind, name string, more ...amqp.Field) []amqp.Field {
	fields := append([]amqp.Field{textField("name", name), textField("vhost", v.name)}, more...)
	if kind != UserPolicy {
		fields = append(fields, textField("component", kind.String()))
	}
	return fields
}
