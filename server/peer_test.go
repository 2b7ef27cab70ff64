package server

import (
	"context"
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/broker"
	"github.com/settmq/settmq/storage"
	"github.com/settmq/settmq/storage/journal"
	"github.com/settmq/settmq/storage/journal/faultfs"
)

// rig is a server with a broker of its own. Tests run in a synctest bubble: time stands
// still while anything can still happen, so waits and timeouts cost nothing.
type rig struct {
	t    testing.TB
	b    *broker.Broker
	s    *Server
	disk *disk
}

// disk is a journal file system in memory that can be declared full.
type disk struct {
	journal.FS
	full atomic.Bool
}

func (d *disk) Free(dir string) (uint64, error) {
	if d.full.Load() {
		return 0, nil
	}
	return 1 << 40, nil
}

func brokerOptions(t testing.TB, dir string, fs journal.FS) broker.Options {
	return broker.Options{
		Node: "node",
		Storage: storage.Options{
			Dir: dir, FS: fs, JournalSegment: 256 << 10, JournalMax: 1 << 20, Small: true, MinFree: 1, Log: zerolog.Nop(),
			OnFailure: func(err error) { t.Errorf("the store failed: %v", err) },
		},
		Log:   zerolog.Nop(),
		First: broker.FirstRun{VHost: "/", User: "guest", Password: "guest", Configure: ".*", Write: ".*", Read: ".*"},
	}
}

func serverOptions(b *broker.Broker) Options {
	return Options{
		Broker: b, Log: zerolog.Nop(), Product: "RabbitMQ", Version: "3.13.7",
		Heartbeat: 60 * time.Second, FrameMax: 131072, InitialFrameMax: 8192, ChannelMax: 2047,
		HandshakeTimeout: 10 * time.Second, TLSTimeout: 5 * time.Second, MaxMessageSize: 16 << 20,
		Mechanisms: []string{"PLAIN", "AMQPLAIN", "EXTERNAL"}, MaxHandshakes: 256, MaxHandshakesPerIP: 32,
		MaxConsumersPerChannel: 1000, Outbox: 64 << 10,
	}
}

// inBubble runs f with a server in a synctest bubble.
func inBubble(t *testing.T, f func(t *testing.T, r *rig), change ...func(*Options)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) { f(t, newRig(t, dir, change...)) })
}

func newRig(t testing.TB, dir string, change ...func(*Options)) *rig {
	t.Helper()
	return newRigOn(t, brokerOptions(t, dir, &disk{FS: faultfs.New(1)}), change...)
}

// newRigOn is newRig with a broker as bo says; its file system is a disk.
func newRigOn(t testing.TB, bo broker.Options, change ...func(*Options)) *rig {
	t.Helper()
	r := &rig{t: t, disk: bo.Storage.FS.(*disk)}
	var err error
	if r.b, err = broker.Open(bo); err != nil {
		t.Fatal(err)
	}
	o := serverOptions(r.b)
	for _, f := range change {
		f(&o)
	}
	r.s = New(o)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		r.s.Shutdown(ctx)
		if err := r.b.Close(); err != nil {
			t.Errorf("closing the broker: %v", err)
		}
	})
	return r
}

// peer is a client made of frames. A goroutine reads what the server sends, unless it is
// told not to.
type peer struct {
	t        testing.TB
	nc       net.Conn
	frameMax uint32
	deaf     atomic.Bool // reads once more and then nothing

	mu     sync.Mutex
	cond   sync.Cond
	frames []amqp.Frame // guarded by mu, as all below
	err    error        // what ended the reading
	beats  int          // heartbeats received
}

// connect makes a connection whose peer reads nothing yet.
func (r *rig) connect() net.Conn {
	client := r.pipe()
	r.t.Cleanup(func() { _ = client.Close() })
	return client
}

// pipe is connect that leaves the closing to the caller.
func (r *rig) pipe() net.Conn {
	client, server := net.Pipe()
	r.s.accept(server)
	return client
}

func newPeer(t testing.TB, nc net.Conn) *peer {
	p := &peer{t: t, nc: nc, frameMax: 131072}
	p.cond.L = &p.mu
	return p
}

// dial makes a connection with a reading peer.
func (r *rig) dial() *peer {
	p := newPeer(r.t, r.connect())
	go p.read()
	return p
}

func (p *peer) read() {
	var buf []byte
	for {
		f, n, err := amqp.ParseFrame(buf, 1<<20)
		if err == nil && n == 0 {
			if p.deaf.Load() {
				return
			}
			b := make([]byte, 32<<10)
			var k int
			if k, err = p.nc.Read(b); k > 0 {
				buf = append(buf, b[:k]...)
				continue
			}
		}
		p.mu.Lock()
		switch {
		case err != nil:
			p.err = err
		case f.Type == amqp.FrameHeartbeat:
			p.beats++
		default:
			f.Payload = append([]byte(nil), f.Payload...)
			p.frames = append(p.frames, f)
		}
		p.mu.Unlock()
		p.cond.Broadcast()
		if err != nil {
			return
		}
		buf = buf[n:]
	}
}

// patience is for waits; in a bubble it takes no time.
const patience = time.Minute

// wait waits for ok, under mu.
func (p *peer) wait(what string, ok func() bool) {
	p.t.Helper()
	expired := false
	timer := time.AfterFunc(patience, func() {
		p.mu.Lock()
		expired = true
		p.mu.Unlock()
		p.cond.Broadcast()
	})
	defer timer.Stop()
	for !ok() {
		if expired {
			p.t.Fatalf("%s did not come in %v; the connection's error is %v", what, patience, p.err)
		}
		p.cond.Wait()
	}
}

// frame waits for the next frame; ok is false at the end of the connection.
func (p *peer) frame() (f amqp.Frame, ok bool) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wait("a frame", func() bool { return len(p.frames) > 0 || p.err != nil })
	if len(p.frames) == 0 {
		return f, false
	}
	f = p.frames[0]
	p.frames = p.frames[1:]
	return f, true
}

// method waits for the next frame, which must be a method.
func (p *peer) method() (uint16, amqp.Method) {
	p.t.Helper()
	f, ok := p.frame()
	if !ok {
		p.t.Fatalf("the connection ended: %v", p.err)
	}
	m, err := amqp.ParseMethod(f.Payload)
	if f.Type != amqp.FrameMethod || err != nil {
		p.t.Fatalf("frame of type %d is no method: %v", f.Type, err)
	}
	return f.Channel, m
}

// expect waits for a method of the type of T on a channel.
func expect[T amqp.Method](p *peer, channel uint16) T {
	p.t.Helper()
	ch, m := p.method()
	want, ok := m.(T)
	if !ok || ch != channel {
		p.t.Fatalf("got %s %+v on channel %d, want %v on %d", m.ID(), m, ch, reflect.TypeFor[T](), channel)
	}
	return want
}

// call sends a method and waits for its answer.
func call[T amqp.Method](p *peer, channel uint16, m amqp.Method) T {
	p.t.Helper()
	p.send(channel, m)
	return expect[T](p, channel)
}

// expectContent waits for a method with content.
func expectContent[T amqp.Method](p *peer, channel uint16) (m T, body []byte) {
	p.t.Helper()
	m = expect[T](p, channel)
	f, _ := p.frame()
	_, _, size, _, err := amqp.ParseContentHeader(f.Payload)
	if f.Type != amqp.FrameHeader || err != nil {
		p.t.Fatalf("frame of type %d is no header: %v", f.Type, err)
	}
	for uint64(len(body)) < size {
		if f, _ = p.frame(); f.Type != amqp.FrameBody {
			p.t.Fatalf("frame of type %d in a body", f.Type)
		}
		body = append(body, f.Payload...)
	}
	return m, body
}

// ended waits for the end of the connection, before which nothing else must come.
func (p *peer) ended() {
	p.t.Helper()
	if f, ok := p.frame(); ok {
		m, _ := amqp.ParseMethod(f.Payload)
		p.t.Fatalf("got %T %+v instead of the end", m, m)
	}
	if !errors.Is(p.err, io.EOF) {
		p.t.Errorf("the connection ended with %v", p.err)
	}
}

// silent checks that nothing is on its way to the peer.
func (p *peer) silent(when string) {
	p.t.Helper()
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.frames) > 0 || p.err != nil {
		p.t.Fatalf("%s: got %d frames, error %v", when, len(p.frames), p.err)
	}
}

func (p *peer) write(b []byte) {
	p.t.Helper()
	if _, err := p.nc.Write(b); err != nil {
		p.t.Fatalf("write: %v", err)
	}
}

func (p *peer) send(channel uint16, m amqp.Method) {
	p.t.Helper()
	p.write(amqp.AppendMethod(nil, channel, m))
}

func publishFrames(channel uint16, exchange, key string, persistent bool, body []byte) []byte {
	var p amqp.Properties
	if persistent {
		p.Flags, p.DeliveryMode = amqp.PropDeliveryMode, amqp.Persistent
	}
	b := amqp.AppendPublish(nil, channel, exchange, key, false)
	return amqp.AppendContent(b, channel, p.Append(nil), body, 131072)
}

func (p *peer) publish(channel uint16, exchange, key, body string) {
	p.t.Helper()
	p.write(publishFrames(channel, exchange, key, false, []byte(body)))
}

var clientProperties = amqp.Table{{Name: "capabilities", Value: amqp.TableValue(amqp.Table{
	{Name: "consumer_cancel_notify", Value: amqp.Bool(true)},
	{Name: "connection.blocked", Value: amqp.Bool(true)},
	{Name: "authentication_failure_close", Value: amqp.Bool(true)},
})}}

func plain(user, password string) *amqp.ConnectionStartOk {
	return &amqp.ConnectionStartOk{
		ClientProperties: clientProperties, Mechanism: "PLAIN", Response: []byte("\x00" + user + "\x00" + password), Locale: "en_US",
	}
}

// login goes as far as tune, with what start-ok says.
func (p *peer) login(m *amqp.ConnectionStartOk) *amqp.ConnectionTune {
	p.t.Helper()
	p.write([]byte(amqp.ProtocolHeader))
	expect[*amqp.ConnectionStart](p, 0)
	return call[*amqp.ConnectionTune](p, 0, m)
}

// open does the rest of the handshake.
func (p *peer) open(heartbeat uint16) {
	p.t.Helper()
	p.send(0, &amqp.ConnectionTuneOk{FrameMax: p.frameMax, Heartbeat: heartbeat})
	call[*amqp.ConnectionOpenOk](p, 0, &amqp.ConnectionOpen{VirtualHost: "/"})
}

// open makes a connection of user guest with channel 1 open.
func (r *rig) open() *peer {
	r.t.Helper()
	return r.openAs("guest")
}

// openAs is open for any user whose password is its name.
func (r *rig) openAs(user string) *peer {
	r.t.Helper()
	p := r.dial()
	p.login(plain(user, user))
	p.open(0)
	p.channel(1)
	return p
}

func (p *peer) channel(n uint16) {
	p.t.Helper()
	call[*amqp.ChannelOpenOk](p, n, &amqp.ChannelOpen{})
}

func (p *peer) declare(q string) {
	p.t.Helper()
	call[*amqp.QueueDeclareOk](p, 1, &amqp.QueueDeclare{Queue: q})
}

func (p *peer) consume(q string, noAck bool) {
	p.t.Helper()
	call[*amqp.BasicConsumeOk](p, 1, &amqp.BasicConsume{Queue: q, ConsumerTag: q, NoAck: noAck})
}

// works does a round trip with a message.
func (p *peer) works() {
	p.t.Helper()
	name := call[*amqp.QueueDeclareOk](p, 1, &amqp.QueueDeclare{Exclusive: true}).Queue
	p.publish(1, "", name, "ping")
	p.send(1, &amqp.BasicGet{Queue: name, NoAck: true})
	if _, body := expectContent[*amqp.BasicGetOk](p, 1); string(body) != "ping" {
		p.t.Errorf("got %q back", body)
	}
	call[*amqp.QueueDeleteOk](p, 1, &amqp.QueueDelete{Queue: name})
}

// closeExpected checks a connection.close and answers it.
func (p *peer) closeExpected(code uint16, text string) {
	p.t.Helper()
	m := expect[*amqp.ConnectionClose](p, 0)
	if m.ReplyCode != code || !strings.HasPrefix(m.ReplyText, text) {
		p.t.Errorf("connection.close %d %q, want %d %q", m.ReplyCode, m.ReplyText, code, text)
	}
	p.send(0, &amqp.ConnectionCloseOk{})
	p.ended()
}

// channelCloseExpected checks a channel.close and answers it.
func (p *peer) channelCloseExpected(channel, code uint16, text string) {
	p.t.Helper()
	m := expect[*amqp.ChannelClose](p, channel)
	if m.ReplyCode != code || !strings.HasPrefix(m.ReplyText, text) {
		p.t.Errorf("channel.close %d %q, want %d %q", m.ReplyCode, m.ReplyText, code, text)
	}
	p.send(channel, &amqp.ChannelCloseOk{})
}

// conns waits for everything to come to rest and counts connections.
func (r *rig) conns() int {
	synctest.Wait()
	return len(r.s.connections())
}
