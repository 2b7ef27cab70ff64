package broker

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/auth"
	"github.com/settmq/settmq/exchange"
)

// types is a set of queue types.
type types uint8

const (
	classic types = 1 << ClassicQueue
	quorum  types = 1 << QuorumQueue
	stream  types = 1 << StreamQueue
)

func (s types) has(t QueueType) bool { return s&(1<<t) != 0 }

// queueArgument is an argument that some queue type knows. For the others it is an error;
// an argument that no type knows is stored and ignored, as RabbitMQ does.
type queueArgument struct {
	name  string
	types types
	// check returns why a value is not acceptable, in RabbitMQ's words; "" if it is.
	check func(v amqp.Value, args amqp.Table) string
}

// queueArguments are all of them, in the order in which they are checked and compared.
// Texts and rules are those of RabbitMQ 4.3, with these differences: classic queues also
// take what RabbitMQ has for quorum queues only (delivery limit, at-least-once dead letters,
// delayed retry; and the consumer timeout, which classic queues had until 4.2), and values
// that RabbitMQ would store without a look are checked.
var queueArguments = []queueArgument{
	{"x-expires", classic | quorum, checkExpires},
	{"x-message-ttl", classic | quorum, checkTTL},
	{"x-dead-letter-exchange", classic | quorum, accept}, // its type has an error of its own
	{"x-dead-letter-routing-key", classic | quorum, checkDeadLetterKey},
	{"x-dead-letter-strategy", classic | quorum, oneOf("invalid_dlx_strategy", "at-most-once", "at-least-once")},
	{"x-max-length", classic | quorum, checkNonNegative},
	{"x-max-length-bytes", classic | quorum | stream, checkNonNegative},
	{"x-max-in-memory-length", quorum, checkNonNegative}, // without effect since RabbitMQ 3.10
	{"x-max-in-memory-bytes", quorum, checkNonNegative},
	{"x-max-priority", classic, checkMaxPriority},
	{"x-overflow", classic | quorum, oneOf("invalid_overflow", "drop-head", "reject-publish", "reject-publish-dlx")},
	{"x-queue-mode", classic, accept}, // without effect since RabbitMQ 3.12
	{"x-queue-version", classic, checkQueueVersion},
	{"x-single-active-consumer", classic | quorum, checkBool},
	{"x-delivery-limit", classic | quorum, checkInteger},
	{"x-consumer-timeout", classic | quorum, checkNonNegative},
	{"x-consumer-disconnected-timeout", quorum, checkNonNegative}, // of consumers on other nodes
	{"x-delayed-retry-type", classic | quorum, oneOf("invalid_delayed_retry_type", "disabled", "all", "failed", "returned")},
	{"x-delayed-retry-min", classic | quorum, checkPositive},
	{"x-delayed-retry-max", classic | quorum, checkPositive},
	{"x-message-groups", classic, checkMessageGroups}, // ours
	{"x-group-header", classic, checkGroupHeader},
	{"x-message-deduplication", classic | quorum, checkBool}, // of a community plugin
	{exchange.DeduplicationProperty, classic | quorum, oneOf("invalid_deduplication_property", exchange.MessageID)},
	{"x-cache-size", classic | quorum, checkCacheSize},
	{"x-cache-ttl", classic | quorum, ofCache(checkPositive)},
	{"x-cache-persistence", classic | quorum, ofCache(oneOf("invalid_cache_persistence", "disk", "memory"))},
	{argQueueType, classic | quorum | stream, accept}, // checked before
	{"x-quorum-initial-group-size", quorum, checkPositive},
	{"x-max-age", stream, checkMaxAge},
	{"x-stream-max-segment-size-bytes", stream, checkNonNegative},
	{"x-stream-filter-size-bytes", stream, checkNonNegative},
	{"x-initial-cluster-size", stream, checkPositive},
	// One node: whatever they ask for, it is here.
	{"x-queue-leader-locator", classic | quorum | stream, oneOf("invalid_queue_locator_arg", "client-local", "balanced", "random", "least-leaders", "min-masters")},
	{"x-queue-master-locator", classic, accept},
}

// checkDeadLettering checks the one argument that asks for rights: a queue's dead letters
// are read from it and written to the exchange.
func (v *VHost) checkDeadLettering(a Actor, d QueueDeclare) *amqp.Error {
	dlx, ok := d.Arguments.Get("x-dead-letter-exchange")
	if !ok {
		return nil
	}
	if dlx.Kind() != amqp.KindString {
		return amqp.PreconditionFailed("invalid type '%s' for arg 'x-dead-letter-exchange' in %s", dlx.TypeName(), v.resource(QueueResource, d.Name))
	}
	if err := a.Can(auth.Read, QueueResource, d.Name); err != nil {
		return err
	}
	return a.Can(auth.Write, ExchangeResource, dlx.Text())
}

// checkQueueArguments refuses arguments that are malformed, belong to another queue type,
// or would not have their effect. The type is in the arguments, see withType.
func (v *VHost) checkQueueArguments(d QueueDeclare) *amqp.Error {
	what := v.resource(QueueResource, d.Name)
	invalid := func(name, why string) *amqp.Error {
		return amqp.PreconditionFailed("invalid arg '%s' for %s: %s", name, what, why)
	}
	kind, _ := d.Arguments.Get(argQueueType)
	if why := checkQueueType(kind); why != "" {
		return invalid(argQueueType, why)
	}
	t := typeOf(d.Arguments)
	for i := range queueArguments {
		arg := &queueArguments[i]
		value, ok := d.Arguments.Get(arg.name)
		if !ok || !arg.types.has(t) {
			continue
		}
		if why := arg.check(value, d.Arguments); why != "" {
			return invalid(arg.name, why)
		}
	}
	for _, f := range d.Arguments {
		i := slices.IndexFunc(queueArguments, func(a queueArgument) bool { return a.name == f.Name })
		if i >= 0 && !queueArguments[i].types.has(t) {
			return amqp.PreconditionFailed("invalid arg '%s' for %s of queue type %s", f.Name, what, t.module())
		}
	}
	return nil
}

// checkArgumentsEquivalent compares the arguments that queues of the existing queue's type
// know; others are not compared.
func (v *VHost) checkArgumentsEquivalent(name string, received, current amqp.Table) *amqp.Error {
	t := typeOf(current)
	for _, arg := range queueArguments {
		if !arg.types.has(t) {
			continue
		}
		if arg.name == argQueueType {
			if r, _ := received.Get(argQueueType); r.Text() == t.String() {
				continue // the existing queue may be from before the type was always there
			}
		}
		r, c := received, current
		if arg.name == "x-max-age" {
			r, c = ageInMillis(r), ageInMillis(c)
		}
		if err := checkArgument(arg.name, v.resource(QueueResource, name), r, c); err != nil {
			return err
		}
	}
	return nil
}

// ageInMillis returns the argument x-max-age alone, as RabbitMQ compares it: 1h and 60m are the same.
func ageInMillis(args amqp.Table) amqp.Table {
	v, ok := args.Get("x-max-age")
	age, valid := parseAge(v.Text())
	switch {
	case !ok:
		return nil
	case valid:
		v = amqp.String(strconv.FormatInt(age.Milliseconds(), 10))
	}
	return amqp.Table{{Name: "x-max-age", Value: v}}
}

func accept(amqp.Value, amqp.Table) string { return "" }

func unacceptable(v amqp.Value) string { return "{unacceptable_type," + v.TypeName() + "}" }

func checkQueueType(v amqp.Value) string {
	if v.Kind() != amqp.KindString {
		return unacceptable(v)
	}
	if _, ok := parseQueueType(v.Text()); !ok {
		return fmt.Sprintf(`"unsupported queue type '%s'"`, v.Text())
	}
	return ""
}

func checkQueueVersion(v amqp.Value, args amqp.Table) string {
	if why := checkInteger(v, args); why != "" {
		return why
	}
	if n, _ := v.Int(); n != 2 {
		return fmt.Sprintf(`"unsupported queue version '%d'"`, n)
	}
	return ""
}

// oneOf makes a check for a string out of a list; otherwise is what any other is called.
func oneOf(otherwise string, list ...string) func(amqp.Value, amqp.Table) string {
	return func(v amqp.Value, _ amqp.Table) string {
		switch {
		case v.Kind() != amqp.KindString:
			return unacceptable(v)
		case !slices.Contains(list, v.Text()):
			return otherwise
		}
		return ""
	}
}

func checkInteger(v amqp.Value, _ amqp.Table) string {
	if !v.IsInt() {
		return fmt.Sprintf(`"expected integer, got %s"`, v.TypeName())
	}
	return ""
}

func checkNonNegative(v amqp.Value, args amqp.Table) string {
	why := checkInteger(v, args)
	if n, _ := v.Int(); why == "" && n < 0 {
		return fmt.Sprintf("{value_negative,%d}", n)
	}
	return why
}

func checkPositive(v amqp.Value, args amqp.Table) string {
	if n, ok := v.Int(); ok && n == 0 {
		return "{value_zero,0}"
	}
	return checkNonNegative(v, args)
}

// MaxMillis is ten years, the longest time to live RabbitMQ takes.
const MaxMillis = amqp.MaxExpiration

func checkTTL(v amqp.Value, args amqp.Table) string {
	why := checkNonNegative(v, args)
	if n, _ := v.Int(); why == "" && n > MaxMillis {
		return fmt.Sprintf("{value_too_large,%d}", n)
	}
	return why
}

func checkExpires(v amqp.Value, args amqp.Table) string {
	if why := checkPositive(v, args); why != "" {
		return why
	}
	return checkTTL(v, args)
}

func checkMaxPriority(v amqp.Value, args amqp.Table) string {
	why := checkNonNegative(v, args)
	if n, _ := v.Int(); why == "" && n > 255 {
		return fmt.Sprintf("{max_value_exceeded,%d}", n)
	}
	return why
}

func checkBool(v amqp.Value, _ amqp.Table) string {
	if v.Kind() != amqp.KindBool {
		return unacceptable(v)
	}
	return ""
}

// checkMessageGroups: priorities would take messages of a group past each other.
func checkMessageGroups(v amqp.Value, args amqp.Table) string {
	if why := checkBool(v, args); why != "" {
		return why
	}
	p, _ := args.Get("x-max-priority")
	if n, _ := p.Int(); n > 0 && groupHeader(args) != "" {
		return "message_groups_and_priorities"
	}
	return ""
}

func checkGroupHeader(v amqp.Value, args amqp.Table) string {
	switch {
	case v.Kind() != amqp.KindString:
		return unacceptable(v)
	case v.Text() == "":
		return "empty_group_header"
	case groupHeader(args) == "":
		return "group_header_but_no_message_groups"
	}
	return ""
}

// groupHeader returns the header by which a queue with these arguments groups its messages, "" if it does not.
func groupHeader(args amqp.Table) string {
	v, _ := args.Get("x-message-groups")
	if on, _ := v.Bool(); !on {
		return ""
	}
	if v, ok := args.Get("x-group-header"); ok {
		return v.Text()
	}
	return "x-group-id"
}

// checkCacheSize: a queue that knows only what is in it needs no limit, one that remembers needs both.
func checkCacheSize(v amqp.Value, args amqp.Table) string {
	d, _ := args.Get("x-message-deduplication")
	if on, _ := d.Bool(); !on {
		return "cache_but_no_message_deduplication"
	}
	return checkPositive(v, args)
}

// ofCache makes a check for what means nothing without x-cache-size.
func ofCache(check func(amqp.Value, amqp.Table) string) func(amqp.Value, amqp.Table) string {
	return func(v amqp.Value, args amqp.Table) string {
		if _, ok := args.Get("x-cache-size"); !ok {
			return "cache_but_no_cache_size"
		}
		return check(v, args)
	}
}

func checkMaxAge(v amqp.Value, _ amqp.Table) string {
	if v.Kind() != amqp.KindString {
		return unacceptable(v)
	}
	if _, ok := parseAge(v.Text()); !ok {
		return "invalid_max_age"
	}
	return ""
}

func checkDeadLetterKey(v amqp.Value, args amqp.Table) string {
	if v.Kind() != amqp.KindString {
		return unacceptable(v)
	}
	if _, ok := args.Get("x-dead-letter-exchange"); !ok {
		return "routing_key_but_no_dlx_defined"
	}
	return ""
}

// The sizes that streams allow, as RabbitMQ's.
const (
	maxSegmentBytes                = 3_000_000_000
	minFilterBytes, maxFilterBytes = 16, 255
)

// checkStreamSizes has RabbitMQ's texts, which name neither queue nor vhost.
func checkStreamSizes(args amqp.Table) *amqp.Error {
	if v, ok := args.Get("x-stream-max-segment-size-bytes"); ok {
		if n, _ := v.Int(); n > maxSegmentBytes {
			return amqp.PreconditionFailed("Exceeded max value for x-stream-max-segment-size-bytes")
		}
	}
	if v, ok := args.Get("x-stream-filter-size-bytes"); ok {
		if n, _ := v.Int(); n < minFilterBytes || n > maxFilterBytes {
			return amqp.PreconditionFailed("Invalid value for x-stream-filter-size-bytes")
		}
	}
	return nil
}
