package amqp

import "encoding/binary"

// LookupHeader returns the first field of that name in an encoded table (Properties.Headers). It looks
// only at what it passes, allocates nothing but a found value's own text, and finds nothing in a table
// that is not well-formed.
func LookupHeader(headers []byte, name string) (Value, bool) {
	i, n, ok := findField(headers, 4, name)
	if !ok {
		return Value{}, false
	}
	v := headers[i+1+len(name) : i+n]
	d := decoder{b: v}
	if width(v[0]) == -1 {
		// Of other input than ParseProperties has seen, a nested value can be anything.
		var s shape
		if _, err := s.value(v, 1); err != nil {
			return Value{}, false
		}
		d.s = string(v)
	}
	return d.value(0), true
}

// HeadersOf returns the encoded header table of encoded properties, without a copy; nil if there is none.
func HeadersOf(props []byte) []byte {
	i, n := headersAt(props)
	if n == 0 {
		return nil
	}
	return props[i : i+n : i+n]
}

// WithoutHeader returns encoded properties without the header fields of that name. Without such a field it
// returns props itself, otherwise a new slice; the header table stays even if nothing is left in it. It
// expects what ParseProperties has accepted and returns anything else unchanged.
func WithoutHeader(props []byte, name string) []byte {
	start, length := headersAt(props)
	if length == 0 {
		return props
	}
	table := props[start : start+length]
	i, n, ok := findField(table, 4, name)
	if !ok {
		return props
	}
	out := make([]byte, 0, len(props)-n)
	out = append(out, props[:start]...)
	kept := 4
	out = append(out, 0, 0, 0, 0)
	for ok {
		out = append(out, table[kept:i]...)
		kept = i + n
		i, n, ok = findField(table, kept, name)
	}
	out = append(out, table[kept:]...)
	out = closeLength(out, start)
	return append(out, props[start+length:]...)
}

// SetField returns a copy of an encoded table in which the field of that name, all of them if there are several,
// is replaced by one with the value v, at the end. Of a table that is not well-formed it returns one with the new
// field alone. It panics when the name is longer than 255 bytes.
func SetField(table []byte, name string, v Value) []byte {
	out := make([]byte, 4, len(table)+len(name)+32)
	if len(table) >= 4 {
		kept := 4
		for {
			i, n, ok := findField(table, kept, name)
			if !ok {
				break
			}
			out = append(out, table[kept:i]...)
			kept = i + n
		}
		out = append(out, table[kept:]...)
	}
	out = appendShortString(out, name)
	return closeLength(v.Append(out), 0)
}

// WithReplyTo returns a copy of encoded properties whose reply-to is another. It expects what ParseProperties
// has accepted with a reply-to, and returns anything else unchanged. The new one is at most 255 bytes long.
func WithReplyTo(props []byte, replyTo string) []byte {
	if len(props) < 2 {
		return props
	}
	flags := binary.BigEndian.Uint16(props)
	c := cursor{b: props[2:]}
	for f := PropContentType; f > PropReplyTo; f >>= 1 {
		switch {
		case flags&f == 0:
		case f == PropHeaders:
			c.longBytes()
		case f == PropDeliveryMode || f == PropPriority:
			c.uint8()
		default:
			c.shortBytes()
		}
	}
	start := len(props) - len(c.b)
	c.shortBytes()
	if flags&PropReplyTo == 0 || c.err != nil {
		return props
	}
	out := make([]byte, 0, start+1+len(replyTo)+len(c.b))
	out = append(out, props[:start]...)
	out = appendShortString(out, replyTo)
	return append(out, c.b...)
}

// AppendLongField appends an encoded field of a table: a name of at most 255 bytes and a 64-bit integer.
func AppendLongField(dst []byte, name string, v int64) []byte {
	dst = append(appendShortString(dst, name), KindLong)
	return binary.BigEndian.AppendUint64(dst, uint64(v))
}

// AppendWithFields appends encoded properties with more encoded fields (name, type and value) at the end of their
// header table, which is made if there is none. It expects what ParseProperties has accepted.
func AppendWithFields(dst, props, fields []byte) []byte {
	start, length := headersAt(props)
	if length > 0 {
		dst = append(dst, props[:start]...)
		dst = binary.BigEndian.AppendUint32(dst, uint32(length-4+len(fields)))
		dst = append(dst, props[start+4:start+length]...)
		dst = append(dst, fields...)
		return append(dst, props[start+length:]...)
	}
	var flags uint16
	if len(props) >= 2 {
		flags = binary.BigEndian.Uint16(props)
		props = props[2:]
	}
	c := cursor{b: props}
	if flags&PropContentType != 0 {
		c.shortBytes()
	}
	if flags&PropContentEncoding != 0 {
		c.shortBytes()
	}
	dst = binary.BigEndian.AppendUint16(dst, flags|PropHeaders)
	dst = append(dst, props[:len(props)-len(c.b)]...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(fields)))
	dst = append(dst, fields...)
	return append(dst, c.b...)
}

// headersAt returns where in encoded properties the header table is and how long it is with its length;
// zeros if there is none.
func headersAt(props []byte) (start, length int) {
	if len(props) < 2 {
		return 0, 0
	}
	flags := binary.BigEndian.Uint16(props)
	if flags&PropHeaders == 0 {
		return 0, 0
	}
	c := cursor{b: props[2:]}
	if flags&PropContentType != 0 {
		c.shortBytes()
	}
	if flags&PropContentEncoding != 0 {
		c.shortBytes()
	}
	start = len(props) - len(c.b)
	n := c.uint32()
	if c.err != nil || uint64(n) > uint64(len(c.b)) {
		return 0, 0
	}
	return start, 4 + int(n)
}

// findField returns where the first field of that name starts in an encoded table and how long it is with
// name and letter, searching from the field at offset from.
func findField(table []byte, from int, name string) (start, length int, ok bool) {
	if len(table) < 4 || uint64(binary.BigEndian.Uint32(table)) != uint64(len(table)-4) {
		return 0, 0, false
	}
	for i := from; i < len(table); {
		b := table[i:]
		at := 1 + int(b[0])
		if at >= len(b) {
			return 0, 0, false
		}
		n := uint64(at) + 1
		switch w := width(b[at]); {
		case w >= 0:
			n += uint64(w)
		case w == -1 && len(b)-at >= 5:
			n += 4 + uint64(binary.BigEndian.Uint32(b[at+1:]))
		default:
			return 0, 0, false
		}
		if n > uint64(len(b)) {
			return 0, 0, false
		}
		if string(b[1:at]) == name {
			return i, int(n), true
		}
		i += int(n)
	}
	return 0, 0, false
}
