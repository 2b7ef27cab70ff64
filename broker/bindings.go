package broker

import (
	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/auth"
	"github.com/settmq/settmq/exchange"
	"github.com/settmq/settmq/storage"
)

// BindingSpec names a binding to make or to remove.
type BindingSpec struct {
	Source      string
	Destination string
	Kind        Resource // of the destination
	RoutingKey  string
	Arguments   amqp.Table
}

// Bind makes a binding; making it twice is the same as once. It returns when a durable one
// is on disk.
func (v *VHost) Bind(a Actor, s BindingSpec) *amqp.Error {
	s.Source, s.Destination = stripNewlines(s.Source), stripNewlines(s.Destination)
	if err := v.mayBind(a, s); err != nil {
		return err
	}
	v.mu.Lock()
	b, err := v.resolveLocked(a, s)
	if err == nil {
		err = exchange.CheckBinding(b.Source.Type, exchange.Binding{Key: s.RoutingKey, Arguments: s.Arguments, QueueType: destinationType(b.Destination)})
	}
	if err != nil {
		v.mu.Unlock()
		return err
	}
	var (
		c       storage.Change
		history []*storage.Message
	)
	id := b.id()
	if _, exists := b.Source.outbound[id]; !exists {
		if limit := v.broker.limits.MaxBindings; limit > 0 && len(b.Source.outbound) >= limit {
			v.mu.Unlock()
			return amqp.PreconditionFailed("cannot bind to %s: binding limit of %d is reached", v.resource(ExchangeResource, s.Source), limit)
		}
		v.putBindingLocked(id, b, &c)
		if b.Source.history != nil {
			history = b.Source.history.messages()
		}
	}
	ticket := v.applyLocked(c)
	if b.durable() {
		ticket = v.last // also of one who made the same binding just before
	}
	v.mu.Unlock()
	v.replay(history, b.Destination)
	return wait(ticket)
}

// putBindingLocked adds a binding and, if it lasts, its record to c.
func (v *VHost) putBindingLocked(id bindingID, b *Binding, c *storage.Change) {
	v.addBindingLocked(id, b)
	if b.durable() {
		c.Put = append(c.Put, storage.KV{Key: v.bindingKey(id), Value: encodeRecord(id.record())})
	}
}

// Unbind removes a binding. A missing exchange, queue or binding is no error.
func (v *VHost) Unbind(a Actor, s BindingSpec) *amqp.Error {
	s.Source, s.Destination = stripNewlines(s.Source), stripNewlines(s.Destination)
	if err := v.mayBind(a, s); err != nil {
		return err
	}
	v.mu.Lock()
	b, err := v.resolveLocked(System{}, s)
	if err != nil {
		ticket := v.last
		v.mu.Unlock()
		return wait(ticket)
	}
	var c storage.Change
	id := b.id()
	if have, exists := b.Source.outbound[id]; exists {
		if q, ok := have.Destination.(Queue); ok {
			if err := v.checkOwner(a, q); err != nil {
				v.mu.Unlock()
				return err
			}
		}
		v.removeBindingLocked(id, have, &c)
	}
	ticket := v.applyLocked(c)
	if ticket == nil {
		ticket = v.last
	}
	v.mu.Unlock()
	return wait(ticket)
}

// mayBind checks in RabbitMQ's order: reply addresses, write on the destination, the default
// exchange, read on the source, the topic right.
func (v *VHost) mayBind(a Actor, s BindingSpec) *amqp.Error {
	if s.Kind == QueueResource && IsReplyAddress(s.Destination) {
		return amqp.AccessRefused("cannot bind or unbind to a volatile (direct reply-to) queue")
	}
	if err := a.Can(auth.Write, s.Kind, s.Destination); err != nil {
		return err
	}
	if err := notDefaultExchange(s.Source); err != nil {
		return err
	}
	if s.Kind == ExchangeResource {
		if err := notDefaultExchange(s.Destination); err != nil {
			return err
		}
	}
	if err := a.Can(auth.Read, ExchangeResource, s.Source); err != nil {
		return err
	}
	v.mu.RLock()
	x := v.exchanges[s.Source]
	v.mu.RUnlock()
	if x != nil && x.Type == "topic" {
		return a.CanTopic(auth.Read, s.Source, s.RoutingKey)
	}
	return nil
}

// destinationType is the type of a queue, "" for an exchange.
func destinationType(d exchange.Destination) string {
	if q, ok := d.(Queue); ok {
		return typeOf(q.About().Arguments).String()
	}
	return ""
}

// resolveLocked finds both ends; of two missing ones the source is named.
func (v *VHost) resolveLocked(a Actor, s BindingSpec) (*Binding, *amqp.Error) {
	b := &Binding{RoutingKey: s.RoutingKey, Arguments: s.Arguments}
	if b.Source = v.exchanges[s.Source]; b.Source == nil {
		return nil, v.noSuch(ExchangeResource, s.Source)
	}
	if s.Kind == ExchangeResource {
		x := v.exchanges[s.Destination]
		if x == nil {
			return nil, v.noSuch(ExchangeResource, s.Destination)
		}
		b.Destination = x
		return b, nil
	}
	q, err := v.queueLocked(a, s.Destination)
	if err != nil {
		return nil, err
	}
	b.Destination = q
	return b, nil
}

// Bindings calls fn for every binding of the vhost, in no order, under the vhost's read
// lock: fn must be quick and must not call back.
func (v *VHost) Bindings(fn func(*Binding)) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	for _, x := range v.exchanges {
		for _, b := range x.outbound {
			fn(b)
		}
	}
}

// queueLocked finds a queue that the actor's connection may use.
func (v *VHost) queueLocked(a Actor, name string) (Queue, *amqp.Error) {
	q := v.queues[name]
	if q == nil {
		return nil, v.noSuch(QueueResource, name)
	}
	if err := v.checkOwner(a, q); err != nil {
		return nil, err
	}
	return q, nil
}
