package amqp

import (
	"encoding/binary"
	"math"
)

// Frame types, AMQP 0-9-1 §2.3.5.
const (
	FrameMethod    = 1
	FrameHeader    = 2
	FrameBody      = 3
	FrameHeartbeat = 8
)

const (
	// FrameEnd is the last byte of every frame.
	FrameEnd = 0xCE
	// FrameOverhead is what a frame adds to its payload: seven bytes before and one after.
	FrameOverhead = 8
	// FrameMinSize is the smallest frame_max a peer may ask for.
	FrameMinSize = 4096

	frameHead = 7 // type, channel, payload size

	// frameSlack is how far a payload may exceed the limit. RabbitMQ compares the payload with
	// frame_max itself, so clients that forget the overhead have always got through.
	frameSlack = FrameOverhead
)

// ProtocolHeader is what a client sends first, and what a server answers before closing when a client
// sent anything else.
const ProtocolHeader = "AMQP\x00\x00\x09\x01"

// Frame is one frame. Payload aliases the bytes it was parsed from.
type Frame struct {
	Type    uint8
	Channel uint16
	Payload []byte
}

// ParseFrame reads the frame at the head of b. maxPayload is the negotiated frame_max less
// FrameOverhead.
//
// It returns n > 0, the length of the whole frame, when it is there, and n == 0 with a nil error when
// more bytes are needed. A non-nil error is an *Error that ends the connection: 501 for a frame that is
// too large, has no end marker, or has a payload that cannot be of its type; 505 for one that is whole
// but on a channel where its type cannot be. With 505, and with 501 for a payload, n is set too, so that
// a caller which is closing anyway can step over the frame.
func ParseFrame(b []byte, maxPayload uint32) (f Frame, n int, err error) {
	if len(b) < frameHead {
		return Frame{}, 0, nil
	}
	size := binary.BigEndian.Uint32(b[3:7])
	if uint64(size) > uint64(maxPayload)+frameSlack {
		return Frame{}, 0, frameTooLarge(b[0], size, maxPayload)
	}
	if uint64(len(b)) < uint64(size)+FrameOverhead {
		return Frame{}, 0, nil
	}
	end := frameHead + int(size) // fits: the frame is in memory
	f = Frame{Type: b[0], Channel: uint16(b[1])<<8 | uint16(b[2]), Payload: b[frameHead:end:end]}
	if b[end] != FrameEnd {
		return Frame{}, 0, badFrameEnd(f, b[end])
	}
	switch f.Type {
	case FrameMethod:
		if size < 4 {
			return f, end + 1, unknownFrame(f)
		}
	case FrameHeader:
		if size < contentHeaderFixed {
			return f, end + 1, unknownFrame(f)
		}
		if f.Channel == 0 {
			return f, end + 1, misplacedFrame(f)
		}
	case FrameBody:
		if f.Channel == 0 {
			return f, end + 1, misplacedFrame(f)
		}
	case FrameHeartbeat:
		if size != 0 {
			return f, end + 1, unknownFrame(f)
		}
		if f.Channel != 0 {
			return f, end + 1, misplacedFrame(f)
		}
	default:
		return f, end + 1, unknownFrame(f)
	}
	return f, end + 1, nil
}

// FrameSize returns the total length of the frame at the head of b, and 0 while fewer than seven bytes
// of it are there. The number is the peer's: use it to size a buffer only after ParseFrame has looked at
// the same bytes and asked for more.
func FrameSize(b []byte) int {
	if len(b) < frameHead {
		return 0
	}
	return int(min(uint64(binary.BigEndian.Uint32(b[3:7]))+FrameOverhead, math.MaxInt))
}

// AppendFrameHead appends the seven bytes that come before a payload of the given size. The caller
// appends or sends the payload and FrameEnd.
func AppendFrameHead(b []byte, frameType uint8, channel uint16, size uint32) []byte {
	return append(b, frameType, byte(channel>>8), byte(channel),
		byte(size>>24), byte(size>>16), byte(size>>8), byte(size))
}

// AppendHeartbeat appends a heartbeat frame.
func AppendHeartbeat(b []byte) []byte {
	return append(b, FrameHeartbeat, 0, 0, 0, 0, 0, 0, FrameEnd)
}

// AppendMethod appends the frame of method m. It does not know the negotiated frame_max: of the methods a
// server sends only connection.start is of unbounded length, and that one precedes the negotiation.
func AppendMethod(b []byte, channel uint16, m Method) []byte {
	start := len(b)
	b = AppendFrameHead(b, FrameMethod, channel, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(m.ID()))
	b = m.Append(b)
	binary.BigEndian.PutUint32(b[start+3:], uint32(len(b)-start-frameHead))
	return append(b, FrameEnd)
}

// AppendDeliver appends the frame of basic.deliver; content follows with AppendContent. It panics when a
// name is longer than MaxShortString.
func AppendDeliver(b []byte, channel uint16, consumerTag string, tag uint64, redelivered bool, exchange, routingKey string) []byte {
	if len(consumerTag) > MaxShortString || len(exchange) > MaxShortString || len(routingKey) > MaxShortString {
		panicLong(max(len(consumerTag), len(exchange), len(routingKey)))
	}
	size := 4 + 1 + len(consumerTag) + 8 + 1 + 1 + len(exchange) + 1 + len(routingKey)
	b = append(b, FrameMethod, byte(channel>>8), byte(channel),
		0, 0, byte(size>>8), byte(size),
		0, 60, 0, 60, byte(len(consumerTag)))
	b = append(b, consumerTag...)
	b = append(b, byte(tag>>56), byte(tag>>48), byte(tag>>40), byte(tag>>32),
		byte(tag>>24), byte(tag>>16), byte(tag>>8), byte(tag), bit(redelivered, 0), byte(len(exchange)))
	b = append(b, exchange...)
	b = append(b, byte(len(routingKey)))
	b = append(b, routingKey...)
	return append(b, FrameEnd)
}

// AppendPublish appends the frame of basic.publish; content follows with AppendContent. It panics when a
// name is longer than MaxShortString.
func AppendPublish(b []byte, channel uint16, exchange, routingKey string, mandatory bool) []byte {
	if len(exchange) > MaxShortString || len(routingKey) > MaxShortString {
		panicLong(max(len(exchange), len(routingKey)))
	}
	size := 4 + 2 + 1 + len(exchange) + 1 + len(routingKey) + 1
	b = append(b, FrameMethod, byte(channel>>8), byte(channel),
		0, 0, byte(size>>8), byte(size),
		0, 60, 0, 40, 0, 0, byte(len(exchange)))
	b = append(b, exchange...)
	b = append(b, byte(len(routingKey)))
	b = append(b, routingKey...)
	return append(b, bit(mandatory, 0), FrameEnd)
}

// AppendAck appends the frame of basic.ack: a consumer's acknowledgement or a broker's confirm.
func AppendAck(b []byte, channel uint16, tag uint64, multiple bool) []byte {
	return appendSettle(b, channel, byte(BasicAckID&0xff), tag, bit(multiple, 0))
}

// AppendNack appends the frame of basic.nack.
func AppendNack(b []byte, channel uint16, tag uint64, multiple, requeue bool) []byte {
	return appendSettle(b, channel, byte(BasicNackID&0xff), tag, bit(multiple, 0)|bit(requeue, 1))
}

func appendSettle(b []byte, channel uint16, method byte, tag uint64, bits byte) []byte {
	return append(b, FrameMethod, byte(channel>>8), byte(channel), 0, 0, 0, 13, 0, 60, 0, method,
		byte(tag>>56), byte(tag>>48), byte(tag>>40), byte(tag>>32),
		byte(tag>>24), byte(tag>>16), byte(tag>>8), byte(tag), bits, FrameEnd)
}
