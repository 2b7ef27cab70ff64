package exchange

import (
	"strconv"

	"github.com/settmq/settmq/amqp"
)

const (
	// DeduplicationProperty is the argument, of exchanges and queues, that names the property by which messages without
	// the deduplication header are known. There is one so far.
	DeduplicationProperty = "x-deduplication-property"
	// MessageID is that property.
	MessageID = "message-id"
)

// Stores reports whether a durable exchange of this type keeps something on disk beside what it was declared as.
func Stores(kind string, args amqp.Table) bool {
	switch kind {
	case RecentHistory, Delayed:
		return true
	case Deduplication:
		return CachePersists(args)
	}
	return false
}

// CachePersists reports whether the keys of what is durable and deduplicates are stored.
func CachePersists(args amqp.Table) bool {
	v, _ := args.Get("x-cache-persistence")
	return v.Text() != "memory"
}

// CacheNumber returns a number among the arguments of an exchange or queue that deduplicates, which may be a string of digits; 0 if
// it is not there.
func CacheNumber(args amqp.Table, name string) int64 {
	v, _ := args.Get(name)
	if n, ok := v.Int(); ok {
		return n
	}
	n, _ := strconv.ParseInt(v.Text(), 10, 64)
	return n
}

// checkDeduplication: rules and texts are those of the community's plugin, but for the last one, which is ours.
func checkDeduplication(args amqp.Table) *amqp.Error {
	if CacheNumber(args, "x-cache-size") <= 0 {
		return amqp.PreconditionFailed("Missing or invalid argument, 'x-cache-size' must be an integer greater than 0")
	}
	if _, ok := args.Get("x-cache-ttl"); ok && CacheNumber(args, "x-cache-ttl") <= 0 {
		return amqp.PreconditionFailed("Invalid argument, 'x-cache-ttl' must be an integer greater than 0")
	}
	if v, ok := args.Get("x-cache-persistence"); ok && v.Text() != "disk" && v.Text() != "memory" {
		return amqp.PreconditionFailed("Invalid argument, 'x-cache-persistence' must be either 'disk' or 'memory'")
	}
	if v, ok := args.Get(DeduplicationProperty); ok && v.Text() != MessageID {
		return amqp.PreconditionFailed("Invalid argument, '%s' must be '%s'", DeduplicationProperty, MessageID)
	}
	return nil
}
