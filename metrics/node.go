package metrics

import (
	"cmp"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/settmq/settmq/broker"
	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/storage"
)

// identity adds what the expressions of dashboards join with.
func (s *scrape) identity(h *Handler, endpoint string) {
	prefix := s.prefix
	s.prefix = "rabbitmq_"
	defer func() { s.prefix = prefix }()
	s.untyped("build_info", "Versions", 1, "rabbitmq_version", h.o.Version, "prometheus_plugin_version", h.o.Version,
		"prometheus_client_version", h.o.SoftwareVersion, "erlang_version", runtime.Version(), "settmq_version", h.o.SoftwareVersion)
	s.untyped("identity_info", "Names of node and cluster", 1, "rabbitmq_node", h.broker.Node(),
		"rabbitmq_cluster", cmp.Or(h.broker.ClusterName(), h.broker.Node()),
		"rabbitmq_cluster_permanent_id", h.broker.ClusterID(), "rabbitmq_endpoint", endpoint)
}

func (s *scrape) churn(b *broker.Broker) {
	c := b.Churn()
	s.counter("connections_opened_total", "Connections opened", float64(c.ConnectionsOpened))
	s.counter("connections_closed_total", "Connections closed", float64(c.ConnectionsClosed))
	s.counter("channels_opened_total", "Channels opened", float64(c.ChannelsOpened))
	s.counter("channels_closed_total", "Channels closed", float64(c.ChannelsClosed))
	s.counter("queues_declared_total", "Queues declared, whether or not they were there", float64(c.QueuesDeclared))
	s.counter("queues_created_total", "Queues made", float64(c.QueuesCreated))
	s.counter("queues_deleted_total", "Queues deleted", float64(c.QueuesDeleted))
}

// disk tells of the journal, under the names that RabbitMQ has for what its own files do.
func (s *scrape) disk(h *Handler) {
	m := h.broker.Store().Measures()
	s.counter("io_sync_ops_total", "Syncs of the journal", float64(m.Syncs.Count))
	s.counter("io_sync_time_seconds_total", "Time that syncs of the journal took", m.Syncs.Sum)
	s.counter("io_write_ops_total", "Records written to the journal", float64(m.Records.Count))
	s.counter("io_write_bytes_total", "Bytes written to the journal", m.Records.Sum)
}

func (s *scrape) nodeCoarse(b *broker.Broker) {
	r := b.Resources()
	open, _ := broker.OpenFiles()
	s.gauge("process_open_fds", "Open files and sockets", float64(open))
	s.gauge("process_resident_memory_bytes", "Memory of the process, as the memory alarm counts it", float64(r.MemoryUsed))
	s.gauge("disk_space_available_bytes", "Free space where the data is", float64(r.DiskFree))
	s.gauge("erlang_processes_used", "Goroutines", count(runtime.NumGoroutine()))
}

func (s *scrape) node(h *Handler) {
	r := h.broker.Resources()
	_, limit := broker.OpenFiles()
	s.gauge("process_max_fds", "How many files and sockets may be open", float64(limit))
	s.gauge("resident_memory_limit_bytes", "Memory beyond which publishers are held back", float64(r.MemoryLimit))
	s.gauge("disk_space_available_limit_bytes", "Free space below which publishers are held back", float64(r.DiskFreeLimit))
	s.gauge("erlang_processes_limit", "Always 1048576: goroutines have no limit", 1<<20)
	s.gauge("erlang_uptime_seconds", "Time since the start", time.Since(h.started).Seconds())
}

func (s *scrape) logins(b *broker.Broker) {
	all := []struct {
		name, help string
		of         func(broker.LoginCount) uint64
	}{
		{"auth_attempts_total", "Attempts to log in", func(c broker.LoginCount) uint64 { return c.Succeeded + c.Failed }},
		{"auth_attempts_succeeded_total", "Logins", func(c broker.LoginCount) uint64 { return c.Succeeded }},
		{"auth_attempts_failed_total", "Refused attempts to log in", func(c broker.LoginCount) uint64 { return c.Failed }},
	}
	counts := b.Users().Logins()
	if len(counts) == 0 {
		return
	}
	for _, a := range all {
		f := s.family(a.name, a.help, counter)
		for _, c := range counts {
			addCounter(f, with("protocol", c.Protocol), float64(a.of(c)))
		}
	}
}

func (s *scrape) alarms(b *broker.Broker) {
	r := b.Resources()
	s.untyped("alarms_free_disk_space_watermark", "1 while the disk alarm is on", flag(r.DiskAlarm))
	s.untyped("alarms_memory_used_watermark", "1 while the memory alarm is on", flag(r.MemoryAlarm))
}

// totals are numbers of things.
func (s *scrape) totals(o *snapshot) {
	consumers := 0
	for i := range o.channels {
		consumers += o.channels[i].Consumers
	}
	s.gauge("connections", "Open connections", count(len(o.connections)))
	s.gauge("channels", "Open channels", count(len(o.channels)))
	s.gauge("consumers", "Consumers", count(consumers))
	s.gauge("queues", "Queues", count(len(o.queues)))
}

const protocol = "amqp091"

// global adds the numbers that RabbitMQ counts for the whole node by protocol and type of queue.
func (s *scrape) global(b *broker.Broker, o *snapshot) {
	t := b.Totals()
	publishers, consumers := 0, 0
	for i := range o.channels {
		consumers += o.channels[i].Consumers
		if o.channels[i].Publish > 0 {
			publishers++
		}
	}
	s.gauge("global_publishers", "Channels that have published", count(publishers), "protocol", protocol)
	s.gauge("global_consumers", "Consumers", count(consumers), "protocol", protocol)
	for _, c := range []struct {
		name, help string
		n          uint64
	}{
		{"received_total", "Messages received from publishers", t.Publish},
		{"received_confirm_total", "Messages received that have to be confirmed", t.Awaited},
		{"confirmed_total", "Messages confirmed to publishers", t.Confirm},
		{"routed_total", "Copies of messages put in queues", t.Routed},
		{"unroutable_returned_total", "Mandatory messages that no queue was there for", t.ReturnUnroutable},
		{"unroutable_dropped_total", "Messages that no queue was there for", t.DropUnroutable},
	} {
		s.counter("global_messages_"+c.name, c.help, float64(c.n), "protocol", protocol)
	}
	types := b.QueueTotals()
	for _, c := range []struct {
		name, help string
		of         func(*queue.MessageStats) uint64
	}{
		{"acknowledged_total", "Messages acknowledged by consumers", func(m *queue.MessageStats) uint64 { return m.Ack }},
		{"delivered_total", "Messages delivered, in any way", (*queue.MessageStats).DeliverGet},
		{"delivered_consume_manual_ack_total", "Messages delivered to consumers that acknowledge", func(m *queue.MessageStats) uint64 { return m.Deliver }},
		{"delivered_consume_auto_ack_total", "Messages delivered to consumers that do not", func(m *queue.MessageStats) uint64 { return m.DeliverNoAck }},
		{"delivered_get_manual_ack_total", "Messages fetched, to be acknowledged", func(m *queue.MessageStats) uint64 { return m.Get }},
		{"delivered_get_auto_ack_total", "Messages fetched without acknowledgement", func(m *queue.MessageStats) uint64 { return m.GetNoAck }},
		{"get_empty_total", "basic.gets that found nothing", func(m *queue.MessageStats) uint64 { return m.GetEmpty }},
		{"redelivered_total", "Messages delivered not for the first time", func(m *queue.MessageStats) uint64 { return m.Redeliver }},
	} {
		f := s.family("global_messages_"+c.name, c.help, counter)
		for i := range types {
			addCounter(f, with("protocol", protocol, "queue_type", types[i].Type.Module()), float64(c.of(&types[i].MessageStats)))
		}
	}
	s.deadLetters(types)
	sizes := storage.Histogram{Sum: float64(t.Sizes.Bytes)}
	for i, n := range t.Sizes.Counts {
		sizes.Count += n
		if i < len(broker.SizeBounds) {
			sizes.Bounds = append(sizes.Bounds, float64(broker.SizeBounds[i]))
			sizes.Counts = append(sizes.Counts, n)
		}
	}
	s.histogram("message_size_bytes", "Sizes of the bodies received from publishers", sizes, "protocol", protocol)
}

// deadLetters counts the messages that died, by why and by what became of them.
func (s *scrape) deadLetters(types []broker.QueueTotals) {
	for i, reason := range queue.Reasons {
		f := s.family("global_messages_dead_lettered_"+string(reason)+"_total", "Messages that died: "+string(reason), counter)
		for j := range types {
			t := &types[j]
			if t.Type == broker.StreamQueue || t.Type == broker.ClassicQueue && reason == queue.DeliveryLimit {
				continue
			}
			for how := range t.Dead.Died[i] {
				strategy := queue.Strategy(how)
				if t.Type == broker.ClassicQueue && strategy == queue.DeadAtLeastOnce || reason == queue.MaxLen && strategy == queue.DeadAtLeastOnce {
					continue
				}
				addCounter(f, with("queue_type", t.Type.Module(), "dead_letter_strategy", strategy.String()), float64(t.Dead.Died[i][how]))
			}
		}
	}
	s.counter("global_messages_dead_lettered_confirmed_total", "Dead letters that are safe in their new queues", float64(types[broker.QuorumQueue].Dead.Confirmed),
		"queue_type", broker.QuorumQueue.Module(), "dead_letter_strategy", queue.DeadAtLeastOnce.String())
}

// own adds what only this broker has.
func (s *scrape) own(h *Handler, o *snapshot) {
	prefix := s.prefix
	s.prefix = "settmq_"
	defer func() { s.prefix = prefix }()
	st, m := h.broker.Store().Stats(), h.broker.Store().Measures()
	s.untyped("build_info", "Version", 1, "version", h.o.SoftwareVersion, "go_version", runtime.Version(), "revision", revision())
	s.histogram("journal_sync_duration_seconds", "How long syncs of the journal take: what a confirm waits for, at least", m.Syncs)
	s.histogram("journal_commit_bytes", "Bytes written between two syncs", m.Records)
	s.counter("journal_commits_total", "Records written to the journal", float64(st.Batches))
	s.gauge("journal_bytes", "Size of the journal's files", float64(st.JournalBytes))
	s.gauge("journal_unwritten_bytes", "Bytes received and not yet on disk", float64(max(st.Unwritten, 0)))
	s.gauge("state_bytes", "Size of the state database", float64(st.StateBytes))
	s.counter("checkpoints_total", "Checkpoints of the journal into the state database", float64(st.Checkpoints))
	s.counter("publisher_stalls_total", "Times that a publisher had to wait for the disk", float64(m.Stalls))
	s.counter("publisher_stall_seconds_total", "Time that publishers waited for the disk, all together", m.Stalled.Seconds())
	s.gauge("publishers_held", "1 while publishers are held for another reason than the commit budget", flag(st.Held))
	s.gauge("disk_low", "1 while the journal has too little space", flag(st.LowSpace))
	s.counter("direct_replies_dropped_total", "Direct replies that found no room at their requester", float64(h.broker.RepliesDropped()))
	s.counter("events_dropped_total", "Events that came too fast to be published", float64(h.broker.EventsDropped()))
	oldest, waiting := time.Duration(0), time.Duration(0)
	for i := range o.queues {
		ready, unacked := h.broker.Ages(o.queues[i].queue, &o.queues[i].Details)
		oldest, waiting = max(oldest, ready), max(waiting, unacked)
	}
	s.gauge("oldest_message_age_seconds", "How long the first message of a queue waits, the longest of all queues", oldest.Seconds())
	s.gauge("oldest_unacked_age_seconds", "How long a delivery is not acknowledged, the longest of all queues", waiting.Seconds())
}

// ages adds those of every queue.
func (s *scrape) ages(h *Handler, o *snapshot) {
	prefix := s.prefix
	s.prefix = "settmq_" + strings.TrimPrefix(prefix, "rabbitmq_")
	defer func() { s.prefix = prefix }()
	ready := s.family("queue_oldest_message_age_seconds", "How long the first message of the queue waits", gauge)
	unacked := s.family("queue_oldest_unacked_age_seconds", "How long the oldest delivery is not acknowledged", gauge)
	for i := range o.queues {
		q := &o.queues[i]
		r, u := h.broker.Ages(q.queue, &q.Details)
		addGauge(ready, q.labels, r.Seconds())
		addGauge(unacked, q.labels, u.Seconds())
	}
}

func revision() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return ""
}

// cluster adds the families of the whole cluster that are asked for.
func (s *scrape) cluster(h *Handler, o *snapshot, want func(string) bool) {
	prefix := s.prefix
	s.prefix = "rabbitmq_cluster_"
	defer func() { s.prefix = prefix }()
	if want("vhost_status") {
		f := s.family("vhost_status", "1 for a vhost that runs", gauge)
		for _, name := range o.vhosts {
			addGauge(f, with("vhost", name), 1)
		}
	}
	var bindings, names *dto.MetricFamily
	if want("exchange_bindings") {
		bindings = s.family("exchange_bindings", "Bindings from exchanges", gauge)
	}
	if want("exchange_names") {
		names = s.family("exchange_name", "1 for every exchange", gauge)
	}
	if bindings == nil && names == nil {
		return
	}
	for i := range o.exchanges {
		x := &o.exchanges[i]
		l := with("vhost", x.vhost.Name(), "exchange", x.name, "type", x.kind)
		if bindings != nil {
			addGauge(bindings, l, count(len(x.vhost.ListBindings(&x.name, nil))))
		}
		if names != nil {
			addGauge(names, l, 1)
		}
	}
}

func (s *scrape) queueInfo(o *snapshot) {
	f := s.family("queue_info", "1 for every queue, with its type", gauge)
	for i := range o.queues {
		q := &o.queues[i]
		l := append(append(labels{}, q.labels...), with("queue_type", q.kind.Module(), "membership", "leader")...)
		addGauge(f, sorted(l), 1)
	}
}
