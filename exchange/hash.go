package exchange

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"strconv"

	"github.com/settmq/settmq/amqp"
)

// maxWeight is the largest binding key of a consistent hash exchange.
const maxWeight = 10_000

// consistentHash sends every message to one destination, the same for all messages with an
// equal routing key, header or property (the hash key), each destination getting its share by
// weight.
//
// It picks by weighted rendezvous (highest random weight): every destination draws a number
// from the hash of its name and of the hash key, and the best one wins, as if each bought as
// many tickets as it weighs. Binding one more takes from the others what it gets and moves
// nothing between them; unbinding gives its keys to the others and moves no others. The choice
// depends on the names and weights alone, so it is the same after a restart. RabbitMQ's plugin
// keeps buckets in the order of binding, which moves more keys and differs after a restart.
//
// The price is that a message looks at every destination, a few nanoseconds each.
type consistentHash struct {
	env      Environment
	header   string // the hash key is this header
	property string // or this property; else the routing key
	bindings []hashBinding
	weighted bool // the weights are not all the same
}

// hashBinding is a destination with the weights of its bindings in their order; only the first
// counts, as in RabbitMQ's plugin.
type hashBinding struct {
	name    string
	d       Destination
	seed    uint64 // hash of the name
	weights []int
}

func newConsistentHash(args amqp.Table, env Environment) *consistentHash {
	x := &consistentHash{env: env}
	if v, ok := args.Get("hash-header"); ok {
		x.header = v.Text()
	} else if v, ok := args.Get("hash-property"); ok {
		x.property = v.Text()
	}
	return x
}

func (x *consistentHash) Needs() Needs {
	if x.header != "" || x.property != "" {
		return MessageProperties
	}
	return 0
}

func (x *consistentHash) Empty() bool { return len(x.bindings) == 0 }

func (x *consistentHash) find(name string) (int, bool) {
	return slices.BinarySearchFunc(x.bindings, name, func(b hashBinding, name string) int { return cmp.Compare(b.name, name) })
}

func (x *consistentHash) Bind(key string, _ amqp.Table, d Destination) {
	name := x.env.Name(d)
	i, bound := x.find(name)
	if !bound {
		x.bindings = slices.Insert(x.bindings, i, hashBinding{name: name, d: d, seed: mix(hashText(hashStart, name))})
	}
	x.bindings[i].weights = append(x.bindings[i].weights, weight(key))
	x.weigh()
}

func (x *consistentHash) Unbind(key string, _ amqp.Table, d Destination) {
	i, bound := x.find(x.env.Name(d))
	if !bound {
		return
	}
	b := &x.bindings[i]
	j := slices.Index(b.weights, weight(key))
	if j < 0 {
		return
	}
	if b.weights = slices.Delete(b.weights, j, j+1); len(b.weights) == 0 {
		x.bindings = slices.Clip(slices.Delete(x.bindings, i, i+1))
	}
	x.weigh()
}

func (x *consistentHash) weigh() {
	x.weighted = slices.ContainsFunc(x.bindings, func(b hashBinding) bool { return b.weights[0] != x.bindings[0].weights[0] })
}

func (x *consistentHash) Route(dst []Destination, m *Message) []Destination {
	if len(x.bindings) == 0 {
		return dst
	}
	return append(dst, x.bindings[x.pick(x.hash(m))].d)
}

// pick returns the index of the winner. The greatest draw wins when the weights are equal, so
// that no logarithm is needed then; otherwise the smallest of -ln(draw)/weight, which chooses the same
// for equal weights.
func (x *consistentHash) pick(h uint64) int {
	best, bestDraw := 0, uint64(0)
	if !x.weighted {
		for i := range x.bindings {
			if draw := mix(h ^ x.bindings[i].seed); draw > bestDraw {
				best, bestDraw = i, draw
			}
		}
		return best
	}
	least := math.Inf(1)
	for i := range x.bindings {
		b := &x.bindings[i]
		draw := (float64(mix(h^b.seed)>>11) + 0.5) / (1 << 53) // in (0, 1)
		if cost := -math.Log(draw) / float64(b.weights[0]); cost < least {
			best, least = i, cost
		}
	}
	return best
}

// hash hashes the hash key. Messages without it share one hash, and so one destination.
func (x *consistentHash) hash(m *Message) uint64 {
	h := uint64(hashStart)
	switch {
	case x.header != "":
		if v, ok := amqp.LookupHeader(m.Properties.Headers, x.header); ok && m.Properties.Has(amqp.PropHeaders) {
			h = hashValue(v)
		}
	case x.property == "":
		h = hashText(h, m.RoutingKey)
	case x.property == "message_id" && m.Properties.Has(amqp.PropMessageID):
		h = hashBytes(h, m.Properties.MessageID)
	case x.property == "correlation_id" && m.Properties.Has(amqp.PropCorrelationID):
		h = hashBytes(h, m.Properties.CorrelationID)
	case x.property == "timestamp" && m.Properties.Has(amqp.PropTimestamp):
		h = hashNumber(h, m.Properties.Timestamp)
	}
	return mix(h)
}

// hashValue hashes values that are equal alike: integers of any width by their number.
func hashValue(v amqp.Value) uint64 {
	if n, ok := v.Int(); ok {
		return hashNumber(hashStart, uint64(n))
	}
	if v.Kind() == amqp.KindString {
		return hashText(hashStart, v.Text())
	}
	var scratch [64]byte
	return hashBytes(hashStart, v.Append(scratch[:0]))
}

// FNV-1a, and a finaliser that spreads it over all 64 bits (splitmix64). Neither may change: it
// would move keys to other queues.
const (
	hashStart = 14695981039346656037
	hashPrime = 1099511628211
)

func hashText(h uint64, s string) uint64 {
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * hashPrime
	}
	return h
}

func hashBytes(h uint64, b []byte) uint64 {
	for _, c := range b {
		h = (h ^ uint64(c)) * hashPrime
	}
	return h
}

func hashNumber(h, n uint64) uint64 {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], n)
	return hashBytes(h, b[:])
}

func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// weight is what a binding key says; 1 for one that CheckBinding would have refused.
func weight(key string) int {
	n, err := strconv.Atoi(key)
	if err != nil || n < 1 || n > maxWeight {
		return 1
	}
	return n
}

func checkWeight(key string) *amqp.Error {
	digits := key
	if len(key) > 1 && (key[0] == '-' || key[0] == '+') {
		digits = key[1:]
	}
	if digits == "" || slices.ContainsFunc([]byte(digits), func(c byte) bool { return c < '0' || c > '9' }) {
		return amqp.PreconditionFailed("The binding key must be an integer: %s", amqp.AppendErlangTerm(nil, amqp.String(key)))
	}
	n, err := strconv.Atoi(key)
	switch {
	case n < 1: // also when it is out of range: Atoi returns the nearest bound then
		return amqp.PreconditionFailed("The binding key must be greater than 0")
	case err != nil || n > maxWeight:
		return amqp.PreconditionFailed("The binding key must not exceed %d", maxWeight)
	}
	return nil
}

func checkHashArguments(args amqp.Table, what string) *amqp.Error {
	header, byHeader := args.Get("hash-header")
	property, byProperty := args.Get("hash-property")
	for _, a := range []struct {
		name string
		v    amqp.Value
		ok   bool
	}{{"hash-header", header, byHeader}, {"hash-property", property, byProperty}} {
		if a.ok && a.v.Kind() != amqp.KindString {
			return amqp.PreconditionFailed("invalid type '%s' for arg '%s' in %s", a.v.TypeName(), a.name, what)
		}
	}
	switch {
	case byHeader && byProperty:
		return amqp.PreconditionFailed("hash-header and hash-property are mutually exclusive")
	case byProperty && !slices.Contains([]string{"correlation_id", "message_id", "timestamp"}, property.Text()):
		return amqp.PreconditionFailed("Unsupported property: %s", property.Text())
	}
	return nil
}
