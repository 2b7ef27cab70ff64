package amqp

import "encoding/binary"

// Flags of the properties a message has, in the order of the encoded values. Cluster-id is deprecated
// and handed on.
const (
	PropContentType     uint16 = 1 << 15
	PropContentEncoding uint16 = 1 << 14
	PropHeaders         uint16 = 1 << 13
	PropDeliveryMode    uint16 = 1 << 12
	PropPriority        uint16 = 1 << 11
	PropCorrelationID   uint16 = 1 << 10
	PropReplyTo         uint16 = 1 << 9
	PropExpiration      uint16 = 1 << 8
	PropMessageID       uint16 = 1 << 7
	PropTimestamp       uint16 = 1 << 6
	PropType            uint16 = 1 << 5
	PropUserID          uint16 = 1 << 4
	PropAppID           uint16 = 1 << 3
	PropClusterID       uint16 = 1 << 2

	// propIgnored are the two flags without a property: ignored when read, never written.
	propIgnored = 3
)

// Persistent is the delivery mode of a message that survives a restart; any other mode is transient.
const Persistent = 2

var errProperties = SyntaxError("malformed content properties")

// Properties are the decoded properties of a message. Flags says which are there; the fields of the others
// are zero. Slices alias the input of ParseProperties. Headers is an encoded table with its length.
type Properties struct {
	Flags           uint16
	ContentType     []byte
	ContentEncoding []byte
	Headers         []byte
	DeliveryMode    uint8
	Priority        uint8
	CorrelationID   []byte
	ReplyTo         []byte
	Expiration      []byte
	MessageID       []byte
	Timestamp       uint64 // seconds since 1970
	Type            []byte
	UserID          []byte
	AppID           []byte
	ClusterID       []byte
}

// ParseProperties sets p from encoded properties. It allocates nothing and checks everything, so that
// later functions can rely on b: every value is there, the header table is well-formed and within the
// limits of tables, nothing is left over. err is an *Error 502, and p is then in no defined state.
func ParseProperties(b []byte, p *Properties) error {
	*p = Properties{}
	c := cursor{b: b}
	f := c.uint16() &^ propIgnored
	p.Flags = f
	if f&PropContentType != 0 {
		p.ContentType = c.shortBytes()
	}
	if f&PropContentEncoding != 0 {
		p.ContentEncoding = c.shortBytes()
	}
	if f&PropHeaders != 0 {
		p.Headers = c.tableBytes()
	}
	if f&PropDeliveryMode != 0 {
		p.DeliveryMode = c.uint8()
	}
	if f&PropPriority != 0 {
		p.Priority = c.uint8()
	}
	if f&(PropCorrelationID|PropReplyTo|PropExpiration|PropMessageID|PropTimestamp|
		PropType|PropUserID|PropAppID|PropClusterID) != 0 {
		p.parseRest(&c, f)
	}
	if c.err == nil && len(c.b) == 0 {
		return nil
	}
	if c.err == nil || c.err == errShort {
		return errProperties
	}
	return c.err
}

// parseRest reads the properties that most messages do without.
func (p *Properties) parseRest(c *cursor, f uint16) {
	if f&PropCorrelationID != 0 {
		p.CorrelationID = c.shortBytes()
	}
	if f&PropReplyTo != 0 {
		p.ReplyTo = c.shortBytes()
	}
	if f&PropExpiration != 0 {
		p.Expiration = c.shortBytes()
	}
	if f&PropMessageID != 0 {
		p.MessageID = c.shortBytes()
	}
	if f&PropTimestamp != 0 {
		p.Timestamp = c.uint64()
	}
	if f&PropType != 0 {
		p.Type = c.shortBytes()
	}
	if f&PropUserID != 0 {
		p.UserID = c.shortBytes()
	}
	if f&PropAppID != 0 {
		p.AppID = c.shortBytes()
	}
	if f&PropClusterID != 0 {
		p.ClusterID = c.shortBytes()
	}
}

// tableBytes checks a table and returns it encoded, with its length, without a copy.
func (c *cursor) tableBytes() []byte {
	rest, err := checkTable(c.b)
	if err != nil {
		c.fail(err)
		return nil
	}
	n := len(c.b) - len(rest)
	v := c.b[:n:n]
	c.b = rest
	return v
}

// Has reports whether the message has the property of that flag.
func (p *Properties) Has(flag uint16) bool { return p.Flags&flag != 0 }

// HasProperty reports whether encoded properties, as checked by ParseProperties, have the one of that
// flag.
func HasProperty(props []byte, flag uint16) bool {
	return len(props) >= 2 && (uint16(props[0])<<8|uint16(props[1]))&flag != 0
}

// MaxExpiration is ten years in milliseconds, the longest time to live RabbitMQ takes.
const MaxExpiration = 315360000000

// ParseExpiration returns the milliseconds of an expiration property: a decimal number of at most
// MaxExpiration, with or without a sign. For anything else why says what is wrong with it, in the Erlang
// terms that RabbitMQ uses.
func ParseExpiration(text []byte) (millis int64, why string) {
	digits := text
	negative := len(digits) > 0 && digits[0] == '-'
	if len(digits) > 0 && (digits[0] == '-' || digits[0] == '+') {
		digits = digits[1:]
	}
	n := 0
	for n < len(digits) && digits[n] >= '0' && digits[n] <= '9' {
		n++
	}
	for _, d := range digits[:n] {
		millis = min(millis*10+int64(d-'0'), MaxExpiration+1)
	}
	switch {
	case n == 0:
		return 0, "no_integer"
	case n < len(digits):
		return 0, `{leftover_string,"` + string(digits[n:]) + `"}`
	case negative && millis > 0:
		return 0, "{value_negative," + string(text) + "}"
	case millis > MaxExpiration:
		return 0, "{value_too_large," + string(digits) + "}"
	}
	return millis, ""
}

// Append appends the encoded properties: those in Flags, whatever the other fields hold. Headers are
// written as they are; a message that has the flag but no bytes gets an empty table. It panics when a
// value is longer than MaxShortString.
func (p *Properties) Append(b []byte) []byte {
	f := p.Flags &^ propIgnored
	b = binary.BigEndian.AppendUint16(b, f)
	b = appendProperty(b, f&PropContentType, p.ContentType)
	b = appendProperty(b, f&PropContentEncoding, p.ContentEncoding)
	if f&PropHeaders != 0 {
		if len(p.Headers) == 0 {
			b = append(b, 0, 0, 0, 0)
		}
		b = append(b, p.Headers...)
	}
	if f&PropDeliveryMode != 0 {
		b = append(b, p.DeliveryMode)
	}
	if f&PropPriority != 0 {
		b = append(b, p.Priority)
	}
	b = appendProperty(b, f&PropCorrelationID, p.CorrelationID)
	b = appendProperty(b, f&PropReplyTo, p.ReplyTo)
	b = appendProperty(b, f&PropExpiration, p.Expiration)
	b = appendProperty(b, f&PropMessageID, p.MessageID)
	if f&PropTimestamp != 0 {
		b = binary.BigEndian.AppendUint64(b, p.Timestamp)
	}
	b = appendProperty(b, f&PropType, p.Type)
	b = appendProperty(b, f&PropUserID, p.UserID)
	b = appendProperty(b, f&PropAppID, p.AppID)
	return appendProperty(b, f&PropClusterID, p.ClusterID)
}

func appendProperty(b []byte, has uint16, v []byte) []byte {
	if has == 0 {
		return b
	}
	return appendShortBytes(b, v)
}
