package amqp

import (
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// String renders the value as it stands between quotes in RabbitMQ's error texts: a string as it is,
// anything else as an Erlang term.
func (v Value) String() string {
	if v.class() == KindString {
		return v.str
	}
	return string(AppendErlangTerm(nil, v))
}

// Describe renders the value with its type, as in: received the value '5' of type 'long' but current is none.
func (v Value) Describe() string {
	return "the value '" + v.String() + "' of type '" + v.TypeName() + "'"
}

// AppendErlangTerm appends the value as RabbitMQ would print it: strings as binaries, tables as lists of
// {name,type,value}, arrays as lists of {type,value}.
func AppendErlangTerm(b []byte, v Value) []byte {
	switch v.Kind() {
	case KindBool:
		return strconv.AppendBool(b, v.num != 0)
	case KindFloat, KindDouble:
		f, _ := v.Float()
		return appendFloat(b, f)
	case KindDecimal:
		b = strconv.AppendUint(append(b, '{'), uint64(v.scale), 10)
		b = strconv.AppendUint(append(b, ','), v.num, 10)
		return append(b, '}')
	case KindString, KindBinary:
		return appendBinary(b, v.str)
	case KindTimestamp:
		return strconv.AppendUint(b, v.num, 10)
	case KindArray:
		b = append(b, '[')
		for i, item := range v.Array() {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(append(append(b, '{'), item.TypeName()...), ',')
			b = append(AppendErlangTerm(b, item), '}')
		}
		return append(b, ']')
	case KindTable:
		b = append(b, '[')
		for i, f := range v.Table() {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendBinary(append(b, '{'), f.Name)
			b = append(append(append(b, ','), f.Value.TypeName()...), ',')
			b = append(AppendErlangTerm(b, f.Value), '}')
		}
		return append(b, ']')
	case KindVoid:
		return append(b, "undefined"...)
	}
	return strconv.AppendInt(b, int64(v.num), 10)
}

// appendFloat writes a float the Erlang way: the fewest digits that mean it, always with a decimal point, in
// whichever of the two notations is shorter.
func appendFloat(b []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) { // no Erlang term is one
		return strconv.AppendFloat(b, f, 'g', -1, 64)
	}
	if f == 0 {
		return strconv.AppendFloat(b, f, 'f', 1, 64)
	}
	mantissa, exponent, _ := strings.Cut(strconv.FormatFloat(f, 'e', -1, 64), "e")
	if !strings.Contains(mantissa, ".") {
		mantissa += ".0"
	}
	power, _ := strconv.Atoi(exponent)
	scientific := mantissa + "e" + strconv.Itoa(power)
	plain := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(plain, ".") {
		plain += ".0"
	}
	if len(plain) <= len(scientific) && math.Abs(f) < 1<<53 {
		return append(b, plain...)
	}
	return append(b, scientific...)
}

// appendBinary writes bytes as an Erlang binary: in quotes if they can be read, as numbers otherwise.
func appendBinary(b []byte, s string) []byte {
	if s == "" {
		return append(b, "<<>>"...)
	}
	ascii, ok := readable(s)
	if !ok {
		return appendBits(b, []byte(s))
	}
	b = append(b, `<<"`...)
	for i := 0; i < len(s); i++ {
		if esc, special := erlangEscapes[s[i]]; special {
			b = append(b, '\\', esc)
			continue
		}
		b = append(b, s[i])
	}
	b = append(b, '"')
	if !ascii {
		b = append(b, "/utf8"...)
	}
	return append(b, ">>"...)
}

var erlangEscapes = map[byte]byte{
	'"': '"', '\\': '\\', '\n': 'n', '\r': 'r', '\t': 't', '\v': 'v', '\b': 'b', '\f': 'f', 0x1b: 'e',
}

// readable reports whether s is printable text, and whether all of it is ASCII.
func readable(s string) (ascii, ok bool) {
	ascii = true
	for _, r := range s {
		switch {
		case r == utf8.RuneError:
			return false, false
		case r < 0x80:
			if _, special := erlangEscapes[byte(r)]; !special && (r < ' ' || r == 0x7f) {
				return false, false
			}
		case !unicode.IsPrint(r):
			return false, false
		default:
			ascii = false
		}
	}
	return ascii, true
}

// appendBits writes bytes as an Erlang binary of numbers.
func appendBits(b, s []byte) []byte {
	b = append(b, "<<"...)
	for i, c := range s {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(c), 10)
	}
	return append(b, ">>"...)
}
