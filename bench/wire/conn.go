package wire

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/settmq/settmq/amqp"
)

const (
	// A read buffer starts small, since there may be thousands of idle connections, doubles
	// whenever a read fills it, up to maxBuffer, and beyond that only for a frame that
	// does not fit.
	minBuffer = 4 << 10
	maxBuffer = 256 << 10

	defaultFrameMax = 131072
	dialTimeout     = 10 * time.Second
)

// ErrClosed is returned by reads and writes after Close.
var ErrClosed = errors.New("wire: connection closed")

// Conn is a connection to a broker.
type Conn struct {
	sock     io.ReadWriteCloser
	closed   atomic.Bool
	frameMax uint32
	server   amqp.Table
	out      []byte // for Open and Call

	// Owned by the reading goroutine.
	buf        []byte
	head, tail int  // unread bytes of buf
	filled     bool // the last read took all the room there was
	body       uint64
	delivery   Event
}

// Address returns the host:port of an amqp URL, with the default port if it has none.
func Address(u *url.URL) string {
	if u.Port() == "" {
		return net.JoinHostPort(u.Hostname(), "5672")
	}
	return u.Host
}

// VHost returns the virtual host of an amqp URL: "/" without a path, and otherwise what
// follows the first slash.
func VHost(u *url.URL) string {
	if u.Path == "" || u.Path == "/" {
		return "/"
	}
	return strings.TrimPrefix(u.Path, "/")
}

// Open connects, logs in with PLAIN and opens the URL's virtual host. Heartbeats are off.
// name is shown by the broker as the connection's name. The channel 1 is opened.
func Open(u *url.URL, name string) (*Conn, error) {
	if u.Scheme != "amqp" {
		return nil, fmt.Errorf("wire: %s: only amqp:// is supported", u.Redacted())
	}
	tcp, err := net.DialTimeout("tcp", Address(u), dialTimeout)
	if err != nil {
		return nil, err
	}
	c := &Conn{sock: tcp, frameMax: defaultFrameMax, buf: make([]byte, minBuffer)}
	if err := c.handshake(u, name); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("wire: %s: %w", u.Redacted(), err)
	}
	return c, nil
}

// Server returns the server-properties.
func (c *Conn) Server() amqp.Table { return c.server }

// FrameMax returns the negotiated frame size; 0 means unlimited.
func (c *Conn) FrameMax() uint32 { return c.frameMax }

func (c *Conn) handshake(u *url.URL, name string) error {
	if err := c.Write([]byte(amqp.ProtocolHeader)); err != nil {
		return err
	}
	m, err := c.await(amqp.ConnectionStartID)
	if err != nil {
		return err
	}
	c.server = m.(*amqp.ConnectionStart).ServerProperties
	user, password := "guest", "guest"
	if u.User != nil {
		user = u.User.Username()
		password, _ = u.User.Password()
	}
	yes := amqp.Bool(true)
	m, err = c.call(0, &amqp.ConnectionStartOk{
		ClientProperties: amqp.Table{
			{Name: "product", Value: amqp.String("settmq-bench")},
			{Name: "connection_name", Value: amqp.String(name)},
			{Name: "capabilities", Value: amqp.TableValue(amqp.Table{
				{Name: "publisher_confirms", Value: yes},
				{Name: "basic.nack", Value: yes},
				{Name: "connection.blocked", Value: yes},
				{Name: "consumer_cancel_notify", Value: yes},
				{Name: "authentication_failure_close", Value: yes},
			})},
		},
		Mechanism: "PLAIN",
		Response:  []byte("\x00" + user + "\x00" + password),
		Locale:    "en_US",
	}, amqp.ConnectionTuneID)
	if err != nil {
		return err
	}
	tune := m.(*amqp.ConnectionTune)
	if tune.FrameMax > 0 {
		c.frameMax = tune.FrameMax
	}
	c.out = amqp.AppendMethod(c.out[:0], 0, &amqp.ConnectionTuneOk{ChannelMax: tune.ChannelMax, FrameMax: c.frameMax})
	c.out = amqp.AppendMethod(c.out, 0, &amqp.ConnectionOpen{VirtualHost: VHost(u)})
	c.out = amqp.AppendMethod(c.out, 1, &amqp.ChannelOpen{})
	if err := c.Write(c.out); err != nil {
		return err
	}
	if _, err := c.await(amqp.ConnectionOpenOkID); err != nil {
		return err
	}
	_, err = c.await(amqp.ChannelOpenOkID)
	return err
}

// Call sends a method on channel 1 and waits for its reply. It may be used only while no
// delivery or confirm can arrive.
func (c *Conn) Call(m amqp.Method, reply amqp.MethodID) (amqp.Method, error) {
	return c.call(1, m, reply)
}

func (c *Conn) call(channel uint16, m amqp.Method, reply amqp.MethodID) (amqp.Method, error) {
	c.out = amqp.AppendMethod(c.out[:0], channel, m)
	if err := c.Write(c.out); err != nil {
		return nil, err
	}
	return c.await(reply)
}

// await reads until the wanted method arrives.
func (c *Conn) await(want amqp.MethodID) (amqp.Method, error) {
	for {
		var e Event
		ok, err := c.Next(&e)
		if err != nil {
			return nil, err
		}
		if !ok {
			if err := c.Fill(); err != nil {
				return nil, err
			}
			continue
		}
		switch {
		case e.Kind == Other && e.Method.ID() == want:
			return e.Method, nil
		case e.Kind == Blocked || e.Kind == Unblocked:
		default:
			return nil, fmt.Errorf("wire: waiting for %s: got %s", want, e.describe())
		}
	}
}

// Await waits for a reply to a method that Write has sent.
func (c *Conn) Await(reply amqp.MethodID) (amqp.Method, error) { return c.await(reply) }

// Write sends whole frames.
func (c *Conn) Write(b []byte) error {
	if _, err := c.sock.Write(b); err != nil {
		return c.failure(err)
	}
	return nil
}

// Fill reads once, waiting until there is something.
func (c *Conn) Fill() error {
	if c.head > 0 {
		c.tail = copy(c.buf, c.buf[c.head:c.tail])
		c.head = 0
	}
	if c.tail == len(c.buf) || c.filled && len(c.buf) < maxBuffer {
		bigger := make([]byte, 2*len(c.buf))
		copy(bigger, c.buf[:c.tail])
		c.buf = bigger
	}
	n, err := c.sock.Read(c.buf[c.tail:])
	c.tail += n
	c.filled = c.tail == len(c.buf)
	if n > 0 {
		return nil
	}
	return c.failure(err)
}

func (c *Conn) failure(err error) error {
	if c.closed.Load() {
		return ErrClosed
	}
	return err
}

// Close breaks the connection off without a closing handshake; a read or write in progress
// returns ErrClosed.
func (c *Conn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	return c.sock.Close()
}

// CloseGracefully does the closing handshake of AMQP, throwing away what arrives meanwhile,
// and then closes the socket.
func (c *Conn) CloseGracefully() error {
	defer c.Close()
	c.out = amqp.AppendMethod(c.out[:0], 0, &amqp.ConnectionClose{ReplyCode: amqp.ReplySuccess, ReplyText: "bye"})
	if err := c.Write(c.out); err != nil {
		return err
	}
	var e Event
	for {
		ok, err := c.Next(&e)
		if err != nil {
			return err
		}
		if ok && e.Kind == Other && e.Method.ID() == amqp.ConnectionCloseOkID {
			return nil
		}
		if !ok {
			if err := c.Fill(); err != nil {
				return err
			}
		}
	}
}

// CycleChannel opens and closes a channel, and waits for both answers.
func (c *Conn) CycleChannel(channel uint16) error {
	if _, err := c.call(channel, &amqp.ChannelOpen{}, amqp.ChannelOpenOkID); err != nil {
		return err
	}
	_, err := c.call(channel, &amqp.ChannelClose{ReplyCode: amqp.ReplySuccess}, amqp.ChannelCloseOkID)
	return err
}
