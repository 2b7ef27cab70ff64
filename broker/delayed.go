package broker

import (
	"slices"
	"strconv"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/storage"
)

// Delayed messages, with the names of RabbitMQ's plugin rabbitmq_delayed_message_exchange: what is
// published to an exchange of type x-delayed-message with a header x-delay, in milliseconds, waits
// in a queue of the exchange's own until then, and is routed then as x-delayed-type says.

const delayHeader = "x-delay"

// delayOf returns how many milliseconds a message with these encoded headers asks to wait; 0 or
// less is no wait. Numbers of any kind are understood, and strings of digits.
func delayOf(headers []byte) int64 {
	v, ok := amqp.LookupHeader(headers, delayHeader)
	if !ok {
		return 0
	}
	if n, ok := v.Int(); ok {
		return min(n, MaxMillis)
	}
	if f, ok := v.Float(); ok {
		return int64(max(min(f, MaxMillis), -MaxMillis))
	}
	n, _ := strconv.ParseInt(v.Text(), 10, 64)
	return min(n, MaxMillis)
}

// newDelayed makes the queue in which messages of an exchange wait. It has no name that a client
// could use. What waits in that of a durable exchange lasts.
func (v *VHost) newDelayed(x *Exchange) *queue.Queue {
	o := queue.Options{
		Declaration: queue.Declaration{ID: x.storeID, Durable: x.Durable},
		Pager:       v.broker.pager, OnFault: v.queueFault, Timers: v.broker.timers,
		// Its dead letters are those whose time has come.
		Settings: queue.Settings{DeadLetterExchange: queue.Some(x.Name)},
		Delay:    func(m *storage.Message) int64 { return delayOf(amqp.HeadersOf(m.Properties)) },
		OnDeadLetter: func(_ *queue.Queue, l *queue.DeadLetter, w *queue.Wakes) queue.Outcome {
			return v.delayOver(x, l, w)
		},
	}
	if x.storeID != 0 {
		o.Store = v.broker.store.Queue(x.storeID)
	}
	return queue.New(o)
}

// delayOver routes a message whose time has come.
func (v *VHost) delayOver(x *Exchange, l *queue.DeadLetter, w *queue.Wakes) queue.Outcome {
	old := l.Message
	var p amqp.Properties
	if amqp.ParseProperties(old.Properties, &p) != nil {
		return queue.Settled // checked when it was published
	}
	headers, _, _ := amqp.ParseTable(p.Headers)
	i := slices.IndexFunc(headers, func(f amqp.Field) bool { return f.Name == delayHeader })
	if i < 0 {
		return queue.Settled
	}
	// The other way round it asks for no further wait, and still tells that there was one.
	headers[i].Value = amqp.Int64(-delayOf(p.Headers))
	if n, _ := headers[i].Value.Int(); n >= -1<<31 {
		headers[i].Value = amqp.Int32(int32(n))
	}
	p.Headers = headers.Append(nil)
	m := &storage.Message{
		Exchange: old.Exchange, RoutingKey: old.RoutingKey, Properties: p.Append(nil), Body: old.Body,
		Transient: old.Transient, Died: old.Died, Blind: old.Blind,
	}
	keys, err := senderSelected(&p)
	if err != nil {
		return queue.Settled
	}
	return v.sendLetter(l, m, w, func(r *Router) *Route { return r.routeFrom(x, m, keys, &p) })
}

// routeFrom is the route of a message of the broker's own from an exchange on; nil if that is gone,
// and with it what waited there.
func (r *Router) routeFrom(x *Exchange, m *storage.Message, keys []string, p *amqp.Properties) *Route {
	v := r.vhost
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.exchanges[x.Name] != x {
		return nil
	}
	return r.evaluateLocked(x, m.RoutingKey, keys, p)
}
