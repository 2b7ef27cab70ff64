package exchange

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
	"sync"

	"github.com/settmq/settmq/amqp"
)

const matchArgument = "x-match"

// matchMode reads x-match. The error is nil or a 406 PRECONDITION_FAILED.
func matchMode(args amqp.Table) (headersMode, *amqp.Error) {
	v, ok := args.Get(matchArgument)
	if !ok {
		return headersMode{}, nil
	}
	if v.Kind() != amqp.KindString {
		return headersMode{}, amqp.PreconditionFailed(
			"Invalid x-match field type %s (value %s); expected longstr", v.TypeName(), amqp.AppendErlangTerm(nil, v))
	}
	switch v.Text() {
	case "all":
		return headersMode{}, nil
	case "any":
		return headersMode{any: true}, nil
	case "all-with-x":
		return headersMode{withX: true}, nil
	case "any-with-x":
		return headersMode{any: true, withX: true}, nil
	}
	return headersMode{}, amqp.PreconditionFailed(
		"Invalid x-match field value %s; expected all, any, all-with-x, or any-with-x", amqp.AppendErlangTerm(nil, v))
}

// conditions returns what a binding's arguments ask of a message, sorted by name. If a name
// is repeated, the first one counts. An x-match that CheckBinding would have refused is
// taken as "all".
func conditions(args amqp.Table) (headersMode, amqp.Table) {
	mode, _ := matchMode(args)
	conds := make(amqp.Table, 0, len(args))
	for _, f := range args {
		if f.Name == matchArgument || !mode.withX && strings.HasPrefix(f.Name, "x-") {
			continue
		}
		conds = append(conds, f)
	}
	slices.SortStableFunc(conds, func(a, b amqp.Field) int { return cmp.Compare(a.Name, b.Name) })
	conds = slices.CompactFunc(conds, func(a, b amqp.Field) bool { return a.Name == b.Name })
	return mode, slices.Clip(conds)
}

// identity is the same for two bindings exactly if they ask the same of a message.
func identity(mode headersMode, conds amqp.Table) string {
	id := []byte{0}
	if mode.any {
		id[0] = 1
	}
	return string(conds.Append(id))
}

// holds reports whether a condition holds for the message in s.
func holds(c *amqp.Field, s *headersScratch) bool {
	f := s.find(c.Name)
	return f != nil && (c.Value.Kind() == amqp.KindVoid || c.Value.Equal(f.Value))
}

// Facts are what rules are filed under: byte strings that a condition and the header it
// asks for have in common. There are two sorts, the presence of a header and, for the
// types that people route by, its name and value.

// maxFactValue bounds the values that get a fact of their own, so that a message cannot
// make a router copy large headers.
const maxFactValue = 255

// appendFact appends the most selective fact that every message with c has.
func appendFact(b []byte, c *amqp.Field) []byte {
	if fact, ok := appendEquality(b, c); ok {
		return fact
	}
	return appendPresence(b, c.Name)
}

func appendPresence(b []byte, name string) []byte {
	return append(append(b, 'p'), name...)
}

// appendEquality appends the fact that f's header has f's value. It has to be the same for
// all values that amqp.Value.Equal takes for equal. False: values of this type or size are
// filed by presence only.
func appendEquality(b []byte, f *amqp.Field) ([]byte, bool) {
	start := len(b)
	b = append(b, 0, byte(len(f.Name)))
	b = append(b, f.Name...)
	if n, ok := f.Value.Int(); ok {
		b[start] = 'i'
		return binary.BigEndian.AppendUint64(b, uint64(n)), true
	}
	switch f.Value.Kind() {
	case amqp.KindString, amqp.KindBinary:
		v := f.Value.Text()
		if len(v) > maxFactValue {
			return b[:start], false
		}
		b[start] = 's'
		return append(b, v...), true
	case amqp.KindBool:
		v, _ := f.Value.Bool()
		b[start] = 'b'
		if v {
			return append(b, 1), true
		}
		return append(b, 0), true
	}
	return b[:start], false
}

// headersScratch holds a message's headers while they are compared.
type headersScratch struct {
	headers amqp.Table
	sorted  []*amqp.Field // by name; empty while there are few headers
	fact    []byte
}

var headersScratchPool = sync.Pool{New: func() any { return new(headersScratch) }}

func (s *headersScratch) begin(h amqp.Table) {
	s.headers = h
	if len(h) <= scanHeaders {
		return
	}
	for i := range h {
		s.sorted = append(s.sorted, &h[i])
	}
	slices.SortStableFunc(s.sorted, func(a, b *amqp.Field) int { return cmp.Compare(a.Name, b.Name) })
}

// end gives s back to the pool without the references to the message.
func (s *headersScratch) end() {
	s.headers = nil
	clear(s.sorted)
	s.sorted = s.sorted[:0]
	headersScratchPool.Put(s)
}

// find returns the first header called name, or nil.
func (s *headersScratch) find(name string) *amqp.Field {
	if len(s.sorted) == 0 {
		for i := range s.headers {
			if s.headers[i].Name == name {
				return &s.headers[i]
			}
		}
		return nil
	}
	i, ok := slices.BinarySearchFunc(s.sorted, name, func(f *amqp.Field, name string) int {
		return cmp.Compare(f.Name, name)
	})
	if !ok {
		return nil
	}
	return s.sorted[i]
}
