package server

import "github.com/settmq/settmq/amqp"

// The frames of a large body are not gathered in the connection's buffer: once one has begun, the
// socket is read into the array that the message keeps.

// firstPart is how much of a large body must be there before an array is made for it.
const firstPart = busyBuffer / 2

// bodyFrame is a body frame that has begun and not ended.
type bodyFrame struct {
	ch   *channel // nil: there is none
	size int      // of the payload
	left int      // payload bytes still to come
}

// beginBody takes the beginning of a frame that is not whole, if it belongs to a large body, and
// returns the number of bytes it is done with. The parser has looked at the frame's size.
func (c *conn) beginBody(b []byte) int {
	kind, id, n, ok := amqp.PeekFrame(b)
	if !ok || kind != amqp.FrameBody || c.state != running {
		return 0
	}
	ch := c.channels[id]
	if ch == nil || ch.content.state != wantBody || ch.content.tooLarge || ch.content.bodySize <= trustedSize {
		return 0
	}
	size, here := int(n), len(b)-amqp.FrameHeadSize
	t := &ch.content
	if t.received+uint64(size) > t.bodySize || here < firstPart && cap(t.data)-len(t.data) < size {
		return 0
	}
	t.received += uint64(size)
	c.frame = bodyFrame{ch: ch, size: size, left: size}
	return amqp.FrameHeadSize + c.continueBody(b[amqp.FrameHeadSize:])
}

// continueBody takes what b has of the frame that was begun, and ends it if all is there.
func (c *conn) continueBody(b []byte) int {
	f := &c.frame
	n := min(f.left, len(b))
	if c.state == running { // else the message is given up, and the bytes are only stepped over
		t := &f.ch.content
		t.grow(n)
		t.data = append(t.data, b[:n]...)
	}
	f.left -= n
	if f.left > 0 || n == len(b) {
		return n
	}
	ch, size := f.ch, f.size
	*f = bodyFrame{}
	if c.state != running {
		return n + 1
	}
	if b[n] != amqp.FrameEnd {
		data := ch.content.data
		c.broken(amqp.BadFrameEnd(amqp.Frame{Type: amqp.FrameBody, Channel: ch.id, Payload: data[len(data)-size:]}, b[n]))
		return len(b)
	}
	if err := ch.bodyFrameDone(); err != nil {
		c.failed(ch, err)
	}
	return n + 1
}

// bodyRoom is where the socket's next bytes belong when they are of a large body, nil otherwise.
func (c *conn) bodyRoom() []byte {
	f := &c.frame
	if f.left == 0 || c.state != running {
		return nil
	}
	t := &f.ch.content
	t.grow(f.left)
	return t.data[len(t.data) : len(t.data)+f.left]
}

// readBody notes that n bytes were read into bodyRoom.
func (c *conn) readBody(n int) {
	t := &c.frame.ch.content
	t.data = t.data[:len(t.data)+n]
	c.frame.left -= n
}

// readAhead is how much to read into room of the buffer: little when the next bytes but a few are
// of a large body, for from the buffer they have to be copied.
func (c *conn) readAhead(room int) int {
	if ch := c.lastChannel; ch != nil && ch.content.received > 0 {
		if t := &ch.content; t.state == wantBody && t.received < t.bodySize && cap(t.data)-len(t.data) > restBuffer {
			return min(room, restBuffer)
		}
	}
	return room
}
