package broker

import (
	"github.com/settmq/settmq/amqp"
)

// Queue returns the queue of that name, or nil. Nobody's rights are looked at.
func (v *VHost) Queue(name string) Queue {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.queues[name]
}

// Exchange returns the exchange of that name, or nil. Nobody's rights are looked at.
func (v *VHost) Exchange(name string) *Exchange {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.exchanges[name]
}

// Exchanges returns the exchanges of the vhost, in no order.
func (v *VHost) Exchanges() []*Exchange {
	v.mu.RLock()
	defer v.mu.RUnlock()
	list := make([]*Exchange, 0, len(v.exchanges))
	for _, x := range v.exchanges {
		list = append(list, x)
	}
	return list
}

// BindingInfo is a binding as it is listed. That of every queue to the default exchange is one too.
type BindingInfo struct {
	VHost, Source, Destination string
	ToQueue                    bool
	RoutingKey                 string
	Arguments                  amqp.Table
}

// ListBindings returns the bindings that lead from source, or for nil from any exchange, to destination, or for nil to
// anything, in no order.
func (v *VHost) ListBindings(source, destination *string) []BindingInfo {
	v.mu.RLock()
	defer v.mu.RUnlock()
	var list []BindingInfo
	add := func(x *Exchange) {
		for id, b := range x.outbound {
			if destination == nil || *destination == id.destination {
				list = append(list, BindingInfo{v.name, id.source, id.destination, id.toQueue, id.key, b.Arguments})
			}
		}
	}
	implicit := func(name string) {
		list = append(list, BindingInfo{VHost: v.name, Destination: name, ToQueue: true, RoutingKey: name})
	}
	switch {
	case source == nil:
		for _, x := range v.exchanges {
			add(x)
		}
	case v.exchanges[*source] != nil:
		add(v.exchanges[*source])
	}
	switch {
	case source != nil && *source != "":
	case destination == nil:
		for name := range v.queues {
			implicit(name)
		}
	case v.queues[*destination] != nil:
		implicit(*destination)
	}
	return list
}
