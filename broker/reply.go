package broker

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"sync"

	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/storage"
)

// ReplyTo is the name that a requester consumes direct replies from and puts in the
// reply-to property of its requests. No queue has it.
const ReplyTo = "amq.rabbitmq.reply-to"

// addressPrefix begins every reply address; what follows is the place of the requester and
// a secret, each in base64url.
const addressPrefix = ReplyTo + "."

const (
	placeBytes  = 10 // connection, channel
	secretBytes = 16
)

var (
	placeText  = base64.RawURLEncoding.EncodedLen(placeBytes)
	addressLen = len(addressPrefix) + placeText + 1 + base64.RawURLEncoding.EncodedLen(secretBytes)
)

// ReplySink takes the replies that are addressed to one channel.
type ReplySink interface {
	// Reply takes a reply, which nobody keeps, and adds the connection's writer to w. It
	// returns false if there is no room for it. It is called without locks, by the reader
	// of the replying connection, and must not block.
	Reply(m *storage.Message, w *queue.Wakes) bool
}

// ReplyConsumer is the consumer of direct replies that a channel may have. It has an
// address: a routing key of the default exchange that nobody can guess and that works
// until the consumer is removed, and never again.
type ReplyConsumer struct {
	vhost   *VHost
	place   replyPlace
	address string
	sink    ReplySink
}

// replyPlace finds a consumer by its address; the secret behind it is compared then.
type replyPlace [placeBytes]byte

// replies are the reply consumers of a vhost. They come and go with channels, so they are
// not part of the topology: routes are not recomputed for them.
type replies struct {
	mu sync.RWMutex // a leaf
	m  map[replyPlace]*ReplyConsumer
}

// AddReplyConsumer makes the reply consumer of a channel, which must not have one.
func (v *VHost) AddReplyConsumer(connection uint64, channel uint16, sink ReplySink) *ReplyConsumer {
	c := &ReplyConsumer{vhost: v, sink: sink}
	binary.BigEndian.PutUint64(c.place[:], connection)
	binary.BigEndian.PutUint16(c.place[8:], channel)
	var secret [secretBytes]byte
	_, _ = rand.Read(secret[:]) // never fails
	encode := base64.RawURLEncoding.EncodeToString
	c.address = addressPrefix + encode(c.place[:]) + "." + encode(secret[:])
	v.replies.mu.Lock()
	defer v.replies.mu.Unlock()
	if v.replies.m == nil {
		v.replies.m = make(map[replyPlace]*ReplyConsumer)
	}
	v.replies.m[c.place] = c
	return c
}

// Address is the routing key that replies are published with.
func (c *ReplyConsumer) Address() string { return c.address }

// Remove ends the consumer: replies to its address are dropped from now on.
func (c *ReplyConsumer) Remove() {
	r := &c.vhost.replies
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.m[c.place] == c {
		delete(r.m, c.place)
	}
}

// HasReplyAddress reports whether replies to this address find somebody.
func (v *VHost) HasReplyAddress(name string) bool {
	c, _ := v.replyConsumer([]byte(name))
	return c != nil
}

// IsReplyAddress reports whether a name is of the kind that reply addresses are; such names
// cannot be bound.
func IsReplyAddress(name string) bool { return strings.HasPrefix(name, addressPrefix) }

// replyConsumer finds the consumer behind a routing key. wellFormed tells whether the key is
// a reply address at all; if so and c is nil, its consumer is gone.
func (v *VHost) replyConsumer(key []byte) (c *ReplyConsumer, wellFormed bool) {
	if len(key) != addressLen || string(key[:len(addressPrefix)]) != addressPrefix {
		return nil, false
	}
	var place replyPlace
	rest := key[len(addressPrefix):]
	if _, err := base64.RawURLEncoding.Decode(place[:], rest[:placeText]); err != nil || rest[placeText] != '.' {
		return nil, false
	}
	v.replies.mu.RLock()
	c = v.replies.m[place]
	v.replies.mu.RUnlock()
	if c != nil && subtle.ConstantTimeCompare([]byte(c.address), key) == 1 {
		return c, true
	}
	var secret [secretBytes]byte
	_, err := base64.RawURLEncoding.Decode(secret[:], rest[placeText+1:])
	return nil, err == nil
}

// reply hands a reply over, or drops it.
func (c *ReplyConsumer) reply(m *storage.Message, w *queue.Wakes) {
	if !c.sink.Reply(m, w) {
		c.vhost.broker.repliesDropped.Add(1)
	}
}

// RepliesDropped is the number of direct replies that found no room at a requester which
// does not read them.
func (b *Broker) RepliesDropped() uint64 { return b.repliesDropped.Load() }
