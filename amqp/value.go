package amqp

import "math"

// The letters that say of what type a value in a table is, as RabbitMQ reads and writes them.
const (
	KindBool          = 't'
	KindByte          = 'b' // 8 bits, signed
	KindUnsignedByte  = 'B'
	KindShort         = 's' // 16 bits, signed; not the specification's short string
	KindUnsignedShort = 'u'
	KindInt           = 'I' // 32 bits, signed
	KindUnsignedInt   = 'i'
	KindLong          = 'l' // 64 bits, signed; 'L' is read as the same and never written
	KindFloat         = 'f' // 32 bits
	KindDouble        = 'd' // 64 bits
	KindDecimal       = 'D' // an unsigned 32-bit number and a power of ten to divide it by
	KindString        = 'S' // any bytes
	KindBinary        = 'x' // any bytes
	KindArray         = 'A'
	KindTimestamp     = 'T' // seconds since 1970, unsigned
	KindTable         = 'F'
	KindVoid          = 'V'
)

// Value is one typed value of a table or an array. The zero Value is void. Values are immutable and are
// compared with Equal or Equivalent, not with ==.
type Value struct {
	_     [0]func() // not comparable: == would compare pointers
	kind  byte      // 0 stands for void
	scale uint8     // of a decimal
	num   uint64    // integers (sign-extended), bool, timestamp, decimal, bits of floats
	str   string
	nest  *nested // of arrays and tables; nil for empty ones
}

type nested struct {
	array []Value
	table Table
}

// String returns a string value, letter S.
func String(s string) Value { return Value{kind: KindString, str: s} }

// Binary returns a binary value, letter x.
func Binary(b []byte) Value { return Value{kind: KindBinary, str: string(b)} }

// Bool returns a boolean value, letter t.
func Bool(v bool) Value { return Value{kind: KindBool, num: uint64(bit(v, 0))} }

// Int8 returns a value of letter b.
func Int8(v int8) Value { return Value{kind: KindByte, num: uint64(v)} }

// Uint8 returns a value of letter B.
func Uint8(v uint8) Value { return Value{kind: KindUnsignedByte, num: uint64(v)} }

// Int16 returns a value of letter s.
func Int16(v int16) Value { return Value{kind: KindShort, num: uint64(v)} }

// Uint16 returns a value of letter u.
func Uint16(v uint16) Value { return Value{kind: KindUnsignedShort, num: uint64(v)} }

// Int32 returns a value of letter I.
func Int32(v int32) Value { return Value{kind: KindInt, num: uint64(v)} }

// Uint32 returns a value of letter i.
func Uint32(v uint32) Value { return Value{kind: KindUnsignedInt, num: uint64(v)} }

// Int64 returns a value of letter l.
func Int64(v int64) Value { return Value{kind: KindLong, num: uint64(v)} }

// Float32 returns a value of letter f.
func Float32(v float32) Value { return Value{kind: KindFloat, num: uint64(math.Float32bits(v))} }

// Float64 returns a value of letter d.
func Float64(v float64) Value { return Value{kind: KindDouble, num: math.Float64bits(v)} }

// Decimal returns the value v / 10^scale, letter D.
func Decimal(scale uint8, v uint32) Value {
	return Value{kind: KindDecimal, scale: scale, num: uint64(v)}
}

// Timestamp returns a point in time in seconds since 1970, letter T.
func Timestamp(seconds uint64) Value { return Value{kind: KindTimestamp, num: seconds} }

// Void returns the value of letter V.
func Void() Value { return Value{kind: KindVoid} }

// ArrayValue returns an array of values, letter A. The slice becomes the value's.
func ArrayValue(items ...Value) Value {
	if len(items) == 0 {
		return Value{kind: KindArray}
	}
	return Value{kind: KindArray, nest: &nested{array: items}}
}

// TableValue returns a table, letter F. The table becomes the value's.
func TableValue(t Table) Value {
	if len(t) == 0 {
		return Value{kind: KindTable}
	}
	return Value{kind: KindTable, nest: &nested{table: t}}
}

// Kind returns the type's letter.
func (v Value) Kind() byte {
	if v.kind == 0 {
		return KindVoid
	}
	return v.kind
}

// TypeName returns the type's name as RabbitMQ's error texts have it, such as longstr or signedint.
func (v Value) TypeName() string {
	switch v.Kind() {
	case KindBool:
		return "bool"
	case KindByte:
		return "byte"
	case KindUnsignedByte:
		return "unsignedbyte"
	case KindShort:
		return "short"
	case KindUnsignedShort:
		return "unsignedshort"
	case KindInt:
		return "signedint"
	case KindUnsignedInt:
		return "unsignedint"
	case KindLong:
		return "long"
	case KindFloat:
		return "float"
	case KindDouble:
		return "double"
	case KindDecimal:
		return "decimal"
	case KindString:
		return "longstr"
	case KindBinary:
		return "binary"
	case KindArray:
		return "array"
	case KindTimestamp:
		return "timestamp"
	case KindTable:
		return "table"
	}
	return "void"
}

// IsInt reports whether the value is of one of the seven integer types. Neither a decimal nor a timestamp is.
func (v Value) IsInt() bool {
	switch v.kind {
	case KindByte, KindUnsignedByte, KindShort, KindUnsignedShort, KindInt, KindUnsignedInt, KindLong:
		return true
	}
	return false
}

// Int returns an integer of any width; false for every other type.
func (v Value) Int() (int64, bool) {
	if !v.IsInt() {
		return 0, false
	}
	return int64(v.num), true
}

// Bool returns a boolean; ok is false for every other type.
func (v Value) Bool() (value, ok bool) { return v.num != 0, v.kind == KindBool }

// Float returns a float of either width; false for every other type.
func (v Value) Float() (float64, bool) {
	switch v.kind {
	case KindFloat:
		return float64(math.Float32frombits(uint32(v.num))), true
	case KindDouble:
		return math.Float64frombits(v.num), true
	}
	return 0, false
}

// Decimal returns the parts of a decimal; ok is false for every other type.
func (v Value) Decimal() (scale uint8, value uint32, ok bool) {
	return v.scale, uint32(v.num), v.kind == KindDecimal
}

// Timestamp returns seconds since 1970; false for every other type.
func (v Value) Timestamp() (uint64, bool) {
	if v.kind != KindTimestamp {
		return 0, false
	}
	return v.num, true
}

// Text returns the bytes of a string or binary as a string, which need not be UTF-8; empty for every
// other type. Kind tells an empty string from no string.
func (v Value) Text() string { return v.str }

// Bytes returns a copy of the bytes of a string or binary.
func (v Value) Bytes() []byte { return []byte(v.str) }

// Array returns the elements of an array, not to be changed; nil for every other type.
func (v Value) Array() []Value {
	if v.kind != KindArray || v.nest == nil {
		return nil
	}
	return v.nest.array
}

// Table returns the fields of a table, not to be changed; nil for every other type.
func (v Value) Table() Table {
	if v.kind != KindTable || v.nest == nil {
		return nil
	}
	return v.nest.table
}

// Equal reports whether two values are the same thing as matching of headers sees it: integers of any
// width by their number, floats of either width by theirs, strings and binaries by their bytes, all else
// only within its type. An integer never equals a float, nor a number a string.
func (v Value) Equal(o Value) bool {
	class := v.class()
	if class != o.class() {
		return false
	}
	switch class {
	case KindDouble:
		a, _ := v.Float()
		b, _ := o.Float()
		return a == b
	case KindArray:
		return equalArrays(v.Array(), o.Array())
	case KindTable:
		return v.Table().Equal(o.Table())
	}
	return v.num == o.num && v.scale == o.scale && v.str == o.str
}

// Equivalent reports whether one value may stand for the other as an argument of a declaration. That is
// Equal, except that a string and a binary are of different types.
func (v Value) Equivalent(o Value) bool {
	return (v.kind == KindBinary) == (o.kind == KindBinary) && v.Equal(o)
}

// class returns one letter for all types whose values are compared with each other.
func (v Value) class() byte {
	switch k := v.Kind(); k {
	case KindByte, KindUnsignedByte, KindShort, KindUnsignedShort, KindInt, KindUnsignedInt:
		return KindLong
	case KindFloat:
		return KindDouble
	case KindBinary:
		return KindString
	default:
		return k
	}
}

func equalArrays(a, b []Value) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !a[i].Equal(b[i]) {
			return false
		}
	}
	return true
}
