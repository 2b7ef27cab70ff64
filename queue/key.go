package queue

import (
	"crypto/sha256"
	"encoding/binary"
	"math"

	"github.com/settmq/settmq/amqp"
)

// DeduplicationHeader names the header whose value tells whether two messages are the same, as in the community's plugin
// rabbitmq_message_deduplication.
const DeduplicationHeader = "x-deduplication-header"

// Key is what deduplication knows a message by: a digest of the value in its header. It is the same after a restart.
// No two values that anybody could find have the same one. The zero Key is none.
type Key [16]byte

// KeyOf returns the key of a message with these encoded properties; false if it has none: then it is no duplicate of
// anything. With byMessageID a message without the header is known by its message-id.
//
// Values are compared as RabbitMQ's plugin does: integers of all widths by their value, strings and binaries by their
// bytes, and never one kind with another; a header without a value is one of its own. Arrays, tables and decimals are
// no keys.
func KeyOf(properties []byte, byMessageID bool) (Key, bool) {
	if v, ok := amqp.LookupHeader(amqp.HeadersOf(properties), DeduplicationHeader); ok {
		return keyOfValue(v)
	}
	if byMessageID && amqp.HasProperty(properties, amqp.PropMessageID) {
		var p amqp.Properties
		if amqp.ParseProperties(properties, &p) == nil {
			return digest('S', p.MessageID), true
		}
	}
	return Key{}, false
}

func keyOfValue(v amqp.Value) (Key, bool) {
	var b [8]byte
	kind := v.Kind()
	switch kind {
	case amqp.KindString, amqp.KindBinary:
		return digest('S', []byte(v.Text())), true
	case amqp.KindBool:
		if on, _ := v.Bool(); on {
			b[0] = 1
		}
		return digest('t', b[:1]), true
	case amqp.KindFloat, amqp.KindDouble:
		f, _ := v.Float()
		binary.BigEndian.PutUint64(b[:], math.Float64bits(f))
		return digest('d', b[:]), true
	case amqp.KindVoid:
		return digest('V', nil), true
	}
	n, ok := v.Int()
	if !ok {
		var seconds uint64
		if seconds, ok = v.Timestamp(); ok {
			n = int64(seconds)
		}
	}
	if !ok {
		return Key{}, false
	}
	binary.BigEndian.PutUint64(b[:], uint64(n))
	return digest('l', b[:]), true
}

func digest(kind byte, value []byte) (k Key) {
	var short [64]byte
	b := append(append(short[:0], kind), value...)
	sum := sha256.Sum256(b)
	copy(k[:], sum[:])
	k[0] |= 1 // never zero
	return k
}

// keptKeys is how many keys an empty map keeps room for.
const keptKeys = 4096

// present are the keys of the messages that are in a queue.
type present struct {
	seqs map[Key]uint64
	keys map[uint64]Key
	peak int // most keys since the maps were made
}

func newPresent() *present {
	return &present{seqs: make(map[Key]uint64), keys: make(map[uint64]Key)}
}

func (p *present) add(k Key, seq uint64) {
	p.seqs[k] = seq
	p.keys[seq] = k
	p.peak = max(p.peak, len(p.keys))
}

// remove forgets a message that leaves the queue. A nil receiver knows none.
func (p *present) remove(seq uint64) {
	if p == nil {
		return
	}
	k, ok := p.keys[seq]
	if !ok {
		return
	}
	delete(p.keys, seq)
	if p.seqs[k] == seq {
		delete(p.seqs, k)
	}
	if len(p.keys) == 0 && p.peak > keptKeys {
		*p = *newPresent() // maps keep the size that they had
	}
}

// removeRange forgets the messages in [from, to).
func (p *present) removeRange(from, to uint64) {
	if p == nil {
		return
	}
	if to-from < uint64(len(p.keys)) {
		for seq := from; seq < to; seq++ {
			p.remove(seq)
		}
		return
	}
	for seq := range p.keys {
		if from <= seq && seq < to {
			p.remove(seq)
		}
	}
}
