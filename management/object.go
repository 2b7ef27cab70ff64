package management

import (
	"encoding/json"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/settmq/settmq/amqp"
)

// object is a JSON object whose fields keep their order. A field's value is nil, a bool, a string, a number, an
// object, a list of these, an amqp.Table, or anything that encoding/json takes.
type object []field

type field struct {
	name  string
	value any
}

// get returns a field; false if there is none.
func (o object) get(name string) (any, bool) {
	for _, f := range o {
		if f.name == name {
			return f.value, true
		}
	}
	return nil, false
}

// MarshalJSON implements json.Marshaler.
func (o object) MarshalJSON() ([]byte, error) { return appendJSON(nil, o) }

// appendJSON encodes without reflection what lists are made of: a page of them is most of what an answer costs.
func appendJSON(b []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...), nil
	case bool:
		return strconv.AppendBool(b, v), nil
	case string:
		return appendString(b, v), nil
	case int:
		return strconv.AppendInt(b, int64(v), 10), nil
	case int64:
		return strconv.AppendInt(b, v, 10), nil
	case uint64:
		return strconv.AppendUint(b, v, 10), nil
	case float64:
		return appendFloat(b, v), nil
	case json.RawMessage:
		return append(b, v...), nil
	case object:
		return appendObject(b, v)
	case []object:
		return appendList(b, v)
	case []string:
		return appendList(b, v)
	case []any:
		return appendList(b, v)
	case amqp.Table:
		return appendTable(b, v)
	}
	other, err := json.Marshal(v)
	return append(b, other...), err
}

func appendObject(b []byte, o object) ([]byte, error) {
	b = append(b, '{')
	for i, f := range o {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, f.name), ':')
		var err error
		if b, err = appendJSON(b, f.value); err != nil {
			return b, err
		}
	}
	return append(b, '}'), nil
}

func appendList[T any](b []byte, list []T) ([]byte, error) {
	b = append(b, '[')
	for i, v := range list {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = appendJSON(b, v); err != nil {
			return b, err
		}
	}
	return append(b, ']'), nil
}

// appendTable writes arguments as far as JSON can hold them.
func appendTable(b []byte, t amqp.Table) ([]byte, error) {
	b = append(b, '{')
	for i, f := range t {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, f.Name), ':')
		var err error
		if b, err = appendValue(b, f.Value); err != nil {
			return b, err
		}
	}
	return append(b, '}'), nil
}

func appendValue(b []byte, v amqp.Value) ([]byte, error) {
	if n, ok := v.Int(); ok {
		return strconv.AppendInt(b, n, 10), nil
	}
	switch v.Kind() {
	case amqp.KindBool:
		t, _ := v.Bool()
		return strconv.AppendBool(b, t), nil
	case amqp.KindFloat, amqp.KindDouble:
		f, _ := v.Float()
		return appendFloat(b, f), nil
	case amqp.KindDecimal:
		scale, n, _ := v.Decimal()
		b = strconv.AppendUint(b, uint64(n), 10)
		return strconv.AppendInt(append(b, "e-"...), int64(scale), 10), nil
	case amqp.KindTimestamp:
		n, _ := v.Timestamp()
		return strconv.AppendUint(b, n, 10), nil
	case amqp.KindString, amqp.KindBinary:
		return appendString(b, v.Text()), nil
	case amqp.KindTable:
		return appendTable(b, v.Table())
	case amqp.KindArray:
		b = append(b, '[')
		for i, e := range v.Array() {
			if i > 0 {
				b = append(b, ',')
			}
			b, _ = appendValue(b, e)
		}
		return append(b, ']'), nil
	}
	return append(b, "null"...), nil
}

// appendFloat writes a float so that it is read as one. JSON has neither infinities nor NaN.
func appendFloat(b []byte, f float64) []byte {
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return append(b, "null"...)
	}
	from := len(b)
	b = strconv.AppendFloat(b, f, 'g', -1, 64)
	for _, c := range b[from:] {
		if c == '.' || c == 'e' {
			return b
		}
	}
	return append(b, ".0"...)
}

const hexDigits = "0123456789abcdef"

// appendString writes a text; bytes that are not UTF-8 become U+FFFD.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				b = append(append(b, s[from:i]...), "\ufffd"...)
				from = i + 1
			}
			i += n
			continue
		}
		if c < 0x20 || c == '"' || c == '\\' {
			b = append(b, s[from:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			case '\t':
				b = append(b, '\\', 't')
			default:
				b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
			from = i + 1
		}
		i++
	}
	return append(append(b, s[from:]...), '"')
}
