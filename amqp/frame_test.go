package amqp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"testing"
)

const testMaxPayload = 4096 - FrameOverhead

func TestParseFrameReadsFrameByFrame(t *testing.T) {
	in := publishFrames()
	in = AppendHeartbeat(in)
	var types []uint8
	for len(in) > 0 {
		f, n, err := ParseFrame(in, testMaxPayload)
		if err != nil || n == 0 {
			t.Fatalf("after %v: n=%d err=%v", types, n, err)
		}
		if FrameSize(in) != n || len(f.Payload)+FrameOverhead != n {
			t.Fatalf("FrameSize %d, payload %d, n %d", FrameSize(in), len(f.Payload), n)
		}
		types = append(types, f.Type)
		in = in[n:]
	}
	if want := []uint8{FrameMethod, FrameHeader, FrameBody, FrameHeartbeat}; !bytes.Equal(types, want) {
		t.Fatalf("types %v, want %v", types, want)
	}
}

func TestParseFrameAsksForMoreAtEveryCut(t *testing.T) {
	whole := AppendPublish(nil, 7, "ex", "key", false)
	for i := range whole {
		if f, n, err := ParseFrame(whole[:i], testMaxPayload); n != 0 || err != nil || f.Payload != nil {
			t.Fatalf("%d bytes: %+v, n=%d, err=%v", i, f, n, err)
		}
	}
	f, n, err := ParseFrame(append(whole, 1, 2, 3), testMaxPayload)
	if n != len(whole) || err != nil || f.Channel != 7 {
		t.Fatalf("%+v, n=%d, err=%v", f, n, err)
	}
	if cap(f.Payload) != len(f.Payload) {
		t.Fatal("an append to the payload would write into the next frame")
	}
}

func frame(frameType uint8, channel uint16, payload string, end byte) []byte {
	b := AppendFrameHead(nil, frameType, channel, uint32(len(payload)))
	return append(append(b, payload...), end)
}

func TestParseFrameRefusesInRabbitMQsWords(t *testing.T) {
	for _, c := range []struct {
		name  string
		in    []byte
		code  uint16
		text  string
		whole bool // n is set: a closing connection can step over it
	}{
		{
			"too large by its head alone",
			[]byte{3, 0, 1, 0, 0, 0x10, 0x01},
			501,
			"FRAME_ERROR - type 3, all octets = <<>>: {frame_too_large,4097,4088}", false,
		},
		{
			"largest length",
			[]byte{3, 0, 1, 255, 255, 255, 255, 0, 0},
			501,
			"FRAME_ERROR - type 3, all octets = <<>>: {frame_too_large,4294967295,4088}", false,
		},
		{
			"end marker", frame(3, 1, "hello", 0xCD), 501,
			`FRAME_ERROR - type 3, all octets = <<"hello">>: {invalid_frame_end_marker,205}`, false,
		},
		{
			"end marker of a long frame", frame(3, 1, strings.Repeat("\x01", 17), 0), 501,
			"FRAME_ERROR - type 3, first 16 octets = <<1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1>>: {invalid_frame_end_marker,0}", false,
		},
		{"unknown type", frame(4, 1, "", FrameEnd), 501, "FRAME_ERROR - type 4, all octets = <<>>: unknown_frame", true},
		{"type zero", frame(0, 0, "\x00", FrameEnd), 501, "FRAME_ERROR - type 0, all octets = <<0>>: unknown_frame", true},
		{"short method", frame(1, 0, "\x00\x0a\x00", FrameEnd), 501, "FRAME_ERROR - type 1, all octets = <<0,10,0>>: unknown_frame", true},
		{"short header", frame(2, 1, "\x00\x3c", FrameEnd), 501, "FRAME_ERROR - type 2, all octets = <<0,60>>: unknown_frame", true},
		{"heartbeat with payload", frame(8, 0, "x", FrameEnd), 501, `FRAME_ERROR - type 8, all octets = <<"x">>: unknown_frame`, true},
		{"heartbeat on a channel", frame(8, 3, "", FrameEnd), 505, "UNEXPECTED_FRAME - type 8, all octets = <<>>", true},
		{"body on channel 0", frame(3, 0, "ab", FrameEnd), 505, `UNEXPECTED_FRAME - type 3, all octets = <<"ab">>`, true},
		{
			"header on channel 0", frame(2, 0, strings.Repeat("\x00", 14), FrameEnd), 505,
			"UNEXPECTED_FRAME - type 2, all octets = <<0,0,0,0,0,0,0,0,0,0,0,0,0,0>>", true,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, n, err := ParseFrame(c.in, testMaxPayload)
			wantError(t, err, c.code, c.text)
			if want := len(c.in); c.whole && n != want || !c.whole && n != 0 {
				t.Errorf("n = %d of %d, whole %t", n, want, c.whole)
			}
			if !err.(*Error).Connection() {
				t.Error("does not close the connection")
			}
		})
	}
}

func wantError(t *testing.T, err error, code uint16, text string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error is %v, want %d %s", err, code, text)
	}
	if e.Code != code || e.Text != text {
		t.Fatalf("error is\n%d %s, want\n%d %s", e.Code, e.Text, code, text)
	}
}

func TestParseFrameToleratesAPayloadOfFrameMax(t *testing.T) {
	for _, c := range []struct {
		size int
		ok   bool
	}{{testMaxPayload, true}, {4096, true}, {4097, false}} {
		_, n, err := ParseFrame(frame(3, 1, strings.Repeat("x", c.size), FrameEnd), testMaxPayload)
		if ok := n > 0 && err == nil; ok != c.ok {
			t.Errorf("payload of %d: n=%d err=%v", c.size, n, err)
		}
	}
	if _, n, err := ParseFrame([]byte{3, 0, 1, 255, 255, 255, 255}, math.MaxUint32); n != 0 || err != nil {
		t.Errorf("the largest limit: n=%d err=%v", n, err)
	}
}

func TestFrameSizeNeedsTheHead(t *testing.T) {
	if n := FrameSize([]byte{1, 0, 0, 0, 0, 1}); n != 0 {
		t.Error(n)
	}
	if n := FrameSize([]byte{1, 0, 0, 0, 0, 1, 0}); n != 256+8 {
		t.Error(n)
	}
	if n := FrameSize([]byte{1, 0, 0, 255, 255, 255, 255}); n != min(math.MaxUint32+8, math.MaxInt) {
		t.Error(n)
	}
}

// Golden bytes, written out by hand from the specification.
func TestGoldenFrames(t *testing.T) {
	for _, c := range []struct {
		name string
		have []byte
		want string
	}{
		{"heartbeat", AppendHeartbeat(nil), "08 0000 00000000 ce"},
		{"ack", AppendAck(nil, 0x0102, 0x1122334455667788, true), "01 0102 0000000d 003c0050 1122334455667788 01 ce"},
		{"nack", AppendNack(nil, 1, 2, false, true), "01 0001 0000000d 003c0078 0000000000000002 02 ce"},
		{
			"deliver", AppendDeliver(nil, 5, "ct", 9, true, "ex", "k"),
			"01 0005 00000015 003c003c 02 6374 0000000000000009 01 02 6578 01 6b ce",
		},
		{"publish", AppendPublish(nil, 5, "ex", "k", true), "01 0005 0000000c 003c0028 0000 02 6578 01 6b 01 ce"},
		{
			"header without properties", AppendContentHeader(nil, 1, 0x0102030405060708, nil),
			"02 0001 0000000e 003c 0000 0102030405060708 0000 ce",
		},
		{
			"content in two frames", AppendContent(nil, 1, []byte{0x10, 0x00, 2}, bytes.Repeat([]byte{7}, 4089), 4096)[:40],
			"02 0001 0000000f 003c 0000 0000000000000ff9 1000 02 ce 03 0001 00000ff8" + strings.Repeat("07", 10),
		},
		{
			"tune", AppendMethod(nil, 0, &ConnectionTune{ChannelMax: 2047, FrameMax: 131072, Heartbeat: 60}),
			"01 0000 0000000c 000a001e 07ff 00020000 003c ce",
		},
		{
			"close", AppendMethod(nil, 0, NotFound("no").For(QueueBindID).ConnectionClose()),
			"01 0000 00000019 000a0032 0194 0e 4e4f545f464f554e44202d206e6f 0032 0014 ce",
		},
		{
			"declare", AppendMethod(nil, 1, &QueueDeclare{Queue: "q", Durable: true, NoWait: true, Arguments: Table{{"a", Bool(true)}}}),
			"01 0001 00000011 0032000a 0000 01 71 12 00000004 01 61 74 01 ce",
		},
		{"unbind-ok", AppendMethod(nil, 1, &ExchangeUnbindOk{}), "01 0001 00000004 00280033 ce"},
		{
			"update-secret", AppendMethod(nil, 0, &ConnectionUpdateSecret{NewSecret: []byte("s"), Reason: "r"}),
			"01 0000 0000000b 000a0046 00000001 73 01 72 ce",
		},
	} {
		want, err := hex.DecodeString(strings.ReplaceAll(c.want, " ", ""))
		if err != nil {
			t.Fatal(c.name, err)
		}
		if !bytes.Equal(c.have, want) {
			t.Errorf("%s:\nhave %x\nwant %x", c.name, c.have, want)
		}
	}
}

func TestAppendKeepsWhatWasThere(t *testing.T) {
	b := []byte("before")
	b = AppendMethod(b, 1, &QueueDeclare{Queue: "q"})
	b = AppendContent(b, 1, nil, []byte("body"), 0)
	b, ok := bytes.CutPrefix(b, []byte("before"))
	if !ok {
		t.Fatalf("%q", b)
	}
	for len(b) > 0 {
		_, n, err := ParseFrame(b, testMaxPayload)
		if n == 0 || err != nil {
			t.Fatal(n, err)
		}
		b = b[n:]
	}
}

func TestContentIsSplitByFrameMax(t *testing.T) {
	for _, c := range []struct {
		frameMax uint32
		body     int
		bodies   []int
	}{
		{4096, 0, nil},
		{4096, 1, []int{1}},
		{4096, 4088, []int{4088}},
		{4096, 4089, []int{4088, 1}},
		{4096, 2 * 4088, []int{4088, 4088}},
		{0, 200000, []int{200000}},
		{1, 4089, []int{4088, 1}}, // less than the protocol allows counts as the least
		{math.MaxUint32, 5000, []int{5000}},
	} {
		body := bytes.Repeat([]byte("0123456789"), c.body/10+1)[:c.body]
		out := AppendContent(nil, 3, nil, body, c.frameMax)
		if n := ContentSize(nil, body, c.frameMax); n != len(out) {
			t.Errorf("frame_max %d, body %d: ContentSize %d, is %d", c.frameMax, c.body, n, len(out))
		}
		f, n, err := ParseFrame(out, math.MaxUint32)
		if err != nil || f.Type != FrameHeader {
			t.Fatal(f.Type, err)
		}
		if _, _, size, _, err := ParseContentHeader(f.Payload); err != nil || size != uint64(c.body) {
			t.Fatal(size, err)
		}
		var joined []byte
		var sizes []int
		for out = out[n:]; len(out) > 0; out = out[n:] {
			f, n, err = ParseFrame(out, math.MaxUint32)
			if err != nil || f.Type != FrameBody || f.Channel != 3 {
				t.Fatal(f.Type, f.Channel, err)
			}
			sizes = append(sizes, len(f.Payload))
			joined = append(joined, f.Payload...)
		}
		if !equalInts(sizes, c.bodies) || !bytes.Equal(joined, body) {
			t.Errorf("frame_max %d, body %d: frames %v, want %v", c.frameMax, c.body, sizes, c.bodies)
		}
	}
}

func equalInts(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestContentHeaderIsReadAndRefused(t *testing.T) {
	class, weight, size, props, err := ParseContentHeader([]byte{0, 60, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0x10, 0, 2})
	if class != 60 || weight != 1 || size != 9 || !bytes.Equal(props, []byte{0x10, 0, 2}) || err != nil {
		t.Fatal(class, weight, size, props, err)
	}
	_, _, _, _, err = ParseContentHeader([]byte{0, 60, 0})
	wantError(t, err, 501, "FRAME_ERROR - type 2, all octets = <<0,60,0>>: unknown_frame")
}

func TestFlagsWithoutPropertyAreNeverSent(t *testing.T) {
	b := AppendContentHeader(nil, 1, 0, []byte{0x10, 0x03, 2})
	_, _, _, props, err := ParseContentHeader(b[7 : len(b)-1])
	if err != nil || !bytes.Equal(props, []byte{0x10, 0x00, 2}) {
		t.Fatal(props, err)
	}
}

func TestEncodersRefuseAStringThatDoesNotFit(t *testing.T) {
	long := strings.Repeat("x", 256)
	for name, encode := range map[string]func(){
		"deliver tag":      func() { AppendDeliver(nil, 1, long, 1, false, "", "") },
		"deliver exchange": func() { AppendDeliver(nil, 1, "", 1, false, long, "") },
		"deliver key":      func() { AppendDeliver(nil, 1, "", 1, false, "", long) },
		"publish":          func() { AppendPublish(nil, 1, "", long, false) },
		"method":           func() { AppendMethod(nil, 1, &QueueDeclare{Queue: long}) },
		"alias":            func() { AppendMethod(nil, 1, &BasicPublish{RoutingKey: []byte(long)}) },
		"field name":       func() { Table{{long, Void()}}.Append(nil) },
		"property":         func() { (&Properties{Flags: PropType, Type: []byte(long)}).Append(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("encoded")
				}
			}()
			encode()
		})
	}
}
