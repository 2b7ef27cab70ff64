package server

import (
	"strings"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/broker"
	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/storage"
)

// Direct reply-to, RabbitMQ's way to answer a request without a queue: the requester consumes
// from a name that no queue has and gets an address for its requests; what is published to that
// address goes straight into the outbox of its connection.

// replyConsumer is a channel's consumer of direct replies. It is their broker.ReplySink.
type replyConsumer struct {
	*broker.ReplyConsumer
	ch    *channel
	tag   string
	ended bool // guarded by ch.mu, like all below
	full  bool // the last reply was dropped
}

// replyRoom is how many outboxes' worth of bytes may wait for a requester that does not read
// them: deliveries from queues stop at one, so that they leave room for replies.
const replyRoom = 2

// Reply implements broker.ReplySink.
func (r *replyConsumer) Reply(m *storage.Message, w *queue.Wakes) bool {
	ch := r.ch
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if r.ended {
		return true // it was on its way when the address ended
	}
	if ch.conn.out.size.Load() >= replyRoom*ch.conn.out.limit {
		if !r.full {
			ch.conn.log.Warn().Uint16("channel", ch.id).Msg("the client does not read its direct replies, dropping them")
		}
		r.full = true
		return false
	}
	r.full = false
	ch.nextTag++
	d := queue.Delivery{Message: m, NoAck: true}
	ch.stats.Delivered(&d, false)
	ch.conn.out.deliver(ch, r.tag, ch.nextTag, &d, w)
	if v := ch.conn.vhost; v.Tracing() {
		v.TraceDelivery(ch.tap(), r.Address(), &d, w)
	}
	return true
}

// consumeReplies is basic.consume on amq.rabbitmq.reply-to.
func (ch *channel) consumeReplies(m *amqp.BasicConsume) *amqp.Error {
	tag := m.ConsumerTag
	if err := ch.checkTag(tag); err != nil {
		return err
	}
	switch {
	case !m.NoAck:
		return amqp.PreconditionFailed("reply consumer cannot acknowledge")
	case ch.replies != nil:
		return amqp.PreconditionFailed("reply consumer already set")
	}
	if tag == "" {
		tag = broker.ConsumerTag()
	}
	r := &replyConsumer{ch: ch, tag: tag}
	r.ReplyConsumer = ch.conn.vhost.AddReplyConsumer(ch.conn.id, ch.id, r)
	ch.replies = r
	return ch.answer(nil, m.NoWait, &amqp.BasicConsumeOk{ConsumerTag: tag})
}

// endReplies ends the channel's reply consumer, if it has one.
func (ch *channel) endReplies() {
	r := ch.replies
	if r == nil {
		return
	}
	ch.replies = nil
	r.Remove()
	ch.mu.Lock()
	r.ended = true
	ch.mu.Unlock()
}

// asksForReply reports whether a request wants the address of its channel filled in.
func asksForReply(p *amqp.Properties) bool {
	return p.Has(amqp.PropReplyTo) && string(p.ReplyTo) == broker.ReplyTo
}

// checkReplyTo refuses a request on a channel that could not get the reply.
func (ch *channel) checkReplyTo(c *content) *amqp.Error {
	if ch.replies == nil && asksForReply(&c.properties) {
		return amqp.PreconditionFailed("fast reply consumer does not exist")
	}
	return nil
}

// declareReplyTo is queue.declare, passive or not, of the pseudo-queue or of a reply address:
// for the latter it tells whether the requester is still there.
func (ch *channel) declareReplyTo(m *amqp.QueueDeclare) *amqp.Error {
	v := ch.conn.vhost
	name := strings.NewReplacer("\r", "", "\n", "").Replace(m.Queue)
	if name != broker.ReplyTo && !v.HasReplyAddress(name) {
		return amqp.NotFound("no queue '%s' in vhost '%s'", name, v.Name())
	}
	ch.lastQueue = name
	return ch.answer(nil, m.NoWait, &amqp.QueueDeclareOk{Queue: name, ConsumerCount: 1})
}

// consumeAddress is the refusal to consume from a reply address; nil if name is none.
func (ch *channel) consumeAddress(name string) *amqp.Error {
	v := ch.conn.vhost
	switch {
	case !broker.IsReplyAddress(name) || !v.HasReplyAddress(name):
		return nil
	case ch.replies != nil && ch.replies.Address() == name:
		return amqp.PreconditionFailed("multiple consumers are unsupported for queue '%s' in vhost '%s'", name, v.Name())
	}
	return amqp.PreconditionFailed("only creator channel may consume from queue '%s' in vhost '%s'", name, v.Name())
}

// getAddress is the refusal to get from a reply address; nil if name is none.
func (ch *channel) getAddress(name string) *amqp.Error {
	v := ch.conn.vhost
	if !broker.IsReplyAddress(name) || !v.HasReplyAddress(name) {
		return nil
	}
	return amqp.NotImplemented("basic.get not supported by volatile queue '%s' in vhost '%s'", name, v.Name())
}
