package management

import (
	"context"
	"errors"
	"log" //nolint:depguard // net/http takes no other logger
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/settmq/settmq/broker"
)

// Bounds of a request. Whoever needs more memory or time than this has to show a password first.
const (
	maxHeader     = 64 << 10
	headerTimeout = 10 * time.Second
	readTimeout   = time.Minute     // of the whole request
	writeTimeout  = 2 * time.Minute // from its header to the end of the answer
	idleTimeout   = 2 * time.Minute
	defaultConns  = 1024
	localConns    = 64 // over the Unix socket, whatever others do
)

// Options say how the API runs. The zero value of a field is the default that it names.
type Options struct {
	Log zerolog.Logger
	// Product and Version are what the broker says it is, as in AMQP's server properties.
	Product, Version string
	// SoftwareVersion is the version of this program.
	SoftwareVersion string
	// DataDir and ConfigFile are told of the node; "" for none.
	DataDir, ConfigFile string
	// Certificates are the files of the certificates that listeners show, in PEM.
	Certificates []string
	// MaxAMQPConnections is the limit of AMQP connections; 0 for none.
	MaxAMQPConnections int
	// Metrics answers scrapes of /metrics and what is below it; nil for none.
	Metrics http.Handler
	// MaxMessageSize bounds the body of a message published, in bytes; 16 MiB.
	MaxMessageSize int
	// MaxConnections bounds the connections with passwords of all listeners together; 1024. More wait to be
	// accepted.
	MaxConnections int
}

// Server is the HTTP API of a broker. All methods may be called from any goroutine.
type Server struct {
	broker *broker.Broker
	o      Options
	log    zerolog.Logger

	started  time.Time
	stopping atomic.Bool
	handler  http.Handler

	mu        sync.Mutex
	listeners []Listener // guarded by mu

	remote *http.Server // with passwords
	local  *http.Server // with the rights of an administrator
	places chan struct{}
}

// New returns the API of b, which must outlive it.
func New(b *broker.Broker, o Options) *Server {
	if o.MaxMessageSize == 0 {
		o.MaxMessageSize = 16 << 20
	}
	if o.MaxConnections == 0 {
		o.MaxConnections = defaultConns
	}
	s := &Server{broker: b, o: o, log: o.Log, started: time.Now(), places: make(chan struct{}, o.MaxConnections)}
	s.handler = s.newHandler()
	s.remote = s.httpServer(s.handler)
	s.local = s.httpServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.handler.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), localKey{}, true)))
	}))
	return s
}

// localKey marks the requests that came over the Unix socket.
type localKey struct{}

func (s *Server) httpServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, MaxHeaderBytes: maxHeader,
		ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		ErrorLog: log.New(errorLog{s.log}, "", 0),
	}
}

// errorLog takes what net/http has to say of connections, which is about their other end.
type errorLog struct{ log zerolog.Logger }

// Write implements io.Writer.
func (e errorLog) Write(line []byte) (int, error) {
	e.log.Debug().Bytes("message", line).Msg("management connection")
	return len(line), nil
}

// ServeHTTP answers one request with a password.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Listener is an address that the broker listens on.
type Listener struct {
	Protocol string // RabbitMQ's name: amqp, amqp/ssl, http, https
	Addr     net.Addr
}

// Listening adds an address to those that the API tells of.
func (s *Server) Listening(l Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listeners = append(s.listeners, l)
}

func (s *Server) listening() []Listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.listeners)
}

// Serve accepts connections until Shutdown or Close, and returns nil then.
func (s *Server) Serve(l net.Listener) error { return served(s.remote.Serve(bounded(l, s.places))) }

// ServeLocal is Serve with the rights of an administrator for everybody who can connect: l must be a Unix socket
// that only the broker's owner can open (see [ListenLocal]).
func (s *Server) ServeLocal(l net.Listener) error {
	return served(s.local.Serve(bounded(l, make(chan struct{}, localConns))))
}

func served(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Stopping makes /health/ready say that the broker is about to go.
func (s *Server) Stopping() { s.stopping.Store(true) }

// Shutdown stops accepting and waits for the requests under way, until ctx is done; then it cuts them off.
func (s *Server) Shutdown(ctx context.Context) {
	s.Stopping()
	for _, srv := range []*http.Server{s.remote, s.local} {
		if srv.Shutdown(ctx) != nil {
			_ = srv.Close() // nobody is left to tell
		}
	}
}

// bounded is l with a place for each of its connections.
func bounded(l net.Listener, places chan struct{}) net.Listener {
	return &boundedListener{Listener: l, places: places, closed: make(chan struct{})}
}

type boundedListener struct {
	net.Listener
	places  chan struct{}
	closed  chan struct{}
	closing atomic.Bool
}

// Accept waits for a place before it takes a connection.
func (l *boundedListener) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	nc, err := l.Listener.Accept()
	if err != nil {
		<-l.places
		return nil, err
	}
	return &boundedConn{Conn: nc, places: l.places}, nil
}

// Close closes the listener; a waiting Accept returns.
func (l *boundedListener) Close() error {
	if l.closing.CompareAndSwap(false, true) {
		close(l.closed)
	}
	return l.Listener.Close()
}

type boundedConn struct {
	net.Conn
	places chan struct{}
	gone   atomic.Bool
}

// Close gives the place back, once.
func (c *boundedConn) Close() error {
	if c.gone.CompareAndSwap(false, true) {
		<-c.places
	}
	return c.Conn.Close()
}
