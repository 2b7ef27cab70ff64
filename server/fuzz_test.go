package server

import (
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/broker"
)

// source turns bytes into choices; it gives zeros when they are used up.
type source struct{ b []byte }

func (s *source) byte() byte {
	if len(s.b) == 0 {
		return 0
	}
	c := s.b[0]
	s.b = s.b[1:]
	return c
}

func (s *source) flag() bool { return s.byte()&1 == 1 }

func (s *source) bytes(n int) []byte {
	n = min(n, len(s.b))
	b := s.b[:n]
	s.b = s.b[n:]
	return b
}

func (s *source) pick(list []string) string { return list[int(s.byte())%len(list)] }

var (
	fuzzQueues    = []string{"fq1", "fq2", "fq3", ""}
	fuzzExchanges = []string{"fx1", "fx2", "amq.topic", "amq.headers", ""}
	fuzzKeys      = []string{"fq1", "fq2", "a.b", "#", ""}
	fuzzTags      = []string{"t1", "t2", ""}
)

func (s *source) table() amqp.Table {
	var t amqp.Table
	for n := s.byte() % 4; n > 0; n-- {
		name := s.pick([]string{"x-match", "k", "alternate-exchange", "x-queue-type", "x-priority", "CC", "BCC"})
		switch s.byte() % 5 {
		case 0:
			t = append(t, amqp.Field{Name: name, Value: amqp.String(s.pick([]string{"all", "any", "fx1", "classic", "quorum"}))})
		case 1:
			t = append(t, amqp.Field{Name: name, Value: amqp.Int64(int64(int8(s.byte())) << 33)})
		case 2:
			t = append(t, amqp.Field{Name: name, Value: amqp.ArrayValue(amqp.String(s.pick(fuzzKeys)), amqp.String(s.pick(fuzzKeys)))})
		case 3:
			t = append(t, amqp.Field{Name: name, Value: amqp.TableValue(amqp.Table{{Name: "n", Value: amqp.Void()}})})
		default:
			t = append(t, amqp.Field{Name: name, Value: amqp.Bool(s.flag())})
		}
	}
	return t
}

// method makes a method as a client might send it.
func (s *source) method() amqp.Method {
	switch s.byte() % 28 {
	case 0:
		return &amqp.ChannelOpen{}
	case 1:
		return &amqp.ChannelClose{ReplyCode: 200}
	case 2:
		return &amqp.ChannelCloseOk{}
	case 3:
		return &amqp.ChannelFlow{Active: s.flag()}
	case 4, 5:
		return &amqp.QueueDeclare{Queue: s.pick(fuzzQueues), Passive: s.byte()%8 == 0, Durable: s.flag(), Exclusive: s.byte()%4 == 0, AutoDelete: s.flag(), NoWait: s.flag(), Arguments: s.table()}
	case 6:
		return &amqp.QueueDelete{Queue: s.pick(fuzzQueues), IfUnused: s.flag(), IfEmpty: s.flag(), NoWait: s.flag()}
	case 7:
		return &amqp.QueueBind{Queue: s.pick(fuzzQueues), Exchange: s.pick(fuzzExchanges), RoutingKey: s.pick(fuzzKeys), Arguments: s.table(), NoWait: s.flag()}
	case 8:
		return &amqp.QueueUnbind{Queue: s.pick(fuzzQueues), Exchange: s.pick(fuzzExchanges), RoutingKey: s.pick(fuzzKeys), Arguments: s.table()}
	case 9:
		return &amqp.QueuePurge{Queue: s.pick(fuzzQueues), NoWait: s.flag()}
	case 10:
		return &amqp.ExchangeDeclare{Exchange: s.pick(fuzzExchanges), Type: s.pick([]string{"direct", "fanout", "topic", "headers", "none"}), Durable: s.flag(), AutoDelete: s.flag(), Internal: s.byte()%8 == 0, Arguments: s.table()}
	case 11:
		return &amqp.ExchangeDelete{Exchange: s.pick(fuzzExchanges), IfUnused: s.flag()}
	case 12:
		return &amqp.ExchangeBind{Source: s.pick(fuzzExchanges), Destination: s.pick(fuzzExchanges), RoutingKey: s.pick(fuzzKeys), Arguments: s.table()}
	case 13:
		return &amqp.ExchangeUnbind{Source: s.pick(fuzzExchanges), Destination: s.pick(fuzzExchanges), RoutingKey: s.pick(fuzzKeys)}
	case 14, 15:
		return &amqp.BasicConsume{Queue: s.pick(fuzzQueues), ConsumerTag: s.pick(fuzzTags), NoAck: s.flag(), Exclusive: s.byte()%4 == 0, NoWait: s.flag(), Arguments: s.table()}
	case 16:
		return &amqp.BasicCancel{ConsumerTag: s.pick(fuzzTags), NoWait: s.flag()}
	case 17:
		return &amqp.BasicGet{Queue: s.pick(fuzzQueues), NoAck: s.flag()}
	case 18:
		return &amqp.BasicAck{DeliveryTag: uint64(s.byte() % 16), Multiple: s.flag()}
	case 19:
		return &amqp.BasicNack{DeliveryTag: uint64(s.byte() % 16), Multiple: s.flag(), Requeue: s.flag()}
	case 20:
		return &amqp.BasicReject{DeliveryTag: uint64(s.byte() % 16), Requeue: s.flag()}
	case 21:
		return &amqp.BasicRecover{Requeue: s.byte()%8 != 0}
	case 22:
		return &amqp.BasicQos{PrefetchCount: uint16(s.byte() % 4), Global: s.flag()}
	case 23:
		return &amqp.ConfirmSelect{NoWait: s.flag()}
	case 24:
		return &amqp.TxSelect{}
	case 25:
		return &amqp.TxCommit{}
	case 26:
		return &amqp.TxRollback{}
	default:
		return &amqp.BasicCancelOk{}
	}
}

// frames turns the rest of the bytes into what a client sends, mostly legal.
func (s *source) frames() (b []byte) {
	for len(s.b) > 0 && len(b) < 1<<20 {
		channel := uint16(s.byte()%4 + 1)
		switch s.byte() % 16 {
		case 0, 1, 2, 3, 4, 5, 6:
			b = amqp.AppendMethod(b, channel, s.method())
		case 7, 8, 9, 10:
			p := amqp.Properties{Flags: amqp.PropDeliveryMode, DeliveryMode: s.byte() % 3}
			if s.byte()%4 == 0 {
				p.Flags |= amqp.PropHeaders
				p.Headers = s.table().Append(nil)
			}
			b = amqp.AppendPublish(b, channel, s.pick(fuzzExchanges), s.pick(fuzzKeys), s.flag())
			b = amqp.AppendContent(b, channel, p.Append(nil), make([]byte, int(s.byte())<<(s.byte()%9)), 4096)
		case 11: // content out of turn or of a wrong size
			b = amqp.AppendContentHeader(b, channel, uint64(s.byte())<<(s.byte()%33), []byte{0, 0})
		case 12:
			b = amqp.AppendBodyFrame(b, channel, s.bytes(int(s.byte())))
		case 13:
			m := s.method().ID()
			b = amqp.AppendFrameHead(b, amqp.FrameMethod, channel, 4+8)
			b = append(b, byte(m>>24), byte(m>>16), byte(m>>8), byte(m))
			b = append(append(b, make([]byte, 8-len(s.bytes(0)))...), amqp.FrameEnd) // arguments of zeros
		case 14:
			switch s.byte() % 8 {
			case 0:
				b = amqp.AppendMethod(b, 0, &amqp.ConnectionClose{ReplyCode: 200})
			case 1:
				b = amqp.AppendMethod(b, 0, &amqp.ConnectionUpdateSecret{})
			case 2:
				b = amqp.AppendMethod(b, 0, &amqp.ConnectionCloseOk{})
			case 3:
				b = amqp.AppendMethod(b, 0, s.method())
			default:
				b = amqp.AppendHeartbeat(b)
			}
		case 15:
			if s.byte()%4 == 0 {
				b = append(b, s.bytes(int(s.byte()))...)
			} else {
				raw := s.bytes(int(s.byte() % 64))
				b = amqp.AppendFrameHead(b, s.byte()%10, channel, uint32(len(raw)))
				b = append(append(b, raw...), amqp.FrameEnd)
			}
		}
	}
	return b
}

// panics counts the log lines of connections that panicked.
type panics struct{ n atomic.Int32 }

func (p *panics) Run(_ *zerolog.Event, _ zerolog.Level, message string) {
	if strings.Contains(message, "panicked") {
		p.n.Add(1)
	}
}

// FuzzConnection sends one connection a sequence of frames, most of them legal, and raw
// bytes. Whatever comes: nothing panics or hangs, memory is bounded by what was sent, and
// another connection works.
func FuzzConnection(f *testing.F) {
	for seed := range uint64(24) {
		rng := rand.New(rand.NewPCG(seed, 3))
		b := make([]byte, 50+rng.IntN(600))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		f.Add(b)
	}
	f.Add([]byte("HTTP"))
	hook := &panics{}
	r := newRig(f, f.TempDir(), func(o *Options) { o.Log = zerolog.New(io.Discard).Hook(hook) })
	bystander := r.open()
	r.t.Cleanup(func() { _ = bystander.nc.Close() })

	f.Fuzz(func(t *testing.T, data []byte) {
		s := &source{data}
		mode, chunk := s.byte(), int(s.byte())*16+1
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		var sent []byte
		if mode%8 != 0 { // else everything happens before the connection is open
			sent = append(sent, amqp.ProtocolHeader...)
			sent = amqp.AppendMethod(sent, 0, plain("guest", "guest"))
			sent = amqp.AppendMethod(sent, 0, &amqp.ConnectionTuneOk{FrameMax: 4096, ChannelMax: 3})
			sent = amqp.AppendMethod(sent, 0, &amqp.ConnectionOpen{VirtualHost: "/"})
			sent = amqp.AppendMethod(sent, 1, &amqp.ChannelOpen{})
		} else if mode%16 == 0 {
			sent = append(sent, amqp.ProtocolHeader...)
		}
		sent = append(sent, s.frames()...)

		nc := r.pipe()
		deadline := time.Now().Add(20 * time.Second)
		_ = nc.SetDeadline(deadline)
		read := make(chan int64)
		go func() {
			n, _ := io.Copy(io.Discard, nc)
			read <- n
		}()
		for b := sent; len(b) > 0; {
			n := min(chunk, len(b))
			if _, err := nc.Write(b[:n]); err != nil {
				break // the server has had enough
			}
			b = b[n:]
		}
		_ = nc.Close()
		<-read
		for len(r.s.connections()) > 1 {
			if time.Now().After(deadline) {
				buf := make([]byte, 1<<20)
				t.Fatalf("the connection did not end\n%s", buf[:runtime.Stack(buf, true)])
			}
			runtime.Gosched()
		}
		if n := hook.n.Swap(0); n != 0 {
			t.Fatal("a handler panicked")
		}
		runtime.ReadMemStats(&after)
		if used, limit := after.TotalAlloc-before.TotalAlloc, uint64(16<<20+200*len(sent)); used > limit {
			t.Errorf("%d bytes were allocated for %d that came", used, len(sent))
		}
		bystander.t = t
		bystander.works()
		for _, q := range fuzzQueues[:3] {
			call[*amqp.QueueDeleteOk](bystander, 1, &amqp.QueueDelete{Queue: q})
		}
		for _, x := range fuzzExchanges[:2] {
			call[*amqp.ExchangeDeleteOk](bystander, 1, &amqp.ExchangeDelete{Exchange: x})
		}
		n := 0
		r.b.VHost("/").Bindings(func(*broker.Binding) { n++ })
		if n > 200 {
			t.Fatal(fmt.Sprint(n, " bindings are left"))
		}
	})
}
