package server

import (
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/broker"
	"github.com/settmq/settmq/queue"
)

// What connections, channels and consumers tell the event exchange. The fields are RabbitMQ's.

func text(name, v string) amqp.Field { return amqp.Field{Name: name, Value: amqp.String(v)} }

func number(name string, v int64) amqp.Field { return amqp.Field{Name: name, Value: amqp.Int64(v)} }

func flag(name string, v bool) amqp.Field { return amqp.Field{Name: name, Value: amqp.Bool(v)} }

// pid tells connections and channels apart in the form of an Erlang process.
func (c *conn) pid(channel uint16) string {
	return fmt.Sprintf("<%s.1.%d.%d>", c.srv.o.Broker.Node(), c.id, channel)
}

// endpoint renders an address as RabbitMQ's events do: the host as an Erlang tuple, and the port.
func endpoint(a net.Addr) (host string, port int64) {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return a.String(), 0
	}
	var parts []string
	if v4 := tcp.IP.To4(); v4 != nil {
		for _, b := range v4 {
			parts = append(parts, strconv.Itoa(int(b)))
		}
	} else {
		for i := 0; i+1 < len(tcp.IP); i += 2 {
			parts = append(parts, strconv.Itoa(int(tcp.IP[i])<<8|int(tcp.IP[i+1])))
		}
	}
	return "{" + strings.Join(parts, ",") + "}", int64(tcp.Port)
}

func (c *conn) endpoints() []amqp.Field {
	host, port := endpoint(c.nc.LocalAddr())
	peerHost, peerPort := endpoint(c.nc.RemoteAddr())
	return []amqp.Field{text("host", host), number("port", port), text("peer_host", peerHost), number("peer_port", peerPort)}
}

func (c *conn) encrypted() bool {
	_, ok := c.nc.(*tls.Conn)
	return ok
}

func (c *conn) loginEvent(key, user string, more ...amqp.Field) {
	if b := c.srv.o.Broker; b.Listening() {
		fields := append(c.endpoints(), text("name", user), text("connection_name", c.name()), text("connection_type", "network"),
			text("auth_mechanism", c.mechanism), text("protocol", "{0,9,1}"), flag("ssl", c.encrypted()))
		b.Event(key, append(fields, more...)...)
	}
}

func (c *conn) openedEvent() {
	if b := c.srv.o.Broker; b.Listening() {
		b.Event("connection.created", append(c.endpoints(),
			text("name", c.name()), text("pid", c.pid(0)), text("node", b.Node()), text("type", "network"), text("user", c.user.Name),
			text("user_who_performed_action", c.user.Name), text("vhost", c.vhost.Name()), text("user_provided_name", c.client.name),
			text("auth_mechanism", c.mechanism), text("protocol", "{0,9,1}"), flag("ssl", c.encrypted()),
			number("frame_max", int64(c.frameMax)), number("channel_max", int64(c.channelMax)),
			number("timeout", c.heartbeat.Load()/int64(time.Second)), broker.EventTable("client_properties", c.client.properties))...)
	}
}

func (c *conn) closedEvent() {
	if b := c.srv.o.Broker; b.Listening() {
		b.Event("connection.closed", text("name", c.name()), text("pid", c.pid(0)), text("node", b.Node()), text("user_provided_name", c.client.name),
			broker.EventTable("client_properties", c.client.properties))
	}
}

func (ch *channel) openedEvent() {
	if b := ch.conn.srv.o.Broker; b.Listening() {
		user := ch.conn.user.Name
		b.Event("channel.created", text("name", fmt.Sprintf("%s (%d)", ch.conn.name(), ch.id)), number("number", int64(ch.id)),
			text("pid", ch.conn.pid(ch.id)), text("connection", ch.conn.pid(0)), text("user", user), text("user_who_performed_action", user),
			text("vhost", ch.conn.vhost.Name()))
	}
}

func (ch *channel) closedEvent(consumers int) {
	if b := ch.conn.srv.o.Broker; b.Listening() {
		b.Event("channel.closed", text("pid", ch.conn.pid(ch.id)), text("user_who_performed_action", ch.conn.user.Name),
			number("consumer_count", int64(consumers)))
	}
}

func (ch *channel) consumerEvent(key string, k *queue.Consumer, more ...amqp.Field) {
	if b := ch.conn.srv.o.Broker; b.Listening() {
		fields := []amqp.Field{
			text("consumer_tag", k.Tag), text("queue", k.Queue.About().Name), text("vhost", ch.conn.vhost.Name()),
			text("channel", ch.conn.pid(ch.id)), text("user_who_performed_action", ch.conn.user.Name),
		}
		b.Event(key, append(fields, more...)...)
	}
}
