package integration

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// A client that hides nothing: the test writes every frame and reads every frame in the order of
// the wire. It has one goroutine, the test's, and a codec of its own.

const (
	frameMethod, frameHeader, frameBody, frameHeartbeat = 1, 2, 3, 8
	frameEnd                                            = 0xCE
)

// methodID is class<<16 | method.
type methodID uint32

func id(class, method uint16) methodID { return methodID(class)<<16 | methodID(method) }

func (m methodID) String() string { return fmt.Sprintf("%d.%d", m>>16, m&0xffff) }

// The methods that the tests send or expect.
var (
	connectionStart   = id(10, 10)
	connectionStartOk = id(10, 11)
	connectionTune    = id(10, 30)
	connectionTuneOk  = id(10, 31)
	connectionOpen    = id(10, 40)
	connectionOpenOk  = id(10, 41)
	connectionClose   = id(10, 50)
	connectionCloseOk = id(10, 51)
	channelOpen       = id(20, 10)
	channelOpenOk     = id(20, 11)
	channelFlow       = id(20, 20)
	channelFlowOk     = id(20, 21)
	channelClose      = id(20, 40)
	channelCloseOk    = id(20, 41)
	accessRequest     = id(30, 10)
	accessRequestOk   = id(30, 11)
	exchangeDeclare   = id(40, 10)
	exchangeDelete    = id(40, 20)
	exchangeBind      = id(40, 30)
	exchangeUnbind    = id(40, 40)
	queueDeclare      = id(50, 10)
	queueDeclareOk    = id(50, 11)
	queueBind         = id(50, 20)
	queueBindOk       = id(50, 21)
	queuePurge        = id(50, 30)
	queueDelete       = id(50, 40)
	queueDeleteOk     = id(50, 41)
	basicQos          = id(60, 10)
	basicQosOk        = id(60, 11)
	basicConsume      = id(60, 20)
	basicConsumeOk    = id(60, 21)
	basicCancel       = id(60, 30)
	basicCancelOk     = id(60, 31)
	basicPublish      = id(60, 40)
	basicReturn       = id(60, 50)
	basicDeliver      = id(60, 60)
	basicGet          = id(60, 70)
	basicGetOk        = id(60, 71)
	basicGetEmpty     = id(60, 72)
	basicAck          = id(60, 80)
	basicRecoverAsync = id(60, 100)
	basicRecover      = id(60, 110)
	basicRecoverOk    = id(60, 111)
	basicNack         = id(60, 120)
	confirmSelect     = id(85, 10)
	confirmSelectOk   = id(85, 11)
)

// args builds method arguments, a field table or a property list.
type args []byte

func (a args) octet(v byte) args           { return append(a, v) }
func (a args) short(v uint16) args         { return binary.BigEndian.AppendUint16(a, v) }
func (a args) long(v uint32) args          { return binary.BigEndian.AppendUint32(a, v) }
func (a args) longlong(v uint64) args      { return binary.BigEndian.AppendUint64(a, v) }
func (a args) raw(b ...byte) args          { return append(a, b...) }
func (a args) shortstr(s string) args      { return append(append(a, byte(len(s))), s...) }
func (a args) longstr(s string) args       { return append(a.long(uint32(len(s))), s...) }
func (a args) table(fields args) args      { return append(a.long(uint32(len(fields))), fields...) }
func (a args) emptyTable() args            { return a.long(0) }
func (a args) name(s string) args          { return a.shortstr(s) } // of a table field; its value follows
func (a args) str(name, value string) args { return a.name(name).octet('S').longstr(value) }

// bits packs flags into one octet, the first one lowest.
func (a args) bits(flags ...bool) args {
	var b byte
	for i, f := range flags {
		if f {
			b |= 1 << i
		}
	}
	return append(a, b)
}

// frame is one frame as it came.
type frame struct {
	kind    byte
	channel uint16
	payload []byte
}

// method is the id of a method frame, 0 for others.
func (f frame) method() methodID {
	if f.kind != frameMethod || len(f.payload) < 4 {
		return 0
	}
	return methodID(binary.BigEndian.Uint32(f.payload))
}

// reader decodes method arguments; a short payload fails the test.
type reader struct {
	t testing.TB
	b []byte
}

func (r *reader) take(n int) []byte {
	r.t.Helper()
	if len(r.b) < n {
		r.t.Fatalf("arguments end %d bytes early: % x", n-len(r.b), r.b)
	}
	p := r.b[:n]
	r.b = r.b[n:]
	return p
}

func (r *reader) octet() byte      { return r.take(1)[0] }
func (r *reader) short() uint16    { return binary.BigEndian.Uint16(r.take(2)) }
func (r *reader) long() uint32     { return binary.BigEndian.Uint32(r.take(4)) }
func (r *reader) longlong() uint64 { return binary.BigEndian.Uint64(r.take(8)) }
func (r *reader) shortstr() string { return string(r.take(int(r.octet()))) }
func (r *reader) longstr() string  { return string(r.take(int(r.long()))) }

// wireConn is a connection after its handshake.
type wireConn struct {
	t        testing.TB
	nc       net.Conn
	r        *bufio.Reader
	frameMax uint32
	uri      amqp.URI // of the broker, the user and the vhost
}

// wireOptions changes the handshake.
type wireOptions struct {
	frameMax     uint32 // 0: what the broker proposes
	channelMax   uint16 // 0: what the broker proposes
	capabilities []string
}

// allCapabilities is what a modern client says it can do.
var allCapabilities = []string{"consumer_cancel_notify", "basic.nack", "publisher_confirms", "connection.blocked", "authentication_failure_close"}

// wireTCP opens a connection without saying a word.
func wireTCP(t testing.TB) *wireConn {
	t.Helper()
	return wireURI(t, sut.uri)
}

// wireURI is wireTCP to a broker of the test's own.
func wireURI(t testing.TB, uri amqp.URI) *wireConn {
	t.Helper()
	d := net.Dialer{Timeout: patience}
	nc, err := d.DialContext(t.Context(), "tcp", net.JoinHostPort(uri.Host, strconv.Itoa(uri.Port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	return &wireConn{t: t, nc: nc, r: bufio.NewReader(nc), frameMax: 4096, uri: uri}
}

// wireDial opens a connection and channel 1.
func wireDial(t testing.TB) *wireConn {
	t.Helper()
	c := wireTCP(t)
	c.handshake(wireOptions{capabilities: allCapabilities})
	c.openChannel(1)
	return c
}

// handshake goes from the protocol header to connection.open-ok.
func (c *wireConn) handshake(o wireOptions) {
	c.t.Helper()
	c.login(o.capabilities)
	tune := c.expect(0, connectionTune)
	channelMax, frameMax := tune.short(), tune.long()
	if o.channelMax != 0 {
		channelMax = o.channelMax
	}
	if o.frameMax != 0 {
		frameMax = o.frameMax
	}
	c.frameMax = frameMax
	c.send(0, connectionTuneOk, args{}.short(channelMax).long(frameMax).short(0))
	c.send(0, connectionOpen, args{}.shortstr(c.uri.Vhost).shortstr("").octet(0))
	c.expect(0, connectionOpenOk)
}

// login sends the protocol header and start-ok.
func (c *wireConn) login(capabilities []string) {
	c.t.Helper()
	c.write([]byte("AMQP\x00\x00\x09\x01"))
	c.expect(0, connectionStart)
	var caps args
	for _, name := range capabilities {
		caps = caps.name(name).octet('t').octet(1)
	}
	properties := args{}.str("product", "integration suite").name("capabilities").octet('F').table(caps)
	c.send(0, connectionStartOk, args{}.table(properties).shortstr("PLAIN").
		longstr("\x00"+c.uri.Username+"\x00"+c.uri.Password).shortstr("en_US"))
}

func (c *wireConn) openChannel(n uint16) {
	c.t.Helper()
	c.send(n, channelOpen, args{}.shortstr(""))
	c.expect(n, channelOpenOk)
}

func (c *wireConn) write(b []byte) {
	c.t.Helper()
	if err := c.nc.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.nc.Write(b); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

func appendFrame(b []byte, kind byte, channel uint16, payload []byte) []byte {
	b = append(b, kind)
	b = binary.BigEndian.AppendUint16(b, channel)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	b = append(b, payload...)
	return append(b, frameEnd)
}

// appendMethod appends a method frame, for tests that write several frames at once.
func appendMethod(b []byte, channel uint16, m methodID, a args) []byte {
	return appendFrame(b, frameMethod, channel, append(binary.BigEndian.AppendUint32(nil, uint32(m)), a...))
}

// send writes one method frame.
func (c *wireConn) send(channel uint16, m methodID, a args) {
	c.t.Helper()
	c.write(appendMethod(nil, channel, m, a))
}

// publishArgs are the arguments of basic.publish.
func publishArgs(exchange, key string, mandatory, immediate bool) args {
	return args{}.short(0).shortstr(exchange).shortstr(key).bits(mandatory, immediate)
}

// appendContent appends a header frame with these properties (flags and values) and the body.
func (c *wireConn) appendContent(b []byte, channel uint16, properties args, body []byte) []byte {
	if properties == nil {
		properties = args{}.short(0)
	}
	b = appendFrame(b, frameHeader, channel, append(args{}.short(60).short(0).longlong(uint64(len(body))), properties...))
	for len(body) > 0 {
		n := min(len(body), int(c.frameMax)-8)
		b = appendFrame(b, frameBody, channel, body[:n])
		body = body[n:]
	}
	return b
}

// publish sends a whole message.
func (c *wireConn) publish(channel uint16, method, properties args, body string) {
	c.t.Helper()
	c.write(c.appendContent(appendMethod(nil, channel, basicPublish, method), channel, properties, []byte(body)))
}

// read returns the next frame, heartbeats left out, or the error that ended the connection.
func (c *wireConn) read() (frame, error) {
	for {
		if err := c.nc.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return frame{}, err
		}
		var head [7]byte
		if _, err := io.ReadFull(c.r, head[:]); err != nil {
			return frame{}, err
		}
		size := binary.BigEndian.Uint32(head[3:])
		if size > 1<<20 {
			return frame{}, fmt.Errorf("a frame of %d bytes", size)
		}
		payload := make([]byte, size+1)
		if _, err := io.ReadFull(c.r, payload); err != nil {
			return frame{}, err
		}
		if payload[size] != frameEnd {
			return frame{}, fmt.Errorf("frame ends with %#x", payload[size])
		}
		if head[0] != frameHeartbeat {
			return frame{head[0], binary.BigEndian.Uint16(head[1:]), payload[:size]}, nil
		}
	}
}

// next returns the next frame.
func (c *wireConn) next() frame {
	c.t.Helper()
	f, err := c.read()
	if err != nil {
		c.t.Fatalf("read: %v", err)
	}
	return f
}

// expect reads the next frame, which must be this method, and returns its arguments.
func (c *wireConn) expect(channel uint16, m methodID) *reader {
	c.t.Helper()
	f := c.next()
	if f.method() != m || f.channel != channel {
		c.t.Fatalf("got %s, want method %v on channel %d", describe(f), m, channel)
	}
	return &reader{c.t, f.payload[4:]}
}

// describe renders a frame for a failure.
func describe(f frame) string {
	if f.kind != frameMethod {
		return fmt.Sprintf("frame type %d of %d bytes on channel %d", f.kind, len(f.payload), f.channel)
	}
	return fmt.Sprintf("method %v on channel %d (%.80q)", f.method(), f.channel, f.payload[4:])
}

// content is what follows a content-bearing method.
type content struct {
	properties []byte // flags and values, as they came
	body       []byte
	frames     int // body frames
}

// content reads the header and the body frames of one message.
func (c *wireConn) content(channel uint16) content {
	c.t.Helper()
	f := c.next()
	if f.kind != frameHeader || f.channel != channel {
		c.t.Fatalf("got %s, want a content header on channel %d", describe(f), channel)
	}
	r := &reader{c.t, f.payload}
	if class, weight := r.short(), r.short(); class != 60 || weight != 0 {
		c.t.Fatalf("content header of class %d, weight %d", class, weight)
	}
	size := r.longlong()
	m := content{properties: r.b}
	for uint64(len(m.body)) < size {
		f := c.next()
		if f.kind != frameBody || f.channel != channel {
			c.t.Fatalf("got %s, want content body on channel %d", describe(f), channel)
		}
		if uint32(len(f.payload))+8 > c.frameMax && c.frameMax != 0 {
			c.t.Fatalf("a body frame of %d bytes, frame_max is %d", len(f.payload)+8, c.frameMax)
		}
		m.body = append(m.body, f.payload...)
		m.frames++
	}
	if uint64(len(m.body)) != size {
		c.t.Fatalf("body of %d bytes, the header said %d", len(m.body), size)
	}
	return m
}

// wireDelivery is a basic.deliver with its content.
type wireDelivery struct {
	consumer      string
	tag           uint64
	redelivered   bool
	exchange, key string
	content
}

// deliver reads a basic.deliver and its content.
func (c *wireConn) deliver(channel uint16) wireDelivery {
	c.t.Helper()
	r := c.expect(channel, basicDeliver)
	d := wireDelivery{consumer: r.shortstr(), tag: r.longlong(), redelivered: r.octet() == 1, exchange: r.shortstr(), key: r.shortstr()}
	d.content = c.content(channel)
	return d
}

// declare declares an exclusive queue under a new name.
func (c *wireConn) declare(channel uint16) string {
	c.t.Helper()
	name := nameFor(c.t, "q")
	c.send(channel, queueDeclare, args{}.short(0).shortstr(name).bits(false, false, true, false, false).emptyTable())
	if got := c.expect(channel, queueDeclareOk).shortstr(); got != name {
		c.t.Fatalf("declare-ok for %q, want %q", got, name)
	}
	return name
}

// consume starts a consumer and reads consume-ok.
func (c *wireConn) consume(channel uint16, queue, tag string, noAck bool) string {
	c.t.Helper()
	c.send(channel, basicConsume, args{}.short(0).shortstr(queue).shortstr(tag).bits(false, noAck, false, false).emptyTable())
	return c.expect(channel, basicConsumeOk).shortstr()
}

// inspect asks for the counts of a queue.
func (c *wireConn) inspect(channel uint16, queue string) (messages, consumers uint32) {
	c.t.Helper()
	c.send(channel, queueDeclare, args{}.short(0).shortstr(queue).bits(true, false, false, false, false).emptyTable())
	r := c.expect(channel, queueDeclareOk)
	r.shortstr()
	return r.long(), r.long()
}

// wantReady waits until the queue has this many ready messages.
func (c *wireConn) wantReady(channel uint16, queue string, want uint32) {
	c.t.Helper()
	eventually(c.t, func() error {
		if got, _ := c.inspect(channel, queue); got != want {
			return fmt.Errorf("queue %q has %d ready messages, want %d", queue, got, want)
		}
		return nil
	})
}

// quiet checks that nothing is on its way: two round trips over the queue bring nothing else.
func (c *wireConn) quiet(channel uint16, queue string) {
	c.t.Helper()
	c.inspect(channel, queue)
	c.inspect(channel, queue)
}

// wantClose reads a channel.close (channel > 0) or connection.close (channel 0), checks code
// and text, and answers it.
func (c *wireConn) wantClose(channel uint16, code uint16, text string) {
	c.t.Helper()
	m, ok := channelClose, channelCloseOk
	if channel == 0 {
		m, ok = connectionClose, connectionCloseOk
	}
	r := c.expect(channel, m)
	if gotCode, gotText := r.short(), r.shortstr(); gotCode != code || gotText != text {
		c.t.Fatalf("closed with %d %q\nwant        %d %q", gotCode, gotText, code, text)
	}
	c.send(channel, ok, nil)
}

// wantEOF checks that the broker closes the socket without another frame.
func (c *wireConn) wantEOF() {
	c.t.Helper()
	f, err := c.read()
	var ne net.Error
	switch {
	case err == nil:
		c.t.Fatalf("got %s, want the connection to be closed", describe(f))
	case errors.As(err, &ne) && ne.Timeout():
		c.t.Fatal("the connection stays open")
	}
}
