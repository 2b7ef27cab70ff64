package management

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
)

// number finds a number by the names on the way to it.
func number(t *testing.T, v any, path ...string) float64 {
	t.Helper()
	for _, name := range path {
		o, ok := v.(map[string]any)
		if !ok {
			t.Fatalf("%v: no object at %s", path, name)
		}
		v = o[name]
	}
	n, ok := v.(float64)
	if !ok {
		t.Fatalf("%v is %v", path, v)
	}
	return n
}

// eventually waits for a condition that a test cannot be told of.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come to pass", what)
		}
	}
}

// TestNumbersAndRates: the same messages show in channel, connection, queue, exchange, vhost, node and overview, and what
// came between two samples is a rate.
func TestNumbersAndRates(t *testing.T) {
	a := newOwnAPI(t)
	c, name := dial(t, a.amqpURL(), "guest")
	ch, err := c.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ch.QueueDeclare("q", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	publish := func(n int) {
		for range n {
			confirmed, err := ch.PublishWithDeferredConfirm("", "q", false, false, amqp091.Publishing{
				DeliveryMode: amqp091.Persistent, Body: []byte("hello"), Timestamp: time.Unix(1700000000, 0),
			})
			if err != nil || !confirmed.Wait() {
				t.Fatalf("not confirmed: %v", err)
			}
		}
	}
	publish(3)
	if _, ok, err := ch.Get("q", false); !ok || err != nil {
		t.Fatal(ok, err)
	}
	a.broker.TakeSample()
	a.get("/api/overview?msg_rates_age=60&msg_rates_incr=5&lengths_age=60&lengths_incr=5") // histories begin
	a.get("/api/queues/%2F/q?lengths_age=60&lengths_incr=5")
	publish(7)
	m, ok, err := ch.Get("q", false)
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	if err := m.Ack(false); err != nil {
		t.Fatal(err)
	}
	channel := "/api/channels/" + url.PathEscape(name+" (1)")
	eventually(t, "the ack", func() bool { return number(t, a.get(channel), "message_stats", "ack") == 1 })
	a.broker.TakeSample()

	q := a.get("/api/queues/%2F/q")
	for _, n := range []struct {
		what string
		of   any
		path []string
		want float64
	}{
		{"queue", q, []string{"messages"}, 9},
		{"queue", q, []string{"messages_ready"}, 8},
		{"queue", q, []string{"messages_unacknowledged"}, 1},
		{"queue", q, []string{"message_bytes"}, 45},
		{"queue", q, []string{"message_bytes_ready"}, 40},
		{"queue", q, []string{"message_bytes_unacknowledged"}, 5},
		{"queue", q, []string{"message_bytes_persistent"}, 45},
		{"queue", q, []string{"messages_persistent"}, 9},
		{"queue", q, []string{"messages_ram"}, 9},
		{"queue", q, []string{"head_message_timestamp"}, 1700000000},
		{"queue", q, []string{"message_stats", "publish"}, 10},
		{"queue", q, []string{"message_stats", "get"}, 2},
		{"queue", q, []string{"message_stats", "deliver_get"}, 2},
		{"queue", q, []string{"message_stats", "ack"}, 1},
		{"channel", a.get(channel), []string{"message_stats", "publish"}, 10},
		{"channel", a.get(channel), []string{"message_stats", "confirm"}, 10},
		{"channel", a.get(channel), []string{"messages_unacknowledged"}, 1},
		{"exchange", a.get("/api/exchanges/%2F/amq.default"), []string{"message_stats", "publish_in"}, 10},
		{"exchange", a.get("/api/exchanges/%2F/amq.default"), []string{"message_stats", "publish_out"}, 10},
		{"vhost", a.get("/api/vhosts/%2F"), []string{"message_stats", "publish"}, 10},
		{"vhost", a.get("/api/vhosts/%2F"), []string{"messages"}, 9},
		{"overview", a.get("/api/overview"), []string{"message_stats", "confirm"}, 10},
		{"overview", a.get("/api/overview"), []string{"message_stats", "disk_writes"}, 10},
		{"overview", a.get("/api/overview"), []string{"queue_totals", "messages"}, 9},
		{"overview", a.get("/api/overview"), []string{"churn_rates", "channel_created"}, 1},
		{"overview", a.get("/api/overview"), []string{"churn_rates", "queue_created"}, 1},
		{"node", a.get("/api/nodes/" + a.node()), []string{"connection_created"}, 1},
	} {
		if got := number(t, n.of, n.path...); got != n.want {
			t.Errorf("%s %v is %v, want %v", n.what, n.path, got, n.want)
		}
	}
	a.checkSamples(t)
	for what, rate := range map[string]func() float64{
		"queue": func() float64 {
			return number(t, a.get("/api/queues/%2F/q"), "message_stats", "publish_details", "rate")
		},
		"length":  func() float64 { return number(t, a.get("/api/queues/%2F/q"), "messages_details", "rate") },
		"channel": func() float64 { return number(t, a.get(channel), "message_stats", "publish_details", "rate") },
		"exchange": func() float64 {
			return number(t, a.get("/api/exchanges/%2F/amq.default"), "message_stats", "publish_in_details", "rate")
		},
		"vhost":    func() float64 { return number(t, a.get("/api/vhosts/%2F"), "message_stats", "publish_details", "rate") },
		"overview": func() float64 { return number(t, a.get("/api/overview"), "message_stats", "publish_details", "rate") },
		"connection": func() float64 {
			return number(t, a.get("/api/connections/"+url.PathEscape(name)), "recv_oct_details", "rate")
		},
	} {
		// The sampler may take its own sample in between.
		eventually(t, "a rate of the "+what, func() bool {
			publish(1)
			a.broker.TakeSample()
			return rate() > 0
		})
	}
}

// checkSamples looks at what a query for samples gets.
func (a *api) checkSamples(t *testing.T) {
	t.Helper()
	o := a.get("/api/overview?msg_rates_age=60&msg_rates_incr=5&lengths_age=60&lengths_incr=5")
	d := o.(map[string]any)["message_stats"].(map[string]any)["publish_details"].(map[string]any)
	samples, _ := d["samples"].([]any)
	if len(samples) == 0 {
		t.Fatalf("no samples: %v", d)
	}
	if n := number(t, samples[0], "sample"); n != 10 {
		t.Errorf("the newest sample is %v, want 10", n)
	}
	if ms := number(t, samples[0], "timestamp"); int64(ms)%5000 != 0 {
		t.Errorf("the time of a sample is %v, no multiple of 5 s", ms)
	}
	for _, bad := range []string{"msg_rates_age=x&msg_rates_incr=5", "msg_rates_age=60&msg_rates_incr=0", "lengths_age=100000000&lengths_incr=1"} {
		a.do("GET", "/api/overview?"+bad, "", http.StatusBadRequest)
	}
}
