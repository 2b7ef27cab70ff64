package broker

import (
	"testing"
	"time"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/queue"
)

// What RabbitMQ 4.3's queue types do with an argument and a policy of the same name.
func TestSettingsOfArgumentsAndPolicies(t *testing.T) {
	number := func(n int64) queue.Optional[int64] { return queue.Some(n) }
	type row struct {
		name   string
		kind   QueueType
		args   amqp.Table
		policy map[string]any
		want   queue.Settings
	}
	limit := func(s queue.Settings) queue.Settings { // what every quorum queue has
		s.DeliveryLimit = number(DefaultDeliveryLimit)
		return s
	}
	rows := []row{
		{name: "nothing", kind: ClassicQueue},
		{name: "nothing, quorum", kind: QuorumQueue, want: limit(queue.Settings{})},
		{name: "nothing, stream", kind: StreamQueue},
		{
			name: "the lower limit", kind: ClassicQueue,
			args:   amqp.Table{field("x-message-ttl", amqp.Int32(10)), field("x-expires", amqp.Int64(5)), field("x-max-length", amqp.Uint8(0)), field("x-max-length-bytes", amqp.Int16(7))},
			policy: map[string]any{"message-ttl": int64(5), "expires": int64(10), "max-length": int64(100), "max-length-bytes": int64(6)},
			want: queue.Settings{
				MessageTTL: queue.Some(5 * time.Millisecond), Expires: queue.Some(5 * time.Millisecond),
				MaxLength: number(0), MaxLengthBytes: number(6),
			},
		},
		{
			name: "only the policy", kind: ClassicQueue,
			policy: map[string]any{"message-ttl": int64(0), "dead-letter-exchange": "", "overflow": "reject-publish"},
			want:   queue.Settings{MessageTTL: queue.Some(time.Duration(0)), DeadLetterExchange: queue.Some(""), Overflow: queue.RejectPublish},
		},
		{
			name: "dead letters: the argument", kind: ClassicQueue,
			args:   amqp.Table{field("x-dead-letter-exchange", amqp.String("a")), field("x-overflow", amqp.String("reject-publish-dlx"))},
			policy: map[string]any{"dead-letter-exchange": "p", "dead-letter-routing-key": "k", "overflow": "reject-publish"},
			want:   queue.Settings{DeadLetterExchange: queue.Some("a"), DeadLetterRoutingKey: queue.Some("k"), Overflow: queue.RejectPublishDLX},
		},
		{
			name: "overflow of a quorum queue: the policy", kind: QuorumQueue,
			args:   amqp.Table{field("x-dead-letter-exchange", amqp.String("a")), field("x-overflow", amqp.String("drop-head"))},
			policy: map[string]any{"dead-letter-exchange": "p", "overflow": "reject-publish"},
			want:   limit(queue.Settings{DeadLetterExchange: queue.Some("a"), Overflow: queue.RejectPublish}),
		},
		{
			name: "quorum queues have no reject-publish-dlx", kind: QuorumQueue,
			args: amqp.Table{field("x-overflow", amqp.String("reject-publish-dlx"))},
			want: limit(queue.Settings{}),
		},
		{
			name: "at least once", kind: QuorumQueue,
			args: amqp.Table{
				field("x-dead-letter-exchange", amqp.String("a")), field("x-dead-letter-strategy", amqp.String("at-least-once")),
				field("x-overflow", amqp.String("reject-publish")), field("x-max-length", amqp.Int32(3)),
			},
			want: limit(queue.Settings{DeadLetterExchange: queue.Some("a"), Overflow: queue.RejectPublish, MaxLength: number(3), DeadLetterAtLeastOnce: true}),
		},
		{
			name: "at least once without a limit", kind: ClassicQueue,
			args:   amqp.Table{field("x-dead-letter-strategy", amqp.String("at-least-once"))},
			policy: map[string]any{"dead-letter-exchange": "p", "dead-letter-strategy": "at-most-once"},
			want:   queue.Settings{DeadLetterExchange: queue.Some("p"), DeadLetterAtLeastOnce: true},
		},
		{
			name: "not at least once if the head is dropped", kind: QuorumQueue,
			args:   amqp.Table{field("x-dead-letter-exchange", amqp.String("a")), field("x-dead-letter-strategy", amqp.String("at-least-once"))},
			policy: map[string]any{"max-length-bytes": int64(3)},
			want:   limit(queue.Settings{DeadLetterExchange: queue.Some("a"), MaxLengthBytes: number(3)}),
		},
		{
			name: "not at least once without an exchange", kind: QuorumQueue,
			args: amqp.Table{field("x-dead-letter-strategy", amqp.String("at-least-once"))},
			want: limit(queue.Settings{}),
		},
		{
			name: "the lower delivery limit", kind: QuorumQueue,
			args: amqp.Table{field("x-delivery-limit", amqp.Int32(5))}, policy: map[string]any{"delivery-limit": int64(3)},
			want: queue.Settings{DeliveryLimit: number(3)},
		},
		{
			name: "a delivery limit against none", kind: QuorumQueue,
			args: amqp.Table{field("x-delivery-limit", amqp.Int32(-1))}, policy: map[string]any{"delivery-limit": int64(30)},
			want: queue.Settings{DeliveryLimit: number(30)},
		},
		{
			name: "no delivery limit at all", kind: QuorumQueue,
			args: amqp.Table{field("x-delivery-limit", amqp.Int32(-1))}, policy: map[string]any{"delivery-limit": int64(-2)},
		},
		{
			name: "delivery limit of a classic queue", kind: ClassicQueue,
			args: amqp.Table{field("x-delivery-limit", amqp.Int32(0))},
			want: queue.Settings{DeliveryLimit: number(0)},
		},
		{
			name: "consumer timeout", kind: ClassicQueue,
			args: amqp.Table{field("x-consumer-timeout", amqp.Int32(9))}, policy: map[string]any{"consumer-timeout": int64(8)},
			want: queue.Settings{ConsumerTimeout: queue.Some(8 * time.Millisecond)},
		},
		{
			name: "delayed retry", kind: QuorumQueue,
			args:   amqp.Table{field("x-delayed-retry-type", amqp.String("all")), field("x-delayed-retry-min", amqp.Int32(10))},
			policy: map[string]any{"delayed-retry-type": "failed", "delayed-retry-max": int64(40)},
			want:   limit(queue.Settings{DelayedRetry: queue.RetryFailed, DelayedRetryMin: queue.Some(10 * time.Millisecond), DelayedRetryMax: queue.Some(40 * time.Millisecond)}),
		},
		{
			name: "delayed retry without a longest wait", kind: QuorumQueue,
			policy: map[string]any{"delayed-retry-type": "returned", "delayed-retry-min": int64(7)},
			want:   limit(queue.Settings{DelayedRetry: queue.RetryReturned, DelayedRetryMin: queue.Some(7 * time.Millisecond), DelayedRetryMax: queue.Some(7 * time.Millisecond)}),
		},
		{
			name: "delayed retry without a wait", kind: QuorumQueue,
			policy: map[string]any{"delayed-retry-type": "all", "delayed-retry-max": int64(7)},
			want:   limit(queue.Settings{}),
		},
		{
			name: "streams obey the policy", kind: StreamQueue,
			args:   amqp.Table{field("x-max-age", amqp.String("1h")), field("x-max-length-bytes", amqp.Int32(5)), field("x-stream-filter-size-bytes", amqp.Int32(16))},
			policy: map[string]any{"max-age": "2D", "max-length-bytes": int64(50), "stream-max-segment-size-bytes": int64(9), "message-ttl": int64(1)},
			want: queue.Settings{
				MaxAge: queue.Some(48 * time.Hour), MaxLengthBytes: number(50), MaxSegmentBytes: number(9), FilterBytes: number(16),
			},
		},
		{
			name: "ten years at most", kind: ClassicQueue,
			policy: map[string]any{"message-ttl": int64(1 << 62)},
			want:   queue.Settings{MessageTTL: queue.Some(MaxMillis * time.Millisecond)},
		},
	}
	for _, r := range rows {
		if got := mergeSettings(r.kind, r.args, r.policy, settingsDefaults{}); got != r.want {
			t.Errorf("%s: %+v\nwant %+v", r.name, got, r.want)
		}
	}
	o := settingsDefaults{ConsumerTimeout: time.Minute}
	if got := mergeSettings(QuorumQueue, nil, nil, o).ConsumerTimeout; got != queue.Some(time.Minute) {
		t.Errorf("default consumer timeout of a quorum queue: %v", got)
	}
	if got := mergeSettings(ClassicQueue, nil, nil, o).ConsumerTimeout; got.Set {
		t.Errorf("default consumer timeout of a classic queue: %v", got)
	}
}

func TestAges(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"1s": time.Second, "90m": 90 * time.Minute, "2h": 2 * time.Hour, "7D": 7 * 24 * time.Hour,
		"1M": 30 * 24 * time.Hour, "01Y": 365 * 24 * time.Hour, "99999999999999999999Y": 1<<63 - 1, "999999Y": 1<<63 - 1,
	} {
		if got, ok := parseAge(text); !ok || got != want {
			t.Errorf("%s is %v, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "s", "0s", "5", "-5s", "5d", "5 s", "1.5h", "5sm"} {
		if got, ok := parseAge(text); ok {
			t.Errorf("%q is taken for %v", text, got)
		}
	}
}

func TestDefaultQueueType(t *testing.T) {
	durable := QueueDeclare{Durable: true}
	with := func(d QueueDeclare, args ...amqp.Field) QueueDeclare {
		d.Arguments = args
		return d
	}
	for _, c := range []struct {
		name      string
		d         QueueDeclare
		byDefault QueueType
		want      string // of x-queue-type
	}{
		{"classic", durable, ClassicQueue, "classic"},
		{"quorum", durable, QuorumQueue, "quorum"},
		{"transient", QueueDeclare{}, QuorumQueue, "classic"},
		{"auto-delete", QueueDeclare{Durable: true, AutoDelete: true}, StreamQueue, "classic"},
		{"exclusive", QueueDeclare{Durable: true, Exclusive: true}, StreamQueue, "classic"},
		{"named", with(durable, field("x-queue-type", amqp.String("classic"))), QuorumQueue, "classic"},
		{"named badly", with(durable, field("x-queue-type", amqp.String("x"))), QuorumQueue, "x"},
		{"empty", with(durable, field("x-queue-type", amqp.String(""))), QuorumQueue, "quorum"},
		{"undefined", with(durable, field("x-queue-type", amqp.String("undefined"))), ClassicQueue, "classic"},
	} {
		d := c.d.withType(c.byDefault)
		if v, _ := d.Arguments.Get("x-queue-type"); v.Text() != c.want || len(d.Arguments) != 1 {
			t.Errorf("%s: arguments are %v, want %s", c.name, d.Arguments, c.want)
		}
	}
}

// A queue from before the type was always written down.
func TestRedeclareOfAQueueWithoutAType(t *testing.T) {
	v := newBroker(t).VHost("/")
	again := QueueDeclare{Name: "q", Durable: true}.withType(ClassicQueue)
	must(t, v.checkArgumentsEquivalent("q", again.Arguments, nil))
	other := QueueDeclare{Name: "q", Durable: true}.withType(QuorumQueue)
	refused(t, v.checkArgumentsEquivalent("q", other.Arguments, nil), 406, "")
}
