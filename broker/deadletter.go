package broker

import (
	"slices"
	"time"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/storage"
)

// Dead letters, as RabbitMQ's documentation on dead letter exchanges tells: a message that a queue
// gives up is published once more, to the queue's dead-letter exchange, without permissions,
// mandatory or alternate claims of a publisher. Its headers tell what it went through.

// deadLetter sends a dead letter of q. It is a queue's OnDeadLetter.
func (v *VHost) deadLetter(q *queue.Queue, l *queue.DeadLetter, w *queue.Wakes) queue.Outcome {
	m, history := newDeadLetter(q.Name, l, time.Now())
	if m == nil {
		return queue.Settled
	}
	return v.sendLetter(l, m, w, func(r *Router) *Route { return r.routeDeadLetter(l, m, history) })
}

// sendLetter publishes m, which l has become, where route says; to nobody if that is nil.
func (v *VHost) sendLetter(l *queue.DeadLetter, m *storage.Message, w *queue.Wakes, route func(*Router) *Route) queue.Outcome {
	nobody := queue.Settled
	if l.AtLeastOnce {
		nobody = queue.Refused
	}
	r := v.ownRouters.Get().(*Router)
	defer v.ownRouters.Put(r)
	rt := route(r)
	if rt == nil {
		return nobody
	}
	stores := rt.Stores(m)
	if stores {
		m.Confirm, m.ConfirmSeq = l.Confirm, l.Seq
	}
	// A stream is written by its own committer.
	together := stores && l.Confirm != nil && !m.Transient && !rt.Streams()
	if together {
		m.Hold()
	}
	accepted := rt.Publish(m, w)
	switch {
	case together && accepted:
		l.Store.SettleWith(l.Seq, m)
	case together:
		m.Release()
	}
	switch {
	case !accepted:
		return nobody
	case stores && l.Confirm != nil:
		return queue.Stored
	}
	return queue.Settled
}

// routeDeadLetter finds the queues for a dead letter; nil if there are none. A queue
// that the message was in before does not get it again, unless a consumer had a hand in it: the
// rest would go round for ever.
func (r *Router) routeDeadLetter(l *queue.DeadLetter, m *storage.Message, h *deathHistory) *Route {
	v := r.vhost
	v.mu.RLock()
	defer v.mu.RUnlock()
	x, ok := v.exchanges[l.Exchange]
	if !ok {
		return nil
	}
	var extra []string
	if !l.RoutingKey.Set {
		extra = slices.Concat(h.keys[1:], h.blind)
	}
	if l.Reason != queue.Rejected {
		r.walk.without = func(q Queue) bool { return h.cycles(q.About().Name) }
		defer func() { r.walk.without = nil }()
	}
	rt := r.evaluateLocked(x, m.RoutingKey, extra, &h.properties)
	if len(rt.Queues) == 0 {
		return nil
	}
	return rt
}

// deathHistory is what the headers of a message tell about its deaths, the newest first.
type deathHistory struct {
	deaths     []amqp.Table
	keys       []string // routing keys of the message before it died, its own first
	blind      []string // and those that nobody sees
	properties amqp.Properties
}

// newDeadLetter makes the message to be published. What a client put into x-death is replaced, it
// is no history of ours.
func newDeadLetter(queueName string, l *queue.DeadLetter, now time.Time) (*storage.Message, *deathHistory) {
	old := l.Message
	h := &deathHistory{keys: []string{old.RoutingKey}}
	p := &h.properties
	if amqp.ParseProperties(old.Properties, p) != nil {
		return nil, nil // checked when it was published
	}
	var headers amqp.Table
	if p.Has(amqp.PropHeaders) {
		headers, _, _ = amqp.ParseTable(p.Headers)
	}
	first := true
	if old.Died {
		if list, ok := headers.Get("x-death"); ok {
			for _, d := range list.Array() {
				h.deaths = append(h.deaths, d.Table())
			}
			first = len(h.deaths) == 0
		}
	}
	if !h.renamed() {
		h.keys = appendKeys(h.keys, headers, "CC")
		h.blind = appendKeys(nil, headers, queue.BlindHeader)
	}
	blind := old.Blind && !l.RoutingKey.Set
	if !blind {
		headers = slices.DeleteFunc(headers, func(f amqp.Field) bool { return f.Name == queue.BlindHeader })
	}
	h.add(queueName, l, now)
	headers = h.write(headers, queueName, l, first)
	p.Flags = p.Flags&^amqp.PropExpiration | amqp.PropHeaders
	p.Headers = headers.Append(nil)
	m := &storage.Message{
		Exchange: l.Exchange, RoutingKey: l.RoutingKey.Or(old.RoutingKey),
		Properties: p.Append(nil), Body: old.Body, Transient: old.Transient, Died: true,
		Blind: blind,
	}
	return m, h
}

// renamed reports whether the message got another routing key with its last death. Then that is its only one, although its
// headers still have others.
func (h *deathHistory) renamed() bool {
	if len(h.deaths) == 0 {
		return false
	}
	keys, _ := h.deaths[0].Get("routing-keys")
	list := keys.Array()
	return len(list) > 0 && list[0].Text() != h.keys[0]
}

// appendKeys appends the routing keys in a header.
func appendKeys(keys []string, headers amqp.Table, name string) []string {
	v, _ := headers.Get(name)
	for _, k := range v.Array() {
		if k.Kind() == amqp.KindString {
			keys = append(keys, k.Text())
		}
	}
	return keys
}

// add puts a death in front: a new one, or one more of a kind that there was.
func (h *deathHistory) add(queueName string, l *queue.DeadLetter, now time.Time) {
	for i, d := range h.deaths {
		if textOf(d, "queue") != queueName || textOf(d, "reason") != string(l.Reason) {
			continue
		}
		for j := range d {
			if n, ok := d[j].Value.Int(); ok && d[j].Name == "count" {
				d[j].Value = amqp.Int64(n + 1)
			}
		}
		h.deaths = slices.Insert(slices.Delete(h.deaths, i, i+1), 0, d)
		return
	}
	var d amqp.Table
	if h.properties.Has(amqp.PropExpiration) {
		d = append(d, amqp.Field{Name: "original-expiration", Value: amqp.String(string(h.properties.Expiration))})
	}
	keys := make([]amqp.Value, len(h.keys))
	for i, k := range h.keys {
		keys[i] = amqp.String(k)
	}
	h.deaths = slices.Insert(h.deaths, 0, append(d,
		amqp.Field{Name: "count", Value: amqp.Int64(1)},
		amqp.Field{Name: "reason", Value: amqp.String(string(l.Reason))},
		amqp.Field{Name: "queue", Value: amqp.String(queueName)},
		amqp.Field{Name: "time", Value: amqp.Timestamp(uint64(now.Unix()))},
		amqp.Field{Name: "exchange", Value: amqp.String(l.Message.Exchange)},
		amqp.Field{Name: "routing-keys", Value: amqp.ArrayValue(keys...)},
	))
}

// write returns the headers with the history in them; first says that there was none.
func (h *deathHistory) write(headers amqp.Table, queueName string, l *queue.DeadLetter, first bool) amqp.Table {
	headers = slices.DeleteFunc(headers, func(f amqp.Field) bool {
		switch f.Name {
		case "x-death", "x-last-death-queue", "x-last-death-reason", "x-last-death-exchange":
			return true
		case "x-first-death-queue", "x-first-death-reason", "x-first-death-exchange":
			return first
		}
		return false
	})
	list := make([]amqp.Value, len(h.deaths))
	for i, d := range h.deaths {
		list[i] = amqp.TableValue(d)
	}
	headers = append(headers, amqp.Field{Name: "x-death", Value: amqp.ArrayValue(list...)})
	about := func(which string) {
		headers = append(headers,
			amqp.Field{Name: "x-" + which + "-death-queue", Value: amqp.String(queueName)},
			amqp.Field{Name: "x-" + which + "-death-reason", Value: amqp.String(string(l.Reason))},
			amqp.Field{Name: "x-" + which + "-death-exchange", Value: amqp.String(l.Message.Exchange)},
		)
	}
	if first {
		about("first")
	}
	about("last")
	return headers
}

// cycles reports whether a queue had the message before and nobody rejected it since.
func (h *deathHistory) cycles(queueName string) bool {
	for _, d := range h.deaths {
		if textOf(d, "reason") == string(queue.Rejected) {
			return false
		}
		if textOf(d, "queue") == queueName {
			return true
		}
	}
	return false
}

func textOf(t amqp.Table, name string) string {
	v, _ := t.Get(name)
	return v.Text()
}
