package broker

import (
	"fmt"
	"slices"

	"github.com/settmq/settmq/amqp"
)

// queueArgument is an argument that some RabbitMQ queue type knows. An argument of the
// list works here, or is accepted because it cannot mean anything here, or is refused; one
// outside the list is stored and ignored, as RabbitMQ does.
type queueArgument struct {
	name    string
	classic bool // classic queues take it; the others' are refused for them
	// check returns why a value is not acceptable, in RabbitMQ's words; "" if it is.
	check func(v amqp.Value, args amqp.Table) string
	built bool // it has its effect (or, as in RabbitMQ, none)
}

// queueArguments are all of them, in the order in which redeclarations compare. Texts and
// rules are those of RabbitMQ's queue declaration.
var queueArguments = []queueArgument{
	{"x-queue-type", true, checkQueueType, true},
	{"x-queue-mode", true, accept, true}, // without effect since RabbitMQ 3.12
	{"x-queue-version", true, checkQueueVersion, true},
	{"x-queue-leader-locator", true, checkLocator, true}, // one node: always local
	{"x-queue-master-locator", true, accept, false},
	{"x-expires", true, checkExpires, false},
	{"x-message-ttl", true, checkTTL, false},
	{"x-dead-letter-exchange", true, accept, false}, // its type has an error of its own
	{"x-dead-letter-routing-key", true, checkDeadLetterKey, false},
	{"x-max-length", true, checkNonNegative, false},
	{"x-max-length-bytes", true, checkNonNegative, false},
	{"x-max-priority", true, checkMaxPriority, false},
	{"x-overflow", true, checkOverflow, false},
	{"x-single-active-consumer", true, checkBool, false},
	{"x-dead-letter-strategy", false, accept, false},
	{"x-delivery-limit", false, accept, false},
	{"x-quorum-initial-group-size", false, accept, false},
	{"x-quorum-target-group-size", false, accept, false},
	{"x-consumer-timeout", false, accept, false},
	{"x-consumer-disconnected-timeout", false, accept, false},
	{"x-delayed-retry-type", false, accept, false},
	{"x-delayed-retry-min", false, accept, false},
	{"x-delayed-retry-max", false, accept, false},
	{"x-member-placement-tag", false, accept, false},
	{"x-max-in-memory-length", false, accept, false},
	{"x-max-in-memory-bytes", false, accept, false},
	{"x-max-age", false, accept, false},
	{"x-stream-max-segment-size-bytes", false, accept, false},
	{"x-stream-filter-size-bytes", false, accept, false},
	{"x-initial-cluster-size", false, accept, false},
}

// checkQueueArguments refuses arguments that are malformed, belong to another queue type,
// or would not have their effect.
func (v *VHost) checkQueueArguments(d QueueDeclare) *amqp.Error {
	what := v.resource(QueueResource, d.Name)
	if dlx, ok := d.Arguments.Get("x-dead-letter-exchange"); ok && dlx.Kind() != amqp.KindString {
		return amqp.PreconditionFailed("invalid type '%s' for arg 'x-dead-letter-exchange' in %s", dlx.TypeName(), what)
	}
	for _, f := range d.Arguments {
		i := slices.IndexFunc(queueArguments, func(a queueArgument) bool { return a.name == f.Name })
		if i < 0 {
			continue
		}
		arg := &queueArguments[i]
		if !arg.classic {
			return amqp.PreconditionFailed("invalid arg '%s' for %s of queue type rabbit_classic_queue", arg.name, what)
		}
		if why := arg.check(f.Value, d.Arguments); why != "" {
			return amqp.PreconditionFailed("invalid arg '%s' for %s: %s", arg.name, what, why)
		}
		if !arg.built {
			return amqp.PreconditionFailed("invalid arg '%s' for %s: not supported by this broker yet", arg.name, what)
		}
	}
	return nil
}

func accept(amqp.Value, amqp.Table) string { return "" }

func checkQueueType(v amqp.Value, _ amqp.Table) string {
	switch {
	case v.Kind() != amqp.KindString:
		return fmt.Sprintf(`"expected longstr, got %s"`, v.TypeName())
	case v.Text() == "classic":
		return ""
	case v.Text() == "quorum" || v.Text() == "stream":
		return "not supported by this broker yet"
	}
	return fmt.Sprintf(`"unsupported queue type '%s'"`, v.Text())
}

func checkQueueVersion(v amqp.Value, _ amqp.Table) string {
	n, ok := v.Int()
	switch {
	case !ok:
		return fmt.Sprintf(`"expected integer, got %s"`, v.TypeName())
	case n != 2:
		return fmt.Sprintf(`"unsupported queue version '%d'"`, n)
	}
	return ""
}

func checkLocator(v amqp.Value, _ amqp.Table) string {
	if v.Kind() != amqp.KindString {
		return fmt.Sprintf("{unacceptable_type,%s}", v.TypeName())
	}
	switch v.Text() {
	case "client-local", "balanced", "random", "least-leaders", "min-masters":
		return ""
	}
	return "invalid_queue_locator_arg"
}

// integer takes an integer apart; why is the refusal of any other type.
func integer(v amqp.Value) (n int64, why string) {
	n, ok := v.Int()
	if !ok {
		return 0, fmt.Sprintf(`"expected integer, got %s"`, v.TypeName())
	}
	return n, ""
}

func checkNonNegative(v amqp.Value, _ amqp.Table) string {
	n, why := integer(v)
	if why == "" && n < 0 {
		return fmt.Sprintf("{value_negative,%d}", n)
	}
	return why
}

// MaxMillis is ten years, the longest time to live RabbitMQ takes.
const MaxMillis = 315360000000

func checkTTL(v amqp.Value, args amqp.Table) string {
	why := checkNonNegative(v, args)
	if n, _ := v.Int(); why == "" && n > MaxMillis {
		return fmt.Sprintf("{value_too_large,%d}", n)
	}
	return why
}

func checkExpires(v amqp.Value, args amqp.Table) string {
	if n, ok := v.Int(); ok && n == 0 {
		return "{value_zero,0}"
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
		return fmt.Sprintf("{unacceptable_type,%s}", v.TypeName())
	}
	return ""
}

func checkOverflow(v amqp.Value, _ amqp.Table) string {
	if v.Kind() != amqp.KindString {
		return fmt.Sprintf("{unacceptable_type,%s}", v.TypeName())
	}
	switch v.Text() {
	case "drop-head", "reject-publish", "reject-publish-dlx":
		return ""
	}
	return "invalid_overflow"
}

func checkDeadLetterKey(v amqp.Value, args amqp.Table) string {
	if v.Kind() != amqp.KindString {
		return fmt.Sprintf("{unacceptable_type,%s}", v.TypeName())
	}
	if _, ok := args.Get("x-dead-letter-exchange"); !ok {
		return "routing_key_but_no_dlx_defined"
	}
	return ""
}

func queueType(args amqp.Table) string {
	if t, ok := args.Get("x-queue-type"); ok {
		return t.Text()
	}
	return "classic"
}

func (v *VHost) checkQueueLimit(name string) *amqp.Error {
	if limit := v.broker.limits.MaxQueuesPerVHost; limit > 0 && len(v.queues) >= limit {
		return amqp.PreconditionFailed("cannot declare queue '%s': queue limit in vhost '%s' (%d) is reached", name, v.name, limit)
	}
	return nil
}
