package broker

import (
	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/storage"
)

// Quorum queues, as those of RabbitMQ 4.3 are to a client. They have one replica, this node, and are the same machine
// as classic queues with other rules: every message lasts, a failed delivery counts, priorities are always there.

// The priorities of a quorum queue: the highest, and that of a message without one.
const (
	quorumMaxPriority     = 31
	quorumDefaultPriority = 4
)

// quorumOptions turns the options of a queue into those of a quorum queue.
func quorumOptions(o *queue.Options) {
	o.MaxPriority, o.DefaultPriority = quorumMaxPriority, quorumDefaultPriority
	o.Preempt = o.SingleActive
	o.CountReturns, o.ServesReturnsFirst = true, true
	o.KeepsTransient = true
}

// touch notes that a declaration used a queue. Quorum queues do not count that, as RabbitMQ's.
func touch(q Queue) {
	if TypeOf(q) != QuorumQueue {
		q.Touch()
	}
}

// checkDelete refuses conditions that queues of a type do not know.
func (v *VHost) checkDelete(q Queue, ifUnused, ifEmpty bool) *amqp.Error {
	if TypeOf(q) != QuorumQueue || !ifUnused && !ifEmpty {
		return nil
	}
	condition := "if-unused"
	if !ifUnused {
		condition = "if-empty"
	}
	return amqp.NotImplemented("cannot delete %s. queue.delete operations with %s flag set are not supported by quorum queues",
		v.resource(QueueResource, q.About().Name), condition)
}

// CheckGet refuses basic.get where only the active consumer may read.
func (v *VHost) CheckGet(q Queue) *amqp.Error {
	if TypeOf(q) != QuorumQueue || !singleActive(q.About().Arguments) {
		return nil
	}
	return amqp.ResourceLocked(`cannot obtain access to locked %s. basic.get operations are not supported by <<"quorum">> queues with single active consumer`,
		v.resource(QueueResource, q.About().Name))
}

// singleActive reports whether a queue with these arguments has a single active consumer.
func singleActive(args amqp.Table) bool {
	v, _ := args.Get("x-single-active-consumer")
	single, _ := v.Bool()
	return single
}

// keepsTransient reports whether a queue stores transient messages with the others.
func keepsTransient(q Queue) bool {
	c, ok := q.(*queue.Queue)
	return ok && c.KeepsTransient
}

// lasting returns a message to store in place of a transient one, with its confirm. The bytes are shared; what
// clients see stays transient.
func lasting(m *storage.Message) *storage.Message {
	return &storage.Message{
		Exchange: m.Exchange, RoutingKey: m.RoutingKey, Properties: m.Properties, Body: m.Body, Died: m.Died, Blind: m.Blind,
		Confirm: m.Confirm, ConfirmSeq: m.ConfirmSeq,
	}
}
