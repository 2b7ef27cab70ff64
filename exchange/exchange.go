package exchange

import "github.com/settmq/settmq/amqp"

// The exchange types New knows.
const (
	Direct  = "direct"
	Fanout  = "fanout"
	Topic   = "topic"
	Headers = "headers"
)

// Destination is what a binding points at: a non-nil pointer owned by the caller. It is
// compared with == and never looked into.
type Destination any

// Message is the part of a message that routing looks at.
type Message struct {
	// RoutingKey is the key of the publish, or one of the keys in its CC and BCC
	// headers. It is not limited to 255 bytes here.
	RoutingKey string

	// Headers are the message's headers. They are read only if the Router says that it
	// NeedsHeaders; other callers save the work of parsing them.
	Headers amqp.Table
}

// Router is the routing table of one exchange. Bind and Unbind need the caller's write
// lock; the other methods may run concurrently under its read lock.
type Router interface {
	// NeedsHeaders reports whether Route reads Message.Headers.
	NeedsHeaders() bool

	// Bind adds a binding. Key and args have passed CheckBinding, and no binding with
	// the same key, args and destination exists. The router keeps references to key
	// and to the names and values in args.
	Bind(key string, args amqp.Table, d Destination)

	// Unbind removes the binding that Bind was given the same values for. It does
	// nothing if there is none.
	Unbind(key string, args amqp.Table, d Destination)

	// Route appends the destination of every binding that matches m to dst and returns
	// the extended slice. A destination with several matching bindings may be repeated.
	// The order of the destinations means nothing.
	Route(dst []Destination, m *Message) []Destination

	// Empty reports whether there is no binding, which is when an auto-delete exchange
	// goes away.
	Empty() bool
}

// New returns an empty Router of the given exchange type, or false if there is no such
// type. Types are case-sensitive.
func New(kind string) (Router, bool) {
	switch kind {
	case Direct:
		return &direct{}, true
	case Fanout:
		return &fanout{}, true
	case Topic:
		return &topic{}, true
	case Headers:
		return &headers{}, true
	}
	return nil, false
}

// Kinds lists the types New knows, in alphabetical order.
func Kinds() []string {
	return []string{Direct, Fanout, Headers, Topic}
}

// CheckBinding validates a binding before Bind. It returns nil or the 406
// PRECONDITION_FAILED that the client has to be answered with; method ids are the
// caller's to fill in. Only headers exchanges have rules; topic patterns of any shape are
// accepted, also those with more than two '#', which RabbitMQ has refused since 4.3.5,
// because they cannot become expensive here.
func CheckBinding(kind, key string, args amqp.Table) *amqp.Error {
	if kind != Headers {
		return nil
	}
	_, err := matchMode(args)
	return err
}
