package amqp

import (
	"encoding/binary"
	"strconv"
)

// MethodID names a method: the class in the upper, the method in the lower sixteen bits, as on the wire.
type MethodID uint32

// Class returns the class number.
func (id MethodID) Class() uint16 { return uint16(id >> 16) }

// Method returns the number of the method within its class.
func (id MethodID) Method() uint16 { return uint16(id) }

// String returns the specification's name, such as basic.publish, or the two numbers of an unknown method.
func (id MethodID) String() string {
	if name := methodName(id); name != "" {
		return name
	}
	return strconv.Itoa(int(id.Class())) + "." + strconv.Itoa(int(id.Method()))
}

// HasContent reports whether a content header and a body follow the method.
func (id MethodID) HasContent() bool { return hasContent(id) }

// FromClient reports whether the protocol lets a client send the method.
func (id MethodID) FromClient() bool { return fromClient(id) }

// FromServer reports whether the protocol lets a server send the method.
func (id MethodID) FromServer() bool { return fromServer(id) }

// Method is a method with its arguments: one of this package's generated structs, by pointer.
type Method interface {
	// ID names the method.
	ID() MethodID
	// Append appends the encoded arguments, without ids, to b.
	Append(b []byte) []byte
	// Decode sets the method from encoded arguments. The error is an *Error with the method set; the
	// struct is then in no defined state.
	Decode(args []byte) error
}

// PeekMethodID returns the id at the head of a method frame's payload. It is false when fewer than four
// bytes are there.
func PeekMethodID(payload []byte) (MethodID, bool) {
	if len(payload) < 4 {
		return 0, false
	}
	return MethodID(binary.BigEndian.Uint32(payload)), true
}

// ParseMethod decodes the payload of a method frame into a new struct. It is meant for the methods that
// are not on the hot path; there, look at PeekMethodID and decode payload[4:] into a struct that is kept.
//
// Errors are *Error: 503 for a method that does not exist or that nobody implements, 501 for arguments
// that do not fit the method, 502 for a table that breaks a rule of tables.
func ParseMethod(payload []byte) (Method, error) {
	id, ok := PeekMethodID(payload)
	if !ok {
		return nil, unknownFrame(Frame{Type: FrameMethod, Payload: payload})
	}
	m := newMethod(id)
	if m == nil {
		return nil, unknownMethod(id)
	}
	if err := m.Decode(payload[4:]); err != nil {
		return nil, err
	}
	return m, nil
}

// DeliverView is BasicDeliver whose names alias the input: for a client that reads many deliveries.
type DeliverView struct {
	ConsumerTag []byte
	DeliveryTag uint64
	Redelivered bool
	Exchange    []byte
	RoutingKey  []byte
}

// Decode sets v from the encoded arguments of basic.deliver.
func (v *DeliverView) Decode(args []byte) error {
	c := cursor{b: args}
	v.ConsumerTag = c.shortBytes()
	v.DeliveryTag = c.uint64()
	v.Redelivered = c.uint8()&1 != 0
	v.Exchange = c.shortBytes()
	v.RoutingKey = c.shortBytes()
	return c.finish(BasicDeliverID, args)
}

func unknownMethod(id MethodID) *Error {
	if methodName(id) != "" { // basic.credit and its family: known to the framing layer, served by nobody
		return CommandInvalid("unimplemented method").For(id)
	}
	return CommandInvalid("unknown method %s", id).For(id)
}
