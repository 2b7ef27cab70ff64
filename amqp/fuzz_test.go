package amqp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"testing"
)

// wantProtocolError fails unless err is an *Error of one of the codes.
func wantProtocolError(t *testing.T, err error, codes ...uint16) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("not an *Error: %v", err)
	}
	for _, code := range codes {
		if e.Code == code {
			// It has to fit into a close method.
			var m ConnectionClose
			if err := m.Decode(e.ConnectionClose().Append(nil)); err != nil {
				t.Fatalf("%q: %v", e.Text, err)
			}
			return
		}
	}
	t.Fatalf("code %d: %s", e.Code, e.Text)
}

// seedStreams are what real clients and this package's encoders send.
func seedStreams(f *testing.F) [][]byte {
	streams := [][]byte{publishFrames(), AppendHeartbeat(nil), frame(3, 0, "x", FrameEnd), frame(4, 1, "", 0)}
	captured, err := os.ReadDir("testdata/streams")
	if err != nil {
		f.Fatal(err)
	}
	for _, entry := range captured {
		b, err := os.ReadFile("testdata/streams/" + entry.Name())
		if err != nil {
			f.Fatal(err)
		}
		streams = append(streams, bytes.TrimPrefix(b, []byte(ProtocolHeader)))
	}
	return streams
}

func FuzzParseFrame(f *testing.F) {
	for _, s := range seedStreams(f) {
		f.Add(s, uint32(testMaxPayload))
		f.Add(s[:len(s)/2], uint32(8))
	}
	f.Fuzz(func(t *testing.T, b []byte, maxPayload uint32) {
		for len(b) > 0 {
			f, n, err := ParseFrame(b, maxPayload)
			if n < 0 || n > len(b) {
				t.Fatalf("n = %d of %d", n, len(b))
			}
			if err != nil {
				wantProtocolError(t, err, ReplyFrameError, ReplyUnexpectedFrame)
				return
			}
			if n == 0 {
				size := FrameSize(b)
				if size > 0 && (size <= len(b) || uint64(size) > uint64(maxPayload)+2*FrameOverhead) {
					t.Fatalf("asks for more than %d bytes of a frame of %d", len(b), size)
				}
				return
			}
			again := append(AppendFrameHead(nil, f.Type, f.Channel, uint32(len(f.Payload))), f.Payload...)
			if !bytes.Equal(append(again, FrameEnd), b[:n]) {
				t.Fatalf("%+v is not %x", f, b[:n])
			}
			fuzzPayload(t, f)
			b = b[n:]
		}
	})
}

// fuzzPayload reads a payload as a server would.
func fuzzPayload(t *testing.T, f Frame) {
	switch f.Type {
	case FrameMethod:
		if _, err := ParseMethod(f.Payload); err != nil {
			wantProtocolError(t, err, ReplyFrameError, ReplySyntaxError, ReplyCommandInvalid)
		}
	case FrameHeader:
		_, _, _, props, err := ParseContentHeader(f.Payload)
		if err != nil {
			t.Fatal("ParseFrame lets a header through that is none:", err)
		}
		if err := ParseProperties(props, new(Properties)); err != nil {
			wantProtocolError(t, err, ReplySyntaxError)
		}
	}
}

func FuzzParseMethod(f *testing.F) {
	for _, id := range methodIDs() {
		b := AppendMethod(nil, 1, filled(id))
		f.Add(b[7 : len(b)-1])
		b = AppendMethod(nil, 1, newMethod(id))
		f.Add(b[7 : len(b)-1])
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		before := bytes.Clone(payload)
		m, err := ParseMethod(payload)
		if !bytes.Equal(payload, before) {
			t.Fatal("the input was changed")
		}
		if err != nil {
			wantProtocolError(t, err, ReplyFrameError, ReplySyntaxError, ReplyCommandInvalid)
			return
		}
		if id, _ := PeekMethodID(payload); id != m.ID() {
			t.Fatalf("%s is decoded as %s", id, m.ID())
		}
		// Prose is cut or mended, reserved fields are lost: what is encoded again need not be the same,
		// but then it has to stay the same.
		args := m.Append(nil)
		if len(args) > 2*len(payload)+MaxShortString {
			t.Fatalf("%d bytes of payload are %d bytes of arguments", len(payload), len(args))
		}
		again := newMethod(m.ID())
		if err := again.Decode(args); err != nil {
			t.Fatalf("%s: %x: %v", m.ID(), args, err)
		}
		if !sameMethod(again, m) || !bytes.Equal(again.Append(nil), args) {
			t.Fatalf("%s: %+v became %+v", m.ID(), m, again)
		}
		if m.ID() == BasicDeliverID {
			if err := new(DeliverView).Decode(payload[4:]); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func FuzzTable(f *testing.F) {
	for _, t := range []Table{nil, everyKind(), benchTable(), deep(MaxTableDepth), deep(MaxTableDepth + 1), wide(3)} {
		f.Add(t.Append(nil))
	}
	f.Add([]byte("\x00\x00\x00\x0b\x01aL\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Add([]byte("\x00\x00\x00\x08\x01aS\xff\xff\xff\xff\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		rest, checkErr := CheckTable(b)
		table, left, err := ParseTable(b)
		if (err == nil) != (checkErr == nil) || !bytes.Equal(rest, left) {
			t.Fatalf("parse: %v, check: %v", err, checkErr)
		}
		if err != nil {
			wantProtocolError(t, err, ReplySyntaxError)
			LookupHeader(b, "a") // on anything: found or not, but no panic
			return
		}
		if err := table.Check(); err != nil {
			t.Fatal(err)
		}
		encoded := table.Append(nil)
		if len(encoded) != len(b)-len(rest) {
			t.Fatalf("%d bytes became %d", len(b)-len(rest), len(encoded))
		}
		again, rest, err := ParseTable(encoded)
		if err != nil || len(rest) != 0 || !bytes.Equal(again.Append(nil), encoded) {
			t.Fatalf("%v became %v: %v", table, again, err)
		}
		for _, field := range table {
			first, _ := table.Get(field.Name)
			found, ok := LookupHeader(encoded, field.Name)
			if !ok || !bytes.Equal(found.Append(nil), first.Append(nil)) {
				t.Fatalf("%q: %s, %t, want %s", field.Name, found, ok, first)
			}
			if field.Value.Describe() == "" || !first.Equal(found) && !hasNaN(first) {
				t.Fatalf("%s is not equal to itself", first)
			}
		}
		sorted := table.Sorted()
		if !bytes.Equal(sorted.Sorted().Append(nil), sorted.Append(nil)) {
			t.Fatal("Sorted does not settle")
		}
	})
}

// hasNaN reports whether there is a float in v that is not equal to itself.
func hasNaN(v Value) bool {
	if f, ok := v.Float(); ok {
		return f != f
	}
	for _, item := range v.Array() {
		if hasNaN(item) {
			return true
		}
	}
	for _, field := range v.Table() {
		if hasNaN(field.Value) {
			return true
		}
	}
	return false
}

func FuzzProperties(f *testing.F) {
	all := everyProperty()
	f.Add(all.Append(nil), "BCC")
	f.Add(typicalProperties(), "attempt")
	f.Add([]byte{0, 0}, "")
	f.Add([]byte{0x20, 0, 0, 0, 0, 0}, "CC")
	f.Add([]byte{0x20, 3, 0, 0, 0, 9, 1, 'a', 'S', 255, 255, 255, 255}, "a")
	f.Fuzz(func(t *testing.T, b []byte, name string) {
		before := bytes.Clone(b)
		without := WithoutHeader(b, name)
		headers := HeadersOf(b)
		var p Properties
		err := ParseProperties(b, &p)
		if !bytes.Equal(b, before) {
			t.Fatal("the input was changed")
		}
		if err != nil {
			wantProtocolError(t, err, ReplySyntaxError)
			return
		}
		want := bytes.Clone(b)
		want[1] &^= propIgnored
		if have := p.Append(nil); !bytes.Equal(have, want) {
			t.Fatalf("%x became %x", want, have)
		}
		if !bytes.Equal(headers, p.Headers) {
			t.Fatalf("HeadersOf %x, parsed %x", headers, p.Headers)
		}
		fuzzWithoutHeader(t, &p, without, name)
	})
}

// fuzzWithoutHeader compares WithoutHeader with the plain way: decode, drop, encode.
func fuzzWithoutHeader(t *testing.T, p *Properties, without []byte, name string) {
	var q Properties
	if err := ParseProperties(without, &q); err != nil {
		t.Fatalf("without %q: %v", name, err)
	}
	if p.Has(PropHeaders) {
		table, _, err := ParseTable(p.Headers)
		if err != nil {
			t.Fatal(err)
		}
		var kept Table
		for _, f := range table {
			if f.Name != name {
				kept = append(kept, f)
			}
		}
		have, _, err := ParseTable(q.Headers)
		if err != nil || !bytes.Equal(have.Append(nil), kept.Append(nil)) {
			t.Fatalf("without %q: %v, want %v: %v", name, have, kept, err)
		}
		if _, found := LookupHeader(q.Headers, name); found {
			t.Fatalf("%q is still there", name)
		}
	}
	q.Headers = p.Headers
	if !bytes.Equal(q.Append(nil), p.Append(nil)) {
		t.Fatalf("without %q: other properties changed", name)
	}
}

// The streams in testdata are what clients have sent, from the protocol header on.
func TestCapturedStreamsAreUnderstood(t *testing.T) {
	entries, err := os.ReadDir("testdata/streams")
	if err != nil || len(entries) == 0 {
		t.Fatal(err, "no captured streams")
	}
	for _, entry := range entries {
		b, err := os.ReadFile("testdata/streams/" + entry.Name())
		if err != nil {
			t.Fatal(err)
		}
		b = bytes.TrimPrefix(b, []byte(ProtocolHeader))
		var methods []string
		for len(b) > 0 {
			f, n, err := ParseFrame(b, 131072)
			if err != nil || n == 0 {
				t.Fatalf("%s: after %s: n=%d, %v, at %s", entry.Name(), strings.Join(methods, " "), n, err, hex.EncodeToString(b[:min(len(b), 32)]))
			}
			if f.Type == FrameMethod {
				m, err := ParseMethod(f.Payload)
				if err != nil {
					t.Fatalf("%s: %v", entry.Name(), err)
				}
				methods = append(methods, m.ID().String())
			}
			b = b[n:]
		}
		if len(methods) == 0 {
			t.Errorf("%s has no method", entry.Name())
		}
	}
}
