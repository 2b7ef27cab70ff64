package broker

import (
	"fmt"
	"maps"
	"slices"

	"github.com/settmq/settmq/exchange"
)

// policyKey is a setting that policies can give. Texts and rules are those of RabbitMQ 4.3.
type policyKey struct {
	// types are the queue types whose queues a policy with this key can apply to at all.
	types types
	// operator: operator policies may have it too.
	operator bool
	// check reports whether a value is acceptable; what is the word for it in the refusal.
	check func(any) bool
	what  string
	must  string // instead of what: what a value has to be
	// both resolves a policy and an operator policy; nil for the lower number.
	both func(user, operator any) any
}

const allTypes = classic | quorum | stream

// policyKeys are all settings by name. Of those that mean nothing on a single node, or
// nothing any more in RabbitMQ either, the value is checked and kept.
var policyKeys = map[string]policyKey{
	"alternate-exchange":      {types: allTypes, check: isText, what: "alternate exchange name"},
	"dead-letter-exchange":    {types: classic | quorum, check: isText, what: "dead letter exchange name"},
	"dead-letter-routing-key": {types: classic | quorum, check: isText, what: "dead letter routing key"},
	"dead-letter-strategy":    {types: quorum, check: isOneOf("at-most-once", "at-least-once"), what: "dead letter strategy"},
	"message-ttl":             {types: classic | quorum, operator: true, check: atLeast(0), what: "message TTL"},
	"expires":                 {types: classic | quorum, operator: true, check: atLeast(1), what: "queue expiry"},
	"max-length":              {types: classic | quorum, operator: true, check: atLeast(0), what: "maximum length"},
	"max-length-bytes":        {types: allTypes, operator: true, check: atLeast(0), what: "maximum length in bytes"},
	"overflow":                {types: classic | quorum, operator: true, check: isOneOf("drop-head", "reject-publish", "reject-publish-dlx"), what: "overflow value", both: operatorWins},
	"delivery-limit":          {types: quorum, operator: true, check: isInteger, what: "delivery limit", both: bothDeliveryLimits},
	"consumer-timeout":        {types: allTypes, check: atLeast(0), what: "consumer timeout"},
	"delayed-retry-type":      {types: allTypes, operator: true, check: isOneOf("all", "failed", "returned", "disabled"), what: "delayed retry type. Must be one of: all, failed, returned, disabled", both: operatorWins},
	"delayed-retry-min":       {types: allTypes, operator: true, check: atLeast(1), what: "delayed retry minimum delay. Must be a positive integer", both: higher},
	"delayed-retry-max":       {types: allTypes, operator: true, check: atLeast(1), what: "delayed retry maximum delay. Must be a positive integer"},

	"max-age":                       {types: stream, check: isAge, what: "max age"},
	"stream-max-segment-size-bytes": {types: stream, check: between(0, maxSegmentBytes), what: "segment size"},
	"stream-filter-size-bytes":      {types: allTypes, check: between(minFilterBytes, maxFilterBytes), what: "filter size. Valid range is 16-255"},

	"queue-leader-locator":          {types: allTypes, check: isOneOf("client-local", "balanced", "random", "least-leaders"), what: "queue leader locator value"},
	"initial-cluster-size":          {types: stream, check: atLeast(0), what: "cluster size"},
	"target-group-size":             {types: quorum, operator: true, check: atLeast(1), what: "qq target count value", both: higher},
	"consumer-disconnected-timeout": {types: allTypes, check: atLeast(0), what: "consumer disconnected timeout"},
	"max-in-memory-length":          {types: quorum, operator: true, check: atLeast(0), what: "maximum memory in bytes"},
	"max-in-memory-bytes":           {types: quorum, operator: true, check: atLeast(0), what: "maximum memory in bytes"},
	"queue-mode":                    {types: classic, check: isOneOf("default", "lazy"), what: "queue-mode value"},
	"queue-version":                 {types: allTypes, operator: true, check: between(1, 2), what: "queue-version value", both: operatorWins},

	// Of the community's plugin rabbitmq_message_deduplication; the last one is ours.
	"x-message-deduplication":      {types: classic | quorum, check: isBool, must: "must be a boolean"},
	"x-cache-size":                 {types: allTypes, check: atLeast(1), must: "must be an integer greater than 0"},
	"x-cache-ttl":                  {types: allTypes, check: atLeast(1), must: "must be an integer greater than 0"},
	"x-cache-persistence":          {types: allTypes, check: isOneOf("disk", "memory"), must: `must be either "disk" or "memory"`},
	exchange.DeduplicationProperty: {types: allTypes, check: isOneOf(exchange.MessageID), must: `must be "` + exchange.MessageID + `"`},

	// Of RabbitMQ's federation plugin.
	"federation-upstream":         {types: allTypes, check: isText, what: "federation upstream"},
	"federation-upstream-set":     {types: allTypes, check: isText, what: "federation upstream set"},
	"federation-upstream-pattern": {types: allTypes, check: isText, what: "federation upstream pattern"},
}

// retiredPolicyKeys are settings of older RabbitMQs, which a definitions file may bring: 4.x
// refuses them, an import leaves them out.
var retiredPolicyKeys = []string{
	"ha-mode", "ha-params", "ha-sync-mode", "ha-sync-batch-size", "ha-promote-on-shutdown", "ha-promote-on-failure",
	"queue-master-locator",
}

// withoutEffect names the keys of a policy that this version only keeps, sorted.
func withoutEffect(values map[string]any) []string {
	var list []string
	for _, k := range slices.Sorted(maps.Keys(values)) {
		switch k {
		case "x-cache-persistence", // only an argument has it when the exchange is made
			"federation-upstream", "federation-upstream-set", "federation-upstream-pattern":
			list = append(list, k)
		}
	}
	return list
}

// checkPolicyValues returns what is wrong with the definition of a policy, "" if nothing is.
func checkPolicyValues(kind PolicyKind, values map[string]any) string {
	if len(values) == 0 {
		return "no policy provided"
	}
	unknown := make(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(values)) {
		k, ok := policyKeys[name]
		switch {
		case !ok || kind == OperatorPolicy && !k.operator:
			unknown[name] = values[name]
		case !k.check(values[name]) && k.must != "":
			return fmt.Sprintf("%q %s, got %s", name, k.must, erlang(values[name]))
		case !k.check(values[name]):
			return fmt.Sprintf("%s is not a valid %s", erlang(values[name]), k.what)
		}
	}
	if len(unknown) > 0 {
		return erlangTerms(unknown) + " are not recognised policy settings"
	}
	return checkDelayedRetry(values)
}

func checkDelayedRetry(values map[string]any) string {
	kind, _ := values["delayed-retry-type"].(string)
	shortest, hasShortest := values["delayed-retry-min"].(int64)
	longest, hasLongest := values["delayed-retry-max"].(int64)
	switch {
	case kind != "" && kind != "disabled" && !hasShortest:
		return "delayed-retry-min is required when delayed-retry-type is " + kind
	case hasShortest && hasLongest && longest < shortest:
		return fmt.Sprintf("delayed-retry-max (%d) must not be smaller than delayed-retry-min (%d)", longest, shortest)
	}
	return ""
}

// mergePolicies says what holds where a policy and an operator policy match: what either
// says, and of what both say the value that the key's rule chooses.
func mergePolicies(user, operator map[string]any) map[string]any {
	if len(user) == 0 || len(operator) == 0 {
		if len(user) == 0 {
			return operator
		}
		return user
	}
	all := maps.Clone(user)
	for name, o := range operator {
		u, both := all[name]
		if !both {
			all[name] = o
			continue
		}
		if resolve := policyKeys[name].both; resolve != nil {
			all[name] = resolve(u, o)
		} else {
			all[name] = min(u.(int64), o.(int64)) // the other keys that operators have are numbers
		}
	}
	return all
}

func operatorWins(_, operator any) any { return operator }

func higher(user, operator any) any { return max(user.(int64), operator.(int64)) }

func bothDeliveryLimits(user, operator any) any {
	return deliveryLimit(user.(int64), operator.(int64))
}

func isText(v any) bool {
	_, ok := v.(string)
	return ok
}

func isInteger(v any) bool {
	_, ok := v.(int64)
	return ok
}

func isBool(v any) bool {
	_, ok := v.(bool)
	return ok
}

func isAge(v any) bool {
	s, _ := v.(string)
	_, ok := parseAge(s)
	return ok
}

func isOneOf(list ...string) func(any) bool {
	return func(v any) bool {
		s, ok := v.(string)
		return ok && slices.Contains(list, s)
	}
}

func atLeast(low int64) func(any) bool {
	return func(v any) bool {
		n, ok := v.(int64)
		return ok && n >= low
	}
}

func between(low, high int64) func(any) bool {
	return func(v any) bool {
		n, ok := v.(int64)
		return ok && n >= low && n <= high
	}
}
