package server

import (
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/broker"
	"github.com/settmq/settmq/queue"
)

// TestConnectionsAreListedAndClosed: from connection.open to its end a connection and its channels are
// among the broker's; who closes it there is the reason that the client hears.
func TestConnectionsAreListedAndClosed(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		early := r.dial()
		early.login(plain("guest", "guest"))
		if n := len(r.b.Connections()); n != 0 {
			t.Fatalf("%d connections before connection.open", n)
		}
		p, other := r.open(), r.open()
		list := r.b.Connections()
		if len(list) != 2 {
			t.Fatalf("%d connections, want 2", len(list))
		}
		c := list[0]
		a := c.About()
		if a.User != "guest" || a.VHost != "/" || a.Name == "" || a.Mechanism != "PLAIN" || a.Protocol != "AMQP 0-9-1" ||
			a.FrameMax != 131072 || a.ChannelMax != 2047 || a.ConnectedAt.IsZero() || a.TLS != nil || len(a.ClientProperties) != 1 {
			t.Errorf("about: %+v", a)
		}
		if r.b.ConnectionByID(a.ID) != c || r.b.Connection(a.Name) == nil {
			t.Error("not found by its name or number")
		}
		p.channel(7)
		if i := c.Info(); i.Channels != 2 || i.State != broker.ConnectionRunning || i.ReceivedBytes == 0 || i.SentBytes == 0 || i.Reads == 0 || i.Writes == 0 {
			t.Errorf("info: %+v", i)
		}
		p.send(7, &amqp.QueueDeclare{Queue: "none", Passive: true})
		p.channelCloseExpected(7, amqp.ReplyNotFound, "NOT_FOUND")
		if chs := c.Channels(); len(chs) != 1 || chs[0].Number() != 1 || chs[0].Connection() != c || c.Info().Channels != 1 {
			t.Errorf("channels: %v", chs)
		}
		c.Close("because")
		p.closeExpected(amqp.ReplyConnectionForced, "CONNECTION_FORCED - because")
		synctest.Wait()
		if list = r.b.Connections(); len(list) != 1 || r.b.ConnectionByID(a.ID) != nil {
			t.Errorf("connections after the close: %v", list)
		}
		other.works()
		c.Close("again") // no harm
	})
}

// TestChannelsTellWhatTheyHold: modes, limits and what is outstanding on a channel.
func TestChannelsTellWhatTheyHold(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		p := r.open()
		p.declare("q")
		p.channel(2)
		info := func(n int) broker.ChannelInfo {
			synctest.Wait()
			return r.b.Connections()[0].Channels()[n-1].Info()
		}
		check := func(n int, want broker.ChannelInfo) {
			t.Helper()
			if got := info(n); got != want {
				t.Errorf("channel %d: %+v, want %+v", n, got, want)
			}
		}
		check(1, broker.ChannelInfo{})
		call[*amqp.BasicQosOk](p, 1, &amqp.BasicQos{PrefetchCount: 2})
		for range 3 {
			p.publish(1, "", "q", "x")
		}
		p.consume("q", false)
		m, _ := expectContent[*amqp.BasicDeliver](p, 1)
		expectContent[*amqp.BasicDeliver](p, 1)
		check(1, broker.ChannelInfo{Prefetch: 2, Consumers: 1, Unacked: 2})
		k := r.b.Connections()[0].Channels()[0].Consumers()
		if len(k) != 1 || k[0].Tag != "q" || k[0].Prefetch != 2 || k[0].NoAck || k[0].Queue.About().Name != "q" || k[0].Channel.Number() != 1 {
			t.Errorf("consumers: %+v", k)
		}
		p.write(amqp.AppendAck(nil, 1, m.DeliveryTag, false))
		expectContent[*amqp.BasicDeliver](p, 1)
		call[*amqp.BasicQosOk](p, 1, &amqp.BasicQos{PrefetchCount: 9, Global: true})
		check(1, broker.ChannelInfo{Prefetch: 2, GlobalPrefetch: 9, Consumers: 1, Unacked: 2})

		call[*amqp.TxSelectOk](p, 2, &amqp.TxSelect{})
		p.publish(2, "", "other", "x")
		p.publish(2, "", "other", "x")
		call[*amqp.BasicGetEmpty](p, 2, &amqp.BasicGet{Queue: "q"})
		check(2, broker.ChannelInfo{Transactional: true, Uncommitted: 2})
		call[*amqp.TxCommitOk](p, 2, &amqp.TxCommit{})
		check(2, broker.ChannelInfo{Transactional: true})
		call[*amqp.BasicCancelOk](p, 1, &amqp.BasicCancel{ConsumerTag: "q"})
		call[*amqp.ConfirmSelectOk](p, 1, &amqp.ConfirmSelect{})
		check(1, broker.ChannelInfo{Prefetch: 2, GlobalPrefetch: 9, Unacked: 2, Confirm: true})
	})
}

// TestBlockedConnectionsSaySo: with an alarm on, connections are blocking until they publish.
func TestBlockedConnectionsSaySo(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		p := r.open()
		r.fill(true)
		state := func() broker.ConnectionState {
			synctest.Wait()
			return r.b.Connections()[0].Info().State
		}
		if s := state(); s != broker.ConnectionBlocking {
			t.Errorf("%v before a publish", s)
		}
		p.publish(1, "", "q", "x")
		expect[*amqp.ConnectionBlocked](p, 0)
		if s := state(); s != broker.ConnectionBlocked {
			t.Errorf("%v after a publish", s)
		}
		r.fill(false)
		expect[*amqp.ConnectionUnblocked](p, 0)
		if s := state(); s != broker.ConnectionRunning {
			t.Errorf("%v after the alarm", s)
		}
	})
}

// TestOpenConfirmsAreCounted compares the count with a plain list, for confirms in any order.
func TestOpenConfirmsAreCounted(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var c confirms
	var open []uint64
	for range 20000 {
		if len(open) == 0 || rnd.IntN(2) == 0 {
			open = append(open, c.next())
		} else {
			i := rnd.IntN(len(open))
			if rnd.IntN(4) > 0 {
				i = rnd.IntN(min(len(open), 3))
			}
			c.settle(open[i], rnd.IntN(8) > 0)
			open = append(open[:i], open[i+1:]...)
		}
		if c.open() != len(open) {
			t.Fatalf("%d open, want %d", c.open(), len(open))
		}
	}
}

func TestCipherSuitesAreNamedAsInRabbitMQ(t *testing.T) {
	for _, c := range []struct {
		version, suite                uint16
		protocol, exchange, name, mac string
	}{
		{tls.VersionTLS13, tls.TLS_AES_256_GCM_SHA384, "tlsv1.3", "any", "aes_256_gcm", "aead"},
		{tls.VersionTLS13, tls.TLS_CHACHA20_POLY1305_SHA256, "tlsv1.3", "any", "chacha20_poly1305", "aead"},
		{tls.VersionTLS12, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, "tlsv1.2", "ecdhe_rsa", "aes_128_gcm", "aead"},
		{tls.VersionTLS12, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, "tlsv1.2", "ecdhe_ecdsa", "chacha20_poly1305", "aead"},
		{tls.VersionTLS12, tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA, "tlsv1.2", "ecdhe_rsa", "aes_256_cbc", "sha"},
	} {
		got := describeTLS(tls.ConnectionState{Version: c.version, CipherSuite: c.suite})
		if *got != (broker.ConnectionTLS{Protocol: c.protocol, KeyExchange: c.exchange, Cipher: c.name, Hash: c.mac}) {
			t.Errorf("%+v", *got)
		}
	}
}

// TestMessagesAreCounted: what a channel, its vhost, the exchanges and the queue say of the same messages, while the
// channel is open and afterwards.
func TestMessagesAreCounted(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		p := r.open()
		p.declare("q")
		p.publish(1, "", "q", "unconfirmed")
		call[*amqp.ConfirmSelectOk](p, 1, &amqp.ConfirmSelect{})
		for range 3 {
			p.publish(1, "", "q", "x")
			expect[*amqp.BasicAck](p, 1)
		}
		p.publish(1, "amq.fanout", "q", "nowhere")
		expect[*amqp.BasicAck](p, 1)
		p.write(amqp.AppendContent(amqp.AppendPublish(nil, 1, "", "nowhere", true), 1, nil, []byte("back"), 131072))
		expectContent[*amqp.BasicReturn](p, 1)
		expect[*amqp.BasicAck](p, 1)

		p.send(1, &amqp.BasicGet{Queue: "q", NoAck: true})
		expectContent[*amqp.BasicGetOk](p, 1)
		p.send(1, &amqp.BasicGet{Queue: "q"})
		got, _ := expectContent[*amqp.BasicGetOk](p, 1)
		p.write(amqp.AppendNack(nil, 1, got.DeliveryTag, false, true))
		call[*amqp.BasicQosOk](p, 1, &amqp.BasicQos{PrefetchCount: 9})
		p.consume("q", false)
		var last uint64
		for range 3 {
			m, _ := expectContent[*amqp.BasicDeliver](p, 1)
			last = m.DeliveryTag
		}
		p.write(amqp.AppendAck(nil, 1, last-2, false))
		p.write(amqp.AppendAck(nil, 1, last, true))
		call[*amqp.BasicGetEmpty](p, 1, &amqp.BasicGet{Queue: "q"})

		want := queue.MessageStats{
			Publish: 6, Confirm: 5, ReturnUnroutable: 1, DropUnroutable: 1,
			Deliver: 3, Get: 1, GetNoAck: 1, GetEmpty: 1, Redeliver: 1, Ack: 3,
		}
		v := r.b.VHost("/")
		ch := r.b.Connections()[0].Channels()[0]
		exchanges := make(map[string]*broker.Exchange)
		ch.Published(func(x *broker.Exchange, _ broker.ExchangeStats) { exchanges[x.Name] = x })
		check := func(when string) {
			t.Helper()
			r.b.Collect()
			if got := v.MessageStats(); got != want {
				t.Errorf("vhost %s: %+v, want %+v", when, got, want)
			}
			direct, fanout := exchanges[""].Stats(), exchanges["amq.fanout"].Stats()
			if direct != (broker.ExchangeStats{In: 5, Out: 4, Confirm: 4, Returned: 1}) {
				t.Errorf("default exchange %s: %+v", when, direct)
			}
			if fanout != (broker.ExchangeStats{In: 1, Confirm: 1, Dropped: 1}) {
				t.Errorf("amq.fanout %s: %+v", when, fanout)
			}
		}
		check("with the channel open")
		if got := ch.Stats(); got != want {
			t.Errorf("channel: %+v, want %+v", got, want)
		}
		var d queue.Details
		v.Queues()[0].Details(&d)
		if got := d.MessageStats; got != (queue.MessageStats{Publish: 4, Deliver: 3, Get: 1, GetNoAck: 1, GetEmpty: 1, Redeliver: 1, Ack: 3}) {
			t.Errorf("queue: %+v", got)
		}
		p.send(1, &amqp.QueueDelete{Queue: "q"})
		expect[*amqp.BasicCancel](p, 1)
		expect[*amqp.QueueDeleteOk](p, 1)
		call[*amqp.ChannelCloseOk](p, 1, &amqp.ChannelClose{})
		check("after its end")
	})
}

// TestCountersOfManyExchangesAreLetGo: a channel that publishes to more exchanges than it keeps counters for loses none
// of its numbers.
func TestCountersOfManyExchangesAreLetGo(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		p := r.open()
		const n = 200
		for i := range n {
			name := fmt.Sprint("x", i)
			call[*amqp.ExchangeDeclareOk](p, 1, &amqp.ExchangeDeclare{Exchange: name, Type: "fanout"})
			p.publish(1, name, "", "a")
			p.publish(1, name, "", "b")
		}
		p.publish(1, "x0", "", "c")
		synctest.Wait()
		ch := r.b.Connections()[0].Channels()[0]
		if s := ch.Stats(); s.Publish != 2*n+1 || s.DropUnroutable != 2*n+1 {
			t.Errorf("%+v", s)
		}
		kept := make(map[string]*broker.Exchange)
		ch.Published(func(x *broker.Exchange, _ broker.ExchangeStats) { kept[x.Name] = x })
		if len(kept) == 0 || len(kept) > 64 {
			t.Errorf("counters for %d exchanges", len(kept))
		}
		r.b.Collect()
		if a, b := kept["x0"].Stats().In, kept["x199"].Stats().In; a != 3 || b != 2 {
			t.Errorf("%d and %d, want 3 and 2", a, b)
		}
	})
}
