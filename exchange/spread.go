package exchange

import (
	"cmp"
	"slices"

	"github.com/settmq/settmq/amqp"
)

// spread is a list of bindings for the types that pick one of them: sorted by the names of
// the destinations, so that the order does not depend on when they were bound. A destination
// with several bindings is in it as often, and picked as much more often.
type spread struct {
	env      Environment
	bindings []spreadBinding
}

type spreadBinding struct {
	name string
	d    Destination
}

func (s *spread) Empty() bool { return len(s.bindings) == 0 }

func (s *spread) find(name string) (int, bool) {
	return slices.BinarySearchFunc(s.bindings, name, func(b spreadBinding, name string) int { return cmp.Compare(b.name, name) })
}

func (s *spread) Bind(_ string, _ amqp.Table, d Destination) {
	name := s.env.Name(d)
	i, _ := s.find(name)
	s.bindings = slices.Insert(s.bindings, i, spreadBinding{name, d})
}

func (s *spread) Unbind(_ string, _ amqp.Table, d Destination) {
	if i, ok := s.find(s.env.Name(d)); ok {
		s.bindings = slices.Clip(slices.Delete(s.bindings, i, i+1))
	}
}

// random picks any binding for every message.
type random struct{ spread }

func (x *random) Needs() Needs { return Chance }

func (x *random) Route(dst []Destination, _ *Message) []Destination {
	switch n := len(x.bindings); n {
	case 0:
		return dst
	case 1:
		return append(dst, x.bindings[0].d)
	default:
		return append(dst, x.bindings[x.env.Random(n)].d)
	}
}

// modulusHash picks a binding by the hash of the routing key modulo their number: any change of
// the bindings moves nearly every key.
type modulusHash struct{ spread }

func (x *modulusHash) Needs() Needs { return 0 }

func (x *modulusHash) Route(dst []Destination, m *Message) []Destination {
	if len(x.bindings) == 0 {
		return dst
	}
	h := mix(hashText(hashStart, m.RoutingKey))
	return append(dst, x.bindings[h%uint64(len(x.bindings))].d)
}
