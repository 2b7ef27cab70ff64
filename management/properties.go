package management

import (
	"encoding/json"
	"math"

	"github.com/settmq/settmq/amqp"
)

// propertiesOf reads the properties of a message to publish. Unknown names mean nothing, as in RabbitMQ.
func propertiesOf(raw json.RawMessage) (p amqp.Properties, err error) {
	if string(raw) == "[]" {
		return p, nil
	}
	var o body
	if json.Unmarshal(raw, &o) != nil {
		return p, badRequest([]any{"not_a_map", "properties"})
	}
	for _, f := range []struct {
		name string
		flag uint16
		to   *[]byte
	}{
		{"content_type", amqp.PropContentType, &p.ContentType},
		{"content_encoding", amqp.PropContentEncoding, &p.ContentEncoding},
		{"correlation_id", amqp.PropCorrelationID, &p.CorrelationID},
		{"reply_to", amqp.PropReplyTo, &p.ReplyTo},
		{"expiration", amqp.PropExpiration, &p.Expiration},
		{"message_id", amqp.PropMessageID, &p.MessageID},
		{"type", amqp.PropType, &p.Type},
		{"user_id", amqp.PropUserID, &p.UserID},
		{"app_id", amqp.PropAppID, &p.AppID},
		{"cluster_id", amqp.PropClusterID, &p.ClusterID},
	} {
		if !o.has(f.name) {
			continue
		}
		var text string
		if json.Unmarshal(o[f.name], &text) != nil || len(text) > amqp.MaxShortString {
			return p, badRequest([]any{"not_string", f.name})
		}
		*f.to = []byte(text)
		p.Flags |= f.flag
	}
	mode, err := propertyNumber(&p, o, "delivery_mode", amqp.PropDeliveryMode, math.MaxUint8)
	if err != nil {
		return p, err
	}
	priority, err := propertyNumber(&p, o, "priority", amqp.PropPriority, math.MaxUint8)
	if err != nil {
		return p, err
	}
	p.DeliveryMode, p.Priority = uint8(mode), uint8(priority)
	if p.Timestamp, err = propertyNumber(&p, o, "timestamp", amqp.PropTimestamp, math.MaxInt64); err != nil {
		return p, err
	}
	if o.has("headers") && string(o["headers"]) != "[]" {
		headers, err := table("headers", o["headers"])
		if err != nil {
			return p, err
		}
		p.Headers = headers.Append(nil)
		p.Flags |= amqp.PropHeaders
	}
	return p, nil
}

// propertyNumber is a whole number up to most.
func propertyNumber(p *amqp.Properties, o body, name string, flag uint16, most uint64) (n uint64, err error) {
	if !o.has(name) {
		return 0, nil
	}
	if json.Unmarshal(o[name], &n) != nil || n > most {
		return 0, badRequest([]any{"not_int", name})
	}
	p.Flags |= flag
	return n, nil
}
