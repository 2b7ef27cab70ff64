package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/settmq/settmq/internal/testbroker"
)

// listen opens a connection to a broker with an event exchange and gets the events that match.
func listen(t *testing.T, patterns ...string) (url string, events <-chan amqp.Delivery) {
	t.Helper()
	url = sut.url
	if sut.settmq && !sut.external {
		url = testbroker.Start(t, testbroker.Options{Config: "event_exchange: {vhost: /}\n"}).URL()
	}
	conn := dialURL(t, url)
	ch := channel(t, conn)
	q := privateQueue(t, ch, nil)
	for _, p := range patterns {
		if err := ch.QueueBind(q, p, "amq.rabbitmq.event", false, nil); err != nil {
			t.Skipf("there is no event exchange: %v", err)
		}
	}
	events, err := ch.Consume(q, "", true, false, false, false, nil)
	must(t, err)
	return url, events
}

// wantEvent waits for the event of that key about the named thing.
func wantEvent(t *testing.T, events <-chan amqp.Delivery, key, field, value string, want amqp.Table) amqp.Delivery {
	t.Helper()
	for {
		d := receive(t, events)
		if d.RoutingKey != key || d.Headers[field] != value {
			continue // of other tests on the same broker
		}
		if d.Exchange != "amq.rabbitmq.event" || d.DeliveryMode != 2 || len(d.Body) != 0 || time.Since(d.Timestamp) > time.Hour {
			t.Errorf("%s came from %q with delivery mode %d, %d bytes, of %v", key, d.Exchange, d.DeliveryMode, len(d.Body), d.Timestamp)
		}
		if ms, _ := d.Headers["timestamp_in_ms"].(int64); ms/1000 != d.Timestamp.Unix() {
			t.Errorf("%s: timestamp_in_ms is %v, the timestamp %d", key, d.Headers["timestamp_in_ms"], d.Timestamp.Unix())
		}
		for name, v := range want {
			if got := d.Headers[name]; fmt.Sprintf("%T %v", got, got) != fmt.Sprintf("%T %v", v, v) {
				t.Errorf("%s: header %s is %T %v, want %T %v", key, name, got, got, v, v)
			}
		}
		return d
	}
}

func TestEventExchange(t *testing.T) {
	t.Parallel()
	url, events := listen(t, "#")
	uri, err := amqp.ParseURI(url)
	must(t, err)
	user, vhost := uri.Username, uri.Vhost
	name := nameFor(t, "client")
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName(name)
	conn := dialConfig(t, url, amqp.Config{Properties: properties})
	opened := wantEvent(t, events, "connection.created", "user_provided_name", name, amqp.Table{
		"user": user, "vhost": vhost, "protocol": "{0,9,1}", "ssl": false, "auth_mechanism": "PLAIN", "type": "network", "channel_max": int64(2047),
		"user_who_performed_action": user, "peer_host": "{127,0,0,1}",
	})
	connection, _ := opened.Headers["name"].(string)
	if !strings.Contains(connection, " -> ") {
		t.Errorf("the connection is named %q", connection)
	}
	pid, _ := opened.Headers["pid"].(string)
	ch := channel(t, conn)
	channelOpened := wantEvent(t, events, "channel.created", "connection", pid, amqp.Table{"number": int64(1), "name": connection + " (1)", "user": user, "vhost": vhost})
	channelPid, _ := channelOpened.Headers["pid"].(string)

	x, q := nameFor(t, "x"), nameFor(t, "q")
	removeExchange(t, x)
	removeQueue(t, q)
	must(t, ch.ExchangeDeclare(x, "topic", true, false, false, false, amqp.Table{"alternate-exchange": "amq.fanout"}))
	wantEvent(t, events, "exchange.created", "name", x, amqp.Table{
		"vhost": vhost, "type": "topic", "durable": true, "auto_delete": false, "internal": false,
		"arguments": []any{`{<<"alternate-exchange">>,longstr,<<"amq.fanout">>}`},
	})
	_, err = ch.QueueDeclare(q, true, false, false, false, amqp.Table{"x-queue-type": "classic"})
	must(t, err)
	wantEvent(t, events, "queue.created", "name", q, amqp.Table{
		"vhost": vhost, "durable": true, "auto_delete": false, "exclusive": false, "type": "rabbit_classic_queue", "user_who_performed_action": user,
		"arguments": []any{`{<<"x-queue-type">>,longstr,<<"classic">>}`},
	})
	bind(t, ch, q, "a.b", x, amqp.Table{"z": int32(1)})
	bound := amqp.Table{
		"source_kind": "exchange", "destination_name": q, "destination_kind": "queue", "routing_key": "a.b", "vhost": vhost,
		"arguments": []any{`{<<"z">>,signedint,1}`},
	}
	wantEvent(t, events, "binding.created", "source_name", x, bound)
	consume(t, ch, q, "tag", amqp.Table{"x-priority": int32(3)})
	wantEvent(t, events, "consumer.created", "queue", q, amqp.Table{
		"consumer_tag": "tag", "vhost": vhost, "channel": channelPid, "ack_required": true, "exclusive": false, "prefetch_count": int64(0),
		"arguments": []any{`{<<"x-priority">>,signedint,3}`}, "user_who_performed_action": user,
	})
	must(t, ch.Cancel("tag", false))
	wantEvent(t, events, "consumer.deleted", "queue", q, amqp.Table{"consumer_tag": "tag", "channel": channelPid})
	must(t, ch.QueueUnbind(q, "a.b", x, amqp.Table{"z": int32(1)}))
	wantEvent(t, events, "binding.deleted", "source_name", x, bound)
	_, err = ch.QueueDelete(q, false, false, false)
	must(t, err)
	wantEvent(t, events, "queue.deleted", "name", q, amqp.Table{"vhost": vhost, "type": "rabbit_classic_queue"})
	must(t, ch.ExchangeDelete(x, false, false))
	wantEvent(t, events, "exchange.deleted", "name", x, amqp.Table{"vhost": vhost})
	must(t, ch.Close())
	wantEvent(t, events, "channel.closed", "pid", channelPid, amqp.Table{"consumer_count": int64(0)})
	must(t, conn.Close())
	wantEvent(t, events, "connection.closed", "pid", pid, amqp.Table{"name": connection, "user_provided_name": name})
}

func TestEventsOfLogins(t *testing.T) {
	t.Parallel()
	url, events := listen(t, "user.authentication.*")
	conn := dialURL(t, url)
	peer := conn.LocalAddr().String() + " -> " + conn.RemoteAddr().String()
	wantEvent(t, events, "user.authentication.success", "connection_name", peer, amqp.Table{"name": sut.uri.Username, "auth_mechanism": "PLAIN", "ssl": false, "protocol": "{0,9,1}"})
	nobody := uniqueName("nobody")
	if _, err := amqp.Dial(strings.Replace(url, "//"+sut.uri.Username, "//"+nobody, 1)); err == nil {
		t.Fatal("an unknown user got in")
	}
	wantEvent(t, events, "user.authentication.failure", "name", nobody, amqp.Table{"auth_mechanism": "PLAIN"})
}

// TestEventsAreFiltered: who binds by a pattern gets what matches.
func TestEventsAreFiltered(t *testing.T) {
	t.Parallel()
	url, events := listen(t, "queue.deleted")
	ch := channel(t, dialURL(t, url))
	q := privateQueue(t, ch, nil)
	_, err := ch.QueueDelete(q, false, false, false)
	must(t, err)
	seen := []string{}
	for d := range events {
		seen = append(seen, d.RoutingKey)
		if d.Headers["name"] == q {
			break
		}
	}
	if slices.ContainsFunc(seen, func(key string) bool { return key != "queue.deleted" }) {
		t.Errorf("got %q", seen)
	}
}
