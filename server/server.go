package server

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/broker"
)

// Options say how connections are served. All fields are needed unless noted.
type Options struct {
	Broker *broker.Broker
	Log    zerolog.Logger

	// What connection.start says of the broker.
	Product, Version string
	// Properties are further server-properties; they replace those of the same name that
	// the server fills in.
	Properties map[string]string

	Heartbeat        time.Duration // proposed; whole seconds
	FrameMax         uint32        // largest frame, at least 4096
	InitialFrameMax  uint32        // until tune-ok
	ChannelMax       uint16
	HandshakeTimeout time.Duration // from accept to connection.open
	TLSTimeout       time.Duration // of these, for TLS
	MaxMessageSize   int           // body bytes, at most 512 MiB

	Mechanisms []string // PLAIN, AMQPLAIN, EXTERNAL
	// CertificateUser names the user of a client certificate, for EXTERNAL.
	CertificateUser func(*tls.ConnectionState) (string, error)

	MaxConnections         int // 0 = unlimited
	MaxHandshakes          int // connections that have not opened a vhost yet
	MaxHandshakesPerIP     int
	MaxConsumersPerChannel int
	Outbox                 int // bytes queued for one socket before deliveries stop
}

// Server serves AMQP 0-9-1 connections. All methods may be called from any goroutine.
type Server struct {
	o     Options
	start amqp.Table // server-properties

	mu        sync.Mutex
	listeners map[net.Listener]struct{} // guarded by mu, like all below
	conns     map[*conn]struct{}        // from accept to the end
	admission admission
	closing   bool           // no more connections
	running   sync.WaitGroup // a count for every connection
	quit      chan struct{}  // closed by Shutdown, for the heartbeat goroutine
}

// New makes a server and starts its heartbeat goroutine; Shutdown ends it.
func New(o Options) *Server {
	s := &Server{
		o: o, start: serverProperties(o),
		listeners: make(map[net.Listener]struct{}), conns: make(map[*conn]struct{}),
		admission: newAdmission(&o), quit: make(chan struct{}),
	}
	o.Broker.Alarms().Listen(s.alarm)
	o.Broker.Alarms().OnRelease(s.releasePublishers)
	s.running.Add(1)
	go s.heartbeats()
	return s
}

// ErrClosed is returned by Serve after Shutdown.
var ErrClosed = errors.New("server closed")

// Serve accepts connections from l, plain or TLS, until Shutdown. It returns ErrClosed
// then, or the listener's error.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return ErrClosed
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	pause := time.Duration(0)
	for {
		nc, err := l.Accept()
		if err == nil {
			pause = 0
			s.accept(nc)
			continue
		}
		s.mu.Lock()
		closing := s.closing
		s.mu.Unlock()
		if closing {
			return ErrClosed
		}
		var ne net.Error
		if !errors.As(err, &ne) || errors.Is(err, net.ErrClosed) {
			return err
		}
		// Out of file descriptors, most likely: those that are connected go on.
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		s.o.Log.Error().Err(err).Dur("dur", pause).Msg("accept failed, waiting")
		select {
		case <-time.After(pause):
		case <-s.quit:
			return ErrClosed
		}
	}
}

// handshakeOver frees the connection's place among those in handshake, once.
func (s *Server) handshakeOver(c *conn) {
	if c.handshakeDone {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handshakeOverLocked(c)
}

// admit is handshakeOver for a connection that is about to be open, unless there are as many
// open ones as there may be.
func (s *Server) admit(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fullLocked() {
		return false
	}
	s.handshakeOverLocked(c)
	return true
}

func (s *Server) handshakeOverLocked(c *conn) {
	c.handshakeDone = true
	s.admission.give(peerIP(c.nc))
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.running.Done()
}

// connections returns the connections of this moment.
func (s *Server) connections() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		list = append(list, c)
	}
	return list
}

// full reports whether no further connection may be opened.
func (s *Server) full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fullLocked()
}

func (s *Server) fullLocked() bool {
	return s.o.MaxConnections > 0 && len(s.conns)-s.admission.pending >= s.o.MaxConnections
}

// Shutdown stops accepting, sends every connection connection.close 320 and waits until
// all are gone; those that are not when ctx ends are cut off.
func (s *Server) Shutdown(ctx context.Context) {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return
	}
	s.closing = true
	for l := range s.listeners {
		_ = l.Close()
	}
	s.mu.Unlock()
	close(s.quit)
	s.o.Broker.Store().RefusePublishers()
	for _, c := range s.connections() {
		c.interrupt(shutdownError())
	}
	done := make(chan struct{})
	go func() {
		s.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return
	case <-ctx.Done():
	}
	for _, c := range s.connections() {
		c.out.kill()
	}
	<-done
}

func shutdownError() *amqp.Error {
	return amqp.ConnectionForced("broker forced connection closure with reason 'shutdown'")
}

// heartbeatTick is how often connections are looked at for heartbeats. Intervals are whole
// seconds and are acted on at their halves.
const heartbeatTick = 250 * time.Millisecond

func (s *Server) heartbeats() {
	defer s.running.Done()
	tick := time.NewTicker(heartbeatTick)
	defer tick.Stop()
	for {
		select {
		case <-s.quit:
			return
		case now := <-tick.C:
			for _, c := range s.connections() {
				c.beat(now)
			}
		}
	}
}

// alarm hears from the broker that publishers must wait, or may go on.
func (s *Server) alarm(reason string) {
	if reason == "" {
		s.o.Log.Info().Msg("publishers may go on")
	} else {
		s.o.Log.Warn().Str("reason", reason).Msg("publishers are blocked")
	}
}

// releasePublishers has the connections look whether their publishes still must wait.
func (s *Server) releasePublishers() {
	for _, c := range s.connections() {
		c.lookAgain()
	}
}

// platform tells clients that look closely who is really there.
const platform = "SettMQ (Go)"

// serverProperties is what connection.start carries, sorted by key.
func serverProperties(o Options) amqp.Table {
	var caps amqp.Table
	for _, name := range []string{
		"publisher_confirms", "exchange_exchange_bindings", "basic.nack", "consumer_cancel_notify", "connection.blocked",
		"consumer_priorities", "authentication_failure_close", "per_consumer_qos", "direct_reply_to",
	} {
		caps = append(caps, amqp.Field{Name: name, Value: amqp.Bool(true)})
	}
	t := amqp.Table{{Name: "capabilities", Value: amqp.TableValue(caps)}}
	text := map[string]string{
		"cluster_name": "settmq", "copyright": "The SettMQ authors", "information": "SettMQ, an AMQP 0-9-1 broker",
		"platform": platform, "product": o.Product, "version": o.Version,
	}
	for k, v := range o.Properties {
		text[k] = v
	}
	for k, v := range text {
		t = append(t, amqp.Field{Name: k, Value: amqp.String(v)})
	}
	return t.Sorted()
}

func peerIP(nc net.Conn) netip.Addr {
	if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
