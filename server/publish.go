package server

import (
	"errors"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/auth"
	"github.com/settmq/settmq/broker"
	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/storage"
)

const (
	// hardMaxMessageSize is what no setting can exceed (RabbitMQ's cap).
	hardMaxMessageSize = 512 << 20
	// trustedSize is how much is allocated on a peer's word; larger bodies grow with what
	// has arrived, by growth at a time.
	trustedSize = 128 << 10
	growth      = 4
)

// content assembles basic.publish: the method, a header frame, body frames. Properties and
// body are copied once, into the array that the message keeps.
type content struct {
	state          contentState
	mandatory      bool
	tooLarge       bool // the body is thrown away; the error comes at its end
	exchange       []byte
	routingKey     []byte
	data           []byte // properties, then body
	propertiesSize int
	bodySize       uint64
	received       uint64
	properties     amqp.Properties // aliases data
	encoded        []byte          // the properties if they were changed; else nil
}

type contentState uint8

const (
	noContent contentState = iota
	wantHeader
	wantBody
)

// drop forgets what was assembled.
func (c *content) drop() {
	c.state, c.data, c.encoded, c.properties = noContent, nil, nil, amqp.Properties{}
}

// publish takes the basic.publish method.
func (ch *channel) publish(m *amqp.BasicPublish) {
	c := &ch.content
	c.state = wantHeader
	c.mandatory, c.tooLarge = m.Mandatory, false
	c.exchange = append(c.exchange[:0], m.Exchange...)
	c.routingKey = append(c.routingKey[:0], m.RoutingKey...)
}

// header takes a content header frame.
func (ch *channel) header(payload []byte) *amqp.Error {
	c := &ch.content
	if c.state != wantHeader {
		return ch.misplaced(false)
	}
	class, weight, size, properties, err := amqp.ParseContentHeader(payload)
	switch {
	case err != nil:
		return protocolError(err)
	case class != amqp.BasicPublishID.Class():
		return amqp.UnexpectedFrame("expected content header for class 60, got one for class %d instead", class).For(amqp.BasicPublishID)
	case weight != 0:
		return amqp.UnexpectedFrame("expected content header for class 60, got non content header frame instead").For(amqp.BasicPublishID)
	case size > hardMaxMessageSize:
		return amqp.FrameError("content body size %d exceeds maximum allowed size %d", size, hardMaxMessageSize).For(amqp.BasicPublishID)
	}
	c.bodySize, c.received = size, 0
	c.tooLarge = size > uint64(ch.conn.srv.o.MaxMessageSize) || ch.closing // not kept
	room := size
	if c.tooLarge {
		room = 0
	}
	c.data = make([]byte, len(properties), len(properties)+int(min(room, trustedSize)))
	copy(c.data, properties)
	c.propertiesSize = len(properties)
	if err := amqp.ParseProperties(c.data, &c.properties); err != nil {
		return protocolError(err).For(amqp.BasicPublishID)
	}
	if size == 0 {
		return ch.published()
	}
	c.state = wantBody
	return nil
}

// body takes a content body frame.
func (ch *channel) body(payload []byte) *amqp.Error {
	c := &ch.content
	if c.state != wantBody {
		return ch.misplaced(false)
	}
	c.received += uint64(len(payload))
	if c.received > c.bodySize {
		return amqp.FrameError("content body frame exceeds remaining content size").For(amqp.BasicPublishID)
	}
	if !c.tooLarge {
		c.add(payload)
	}
	if c.received < c.bodySize {
		return nil
	}
	return ch.published()
}

// add appends to the body. append alone would copy a large one over and over.
func (c *content) add(payload []byte) {
	if need := len(c.data) + len(payload); need > cap(c.data) {
		whole := c.propertiesSize + int(c.bodySize)
		grown := make([]byte, len(c.data), min(max(growth*cap(c.data), need), whole))
		copy(grown, c.data)
		c.data = grown
	}
	c.data = append(c.data, payload...)
}

// misplaced is the error for a frame whose turn it is not on this channel.
func (ch *channel) misplaced(method bool) *amqp.Error {
	switch ch.content.state {
	case wantHeader:
		return amqp.UnexpectedFrame("expected content header for class 60, got non content header frame instead").For(amqp.BasicPublishID)
	case wantBody:
		return amqp.UnexpectedFrame("expected content body, got non content body frame instead").For(amqp.BasicPublishID)
	}
	if method {
		return nil
	}
	return amqp.UnexpectedFrame("expected method frame, got non method frame instead")
}

// published carries out a complete publish: checks in RabbitMQ's order, route, return,
// queues, confirm.
func (ch *channel) published() *amqp.Error {
	if ch.closing {
		ch.content.drop()
		return nil
	}
	if ch.conn.mustHold() {
		ch.conn.hold(ch)
		return nil
	}
	err := ch.checkedPublish(&ch.content)
	ch.content.drop()
	if err != nil {
		return err.For(amqp.BasicPublishID)
	}
	return nil
}

func (ch *channel) checkedPublish(c *content) *amqp.Error {
	conn := ch.conn
	if c.tooLarge {
		limit, what := conn.srv.o.MaxMessageSize, "configured max size"
		if limit == hardMaxMessageSize {
			what = "max size"
		}
		return amqp.PreconditionFailed("message size %d is larger than %s %d", c.bodySize, what, limit)
	}
	if !ch.lastWrite.mayWrite(conn.session, c.exchange) {
		if err := ch.mayPublish(c); err != nil {
			return err
		}
	}
	if conn.srv.o.Broker.Intercept(&c.properties) {
		c.encoded = c.properties.Append(nil)
	}
	rt, err := ch.router.Route(c.exchange, c.routingKey, &c.properties)
	if err == nil || err.Code == amqp.ReplyPreconditionFailed { // of several faults CC is named last
		if err := ch.checkReplyTo(c); err != nil {
			return err
		}
		if err := broker.CheckExpiration(&c.properties); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	if err := rt.CheckSender(conn.session, &c.properties); err != nil {
		return err
	}
	m := &storage.Message{
		Exchange: rt.Exchange, RoutingKey: rt.RoutingKey, Properties: ch.outgoingProperties(c), Body: c.data[c.propertiesSize:],
		Transient: !c.properties.Has(amqp.PropDeliveryMode) || c.properties.DeliveryMode != 2,
	}
	if c.properties.Has(amqp.PropHeaders) {
		_, m.Blind = amqp.LookupHeader(c.properties.Headers, queue.BlindHeader)
	}
	if conn.vhost.Tracing() {
		conn.vhost.TracePublish(ch.tap(), m, rt)
	}
	if ch.tx != nil {
		ch.uncommitted.Add(1)
		return ch.tx.publish(m, rt, c.mandatory)
	}
	return ch.route(m, rt, c.mandatory)
}

// tap names the channel for the firehose.
func (ch *channel) tap() broker.Tap {
	return broker.Tap{Connection: ch.conn.name(), Channel: ch.id, User: ch.conn.user.Name}
}

// route puts a message in its queues and sees to return and confirm.
func (ch *channel) route(m *storage.Message, rt *broker.Route, mandatory bool) *amqp.Error {
	conn := ch.conn
	if conn.acks.queue != nil && rt.Reaches(conn.acks.queue) {
		conn.flushAcks() // what was acked makes room, or frees its key
	}
	rt.Count(mandatory, len(m.Body))
	if mandatory && rt.Unroutable() {
		ch.returnMessage(m)
	}
	var seq uint64
	if ch.confirm {
		seq = ch.nextPublish()
	}
	if rt.Stores(m) {
		if ch.confirm {
			m.ConfirmSeq, m.Confirm = seq, ch
		}
		if err := conn.reserve(len(m.Properties) + len(m.Body)); err != nil {
			if ch.confirm && !errors.Is(err, storage.ErrClosed) {
				ch.settleHere(seq, false)
				return nil
			}
			return notStored(err)
		}
		conn.wakes.Share()
		if !rt.Publish(m, &conn.wakes) && ch.confirm { // else confirmed by the store
			ch.settleHere(seq, false)
		}
		return nil
	}
	accepted := rt.Publish(m, &conn.wakes)
	if ch.confirm {
		ch.settleHere(seq, accepted)
	}
	return nil
}

// notStored is the error for what the store did not take. While the broker stops, that is
// no fault.
func notStored(err error) *amqp.Error {
	if errors.Is(err, storage.ErrClosed) {
		return shutdownError()
	}
	return amqp.InternalError("the message could not be stored: %v", err)
}

func (ch *channel) nextPublish() uint64 {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch.confirms.next()
}

func (ch *channel) returnMessage(m *storage.Message) {
	ch.conn.out.content(ch, &amqp.BasicReturn{
		ReplyCode: amqp.ReplyNoRoute, ReplyText: amqp.ReplyName(amqp.ReplyNoRoute), Exchange: m.Exchange, RoutingKey: m.RoutingKey,
	}, queue.Visible(m), m.Body, &ch.conn.wakes)
}

// lastWritten remembers the exchange that the last publish was allowed to, which spares a
// busy publisher the session's table.
type lastWritten struct {
	exchange string
	epoch    uint64
	valid    bool
}

func (l *lastWritten) mayWrite(s *broker.Session, exchange []byte) bool {
	return l.valid && l.epoch == s.Epoch() && l.exchange == string(exchange)
}

func (ch *channel) mayPublish(c *content) *amqp.Error {
	s := ch.conn.session
	epoch := s.Epoch() // before the decision, so that a change in between is seen
	name := string(c.exchange)
	if err := s.Can(auth.Write, broker.ExchangeResource, name); err != nil {
		return err
	}
	ch.lastWrite = lastWritten{exchange: name, epoch: epoch, valid: true}
	return nil
}

// outgoingProperties are the encoded properties of the message: they have the requester's real address.
func (ch *channel) outgoingProperties(c *content) []byte {
	properties := c.encoded
	if properties == nil {
		properties = c.data[:c.propertiesSize:c.propertiesSize]
	}
	if asksForReply(&c.properties) {
		properties = amqp.WithReplyTo(properties, ch.replies.Address())
	}
	return properties
}
