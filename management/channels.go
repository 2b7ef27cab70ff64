package management

import (
	"strconv"

	"github.com/settmq/settmq/broker"
)

// channelName is RabbitMQ's name of a channel: that of its connection, and its number.
func channelName(ch broker.Channel) string {
	return ch.Connection().About().Name + " (" + strconv.Itoa(int(ch.Number())) + ")"
}

var channelColumns = map[string]func(broker.Channel) any{
	"name":   func(ch broker.Channel) any { return channelName(ch) },
	"number": func(ch broker.Channel) any { return int(ch.Number()) },
	"user":   func(ch broker.Channel) any { return ch.Connection().About().User },
	"vhost":  func(ch broker.Channel) any { return ch.Connection().About().VHost },
}

func (r *request) channelRow(ch broker.Channel) object {
	a := ch.Connection().About()
	o := object{
		{"connection_details", object{{"name", a.Name}, {"peer_host", a.PeerHost}, {"peer_port", a.PeerPort}}},
		{"name", channelName(ch)},
		{"node", r.broker.Node()},
		{"number", int(ch.Number())},
		{"user", a.User},
		{"user_who_performed_action", a.User},
		{"vhost", a.VHost},
	}
	if r.query.Get("disable_stats") == "true" {
		return o
	}
	i, now := ch.Info(), ch.Stats()
	w := r.window("msg_rates")
	s := r.broker.ChannelSeries(ch, w.asked())
	o = append(o, messageStats(&now, &s, w, channelCounts, sameMessages)...)
	o = append(o, idleSince(s.Changed)...)
	return append(o, object{
		{"acks_uncommitted", i.AcksUncommitted},
		{"confirm", i.Confirm},
		{"consumer_count", i.Consumers},
		{"global_prefetch_count", int(i.GlobalPrefetch)},
		{"messages_unacknowledged", i.Unacked},
		{"messages_uncommitted", i.Uncommitted},
		{"messages_unconfirmed", i.Unconfirmed},
		{"prefetch_count", int(i.Prefetch)},
		{"state", "running"},
		{"transactional", i.Transactional},
		{"reductions", 0},
		{"reductions_details", noRate},
	}...)
}

func channelsOf(connections []broker.Connection) (all []broker.Channel) {
	for _, c := range connections {
		all = append(all, c.Channels()...)
	}
	return all
}

func listChannels(r *request) (any, error) {
	return listOf(channelsOf(r.listedConnections()), channelColumns, r.channelRow), nil
}

func listChannelsOfConnection(r *request) (any, error) {
	c, err := r.namedConnection()
	if err != nil {
		return nil, err
	}
	return listOf(c.Channels(), channelColumns, r.channelRow), nil
}

func getChannel(r *request) (any, error) {
	for _, ch := range channelsOf(r.broker.Connections()) {
		if channelName(ch) != r.param("channel") {
			continue
		}
		if err := r.mayTouch(ch.Connection().About().User); err != nil {
			return nil, err
		}
		o := r.channelRow(ch)
		if r.query.Get("disable_stats") == "true" {
			return o, nil
		}
		consumers := []object{}
		for _, c := range ch.Consumers() {
			consumers = append(consumers, r.consumerRow(c))
		}
		return append(o, field{"consumer_details", consumers}, field{"deliveries", []object{}}, field{"publishes", []object{}}), nil
	}
	return nil, errNotFound
}
