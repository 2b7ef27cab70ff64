package wire

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/settmq/settmq/amqp"
)

// Kind says what an Event is.
type Kind uint8

// What Next can find. Heartbeats are skipped, and a close by the broker is an error.
const (
	None      Kind = iota
	Delivery       // a whole message; Tag, Redelivered, Size and Stamp are set
	Ack            // a confirm; Tag and Multiple are set
	Nack           // a negative confirm; Tag and Multiple are set
	Return         // a returned message
	Blocked        // connection.blocked
	Unblocked      // connection.unblocked
	Other          // any other method, in Method
)

// Event is something the broker sent.
type Event struct {
	Kind        Kind
	Redelivered bool
	Multiple    bool
	Tag         uint64
	Size        uint64      // of the body
	Stamp       uint64      // the first eight bytes of the body, 0 if it is shorter
	Method      amqp.Method // of Other
}

func (e *Event) describe() string {
	if e.Kind == Other {
		return e.Method.ID().String()
	}
	return [...]string{"nothing", "a delivery", "an ack", "a nack", "a return", "connection.blocked", "connection.unblocked", ""}[e.Kind]
}

// Next takes the next event out of the read buffer. It returns false when there is no whole
// one: call Fill. If the broker closed the channel or the connection, the error is an
// *amqp.Error with its code and text.
func (c *Conn) Next(e *Event) (bool, error) {
	for {
		f, n, err := amqp.ParseFrame(c.buf[c.head:c.tail], c.maxPayload())
		if err != nil {
			return false, err
		}
		if n == 0 {
			return false, nil
		}
		c.head += n
		switch f.Type {
		case amqp.FrameMethod:
			ok, err := c.method(f.Payload, e)
			if ok || err != nil {
				return ok, err
			}
		case amqp.FrameHeader:
			_, _, size, _, err := amqp.ParseContentHeader(f.Payload)
			if err != nil {
				return false, err
			}
			c.body, c.delivery.Size = size, size
			if size == 0 {
				*e = c.delivery
				return true, nil
			}
		case amqp.FrameBody:
			if uint64(len(f.Payload)) > c.body {
				return false, fmt.Errorf("wire: %d bytes of body, %d expected", len(f.Payload), c.body)
			}
			if c.body == c.delivery.Size && len(f.Payload) >= 8 {
				c.delivery.Stamp = binary.BigEndian.Uint64(f.Payload)
			}
			c.body -= uint64(len(f.Payload))
			if c.body == 0 {
				*e = c.delivery
				return true, nil
			}
		}
	}
}

func (c *Conn) maxPayload() uint32 {
	if c.frameMax == 0 {
		return amqp.MaxBodySize
	}
	return c.frameMax - amqp.FrameOverhead
}

// method handles a method frame: false if the event is not complete yet.
func (c *Conn) method(payload []byte, e *Event) (bool, error) {
	id, args := amqp.MethodID(binary.BigEndian.Uint32(payload)), payload[4:]
	switch id {
	case amqp.BasicDeliverID:
		if len(args) < 1 || len(args) < 1+int(args[0])+9 {
			return false, io.ErrUnexpectedEOF
		}
		args = args[1+int(args[0]):] // consumer-tag
		c.delivery = Event{Kind: Delivery, Tag: binary.BigEndian.Uint64(args), Redelivered: args[8] != 0}
		return false, nil
	case amqp.BasicReturnID:
		c.delivery = Event{Kind: Return}
		return false, nil
	case amqp.BasicAckID, amqp.BasicNackID:
		if len(args) < 9 {
			return false, io.ErrUnexpectedEOF
		}
		*e = Event{Kind: Ack, Tag: binary.BigEndian.Uint64(args), Multiple: args[8]&1 != 0}
		if id == amqp.BasicNackID {
			e.Kind = Nack
		}
		return true, nil
	}
	m, err := amqp.ParseMethod(payload)
	if err != nil {
		return false, err
	}
	*e = Event{Kind: Other, Method: m}
	switch m := m.(type) {
	case *amqp.ConnectionBlocked:
		e.Kind = Blocked
	case *amqp.ConnectionUnblocked:
		e.Kind = Unblocked
	case *amqp.ConnectionClose:
		return false, &amqp.Error{Code: m.ReplyCode, Text: m.ReplyText, Class: m.ClassID, Method: m.MethodID}
	case *amqp.ChannelClose:
		return false, &amqp.Error{Code: m.ReplyCode, Text: m.ReplyText, Class: m.ClassID, Method: m.MethodID}
	}
	return true, nil
}
