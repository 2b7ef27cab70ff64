package queue

import (
	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/storage"
)

// The headers that tell a consumer of a message's past, by RabbitMQ's names.
const (
	acquiredHeader = "x-acquired-count" // times handed out before
	failedHeader   = "x-delivery-count" // those that failed; missing if none did
)

// counted is a message with its counts in its headers. It is used again for the next delivery.
type counted struct {
	message    *storage.Message
	fields     []byte
	properties []byte
}

// tell returns a copy of a delivery's message, with the same body, that tells its counts.
func (c *counted) tell(d *Delivery) *storage.Message {
	m := d.Message
	if c.message == nil {
		c.message = new(storage.Message)
	}
	properties := amqp.WithoutHeader(amqp.WithoutHeader(Visible(m), acquiredHeader), failedHeader)
	c.fields = amqp.AppendLongField(c.fields[:0], acquiredHeader, int64(d.Acquired))
	if d.Deliveries > 0 {
		c.fields = amqp.AppendLongField(c.fields, failedHeader, int64(d.Deliveries))
	}
	c.properties = amqp.AppendWithFields(c.properties[:0], properties, c.fields)
	t := c.message
	t.Exchange, t.RoutingKey, t.Properties, t.Body = m.Exchange, m.RoutingKey, c.properties, m.Body
	return t
}

// forget lets the message go.
func (c *counted) forget() {
	if c.message != nil {
		c.message.Body = nil
	}
}

// acquired is how often a message was handed out before a restart, as far as the store tells: a delivery that a crash
// cut off left no count.
func acquired(noted uint16, redelivered bool) uint16 {
	if noted == 0 && redelivered {
		return 1
	}
	return noted
}
