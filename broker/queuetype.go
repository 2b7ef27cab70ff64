package broker

import (
	"slices"

	"github.com/settmq/settmq/amqp"
)

// QueueType is the kind of a queue: what the argument x-queue-type says.
type QueueType uint8

// The types of queues.
const (
	ClassicQueue QueueType = iota
	QuorumQueue
	StreamQueue
)

type queueTypeNames struct{ name, module, applyTo string }

// queueTypes are the names of a type: RabbitMQ's, that of its module there, which stands in
// error texts, and what policies call all queues of the type.
var queueTypes = [...]queueTypeNames{
	ClassicQueue: {"classic", "rabbit_classic_queue", "classic_queues"},
	QuorumQueue:  {"quorum", "rabbit_quorum_queue", "quorum_queues"},
	StreamQueue:  {"stream", "rabbit_stream_queue", "streams"},
}

// String returns the name that the argument x-queue-type uses.
func (t QueueType) String() string { return queueTypes[t].name }

// Module is the type's name in RabbitMQ's metrics, where it is that of the module behind it.
func (t QueueType) Module() string { return t.module() }

// module is the type's name in RabbitMQ's error texts.
func (t QueueType) module() string { return queueTypes[t].module }

// compatible reports whether queues of the type can have these properties: replicated
// queues are durable, shared and stay.
func (t QueueType) compatible(d QueueDeclare) bool {
	return t == ClassicQueue || d.Durable && !d.Exclusive && !d.AutoDelete
}

// parseQueueType finds a type by its name, or by that of its module, as old definitions
// have it.
func parseQueueType(name string) (QueueType, bool) {
	for i, t := range queueTypes {
		if t.name == name || t.module == name {
			return QueueType(i), true
		}
	}
	return 0, false
}

const argQueueType = "x-queue-type"

// typeOf returns the type that the arguments of a queue name; classic if they name none,
// as those of queues from before the type was always written down.
func typeOf(args amqp.Table) QueueType {
	v, _ := args.Get(argQueueType)
	t, _ := parseQueueType(v.Text())
	return t
}

// TypeOf returns the type of a queue.
func TypeOf(q Queue) QueueType { return typeOf(q.About().Arguments) }

// namesType reports whether a text names a type, known or not. An empty name and Erlang's null come out of definitions that
// older versions wrote.
func namesType(v amqp.Value) bool {
	return v.Kind() == amqp.KindString && v.Text() != "" && v.Text() != "undefined"
}

// withType returns the declaration with the type in its arguments, so that it is in every
// listing and a queue can be declared again when the default has changed. Who names no type
// gets the default one, if a queue with these properties can be of it, otherwise classic.
func (d QueueDeclare) withType(byDefault QueueType) QueueDeclare {
	if v, ok := d.Arguments.Get(argQueueType); ok && (v.Kind() != amqp.KindString || namesType(v)) {
		return d
	}
	t := byDefault
	if !t.compatible(d) {
		t = ClassicQueue
	}
	args := slices.DeleteFunc(slices.Clone(d.Arguments), func(f amqp.Field) bool { return f.Name == argQueueType })
	d.Arguments = append(args, amqp.Field{Name: argQueueType, Value: amqp.String(t.String())}).Sorted()
	return d
}

// checkProperties refuses properties that queues of the type cannot have.
func (v *VHost) checkProperties(t QueueType, d QueueDeclare) *amqp.Error {
	if t.compatible(d) {
		return nil
	}
	property := "non-durable"
	switch {
	case d.AutoDelete:
		property = "auto-delete"
	case d.Exclusive:
		property = "exclusive-owner"
	}
	return amqp.PreconditionFailed("invalid property '%s' for %s", property, v.resource(QueueResource, d.Name))
}
