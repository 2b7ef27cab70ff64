package broker

import (
	"strconv"
	"strings"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/auth"
	"github.com/settmq/settmq/exchange"
	"github.com/settmq/settmq/storage"
)

// ExchangeDeclare are the properties of an exchange to declare.
type ExchangeDeclare struct {
	Name, Type                    string
	Durable, AutoDelete, Internal bool
	Arguments                     amqp.Table
}

// DeclareExchange creates an exchange, or checks that the existing one is the same. It
// returns when a durable one is on disk. Checks and texts in RabbitMQ's order: type,
// default exchange, right, reserved name, arguments, equivalence.
func (v *VHost) DeclareExchange(a Actor, d ExchangeDeclare) *amqp.Error {
	if !exchange.Known(d.Type) {
		return amqp.PreconditionFailed("unknown exchange type '%s'", d.Type)
	}
	d.Name = stripNewlines(d.Name)
	if err := notDefaultExchange(d.Name); err != nil {
		return err
	}
	if err := a.Can(auth.Configure, ExchangeResource, d.Name); err != nil {
		return err
	}
	v.matchAhead(policyTarget{exchange: true, name: d.Name})
	v.mu.Lock()
	if x, ok := v.exchanges[d.Name]; ok {
		err, ticket := v.checkExchangeEquivalent(x, d), v.last
		v.mu.Unlock()
		if err == nil && x.Durable {
			err = wait(ticket) // whoever made it may still be waiting for the disk
		}
		return err
	}
	x, err := v.newExchange(a, d)
	if strings.HasPrefix(d.Name, "amq.") { // in definitions they are welcome
		err = amqp.AccessRefused("exchange name '%s' contains reserved prefix 'amq.*'", d.Name)
	}
	if err == nil {
		err = v.notGone()
	}
	if err != nil {
		v.mu.Unlock()
		return err
	}
	var c storage.Change
	v.putExchangeLocked(x, &c)
	ticket := v.applyLocked(c)
	v.exchangeCreated(x)
	v.mu.Unlock()
	return wait(ticket)
}

// putExchangeLocked adds an exchange and, if it lasts, its record to c.
func (v *VHost) putExchangeLocked(x *Exchange, c *storage.Change) {
	if x.Durable && exchange.Stores(x.Type, x.Arguments) {
		x.storeID = v.broker.newStore()
	}
	v.addExchangeLocked(x)
	if x.Durable {
		c.Put = append(c.Put, storage.KV{Key: metaKey(keyExchange, v.name, x.Name), Value: encodeRecord(exchangeRecord{
			Type: x.Type, AutoDelete: x.AutoDelete, Internal: x.Internal, Arguments: encodeArguments(x.Arguments), StoreID: x.storeID,
		})})
	}
}

// newExchange checks what only matters for an exchange that does not exist yet.
func (v *VHost) newExchange(a Actor, d ExchangeDeclare) (*Exchange, *amqp.Error) {
	if alt, ok := d.Arguments.Get("alternate-exchange"); ok {
		if alt.TypeName() != "longstr" {
			return nil, amqp.PreconditionFailed("invalid type '%s' for arg 'alternate-exchange' in %s", alt.TypeName(), v.resource(ExchangeResource, d.Name))
		}
		if err := a.Can(auth.Read, ExchangeResource, d.Name); err != nil {
			return nil, err
		}
		if err := a.Can(auth.Write, ExchangeResource, alt.Text()); err != nil {
			return nil, err
		}
	}
	if err := exchange.CheckArguments(d.Type, d.Arguments, v.resource(ExchangeResource, d.Name)); err != nil {
		return nil, err
	}
	if limit := v.broker.limits.MaxExchangesPerVHost; limit > 0 && len(v.exchanges) >= limit {
		return nil, amqp.PreconditionFailed("cannot declare exchange '%s' in vhost '%s': exchange limit of %d is reached", d.Name, v.name, limit)
	}
	return &Exchange{Name: d.Name, Type: d.Type, Durable: d.Durable, AutoDelete: d.AutoDelete, Internal: d.Internal, Arguments: d.Arguments}, nil
}

// checkExchangeEquivalent compares type, flags and the alternate exchange; other arguments
// are not compared, as in RabbitMQ.
func (v *VHost) checkExchangeEquivalent(x *Exchange, d ExchangeDeclare) *amqp.Error {
	what := v.resource(ExchangeResource, x.Name)
	for _, p := range []struct{ name, received, current string }{
		{"type", d.Type, x.Type},
		{"durable", strconv.FormatBool(d.Durable), strconv.FormatBool(x.Durable)},
		{"auto_delete", strconv.FormatBool(d.AutoDelete), strconv.FormatBool(x.AutoDelete)},
		{"internal", strconv.FormatBool(d.Internal), strconv.FormatBool(x.Internal)},
	} {
		if p.received != p.current {
			return amqp.PreconditionFailed("inequivalent arg '%s' for %s: received '%s' but current is '%s'", p.name, what, p.received, p.current)
		}
	}
	return checkArgument("alternate-exchange", what, d.Arguments, x.Arguments)
}

// CheckExchange is a passive declare: the exchange must exist, nothing is compared.
func (v *VHost) CheckExchange(a Actor, name string) *amqp.Error {
	name = stripNewlines(name)
	if err := notDefaultExchange(name); err != nil {
		return err
	}
	if err := canAny(a, ExchangeResource, name); err != nil {
		return err
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	if _, ok := v.exchanges[name]; !ok {
		return v.noSuch(ExchangeResource, name)
	}
	return nil
}

// DeleteExchange removes an exchange with its bindings; an absent one is no error. With
// ifUnused it must have no bindings from it.
func (v *VHost) DeleteExchange(a Actor, name string, ifUnused bool) *amqp.Error {
	name = stripNewlines(name)
	if err := notDefaultExchange(name); err != nil {
		return err
	}
	if strings.HasPrefix(name, "amq.") {
		return amqp.AccessRefused("deletion of system %s not allowed", v.resource(ExchangeResource, name))
	}
	if err := a.Can(auth.Configure, ExchangeResource, name); err != nil {
		return err
	}
	v.mu.Lock()
	x, ok := v.exchanges[name]
	if !ok {
		ticket := v.last
		v.mu.Unlock()
		return wait(ticket)
	}
	if ifUnused && len(x.outbound) > 0 {
		v.mu.Unlock()
		return amqp.PreconditionFailed("%s in use", v.resource(ExchangeResource, name))
	}
	var c storage.Change
	v.removeExchangeLocked(x, &c)
	ticket := v.applyLocked(c)
	v.mu.Unlock()
	return wait(ticket)
}

func notDefaultExchange(name string) *amqp.Error {
	if name == "" {
		return amqp.AccessRefused("operation not permitted on the default exchange")
	}
	return nil
}

// canAny is the right to learn of a thing: any of the three, so that passive declares leak
// nothing to those who may not use it. The refusal names configure.
func canAny(a Actor, kind Resource, name string) *amqp.Error {
	refusal := a.Can(auth.Configure, kind, name)
	if refusal == nil || a.Can(auth.Write, kind, name) == nil || a.Can(auth.Read, kind, name) == nil {
		return nil
	}
	return refusal
}

// stripNewlines removes CR and LF, as RabbitMQ does to names on declare, bind and delete.
func stripNewlines(name string) string {
	if !strings.ContainsAny(name, "\r\n") {
		return name
	}
	return strings.NewReplacer("\r", "", "\n", "").Replace(name)
}

// resource renders a name for error texts: "queue 'q' in vhost '/'".
func (v *VHost) resource(kind Resource, name string) string {
	return kind.String() + " '" + name + "' in vhost '" + v.name + "'"
}

func (v *VHost) noSuch(kind Resource, name string) *amqp.Error {
	return amqp.NotFound("no %s", v.resource(kind, name))
}

// checkArgument compares one declared argument as RabbitMQ does: integers across widths,
// everything else by type and value, absence on one side as a difference.
func checkArgument(name, what string, received, current amqp.Table) *amqp.Error {
	r, rok := received.Get(name)
	c, cok := current.Get(name)
	switch {
	case !rok && !cok, rok && cok && r.Equivalent(c):
		return nil
	case rok && cok:
		return amqp.PreconditionFailed("inequivalent arg '%s' for %s: received '%s' but current is '%s'", name, what, r, c)
	case rok:
		return amqp.PreconditionFailed("inequivalent arg '%s' for %s: received the value '%s' of type '%s' but current is none", name, what, r, r.TypeName())
	default:
		return amqp.PreconditionFailed("inequivalent arg '%s' for %s: received none but current is the value '%s' of type '%s'", name, what, c, c.TypeName())
	}
}
