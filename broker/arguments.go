package broker

import (
	"strings"

	"github.com/settmq/settmq/amqp"
)

// queueArguments are the arguments that some RabbitMQ queue type knows. An argument in
// this list either works here or is refused; one outside it is stored and ignored, as
// RabbitMQ does. They are also what redeclarations compare.
var queueArguments = []struct {
	name  string
	works func(amqp.Value) bool // nil: not built
}{
	{"x-queue-type", func(v amqp.Value) bool { return v.Text() == "classic" }},
	{"x-queue-mode", always},  // accepted without effect since RabbitMQ 3.12
	{"x-queue-version", isV2}, // the one that there is
	{"x-queue-leader-locator", always},
	{"x-expires", nil},
	{"x-message-ttl", nil},
	{"x-max-length", nil},
	{"x-max-length-bytes", nil},
	{"x-overflow", nil},
	{"x-dead-letter-exchange", nil},
	{"x-dead-letter-routing-key", nil},
	{"x-dead-letter-strategy", nil},
	{"x-max-priority", nil},
	{"x-single-active-consumer", nil},
	{"x-queue-master-locator", nil},
	{"x-delivery-limit", nil},
	{"x-quorum-initial-group-size", nil},
	{"x-quorum-target-group-size", nil},
	{"x-consumer-timeout", nil},
	{"x-consumer-disconnected-timeout", nil},
	{"x-delayed-retry-type", nil},
	{"x-delayed-retry-min", nil},
	{"x-delayed-retry-max", nil},
	{"x-member-placement-tag", nil},
	{"x-max-in-memory-length", nil},
	{"x-max-in-memory-bytes", nil},
	{"x-max-age", nil},
	{"x-stream-max-segment-size-bytes", nil},
	{"x-stream-filter-size-bytes", nil},
	{"x-initial-cluster-size", nil},
}

func always(amqp.Value) bool { return true }

func isV2(v amqp.Value) bool {
	n, ok := v.Int()
	return ok && n == 2
}

// checkQueueArguments refuses an argument that would not do what it says.
func (v *VHost) checkQueueArguments(d QueueDeclare) *amqp.Error {
	what := v.resource(QueueResource, d.Name)
	for _, arg := range queueArguments {
		val, ok := d.Arguments.Get(arg.name)
		if !ok || arg.works != nil && arg.works(val) {
			continue
		}
		switch {
		case arg.name == "x-queue-type" && val.TypeName() == "longstr":
			if t := val.Text(); t == "quorum" || t == "stream" {
				return amqp.PreconditionFailed("invalid arg 'x-queue-type' for %s: \"queue type '%s' is not supported by this broker yet\"", what, t)
			}
			return amqp.PreconditionFailed("invalid arg 'x-queue-type' for %s: \"unsupported queue type '%s'\"", what, val.Text())
		case arg.name == "x-queue-version":
			return amqp.PreconditionFailed("invalid arg 'x-queue-version' for %s: \"unsupported queue version '%s'\"", what, val)
		case arg.works == nil:
			return amqp.PreconditionFailed("invalid arg '%s' for %s: not supported by this broker yet", arg.name, what)
		}
		return amqp.PreconditionFailed("invalid arg '%s' for %s: {unacceptable_type,%s}", arg.name, what, val.TypeName())
	}
	return nil
}

func queueType(args amqp.Table) string {
	if t, ok := args.Get("x-queue-type"); ok {
		return strings.ToLower(t.Text())
	}
	return "classic"
}

func (v *VHost) checkQueueLimit(name string) *amqp.Error {
	if limit := v.broker.limits.MaxQueuesPerVHost; limit > 0 && len(v.queues) >= limit {
		return amqp.PreconditionFailed("cannot declare queue '%s': queue limit in vhost '%s' (%d) is reached", name, v.name, limit)
	}
	return nil
}
