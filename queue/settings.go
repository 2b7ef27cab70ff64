package queue

import "time"

// Settings are what may change during the life of a queue: what its arguments, the policies
// that match it and the broker's defaults say together. Whoever fills them in has merged
// the three and knows the type of the queue; a queue only obeys. What never changes (the
// type, the highest priority, single active consumer) is not here.
//
// The zero value sets nothing: messages live for ever, the queue has no limits, and what it
// drops is gone. Settings are comparable; equal ones need not be configured again.
type Settings struct {
	// MessageTTL bounds how long a message stays in the queue; 0 is for messages that a
	// consumer takes at once or nobody.
	MessageTTL Optional[time.Duration]
	// Expires deletes the queue after it was unused for so long; more than 0.
	Expires Optional[time.Duration]

	// MaxLength and MaxLengthBytes bound the ready messages and their bodies, in bytes.
	// Streams know the bytes only, of their whole log.
	MaxLength, MaxLengthBytes Optional[int64]
	// Overflow is what happens to messages beyond the limits.
	Overflow Overflow

	// DeadLetterExchange is where messages go that are rejected, expire, go over a limit or
	// were delivered too often. Set and empty it is the default exchange.
	DeadLetterExchange Optional[string]
	// DeadLetterRoutingKey replaces the routing keys of dead letters. It may be set although
	// there is no exchange; then it means nothing.
	DeadLetterRoutingKey Optional[string]
	// DeadLetterAtLeastOnce keeps a dead letter until every queue that it goes to has it.
	// It is never true without DeadLetterExchange.
	DeadLetterAtLeastOnce bool

	// DeliveryLimit is how many failed deliveries a message may have; with one more it is a
	// dead letter. Never negative: "unlimited" is not set.
	DeliveryLimit Optional[int64]
	// ConsumerTimeout bounds how long a consumer may hold a message. A consumer's own
	// argument goes before it.
	ConsumerTimeout Optional[time.Duration]

	// DelayedRetry says which returned messages wait before they are delivered again.
	DelayedRetry RetryKind
	// DelayedRetryMin is the wait after the first failed delivery; it grows by itself with
	// every further one, up to DelayedRetryMax.
	DelayedRetryMin, DelayedRetryMax Optional[time.Duration]

	// Deduplicate refuses in silence what has the key of a message that is in the queue; see [KeyOf].
	Deduplicate, DeduplicateByMessageID bool

	// MaxAge bounds how long a stream keeps a message.
	MaxAge Optional[time.Duration]
	// MaxSegmentBytes is the size of a segment of a stream, FilterBytes that of the filter
	// of each of its chunks.
	MaxSegmentBytes, FilterBytes Optional[int64]
}

// Optional is a value that may be missing; the zero value is a missing one.
type Optional[T comparable] struct {
	Value T // the zero value of T if not Set
	Set   bool
}

// Some returns a value that is set.
func Some[T comparable](v T) Optional[T] { return Optional[T]{Value: v, Set: true} }

// Or returns the value, or otherwise if there is none.
func (o Optional[T]) Or(otherwise T) T {
	if o.Set {
		return o.Value
	}
	return otherwise
}

// Overflow is what a queue does with a message for which it has no room.
type Overflow uint8

// The kinds of overflow, by RabbitMQ's names.
const (
	DropHead         Overflow = iota // take it, and drop the oldest ready one
	RejectPublish                    // refuse it: the publisher gets a nack
	RejectPublishDLX                 // refuse it, and dead-letter it
)

// String returns the name that arguments and policies use.
func (o Overflow) String() string {
	return [...]string{"drop-head", "reject-publish", "reject-publish-dlx"}[o]
}

// RetryKind says which messages a queue holds back before it delivers them again.
type RetryKind uint8

// The kinds of delayed retry, by RabbitMQ's names.
const (
	RetryDisabled RetryKind = iota // none
	RetryAll                       // all that come back
	RetryFailed                    // those that count as failed deliveries
	RetryReturned                  // those that consumers gave back without failing
)

// String returns the name that arguments and policies use.
func (r RetryKind) String() string {
	return [...]string{"disabled", "all", "failed", "returned"}[r]
}
