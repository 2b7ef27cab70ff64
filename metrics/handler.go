package metrics

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/rs/zerolog"

	"github.com/settmq/settmq/broker"
)

// Options say what a scrape tells of the broker.
type Options struct {
	Log zerolog.Logger
	// Version is the one that the broker says it has, SoftwareVersion that of this program.
	Version, SoftwareVersion string
}

// Handler answers scrapes. All methods may be called from any goroutine.
type Handler struct {
	broker  *broker.Broker
	o       Options
	started time.Time
	runtime *prometheus.Registry // of Go and of the process
}

// New returns the metrics of b, which must outlive them.
func New(b *broker.Broker, o Options) *Handler {
	h := &Handler{broker: b, o: o, started: time.Now(), runtime: prometheus.NewRegistry()}
	h.runtime.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return h
}

// ServeHTTP implements http.Handler for the paths of the package's manual.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	gather := map[string]func(*http.Request) []*dto.MetricFamily{
		"/metrics": h.aggregated, "/metrics/per-object": h.perObject, "/metrics/detailed": h.detailed, "/metrics/memory-breakdown": h.memory,
	}[strings.TrimSuffix(r.URL.Path, "/")]
	switch {
	case gather == nil:
		http.NotFound(w, r)
		return
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "HEAD, GET, OPTIONS")
		if r.Method != http.MethodOptions {
			w.WriteHeader(http.StatusMethodNotAllowed)
		}
		return
	}
	g := prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		list := gather(r)
		slices.SortFunc(list, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
		return list, nil
	})
	promhttp.HandlerFor(g, promhttp.HandlerOpts{ErrorLog: errorLog{h.o.Log}, EnableOpenMetrics: true}).ServeHTTP(w, r)
}

// errorLog takes what promhttp cannot send.
type errorLog struct{ log zerolog.Logger }

// Println implements promhttp.Logger.
func (e errorLog) Println(v ...any) { e.log.Debug().Interface("err", v).Msg("metrics were not sent") }

func all(string) bool { return true }

// aggregated sums over everything.
func (h *Handler) aggregated(*http.Request) []*dto.MetricFamily {
	s, o := &scrape{prefix: "rabbitmq_"}, look(h.broker, all, false)
	s.sums(o)
	h.whole(s, o, "aggregated")
	return s.families
}

// perObject has a series for every object.
func (h *Handler) perObject(*http.Request) []*dto.MetricFamily {
	s, o := &scrape{prefix: "rabbitmq_"}, look(h.broker, all, true)
	s.objects(o, all)
	s.queueInfo(o)
	s.ages(h, o)
	h.whole(s, o, "per-object")
	return s.families
}

// whole adds what is not about single objects.
func (h *Handler) whole(s *scrape, o *snapshot, endpoint string) {
	s.identity(h, endpoint)
	s.churn(h.broker)
	s.nodeCoarse(h.broker)
	s.node(h)
	s.disk(h)
	s.logins(h.broker)
	s.alarms(h.broker)
	s.totals(o)
	s.global(h.broker, o)
	s.gauge("unreachable_cluster_peers_count", "Always 0: there is one node", 0)
	s.own(h, o)
	h.addRuntime(s)
}

// addRuntime adds what Go and the system tell of the process.
func (h *Handler) addRuntime(s *scrape) {
	list, err := h.runtime.Gather()
	if err != nil {
		h.o.Log.Debug().Err(err).Msg("the runtime's metrics are incomplete")
	}
	s.families = append(s.families, list...)
}

// detailed has the families that the query names, of the vhosts that it names.
func (h *Handler) detailed(r *http.Request) []*dto.MetricFamily {
	families, vhosts := r.URL.Query()["family"], r.URL.Query()["vhost"]
	want := func(groups string) bool {
		return slices.ContainsFunc(strings.Fields(groups), func(g string) bool { return slices.Contains(families, g) })
	}
	o := look(h.broker, func(name string) bool { return len(vhosts) == 0 || slices.Contains(vhosts, name) }, true)
	s := &scrape{prefix: "rabbitmq_detailed_"}
	s.identity(h, "detailed")
	s.objects(o, want)
	if want("queue_coarse_metrics") || want("queue_metrics") || want("queue_consumer_count") {
		s.queueInfo(o)
	}
	if want("queue_metrics") {
		s.ages(h, o)
	}
	s.cluster(h, o, want)
	for family, add := range map[string]func(){
		"connection_churn_metrics": func() { s.churn(h.broker) },
		"node_coarse_metrics":      func() { s.nodeCoarse(h.broker) },
		"node_metrics":             func() { s.node(h) },
		"node_persister_metrics":   func() { s.disk(h) },
		"auth_attempt_metrics":     func() { s.logins(h.broker) },
		"alarm_metrics":            func() { s.alarms(h.broker) },
	} {
		if want(family) {
			add()
		}
	}
	return s.families
}

// memory tells where the memory goes.
func (h *Handler) memory(*http.Request) []*dto.MetricFamily {
	s := &scrape{prefix: "rabbitmq_"}
	s.identity(h, "memory-breakdown")
	o := look(h.broker, all, false)
	var queues, bodies uint64
	for i := range o.queues {
		d := &o.queues[i].Details
		queues += d.Memory() - d.LoadedBytes
		bodies += d.LoadedBytes
	}
	s.prefix = "rabbitmq_memory_"
	s.gauge("binary_heap_bytes", "Bodies of messages", float64(bodies))
	s.gauge("classic_queue_erlang_process_bytes", "What queues know of their messages, about", float64(queues))
	h.addRuntime(s)
	return s.families
}

func sorted(l labels) labels {
	slices.SortFunc(l, func(a, b *dto.LabelPair) int { return strings.Compare(a.GetName(), b.GetName()) })
	return l
}
