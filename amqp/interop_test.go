package amqp_test

import (
	"bytes"
	"context"
	"flag"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	client "github.com/rabbitmq/amqp091-go"

	"github.com/settmq/settmq/amqp"
)

const (
	frameMax = 4096
	capture  = "testdata/streams/amqp091-go.bin"
)

// echo is the smallest server that satisfies a client: it says ok to everything, and what is published
// comes back as a delivery to the last consumer.
type echo struct {
	conn        net.Conn
	received    []byte // all the client sent
	methods     []amqp.Method
	consumerTag string
	published   amqp.BasicPublish
	props, body []byte
	missing     uint64 // bytes of the body still to come
	deliveries  uint64
	out         []byte
}

// serve reads frames until the client closes; the error is nil after an orderly close.
func (e *echo) serve() error {
	head := make([]byte, len(amqp.ProtocolHeader))
	if _, err := io.ReadFull(e.conn, head); err != nil {
		return err
	}
	if string(head) != amqp.ProtocolHeader {
		return amqp.FrameError("protocol header %q", head)
	}
	e.received = head
	e.reply(0, &amqp.ConnectionStart{
		VersionMinor: 9, Mechanisms: []byte("PLAIN"), Locales: []byte("en_US"),
		ServerProperties: amqp.Table{
			{Name: "product", Value: amqp.String("echo")},
			{Name: "capabilities", Value: amqp.TableValue(amqp.Table{{Name: "basic.nack", Value: amqp.Bool(true)}})},
		},
	})
	at, closed := len(head), false
	for chunk := make([]byte, 1000); !closed; {
		if _, err := e.conn.Write(e.out); err != nil {
			return err
		}
		e.out = nil
		n, err := e.conn.Read(chunk)
		if err != nil {
			return err
		}
		e.received = append(e.received, chunk[:n]...)
		for !closed {
			f, n, err := amqp.ParseFrame(e.received[at:], frameMax-amqp.FrameOverhead)
			if err != nil {
				return err
			}
			if n == 0 {
				break
			}
			at += n
			if closed, err = e.frame(f); err != nil {
				return err
			}
		}
	}
	_, err := e.conn.Write(e.out)
	return err
}

func (e *echo) reply(channel uint16, m amqp.Method) { e.out = amqp.AppendMethod(e.out, channel, m) }

func (e *echo) frame(f amqp.Frame) (closed bool, err error) {
	switch f.Type {
	case amqp.FrameMethod:
		m, err := amqp.ParseMethod(f.Payload)
		if err != nil {
			return false, err
		}
		if !m.ID().FromClient() {
			return false, amqp.CommandInvalid("%s", m.ID())
		}
		e.methods = append(e.methods, m)
		return m.ID() == amqp.ConnectionCloseID, e.method(f.Channel, m)
	case amqp.FrameHeader:
		_, _, size, props, err := amqp.ParseContentHeader(f.Payload)
		if err != nil {
			return false, err
		}
		e.props, e.body, e.missing = bytes.Clone(props), nil, size
		if size == 0 {
			e.deliver(f.Channel)
		}
	case amqp.FrameBody:
		e.body = append(e.body, f.Payload...)
		if e.missing -= uint64(len(f.Payload)); e.missing == 0 {
			e.deliver(f.Channel)
		}
	}
	return false, nil
}

func (e *echo) deliver(channel uint16) {
	e.deliveries++
	e.out = amqp.AppendAck(e.out, channel, e.deliveries, false)
	e.out = amqp.AppendDeliver(e.out, channel, e.consumerTag, e.deliveries, true,
		string(e.published.Exchange), string(e.published.RoutingKey))
	e.out = amqp.AppendContent(e.out, channel, e.props, e.body, frameMax)
}

func (e *echo) method(channel uint16, m amqp.Method) error {
	switch m := m.(type) {
	case *amqp.ConnectionStartOk:
		e.reply(0, &amqp.ConnectionTune{ChannelMax: 10, FrameMax: frameMax})
	case *amqp.ConnectionTuneOk:
	case *amqp.ConnectionOpen:
		e.reply(0, &amqp.ConnectionOpenOk{})
	case *amqp.ConnectionClose:
		e.reply(0, &amqp.ConnectionCloseOk{})
	case *amqp.ChannelOpen:
		e.reply(channel, &amqp.ChannelOpenOk{})
	case *amqp.ChannelClose:
		e.reply(channel, &amqp.ChannelCloseOk{})
	case *amqp.ExchangeDeclare:
		e.reply(channel, &amqp.ExchangeDeclareOk{})
	case *amqp.ExchangeUnbind:
		e.reply(channel, &amqp.ExchangeUnbindOk{})
	case *amqp.QueueDeclare:
		e.reply(channel, &amqp.QueueDeclareOk{Queue: m.Queue, MessageCount: 3, ConsumerCount: 1})
	case *amqp.QueueBind:
		e.reply(channel, &amqp.QueueBindOk{})
	case *amqp.BasicQos:
		e.reply(channel, &amqp.BasicQosOk{})
	case *amqp.ConfirmSelect:
		e.reply(channel, &amqp.ConfirmSelectOk{})
	case *amqp.BasicGet:
		e.reply(channel, &amqp.BasicGetEmpty{})
	case *amqp.BasicConsume:
		e.consumerTag = m.ConsumerTag
		e.reply(channel, &amqp.BasicConsumeOk{ConsumerTag: m.ConsumerTag})
	case *amqp.BasicPublish: // aliases what was received, which is never overwritten
		e.published = *m
	case *amqp.BasicAck, *amqp.BasicNack, *amqp.BasicReject:
	default:
		return amqp.CommandInvalid("%s", m.ID())
	}
	return nil
}

// message has every property and every type of header the client can send.
func message() client.Publishing {
	at := time.Unix(1700000000, 0)
	return client.Publishing{
		ContentType: "text/plain", ContentEncoding: "utf-8", DeliveryMode: 2, Priority: 9, CorrelationId: "corr",
		ReplyTo: "reply", Expiration: "60000", MessageId: "id", Timestamp: at, Type: "type", UserId: "guest", AppId: "app",
		Headers: client.Table{
			"bool": true, "int8": int8(-8), "uint8": byte(8), "int16": int16(-16), "int32": int32(-32), "int64": int64(-64),
			"float32": float32(1.5), "float64": 2.5, "decimal": client.Decimal{Scale: 2, Value: 314}, "string": "text",
			"bytes": []byte{0, 255}, "time": at, "nil": nil,
			"array": []interface{}{int32(1), "two", nil}, "table": client.Table{"inner": "value"},
		},
		Body: bytes.Repeat([]byte("0123456789"), 1000), // three frames
	}
}

// A client written by others is the proof that the bytes are right in both directions.
func TestAnotherCodecUnderstandsUs(t *testing.T) {
	server, addr, served := startEcho(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := client.DialConfig("amqp://guest:guest@localhost/vh", client.Config{
		Dial: func(string, string) (net.Conn, error) { return net.Dial("tcp", addr) },
	})
	must(t, err)
	received := converse(ctx, t, conn)
	must(t, conn.Close())
	must(t, <-served)

	want := message()
	if received.Exchange != "ex" || received.RoutingKey != "key" || !received.Redelivered || received.DeliveryTag != 1 {
		t.Errorf("delivery %+v", received)
	}
	have := client.Publishing{
		Headers: received.Headers, ContentType: received.ContentType, ContentEncoding: received.ContentEncoding,
		DeliveryMode: received.DeliveryMode, Priority: received.Priority, CorrelationId: received.CorrelationId,
		ReplyTo: received.ReplyTo, Expiration: received.Expiration, MessageId: received.MessageId,
		Timestamp: received.Timestamp, Type: received.Type, UserId: received.UserId, AppId: received.AppId, Body: received.Body,
	}
	if !reflect.DeepEqual(have, want) {
		t.Errorf("have %+v\nwant %+v", have, want)
	}
	checkReceived(t, server)
	if *rewriteStreams {
		must(t, os.MkdirAll(filepath.Dir(capture), 0o755))
		must(t, os.WriteFile(capture, server.received, 0o644))
	}
}

var rewriteStreams = flag.Bool("capture", false, "write what the client sends to testdata/streams")

// converse uses every method the echo server knows and returns the message that came back.
func converse(ctx context.Context, t *testing.T, conn *client.Connection) client.Delivery {
	ch, err := conn.Channel()
	must(t, err)
	args := client.Table{"x-max-length": int64(5), "x-queue-type": "classic"}
	must(t, ch.ExchangeDeclare("ex", "topic", true, false, false, false, args))
	q, err := ch.QueueDeclare("q", true, false, true, false, args)
	must(t, err)
	if q.Name != "q" || q.Messages != 3 || q.Consumers != 1 {
		t.Errorf("%+v", q)
	}
	must(t, ch.QueueBind("q", "a.*", "ex", false, nil))
	must(t, ch.ExchangeUnbind("dest", "a.*", "src", false, nil))
	must(t, ch.Qos(10, 0, true))
	must(t, ch.Confirm(false))
	_, ok, err := ch.Get("q", false)
	if ok || err != nil {
		t.Error(ok, err)
	}
	deliveries, err := ch.Consume("q", "tag", false, true, false, false, client.Table{"x-priority": int32(5)})
	must(t, err)
	confirm, err := ch.PublishWithDeferredConfirmWithContext(ctx, "ex", "key", true, false, message())
	must(t, err)
	if ok, err := confirm.WaitContext(ctx); !ok || err != nil {
		t.Fatal("not confirmed", err)
	}
	select {
	case d := <-deliveries:
		must(t, d.Nack(true, true))
		must(t, ch.Ack(2, true))
		must(t, ch.Reject(3, false))
		must(t, ch.Close())
		return d
	case <-ctx.Done():
		t.Fatal("no delivery")
	}
	return client.Delivery{}
}

// checkReceived compares what the server decoded with what the client was told to send.
func checkReceived(t *testing.T, server *echo) {
	args := amqp.Table{{Name: "x-max-length", Value: amqp.Int64(5)}, {Name: "x-queue-type", Value: amqp.String("classic")}}
	for _, m := range server.methods {
		var want amqp.Method
		switch have := m.(type) {
		case *amqp.ConnectionStartOk:
			if have.Mechanism != "PLAIN" || string(have.Response) != "\x00guest\x00guest" || have.Locale != "en_US" {
				t.Errorf("start-ok %+v", have)
			}
		case *amqp.ConnectionOpen:
			want = &amqp.ConnectionOpen{VirtualHost: "vh"}
		case *amqp.ExchangeDeclare:
			have.Arguments = sorted(t, have.Arguments, args)
			want = &amqp.ExchangeDeclare{Exchange: "ex", Type: "topic", Durable: true}
		case *amqp.QueueDeclare:
			have.Arguments = sorted(t, have.Arguments, args)
			want = &amqp.QueueDeclare{Queue: "q", Durable: true, Exclusive: true}
		case *amqp.ExchangeUnbind:
			want = &amqp.ExchangeUnbind{Destination: "dest", Source: "src", RoutingKey: "a.*"}
		case *amqp.BasicQos:
			want = &amqp.BasicQos{PrefetchCount: 10, Global: true}
		case *amqp.BasicConsume:
			have.Arguments = sorted(t, have.Arguments, amqp.Table{{Name: "x-priority", Value: amqp.Int32(5)}})
			want = &amqp.BasicConsume{Queue: "q", ConsumerTag: "tag", Exclusive: true}
		case *amqp.BasicPublish:
			want = &amqp.BasicPublish{Exchange: []byte("ex"), RoutingKey: []byte("key"), Mandatory: true}
		case *amqp.BasicNack:
			want = &amqp.BasicNack{DeliveryTag: 1, Multiple: true, Requeue: true}
		case *amqp.BasicAck:
			want = &amqp.BasicAck{DeliveryTag: 2, Multiple: true}
		case *amqp.BasicReject:
			want = &amqp.BasicReject{DeliveryTag: 3}
		}
		if want != nil && !bytes.Equal(m.Append(nil), want.Append(nil)) {
			t.Errorf("%s: have %+v\nwant %+v", m.ID(), m, want)
		}
	}
	headers, _, err := amqp.ParseTable(amqp.HeadersOf(server.props))
	must(t, err)
	for name, want := range map[string]amqp.Value{
		"bool": amqp.Bool(true), "int8": amqp.Int8(-8), "uint8": amqp.Uint8(8), "int16": amqp.Int16(-16),
		"int32": amqp.Int32(-32), "int64": amqp.Int64(-64), "float32": amqp.Float32(1.5), "float64": amqp.Float64(2.5),
		"decimal": amqp.Decimal(2, 314), "string": amqp.String("text"), "bytes": amqp.Binary([]byte{0, 255}),
		"time": amqp.Timestamp(1700000000), "nil": amqp.Void(),
		"array": amqp.ArrayValue(amqp.Int32(1), amqp.String("two"), amqp.Void()),
		"table": amqp.TableValue(amqp.Table{{Name: "inner", Value: amqp.String("value")}}),
	} {
		if have, ok := headers.Get(name); !ok || have.Kind() != want.Kind() || !have.Equal(want) {
			t.Errorf("header %s is %s", name, have.Describe())
		}
	}
}

// sorted fails unless have holds the fields of want in any order, and returns no table.
func sorted(t *testing.T, have, want amqp.Table) amqp.Table {
	t.Helper()
	if !have.Sorted().Equal(want) {
		t.Errorf("arguments %v, want %v", have, want)
	}
	return nil
}

// startEcho serves one client on a free port; the channel brings the result, after which e is the caller's.
func startEcho(t *testing.T) (e *echo, addr string, done <-chan error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { listener.Close() })
	e = new(echo)
	served := make(chan error, 1)
	go func() {
		accepted, err := listener.Accept()
		if err != nil {
			served <- err
			return
		}
		defer accepted.Close()
		e.conn = accepted
		served <- e.serve()
	}()
	return e, listener.Addr().String(), served
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
