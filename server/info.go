package server

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"math/bits"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/auth"
	"github.com/settmq/settmq/broker"
	"github.com/settmq/settmq/queue"
)

// What connections and channels tell of themselves to those who list them, from any goroutine.

// describe fills in what does not change while the connection is open.
func (c *conn) describe() {
	host, port := hostPort(c.nc.LocalAddr())
	peerHost, peerPort := hostPort(c.nc.RemoteAddr())
	c.about = broker.ConnectionAbout{
		ID: c.id, Name: c.name(), ProvidedName: c.client.name, User: c.user.Name, VHost: c.vhost.Name(),
		Protocol: "AMQP 0-9-1", Mechanism: c.mechanism, Host: host, Port: port, PeerHost: peerHost, PeerPort: peerPort,
		ConnectedAt: time.Now(), FrameMax: c.frameMax, ChannelMax: c.channelMax, ClientProperties: c.client.properties,
	}
	if tc, ok := c.nc.(*tls.Conn); ok {
		c.about.TLS = describeTLS(tc.ConnectionState())
	}
}

func hostPort(a net.Addr) (string, int) {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap().String(), tcp.Port
	}
	return a.String(), 0
}

// describeTLS takes the name of a cipher suite apart as RabbitMQ does.
func describeTLS(s tls.ConnectionState) *broker.ConnectionTLS {
	d := &broker.ConnectionTLS{
		Protocol:    "tlsv" + strings.TrimPrefix(tls.VersionName(s.Version), "TLS "),
		KeyExchange: "any", // of TLS 1.3
	}
	suite := strings.TrimPrefix(strings.ToLower(tls.CipherSuiteName(s.CipherSuite)), "tls_")
	if exchange, rest, ok := strings.Cut(suite, "_with_"); ok {
		d.KeyExchange, suite = exchange, rest
	}
	if i := strings.LastIndexByte(suite, '_'); i > 0 {
		d.Cipher, d.Hash = suite[:i], suite[i+1:]
	}
	if strings.HasSuffix(d.Cipher, "_gcm") || strings.HasSuffix(suite, "poly1305") || strings.HasSuffix(suite, "poly1305_sha256") {
		d.Hash = "aead"
	}
	if len(s.PeerCertificates) > 0 {
		describePeer(d, s.PeerCertificates[0])
	}
	return d
}

func describePeer(d *broker.ConnectionTLS, cert *x509.Certificate) {
	const stamp = "2006-01-02T15:04:05Z"
	d.PeerSubject, d.PeerIssuer = auth.Name(cert.RawSubject), auth.Name(cert.RawIssuer)
	d.PeerValidity = cert.NotBefore.UTC().Format(stamp) + " - " + cert.NotAfter.UTC().Format(stamp)
	d.PeerSerial = cert.SerialNumber.String()
}

// About implements broker.Connection.
func (c *conn) About() *broker.ConnectionAbout { return &c.about }

// Info implements broker.Connection.
func (c *conn) Info() broker.ConnectionInfo {
	i := broker.ConnectionInfo{
		Heartbeat: time.Duration(c.heartbeat.Load()), Channels: int(c.openChannels.Load()),
		ConnectionTraffic: broker.ConnectionTraffic{
			ReceivedBytes: c.receivedBytes.Load(), SentBytes: c.out.sentBytes.Load(),
			Reads: c.received.Load(), Writes: c.out.written.Load(), Waiting: c.out.size.Load(),
		},
	}
	c.mu.Lock()
	holding := c.holding
	c.mu.Unlock()
	switch {
	case c.ending.Load():
		i.State = broker.ConnectionClosing
	case holding:
		i.State = broker.ConnectionBlocked
	case c.vhost.PublishersWait():
		i.State = broker.ConnectionBlocking
	case c.paused.Load():
		i.State = broker.ConnectionFlow
	}
	return i
}

// Channels implements broker.Connection.
func (c *conn) Channels() []broker.Channel {
	c.mu.Lock()
	list := make([]broker.Channel, 0, len(c.channels))
	for _, ch := range c.channels {
		if !ch.released.Load() {
			list = append(list, ch)
		}
	}
	c.mu.Unlock()
	slices.SortFunc(list, func(a, b broker.Channel) int { return cmp.Compare(a.Number(), b.Number()) })
	return list
}

// Close implements broker.Connection.
func (c *conn) Close(reason string) { c.interrupt(amqp.ConnectionForced("%s", reason)) }

// Number implements broker.Channel.
func (ch *channel) Number() uint16 { return ch.id }

// Connection implements broker.Channel.
func (ch *channel) Connection() broker.Connection { return ch.conn }

// Info implements broker.Channel.
func (ch *channel) Info() broker.ChannelInfo {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return broker.ChannelInfo{
		Confirm: ch.confirm, Transactional: ch.tx != nil, Prefetch: ch.prefetch, GlobalPrefetch: uint32(ch.channelLimit),
		Consumers: len(ch.consumers), Unacked: ch.unacked.live, Unconfirmed: ch.confirms.open(),
		Uncommitted: int(ch.uncommitted.Load()), AcksUncommitted: int(ch.acksUncommitted.Load()),
	}
}

// Consumers implements broker.Channel.
func (ch *channel) Consumers() []broker.ConsumerInfo {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	list := make([]broker.ConsumerInfo, 0, len(ch.consumers))
	for _, c := range ch.consumers {
		list = append(list, broker.ConsumerInfo{Consumer: c, Channel: ch})
	}
	return list
}

// Stats implements broker.Channel.
func (ch *channel) Stats() queue.MessageStats {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch.statsLocked()
}

func (ch *channel) statsLocked() queue.MessageStats {
	s := ch.stats
	s.Confirm = ch.confirms.confirmed
	ch.router.AddTo(&s)
	return s
}

// Published implements broker.Channel.
func (ch *channel) Published(f func(x *broker.Exchange, s broker.ExchangeStats)) {
	ch.router.Published(f)
}

// Collect implements broker.Channel.
func (ch *channel) Collect() {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	now := ch.statsLocked()
	if news := now.Since(&ch.collected); news != (queue.MessageStats{}) {
		ch.conn.vhost.Count(ch.router, &news)
		ch.collected = now
	}
}

// open returns the number of publishes that are not settled.
func (c *confirms) open() int {
	if c.last == 0 {
		return 0
	}
	n := int(c.last + 1 - c.low)
	for i, word := range c.done {
		if from := c.base + uint64(i)*64; from+64 <= c.low {
			continue
		} else if from < c.low {
			word &= ^uint64(0) << (c.low - from)
		}
		n -= bits.OnesCount64(word)
	}
	return n
}

var (
	_ broker.Connection = (*conn)(nil)
	_ broker.Channel    = (*channel)(nil)
)
