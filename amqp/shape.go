package amqp

import "encoding/binary"

// Errors of tables are shared values: there is nothing of the input in them, and refusing a hostile table
// should be cheap.
var (
	errTableEnd      = SyntaxError("field table ends too early")
	errTableDepth    = SyntaxError("field table is nested deeper than %d levels", MaxTableDepth)
	errTableFields   = SyntaxError("field table has more than %d fields", MaxTableFields)
	errTableElements = SyntaxError("field table has more than %d array elements", MaxTableElements)
	errFieldName     = SyntaxError("field name is longer than %d bytes", MaxShortString)
)

// shape checks that a table is well-formed and within the limits, and counts. It allocates nothing, so
// that it can run before anything is built. Methods take what they check and its level.
type shape struct {
	fieldCount   int
	elementCount int
}

// width returns the length of a value by its letter: -1 if four bytes of length come first, -2 for an
// unknown letter.
func width(kind byte) int {
	switch kind {
	case KindVoid:
		return 0
	case KindBool, KindByte, KindUnsignedByte:
		return 1
	case KindShort, KindUnsignedShort:
		return 2
	case KindInt, KindUnsignedInt, KindFloat:
		return 4
	case KindDecimal:
		return 5
	case KindLong, 'L', KindDouble, KindTimestamp:
		return 8
	case KindString, KindBinary, KindArray, KindTable:
		return -1
	}
	return -2
}

// open reads the length at the head of b and checks that so much follows.
func (s *shape) open(b []byte) (int, *Error) {
	if len(b) < 4 {
		return 0, errTableEnd
	}
	n := binary.BigEndian.Uint32(b)
	if uint64(n) > uint64(len(b)-4) {
		return 0, errTableEnd
	}
	return int(n), nil
}

// table checks all of b to be fields.
func (s *shape) table(b []byte, level int) *Error {
	if level > MaxTableDepth {
		return errTableDepth
	}
	for len(b) > 0 {
		if s.fieldCount++; s.fieldCount > MaxTableFields {
			return errTableFields
		}
		name := 1 + int(b[0])
		if len(b) <= name {
			return errTableEnd
		}
		n, err := s.value(b[name:], level)
		if err != nil {
			return err
		}
		b = b[name+n:]
	}
	return nil
}

// array checks all of b to be values.
func (s *shape) array(b []byte, level int) *Error {
	if level > MaxTableDepth {
		return errTableDepth
	}
	for len(b) > 0 {
		if s.elementCount++; s.elementCount > MaxTableElements {
			return errTableElements
		}
		n, err := s.value(b, level)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// value checks the value at the head of b, which is not empty, and returns its length with the letter.
func (s *shape) value(b []byte, level int) (int, *Error) {
	w := width(b[0])
	if w >= 0 {
		if len(b) < 1+w {
			return 0, errTableEnd
		}
		return 1 + w, nil
	}
	if w == -2 {
		return 0, unknownKind(b[0])
	}
	n, err := s.open(b[1:])
	if err != nil {
		return 0, err
	}
	switch b[0] {
	case KindArray:
		err = s.array(b[5:5+n], level+1)
	case KindTable:
		err = s.table(b[5:5+n], level+1)
	}
	return 5 + n, err
}

//go:noinline
func unknownKind(kind byte) *Error {
	if kind > ' ' && kind < 0x7f {
		return SyntaxError("unknown field type '%c'", kind)
	}
	return SyntaxError("unknown field type %d", kind)
}

// fields is table for one that is not encoded yet.
func (s *shape) fields(t Table, level int) *Error {
	if level > MaxTableDepth {
		return errTableDepth
	}
	for i := range t {
		if s.fieldCount++; s.fieldCount > MaxTableFields {
			return errTableFields
		}
		if len(t[i].Name) > MaxShortString {
			return errFieldName
		}
		if err := s.item(t[i].Value, level); err != nil {
			return err
		}
	}
	return nil
}

func (s *shape) item(v Value, level int) *Error {
	switch v.kind {
	case KindTable:
		return s.fields(v.Table(), level+1)
	case KindArray:
		if level >= MaxTableDepth {
			return errTableDepth
		}
		for _, item := range v.Array() {
			if s.elementCount++; s.elementCount > MaxTableElements {
				return errTableElements
			}
			if err := s.item(item, level+1); err != nil {
				return err
			}
		}
	}
	return nil
}
