package broker

import (
	"time"

	"github.com/settmq/settmq/amqp"
)

// Interceptors add to every message that is published, before it is routed. They are RabbitMQ's
// message interceptors, with the same headers.
type Interceptors struct {
	// Timestamp sets the header timestamp_in_ms, and the timestamp property in seconds, to the time
	// at which the broker got the message.
	Timestamp Interceptor
	// RoutingNode sets the header x-routed-by to the broker's name.
	RoutingNode Interceptor
}

// Interceptor says whether an addition is made, and whether it replaces what the publisher set.
type Interceptor struct {
	Enabled, Overwrite bool
}

// Intercept changes the properties of a publish as the interceptors say, before it is routed; false if there is nothing to
// change.
func (b *Broker) Intercept(p *amqp.Properties) bool {
	of := &b.interceptors
	if i := of.Timestamp; i.Enabled {
		now := time.Now()
		i.setHeader(p, "timestamp_in_ms", amqp.Int64(now.UnixMilli()))
		if i.Overwrite || !p.Has(amqp.PropTimestamp) {
			p.Flags |= amqp.PropTimestamp
			p.Timestamp = uint64(now.Unix())
		}
	}
	if i := of.RoutingNode; i.Enabled {
		i.setHeader(p, "x-routed-by", amqp.String(b.Node()))
	}
	return of.Timestamp.Enabled || of.RoutingNode.Enabled
}

func (i Interceptor) setHeader(p *amqp.Properties, name string, v amqp.Value) {
	if !p.Has(amqp.PropHeaders) {
		p.Flags |= amqp.PropHeaders
		p.Headers = amqp.Table{}.Append(nil)
	}
	if _, there := amqp.LookupHeader(p.Headers, name); there && !i.Overwrite {
		return
	}
	p.Headers = amqp.SetField(p.Headers, name, v)
}
