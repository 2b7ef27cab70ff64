package amqp

import (
	"encoding/binary"
	"strconv"
	"unicode/utf8"
)

// MaxShortString is the longest short string: names of everything, routing keys, reply texts.
const MaxShortString = 255

// cursor decodes a slice from its head. The first failure sticks: it empties the cursor, later reads
// return zero values, and finish reports it, so that decoders check once. Reads that alias the input say so.
type cursor struct {
	b   []byte
	err *Error // errShort until finish words it
}

// errShort marks input that ended too early; it never leaves the package.
var errShort = &Error{Code: ReplyFrameError, Text: "FRAME_ERROR - input too short"}

var errUTF8 = &Error{Code: ReplyFrameError, Text: "FRAME_ERROR - Malformed UTF-8 in shortstr"}

//go:noinline
func (c *cursor) fail(err *Error) {
	if c.err == nil {
		c.err = err
	}
	c.b = nil
}

func (c *cursor) uint8() uint8 {
	if len(c.b) < 1 {
		c.fail(errShort)
		return 0
	}
	v := c.b[0]
	c.b = c.b[1:]
	return v
}

func (c *cursor) uint16() uint16 {
	if len(c.b) < 2 {
		c.fail(errShort)
		return 0
	}
	v := binary.BigEndian.Uint16(c.b)
	c.b = c.b[2:]
	return v
}

func (c *cursor) uint32() uint32 {
	if len(c.b) < 4 {
		c.fail(errShort)
		return 0
	}
	v := binary.BigEndian.Uint32(c.b)
	c.b = c.b[4:]
	return v
}

func (c *cursor) uint64() uint64 {
	if len(c.b) < 8 {
		c.fail(errShort)
		return 0
	}
	v := binary.BigEndian.Uint64(c.b)
	c.b = c.b[8:]
	return v
}

// shortBytes reads a short string without a copy.
func (c *cursor) shortBytes() []byte {
	if len(c.b) < 1 || len(c.b) < 1+int(c.b[0]) {
		c.fail(errShort)
		return nil
	}
	end := 1 + int(c.b[0])
	v := c.b[1:end:end]
	c.b = c.b[end:]
	return v
}

// rawText reads a short string of any bytes.
func (c *cursor) rawText() string { return string(c.shortBytes()) }

// text reads a short string that has to be UTF-8.
func (c *cursor) text() string {
	v := c.shortBytes()
	if !utf8.Valid(v) {
		c.fail(errUTF8)
		return ""
	}
	return string(v)
}

// longBytes reads and copies a long string. It allocates only what is there.
func (c *cursor) longBytes() []byte {
	n := c.uint32()
	if uint64(n) > uint64(len(c.b)) {
		c.fail(errShort)
		return nil
	}
	v := append([]byte(nil), c.b[:n]...)
	c.b = c.b[n:]
	return v
}

// table reads and copies a table.
func (c *cursor) table() Table {
	if len(c.b) < 4 || uint64(binary.BigEndian.Uint32(c.b)) > uint64(len(c.b)-4) {
		c.fail(errShort)
		return nil
	}
	t, rest, err := parseTable(c.b)
	if err != nil {
		c.fail(err)
		return nil
	}
	c.b = rest
	return t
}

// finish ends the decoding of a method's arguments: nothing may have failed and nothing may be left.
func (c *cursor) finish(id MethodID, args []byte) error {
	if c.err == nil && len(c.b) == 0 {
		return nil
	}
	return decodeFailure(c.err, id, args)
}

//go:noinline
func decodeFailure(err *Error, id MethodID, args []byte) *Error {
	if err == errUTF8 {
		return err // RabbitMQ names no method here
	}
	if err != nil && err != errShort {
		return err.For(id)
	}
	switch id {
	case ConnectionStartOkID, ConnectionSecureOkID, ConnectionUpdateSecretID:
		// The arguments hold a password, and error texts end up in logs.
		return FrameError("cannot decode %s", id).For(id)
	}
	// RabbitMQ shows all of them; a reply text has room for sixty or so.
	shown := args[:min(len(args), MaxShortString)]
	return FrameError("cannot decode %s", appendBits(nil, shown)).For(id)
}

func bit(v bool, n uint) byte {
	if v {
		return 1 << n
	}
	return 0
}

func appendShortString(b []byte, s string) []byte {
	if len(s) > MaxShortString {
		panicLong(len(s))
	}
	b = append(b, byte(len(s)))
	return append(b, s...)
}

func appendShortBytes(b, s []byte) []byte {
	if len(s) > MaxShortString {
		panicLong(len(s))
	}
	b = append(b, byte(len(s)))
	return append(b, s...)
}

// appendProse appends text for people as a short string: what does not fit or is not UTF-8 is dropped.
func appendProse(b []byte, s string) []byte { return appendShortString(b, cutText(s)) }

func appendLongBytes(b, s []byte) []byte {
	if uint64(len(s)) > maxLongString {
		panicLong(len(s))
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}

const maxLongString = 1<<32 - 1

//go:noinline
func panicLong(n int) {
	panic("amqp: string of " + strconv.Itoa(n) + " bytes does not fit its field")
}
