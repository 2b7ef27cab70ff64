package server

import (
	"sync"
	"sync/atomic"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/broker"
	"github.com/settmq/settmq/queue"
)

// channel is one AMQP channel of a connection. It is the queue.Sink of its consumers and
// the storage.Confirmer of its publishes.
type channel struct {
	conn *conn
	id   uint16

	// Owned by the connection's reader.
	closing   bool // channel.close was sent: only close and close-ok are heard
	content   content
	router    *broker.Router
	lastQueue string // what an empty queue name stands for
	tx        *transaction
	lastWrite lastWritten
	replies   *replyConsumer // nil: none

	// Written by the reader under mu, so that others may look.
	prefetch      uint32 // of consumers to come
	confirm       bool   // confirm mode
	transactional bool

	released                     atomic.Bool  // by the reader: it only waits for close-ok, if for anything
	uncommitted, acksUncommitted atomic.Int64 // what tx holds

	mu           sync.Mutex // after a queue's lock, before the outbox's
	gone         bool       // no deliveries, no confirms any more; guarded by mu, as all below
	nextTag      uint64
	unacked      unacked
	channelLimit int // prefetch of the whole channel, 0 = none
	parked       []*queue.Consumer
	consumers    map[string]*queue.Consumer
	confirms     confirms
	confirming   bool               // in the outbox's list
	stats        queue.MessageStats // of deliveries and acks
	collected    queue.MessageStats // of all, by Collect
}

func newChannel(c *conn, id uint16) *channel {
	return &channel{conn: c, id: id, router: c.vhost.NewRouter(), consumers: make(map[string]*queue.Consumer)}
}

// reply sends a method on this channel.
func (ch *channel) reply(m amqp.Method) { ch.conn.out.method(ch.id, m, &ch.conn.wakes) }

// Admit implements queue.Sink.
func (ch *channel) Admit(c *queue.Consumer, _ uint32) bool {
	if !c.NoAck {
		ch.mu.Lock()
		full := ch.channelLimit > 0 && ch.unacked.consumers >= ch.channelLimit
		if full {
			ch.parked = append(ch.parked, c)
		}
		ch.mu.Unlock()
		if full {
			return false
		}
	}
	return ch.conn.out.admit(c)
}

// Deliver implements queue.Sink.
func (ch *channel) Deliver(c *queue.Consumer, d *queue.Delivery, w *queue.Wakes) {
	ch.mu.Lock()
	ch.nextTag++
	if !d.NoAck {
		ch.unacked.push(outstanding{tag: ch.nextTag, seq: d.Seq, queue: c.Queue, consumer: c})
	}
	ch.stats.Delivered(d, false)
	ch.conn.out.deliver(ch, c.Tag, ch.nextTag, d, w)
	ch.mu.Unlock()
	if v := ch.conn.vhost; v.Tracing() {
		v.TraceDelivery(ch.tap(), c.Queue.About().Name, d, w)
	}
}

// Cancelled implements queue.Sink: the queue was deleted.
func (ch *channel) Cancelled(c *queue.Consumer) {
	var w queue.Wakes
	ch.mu.Lock()
	if ch.consumers[c.Tag] == c {
		delete(ch.consumers, c.Tag)
		ch.consumerEvent("consumer.deleted", c)
		if !ch.gone && ch.conn.client.cancelNotify {
			ch.conn.out.method(ch.id, &amqp.BasicCancel{ConsumerTag: c.Tag, NoWait: true}, &w)
		}
	}
	ch.mu.Unlock()
	w.Flush()
}

// TimedOut implements queue.Sink. A client that does not know cancel notices has its channel closed.
func (ch *channel) TimedOut(c *queue.Consumer, limit int64, w *queue.Wakes) []uint64 {
	ch.mu.Lock()
	seqs := ch.unacked.disown(c)
	if ch.gone {
		ch.mu.Unlock()
		return seqs
	}
	parked := ch.parked
	ch.parked = nil
	if ch.consumers[c.Tag] == c {
		delete(ch.consumers, c.Tag)
		ch.consumerEvent("consumer.deleted", c)
		if ch.conn.client.cancelNotify {
			ch.conn.out.method(ch.id, &amqp.BasicCancel{ConsumerTag: c.Tag, NoWait: true}, w)
		}
	}
	ch.mu.Unlock()
	for _, p := range parked {
		p.Queue.Unpark(p.ID, w)
	}
	if !ch.conn.client.cancelNotify && len(seqs) > 0 {
		ch.conn.interruptChannel(ch, amqp.PreconditionFailed(
			"delivery acknowledgement on channel %d timed out. Timeout value used: %d ms. This timeout value can be configured, see consumers doc guide to learn more", ch.id, limit))
	}
	return seqs
}

// Confirm implements storage.Confirmer. The store's committer calls it.
func (ch *channel) Confirm(seqs []uint64, alone bool) {
	if ch.settlePublishes(seqs, true) {
		ch.conn.out.Wake(alone)
	}
}

// settleHere is the outcome of a publish that the reader knows.
func (ch *channel) settleHere(seq uint64, ok bool) {
	if ch.settlePublishes([]uint64{seq}, ok) {
		ch.conn.wakes.Add(ch.conn.out)
	}
}

// settlePublishes notes outcomes of publishes; the writer turns them into acks. It reports
// whether the caller has to wake the writer.
func (ch *channel) settlePublishes(seqs []uint64, ok bool) (wake bool) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if ch.gone {
		return false
	}
	for _, seq := range seqs {
		ch.confirms.settle(seq, ok)
	}
	if ch.confirming || !ch.confirms.pending() {
		return false
	}
	ch.confirming = true
	return ch.conn.out.confirm(ch)
}

// sendConfirms encodes the acks that are due. The writer calls it, and the reader before a
// reply that must come after them.
func (ch *channel) sendConfirms() {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.confirming = false
	if ch.gone || !ch.confirms.pending() {
		return
	}
	if ch.conn.out.appendRaw(func(b []byte) []byte { return ch.confirms.encode(b, ch.id) }) {
		ch.conn.out.wakeWriter()
	}
}

// release gives everything back that the channel holds in the broker: consumers go, what
// they held is requeued. Nothing is sent on the channel afterwards but its close.
func (ch *channel) release() {
	w := &ch.conn.wakes
	if !ch.released.Swap(true) {
		ch.conn.openChannels.Add(-1)
		ch.conn.srv.o.Broker.ChannelClosed()
	}
	ch.mu.Lock()
	ch.gone = true
	consumers := ch.consumers
	ch.consumers = make(map[string]*queue.Consumer)
	ch.parked = nil
	ch.mu.Unlock()
	ch.content.drop()
	ch.endReplies()
	if ch.tx != nil {
		ch.restore(ch.tx) // closing rolls back
		ch.tx = nil
	}

	// First the consumers, so that what is requeued does not come back here; an
	// auto-delete queue that goes with its last one takes its messages along.
	for _, c := range consumers {
		c.Queue.Unsubscribe(c.ID, w)
		ch.consumerEvent("consumer.deleted", c)
	}
	ch.closedEvent(len(consumers))
	ch.mu.Lock()
	held := ch.unacked.takeAll()
	ch.mu.Unlock()
	forEachQueue(held, func(q queue.Source, seqs []uint64) { q.Requeue(seqs, true, w) })
	ch.Collect()
}

// forEachQueue calls fn for every run of deliveries that are of the same queue.
func forEachQueue(list []outstanding, fn func(q queue.Source, seqs []uint64)) {
	var seqs []uint64
	for i := 0; i < len(list); {
		q := list[i].queue
		seqs = seqs[:0]
		for ; i < len(list) && list[i].queue == q; i++ {
			seqs = append(seqs, list[i].seq)
		}
		fn(q, seqs)
	}
}

// fail closes the channel with an error: channel.close is sent and everything but the
// close handshake ignored until it is answered.
func (ch *channel) fail(err *amqp.Error) {
	ch.conn.log.Warn().Uint16("channel", ch.id).Uint16("code", err.Code).Str("method", err.MethodID().String()).
		Str("vhost", ch.conn.vhost.Name()).Str("user", ch.conn.session.User().Name).Msg(err.Text)
	ch.sendConfirms()
	ch.release()
	ch.closing = true
	ch.reply(err.ChannelClose())
}

// unparkAll lets the consumers go on that waited for the channel's prefetch.
func (ch *channel) unparkAll() {
	ch.mu.Lock()
	list := ch.parked
	ch.parked = nil
	ch.mu.Unlock()
	for _, c := range list {
		c.Queue.Unpark(c.ID, &ch.conn.wakes)
	}
}
