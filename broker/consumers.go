package broker

import "github.com/settmq/settmq/amqp"

// consumerArguments are the arguments of basic.consume that only queues of some types know. For the others they are
// an error; what nobody knows is ignored, as in RabbitMQ.
var consumerArguments = []struct {
	name  string
	types types
}{
	{"x-priority", classic | quorum},
	{"x-consumer-timeout", classic | quorum},
	{"x-stream-offset", stream},
	{"x-stream-filter", stream},
	{"x-stream-match-unfiltered", stream},
}

// CheckConsumerArguments refuses arguments of basic.consume that belong to another queue type.
func (v *VHost) CheckConsumerArguments(q Queue, args amqp.Table) *amqp.Error {
	t := TypeOf(q)
	for _, arg := range consumerArguments {
		if _, ok := args.Get(arg.name); ok && !arg.types.has(t) {
			return amqp.PreconditionFailed("invalid arg '%s' for %s of queue type %s", arg.name, v.resource(QueueResource, q.About().Name), t.module())
		}
	}
	return nil
}
