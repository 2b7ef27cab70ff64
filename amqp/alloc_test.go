package amqp

import (
	"bytes"
	"runtime"
	"testing"
)

// The hot path allocates nothing: publish, deliver, acknowledge and confirm.
func TestHotPathDoesNotAllocate(t *testing.T) {
	publish := publishFrames()
	props := typicalProperties()
	headers := HeadersOf(props)
	body := bytes.Repeat([]byte("x"), 10000)
	ack := AppendAck(nil, 1, 2, false)[11:20]
	nack := AppendNack(nil, 1, 2, true, true)[11:20]
	deliver := AppendDeliver(nil, 1, "tag", 1, false, "ex", "key")
	deliver = deliver[11 : len(deliver)-1]
	buf := make([]byte, 0, 64<<10)

	var publishMethod BasicPublish
	var ackMethod BasicAck
	var nackMethod BasicNack
	var rejectMethod BasicReject
	var view DeliverView
	var p Properties
	for name, f := range map[string]func(){
		"read publish":  func() { readPublish(t, publish, &publishMethod, &p) },
		"decode ack":    func() { must(t, ackMethod.Decode(ack)) },
		"decode nack":   func() { must(t, nackMethod.Decode(nack)) },
		"decode reject": func() { must(t, rejectMethod.Decode(ack)) },
		"view deliver":  func() { must(t, view.Decode(deliver)) },
		"properties":    func() { must(t, ParseProperties(props, &p)) },
		"lookup int": func() {
			if v, ok := LookupHeader(headers, "attempt"); !ok || v.Kind() != KindInt {
				t.Fatal(v, ok)
			}
		},
		"lookup nothing": func() { LookupHeader(headers, "CC") },
		"keep header":    func() { WithoutHeader(props, "BCC") },
		"deliver": func() {
			buf = AppendDeliver(buf[:0], 1, "amq.ctag-1", 42, true, "orders", "orders.created.eu")
			buf = AppendContent(buf, 1, props, body, 4096)
		},
		"publish": func() { buf = AppendPublish(buf[:0], 1, "orders", "orders.created.eu", true) },
		"ack": func() {
			buf = AppendAck(buf[:0], 1, 42, true)
			buf = AppendNack(buf, 1, 42, true, false)
			buf = AppendHeartbeat(buf)
		},
		"encode properties": func() { buf = p.Append(buf[:0]) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// Refusing hostile input must not cost more than reading good input does: no length of the peer's is
// allocated for.
func TestHostileLengthsAllocateNothingOfTheirSize(t *testing.T) {
	for name, f := range map[string]func() error{
		"long string": func() error {
			_, err := ParseMethod([]byte{0, 10, 0, 21, 255, 255, 255, 255, 1})
			return err
		},
		"table": func() error {
			_, _, err := ParseTable([]byte{255, 255, 255, 255, 1, 'a', 't', 1})
			return err
		},
		"string in table": func() error {
			_, _, err := ParseTable([]byte{0, 0, 0, 7, 1, 'a', 'S', 255, 255, 255, 255})
			return err
		},
		"headers": func() error { return ParseProperties([]byte{0x20, 0, 255, 255, 255, 255, 1}, new(Properties)) },
	} {
		const runs = 100
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range runs {
			if f() == nil {
				t.Fatal(name, "accepted")
			}
		}
		runtime.ReadMemStats(&after)
		if n := (after.TotalAlloc - before.TotalAlloc) / runs; n > 2048 {
			t.Errorf("%s: %d bytes allocated", name, n)
		}
	}
}

func must(t *testing.T, err error) {
	if err != nil {
		t.Fatal(err)
	}
}
