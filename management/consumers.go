package management

import (
	"time"

	"github.com/settmq/settmq/broker"
	"github.com/settmq/settmq/queue/fifo"
)

func (r *request) consumerRow(c broker.ConsumerInfo) object {
	a := c.Channel.Connection().About()
	d := c.Queue.About()
	active, status := true, "up"
	var timeout time.Duration
	if v := r.broker.VHost(a.VHost); v != nil {
		if q := v.Queue(d.Name); q != nil {
			timeout = v.QueueSettings(q).ConsumerTimeout.Or(0)
			if id, single := activeConsumer(q); single {
				if active, status = id == c.ID, "waiting"; active {
					status = "single_active"
				}
			}
		}
	}
	return object{
		{"arguments", c.Arguments},
		{"ack_required", !c.NoAck},
		{"active", active},
		{"activity_status", status},
		{"channel_details", object{
			{"connection_name", a.Name},
			{"name", channelName(c.Channel)},
			{"node", r.broker.Node()},
			{"number", int(c.Channel.Number())},
			{"peer_host", a.PeerHost},
			{"peer_port", a.PeerPort},
			{"user", a.User},
		}},
		{"consumer_tag", c.Tag},
		{"consumer_timeout", c.Timeout.Or(timeout).Milliseconds()},
		{"exclusive", c.Exclusive},
		{"prefetch_count", int(c.Prefetch)},
		{"queue", object{{"name", d.Name}, {"vhost", a.VHost}}},
	}
}

// activeConsumer is the one that gets the messages, in a queue with a single active consumer; 0 if there is none.
func activeConsumer(q broker.Queue) (id fifo.ConsumerID, single bool) {
	s, ok := q.(interface {
		ActiveConsumer() (fifo.ConsumerID, bool)
	})
	if !ok {
		return 0, false
	}
	return s.ActiveConsumer()
}

// consumersOf are the consumers of all channels that which wants.
func (r *request) consumersOf(which func(c broker.ConsumerInfo, vhost string) bool) (all []broker.ConsumerInfo) {
	for _, ch := range channelsOf(r.broker.Connections()) {
		vhost := ch.Connection().About().VHost
		for _, c := range ch.Consumers() {
			if which(c, vhost) {
				all = append(all, c)
			}
		}
	}
	return all
}

func listConsumers(r *request) (any, error) {
	in := make(map[string]bool)
	for _, v := range r.listedVHosts() {
		in[v.Name()] = true
	}
	all := r.consumersOf(func(_ broker.ConsumerInfo, vhost string) bool { return in[vhost] })
	return listOf(all, nil, r.consumerRow).sortedBy("queue.vhost", "queue.name", "consumer_tag"), nil
}
