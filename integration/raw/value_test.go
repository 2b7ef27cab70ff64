package raw

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Values travel through the tests as text (see the package comment): a script's text is
// encoded when sent, a received value is rendered as text and compared.

// encodeValue appends the wire form of text as a field of the given kind (bits are packed by
// the caller).
func encodeValue(b []byte, kind, text string) ([]byte, error) {
	switch kind {
	case octet, short, long, longlong:
		bits := map[string]int{octet: 8, short: 16, long: 32, longlong: 64}[kind]
		if text == "" {
			text = "0"
		}
		n, err := strconv.ParseUint(text, 0, bits)
		if err != nil {
			return nil, err
		}
		return appendUint(b, n, bits/8), nil
	case shortstr:
		s, err := unquote(text)
		if err != nil {
			return nil, err
		}
		if len(s) > 255 {
			return nil, fmt.Errorf("short string of %d bytes", len(s))
		}
		return append(append(b, byte(len(s))), s...), nil
	case longstr:
		s, err := unquote(text)
		if err != nil {
			return nil, err
		}
		return append(appendUint(b, uint64(len(s)), 4), s...), nil
	case table:
		if text == "" {
			text = "{}"
		}
		return encodeTable(b, text)
	}
	return nil, fmt.Errorf("no such kind %q", kind)
}

func appendUint(b []byte, n uint64, size int) []byte {
	for i := size - 1; i >= 0; i-- {
		b = append(b, byte(n>>(8*i)))
	}
	return b
}

func unquote(text string) (string, error) {
	if strings.HasPrefix(text, `"`) {
		return strconv.Unquote(text)
	}
	return text, nil
}

// splitTop splits at sep where it is neither quoted nor inside brackets.
func splitTop(text string, sep byte) []string {
	var parts []string
	depth, start, quoted := 0, 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
		case c == sep && depth == 0:
			parts = append(parts, text[start:i])
			start = i + 1
		}
	}
	return append(parts, text[start:])
}

func inBrackets(text, brackets string) ([]string, error) {
	if len(text) < 2 || text[0] != brackets[0] || text[len(text)-1] != brackets[1] {
		return nil, fmt.Errorf("%q is not in %s", text, brackets)
	}
	if text = text[1 : len(text)-1]; text == "" {
		return nil, nil
	}
	return splitTop(text, ','), nil
}

// encodeTable appends a table with its length.
func encodeTable(b []byte, text string) ([]byte, error) {
	pairs, err := inBrackets(text, "{}")
	if err != nil {
		return nil, err
	}
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	for _, p := range pairs {
		i := len(splitTop(p, '=')[0])
		if i == len(p) {
			return nil, fmt.Errorf("%q has no value", p)
		}
		name, err := unquote(p[:i])
		if err != nil {
			return nil, err
		}
		b = append(append(b, byte(len(name))), name...)
		if b, err = encodeTyped(b, p[i+1:]); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-4))
	return b, nil
}

// encodeTyped appends letter and value of "L:text" (or "V").
func encodeTyped(b []byte, text string) ([]byte, error) {
	if text == "" {
		return nil, errors.New("value without a type letter")
	}
	letter, rest := text[0], strings.TrimPrefix(text[1:], ":")
	b = append(b, letter)
	switch letter {
	case 't', 'b', 'B':
		return appendInt(b, rest, 1)
	case 's', 'u':
		return appendInt(b, rest, 2)
	case 'I', 'i':
		return appendInt(b, rest, 4)
	case 'l', 'L', 'T':
		return appendInt(b, rest, 8)
	case 'f', 'd':
		x, err := strconv.ParseFloat(rest, 64)
		if err != nil {
			return nil, err
		}
		if letter == 'f' {
			return appendUint(b, uint64(math.Float32bits(float32(x))), 4), nil
		}
		return appendUint(b, math.Float64bits(x), 8), nil
	case 'S', 'x':
		return encodeValue(b, longstr, rest)
	case 'A':
		items, err := inBrackets(rest, "[]")
		if err != nil {
			return nil, err
		}
		start := len(b)
		b = append(b, 0, 0, 0, 0)
		for _, item := range items {
			if b, err = encodeTyped(b, item); err != nil {
				return nil, err
			}
		}
		binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-4))
		return b, nil
	case 'F':
		return encodeTable(b, rest)
	case 'V':
		return b, nil
	}
	raw, err := hex.DecodeString(rest) // a letter that does not exist, or D: bytes as they are
	return append(b, raw...), err
}

func appendInt(b []byte, text string, size int) ([]byte, error) {
	if n, err := strconv.ParseUint(text, 0, size*8); err == nil {
		return appendUint(b, n, size), nil
	}
	n, err := strconv.ParseInt(text, 0, size*8)
	return appendUint(b, uint64(n), size), err
}

// reader is a cursor with a sticky error.
type reader struct {
	b   []byte
	err error
}

func (r *reader) take(n uint64) []byte {
	if uint64(len(r.b)) < n {
		r.err = fmt.Errorf("%d bytes wanted, %d there", n, len(r.b))
		r.b = nil
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) uint(size int) uint64 {
	var n uint64
	for _, c := range r.take(uint64(size)) {
		n = n<<8 | uint64(c)
	}
	return n
}

// value renders the next field of that kind.
func (r *reader) value(kind string) string {
	switch kind {
	case octet:
		return strconv.FormatUint(r.uint(1), 10)
	case short:
		return strconv.FormatUint(r.uint(2), 10)
	case long:
		return strconv.FormatUint(r.uint(4), 10)
	case longlong:
		return strconv.FormatUint(r.uint(8), 10)
	case shortstr:
		return string(r.take(r.uint(1)))
	case longstr:
		return string(r.take(r.uint(4)))
	case table:
		return r.table()
	}
	panic("no such kind " + kind)
}

func (r *reader) table() string {
	in := reader{b: r.take(r.uint(4))}
	var parts []string
	for len(in.b) > 0 && in.err == nil {
		name := in.value(shortstr)
		parts = append(parts, quoteName(name)+"="+in.typed())
	}
	if r.err == nil {
		r.err = in.err
	}
	slices.Sort(parts) // the order of keys has no meaning, and some brokers sort them
	return "{" + strings.Join(parts, ",") + "}"
}

func (r *reader) typed() string {
	letter := byte(r.uint(1))
	out := string(letter) + ":"
	switch letter {
	case 't', 'B':
		return out + strconv.FormatUint(r.uint(1), 10)
	case 'b':
		return out + strconv.FormatInt(int64(int8(r.uint(1))), 10)
	case 's':
		return out + strconv.FormatInt(int64(int16(r.uint(2))), 10)
	case 'u':
		return out + strconv.FormatUint(r.uint(2), 10)
	case 'I':
		return out + strconv.FormatInt(int64(int32(r.uint(4))), 10)
	case 'i':
		return out + strconv.FormatUint(r.uint(4), 10)
	case 'l', 'L':
		return out + strconv.FormatInt(int64(r.uint(8)), 10)
	case 'T':
		return out + strconv.FormatUint(r.uint(8), 10)
	case 'f':
		return out + strconv.FormatFloat(float64(math.Float32frombits(uint32(r.uint(4)))), 'g', -1, 32)
	case 'd':
		return out + strconv.FormatFloat(math.Float64frombits(r.uint(8)), 'g', -1, 64)
	case 'D':
		return out + hex.EncodeToString(r.take(5))
	case 'S', 'x':
		return out + quoteName(r.value(longstr))
	case 'A':
		in := reader{b: r.take(r.uint(4))}
		var parts []string
		for len(in.b) > 0 && in.err == nil {
			parts = append(parts, in.typed())
		}
		if r.err == nil {
			r.err = in.err
		}
		return out + "[" + strings.Join(parts, ",") + "]"
	case 'F':
		return out + r.table()
	case 'V':
		return string(letter)
	}
	r.err = fmt.Errorf("type letter %q", letter)
	return out
}

func quoteName(s string) string {
	if s == "" || strings.ContainsAny(s, "{}[],=\" \\\t\r\n\x00") || strconv.Quote(s) != `"`+s+`"` {
		return strconv.Quote(s)
	}
	return s
}

// canonical renders a script's value the way a received one is rendered.
func canonical(kind, text string) (string, error) {
	b, err := encodeValue(nil, kind, text)
	if err != nil {
		return "", err
	}
	r := reader{b: b}
	return r.value(kind), r.err
}
