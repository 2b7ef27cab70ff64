package amqp

import (
	"encoding/binary"
	"sort"
)

// Limits of a table, for a hostile one of a few bytes must not become a deep stack or a large tree. A
// table inside a table or an array counts towards its outermost table.
const (
	// MaxTableDepth is how deep tables and arrays nest, the outermost table being the first level.
	MaxTableDepth = 32
	// MaxTableFields is the most fields of a table and all tables in it.
	MaxTableFields = 4096
	// MaxTableElements is the most elements of all arrays in a table. Only arrays of one- and two-byte
	// values come near it within a frame of 128 KiB.
	MaxTableElements = 65536
)

// Field is a named value. A name has at most 255 bytes, of any kind.
type Field struct {
	Name  string
	Value Value
}

// Table is a list of fields in the order of the wire. A name may occur twice; the first one counts.
type Table []Field

// Get returns the first field of that name.
func (t Table) Get(name string) (Value, bool) {
	for i := range t {
		if t[i].Name == name {
			return t[i].Value, true
		}
	}
	return Value{}, false
}

// Equal reports whether two tables have equal fields in the same order.
func (t Table) Equal(o Table) bool {
	if len(t) != len(o) {
		return false
	}
	for i := range t {
		if t[i].Name != o[i].Name || !t[i].Value.Equal(o[i].Value) {
			return false
		}
	}
	return true
}

// Sorted returns the table in order of names, without fields that an earlier one of the same name hides.
// Two tables with the same fields have the same sorted encoding, so that it can serve as their identity.
func (t Table) Sorted() Table {
	s := append(Table(nil), t...)
	sort.SliceStable(s, func(i, j int) bool { return s[i].Name < s[j].Name })
	out := s[:0]
	for i := range s {
		if i == 0 || s[i].Name != s[i-1].Name {
			out = append(out, s[i])
		}
	}
	return out
}

// ParseTable reads an encoded table with its four bytes of length and returns what follows it. The table
// keeps nothing of b. err is an *Error 502.
func ParseTable(b []byte) (t Table, rest []byte, err error) {
	t, rest, e := parseTable(b)
	if e != nil {
		return nil, nil, e
	}
	return t, rest, nil
}

func parseTable(b []byte) (Table, []byte, *Error) {
	var s shape
	n, err := s.open(b)
	if err != nil {
		return nil, nil, err
	}
	inner := b[4 : 4+n]
	if err := s.table(inner, 1); err != nil {
		return nil, nil, err
	}
	d := decoder{b: inner, s: string(inner)}
	return d.table(0, n), b[4+n:], nil
}

// CheckTable reports whether b starts with a well-formed table and returns what follows it, without
// building or allocating anything. err is an *Error 502.
func CheckTable(b []byte) (rest []byte, err error) {
	rest, e := checkTable(b)
	if e != nil {
		return nil, e
	}
	return rest, nil
}

func checkTable(b []byte) ([]byte, *Error) {
	var s shape
	n, err := s.open(b)
	if err != nil {
		return nil, err
	}
	if err := s.table(b[4:4+n], 1); err != nil {
		return nil, err
	}
	return b[4+n:], nil
}

// Append appends the encoded table with its length. It panics when a name is longer than 255 bytes.
func (t Table) Append(b []byte) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	for i := range t {
		b = appendShortString(b, t[i].Name)
		b = t[i].Value.Append(b)
	}
	return closeLength(b, start)
}

// Append appends the value's letter and its encoding.
func (v Value) Append(b []byte) []byte {
	kind := v.Kind()
	b = append(b, kind)
	switch kind {
	case KindBool, KindByte, KindUnsignedByte:
		return append(b, byte(v.num))
	case KindShort, KindUnsignedShort:
		return binary.BigEndian.AppendUint16(b, uint16(v.num))
	case KindInt, KindUnsignedInt, KindFloat:
		return binary.BigEndian.AppendUint32(b, uint32(v.num))
	case KindLong, KindDouble, KindTimestamp:
		return binary.BigEndian.AppendUint64(b, v.num)
	case KindDecimal:
		return binary.BigEndian.AppendUint32(append(b, v.scale), uint32(v.num))
	case KindString, KindBinary:
		if uint64(len(v.str)) > maxLongString {
			panicLong(len(v.str))
		}
		b = binary.BigEndian.AppendUint32(b, uint32(len(v.str)))
		return append(b, v.str...)
	case KindArray:
		start := len(b)
		b = append(b, 0, 0, 0, 0)
		for _, item := range v.Array() {
			b = item.Append(b)
		}
		return closeLength(b, start)
	case KindTable:
		return v.Table().Append(b)
	}
	return b // void
}

// closeLength fills in the length of what was appended after the four bytes at start.
func closeLength(b []byte, start int) []byte {
	n := len(b) - start - 4
	if uint64(n) > maxLongString {
		panicLong(n)
	}
	binary.BigEndian.PutUint32(b[start:], uint32(n))
	return b
}

// Check reports whether the table can be encoded and will be accepted by ParseTable. It is for tables that
// were not parsed, such as those of a definitions file. err is an *Error 502.
func (t Table) Check() error {
	var s shape
	if err := s.fields(t, 1); err != nil {
		return err
	}
	return nil
}

// decoder builds values from input that shape has found well-formed. It holds the input twice: numbers
// are read from the bytes, text is cut out of the one copy.
type decoder struct {
	b []byte
	s string // of b; empty if there is no text in it
}

// table decodes the fields in b[i:end].
func (d *decoder) table(i, end int) Table {
	n := 0
	for j := i; j < end; n++ {
		j = d.skip(j + 1 + int(d.b[j]))
	}
	if n == 0 {
		return nil
	}
	t := make(Table, n)
	for k := range t {
		at := i + 1 + int(d.b[i])
		t[k].Name = d.s[i+1 : at]
		t[k].Value = d.value(at)
		i = d.skip(at)
	}
	return t
}

// array decodes the values in b[i:end].
func (d *decoder) array(i, end int) []Value {
	n := 0
	for j := i; j < end; n++ {
		j = d.skip(j)
	}
	if n == 0 {
		return nil
	}
	a := make([]Value, n)
	for k := range a {
		a[k] = d.value(i)
		i = d.skip(i)
	}
	return a
}

// skip returns where the value at i ends.
func (d *decoder) skip(i int) int {
	if w := width(d.b[i]); w >= 0 {
		return i + 1 + w
	}
	return i + 5 + int(binary.BigEndian.Uint32(d.b[i+1:]))
}

// value decodes the value whose letter is at i.
func (d *decoder) value(i int) Value {
	kind, at := d.b[i], i+1
	switch kind {
	case KindBool:
		return Bool(d.b[at] != 0)
	case KindByte:
		return Int8(int8(d.b[at]))
	case KindUnsignedByte:
		return Uint8(d.b[at])
	case KindShort:
		return Int16(int16(binary.BigEndian.Uint16(d.b[at:])))
	case KindUnsignedShort:
		return Uint16(binary.BigEndian.Uint16(d.b[at:]))
	case KindInt:
		return Int32(int32(binary.BigEndian.Uint32(d.b[at:])))
	case KindUnsignedInt:
		return Uint32(binary.BigEndian.Uint32(d.b[at:]))
	case KindLong, 'L':
		return Value{kind: KindLong, num: binary.BigEndian.Uint64(d.b[at:])}
	case KindFloat:
		return Value{kind: kind, num: uint64(binary.BigEndian.Uint32(d.b[at:]))}
	case KindDouble, KindTimestamp:
		return Value{kind: kind, num: binary.BigEndian.Uint64(d.b[at:])}
	case KindDecimal:
		return Decimal(d.b[at], binary.BigEndian.Uint32(d.b[at+1:]))
	case KindString, KindBinary:
		return Value{kind: kind, str: d.s[at+4 : d.skip(i)]}
	case KindArray:
		return ArrayValue(d.array(at+4, d.skip(i))...)
	case KindTable:
		return TableValue(d.table(at+4, d.skip(i)))
	}
	return Void()
}
