package compare

import (
	"fmt"
	"sort"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func describe(p *amqp.Publishing) string {
	return fmt.Sprintf("%s mode=%d prio=%d exp=%q user=%q type=%q %s", p.Body, p.DeliveryMode, p.Priority, p.Expiration, p.UserId, p.Type, render(p.Headers))
}

func render(v any) string {
	switch v := v.(type) {
	case amqp.Table:
		var names []string
		for n := range v {
			names = append(names, n)
		}
		sort.Strings(names)
		var parts []string
		for _, n := range names {
			if list, ok := v[n].([]any); ok && n == "routing-keys" { // in no order
				sort.Slice(list, func(i, j int) bool { return render(list[i]) < render(list[j]) })
			}
			parts = append(parts, n+"="+render(v[n]))
		}
		return "{" + strings.Join(parts, " ") + "}"
	case []any:
		var parts []string
		for _, e := range v {
			parts = append(parts, render(e))
		}
		return "[" + strings.Join(parts, " ") + "]"
	case time.Time:
		return "time"
	}
	return fmt.Sprintf("%T(%v)", v, v)
}

func (k *talk) delivered(d *amqp.Delivery) string {
	if d.Headers["x-acquired-count"] != nil && *quorum { // RabbitMQ has an order of its own for returned messages
		k.say(knownDifference)
		k.over = true
	}
	at := ""
	if !d.Timestamp.IsZero() {
		at = fmt.Sprint(d.Timestamp.Unix())
	}
	redelivered := fmt.Sprint(d.Redelivered)
	if d.Headers["x-first-death-queue"] != nil {
		redelivered = "?" // a known difference
	}
	return fmt.Sprintf("%s redelivered=%s %q %q mode=%d prio=%d exp=%q user=%q %s%s%s%s%s%s%s%s %s", d.Body, redelivered, d.Exchange, d.RoutingKey, d.DeliveryMode, d.Priority,
		d.Expiration, d.UserId, d.MessageId, d.CorrelationId, d.ReplyTo, d.Type, d.AppId, d.ContentType, d.ContentEncoding, at, render(d.Headers))
}
