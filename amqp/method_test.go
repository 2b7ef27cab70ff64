package amqp

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write testdata/methods.txt anew")

const goldenMethods = "testdata/methods.txt"

// methodIDs lists every id that can be decoded, in order.
func methodIDs() []MethodID {
	var ids []MethodID
	for class := MethodID(0); class < 256; class++ {
		for method := MethodID(0); method < 256; method++ {
			if id := class<<16 | method; newMethod(id) != nil {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// filled returns the method with a different value in every field.
func filled(id MethodID) Method {
	m := newMethod(id)
	v := reflect.ValueOf(m).Elem()
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		switch f := v.Field(i); f.Interface().(type) {
		case string:
			f.SetString(strings.ToLower(name) + "-é")
		case []byte:
			f.SetBytes([]byte(strings.ToLower(name)))
		case bool:
			f.SetBool(i%3 != 2)
		case Table:
			f.Set(reflect.ValueOf(Table{{"x-max-length", Int64(5)}, {"x-nested", TableValue(Table{{"k", ArrayValue(Bool(true), Void())}})}}))
		default:
			f.SetUint(uint64(i + 1))
		}
	}
	return m
}

// The file is read against the specification once and then keeps every byte of every method in place.
func TestEveryMethodHasItsGoldenBytes(t *testing.T) {
	var out strings.Builder
	for _, id := range methodIDs() {
		from := ""
		if id.FromClient() {
			from += "C"
		}
		if id.FromServer() {
			from += "S"
		}
		if id.HasContent() {
			from += " content"
		}
		fmt.Fprintf(&out, "%s %d.%d %s\n%x.\n", id, id.Class(), id.Method(), from, filled(id).Append(nil))
	}
	if *rewrite {
		if err := os.WriteFile(goldenMethods, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(goldenMethods)
	if err != nil {
		t.Fatal(err)
	}
	have, golden := strings.Split(out.String(), "\n"), strings.Split(string(want), "\n")
	for i := range max(len(have), len(golden)) {
		h, w := at(have, i), at(golden, i)
		if h != w {
			t.Fatalf("line %d:\nhave %s\nwant %s", i+1, h, w)
		}
	}
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(nothing)"
}

func TestEveryMethodRoundTrips(t *testing.T) {
	for _, id := range methodIDs() {
		for _, m := range []Method{filled(id), newMethod(id)} {
			frame := AppendMethod(nil, 1, m)
			f, n, err := ParseFrame(frame, testMaxPayload)
			if n != len(frame) || err != nil {
				t.Fatal(id, n, err)
			}
			have, err := ParseMethod(f.Payload)
			if err != nil {
				t.Fatal(id, err)
			}
			if have.ID() != id || !sameMethod(have, m) {
				t.Errorf("%s:\nhave %+v\nwant %+v", id, have, m)
			}
		}
	}
}

// sameMethod compares fields; a nil slice equals an empty one.
func sameMethod(a, b Method) bool {
	if a.ID() != b.ID() {
		return false
	}
	x, y := reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem()
	for i := range x.NumField() {
		f, g := x.Field(i).Interface(), y.Field(i).Interface()
		switch f := f.(type) {
		case []byte:
			if string(f) != string(g.([]byte)) {
				return false
			}
		case Table:
			if string(f.Append(nil)) != string(g.(Table).Append(nil)) {
				return false
			}
		default:
			if f != g {
				return false
			}
		}
	}
	return true
}

func TestArgumentsTooShortOrTooLongAreRefused(t *testing.T) {
	for _, id := range methodIDs() {
		args := filled(id).Append(nil)
		for n := range args {
			err := newMethod(id).Decode(args[:n])
			wantDecodeError(t, err, id)
		}
		wantDecodeError(t, newMethod(id).Decode(append(args, 0)), id)
	}
}

func wantDecodeError(t *testing.T, err error, id MethodID) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("%s: %v", id, err)
	}
	if e.Code != 501 || !strings.HasPrefix(e.Text, "FRAME_ERROR - cannot decode ") || e.Class != id.Class() || e.Method != id.Method() {
		t.Fatalf("%s: %+v", id, e)
	}
}

func TestUndecodableArgumentsAreShown(t *testing.T) {
	_, err := ParseMethod([]byte{0, 60, 0, 80, 1, 2, 3})
	wantError(t, err, 501, "FRAME_ERROR - cannot decode <<1,2,3>>")
}

func TestUndecodableCredentialsAreNotShown(t *testing.T) {
	for _, id := range []MethodID{ConnectionStartOkID, ConnectionSecureOkID, ConnectionUpdateSecretID} {
		args := append(filled(id).Append(nil), 0)
		wantError(t, newMethod(id).Decode(args), 501, "FRAME_ERROR - cannot decode "+id.String())
	}
}

func TestMalformedUTF8IsRefusedWhereRabbitMQDoes(t *testing.T) {
	const bad = "caf\xe9"
	for _, c := range []struct {
		m  Method
		ok bool
	}{
		{&QueueDeclare{Queue: bad}, false},
		{&BasicConsume{ConsumerTag: bad}, false},
		{&ConnectionOpen{VirtualHost: bad}, false},
		{&QueueBind{RoutingKey: bad}, false},
		{&BasicPublish{Exchange: []byte(bad), RoutingKey: []byte(bad)}, true},
		{&BasicReturn{Exchange: bad, RoutingKey: bad}, true},
		{&BasicDeliver{ConsumerTag: bad, Exchange: bad, RoutingKey: bad}, true},
		{&BasicGetOk{Exchange: bad, RoutingKey: bad}, true},
	} {
		err := newMethod(c.m.ID()).Decode(c.m.Append(nil))
		if c.ok {
			if err != nil {
				t.Errorf("%s: %v", c.m.ID(), err)
			}
			continue
		}
		wantError(t, err, 501, "FRAME_ERROR - Malformed UTF-8 in shortstr")
		if e := err.(*Error); e.Class != 0 || e.Method != 0 { // RabbitMQ names no method here
			t.Errorf("%s: error is for %d.%d", c.m.ID(), e.Class, e.Method)
		}
	}
}

func TestTableErrorsInMethodsNameTheMethod(t *testing.T) {
	args := (&QueueDeclare{Queue: "q", Arguments: Table{{"a", Bool(true)}}}).Append(nil)
	args[len(args)-2] = 'U'
	err := new(QueueDeclare).Decode(args)
	wantError(t, err, 502, "SYNTAX_ERROR - unknown field type 'U'")
	if e := err.(*Error); e.Class != 50 || e.Method != 10 {
		t.Errorf("%+v", e)
	}
	if errTableEnd.Class != 0 {
		t.Error("a shared error was changed")
	}
}

func TestReservedFieldsMayHoldAnything(t *testing.T) {
	m, err := ParseMethod([]byte{0, 10, 0, 40, 1, '/', 3, 0xff, 0xfe, 0xfd, 0xff})
	if err != nil || m.(*ConnectionOpen).VirtualHost != "/" {
		t.Fatal(m, err)
	}
	m, err = ParseMethod([]byte{0, 60, 0, 70, 0xde, 0xad, 1, 'q', 0xff})
	if err != nil || *m.(*BasicGet) != (BasicGet{Queue: "q", NoAck: true}) {
		t.Fatal(m, err)
	}
}

func TestPublishAliasesItsInput(t *testing.T) {
	args := (&BasicPublish{Exchange: []byte("ex"), RoutingKey: []byte("key")}).Append(nil)
	var m BasicPublish
	must(t, m.Decode(args))
	args[3] = 'E'
	if string(m.Exchange) != "Ex" {
		t.Fatalf("%q", m.Exchange)
	}
	if cap(m.Exchange) != 2 || cap(m.RoutingKey) != 3 {
		t.Fatal("an append to a name would write into what follows it")
	}
}

func TestOtherMethodsKeepNothingOfTheirInput(t *testing.T) {
	for _, id := range methodIDs() {
		if id == BasicPublishID {
			continue
		}
		want := filled(id)
		args := want.Append(nil)
		have := newMethod(id)
		must(t, have.Decode(args))
		for i := range args {
			args[i] = 0xAA
		}
		if !sameMethod(have, want) {
			t.Errorf("%s changed with its input: %+v", id, have)
		}
	}
}

func TestDeliverViewReadsWhatDeliverDoes(t *testing.T) {
	var v DeliverView
	m := filled(BasicDeliverID).(*BasicDeliver)
	must(t, v.Decode(m.Append(nil)))
	have := BasicDeliver{string(v.ConsumerTag), v.DeliveryTag, v.Redelivered, string(v.Exchange), string(v.RoutingKey)}
	if have != *m {
		t.Fatalf("have %+v want %+v", have, *m)
	}
	wantDecodeError(t, v.Decode(nil), BasicDeliverID)
}

func TestUnknownMethodsAreCommandInvalid(t *testing.T) {
	for _, c := range []struct {
		class, method byte
		text          string
	}{
		{60, 99, "COMMAND_INVALID - unknown method 60.99"},
		{1, 1, "COMMAND_INVALID - unknown method 1.1"},
		{40, 41, "COMMAND_INVALID - unknown method 40.41"}, // exchange.unbind-ok is 40.51
		{60, 200, "COMMAND_INVALID - unimplemented method"},
		{60, 201, "COMMAND_INVALID - unimplemented method"},
		{60, 202, "COMMAND_INVALID - unimplemented method"},
	} {
		_, err := ParseMethod([]byte{0, c.class, 0, c.method, 1, 2, 3})
		wantError(t, err, 503, c.text)
		if e := err.(*Error); e.Class != uint16(c.class) || e.Method != uint16(c.method) || !e.Connection() {
			t.Errorf("%+v", e)
		}
	}
	_, err := ParseMethod([]byte{0, 60, 0})
	wantError(t, err, 501, "FRAME_ERROR - type 1, all octets = <<0,60,0>>: unknown_frame")
}

func TestMethodIDsHaveNames(t *testing.T) {
	for id, want := range map[MethodID]string{
		BasicPublishID: "basic.publish", ExchangeUnbindOkID: "exchange.unbind-ok", BasicCreditID: "basic.credit",
		60<<16 | 99: "60.99", 0xffffffff: "65535.65535",
	} {
		if id.String() != want {
			t.Errorf("%d: %s, want %s", uint32(id), id, want)
		}
	}
	if id, ok := PeekMethodID([]byte{0, 60, 0, 40}); id != BasicPublishID || !ok {
		t.Error(id, ok)
	}
	if _, ok := PeekMethodID([]byte{0, 60, 0}); ok {
		t.Error("three bytes are no id")
	}
}

func TestMethodsKnowWhoSendsThem(t *testing.T) {
	for _, c := range []struct {
		id                       MethodID
		client, server, contents bool
	}{
		{BasicPublishID, true, false, true},
		{BasicDeliverID, false, true, true},
		{BasicAckID, true, true, false},
		{BasicNackID, true, true, false},
		{BasicCancelID, true, true, false},
		{QueueDeclareOkID, false, true, false},
		{AccessRequestID, true, false, false},
		{ConnectionCloseID, true, true, false},
		{ConnectionUpdateSecretID, true, false, false},
		{ConnectionUpdateSecretOkID, false, true, false},
		{ConnectionBlockedID, false, true, false},
		{60<<16 | 99, false, false, false},
	} {
		if c.id.FromClient() != c.client || c.id.FromServer() != c.server || c.id.HasContent() != c.contents {
			t.Errorf("%s: client %t, server %t, content %t", c.id, c.id.FromClient(), c.id.FromServer(), c.id.HasContent())
		}
	}
}
