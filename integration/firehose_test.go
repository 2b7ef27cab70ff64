package integration

import (
	"fmt"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/settmq/settmq/internal/testbroker"
)

// traced opens a connection to a broker whose firehose is on and gets what it says.
func traced(t *testing.T) (*amqp.Connection, <-chan amqp.Delivery) {
	t.Helper()
	url := sut.url
	if sut.settmq && !sut.external {
		url = testbroker.Start(t, testbroker.Options{Config: "trace_vhosts: [/]\nnode_name: settmq@test\n"}).URL()
	}
	conn := dialURL(t, url)
	ch := channel(t, conn)
	q := privateQueue(t, ch, nil)
	bind(t, ch, q, "#", "amq.rabbitmq.trace", nil)
	traces, err := ch.Consume(q, "", true, false, false, false, nil)
	must(t, err)
	if !sut.external {
		return conn, traces
	}
	publish(t, ch, "", "nowhere", "is it on?")
	select {
	case <-traces:
	case <-time.After(time.Second):
		t.Skip("the firehose is off (rabbitmqctl trace_on)")
	}
	return conn, traces
}

// wantTrace takes the next trace and compares its key, body and some headers.
func wantTrace(t *testing.T, traces <-chan amqp.Delivery, key, body string, want amqp.Table) amqp.Delivery {
	t.Helper()
	d := receive(t, traces)
	if d.Exchange != "amq.rabbitmq.trace" || d.RoutingKey != key || string(d.Body) != body {
		t.Errorf("got %q with key %q from %q, want %q with key %q", d.Body, d.RoutingKey, d.Exchange, body, key)
	}
	for name, v := range want {
		if got := d.Headers[name]; fmt.Sprintf("%T %v", got, got) != fmt.Sprintf("%T %v", v, v) {
			t.Errorf("%s: header %s is %T %v, want %T %v", key, name, got, got, v, v)
		}
	}
	for _, name := range []string{"node", "vhost", "connection", "user"} {
		if s, _ := d.Headers[name].(string); s == "" {
			t.Errorf("%s: header %s is %#v", key, name, d.Headers[name])
		}
	}
	return d
}

func TestFirehose(t *testing.T) {
	t.Parallel()
	conn, traces := traced(t)
	ch := channel(t, conn)
	q := privateQueue(t, ch, nil)
	bind(t, ch, q, "k", "amq.direct", nil)
	publishMessage(t, ch, "amq.direct", "k", amqp.Publishing{
		ContentType: "text/plain", DeliveryMode: 2, Priority: 3, CorrelationId: "c", MessageId: "m", Timestamp: time.Unix(1700000000, 0),
		AppId: "a", Headers: amqp.Table{"h": int32(1), "CC": []any{"cc1"}, "BCC": []any{"bcc1"}}, Body: []byte("hello"),
	})
	properties := amqp.Table{
		"content_type": "text/plain", "delivery_mode": int32(2), "priority": int32(3), "correlation_id": "c", "message_id": "m",
		"timestamp": int32(1700000000), "app_id": "a", "headers": amqp.Table{"h": int32(1), "CC": []any{"cc1"}},
	}
	wantTrace(t, traces, "publish.amq.direct", "hello", amqp.Table{
		"exchange_name": "amq.direct", "routing_keys": []any{"k", "cc1", "bcc1"}, "routed_queues": []any{q},
		"channel": int32(2), "properties": properties, "redelivered": nil,
	})
	get(t, ch, q, false)
	wantTrace(t, traces, "deliver."+q, "hello", amqp.Table{
		"exchange_name": "amq.direct", "channel": int32(2), "redelivered": int32(0), "properties": properties, "routed_queues": nil,
	})
	must(t, ch.Recover(true))
	deliveries, err := ch.Consume(q, "", true, false, false, false, nil)
	must(t, err)
	receive(t, deliveries)
	wantTrace(t, traces, "deliver."+q, "hello", amqp.Table{"redelivered": int32(1)})

	publish(t, ch, "", "nowhere", "lost")
	wantTrace(t, traces, "publish.", "lost", amqp.Table{"exchange_name": "", "routing_keys": []any{"nowhere"}, "properties": amqp.Table{}})

	replies, err := ch.Consume(replyTo, "", true, false, false, false, nil)
	must(t, err)
	publishMessage(t, ch, "", q, amqp.Publishing{ReplyTo: replyTo})
	request := receive(t, deliveries)
	wantTrace(t, traces, "publish.", "", amqp.Table{"properties": amqp.Table{"reply_to": request.ReplyTo}})
	wantTrace(t, traces, "deliver."+q, "", nil)
	publish(t, ch, "", request.ReplyTo, "answer")
	receive(t, replies)
	wantTrace(t, traces, "publish.", "answer", amqp.Table{"routed_queues": []any{request.ReplyTo}})
	wantTrace(t, traces, "deliver."+request.ReplyTo, "answer", nil)
}
