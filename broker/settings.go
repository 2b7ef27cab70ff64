package broker

import (
	"strconv"
	"strings"
	"time"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/queue"
)

// DefaultDeliveryLimit is how many failed deliveries a quorum queue allows a message if
// nobody says otherwise, as in RabbitMQ since 4.0.
const DefaultDeliveryLimit = 20

// mergeSettings says what holds for a queue: its arguments, what the policies that match it
// say together, and the defaults of its type. The rules are RabbitMQ's: of two limits the
// lower one holds; where there is no lower one the argument goes before the policy, but for
// streams and for the overflow of quorum queues, where the policy goes before it.
func mergeSettings(t QueueType, args amqp.Table, policy map[string]any, o settingsDefaults) queue.Settings {
	m := merge{args: args, policy: policy}
	var s queue.Settings
	if t == StreamQueue {
		s.MaxAge = m.age("max-age")
		s.MaxLengthBytes = m.number("max-length-bytes", policyWins)
		s.MaxSegmentBytes = m.number("stream-max-segment-size-bytes", policyWins)
		s.FilterBytes = m.number("stream-filter-size-bytes", policyWins)
		return s
	}
	s.MessageTTL = millis(m.number("message-ttl", lower))
	s.Expires = millis(m.number("expires", lower))
	s.MaxLength = m.number("max-length", lower)
	s.MaxLengthBytes = m.number("max-length-bytes", lower)
	s.Overflow = m.overflow(t)
	s.DeadLetterExchange = m.text("dead-letter-exchange", false)
	s.DeadLetterRoutingKey = m.text("dead-letter-routing-key", false)
	s.DeadLetterAtLeastOnce = m.text("dead-letter-strategy", false).Value == "at-least-once" && canKeepDeadLetters(s)
	s.DeliveryLimit = m.number("delivery-limit", deliveryLimit)
	if !s.DeliveryLimit.Set && t == QuorumQueue {
		s.DeliveryLimit = queue.Some[int64](DefaultDeliveryLimit)
	}
	if s.DeliveryLimit.Value < 0 {
		s.DeliveryLimit = queue.Optional[int64]{}
	}
	s.ConsumerTimeout = millis(m.number("consumer-timeout", lower))
	if !s.ConsumerTimeout.Set && t == QuorumQueue && o.ConsumerTimeout > 0 {
		s.ConsumerTimeout = queue.Some(o.ConsumerTimeout)
	}
	m.delayedRetry(&s)
	if s.Deduplicate = m.deduplicate(); s.Deduplicate {
		s.DeduplicateByMessageID = byMessageID(args, policy)
	}
	return s
}

// settingsDefaults are what the operator configures for queues that say nothing.
type settingsDefaults struct {
	ConsumerTimeout time.Duration // of quorum queues; 0 for none
}

// canKeepDeadLetters reports whether dead letters can wait for their targets. They cannot if
// the queue has to drop the oldest message at its limit; RabbitMQ falls back likewise.
func canKeepDeadLetters(s queue.Settings) bool {
	limited := s.MaxLength.Set || s.MaxLengthBytes.Set
	return s.DeadLetterExchange.Set && (!limited || s.Overflow == queue.RejectPublish)
}

// merge looks settings up under one name in both places. Values of either are checked when
// they are set; one of a wrong type counts as missing.
type merge struct {
	args   amqp.Table
	policy map[string]any
}

func lower(policy, argument int64) int64 { return min(policy, argument) }
func policyWins(policy, _ int64) int64   { return policy }
func deliveryLimit(policy, arg int64) int64 {
	if policy < 0 || arg < 0 { // one of them is no limit
		return max(policy, arg)
	}
	return min(policy, arg)
}

func (m merge) number(name string, both func(policy, argument int64) int64) queue.Optional[int64] {
	p, inPolicy := m.policy[name].(int64)
	v, _ := m.args.Get("x-" + name)
	a, inArguments := v.Int()
	switch {
	case inPolicy && inArguments:
		return queue.Some(both(p, a))
	case inPolicy:
		return queue.Some(p)
	case inArguments:
		return queue.Some(a)
	}
	return queue.Optional[int64]{}
}

func (m merge) text(name string, policyFirst bool) queue.Optional[string] {
	p, inPolicy := m.policy[name].(string)
	v, ok := m.args.Get("x-" + name)
	switch {
	case inPolicy && (policyFirst || !ok):
		return queue.Some(p)
	case ok && v.Kind() == amqp.KindString:
		return queue.Some(v.Text())
	}
	return queue.Optional[string]{}
}

func (m merge) overflow(t QueueType) queue.Overflow {
	switch m.text("overflow", t == QuorumQueue).Value {
	case "reject-publish":
		return queue.RejectPublish
	case "reject-publish-dlx":
		if t == ClassicQueue { // quorum queues do not have it and take the default
			return queue.RejectPublishDLX
		}
	}
	return queue.DropHead
}

func (m merge) age(name string) queue.Optional[time.Duration] {
	s := m.text(name, true)
	if age, ok := parseAge(s.Value); s.Set && ok {
		return queue.Some(age)
	}
	return queue.Optional[time.Duration]{}
}

// deduplicate has the policy go before the argument, as the plugin that it comes from.
func (m merge) deduplicate() bool {
	if on, ok := m.policy["x-message-deduplication"].(bool); ok {
		return on
	}
	v, _ := m.args.Get("x-message-deduplication")
	on, _ := v.Bool()
	return on
}

// delayedRetry needs a type and the shortest wait; without a longest one all waits are the
// shortest.
func (m merge) delayedRetry(s *queue.Settings) {
	shortest := millis(m.number("delayed-retry-min", lower))
	longest := millis(m.number("delayed-retry-max", lower))
	if shortest.Value <= 0 {
		return
	}
	switch m.text("delayed-retry-type", true).Value {
	case "all":
		s.DelayedRetry = queue.RetryAll
	case "failed":
		s.DelayedRetry = queue.RetryFailed
	case "returned":
		s.DelayedRetry = queue.RetryReturned
	default:
		return
	}
	s.DelayedRetryMin = shortest
	s.DelayedRetryMax = queue.Some(max(longest.Value, shortest.Value))
}

// millis makes a time of milliseconds; what is beyond ten years is ten years.
func millis(n queue.Optional[int64]) queue.Optional[time.Duration] {
	if !n.Set {
		return queue.Optional[time.Duration]{}
	}
	return queue.Some(time.Duration(min(n.Value, MaxMillis)) * time.Millisecond)
}

// ageUnits are the units of x-max-age; months and years are those of RabbitMQ.
var ageUnits = map[string]time.Duration{
	"s": time.Second, "m": time.Minute, "h": time.Hour,
	"D": 24 * time.Hour, "M": 30 * 24 * time.Hour, "Y": 365 * 24 * time.Hour,
}

// parseAge reads a number and a unit, such as 7D: more than nothing. What does not fit is
// the longest time there is.
func parseAge(s string) (time.Duration, bool) {
	digits := len(s) - len(strings.TrimLeft(s, "0123456789"))
	unit, ok := ageUnits[s[digits:]]
	if !ok || digits == 0 {
		return 0, false
	}
	const longest = time.Duration(1<<63 - 1)
	n, err := strconv.ParseInt(s[:digits], 10, 64)
	switch {
	case err != nil || n > int64(longest/unit):
		return longest, true
	case n == 0:
		return 0, false
	}
	return time.Duration(n) * unit, true
}
