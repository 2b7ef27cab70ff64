package exchange

import "github.com/settmq/settmq/amqp"

// direct matches when the keys are equal, byte for byte.
type direct struct {
	keys table[string, bag]
}

func (x *direct) Needs() Needs { return EveryKey }

func (x *direct) Empty() bool { return x.keys.len() == 0 }

func (x *direct) Bind(key string, _ amqp.Table, d Destination) {
	b, _ := x.keys.get(key)
	b.add(d)
	x.keys.set(key, b)
}

func (x *direct) Unbind(key string, _ amqp.Table, d Destination) {
	b, ok := x.keys.get(key)
	if !ok || !b.remove(d) {
		return
	}
	if b.empty() {
		x.keys.delete(key)
		return
	}
	x.keys.set(key, b)
}

func (x *direct) Route(dst []Destination, m *Message) []Destination {
	b, ok := x.keys.get(m.RoutingKey)
	if !ok {
		return dst
	}
	return b.appendTo(dst)
}

// fanout matches always; keys and arguments only tell bindings apart.
type fanout struct {
	all bag
}

func (x *fanout) Needs() Needs { return 0 }

func (x *fanout) Empty() bool { return x.all.empty() }

func (x *fanout) Bind(_ string, _ amqp.Table, d Destination) { x.all.add(d) }

func (x *fanout) Unbind(_ string, _ amqp.Table, d Destination) { x.all.remove(d) }

func (x *fanout) Route(dst []Destination, _ *Message) []Destination { return x.all.appendTo(dst) }
