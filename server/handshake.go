package server

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/auth"
)

// minFrameMax is the least frame_max of AMQP 0-9-1 (§2.3.5, frame-min-size). RabbitMQ asks
// for 8192 since 4.1, which shut older Node clients out.
const minFrameMax = 4096

// secure does the TLS handshake, if the listener is one of TLS.
func (c *conn) secure() bool {
	tc, ok := c.nc.(*tls.Conn)
	if !ok {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.srv.o.TLSTimeout)
	defer cancel()
	if err := tc.HandshakeContext(ctx); err != nil {
		c.reason = err.Error()
		c.log.Warn().Err(err).Msg("TLS handshake failed")
		c.state = gone
		return false
	}
	return true
}

// readProtocolHeader answers the eight bytes that start a connection. Whoever speaks
// something else is told what is spoken here.
func (c *conn) readProtocolHeader() bool {
	var h [8]byte
	for n := 0; n < len(h); {
		k, err := c.nc.Read(h[n:])
		n += k
		// A wrong byte is answered at once: an HTTP client may send fewer than eight.
		if !mayBeHeader(h[:n]) {
			c.reason = "not AMQP 0-9-1"
			c.log.Warn().Hex("header", h[:n]).Msg("client does not speak AMQP 0-9-1")
			c.out.appendRaw(func(b []byte) []byte { return append(b, amqp.ProtocolHeader...) })
			c.out.wakeWriter()
			c.state = gone
			return false
		}
		if err != nil && n < len(h) {
			if !errors.Is(err, io.EOF) || n > 0 {
				c.reason = "no protocol header: " + err.Error()
			} else {
				c.reason = "no bytes came" // a health check
			}
			c.state = gone
			return false
		}
	}
	c.state = wantStartOk
	c.out.method(0, &amqp.ConnectionStart{
		VersionMajor: 0, VersionMinor: 9, ServerProperties: c.srv.start,
		Mechanisms: []byte(strings.Join(c.mechanisms(), " ")), Locales: []byte("en_US"),
	}, &c.wakes)
	c.wakes.Flush()
	return true
}

// mayBeHeader accepts the headers of 0-9-1 and of 0-9, whose clients get 0-9-1 too.
func mayBeHeader(b []byte) bool {
	return strings.HasPrefix(amqp.ProtocolHeader, string(b)) || strings.HasPrefix("AMQP\x01\x01\x00\x09", string(b))
}

// mechanisms are those that can work on this connection.
func (c *conn) mechanisms() []string {
	_, secured := c.nc.(*tls.Conn)
	return slices.DeleteFunc(slices.Clone(c.srv.o.Mechanisms), func(m string) bool { return m == "EXTERNAL" && !secured })
}

// handshakeMethod handles the methods before the connection is open. Anything but the one
// that is due ends it without a frame, as RabbitMQ does.
func (c *conn) handshakeMethod(m amqp.Method) {
	switch m := m.(type) {
	case *amqp.ConnectionStartOk:
		if c.state == wantStartOk {
			c.startOk(m)
			return
		}
	case *amqp.ConnectionTuneOk:
		if c.state == wantTuneOk {
			c.tuneOk(m)
			return
		}
	case *amqp.ConnectionOpen:
		if c.state == wantOpen {
			c.openVHost(m)
			return
		}
	}
	if c.state == wantOpen {
		c.fail(amqp.ChannelError("unexpected method in connection state opening").For(m.ID()))
		return
	}
	c.drop("unexpected " + m.ID().String() + " during the handshake")
}

func (c *conn) startOk(m *amqp.ConnectionStartOk) {
	c.mechanism = m.Mechanism
	c.client = describeClient(m.ClientProperties)
	if !slices.Contains(c.mechanisms(), m.Mechanism) {
		c.drop("mechanism " + m.Mechanism + " is not offered")
		return
	}
	name, user, malformed, err := c.authenticate(m)
	switch {
	case malformed:
		c.drop("malformed response for " + m.Mechanism)
		return
	case err != nil:
		c.srv.o.Broker.Users().CountLogin("amqp091", false)
		c.loginRefused(name, err)
		return
	}
	c.user = user
	c.srv.o.Broker.Users().CountLogin("amqp091", true)
	c.loginEvent("user.authentication.success", user.Name)
	c.log.Debug().Str("user", user.Name).Str("mechanism", m.Mechanism).Msg("authenticated")
	c.state = wantTuneOk
	c.out.method(0, &amqp.ConnectionTune{
		ChannelMax: c.srv.o.ChannelMax, FrameMax: c.srv.o.FrameMax, Heartbeat: uint16(c.srv.o.Heartbeat / time.Second),
	}, &c.wakes)
}

// authenticate checks the SASL response.
func (c *conn) authenticate(m *amqp.ConnectionStartOk) (name string, user *auth.User, malformed bool, err error) {
	users := c.srv.o.Broker.Users()
	var password string
	ok := false
	switch m.Mechanism {
	case "PLAIN":
		name, password, ok = auth.ParsePlain(m.Response)
	case "AMQPLAIN":
		name, password, ok = parseAMQPlain(m.Response)
	case "EXTERNAL":
		state := c.nc.(*tls.Conn).ConnectionState()
		if name, err = c.srv.o.CertificateUser(&state); err != nil {
			return "", nil, false, err
		}
		user, err = users.AuthenticateName(name, c.nc.RemoteAddr())
		return name, user, false, err
	}
	if !ok {
		return "", nil, true, nil
	}
	user, err = users.Authenticate(name, password, c.nc.RemoteAddr())
	return name, user, false, err
}

// parseAMQPlain reads the response of AMQPLAIN: the fields of a table without its length.
func parseAMQPlain(response []byte) (user, password string, ok bool) {
	b := make([]byte, 4, 4+len(response))
	b[0], b[1], b[2], b[3] = byte(len(response)>>24), byte(len(response)>>16), byte(len(response)>>8), byte(len(response))
	t, _, err := amqp.ParseTable(append(b, response...))
	if err != nil {
		return "", "", false
	}
	login, ok1 := t.Get("LOGIN")
	pass, ok2 := t.Get("PASSWORD")
	return login.Text(), pass.Text(), ok1 && ok2
}

// loginRefused tells clients that can take it; others find their socket closed.
func (c *conn) loginRefused(name string, err error) {
	c.log.Warn().Str("mechanism", c.mechanism).Err(err).Msg("login refused")
	c.loginEvent("user.authentication.failure", name, text("error", err.Error()))
	c.reason = "login refused"
	if !c.client.authFailureClose {
		c.drain()
		return
	}
	e := amqp.AccessRefused("Login was refused using authentication mechanism %s. For details see the broker logfile.", c.mechanism)
	c.state = closing
	c.out.method(0, e.ConnectionClose(), &c.wakes)
	c.setReadDeadline(time.Now().Add(failureDelay))
}

func describeClient(t amqp.Table) clientInfo {
	text := func(name string) string {
		v, _ := t.Get(name)
		return v.Text()
	}
	info := clientInfo{name: text("connection_name"), product: text("product"), version: text("version"), properties: t}
	caps, _ := t.Get("capabilities")
	has := func(name string) bool {
		v, _ := caps.Table().Get(name)
		on, _ := v.Bool()
		return on
	}
	info.cancelNotify = has("consumer_cancel_notify")
	info.blockedNotify = has("connection.blocked")
	info.authFailureClose = has("authentication_failure_close")
	return info
}

// tuneOk takes the client's choice; 0 stands for no limit of the client's own, so that ours
// holds. More than ours is refused, and a frame_max below the protocol's least. RabbitMQ
// drops the socket then; a reason helps more.
func (c *conn) tuneOk(m *amqp.ConnectionTuneOk) {
	o := &c.srv.o
	refuse := func(format string, args ...any) { c.fail(amqp.NotAllowed(format, args...).For(m.ID())) }
	c.frameMax, c.channelMax = m.FrameMax, m.ChannelMax
	if c.frameMax == 0 {
		c.frameMax = o.FrameMax
	}
	if c.channelMax == 0 {
		c.channelMax = o.ChannelMax
	}
	switch {
	case c.frameMax < minFrameMax:
		refuse("negotiated frame_max = %d is lower than the minimum allowed value (%d)", m.FrameMax, minFrameMax)
		return
	case c.frameMax > o.FrameMax:
		refuse("negotiated frame_max = %d is higher than the maximum allowed value (%d)", m.FrameMax, o.FrameMax)
		return
	case c.channelMax > o.ChannelMax:
		refuse("negotiated channel_max = %d is higher than the maximum allowed value (%d)", m.ChannelMax, o.ChannelMax)
		return
	}
	c.maxPayload = c.frameMax - amqp.FrameOverhead
	c.state = wantOpen
	c.heartbeat.Store(int64(m.Heartbeat) * int64(time.Second))
}

// openVHost enters the vhost; the connection runs from here on.
func (c *conn) openVHost(m *amqp.ConnectionOpen) {
	full := func() {
		c.fail(amqp.NotAllowed("connection refused: node connection limit (%d) is reached", c.srv.o.MaxConnections).For(m.ID()))
	}
	if c.srv.full() { // before the vhost is looked at
		full()
		return
	}
	v, err := c.srv.o.Broker.Enter(c.user.Name, m.VirtualHost)
	if err != nil {
		c.fail(err.For(m.ID()))
		return
	}
	if !c.srv.admit(c) { // others came first
		c.srv.o.Broker.Leave(c.user.Name, v)
		full()
		return
	}
	c.vhost, c.counted = v, true
	c.session = c.srv.o.Broker.Users().NewSession(c.user, v.Name(), c.id)
	c.state = running
	c.setReadDeadline(time.Time{})
	c.log.Info().Str("user", c.user.Name).Str("vhost", v.Name()).Str("client", c.client.product).Str("version", c.client.version).
		Str("name", c.client.name).Msg("connection opened")
	c.describe()
	c.srv.o.Broker.Opened(c)
	c.openedEvent()
	c.out.method(0, &amqp.ConnectionOpenOk{}, &c.wakes)
}
