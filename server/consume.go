package server

import (
	"errors"
	"math"
	"strconv"
	"time"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/auth"
	"github.com/settmq/settmq/broker"
	"github.com/settmq/settmq/queue"
)

// consume starts a consumer; consume-ok precedes its first delivery.
func (ch *channel) consume(m *amqp.BasicConsume) *amqp.Error {
	name, refused := ch.queueName(m.Queue)
	if refused != nil {
		return refused
	}
	if name == broker.ReplyTo {
		return ch.consumeReplies(m)
	}
	if refused := ch.consumeAddress(name); refused != nil {
		return refused
	}
	q, refused := ch.conn.vhost.UseQueue(ch.conn.session, name)
	if refused != nil {
		return refused
	}
	tag := m.ConsumerTag
	if tag == "" {
		tag = broker.ConsumerTag()
	}
	c := &queue.Consumer{
		ID: ch.conn.srv.o.Broker.NextConsumerID(), Tag: tag, Sink: ch,
		Prefetch: ch.prefetch, NoAck: m.NoAck, Exclusive: m.Exclusive, Arguments: m.Arguments,
	}
	if refused = ch.conn.vhost.CheckConsumerArguments(q, m.Arguments); refused != nil {
		return refused
	}
	if broker.TypeOf(q) == broker.QuorumQueue {
		c.Exclusive = false // as in RabbitMQ, where quorum queues do not look at it
	}
	if broker.TypeOf(q) == broker.StreamQueue && c.Prefetch == 0 && ch.hasLimit() {
		c.Prefetch = math.MaxUint32 // the channel's own limit is one too
	}
	if c.Priority, refused = consumerPriority(name, ch.conn.vhost.Name(), m.Arguments); refused != nil {
		return refused
	}
	if c.Timeout, refused = consumerTimeout(name, ch.conn.vhost.Name(), m.Arguments); refused != nil {
		return refused
	}
	if refused = ch.checkTag(tag); refused != nil {
		return refused
	}
	err := q.Subscribe(c, func() {
		ch.mu.Lock()
		ch.consumers[tag] = c
		ch.mu.Unlock()
		if !m.NoWait {
			ch.reply(&amqp.BasicConsumeOk{ConsumerTag: tag})
		}
	}, &ch.conn.wakes)
	if err != nil {
		return ch.queueError(err, name)
	}
	ch.consumerEvent("consumer.created", c, flag("ack_required", !c.NoAck), flag("exclusive", c.Exclusive),
		number("prefetch_count", int64(c.Prefetch)), broker.EventTable("arguments", c.Arguments))
	return nil
}

// hasLimit reports whether a prefetch holds for the whole channel.
func (ch *channel) hasLimit() bool {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch.channelLimit > 0
}

// checkTag refuses a tag that a consumer of the channel has, and one consumer too many.
func (ch *channel) checkTag(tag string) *amqp.Error {
	ch.mu.Lock()
	_, used := ch.consumers[tag]
	n := len(ch.consumers)
	ch.mu.Unlock()
	switch limit := ch.conn.srv.o.MaxConsumersPerChannel; {
	case used || ch.replies != nil && ch.replies.tag == tag:
		return amqp.NotAllowed("attempt to reuse consumer tag '%s'", tag)
	case n >= limit:
		return amqp.NotAllowed("reached maximum (%d) of consumers per channel", limit)
	}
	return nil
}

// queueError words what a queue refused.
func (ch *channel) queueError(err error, name string) *amqp.Error {
	vhost := ch.conn.vhost.Name()
	var refused *amqp.Error
	switch {
	case errors.As(err, &refused):
		return refused
	case errors.Is(err, queue.ErrExclusive):
		return amqp.AccessRefused("queue '%s' in vhost '%s' in exclusive use", name, vhost)
	case errors.Is(err, queue.ErrDeleted):
		return amqp.NotFound("no queue '%s' in vhost '%s'", name, vhost)
	case errors.Is(err, queue.ErrStopped):
		return amqp.ConnectionForced("connection is closing")
	}
	return amqp.InternalError("queue '%s' in vhost '%s' cannot read its messages", name, vhost)
}

func consumerPriority(queueName, vhost string, args amqp.Table) (int32, *amqp.Error) {
	v, ok := args.Get("x-priority")
	if !ok {
		return 0, nil
	}
	n, ok := v.Int()
	if !ok {
		return 0, amqp.PreconditionFailed("invalid arg 'x-priority' for queue '%s' in vhost '%s': \"expected integer, got %s\"", queueName, vhost, v.TypeName())
	}
	return int32(max(min(n, 1<<31-1), -1<<31)), nil
}

// consumerTimeout is the consumer's own limit for how long it may hold a delivery.
func consumerTimeout(queueName, vhost string, args amqp.Table) (t queue.Optional[time.Duration], _ *amqp.Error) {
	v, ok := args.Get("x-consumer-timeout")
	if !ok {
		return t, nil
	}
	n, ok := v.Int()
	why := ""
	switch {
	case !ok:
		why = "\"expected integer, got " + v.TypeName() + "\""
	case n < 0:
		why = "{value_negative," + strconv.FormatInt(n, 10) + "}"
	default:
		return queue.Some(time.Duration(min(n, broker.MaxMillis)) * time.Millisecond), nil
	}
	return t, amqp.PreconditionFailed("invalid arg 'x-consumer-timeout' for queue '%s' in vhost '%s': %s", queueName, vhost, why)
}

// cancel ends a consumer; an unknown tag is no error. What it holds stays outstanding.
func (ch *channel) cancel(m *amqp.BasicCancel) *amqp.Error {
	if ch.replies != nil && ch.replies.tag == m.ConsumerTag {
		ch.endReplies()
	}
	ch.mu.Lock()
	c := ch.consumers[m.ConsumerTag]
	delete(ch.consumers, m.ConsumerTag)
	ch.mu.Unlock()
	if c != nil {
		c.Queue.Unsubscribe(c.ID, &ch.conn.wakes)
		ch.consumerEvent("consumer.deleted", c)
	}
	if !m.NoWait {
		ch.reply(&amqp.BasicCancelOk{ConsumerTag: m.ConsumerTag})
	}
	return nil
}

// get fetches one message.
func (ch *channel) get(m *amqp.BasicGet) *amqp.Error {
	if refused := ch.getAddress(m.Queue); refused != nil {
		return refused
	}
	q, refused := ch.queueToRead(m.Queue)
	if refused != nil {
		return refused
	}
	if refused = ch.conn.vhost.CheckGet(q); refused != nil {
		return refused
	}
	ch.conn.wakes.Flush() // Get may wait for the disk
	d, left, ok, err := q.Get(m.NoAck, ch.conn.stop)
	if err != nil {
		return ch.queueError(err, q.About().Name)
	}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if !ok {
		ch.stats.GetEmpty++
		ch.reply(&amqp.BasicGetEmpty{})
		return nil
	}
	ch.stats.Delivered(&d, true)
	ch.nextTag++
	if !d.NoAck {
		ch.unacked.push(outstanding{tag: ch.nextTag, seq: d.Seq, queue: q})
	}
	ch.conn.out.content(ch, &amqp.BasicGetOk{
		DeliveryTag: ch.nextTag, Redelivered: d.Redelivered, Exchange: d.Message.Exchange, RoutingKey: d.Message.RoutingKey, MessageCount: uint32(left),
	}, queue.Visible(d.Message), d.Message.Body, &ch.conn.wakes)
	if v := ch.conn.vhost; v.Tracing() {
		v.TraceDelivery(ch.tap(), q.About().Name, &d, &ch.conn.wakes)
	}
	return nil
}

// qos sets a prefetch: of the consumers to come, or of the whole channel at once.
func (ch *channel) qos(m *amqp.BasicQos) *amqp.Error {
	if m.PrefetchSize != 0 {
		return amqp.NotImplemented("prefetch_size!=0 (%d)", m.PrefetchSize)
	}
	limit := 0 // a limit for each consumer takes the channel's away
	if m.Global {
		limit = int(m.PrefetchCount)
	}
	ch.mu.Lock()
	if !m.Global {
		ch.prefetch = uint32(m.PrefetchCount)
	}
	ch.channelLimit = limit
	ch.mu.Unlock()
	ch.reply(&amqp.BasicQosOk{}) // before the deliveries that it makes possible
	ch.unparkAll()
	return nil
}

// cancelUnreadable ends the consumers whose user may not read their queue any more.
func (c *conn) cancelUnreadable() {
	for _, ch := range c.channels {
		var lost []*queue.Consumer
		ch.mu.Lock()
		for tag, k := range ch.consumers {
			if c.session.Can(auth.Read, broker.QueueResource, k.Queue.About().Name) != nil {
				lost = append(lost, k)
				delete(ch.consumers, tag)
			}
		}
		ch.mu.Unlock()
		for _, k := range lost {
			k.Queue.Unsubscribe(k.ID, &c.wakes)
			ch.consumerEvent("consumer.deleted", k)
			if c.client.cancelNotify {
				ch.reply(&amqp.BasicCancel{ConsumerTag: k.Tag, NoWait: true})
			}
		}
	}
}
