package metrics

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/rs/zerolog"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/broker"
	"github.com/settmq/settmq/storage"
)

func newHandler(t testing.TB) (*broker.Broker, *Handler) {
	t.Helper()
	b, err := broker.Open(broker.Options{
		Storage: storage.Options{Dir: t.TempDir(), JournalSegment: 1 << 20, JournalMax: 8 << 20, Small: true, MinFree: 1, Log: zerolog.Nop()},
		Log:     zerolog.Nop(), Node: "settmq@test", First: broker.FirstRun{VHost: "/"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b, New(b, Options{Log: zerolog.Nop(), Version: "3.13.7", SoftwareVersion: "test"})
}

func declare(t testing.TB, b *broker.Broker, vhost, name string, args amqp.Table) {
	t.Helper()
	v, err := b.CreateVHost(vhost)
	if err != nil {
		t.Fatal(err)
	}
	typed := len(args) > 0 // other types are durable
	if _, err := v.DeclareQueue(broker.System{}, broker.QueueDeclare{Name: name, Durable: typed, Arguments: args}); err != nil {
		t.Fatal(err)
	}
}

func publish(t testing.TB, b *broker.Broker, key, body string) {
	t.Helper()
	p := broker.OwnPublish{RoutingKey: key, Body: []byte(body)}
	if _, err := b.VHost("/").PublishOwn(t.Context(), broker.System{}, &p); err != nil {
		t.Fatal(err)
	}
}

func get(t testing.TB, h *Handler, path string) string {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%s: %d %s", path, w.Code, w.Body)
	}
	return w.Body.String()
}

func wants(t *testing.T, answer string, lines ...string) {
	t.Helper()
	for _, want := range lines {
		if !slices.Contains(strings.Split(answer, "\n"), want) {
			name, _, _ := strings.Cut(want, "{")
			t.Errorf("no line %s; there is\n%s", want, strings.Join(regexp.MustCompile("(?m)^"+regexp.QuoteMeta(strings.Fields(name)[0])+".*$").FindAllString(answer, 5), "\n"))
		}
	}
}

// TestNumbersOfTheEndpoints: the same messages as sums, by object, and by family and vhost.
func TestNumbersOfTheEndpoints(t *testing.T) {
	b, h := newHandler(t)
	declare(t, b, "/", "a", nil)
	declare(t, b, "/", "quorum", amqp.Table{{Name: "x-queue-type", Value: amqp.String("quorum")}})
	declare(t, b, "other", "c", nil)
	for range 3 {
		publish(t, b, "a", "hello")
	}
	publish(t, b, "quorum", strings.Repeat("x", 200))
	publish(t, b, "nowhere", "lost")
	if _, err := b.SetGlobalParameter("internal_cluster_id", []byte(`"rabbitmq-cluster-id-x"`)); err != nil {
		t.Fatal(err)
	}
	wants(
		t, get(t, h, "/metrics"),
		"rabbitmq_queues 3",
		"rabbitmq_connections 0",
		"rabbitmq_queues_created_total 3",
		"rabbitmq_queue_messages 4",
		"rabbitmq_queue_messages_ready 4",
		"rabbitmq_queue_messages_bytes 215",
		"rabbitmq_queue_messages_published_total 4",
		"rabbitmq_exchange_messages_published_total 5",
		"rabbitmq_exchange_messages_unroutable_dropped_total 1",
		`rabbitmq_global_messages_received_total{protocol="amqp091"} 5`,
		`rabbitmq_global_messages_routed_total{protocol="amqp091"} 4`,
		`rabbitmq_global_messages_unroutable_dropped_total{protocol="amqp091"} 1`,
		`rabbitmq_message_size_bytes_bucket{protocol="amqp091",le="100"} 4`,
		`rabbitmq_message_size_bytes_bucket{protocol="amqp091",le="1000"} 5`,
		`rabbitmq_message_size_bytes_bucket{protocol="amqp091",le="+Inf"} 5`,
		`rabbitmq_message_size_bytes_sum{protocol="amqp091"} 219`,
		`rabbitmq_global_messages_delivered_total{protocol="amqp091",queue_type="rabbit_quorum_queue"} 0`,
		`rabbitmq_global_messages_dead_lettered_rejected_total{dead_letter_strategy="disabled",queue_type="rabbit_classic_queue"} 0`,
		`rabbitmq_identity_info{rabbitmq_cluster="settmq@test",rabbitmq_cluster_permanent_id="rabbitmq-cluster-id-x",rabbitmq_endpoint="aggregated",rabbitmq_node="settmq@test"} 1`,
		"rabbitmq_alarms_memory_used_watermark 0",
		"settmq_publishers_held 0",
	)
	wants(
		t, get(t, h, "/metrics/per-object"),
		`rabbitmq_queue_messages_ready{queue="a",vhost="/"} 3`,
		`rabbitmq_queue_messages_ready{queue="c",vhost="other"} 0`,
		`rabbitmq_exchange_messages_published_total{exchange="",vhost="/"} 5`,
		`rabbitmq_queue_info{membership="leader",queue="quorum",queue_type="rabbit_quorum_queue",vhost="/"} 1`,
	)
	detailed := get(t, h, "/metrics/detailed?family=queue_coarse_metrics&family=exchange_names&vhost=other")
	wants(
		t, detailed,
		`rabbitmq_detailed_queue_messages{queue="c",vhost="other"} 0`,
		`rabbitmq_cluster_exchange_name{exchange="amq.topic",type="topic",vhost="other"} 1`,
	)
	if strings.Contains(detailed, `queue="a"`) || strings.Contains(detailed, "queue_consumers") {
		t.Errorf("more than was asked for:\n%s", detailed)
	}
	if v := b.VHost("/"); v != nil {
		if _, err := v.DeleteQueue(broker.System{}, "a", false, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.DeleteVHost("other"); err != nil {
		t.Fatal(err)
	}
	wants(t, get(t, h, "/metrics"), "rabbitmq_queues 1", "rabbitmq_queues_deleted_total 2", `rabbitmq_global_messages_received_total{protocol="amqp091"} 5`)
}

// TestOldestMessage: what waits since a sample is as old as that, at least.
func TestOldestMessage(t *testing.T) {
	b, h := newHandler(t)
	declare(t, b, "/", "a", nil)
	wants(t, get(t, h, "/metrics"), "settmq_oldest_message_age_seconds 0")
	publish(t, b, "a", "x")
	b.TakeSample()
	started := time.Now()
	for !regexp.MustCompile(`(?m)^settmq_oldest_message_age_seconds [0-9.e-]*[1-9]`).MatchString(get(t, h, "/metrics")) {
		if time.Since(started) > 30*time.Second {
			t.Fatal("the message gets no older")
		}
	}
	if _, err := b.VHost("/").Queue("a").Purge(); err != nil {
		t.Fatal(err)
	}
	wants(t, get(t, h, "/metrics"), "settmq_oldest_message_age_seconds 0")
}

// TestScrapesAreWellFormed: in both formats, with names that Prometheus's linter has nothing against but what RabbitMQ named.
func TestScrapesAreWellFormed(t *testing.T) {
	b, h := newHandler(t)
	declare(t, b, "/", "a\n\"b", nil)
	for _, path := range []string{"/metrics", "/metrics/", "/metrics/per-object", "/metrics/detailed?family=queue_metrics", "/metrics/detailed", "/metrics/memory-breakdown"} {
		problems, err := promlint.New(strings.NewReader(get(t, h, path))).Lint()
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
		for _, p := range problems {
			if strings.HasPrefix(p.Metric, "settmq_") && !strings.Contains(p.Text, "no help") {
				t.Errorf("%s: %s: %s", path, p.Metric, p.Text)
			}
		}
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if !strings.HasSuffix(w.Body.String(), "# EOF\n") {
			t.Errorf("%s in OpenMetrics: %d, %.200s", path, w.Code, w.Body)
		}
		if path == "/metrics" && !strings.Contains(w.Body.String(), `le="100.0"`) {
			t.Error("OpenMetrics without the bounds that dashboards ask for")
		}
	}
	for _, c := range []struct {
		method, path string
		code         int
	}{{"POST", "/metrics", 405}, {"OPTIONS", "/metrics", 200}, {"GET", "/", 404}, {"GET", "/metrics/nope", 404}} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(c.method, c.path, nil))
		if w.Code != c.code {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, w.Code, c.code)
		}
	}
}

// names are the families of a scrape.
func names(answer string) map[string]bool {
	m := make(map[string]bool)
	for _, l := range regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)`).FindAllStringSubmatch(answer, -1) {
		m[l[1]] = true
		if l[2] == "histogram" {
			m[l[1]+"_bucket"], m[l[1]+"_sum"], m[l[1]+"_count"] = true, true, true
		}
	}
	return m
}

// TestNamesAreThoseOfRabbitMQ: the families of a RabbitMQ 4.3.6 (testdata) are there, but for those about
// Erlang, Raft and the files of its own stores, and those that have no sum.
func TestNamesAreThoseOfRabbitMQ(t *testing.T) {
	b, h := newHandler(t)
	declare(t, b, "/", "a", nil)
	declare(t, b, "/", "s", amqp.Table{{Name: "x-queue-type", Value: amqp.String("stream")}})
	b.Users().CountLogin("amqp091", true)
	have := names(get(t, h, "/metrics"))
	text, err := os.ReadFile("testdata/rabbitmq-4.3.6.names")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields(string(text)) {
		if !have[name] {
			t.Errorf("there is no %s", name)
		}
	}
}

// BenchmarkScrape reports what a scrape of 10 000 queues costs.
func BenchmarkScrape(b *testing.B) {
	br, h := newHandler(b)
	v := br.VHost("/")
	for i := range 10000 {
		if _, err := v.DeclareQueue(broker.System{}, broker.QueueDeclare{Name: fmt.Sprint("queue-", i)}); err != nil {
			b.Fatal(err)
		}
	}
	br.TakeSample()
	for _, path := range []string{"/metrics", "/metrics/detailed?family=queue_coarse_metrics", "/metrics/per-object"} {
		b.Run(path, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				w := httptest.NewRecorder()
				w.Body = nil
				h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
				if w.Code != http.StatusOK {
					b.Fatal(w.Code)
				}
			}
		})
	}
}
