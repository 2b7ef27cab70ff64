package server

import (
	"github.com/settmq/settmq/amqp"
)

// handleFrame carries out one frame. Errors close the channel or the connection here and
// nowhere else.
func (c *conn) handleFrame(f amqp.Frame) {
	switch {
	case c.state == closing:
		c.closingFrame(f)
		return
	case c.state < running:
		c.handshakeFrame(f)
		return
	case f.Channel == 0:
		c.connectionFrame(f)
		return
	}
	ch := c.lastChannel
	if ch == nil || ch.id != f.Channel {
		ch = c.channels[f.Channel]
		if ch == nil {
			c.unopenedFrame(f)
			return
		}
		c.lastChannel = ch
	}
	var err *amqp.Error
	switch f.Type {
	case amqp.FrameMethod:
		err = ch.method(f.Payload)
	case amqp.FrameHeader:
		err = ch.header(f.Payload)
	case amqp.FrameBody:
		err = ch.body(f.Payload)
	}
	if err != nil {
		c.failed(ch, err)
	}
}

// failed closes what an error on a channel closes.
func (c *conn) failed(ch *channel, err *amqp.Error) {
	c.flushAcks()
	if err.Connection() {
		c.fail(err)
	} else {
		ch.fail(err)
	}
}

// handshakeFrame: only methods on channel 0, and heartbeats, which clients may send early.
func (c *conn) handshakeFrame(f amqp.Frame) {
	if f.Type == amqp.FrameHeartbeat {
		return
	}
	if f.Channel != 0 || f.Type != amqp.FrameMethod {
		if c.state == wantOpen {
			c.fail(amqp.UnexpectedFrame("expected connection.open"))
		} else {
			c.drop("frame on a channel during the handshake")
		}
		return
	}
	m, err := amqp.ParseMethod(f.Payload)
	if err != nil {
		if c.state == wantOpen {
			c.fail(protocolError(err))
		} else {
			c.drop(protocolError(err).Text)
		}
		return
	}
	c.handshakeMethod(m)
}

// connectionFrame handles channel 0 of a running connection.
func (c *conn) connectionFrame(f amqp.Frame) {
	if f.Type != amqp.FrameMethod {
		return // a heartbeat: all others the parser refuses
	}
	m, err := amqp.ParseMethod(f.Payload)
	if err != nil {
		c.fail(protocolError(err))
		return
	}
	switch m := m.(type) {
	case *amqp.ConnectionClose:
		c.closedByClient(m)
	case *amqp.ConnectionUpdateSecret:
		// The secret of an internal user does not expire: there is nothing to renew. What
		// the user may do is looked up anew after every change anyway.
		c.cancelUnreadable()
		c.out.method(0, &amqp.ConnectionUpdateSecretOk{}, &c.wakes)
	default:
		c.fail(amqp.ChannelError("unexpected method in connection state running").For(m.ID()))
	}
}

// closedByClient answers connection.close: everything is given back before the answer.
func (c *conn) closedByClient(m *amqp.ConnectionClose) {
	c.reason = "client closed the connection"
	if m.ReplyCode != amqp.ReplySuccess {
		c.log.Warn().Uint16("code", m.ReplyCode).Str("text", m.ReplyText).Msg("client closed the connection with an error")
	}
	c.release()
	c.awaitClose(c.closeWait())
	c.out.method(0, &amqp.ConnectionCloseOk{}, &c.wakes)
}

// closingFrame: after connection.close was sent only the close handshake is heard.
func (c *conn) closingFrame(f amqp.Frame) {
	id, _ := amqp.PeekMethodID(f.Payload)
	if f.Channel != 0 || f.Type != amqp.FrameMethod {
		return
	}
	switch id {
	case amqp.ConnectionCloseID:
		c.out.method(0, &amqp.ConnectionCloseOk{}, &c.wakes)
	case amqp.ConnectionCloseOkID:
		c.state = gone
	}
}

// unopenedFrame is a frame on a channel that is not open: channel.open, or a mistake.
func (c *conn) unopenedFrame(f amqp.Frame) {
	if f.Type != amqp.FrameMethod {
		c.fail(amqp.UnexpectedFrame("expected method frame, got non method frame instead"))
		return
	}
	m, err := amqp.ParseMethod(f.Payload)
	if err != nil {
		c.fail(protocolError(err))
		return
	}
	if _, ok := m.(*amqp.ChannelOpen); !ok {
		c.fail(amqp.ChannelError("expected 'channel.open'").For(m.ID()))
		return
	}
	if len(c.channels) >= int(c.channelMax) {
		c.fail(amqp.NotAllowed("number of channels opened (%d) has reached the negotiated channel_max (%d)", len(c.channels), c.channelMax))
		return
	}
	if err := c.session.OpenChannel(); err != nil {
		c.fail(err.For(m.ID()))
		return
	}
	ch := newChannel(c, f.Channel)
	c.mu.Lock()
	c.channels[f.Channel] = ch
	c.mu.Unlock()
	c.openChannels.Add(1)
	c.srv.o.Broker.ChannelOpened()
	ch.openedEvent()
	ch.reply(&amqp.ChannelOpenOk{})
}

// closingMethod handles a method after channel.close was sent on the channel. Content is
// still taken apart, so that publishes which crossed the close are ignored whole.
func (ch *channel) closingMethod(payload []byte) *amqp.Error {
	id, _ := amqp.PeekMethodID(payload)
	switch id {
	case amqp.ChannelOpenID:
		return amqp.ChannelError("second 'channel.open' seen").For(id)
	case amqp.ChannelCloseID:
		ch.reply(&amqp.ChannelCloseOk{})
	case amqp.ChannelCloseOkID:
		ch.conn.forget(ch)
	case amqp.BasicPublishID:
		return ch.decodePublish(payload[4:])
	}
	return nil
}

func (c *conn) forget(ch *channel) {
	c.mu.Lock()
	delete(c.channels, ch.id)
	c.mu.Unlock()
	c.session.CloseChannels(1)
	if c.lastChannel == ch {
		c.lastChannel = nil
	}
}

// method carries out a method on an open channel; the frequent ones without allocating.
func (ch *channel) method(payload []byte) *amqp.Error {
	id, ok := amqp.PeekMethodID(payload)
	if ch.content.state != noContent {
		return ch.misplaced(true)
	}
	if ch.closing {
		return ch.closingMethod(payload)
	}
	if ok {
		switch id {
		case amqp.BasicPublishID:
			return ch.decodePublish(payload[4:])
		case amqp.BasicAckID:
			return ch.decodeAck(payload[4:])
		}
	}
	ch.conn.flushAcks()
	m, err := amqp.ParseMethod(payload)
	if err != nil {
		return protocolError(err)
	}
	if len(ch.conn.held) > 0 && !settles(id) {
		// Nothing overtakes a publish but the settling of deliveries.
		ch.conn.awaitAlarm()
		if ch.conn.releaseHeld(); ch.closing || ch.conn.state != running {
			return nil
		}
	}
	if refused := ch.handle(m); refused != nil {
		return refused.For(id)
	}
	return nil
}

// settles reports whether a method only settles deliveries.
func settles(id amqp.MethodID) bool {
	return id == amqp.BasicAckID || id == amqp.BasicNackID || id == amqp.BasicRejectID
}

func (ch *channel) decodePublish(args []byte) *amqp.Error {
	m := &ch.conn.scratch.publish
	if err := m.Decode(args); err != nil {
		return protocolError(err)
	}
	if m.Immediate && !ch.closing {
		return amqp.NotImplemented("immediate=true").For(amqp.BasicPublishID)
	}
	ch.publish(m)
	return nil
}

func (ch *channel) decodeAck(args []byte) *amqp.Error {
	m := &ch.conn.scratch.ack
	if err := m.Decode(args); err != nil {
		return protocolError(err)
	}
	if err := ch.ack(m.DeliveryTag, m.Multiple); err != nil {
		return err.For(amqp.BasicAckID)
	}
	return nil
}

// handle carries out the methods that are not decoded in place.
func (ch *channel) handle(m amqp.Method) *amqp.Error {
	switch m := m.(type) {
	case *amqp.ChannelOpen:
		return amqp.ChannelError("second 'channel.open' seen")
	case *amqp.ChannelClose:
		ch.sendConfirms()
		ch.release()
		ch.conn.forget(ch)
		ch.reply(&amqp.ChannelCloseOk{})
		return nil
	case *amqp.ChannelFlow:
		if !m.Active {
			return amqp.NotImplemented("active=false")
		}
		ch.reply(&amqp.ChannelFlowOk{Active: true})
		return nil
	case *amqp.AccessRequest:
		ch.reply(&amqp.AccessRequestOk{Ticket: 1})
		return nil
	case *amqp.ExchangeDeclare:
		return ch.exchangeDeclare(m)
	case *amqp.ExchangeDelete:
		return ch.exchangeDelete(m)
	case *amqp.ExchangeBind:
		return ch.exchangeBind(m)
	case *amqp.ExchangeUnbind:
		return ch.exchangeUnbind(m)
	case *amqp.QueueDeclare:
		return ch.queueDeclare(m)
	case *amqp.QueueBind:
		return ch.queueBind(m)
	case *amqp.QueueUnbind:
		return ch.queueUnbind(m)
	case *amqp.QueuePurge:
		return ch.queuePurge(m)
	case *amqp.QueueDelete:
		return ch.queueDelete(m)
	case *amqp.BasicQos:
		return ch.qos(m)
	case *amqp.BasicConsume:
		return ch.consume(m)
	case *amqp.BasicCancel:
		return ch.cancel(m)
	case *amqp.BasicCancelOk:
		return nil // the answer to our own cancel
	case *amqp.BasicGet:
		return ch.get(m)
	case *amqp.BasicReject:
		return ch.nack(m.DeliveryTag, false, m.Requeue, true)
	case *amqp.BasicNack:
		return ch.nack(m.DeliveryTag, m.Multiple, m.Requeue, false)
	case *amqp.BasicRecover:
		if err := ch.recoverDeliveries(m.Requeue); err != nil {
			return err
		}
		ch.reply(&amqp.BasicRecoverOk{})
		return nil
	case *amqp.BasicRecoverAsync:
		return ch.recoverDeliveries(m.Requeue)
	case *amqp.ConfirmSelect:
		return ch.confirmSelect(m)
	case *amqp.TxSelect:
		return ch.txSelect()
	case *amqp.TxCommit:
		return ch.txCommit()
	case *amqp.TxRollback:
		return ch.txRollback()
	}
	return amqp.CommandInvalid("unimplemented method")
}
