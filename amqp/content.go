package amqp

import "encoding/binary"

const (
	// MaxBodySize is the largest body a content header may announce, whatever a broker's own limit.
	MaxBodySize = 512 << 20

	// BasicClass is the one class with content.
	BasicClass = 60

	contentHeaderFixed = 12 // class, weight, body size
)

// ParseContentHeader reads the payload of a header frame. props, the encoded properties, aliases the
// payload and is not looked into: that is ParseProperties. What class, weight and bodySize may be depends
// on the channel's state and is the caller's to check. err is *Error 501 when the payload is too short to
// be a header.
func ParseContentHeader(payload []byte) (class, weight uint16, bodySize uint64, props []byte, err error) {
	if len(payload) < contentHeaderFixed {
		return 0, 0, 0, nil, unknownFrame(Frame{Type: FrameHeader, Payload: payload})
	}
	return binary.BigEndian.Uint16(payload), binary.BigEndian.Uint16(payload[2:]),
		binary.BigEndian.Uint64(payload[4:]), payload[contentHeaderFixed:], nil
}

// AppendContentHeader appends the header frame of a message. props are encoded properties: two bytes of
// flags and the values, or nothing. The two lowest flags, which mean "more flags follow" and "reserved",
// are written as zero whatever a publisher sent, for some clients act on them.
func AppendContentHeader(b []byte, channel uint16, bodySize uint64, props []byte) []byte {
	if len(props) < 2 {
		props = noProperties[:]
	}
	size := contentHeaderFixed + len(props)
	b = append(b, FrameHeader, byte(channel>>8), byte(channel),
		byte(size>>24), byte(size>>16), byte(size>>8), byte(size),
		0, BasicClass, 0, 0,
		byte(bodySize>>56), byte(bodySize>>48), byte(bodySize>>40), byte(bodySize>>32),
		byte(bodySize>>24), byte(bodySize>>16), byte(bodySize>>8), byte(bodySize),
		props[0], props[1]&^propIgnored)
	b = append(b, props[2:]...)
	return append(b, FrameEnd)
}

var noProperties [2]byte

// AppendBodyFrame appends one body frame. The caller keeps it within frame_max.
func AppendBodyFrame(b []byte, channel uint16, chunk []byte) []byte {
	b = AppendFrameHead(b, FrameBody, channel, uint32(len(chunk)))
	b = append(b, chunk...)
	return append(b, FrameEnd)
}

// AppendContent appends the header frame and as many body frames as frameMax asks for: none for an empty
// body, one if frameMax is 0 (no limit).
func AppendContent(b []byte, channel uint16, props, body []byte, frameMax uint32) []byte {
	b = AppendContentHeader(b, channel, uint64(len(body)), props)
	chunk := BodyChunk(frameMax)
	for len(body) > chunk {
		b = AppendBodyFrame(b, channel, body[:chunk])
		body = body[chunk:]
	}
	if len(body) > 0 {
		b = AppendBodyFrame(b, channel, body)
	}
	return b
}

// BodyChunk returns how many bytes of a body fit into one frame: frameMax less the overhead, or
// MaxBodySize if frameMax is 0. A frameMax below FrameMinSize counts as FrameMinSize.
func BodyChunk(frameMax uint32) int {
	if frameMax == 0 {
		return MaxBodySize
	}
	return int(min(max(frameMax, FrameMinSize)-FrameOverhead, MaxBodySize))
}

// ContentSize returns how many bytes AppendContent appends.
func ContentSize(props, body []byte, frameMax uint32) int {
	chunk := BodyChunk(frameMax)
	frames := (len(body) + chunk - 1) / chunk
	return FrameOverhead + contentHeaderFixed + max(len(props), 2) + frames*FrameOverhead + len(body)
}
