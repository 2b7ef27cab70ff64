package exchange

import (
	"slices"

	"github.com/settmq/settmq/amqp"
)

// The exchange types New knows.
const (
	Direct         = "direct"
	Fanout         = "fanout"
	Topic          = "topic"
	Headers        = "headers"
	ConsistentHash = "x-consistent-hash"
	Deduplication  = "x-message-deduplication"
	Delayed        = "x-delayed-message"
	LocalRandom    = "x-local-random"
	ModulusHash    = "x-modulus-hash"
	Random         = "x-random"
	RecentHistory  = "x-recent-history"
)

// Destination is what a binding points at: a non-nil pointer owned by the caller. It is
// compared with == and never looked into.
type Destination any

// Message is the part of a message that routing looks at.
type Message struct {
	// RoutingKey is the key of the publish, or one of the keys in its CC and BCC
	// headers. It is not limited to 255 bytes here.
	RoutingKey string

	// Headers are the message's headers. They are read only if the Router needs
	// MessageHeaders; other callers save the work of parsing them.
	Headers amqp.Table

	// Properties are the message's properties. They are read only if the Router needs
	// MessageProperties, and are not nil then.
	Properties *amqp.Properties
}

// Needs says what Route looks at beside the message's first routing key. Zero says that
// equal keys have equal results for as long as the bindings stay what they are.
type Needs uint8

const (
	// EveryKey asks for a call of Route with each routing key of a message; the message
	// goes to what any of them matches.
	EveryKey Needs = 1 << iota
	// MessageHeaders says that the result depends on Message.Headers.
	MessageHeaders
	// MessageProperties says that the result depends on Message.Properties.
	MessageProperties
	// Chance says that equal messages may have different results.
	Chance
)

// Cacheable reports whether a result holds for every message with the same routing keys.
func (n Needs) Cacheable() bool { return n&^EveryKey == 0 }

// Environment is what a Router is given of the world around it. Both functions may be called
// whenever a method of the Router is.
type Environment struct {
	// Name names a destination: differently for every destination of a Router, and the
	// same after a restart.
	Name func(Destination) string
	// Random returns a number from 0 to n-1, each as likely.
	Random func(n int) int
}

// Router is the routing table of one exchange. Bind and Unbind need the caller's write
// lock; the other methods may run concurrently under its read lock.
type Router interface {
	// Needs says what Route looks at. It never changes.
	Needs() Needs

	// Bind adds a binding. Key and args have passed CheckBinding, and no binding with
	// the same key, args and destination exists. The router keeps references to key
	// and to the names and values in args.
	Bind(key string, args amqp.Table, d Destination)

	// Unbind removes the binding that Bind was given the same values for. It does
	// nothing if there is none.
	Unbind(key string, args amqp.Table, d Destination)

	// Route appends the destination of every binding that matches m, or the one that the
	// type picks, to dst and returns the extended slice. A destination with several
	// matching bindings may be repeated. The order of the destinations means nothing.
	Route(dst []Destination, m *Message) []Destination

	// Empty reports whether there is no binding, which is when an auto-delete exchange
	// goes away.
	Empty() bool
}

// New returns an empty Router of the given exchange type, or false if there is no such
// type. Types are case-sensitive. args are the exchange's, which have passed CheckArguments.
func New(kind string, args amqp.Table, env Environment) (Router, bool) {
	switch kind {
	case Direct:
		return &direct{}, true
	case Fanout, Deduplication, RecentHistory: // who keeps keys and history is the caller
		return &fanout{}, true
	case Topic:
		return &topic{}, true
	case Headers:
		return &headers{}, true
	case ConsistentHash:
		return newConsistentHash(args, env), true
	case Delayed: // who keeps messages until their time is the caller
		inner, _ := args.Get("x-delayed-type")
		return New(inner.Text(), args, env)
	case ModulusHash:
		return &modulusHash{spread{env: env}}, true
	case Random, LocalRandom: // all queues are local
		return &random{spread{env: env}}, true
	}
	return nil, false
}

var kinds = []string{Direct, Fanout, Headers, Topic, ConsistentHash, Delayed, LocalRandom, Deduplication, ModulusHash, Random, RecentHistory}

// Kinds lists the types New knows, in alphabetical order.
func Kinds() []string { return slices.Clone(kinds) }

// Known reports whether New knows a type.
func Known(kind string) bool { return slices.Contains(kinds, kind) }

// CheckArguments validates the arguments of an exchange that is about to be made. what names
// it in the error, which is a 406 PRECONDITION_FAILED. Arguments that the type has no use for
// are accepted.
func CheckArguments(kind string, args amqp.Table, what string) *amqp.Error {
	switch kind {
	case ConsistentHash:
		return checkHashArguments(args, what)
	case Deduplication:
		return checkDeduplication(args)
	case Delayed:
		return checkDelayedType(args, what)
	case RecentHistory:
		return checkHistoryLength(args)
	}
	return nil
}

// checkDelayedType: a delayed exchange routes as one of another type does, once the time has come.
func checkDelayedType(args amqp.Table, what string) *amqp.Error {
	inner, ok := args.Get("x-delayed-type")
	if !ok || inner.Kind() != amqp.KindString || Stores(inner.Text(), nil) {
		return amqp.PreconditionFailed("Invalid argument, 'x-delayed-type' must be an existing exchange type")
	}
	if !Known(inner.Text()) {
		return amqp.PreconditionFailed("unknown exchange type '%s'", inner.Text())
	}
	return CheckArguments(inner.Text(), args, what)
}

// HistoryLength is how many messages a recent history exchange with these arguments keeps.
func HistoryLength(args amqp.Table) int {
	const usual = 20
	if v, ok := args.Get("x-recent-history-length"); ok {
		n, _ := v.Int()
		return int(n)
	}
	return usual
}

func checkHistoryLength(args amqp.Table) *amqp.Error {
	v, ok := args.Get("x-recent-history-length")
	if !ok {
		return nil
	}
	if n, ok := v.Int(); !ok || n <= 0 {
		return amqp.PreconditionFailed("Invalid argument %s, 'x-recent-history-length' must be a positive integer", amqp.AppendErlangTerm(nil, v))
	}
	return nil
}

// Binding is what CheckBinding looks at.
type Binding struct {
	Key       string
	Arguments amqp.Table
	QueueType string // of the destination: classic, quorum, stream; "" if it is an exchange
}

// CheckBinding validates a binding before Bind. It returns nil or the 406
// PRECONDITION_FAILED that the client has to be answered with; method ids are the
// caller's to fill in. Topic patterns of any shape are accepted, also those with more than two
// '#', which RabbitMQ has refused since 4.3.5, because they cannot become expensive here.
func CheckBinding(kind string, b Binding) *amqp.Error {
	switch kind {
	case Headers:
		_, err := matchMode(b.Arguments)
		return err
	case ConsistentHash:
		return checkWeight(b.Key)
	case LocalRandom:
		return checkLocalRandom(b)
	}
	return nil
}

func checkLocalRandom(b Binding) *amqp.Error {
	switch {
	case b.Key != "":
		return amqp.PreconditionFailed("Non empty binding '%s' key not permitted", b.Key)
	case b.QueueType == "":
		return amqp.PreconditionFailed("Destination not found")
	case b.QueueType != "classic":
		return amqp.PreconditionFailed("Queue type rabbit_%s_queue not valid for this exchange type", b.QueueType)
	}
	return nil
}
