package server

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/auth"
	"github.com/settmq/settmq/broker"
	"github.com/settmq/settmq/queue"
)

const (
	// restBuffer is what an idle connection reads into; busyBuffer what it gets from the
	// pool once that was full.
	restBuffer = 2 << 10
	busyBuffer = 128 << 10
	// failureDelay is how long a connection that failed its login, or broke the framing,
	// is kept before it is dropped, as in RabbitMQ: guessing is slow, and a close frame has
	// time to arrive.
	failureDelay = 3 * time.Second
	// closeTimeout bounds the wait for close-ok.
	closeTimeout = 30 * time.Second
)

type connState uint8

const (
	wantProtocolHeader connState = iota
	wantStartOk
	wantTuneOk
	wantOpen
	running
	closing // connection.close was sent
	gone    // close-ok was exchanged, or the socket is lost
)

// clientInfo is what the client said of itself in start-ok.
type clientInfo struct {
	cancelNotify     bool
	blockedNotify    bool
	authFailureClose bool
	name             string // connection_name
	product, version string
	properties       amqp.Table
}

// conn is one AMQP connection.
type conn struct {
	// Immutable.
	srv *Server
	nc  net.Conn
	id  uint64
	out *outbox
	log zerolog.Logger

	// Owned by the reader; immutable once running.
	user       *auth.User
	vhost      *broker.VHost
	counted    bool // among the connections of its vhost and user
	session    *broker.Session
	client     clientInfo
	mechanism  string
	frameMax   uint32 // negotiated
	channelMax uint16
	about      broker.ConnectionAbout

	// Owned by the reader.
	state         connState
	handshakeDone bool
	maxPayload    uint32
	channels      map[uint16]*channel // written under mu, so that others may look
	lastChannel   *channel            // of the last frame
	acks          ackRun
	scratch       struct {
		publish amqp.BasicPublish
		ack     amqp.BasicAck
	}
	wakes       queue.Wakes
	blockedSent bool          // connection.blocked was sent and not taken back
	held        []heldPublish // wait for an alarm to clear
	heldBytes   int
	reason      string

	received      atomic.Uint64 // reads that brought bytes, for heartbeats
	receivedBytes atomic.Uint64
	ending        atomic.Bool // connection.close was sent or received
	openChannels  atomic.Int32
	heartbeat     atomic.Int64 // negotiated, in ns; 0 = off
	paused        atomic.Bool  // the reader waits for an alarm, the disk or the writer: no bytes mean nothing
	beats         beatState    // owned by the server's heartbeat goroutine

	mu          sync.Mutex
	interrupted *amqp.Error      // guarded by mu: somebody wants the connection closed
	resume      chan struct{}    // guarded by mu: the reader waits on it for an alarm to clear
	holding     bool             // guarded by mu: held is not empty
	failing     []failingChannel // guarded by mu: to be closed by the reader
	resumed     bool             // guarded by mu: the alarm is over, the reader was woken
	stop        chan struct{}    // closed when the connection is to end, for waits in handlers
	stopOnce    sync.Once
}

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{
		srv: s, nc: nc, id: s.o.Broker.NextConnectionID(), out: newOutbox(nc, s.o.Outbox),
		frameMax: s.o.InitialFrameMax, channels: make(map[uint16]*channel), stop: make(chan struct{}),
	}
	c.maxPayload = s.o.InitialFrameMax - amqp.FrameOverhead
	c.out.onDead = func() { c.stopOnce.Do(func() { close(c.stop) }) }
	c.log = s.o.Log.With().Uint64("conn", c.id).Str("peer", nc.RemoteAddr().String()).Logger()
	return c
}

// name tells the connection apart in traces and events, as RabbitMQ's names do.
func (c *conn) name() string { return c.nc.RemoteAddr().String() + " -> " + c.nc.LocalAddr().String() }

// serve runs the connection until it is gone.
func (c *conn) serve() {
	defer c.srv.remove(c)
	defer c.out.writer.Wait()
	defer c.out.end()
	defer c.srv.handshakeOver(c)
	defer c.cleanup()
	defer func() {
		if p := recover(); p != nil {
			// A bug of ours: this connection dies, the broker and everybody else go on.
			c.log.Error().Interface("err", p).Bytes("stack", debug.Stack()).Msg("connection handler panicked")
			c.reason = "internal error"
			c.release()
			c.out.method(0, amqp.InternalError("").ConnectionClose(), &c.wakes)
			c.wakes.Flush()
		}
	}()
	c.setReadDeadline(time.Now().Add(c.srv.o.HandshakeTimeout))
	if !c.secure() || !c.readProtocolHeader() {
		return
	}
	c.readLoop()
}

// cleanup is the last thing that happens to a connection.
func (c *conn) cleanup() {
	c.stopOnce.Do(func() { close(c.stop) })
	c.release()
	c.wakes.Flush()
	if c.session != nil {
		c.closedEvent()
		c.log.Info().Str("user", c.user.Name).Str("vhost", c.vhost.Name()).Str("reason", c.reason).Msg("connection closed")
	} else {
		c.log.Debug().Str("reason", c.reason).Msg("connection closed before it was open")
	}
}

// release gives back what the connection holds in the broker. It may be called twice.
func (c *conn) release() {
	c.flushAcks()
	c.held, c.heldBytes = nil, 0
	c.mu.Lock()
	c.holding = false
	c.mu.Unlock()
	if len(c.channels) > 0 {
		c.session.CloseChannels(len(c.channels))
	}
	for _, ch := range c.channels {
		if !ch.closing {
			ch.release()
		}
	}
	c.mu.Lock()
	clear(c.channels)
	c.mu.Unlock()
	c.lastChannel = nil
	if c.vhost != nil {
		c.vhost.ConnectionClosed(c.id)
	}
	if c.counted {
		c.counted = false
		c.srv.o.Broker.Closed(c)
		c.srv.o.Broker.Leave(c.user.Name, c.vhost)
	}
}

// readLoop parses and handles what the socket brings until the connection is gone.
func (c *conn) readLoop() {
	buf := make([]byte, restBuffer)
	var r, w int // buf[r:w] is unparsed
	defer func() { putReadBuffer(buf) }()
	for c.state != gone {
		n, err := c.nc.Read(buf[w:])
		if n > 0 {
			c.received.Add(1)
			c.receivedBytes.Add(uint64(n))
			w += n
			r += c.handleBurst(buf[r:w])
		}
		interrupted := c.takeInterrupt()
		if err != nil && !interrupted {
			c.lost(err)
			return
		}
		if c.state == gone {
			return // what is left in buf nobody has looked at
		}
		buf, r, w = c.makeRoom(buf, r, w)
	}
}

// lost notes why the socket is no more.
func (c *conn) lost(err error) {
	was := c.state
	c.state = gone
	if c.reason != "" {
		return
	}
	switch {
	case errors.Is(err, io.EOF):
		c.reason = "client closed the socket without connection.close"
	case errors.Is(err, os.ErrDeadlineExceeded) && was < running:
		c.reason = "handshake timeout"
	default:
		c.reason = err.Error()
	}
	if was == running {
		c.log.Warn().Str("reason", c.reason).Msg("connection lost")
	}
}

// handleBurst handles every whole frame in b and returns the number of bytes it is done
// with. Writers that got something are woken once, at the end.
func (c *conn) handleBurst(b []byte) (done int) {
	for c.state != gone {
		f, n, err := amqp.ParseFrame(b[done:], c.maxPayload)
		if err != nil {
			c.broken(protocolError(err))
			return len(b)
		}
		if n == 0 {
			break
		}
		done += n
		if c.out.size.Load() >= c.out.limit {
			c.wakes.Flush()
			c.paused.Store(true)
			c.out.waitForRoom()
			c.paused.Store(false)
		}
		c.handleFrame(f)
	}
	c.flushAcks()
	c.wakes.Flush()
	return done
}

// makeRoom prepares the buffer for the next read: small while nothing comes, large under
// load, never smaller than the frame that has begun.
func (c *conn) makeRoom(buf []byte, r, w int) ([]byte, int, int) {
	full := w == len(buf)
	left := w - r
	need := amqp.FrameSize(buf[r:w])
	size := len(buf)
	switch {
	case need > size || full && size < busyBuffer:
		size = max(need, busyBuffer)
	case left == 0 && w <= restBuffer/2 && size > restBuffer:
		size = restBuffer
	}
	if size == len(buf) {
		if r > 0 {
			copy(buf, buf[r:w])
		}
		return buf, 0, left
	}
	next := getReadBuffer(size)
	copy(next, buf[r:w])
	putReadBuffer(buf)
	return next, 0, left
}

var readBuffers = sync.Pool{New: func() any { b := make([]byte, busyBuffer); return &b }}

func getReadBuffer(size int) []byte {
	if size == busyBuffer {
		return *readBuffers.Get().(*[]byte)
	}
	return make([]byte, size)
}

func putReadBuffer(b []byte) {
	if len(b) == busyBuffer {
		readBuffers.Put(&b)
	}
}

// fail closes the connection with an error: everything is given back, connection.close
// sent, and all frames ignored but the close handshake.
func (c *conn) fail(err *amqp.Error) {
	if c.state >= closing {
		return
	}
	user := ""
	if c.user != nil {
		user = c.user.Name
	}
	c.log.Warn().Str("user", user).Uint16("code", err.Code).
		Str("method", err.MethodID().String()).Msg(err.Text)
	c.reason = err.Text
	wait := c.closeWait()
	c.release()
	c.awaitClose(wait)
	c.out.method(0, err.ConnectionClose(), &c.wakes)
	c.wakes.Flush()
}

// closeWait is how long the peer has to end a closed connection.
func (c *conn) closeWait() time.Duration {
	if c.state < running {
		return failureDelay
	}
	if hb := time.Duration(c.heartbeat.Load()); hb > 0 {
		return min(closeTimeout, hb)
	}
	return closeTimeout
}

// awaitClose makes the connection hear nothing but the close handshake, for so long.
func (c *conn) awaitClose(wait time.Duration) {
	c.state = closing
	c.ending.Store(true)
	c.heartbeat.Store(0)
	c.setReadDeadline(time.Now().Add(wait))
}

// broken ends a connection whose bytes make no sense any more: the error is sent, nothing
// more is understood, and the socket closed when the client has closed it or a little later.
func (c *conn) broken(err *amqp.Error) {
	if c.state < wantOpen {
		c.drop(err.Text) // before tune-ok RabbitMQ says nothing
		return
	}
	c.fail(err)
	c.drain()
}

// drop ends a connection without a word, after the delay that failures get.
func (c *conn) drop(reason string) {
	c.log.Warn().Str("reason", reason).Msg("connection refused")
	c.reason = reason
	c.drain()
}

// drain throws away what still comes, so that the socket's end does not overtake frames
// that are on their way to the client.
func (c *conn) drain() {
	c.wakes.Flush()
	deadline := time.Now().Add(failureDelay)
	c.setReadDeadline(deadline)
	var b [512]byte
	for {
		if _, err := c.nc.Read(b[:]); err != nil {
			break
		}
	}
	c.state = gone
}

// interrupt asks the reader, from another goroutine, to close the connection.
func (c *conn) interrupt(err *amqp.Error) {
	c.stopOnce.Do(func() { close(c.stop) })
	c.mu.Lock()
	defer c.mu.Unlock()
	c.interrupted = err
	_ = c.nc.SetReadDeadline(time.Unix(1, 0)) // wakes the reader
}

// interruptChannel asks the reader, from another goroutine, to close a channel.
func (c *conn) interruptChannel(ch *channel, err *amqp.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failing = append(c.failing, failingChannel{ch, err})
	_ = c.nc.SetReadDeadline(time.Unix(1, 0)) // wakes the reader
}

type failingChannel struct {
	ch  *channel
	err *amqp.Error
}

// setReadDeadline is what the reader sets its deadline with: a wake by interrupt or by the
// end of an alarm that it has not seen yet must not get lost.
func (c *conn) setReadDeadline(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.interrupted == nil && !c.resumed && len(c.failing) == 0 {
		_ = c.nc.SetReadDeadline(t)
	}
}

// takeInterrupt carries out what interrupt asked for, or goes on after an alarm; false if
// the reader was not woken for either.
func (c *conn) takeInterrupt() bool {
	c.mu.Lock()
	err := c.interrupted
	resumed, failing := c.resumed, c.failing
	c.interrupted, c.resumed, c.failing = nil, false, nil
	c.mu.Unlock()
	switch {
	case err == nil && (resumed || failing != nil) && c.state == running:
		c.setReadDeadline(time.Time{})
		for _, f := range failing {
			if c.channels[f.ch.id] == f.ch && !f.ch.closing {
				c.failed(f.ch, f.err)
			}
		}
		if resumed {
			c.releaseHeld()
		}
		c.wakes.Flush()
	case err == nil && (resumed || failing != nil): // closing meanwhile
		c.setReadDeadline(time.Now().Add(failureDelay))
	case err == nil:
		return false
	case c.state < running:
		c.reason = err.Text
		c.state = gone
	case c.state == running:
		c.fail(err)
	default:
		c.setReadDeadline(time.Now().Add(failureDelay))
	}
	return true
}

// protocolError is the *amqp.Error that the codec returned as an error.
func protocolError(err error) *amqp.Error {
	var e *amqp.Error
	if errors.As(err, &e) {
		return e
	}
	return amqp.InternalError("")
}
