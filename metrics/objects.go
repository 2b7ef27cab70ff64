package metrics

import (
	"strconv"

	dto "github.com/prometheus/client_model/go"

	"github.com/settmq/settmq/broker"
	"github.com/settmq/settmq/queue"
)

// snapshot is what a scrape is about: objects with their numbers of one moment.
type snapshot struct {
	queues      []queueRow
	exchanges   []exchangeRow
	channels    []channelRow
	connections []connectionRow
	vhosts      []string
}

type queueRow struct {
	queue.Details
	queue       broker.Queue
	kind        broker.QueueType
	utilisation float64
	labels      labels // nil for sums
}

type exchangeRow struct {
	broker.ExchangeStats
	name, kind string
	vhost      *broker.VHost
	labels     labels
}

type channelRow struct {
	broker.ChannelInfo
	queue.MessageStats
	labels, byVHost labels
}

type connectionRow struct {
	broker.ConnectionInfo
	labels labels
}

// look takes a snapshot of the vhosts that which accepts. named gives the objects their labels.
func look(b *broker.Broker, which func(vhost string) bool, named bool) *snapshot {
	b.Collect()
	s := &snapshot{}
	for _, v := range b.VHosts() {
		if !which(v.Name()) {
			continue
		}
		s.vhosts = append(s.vhosts, v.Name())
		for _, q := range v.Queues() {
			row := queueRow{queue: q, kind: broker.TypeOf(q)}
			q.Details(&row.Details)
			if row.Consumers > 0 {
				row.utilisation = b.QueueUtilisation(q)
			}
			if named {
				row.labels = with("vhost", v.Name(), "queue", q.About().Name)
			}
			s.queues = append(s.queues, row)
		}
		for _, x := range v.Exchanges() {
			row := exchangeRow{ExchangeStats: x.Stats(), name: x.Name, kind: x.Type, vhost: v}
			if named {
				row.labels = with("vhost", v.Name(), "exchange", x.Name)
			}
			s.exchanges = append(s.exchanges, row)
		}
	}
	for _, c := range b.Connections() {
		a := c.About()
		if !which(a.VHost) {
			continue
		}
		row := connectionRow{ConnectionInfo: c.Info()}
		id := "<0." + strconv.FormatUint(a.ID, 10) + "."
		if named {
			row.labels = with("channel", id+"0>") // RabbitMQ's name of the label
		}
		s.connections = append(s.connections, row)
		for _, ch := range c.Channels() {
			row := channelRow{ChannelInfo: ch.Info(), MessageStats: ch.Stats()}
			if named {
				name := id + strconv.Itoa(int(ch.Number())) + ">"
				row.labels, row.byVHost = with("channel", name), with("channel", name, "vhost", a.VHost)
			}
			s.channels = append(s.channels, row)
		}
	}
	return s
}

const (
	gauge   = dto.MetricType_GAUGE
	counter = dto.MetricType_COUNTER
)

// metric is a number of objects of a kind. in is RabbitMQ's name of the group of families that it is in.
type metric[T any] struct {
	in, name, help string
	kind           dto.MetricType
	of             func(*T) float64
	// has says of which objects there is the number, nil of all; noSum that a sum of it means nothing.
	has   func(*T) bool
	noSum bool
}

func count(n int) float64 { return float64(n) }

var queueMetrics = []metric[queueRow]{
	{in: "queue_coarse_metrics", name: "queue_messages_ready", help: "Messages that wait to be delivered", kind: gauge, of: func(q *queueRow) float64 { return count(q.Ready) }},
	{in: "queue_coarse_metrics", name: "queue_messages_unacked", help: "Messages delivered and not acknowledged", kind: gauge, of: func(q *queueRow) float64 { return count(q.Unacked) }},
	{in: "queue_coarse_metrics", name: "queue_messages", help: "All messages of queues", kind: gauge, of: func(q *queueRow) float64 { return count(q.Messages()) }},
	{in: "queue_coarse_metrics", name: "queue_process_reductions_total", help: "Always 0: queues are no processes here", kind: counter, of: func(*queueRow) float64 { return 0 }},
	{in: "queue_consumer_count queue_metrics", name: "queue_consumers", help: "Consumers of queues", kind: gauge, of: func(q *queueRow) float64 { return count(q.Consumers) }},
	{in: "queue_metrics", name: "queue_consumer_capacity", help: "Part of the time in which a queue could deliver at once", kind: gauge, of: func(q *queueRow) float64 { return q.utilisation }, noSum: true},
	{in: "queue_metrics", name: "queue_consumer_utilisation", help: "Part of the time in which a queue could deliver at once", kind: gauge, of: func(q *queueRow) float64 { return q.utilisation }},
	{in: "queue_metrics", name: "queue_process_memory_bytes", help: "Memory that queues take, about", kind: gauge, of: func(q *queueRow) float64 { return float64(q.Memory()) }},
	{in: "queue_metrics", name: "queue_messages_ram", help: "Messages whose bodies are in memory", kind: gauge, of: func(q *queueRow) float64 { return count(q.ReadyLoaded + q.UnackedLoaded) }},
	{in: "queue_metrics", name: "queue_messages_ram_bytes", help: "Bytes of bodies in memory", kind: gauge, of: func(q *queueRow) float64 { return float64(q.LoadedBytes) }},
	{in: "queue_metrics", name: "queue_messages_ready_ram", help: "Waiting messages whose bodies are in memory", kind: gauge, of: func(q *queueRow) float64 { return count(q.ReadyLoaded) }},
	{in: "queue_metrics", name: "queue_messages_unacked_ram", help: "Unacknowledged messages whose bodies are in memory", kind: gauge, of: func(q *queueRow) float64 { return count(q.UnackedLoaded) }},
	{in: "queue_metrics", name: "queue_messages_persistent", help: "Messages on disk or on the way there", kind: gauge, of: func(q *queueRow) float64 { n, _ := q.Persistent(); return count(n) }},
	{in: "queue_metrics", name: "queue_messages_persistent_bytes", help: "Bytes of bodies on disk or on the way there", kind: gauge, of: func(q *queueRow) float64 { _, n := q.Persistent(); return float64(n) }},
	{in: "queue_metrics", name: "queue_messages_bytes", help: "Bytes of all bodies", kind: gauge, of: func(q *queueRow) float64 { return float64(q.ReadyBytes + q.UnackedBytes) }},
	{in: "queue_metrics", name: "queue_messages_ready_bytes", help: "Bytes of the bodies that wait to be delivered", kind: gauge, of: func(q *queueRow) float64 { return float64(q.ReadyBytes) }},
	{in: "queue_metrics", name: "queue_messages_unacked_bytes", help: "Bytes of the bodies delivered and not acknowledged", kind: gauge, of: func(q *queueRow) float64 { return float64(q.UnackedBytes) }},
	{
		in: "queue_metrics", name: "queue_head_message_timestamp", help: "Timestamp property of the message that is next", kind: gauge, noSum: true,
		has: func(q *queueRow) bool { _, ok := headTimestamp(q.queue); return ok },
		of:  func(q *queueRow) float64 { t, _ := headTimestamp(q.queue); return float64(t) },
	},
	{in: "queue_metrics", name: "queue_disk_reads_total", help: "Messages read back from disk", kind: counter, of: func(q *queueRow) float64 { return float64(q.MessageStats.DiskReads) }},
	{in: "queue_metrics", name: "queue_disk_writes_total", help: "Messages given to the disk", kind: counter, of: func(q *queueRow) float64 { return float64(q.MessageStats.DiskWrites) }},
	{in: "queue_metrics", name: "stream_segments", help: "Files of streams", kind: counter, of: func(q *queueRow) float64 { return count(q.Segments) }, has: func(q *queueRow) bool { return q.kind == broker.StreamQueue }},
	{in: "queue_delivery_metrics", name: "queue_get_ack_total", help: "Messages fetched, to be acknowledged", kind: counter, of: func(q *queueRow) float64 { return float64(q.MessageStats.Get) }},
	{in: "queue_delivery_metrics", name: "queue_get_total", help: "Messages fetched without acknowledgement", kind: counter, of: func(q *queueRow) float64 { return float64(q.MessageStats.GetNoAck) }},
	{in: "queue_delivery_metrics", name: "queue_messages_delivered_ack_total", help: "Messages delivered, to be acknowledged", kind: counter, of: func(q *queueRow) float64 { return float64(q.MessageStats.Deliver) }},
	{in: "queue_delivery_metrics", name: "queue_messages_delivered_total", help: "Messages delivered without acknowledgement", kind: counter, of: func(q *queueRow) float64 { return float64(q.MessageStats.DeliverNoAck) }},
	{in: "queue_delivery_metrics", name: "queue_messages_redelivered_total", help: "Messages delivered not for the first time", kind: counter, of: func(q *queueRow) float64 { return float64(q.MessageStats.Redeliver) }},
	{in: "queue_delivery_metrics", name: "queue_messages_acked_total", help: "Messages acknowledged", kind: counter, of: func(q *queueRow) float64 { return float64(q.MessageStats.Ack) }},
	{in: "queue_delivery_metrics", name: "queue_get_empty_total", help: "basic.gets that found nothing", kind: counter, of: func(q *queueRow) float64 { return float64(q.MessageStats.GetEmpty) }},
	{in: "channel_queue_exchange_metrics", name: "queue_messages_published_total", help: "Messages put in queues", kind: counter, of: func(q *queueRow) float64 { return float64(q.MessageStats.Publish) }},
}

func headTimestamp(q broker.Queue) (uint64, bool) {
	if h, ok := q.(interface{ HeadTimestamp() (uint64, bool) }); ok {
		return h.HeadTimestamp()
	}
	return 0, false
}

var channelMetrics = []metric[channelRow]{
	{in: "channel_metrics", name: "channel_consumers", help: "Consumers of channels", kind: gauge, of: func(c *channelRow) float64 { return count(c.Consumers) }},
	{in: "channel_metrics", name: "channel_messages_unacked", help: "Messages delivered to channels and not acknowledged", kind: gauge, of: func(c *channelRow) float64 { return count(c.Unacked) }},
	{in: "channel_metrics", name: "channel_messages_unconfirmed", help: "Messages published and not confirmed", kind: gauge, of: func(c *channelRow) float64 { return count(c.Unconfirmed) }},
	{in: "channel_metrics", name: "channel_messages_uncommitted", help: "Messages published in open transactions", kind: gauge, of: func(c *channelRow) float64 { return count(c.Uncommitted) }},
	{in: "channel_metrics", name: "channel_acks_uncommitted", help: "Acknowledgements in open transactions", kind: gauge, of: func(c *channelRow) float64 { return count(c.AcksUncommitted) }},
	{in: "channel_metrics", name: "consumer_prefetch", help: "Prefetch of consumers to come", kind: gauge, of: func(c *channelRow) float64 { return float64(c.Prefetch) }},
	{in: "channel_metrics", name: "channel_prefetch", help: "Prefetch of whole channels", kind: gauge, of: func(c *channelRow) float64 { return float64(c.GlobalPrefetch) }},
	{in: "channel_process_metrics", name: "channel_process_reductions_total", help: "Always 0: channels are no processes here", kind: counter, of: func(*channelRow) float64 { return 0 }},
}

// Numbers that RabbitMQ splits further, by exchange or queue; here they are of the channel, in its vhost.
var channelVHostMetrics = []metric[channelRow]{
	{in: "channel_exchange_metrics", name: "channel_messages_published_total", help: "Messages published by channels", kind: counter, of: func(c *channelRow) float64 { return float64(c.Publish) }},
	{in: "channel_exchange_metrics", name: "channel_messages_confirmed_total", help: "Messages confirmed to channels", kind: counter, of: func(c *channelRow) float64 { return float64(c.MessageStats.Confirm) }},
	{in: "channel_exchange_metrics", name: "channel_messages_unroutable_returned_total", help: "Mandatory messages that no queue was there for", kind: counter, of: func(c *channelRow) float64 { return float64(c.ReturnUnroutable) }},
	{in: "channel_exchange_metrics", name: "channel_messages_unroutable_dropped_total", help: "Messages that no queue was there for", kind: counter, of: func(c *channelRow) float64 { return float64(c.DropUnroutable) }},
	{in: "channel_queue_metrics", name: "channel_get_ack_total", help: "Messages fetched by channels, to be acknowledged", kind: counter, of: func(c *channelRow) float64 { return float64(c.Get) }},
	{in: "channel_queue_metrics", name: "channel_get_total", help: "Messages fetched by channels without acknowledgement", kind: counter, of: func(c *channelRow) float64 { return float64(c.GetNoAck) }},
	{in: "channel_queue_metrics", name: "channel_messages_delivered_ack_total", help: "Messages delivered to channels, to be acknowledged", kind: counter, of: func(c *channelRow) float64 { return float64(c.Deliver) }},
	{in: "channel_queue_metrics", name: "channel_messages_delivered_total", help: "Messages delivered to channels without acknowledgement", kind: counter, of: func(c *channelRow) float64 { return float64(c.DeliverNoAck) }},
	{in: "channel_queue_metrics", name: "channel_messages_redelivered_total", help: "Messages delivered to channels not for the first time", kind: counter, of: func(c *channelRow) float64 { return float64(c.Redeliver) }},
	{in: "channel_queue_metrics", name: "channel_messages_acked_total", help: "Messages acknowledged by channels", kind: counter, of: func(c *channelRow) float64 { return float64(c.Ack) }},
	{in: "channel_queue_metrics", name: "channel_get_empty_total", help: "basic.gets of channels that found nothing", kind: counter, of: func(c *channelRow) float64 { return float64(c.GetEmpty) }},
}

var connectionMetrics = []metric[connectionRow]{
	{in: "connection_coarse_metrics", name: "connection_incoming_bytes_total", help: "Bytes received on connections", kind: counter, of: func(c *connectionRow) float64 { return float64(c.ReceivedBytes) }},
	{in: "connection_coarse_metrics", name: "connection_outgoing_bytes_total", help: "Bytes sent on connections", kind: counter, of: func(c *connectionRow) float64 { return float64(c.SentBytes) }},
	{in: "connection_coarse_metrics", name: "connection_process_reductions_total", help: "Always 0: connections are no processes here", kind: counter, of: func(*connectionRow) float64 { return 0 }},
	{in: "connection_metrics", name: "connection_incoming_packets_total", help: "Reads of connections that brought bytes", kind: counter, of: func(c *connectionRow) float64 { return float64(c.Reads) }},
	{in: "connection_metrics", name: "connection_outgoing_packets_total", help: "Writes to connections", kind: counter, of: func(c *connectionRow) float64 { return float64(c.Writes) }},
	{in: "connection_metrics", name: "connection_pending_packets", help: "Bytes that wait to be sent on connections", kind: gauge, of: func(c *connectionRow) float64 { return float64(c.Waiting) }},
	{in: "connection_metrics", name: "connection_channels", help: "Channels of connections", kind: gauge, of: func(c *connectionRow) float64 { return count(c.Channels) }},
}

var exchangeMetrics = []metric[exchangeRow]{
	{in: "exchange_metrics", name: "exchange_messages_published_total", help: "Messages published to exchanges", kind: counter, of: func(x *exchangeRow) float64 { return float64(x.In) }},
	{in: "exchange_metrics", name: "exchange_messages_confirmed_total", help: "Messages published to exchanges and confirmed", kind: counter, of: func(x *exchangeRow) float64 { return float64(x.Confirm) }},
	{in: "exchange_metrics", name: "exchange_messages_unroutable_returned_total", help: "Mandatory messages that no queue was there for", kind: counter, of: func(x *exchangeRow) float64 { return float64(x.Returned) }},
	{in: "exchange_metrics", name: "exchange_messages_unroutable_dropped_total", help: "Messages that no queue was there for", kind: counter, of: func(x *exchangeRow) float64 { return float64(x.Dropped) }},
	{in: "queue_exchange_metrics", name: "queue_exchange_messages_published_total", help: "Messages put in queues by exchanges", kind: counter, of: func(x *exchangeRow) float64 { return float64(x.Out) }},
}

// sums adds a series for all objects together.
func sums[T any](s *scrape, list []metric[T], rows []T) {
	for _, m := range list {
		if m.noSum {
			continue
		}
		sum := 0.0
		for i := range rows {
			if m.has == nil || m.has(&rows[i]) {
				sum += m.of(&rows[i])
			}
		}
		add(s.family(m.name, m.help, m.kind), nil, sum)
	}
}

// each adds a series for every object, of the groups that want accepts.
func each[T any](s *scrape, list []metric[T], rows []T, want func(groups string) bool, of func(*T) labels) {
	for _, m := range list {
		if !want(m.in) {
			continue
		}
		f := s.family(m.name, m.help, m.kind)
		f.Metric = make([]*dto.Metric, 0, len(rows))
		for i := range rows {
			if m.has == nil || m.has(&rows[i]) {
				add(f, of(&rows[i]), m.of(&rows[i]))
			}
		}
		if len(f.Metric) == 0 {
			s.families = s.families[:len(s.families)-1]
		}
	}
}

func (s *scrape) objects(o *snapshot, want func(groups string) bool) {
	each(s, queueMetrics, o.queues, want, func(q *queueRow) labels { return q.labels })
	each(s, channelMetrics, o.channels, want, func(c *channelRow) labels { return c.labels })
	each(s, channelVHostMetrics, o.channels, want, func(c *channelRow) labels { return c.byVHost })
	each(s, connectionMetrics, o.connections, want, func(c *connectionRow) labels { return c.labels })
	each(s, exchangeMetrics, o.exchanges, want, func(x *exchangeRow) labels { return x.labels })
}

func (s *scrape) sums(o *snapshot) {
	sums(s, queueMetrics, o.queues)
	sums(s, channelMetrics, o.channels)
	sums(s, channelVHostMetrics, o.channels)
	sums(s, connectionMetrics, o.connections)
	sums(s, exchangeMetrics, o.exchanges)
}
