package amqp

import (
	"bytes"
	"encoding/hex"
	"math"
	"strings"
	"testing"
)

// everyKind holds one value of every type.
func everyKind() Table {
	return Table{
		{"t", Bool(true)},
		{"b", Int8(-2)},
		{"B", Uint8(200)},
		{"s", Int16(-300)},
		{"u", Uint16(60000)},
		{"I", Int32(-70000)},
		{"i", Uint32(4000000000)},
		{"l", Int64(math.MinInt64)},
		{"f", Float32(1.5)},
		{"d", Float64(-2.25)},
		{"D", Decimal(2, 314)},
		{"S", String("text\xff")},
		{"x", Binary([]byte{0, 1})},
		{"T", Timestamp(1700000000)},
		{"V", Void()},
		{"A", ArrayValue(Int32(1), String("two"), ArrayValue(), ArrayValue(Void()))},
		{"F", TableValue(Table{{"inner", Bool(false)}, {"empty", TableValue(nil)}})},
	}
}

// Written out by hand from the letters RabbitMQ uses.
const everyKindHex = "000000a5 " +
	"01 74 74 01  01 62 62 fe  01 42 42 c8  01 73 73 fed4  01 75 75 ea60  01 49 49 fffeee90  01 69 69 ee6b2800 " +
	"01 6c 6c 8000000000000000  01 66 66 3fc00000  01 64 64 c002000000000000  01 44 44 02 0000013a " +
	"01 53 53 00000005 74657874ff  01 78 78 00000002 0001  01 54 54 000000006553f100  01 56 56 " +
	"01 41 41 00000018 49 00000001 53 00000003 74776f 41 00000000 41 00000001 56 " +
	"01 46 46 00000013 05 696e6e6572 74 00 05 656d707479 46 00000000"

func TestTableHasItsGoldenBytes(t *testing.T) {
	want, err := hex.DecodeString(strings.ReplaceAll(everyKindHex, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	have := everyKind().Append(nil)
	if !bytes.Equal(have, want) {
		t.Fatalf("have %x\nwant %x", have, want)
	}
	parsed, rest, err := ParseTable(append(have, "rest"...))
	if err != nil || string(rest) != "rest" {
		t.Fatal(err, rest)
	}
	if !parsed.Equal(everyKind()) || !bytes.Equal(parsed.Append(nil), have) {
		t.Fatalf("%v", parsed)
	}
	for i, f := range parsed {
		if want := everyKind()[i].Value.Kind(); f.Value.Kind() != want || f.Name != string(want) {
			t.Errorf("field %s has kind %c", f.Name, f.Value.Kind())
		}
	}
}

func TestTableIsReadAsRabbitMQReadsIt(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     Table
	}{
		{"empty", "\x00\x00\x00\x00", nil},
		{"L is a signed l", "\x00\x00\x00\x0b\x01aL\xff\xff\xff\xff\xff\xff\xff\xff", Table{{"a", Int64(-1)}}},
		{"any bool but 0 is true", "\x00\x00\x00\x08\x01at\x02\x01bt\x00", Table{{"a", Bool(true)}, {"b", Bool(false)}}},
		{"empty name", "\x00\x00\x00\x02\x00V", Table{{"", Void()}}},
		{"name of any bytes", "\x00\x00\x00\x03\x01\xffV", Table{{"\xff", Void()}}},
	} {
		have, rest, err := ParseTable([]byte(c.in))
		if err != nil || len(rest) != 0 || !have.Equal(c.want) {
			t.Errorf("%s: %v, rest %q, %v", c.name, have, rest, err)
		}
	}
}

func TestMalformedTablesAreSyntaxErrors(t *testing.T) {
	const early = "SYNTAX_ERROR - field table ends too early"
	for _, c := range []struct{ name, in, text string }{
		{"nothing", "", early},
		{"no length", "\x00\x00\x00", early},
		{"length beyond the input", "\x00\x00\x00\x05\x01aV", early},
		{"largest length", "\xff\xff\xff\xff\x01aV", early},
		{"name beyond the table", "\x00\x00\x00\x03\x05aV", early},
		{"name without value", "\x00\x00\x00\x02\x01a", early},
		{"value cut", "\x00\x00\x00\x05\x01aI\x00\x00", early},
		{"length cut", "\x00\x00\x00\x05\x01aS\x00\x00", early},
		{"string beyond the table", "\x00\x00\x00\x08\x01aS\x00\x00\x00\x02x", early},
		{"string beyond the table but not the input", "\x00\x00\x00\x08\x01aS\x00\x00\x00\x02xyzzy", early},
		{"inner table beyond its field", "\x00\x00\x00\x0a\x01aF\x00\x00\x00\x03\x01bt\x01", early},
		{"array cut", "\x00\x00\x00\x08\x01aA\x00\x00\x00\x01I", early},
		{"the specification's U", "\x00\x00\x00\x05\x01aU\x00\x01", "SYNTAX_ERROR - unknown field type 'U'"},
		{"unprintable letter", "\x00\x00\x00\x03\x01a\x00", "SYNTAX_ERROR - unknown field type 0"},
		{"unknown letter in an array", "\x00\x00\x00\x08\x01aA\x00\x00\x00\x01Z", "SYNTAX_ERROR - unknown field type 'Z'"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := ParseTable([]byte(c.in))
			wantError(t, err, 502, c.text)
			_, err = CheckTable([]byte(c.in))
			wantError(t, err, 502, c.text)
			err = ParseProperties(append([]byte{0x20, 0}, c.in...), new(Properties))
			wantError(t, err, 502, c.text)
		})
	}
}

// deep nests tables and arrays by turns until the given number of levels is there.
func deep(levels int) Table {
	v := Void()
	for i := levels; i > 1; i-- {
		if i%2 == 0 {
			v = ArrayValue(v)
		} else {
			v = TableValue(Table{{"", v}})
		}
	}
	return Table{{"", v}}
}

func repeated(n int, v Value) []Value {
	items := make([]Value, n)
	for i := range items {
		items[i] = v
	}
	return items
}

func wide(n int) Table {
	t := make(Table, n)
	for i := range t {
		t[i].Value = Int32(int32(i))
	}
	return t
}

func TestTableLimits(t *testing.T) {
	for _, c := range []struct {
		name string
		in   Table
		text string
	}{
		{"deepest", deep(MaxTableDepth), ""},
		{"too deep", deep(MaxTableDepth + 1), "SYNTAX_ERROR - field table is nested deeper than 32 levels"},
		{"far too deep", deep(20000), "SYNTAX_ERROR - field table is nested deeper than 32 levels"},
		{"widest", wide(MaxTableFields), ""},
		{"too wide", wide(MaxTableFields + 1), "SYNTAX_ERROR - field table has more than 4096 fields"},
		{
			"wide inside",
			Table{{"a", ArrayValue(TableValue(wide(2000)), TableValue(wide(2096)))}},
			"SYNTAX_ERROR - field table has more than 4096 fields",
		},
		{"most elements", Table{{"a", ArrayValue(repeated(MaxTableElements, Void())...)}}, ""},
		{
			"too many elements",
			Table{{"a", ArrayValue(repeated(MaxTableElements, Void())...)}, {"b", ArrayValue(Void())}},
			"SYNTAX_ERROR - field table has more than 65536 array elements",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := c.in.Append(nil)
			parsed, _, err := ParseTable(b)
			_, checkErr := CheckTable(b)
			inMemory := c.in.Check()
			if c.text == "" {
				if err != nil || checkErr != nil || inMemory != nil {
					t.Fatal(err, checkErr, inMemory)
				}
				if !bytes.Equal(parsed.Append(nil), b) {
					t.Fatal("differs after a round trip")
				}
				return
			}
			wantError(t, err, 502, c.text)
			wantError(t, checkErr, 502, c.text)
			wantError(t, inMemory, 502, c.text)
		})
	}
	wantError(t, Table{{strings.Repeat("x", 256), Void()}}.Check(), 502, "SYNTAX_ERROR - field name is longer than 255 bytes")
}

func TestParsedTableKeepsNothingOfItsInput(t *testing.T) {
	b := everyKind().Append(nil)
	parsed, _, err := ParseTable(b)
	must(t, err)
	for i := range b {
		b[i] = 0xAA
	}
	if !parsed.Equal(everyKind()) {
		t.Fatal(parsed)
	}
}

func TestFirstFieldOfANameCounts(t *testing.T) {
	table := Table{{"b", Int32(1)}, {"a", Int32(2)}, {"b", Int32(3)}}
	if v, ok := table.Get("b"); !ok || !v.Equal(Int32(1)) {
		t.Error(v, ok)
	}
	if v, ok := table.Get("c"); ok || v.Kind() != KindVoid {
		t.Error(v, ok)
	}
	if s := table.Sorted(); !s.Equal(Table{{"a", Int32(2)}, {"b", Int32(1)}}) {
		t.Error(s)
	}
	if !table.Equal(Table{{"b", Int32(1)}, {"a", Int32(2)}, {"b", Int32(3)}}) {
		t.Error("Sorted changed its receiver")
	}
	if Table(nil).Sorted().Append(nil) == nil {
		t.Error("no table encodes to nothing")
	}
}

func TestValuesReadAsTheirType(t *testing.T) {
	for _, c := range []struct {
		v     Value
		kind  byte
		name  string
		isInt bool
		n     int64
	}{
		{Bool(true), 't', "bool", false, 0},
		{Int8(-1), 'b', "byte", true, -1},
		{Uint8(255), 'B', "unsignedbyte", true, 255},
		{Int16(-1), 's', "short", true, -1},
		{Uint16(65535), 'u', "unsignedshort", true, 65535},
		{Int32(-1), 'I', "signedint", true, -1},
		{Uint32(1 << 31), 'i', "unsignedint", true, 1 << 31},
		{Int64(-1), 'l', "long", true, -1},
		{Float32(1), 'f', "float", false, 0},
		{Float64(1), 'd', "double", false, 0},
		{Decimal(0, 1), 'D', "decimal", false, 0},
		{String("1"), 'S', "longstr", false, 0},
		{Binary([]byte("1")), 'x', "binary", false, 0},
		{Timestamp(1), 'T', "timestamp", false, 0},
		{Void(), 'V', "void", false, 0},
		{Value{}, 'V', "void", false, 0},
		{ArrayValue(Void()), 'A', "array", false, 0},
		{TableValue(nil), 'F', "table", false, 0},
	} {
		n, ok := c.v.Int()
		if c.v.Kind() != c.kind || c.v.TypeName() != c.name || c.v.IsInt() != c.isInt || ok != c.isInt || n != c.n {
			t.Errorf("%s: kind %c, int %t %d", c.v.TypeName(), c.v.Kind(), ok, n)
		}
	}
	if v, ok := Bool(false).Bool(); v || !ok {
		t.Error(v, ok)
	}
	if _, ok := Int8(1).Bool(); ok {
		t.Error("a number is no boolean")
	}
	if v, ok := Float32(1.5).Float(); v != 1.5 || !ok {
		t.Error(v, ok)
	}
	if v, ok := Int8(1).Float(); v != 0 || ok {
		t.Error(v, ok)
	}
	if s, v, ok := Decimal(2, 7).Decimal(); s != 2 || v != 7 || !ok {
		t.Error(s, v, ok)
	}
	if v, ok := Timestamp(7).Timestamp(); v != 7 || !ok {
		t.Error(v, ok)
	}
	if _, ok := Int64(7).Timestamp(); ok {
		t.Error("a number is no timestamp")
	}
	if v := Binary([]byte("ab")); v.Text() != "ab" || string(v.Bytes()) != "ab" {
		t.Error(v)
	}
	if String("x").Array() != nil || String("x").Table() != nil || ArrayValue(Void()).Table() != nil {
		t.Error("a value shows what it is not")
	}
}

func TestEqualComparesAsHeaderMatchingDoes(t *testing.T) {
	for _, c := range []struct {
		a, b              Value
		equal, equivalent bool
	}{
		{Int8(5), Int64(5), true, true},
		{Uint32(5), Int16(5), true, true},
		{Int8(-1), Uint8(255), false, false},
		{Int32(5), Float64(5), false, false},
		{Float32(0.5), Float64(0.5), true, true},
		{Int32(5), String("5"), false, false},
		{String("a"), Binary([]byte("a")), true, false},
		{Binary([]byte("a")), Binary([]byte("a")), true, true},
		{String("a"), String("A"), false, false},
		{Bool(true), Bool(true), true, true},
		{Bool(true), Int8(1), false, false},
		{Timestamp(1), Timestamp(1), true, true},
		{Timestamp(1), Int64(1), false, false},
		{Decimal(1, 10), Decimal(1, 10), true, true},
		{Decimal(1, 10), Decimal(2, 100), false, false},
		{Decimal(0, 1), Int32(1), false, false},
		{Void(), Value{}, true, true},
		{Void(), String(""), false, false},
		{ArrayValue(Int8(1)), ArrayValue(Int64(1)), true, true},
		{ArrayValue(Int8(1)), ArrayValue(Int8(1), Int8(2)), false, false},
		{ArrayValue(), ArrayValue(), true, true},
		{ArrayValue(), TableValue(nil), false, false},
		{TableValue(Table{{"a", Int8(1)}}), TableValue(Table{{"a", Int64(1)}}), true, true},
		{TableValue(Table{{"a", Int8(1)}}), TableValue(Table{{"b", Int8(1)}}), false, false},
	} {
		if c.a.Equal(c.b) != c.equal || c.b.Equal(c.a) != c.equal {
			t.Errorf("%s equals %s: %t", c.a.Describe(), c.b.Describe(), !c.equal)
		}
		if c.a.Equivalent(c.b) != c.equivalent || c.b.Equivalent(c.a) != c.equivalent {
			t.Errorf("%s is equivalent to %s: %t", c.a.Describe(), c.b.Describe(), !c.equivalent)
		}
	}
}

func TestValuesAreRenderedAsInRabbitMQsTexts(t *testing.T) {
	for _, c := range []struct {
		v          Value
		text, term string
	}{
		{Int32(60000), "60000", "60000"},
		{Int64(-5), "-5", "-5"},
		{Uint32(4000000000), "4000000000", "4000000000"},
		{Bool(false), "false", "false"},
		{String("reject-publish"), "reject-publish", `<<"reject-publish">>`},
		{String(""), "", "<<>>"},
		{String("a\"b\\\n"), "a\"b\\\n", `<<"a\"b\\\n">>`},
		{String("é"), "é", `<<"é"/utf8>>`},
		{String("\x00\xff"), "\x00\xff", "<<0,255>>"},
		{Binary([]byte("ab")), "ab", `<<"ab">>`},
		{Void(), "undefined", "undefined"},
		{Timestamp(17), "17", "17"},
		{Decimal(2, 314), "{2,314}", "{2,314}"},
		{Float64(1), "1.0", "1.0"},
		{Float64(0), "0.0", "0.0"},
		{Float64(-2.5), "-2.5", "-2.5"},
		{Float64(100), "100.0", "100.0"},
		{Float64(1000), "1.0e3", "1.0e3"},
		{Float64(1234.5), "1234.5", "1234.5"},
		{Float64(1e-5), "1.0e-5", "1.0e-5"},
		{Float64(0.001), "0.001", "0.001"},
		{Float64(1.5e300), "1.5e300", "1.5e300"},
		{ArrayValue(), "[]", "[]"},
		{ArrayValue(Int32(1), String("a")), `[{signedint,1},{longstr,<<"a">>}]`, `[{signedint,1},{longstr,<<"a">>}]`},
		{
			TableValue(Table{{"k", Bool(true)}, {"l", Void()}}), `[{<<"k">>,bool,true},{<<"l">>,void,undefined}]`,
			`[{<<"k">>,bool,true},{<<"l">>,void,undefined}]`,
		},
	} {
		if have := c.v.String(); have != c.text {
			t.Errorf("String: %s, want %s", have, c.text)
		}
		if have := string(AppendErlangTerm([]byte("- "), c.v)); have != "- "+c.term {
			t.Errorf("term: %s, want %s", have, c.term)
		}
	}
	if have, want := Int32(60000).Describe(), "the value '60000' of type 'signedint'"; have != want {
		t.Errorf("%s, want %s", have, want)
	}
}
