package broker

import (
	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/auth"
)

// Resource is the kind of thing that a right is about.
type Resource uint8

// The kinds of resources.
const (
	ExchangeResource Resource = iota
	QueueResource
)

// String returns the kind as it stands in error texts.
func (r Resource) String() string { return [...]string{"exchange", "queue"}[r] }

// Actor is who asks for an operation on a vhost: an AMQP channel, a definitions import,
// later an HTTP request. Operations check rights through it, in the order in which
// RabbitMQ checks them, so that every door refuses alike.
type Actor interface {
	// Can returns nil if the actor has the right on the resource, else the refusal.
	Can(r auth.Access, kind Resource, name string) *amqp.Error
	// CanTopic is asked, beside Can, for a routing key on a topic exchange.
	CanTopic(r auth.Access, exchange, routingKey string) *amqp.Error
	// ConnectionID names the actor's connection, which may use its exclusive queues.
	// It is 0 for an actor without one.
	ConnectionID() uint64
}

// System is the actor of the broker itself: everything is allowed.
type System struct{}

// Can implements Actor.
func (System) Can(auth.Access, Resource, string) *amqp.Error { return nil }

// CanTopic implements Actor.
func (System) CanTopic(auth.Access, string, string) *amqp.Error { return nil }

// ConnectionID implements Actor.
func (System) ConnectionID() uint64 { return 0 }
