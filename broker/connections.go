package broker

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/queue"
)

// Connection is an open connection, as those see it who list connections and close them. Who serves
// it tells the broker with [Broker.Opened]. All methods may be called from any goroutine.
type Connection interface {
	// About says what does not change while the connection is open.
	About() *ConnectionAbout
	// Info describes the connection of this moment.
	Info() ConnectionInfo
	// Channels returns its open channels, by number.
	Channels() []Channel
	// Close has connection.close 320 sent with this reason and returns at once.
	Close(reason string)
}

// ConnectionAbout is what a connection is from connection.open to its end.
type ConnectionAbout struct {
	ID               uint64 // as [Broker.NextConnectionID] gave it
	Name             string // peer address -> own address
	ProvidedName     string // by the client, "" for none
	User, VHost      string
	Protocol         string // AMQP 0-9-1
	Mechanism        string // of the login
	Host, PeerHost   string
	Port, PeerPort   int
	ConnectedAt      time.Time
	FrameMax         uint32 // bytes
	ChannelMax       uint16
	ClientProperties amqp.Table
	TLS              *ConnectionTLS // nil for a plain connection
}

// ConnectionTLS is what was agreed on in a TLS handshake. What is said of the client's certificate is
// "" without one.
type ConnectionTLS struct {
	Protocol, KeyExchange, Cipher, Hash               string
	PeerSubject, PeerIssuer, PeerValidity, PeerSerial string
}

// ConnectionState is what a connection does.
type ConnectionState uint8

// The states of a connection, by RabbitMQ's names.
const (
	ConnectionRunning  ConnectionState = iota
	ConnectionFlow                     // its publisher waits for the disk
	ConnectionBlocking                 // an alarm is on, and it did not publish since
	ConnectionBlocked                  // it published, and is held back until the alarm is over
	ConnectionClosing
)

// String returns RabbitMQ's name of the state.
func (s ConnectionState) String() string {
	return [...]string{"running", "flow", "blocking", "blocked", "closing"}[s]
}

// ConnectionInfo is a snapshot of a connection.
type ConnectionInfo struct {
	State     ConnectionState
	Channels  int
	Heartbeat time.Duration // negotiated; 0 is off
	ConnectionTraffic
}

// ConnectionTraffic counts what went through a socket.
type ConnectionTraffic struct {
	ReceivedBytes, SentBytes uint64
	Reads, Writes            uint64
	Waiting                  int64 // bytes that wait to be sent
}

// Channel is an open channel of a connection. All methods may be called from any goroutine.
type Channel interface {
	// Number is that of the channel on its connection.
	Number() uint16
	// Connection is whose channel it is.
	Connection() Connection
	// Info describes the channel of this moment.
	Info() ChannelInfo
	// Consumers describes its consumers, in no order.
	Consumers() []ConsumerInfo
	// Stats are the channel's numbers of messages. Published tells those it published by exchange, as
	// [Router.Published] does.
	Stats() queue.MessageStats
	Published(f func(x *Exchange, s ExchangeStats))
	// Collect gives what was counted since the last time to the vhost and its exchanges.
	Collect()
}

// ChannelInfo is a snapshot of a channel.
type ChannelInfo struct {
	Confirm, Transactional       bool
	Prefetch                     uint32 // of consumers to come; 0 for none
	GlobalPrefetch               uint32 // of the whole channel; 0 for none
	Consumers                    int
	Unacked                      int // delivered, and not settled
	Unconfirmed                  int // published, and not confirmed
	Uncommitted, AcksUncommitted int // of an open transaction
}

// ConsumerInfo is a snapshot of a consumer.
type ConsumerInfo struct {
	*queue.Consumer
	Channel Channel
}

// connections are the open ones.
type connections struct {
	mu     sync.RWMutex // a leaf
	byID   map[uint64]Connection
	byName map[string]Connection
}

// churn counts what comes and goes, since the broker was started.
type churn struct {
	connectionsOpened, connectionsClosed         atomic.Uint64
	channelsOpened, channelsClosed               atomic.Uint64
	queuesDeclared, queuesCreated, queuesDeleted atomic.Uint64
}

// Churn are numbers of things that came and went since the broker was started. A queue is declared by every
// queue.declare that was answered, and created by the first.
type Churn struct {
	ConnectionsOpened, ConnectionsClosed         uint64
	ChannelsOpened, ChannelsClosed               uint64
	QueuesDeclared, QueuesCreated, QueuesDeleted uint64
}

// Churn returns the numbers of this moment.
func (b *Broker) Churn() Churn {
	c := &b.churn
	return Churn{
		ConnectionsOpened: c.connectionsOpened.Load(), ConnectionsClosed: c.connectionsClosed.Load(),
		ChannelsOpened: c.channelsOpened.Load(), ChannelsClosed: c.channelsClosed.Load(),
		QueuesDeclared: c.queuesDeclared.Load(), QueuesCreated: c.queuesCreated.Load(), QueuesDeleted: c.queuesDeleted.Load(),
	}
}

// Opened adds a connection that has opened its vhost, until Closed.
func (b *Broker) Opened(c Connection) {
	r, a := &b.connections, c.About()
	b.churn.connectionsOpened.Add(1)
	r.mu.Lock()
	if r.byID == nil {
		r.byID, r.byName = make(map[uint64]Connection), make(map[string]Connection)
	}
	r.byID[a.ID], r.byName[a.Name] = c, c
	r.mu.Unlock()
	if b.VHost(a.VHost) == nil { // deleted before it was on the list
		c.Close("vhost '" + a.VHost + "' is deleted")
	}
}

// Closed removes a connection.
func (b *Broker) Closed(c Connection) {
	r, a := &b.connections, c.About()
	b.churn.connectionsClosed.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byID, a.ID)
	if r.byName[a.Name] == c { // else a new one has the same port already
		delete(r.byName, a.Name)
	}
}

// Connections returns the open connections, in the order in which they came.
func (b *Broker) Connections() []Connection {
	r := &b.connections
	r.mu.RLock()
	list := make([]Connection, 0, len(r.byID))
	for _, c := range r.byID {
		list = append(list, c)
	}
	r.mu.RUnlock()
	slices.SortFunc(list, func(x, y Connection) int { return cmp.Compare(x.About().ID, y.About().ID) })
	return list
}

// Connection returns the open connection of that name, or nil.
func (b *Broker) Connection(name string) Connection {
	r := &b.connections
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.byName[name]
}

// ConnectionByID returns the open connection of that number, or nil.
func (b *Broker) ConnectionByID(id uint64) Connection {
	r := &b.connections
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.byID[id]
}

// ChannelOpened and ChannelClosed count the channels that come and go.
func (b *Broker) ChannelOpened() { b.churn.channelsOpened.Add(1) }

// ChannelClosed is told of every channel that was opened, once.
func (b *Broker) ChannelClosed() { b.churn.channelsClosed.Add(1) }

// ClosedByOperator is the reason that a connection is closed with if the one who does it gives none.
const ClosedByOperator = "Closed via management plugin"
