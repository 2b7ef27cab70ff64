package amqp

import (
	"bytes"
	"testing"
)

// publishFrames is one small message as a publisher sends it: method, header and body frame.
func publishFrames() []byte {
	b := AppendPublish(nil, 1, "orders", "orders.created.eu", true)
	return AppendContent(b, 1, typicalProperties(), bytes.Repeat([]byte("x"), 100), 131072)
}

// typicalProperties are those of a persistent JSON message with two headers.
func typicalProperties() []byte {
	p := Properties{
		Flags:       PropContentType | PropHeaders | PropDeliveryMode | PropMessageID | PropTimestamp,
		ContentType: []byte("application/json"), DeliveryMode: Persistent,
		MessageID: []byte("5f2b1c1e-8f6e-4f7e-a9f4-0c8f0a9be4d1"), Timestamp: 1700000000,
		Headers: Table{{"tenant", String("acme")}, {"attempt", Int32(3)}}.Append(nil),
	}
	return p.Append(nil)
}

func BenchmarkReadPublish(b *testing.B) {
	in := publishFrames()
	b.ReportAllocs()
	b.SetBytes(int64(len(in)))
	var m BasicPublish
	var p Properties
	for b.Loop() {
		readPublish(b, in, &m, &p)
	}
}

// readPublish does what a server does with publishFrames.
func readPublish(tb testing.TB, in []byte, m *BasicPublish, p *Properties) {
	f, n, err := ParseFrame(in, 131072-FrameOverhead)
	if id, _ := PeekMethodID(f.Payload); err != nil || id != BasicPublishID {
		tb.Fatal(id, err)
	}
	if err := m.Decode(f.Payload[4:]); err != nil {
		tb.Fatal(err)
	}
	in = in[n:]
	f, n, err = ParseFrame(in, 131072-FrameOverhead)
	if err != nil {
		tb.Fatal(err)
	}
	_, _, size, props, err := ParseContentHeader(f.Payload)
	if err != nil || size != 100 {
		tb.Fatal(size, err)
	}
	if err := ParseProperties(props, p); err != nil {
		tb.Fatal(err)
	}
	f, _, err = ParseFrame(in[n:], 131072-FrameOverhead)
	if err != nil || f.Type != FrameBody {
		tb.Fatal(f.Type, err)
	}
}

func BenchmarkParseFrame(b *testing.B) {
	in := publishFrames()
	b.ReportAllocs()
	for b.Loop() {
		if _, n, err := ParseFrame(in, 131072); n == 0 || err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	b.Run("publish", func(b *testing.B) {
		in := AppendPublish(nil, 1, "orders", "orders.created.eu", true)
		args := in[11 : len(in)-1]
		var m BasicPublish
		b.ReportAllocs()
		for b.Loop() {
			if err := m.Decode(args); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("ack", func(b *testing.B) {
		in := AppendAck(nil, 1, 1<<40, true)
		args := in[11 : len(in)-1]
		var m BasicAck
		b.ReportAllocs()
		for b.Loop() {
			if err := m.Decode(args); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("queue.declare", func(b *testing.B) {
		m := &QueueDeclare{Queue: "orders", Durable: true, Arguments: Table{{"x-queue-type", String("classic")}, {"x-max-length", Int64(1e6)}}}
		payload := AppendMethod(nil, 1, m)
		payload = payload[7 : len(payload)-1]
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ParseMethod(payload); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkParseProperties(b *testing.B) {
	run := func(name string, props []byte) {
		b.Run(name, func(b *testing.B) {
			var p Properties
			b.ReportAllocs()
			for b.Loop() {
				if err := ParseProperties(props, &p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	persistent := Properties{Flags: PropDeliveryMode, DeliveryMode: Persistent}
	run("persistent", persistent.Append(nil))
	run("typical", typicalProperties())
}

func BenchmarkTable(b *testing.B) {
	in := benchTable().Append(nil)
	b.Run("parse", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := ParseTable(in); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("lookup-int", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, ok := LookupHeader(in, "attempt"); !ok {
				b.Fatal("not found")
			}
		}
	})
}

func benchTable() Table {
	return Table{
		{"tenant", String("acme")},
		{"trace", String("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")},
		{"CC", ArrayValue(String("a"), String("b"))},
		{"attempt", Int32(3)},
	}
}

func BenchmarkAppendDelivery(b *testing.B) {
	props := typicalProperties()
	for _, c := range []struct {
		name string
		size int
	}{{"100B", 100}, {"1KiB", 1 << 10}, {"1MiB", 1 << 20}} {
		b.Run(c.name, func(b *testing.B) {
			body := bytes.Repeat([]byte("x"), c.size)
			buf := make([]byte, 0, 2*c.size+1024)
			b.ReportAllocs()
			b.SetBytes(int64(c.size))
			for b.Loop() {
				buf = AppendDeliver(buf[:0], 1, "amq.ctag-1", 42, false, "orders", "orders.created.eu")
				buf = AppendContent(buf, 1, props, body, 131072)
			}
		})
	}
}

func BenchmarkAppendAck(b *testing.B) {
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendAck(buf[:0], 1, 42, true)
	}
}
