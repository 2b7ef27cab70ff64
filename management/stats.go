package management

import (
	"net/http"
	"strconv"
	"time"

	"github.com/settmq/settmq/broker"
	"github.com/settmq/settmq/queue"
)

// window says how far back the samples go that a query asks for, and how far they are apart; zero for none.
type window struct{ age, step time.Duration }

// maxSamples bounds what is answered; RabbitMQ has no more either.
const maxSamples = 1000

// window reads the query's <kind>_age and <kind>_incr, in seconds.
func (r *request) window(kind string) window {
	age, _ := strconv.Atoi(r.query.Get(kind + "_age")) // checkWindows has looked at them
	step, _ := strconv.Atoi(r.query.Get(kind + "_incr"))
	if age <= 0 || step <= 0 {
		return window{}
	}
	return window{time.Duration(age) * time.Second, time.Duration(step) * time.Second}
}

// checkWindows refuses queries for samples that make no sense.
func (r *request) checkWindows() error {
	for _, kind := range []string{"msg_rates", "lengths", "data_rates", "node_stats"} {
		for _, key := range []string{kind + "_age", kind + "_incr"} {
			if n, err := strconv.Atoi(r.query.Get(key)); r.query.Has(key) && (err != nil || n <= 0) {
				return &apiError{http.StatusBadRequest, "bad_request", "invalid range parameters"}
			}
		}
		if w := r.window(kind); w.step > 0 && w.age/w.step > maxSamples {
			return &apiError{http.StatusBadRequest, "bad_request", "invalid range parameters"}
		}
	}
	return nil
}

func (w window) asked() bool { return w.age > 0 }

// growth is the rate of a number that only grows, with its samples if they are asked for.
func growth[T comparable](s *broker.Series[T], w window, of func(*T) uint64) object {
	return w.samples(object{{"rate", s.Rate(of)}}, points(s, w, of))
}

// change is the rate of a number that may fall.
func change[T comparable](s *broker.Series[T], w window, of func(*T) uint64) object {
	rate := s.Change(func(v *T) int64 { return int64(of(v)) })
	return w.samples(object{{"rate", rate}}, points(s, w, of))
}

type point struct {
	at    time.Time
	value uint64
}

// points are the samples of a window, the newest first: at multiples of its step what was known then.
func points[T comparable](s *broker.Series[T], w window, of func(*T) uint64) (list []point) {
	if !w.asked() {
		return nil
	}
	if len(s.History) == 0 { // clients look at the first one, even of an object that has just been made
		var none T
		return []point{{time.Now().Truncate(w.step), of(&none)}}
	}
	at := s.History[0].At.Truncate(w.step)
	i := 0
	for from := at.Add(-w.age); !at.Before(from); at = at.Add(-w.step) {
		for i < len(s.History) && s.History[i].At.Truncate(w.step).After(at) {
			i++
		}
		if i == len(s.History) {
			break
		}
		list = append(list, point{at, of(&s.History[i].Value)})
	}
	return list
}

func (w window) samples(o object, list []point) object {
	if !w.asked() {
		return o
	}
	rows, sum := []object{}, uint64(0)
	for _, p := range list {
		rows = append(rows, object{{"sample", p.value}, {"timestamp", p.at.UnixMilli()}})
		sum += p.value
	}
	average, rate := 0.0, 0.0
	if n := len(list); n > 0 {
		average = float64(sum) / float64(n)
		if span := list[0].at.Sub(list[n-1].at).Seconds(); span > 0 {
			rate = (float64(list[0].value) - float64(list[n-1].value)) / span
		}
	}
	return append(o, field{"samples", rows}, field{"avg_rate", rate}, field{"avg", average})
}

// messageCount is one of the numbers in message_stats.
type messageCount struct {
	name string
	of   func(*queue.MessageStats) uint64
}

var (
	publishCounts = []messageCount{
		{"publish", func(s *queue.MessageStats) uint64 { return s.Publish }},
		{"confirm", func(s *queue.MessageStats) uint64 { return s.Confirm }},
		{"return_unroutable", func(s *queue.MessageStats) uint64 { return s.ReturnUnroutable }},
		{"drop_unroutable", func(s *queue.MessageStats) uint64 { return s.DropUnroutable }},
	}
	deliverCounts = []messageCount{
		{"ack", func(s *queue.MessageStats) uint64 { return s.Ack }},
		{"deliver", func(s *queue.MessageStats) uint64 { return s.Deliver }},
		{"deliver_get", (*queue.MessageStats).DeliverGet},
		{"deliver_no_ack", func(s *queue.MessageStats) uint64 { return s.DeliverNoAck }},
		{"get", func(s *queue.MessageStats) uint64 { return s.Get }},
		{"get_empty", func(s *queue.MessageStats) uint64 { return s.GetEmpty }},
		{"get_no_ack", func(s *queue.MessageStats) uint64 { return s.GetNoAck }},
		{"redeliver", func(s *queue.MessageStats) uint64 { return s.Redeliver }},
	}
	diskCounts = []messageCount{
		{"disk_reads", func(s *queue.MessageStats) uint64 { return s.DiskReads }},
		{"disk_writes", func(s *queue.MessageStats) uint64 { return s.DiskWrites }},
	}
	queueCounts   = append([]messageCount{publishCounts[0]}, deliverCounts...)
	channelCounts = append(append([]messageCount{}, publishCounts...), deliverCounts...)
	brokerCounts  = append(append([]messageCount{}, channelCounts...), diskCounts...)
)

// messageStats renders message_stats: the numbers of now with the rates of the last samples. It is nothing, as in
// RabbitMQ, for what no message ever passed.
func messageStats[T comparable](now *queue.MessageStats, s *broker.Series[T], w window, counts []messageCount, of func(*T) *queue.MessageStats) object {
	if *now == (queue.MessageStats{}) {
		return nil
	}
	return object{{"message_stats", renderCounts(now, s, w, counts, of)}}
}

func renderCounts[T comparable](now *queue.MessageStats, s *broker.Series[T], w window, counts []messageCount, of func(*T) *queue.MessageStats) object {
	o := make(object, 0, 2*len(counts))
	for _, c := range counts {
		details := growth(s, w, func(v *T) uint64 { return c.of(of(v)) })
		o = append(o, field{c.name, c.of(now)}, field{c.name + "_details", details})
	}
	return o
}

// idleSince is when something happened last, as far as samples tell.
func idleSince(t time.Time) object {
	if t.IsZero() {
		return nil
	}
	return object{{"idle_since", t.UTC().Format("2006-01-02T15:04:05.000-07:00")}}
}

func queueMessages(s *broker.QueueSample) *queue.MessageStats { return &s.MessageStats }

func vhostMessages(s *broker.VHostSample) *queue.MessageStats { return &s.MessageStats }

func nodeMessages(s *broker.NodeSample) *queue.MessageStats { return &s.MessageStats }

func sameMessages(s *queue.MessageStats) *queue.MessageStats { return s }

// lengths are numbers of messages with their changes.
func lengths[T comparable](ready, unacked, all int, s *broker.Series[T], w window, of func(*T) (ready, unacked, all int)) object {
	return object{
		{"messages", all},
		{"messages_details", change(s, w, func(v *T) uint64 { _, _, n := of(v); return uint64(n) })},
		{"messages_ready", ready},
		{"messages_ready_details", change(s, w, func(v *T) uint64 { n, _, _ := of(v); return uint64(n) })},
		{"messages_unacknowledged", unacked},
		{"messages_unacknowledged_details", change(s, w, func(v *T) uint64 { _, n, _ := of(v); return uint64(n) })},
	}
}

func queueLengths(s *broker.QueueSample) (ready, unacked, all int) {
	return s.Ready, s.Unacked, s.Messages
}

func vhostLengths(s *broker.VHostSample) (ready, unacked, all int) {
	return s.Ready, s.Unacked, s.Messages
}

func nodeLengths(s *broker.NodeSample) (ready, unacked, all int) {
	return s.Ready, s.Unacked, s.Messages
}

// traffic are the bytes that went through sockets.
func traffic[T comparable](now broker.TrafficSample, s *broker.Series[T], w window, of func(*T) *broker.TrafficSample) object {
	return object{
		{"recv_oct", now.ReceivedBytes},
		{"recv_oct_details", growth(s, w, func(v *T) uint64 { return of(v).ReceivedBytes })},
		{"send_oct", now.SentBytes},
		{"send_oct_details", growth(s, w, func(v *T) uint64 { return of(v).SentBytes })},
	}
}

// exchangeStats renders what was published to an exchange, and from it to queues.
func (r *request) exchangeStats(x *broker.Exchange) object {
	w := r.window("msg_rates")
	now, s := x.Stats(), r.broker.ExchangeSeries(x, w.asked())
	if now == (broker.ExchangeStats{}) {
		return nil
	}
	o := object{
		{"publish_in", now.In},
		{"publish_in_details", growth(&s, w, func(v *broker.ExchangeStats) uint64 { return v.In })},
	}
	if now.Out > 0 {
		o = append(o, field{"publish_out", now.Out},
			field{"publish_out_details", growth(&s, w, func(v *broker.ExchangeStats) uint64 { return v.Out })})
	}
	return object{{"message_stats", o}}
}

// churn are the numbers of what came and went.
var churn = []struct {
	name string
	of   func(*broker.Churn) uint64
}{
	{"connection_created", func(c *broker.Churn) uint64 { return c.ConnectionsOpened }},
	{"connection_closed", func(c *broker.Churn) uint64 { return c.ConnectionsClosed }},
	{"channel_created", func(c *broker.Churn) uint64 { return c.ChannelsOpened }},
	{"channel_closed", func(c *broker.Churn) uint64 { return c.ChannelsClosed }},
	{"queue_declared", func(c *broker.Churn) uint64 { return c.QueuesDeclared }},
	{"queue_created", func(c *broker.Churn) uint64 { return c.QueuesCreated }},
	{"queue_deleted", func(c *broker.Churn) uint64 { return c.QueuesDeleted }},
}

func (r *request) churnRates(s *broker.Series[broker.NodeSample], w window) object {
	now, o := r.broker.Churn(), object{}
	for _, c := range churn {
		o = append(o, field{c.name, c.of(&now)}, field{c.name + "_details", growth(s, w, func(v *broker.NodeSample) uint64 { return c.of(&v.Churn) })})
	}
	return o
}
