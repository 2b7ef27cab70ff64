package broker

import (
	"bytes"
	"math"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/storage"
)

// traceExchange is where the firehose comes out, in every vhost.
const traceExchange = "amq.rabbitmq.trace"

// Tap says on which channel the firehose saw a message.
type Tap struct {
	Connection string // the name of the connection
	Channel    uint16
	User       string
}

// SetTracing switches the firehose of the vhost on or off: copies of all messages that are
// published and delivered, on the exchange amq.rabbitmq.trace. It is off after a restart unless
// the configuration says otherwise.
func (v *VHost) SetTracing(on bool) {
	if v.tracing.Swap(on) != on {
		v.broker.log.Info().Str("vhost", v.name).Bool("on", on).Msg("firehose switched")
	}
}

// Tracing reports whether the firehose is on. It costs next to nothing to ask for every message.
func (v *VHost) Tracing() bool { return v.tracing.Load() }

// TracePublish sends a copy of a message that is about to go where rt says. Call it without locks.
func (v *VHost) TracePublish(t Tap, m *storage.Message, rt *Route) {
	if m.Exchange == traceExchange {
		return
	}
	var routed []amqp.Value
	for _, q := range rt.Queues {
		routed = append(routed, amqp.String(q.About().Name))
	}
	for _, c := range rt.replies {
		routed = append(routed, amqp.String(c.address))
	}
	h := v.traceHeaders(t, m, rt.ExtraKeys)
	h = append(h, amqp.Field{Name: "routed_queues", Value: amqp.ArrayValue(routed...)})
	v.announce(traceExchange, "publish."+m.Exchange, &amqp.Properties{}, h, m.Body)
}

// TraceDelivery sends a copy of a message that goes from the named queue to a consumer, as soon as
// w is flushed: queues and channels may be locked by the caller.
func (v *VHost) TraceDelivery(t Tap, queueName string, d *queue.Delivery, w *queue.Wakes) {
	m := d.Message
	if m.Exchange == traceExchange {
		return
	}
	var cc []string
	if headers := amqp.HeadersOf(queue.Visible(m)); headers != nil {
		cc, _ = senderSelected(&amqp.Properties{Flags: amqp.PropHeaders, Headers: headers})
	}
	redelivered := int32(0)
	if d.Redelivered {
		redelivered = 1
	}
	h := v.traceHeaders(t, m, cc)
	h = append(h, amqp.Field{Name: "redelivered", Value: amqp.Int32(redelivered)})
	w.Add(&tracedDelivery{v, "deliver." + queueName, h, bytes.Clone(m.Body)})
}

// tracedDelivery waits among the writers to be woken until no lock is held.
type tracedDelivery struct {
	vhost   *VHost
	key     string
	headers amqp.Table
	body    []byte
}

// Wake implements queue.Waker.
func (d *tracedDelivery) Wake(bool) {
	d.vhost.announce(traceExchange, d.key, &amqp.Properties{}, d.headers, d.body)
}

// traceHeaders are what the headers of both kinds of copies have in common.
func (v *VHost) traceHeaders(t Tap, m *storage.Message, extraKeys []string) amqp.Table {
	keys := []amqp.Value{amqp.String(m.RoutingKey)}
	for _, k := range extraKeys {
		keys = append(keys, amqp.String(k))
	}
	return amqp.Table{
		{Name: "exchange_name", Value: amqp.String(m.Exchange)},
		{Name: "routing_keys", Value: amqp.ArrayValue(keys...)},
		{Name: "properties", Value: amqp.TableValue(PropertiesTable(queue.Visible(m)))},
		{Name: "node", Value: amqp.String(v.broker.node)},
		{Name: "vhost", Value: amqp.String(v.name)},
		{Name: "connection", Value: amqp.String(t.Connection)},
		{Name: "channel", Value: amqp.Int32(int32(t.Channel))},
		{Name: "user", Value: amqp.String(t.User)},
	}
}

// PropertiesTable renders encoded properties under RabbitMQ's names.
func PropertiesTable(encoded []byte) amqp.Table {
	var p amqp.Properties
	if err := amqp.ParseProperties(encoded, &p); err != nil {
		return nil // they were checked when the message was published
	}
	var t amqp.Table
	text := func(flag uint16, name string, v []byte) {
		if p.Has(flag) {
			t = append(t, amqp.Field{Name: name, Value: amqp.String(string(v))})
		}
	}
	number := func(flag uint16, name string, v uint64) {
		switch {
		case !p.Has(flag):
		case v <= math.MaxInt32:
			t = append(t, amqp.Field{Name: name, Value: amqp.Int32(int32(v))})
		default:
			t = append(t, amqp.Field{Name: name, Value: amqp.Int64(int64(v))})
		}
	}
	text(amqp.PropContentType, "content_type", p.ContentType)
	text(amqp.PropContentEncoding, "content_encoding", p.ContentEncoding)
	if p.Has(amqp.PropHeaders) {
		headers, _, _ := amqp.ParseTable(p.Headers)
		t = append(t, amqp.Field{Name: "headers", Value: amqp.TableValue(headers)})
	}
	number(amqp.PropDeliveryMode, "delivery_mode", uint64(p.DeliveryMode))
	number(amqp.PropPriority, "priority", uint64(p.Priority))
	text(amqp.PropCorrelationID, "correlation_id", p.CorrelationID)
	text(amqp.PropReplyTo, "reply_to", p.ReplyTo)
	text(amqp.PropExpiration, "expiration", p.Expiration)
	text(amqp.PropMessageID, "message_id", p.MessageID)
	number(amqp.PropTimestamp, "timestamp", p.Timestamp)
	text(amqp.PropType, "type", p.Type)
	text(amqp.PropUserID, "user_id", p.UserID)
	text(amqp.PropAppID, "app_id", p.AppID)
	text(amqp.PropClusterID, "cluster_id", p.ClusterID)
	return t
}

// announce publishes a message of the broker's own to one of its exchanges. Nobody
// waits for it and nothing holds it back. Call it without locks.
func (v *VHost) announce(exchangeName, key string, p *amqp.Properties, headers amqp.Table, body []byte) {
	p.Flags |= amqp.PropHeaders
	p.Headers = headers.Append(nil)
	v.mu.RLock()
	x := v.exchanges[exchangeName]
	if x == nil || x.router.Empty() {
		v.mu.RUnlock()
		return
	}
	r := v.ownRouters.Get().(*Router)
	defer v.ownRouters.Put(r)
	rt := r.evaluateLocked(x, key, nil, p)
	v.mu.RUnlock()
	m := &storage.Message{Exchange: exchangeName, RoutingKey: key, Properties: p.Append(nil), Body: body, Transient: p.DeliveryMode != 2}
	var w queue.Wakes
	rt.Publish(m, &w)
	w.Flush()
}
