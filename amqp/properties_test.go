package amqp

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"strings"
	"testing"
)

// everyProperty has all fourteen.
func everyProperty() Properties {
	return Properties{
		Flags:           0xfffc,
		ContentType:     []byte("text/plain"),
		ContentEncoding: []byte("gzip"),
		Headers:         Table{{"BCC", ArrayValue(String("q"))}, {"n", Int32(7)}, {"BCC", Void()}, {"s", String("v")}}.Append(nil),
		DeliveryMode:    2,
		Priority:        9,
		CorrelationID:   []byte("c"),
		ReplyTo:         []byte("r"),
		Expiration:      []byte("60000"),
		MessageID:       []byte("m"),
		Timestamp:       1700000000,
		Type:            []byte("t"),
		UserID:          []byte("guest"),
		AppID:           []byte("a"),
		ClusterID:       []byte("cl"),
	}
}

func TestPropertiesHaveTheirGoldenBytes(t *testing.T) {
	p := everyProperty()
	p.Headers = Table{{"a", Bool(true)}}.Append(nil)
	want, err := hex.DecodeString(strings.ReplaceAll("fffc 0a746578742f706c61696e 04677a6970 00000004 01617401 02 09 0163 0172 "+
		"053630303030 016d 000000006553f100 0174 056775657374 0161 02636c", " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	if have := p.Append(nil); !bytes.Equal(have, want) {
		t.Fatalf("have %x\nwant %x", have, want)
	}
}

func TestPropertiesRoundTripInEveryCombination(t *testing.T) {
	all := everyProperty()
	for flags := 0; flags < 1<<16; flags += 4 {
		all.Flags = uint16(flags)
		b := all.Append(nil)
		var p Properties
		if err := ParseProperties(b, &p); err != nil {
			t.Fatalf("%#x: %v", flags, err)
		}
		if p.Flags != uint16(flags) || !bytes.Equal(p.Append(nil), b) {
			t.Fatalf("%#x: %+v", flags, p)
		}
		if headers := HeadersOf(b); !bytes.Equal(headers, p.Headers) {
			t.Fatalf("%#x: HeadersOf %x", flags, headers)
		}
	}
	var p Properties
	all = everyProperty()
	must(t, ParseProperties(all.Append(nil), &p))
	if !reflect.DeepEqual(p, all) {
		t.Fatalf("have %+v\nwant %+v", p, all)
	}
	if !p.Has(PropClusterID) || (&Properties{Flags: PropType}).Has(PropAppID) {
		t.Fatal("Has")
	}
}

func TestParsePropertiesForgetsTheMessageBefore(t *testing.T) {
	all := everyProperty()
	var p Properties
	must(t, ParseProperties(all.Append(nil), &p))
	must(t, ParseProperties([]byte{0, 0}, &p))
	if !reflect.DeepEqual(p, Properties{}) {
		t.Fatalf("%+v", p)
	}
}

func TestMalformedPropertiesAreSyntaxErrors(t *testing.T) {
	all := everyProperty()
	all.Headers = Table{{"a", Bool(true)}}.Append(nil)
	b := all.Append(nil)
	var p Properties
	for n := range b {
		err := ParseProperties(b[:n], &p)
		if e, ok := err.(*Error); !ok || e.Code != ReplySyntaxError {
			t.Fatalf("%d of %d bytes: %v", n, len(b), err)
		}
	}
	wantError(t, ParseProperties(append(b, 0), &p), 502, "SYNTAX_ERROR - malformed content properties")
	wantError(t, ParseProperties(nil, &p), 502, "SYNTAX_ERROR - malformed content properties")
}

func TestLowestFlagsAreIgnored(t *testing.T) {
	var p Properties
	must(t, ParseProperties([]byte{0x10, 0x03, 2}, &p))
	if p.Flags != PropDeliveryMode || p.DeliveryMode != Persistent {
		t.Fatalf("%+v", p)
	}
	p.Flags |= 3
	if b := p.Append(nil); !bytes.Equal(b, []byte{0x10, 0, 2}) {
		t.Fatalf("%x", b)
	}
}

func TestEmptyHeaderTableIsPreserved(t *testing.T) {
	in := []byte{0x20, 0, 0, 0, 0, 0}
	var p Properties
	must(t, ParseProperties(in, &p))
	if !p.Has(PropHeaders) || len(p.Headers) != 4 || !bytes.Equal(p.Append(nil), in) {
		t.Fatalf("%+v", p)
	}
	p.Headers = nil
	if !bytes.Equal(p.Append(nil), in) {
		t.Fatal("the flag without bytes is no empty table")
	}
}

func TestLookupHeaderFindsWhatTheTableHas(t *testing.T) {
	table := append(everyKind(), Field{"S", String("hidden by the first")})
	headers := table.Append(nil)
	for _, f := range everyKind() {
		v, ok := LookupHeader(headers, f.Name)
		if !ok || !v.Equal(f.Value) || v.Kind() != f.Value.Kind() {
			t.Errorf("%s: %v %t", f.Name, v, ok)
		}
	}
	for _, name := range []string{"", "none", "inner"} {
		if v, ok := LookupHeader(headers, name); ok {
			t.Errorf("%q: %v", name, v)
		}
	}
	if _, ok := LookupHeader(nil, "a"); ok {
		t.Error("found in nothing")
	}
}

func TestLookupHeaderKeepsNothingOfItsInput(t *testing.T) {
	headers := everyKind().Append(nil)
	v, _ := LookupHeader(headers, "A")
	want := everyKind()
	for i := range headers {
		headers[i] = 0xAA
	}
	if w, _ := want.Get("A"); !v.Equal(w) {
		t.Fatal(v)
	}
}

func TestWithoutHeaderRemovesEveryFieldOfTheName(t *testing.T) {
	all := everyProperty()
	props := all.Append(nil)
	before := bytes.Clone(props)
	have := WithoutHeader(props, "BCC")
	want := everyProperty()
	want.Headers = Table{{"n", Int32(7)}, {"s", String("v")}}.Append(nil)
	if !bytes.Equal(have, want.Append(nil)) {
		t.Fatalf("have %x\nwant %x", have, want.Append(nil))
	}
	if !bytes.Equal(props, before) {
		t.Fatal("changed its input")
	}
	have = WithoutHeader(WithoutHeader(have, "n"), "s")
	want.Headers = []byte{0, 0, 0, 0}
	if !bytes.Equal(have, want.Append(nil)) {
		t.Fatalf("the emptied table: %x", have)
	}
}

func TestWithoutHeaderReturnsWhatHasNone(t *testing.T) {
	all := everyProperty()
	none := Properties{Flags: PropType, Type: []byte("t")}
	for _, props := range [][]byte{nil, {0}, {0, 0}, none.Append(nil), all.Append(nil), {0x20, 0, 0, 0, 0, 9}, {0x20, 0, 0, 0, 0, 1, 'x'}} {
		have := WithoutHeader(props, "other")
		if len(have) != len(props) || len(props) > 0 && &have[0] != &props[0] {
			t.Errorf("%x became %x", props, have)
		}
	}
}

// TestWithReplyTo replaces the one property and leaves the others as they are, byte for byte.
func TestWithReplyTo(t *testing.T) {
	headers := Table{{Name: "k", Value: String("v")}}.Append(nil)
	all := Properties{
		Flags:       PropContentType | PropContentEncoding | PropHeaders | PropDeliveryMode | PropPriority | PropCorrelationID | PropReplyTo | PropExpiration | PropMessageID | PropTimestamp | PropType | PropUserID | PropAppID | PropClusterID,
		ContentType: []byte("t"), ContentEncoding: []byte("e"), Headers: headers, DeliveryMode: 2, Priority: 3,
		CorrelationID: []byte("c"), ReplyTo: []byte("old"), Expiration: []byte("5"), MessageID: []byte("m"), Timestamp: 7,
		Type: []byte("y"), UserID: []byte("u"), AppID: []byte("a"), ClusterID: []byte("l"),
	}
	flags := all.Flags
	for f := uint16(1 << 15); f >= PropClusterID; f >>= 1 { // all, and all without each
		all.Flags = flags&^f | PropReplyTo
		all.ReplyTo = []byte("old")
		before := all.Append(nil)
		all.ReplyTo = []byte("a longer name")
		want := all.Append(nil)
		if got := WithReplyTo(before, "a longer name"); !bytes.Equal(got, want) {
			t.Errorf("without %#x: %x\nwant %x", f, got, want)
		}
	}
	for _, bad := range [][]byte{nil, {1}, {0, 0}, {0x02, 0}, {0x02, 0, 9, 'x'}, {0x20, 0, 0, 0}} {
		if got := WithReplyTo(bad, "n"); !bytes.Equal(got, bad) {
			t.Errorf("%x became %x", bad, got)
		}
	}
}

func TestSetField(t *testing.T) {
	f := func(name string, v Value) Field { return Field{Name: name, Value: v} }
	for _, tt := range []struct{ before, want Table }{
		{nil, Table{f("k", Int32(9))}},
		{Table{f("a", Void())}, Table{f("a", Void()), f("k", Int32(9))}},
		{Table{f("k", String("old")), f("a", Void()), f("k", Bool(true)), f("b", Int8(1))}, Table{f("a", Void()), f("b", Int8(1)), f("k", Int32(9))}},
		{Table{f("K", TableValue(Table{f("k", Void())}))}, Table{f("K", TableValue(Table{f("k", Void())})), f("k", Int32(9))}},
	} {
		if got := SetField(tt.before.Append(nil), "k", Int32(9)); !bytes.Equal(got, tt.want.Append(nil)) {
			t.Errorf("%v: %x, want %x", tt.before, got, tt.want.Append(nil))
		}
	}
	for _, bad := range [][]byte{nil, {1}, {0, 0, 0}} {
		if got := SetField(bad, "k", Void()); !bytes.Equal(got, (Table{f("k", Void())}).Append(nil)) {
			t.Errorf("%x became %x", bad, got)
		}
	}
}

func TestParseExpiration(t *testing.T) {
	for _, c := range []struct {
		text   string
		millis int64
		why    string
	}{
		{"0", 0, ""},
		{"60000", 60000, ""},
		{"+5", 5, ""},
		{"-0", 0, ""},
		{"000000000000000000000000000000500", 500, ""},
		{"315360000000", MaxExpiration, ""},
		{"315360000001", 0, "{value_too_large,315360000001}"},
		{"99999999999999999999999999", 0, "{value_too_large,99999999999999999999999999}"},
		{"-1", 0, "{value_negative,-1}"},
		{"-99999999999999999999999999", 0, "{value_negative,-99999999999999999999999999}"},
		{"", 0, "no_integer"},
		{"-", 0, "no_integer"},
		{"x", 0, "no_integer"},
		{" 5", 0, "no_integer"},
		{"5s", 0, `{leftover_string,"s"}`},
		{"1.5", 0, `{leftover_string,".5"}`},
	} {
		if millis, why := ParseExpiration([]byte(c.text)); millis != c.millis || why != c.why {
			t.Errorf("ParseExpiration(%q) = %d, %q, want %d, %q", c.text, millis, why, c.millis, c.why)
		}
	}
}
