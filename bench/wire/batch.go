package wire

import (
	"encoding/binary"

	"github.com/settmq/settmq/amqp"
)

// Target is where a message of a Batch goes.
type Target struct{ Exchange, RoutingKey string }

// Batch is a cycle of publishes, encoded once and written over and over: message i goes to
// target i modulo their number. It belongs to one goroutine.
type Batch struct {
	bytes   []byte
	start   []int // of message i in bytes; one more entry than messages
	body    []int // of the body of message i
	cycle   int   // messages after which the targets repeat
	at      int   // next message, < cycle
	perCall int
}

// BatchOptions are what the messages of a Batch have in common.
type BatchOptions struct {
	Targets    []Target
	Body       []byte
	Persistent bool
	FrameMax   uint32
	Most       int // messages one Take may ask for
}

// NewBatch encodes len(Targets) + Most messages.
func NewBatch(o BatchOptions) *Batch {
	props := amqp.Properties{Flags: amqp.PropDeliveryMode, DeliveryMode: 1}
	if o.Persistent {
		props.DeliveryMode = 2
	}
	encoded := props.Append(nil)
	b := &Batch{cycle: len(o.Targets), perCall: max(o.Most, 1), start: []int{0}}
	for i := range b.cycle + b.perCall {
		t := o.Targets[i%b.cycle]
		b.bytes = amqp.AppendMethod(b.bytes, 1, &amqp.BasicPublish{Exchange: []byte(t.Exchange), RoutingKey: []byte(t.RoutingKey)})
		b.bytes = amqp.AppendContentHeader(b.bytes, 1, uint64(len(o.Body)), encoded)
		b.body = append(b.body, len(b.bytes)+7) // behind the head of the body frame
		chunk := amqp.BodyChunk(o.FrameMax)
		for rest := o.Body; len(rest) > 0; {
			n := min(len(rest), chunk)
			b.bytes = amqp.AppendBodyFrame(b.bytes, 1, rest[:n])
			rest = rest[n:]
		}
		b.start = append(b.start, len(b.bytes))
	}
	return b
}

// Take returns the next n messages as bytes to write, n at most Most of the options. They
// are valid until the next call.
func (b *Batch) Take(n int) []byte {
	n = min(n, b.perCall)
	out := b.bytes[b.start[b.at]:b.start[b.at+n]]
	b.at = (b.at + n) % b.cycle
	return out
}

// Stamp writes v into the first eight bytes of the body of the i-th message that the next
// Take returns. The body has at least eight bytes.
func (b *Batch) Stamp(i int, v uint64) {
	binary.BigEndian.PutUint64(b.bytes[b.body[b.at+i]:], v)
}
