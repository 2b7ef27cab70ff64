package server

import (
	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/queue"
)

// ackRun gathers the acks of a burst that are for one queue, so that a consumer which acks
// message by message costs the queue one lock for many.
type ackRun struct {
	queue queue.Source
	seqs  []uint64
}

// flushAcks hands the gathered acks to their queue.
func (c *conn) flushAcks() {
	if c.acks.queue == nil {
		return
	}
	c.acks.queue.Ack(c.acks.seqs, &c.wakes)
	c.acks.queue, c.acks.seqs = nil, c.acks.seqs[:0]
}

func (c *conn) addAck(o outstanding) {
	if c.acks.queue != o.queue {
		c.flushAcks()
		c.acks.queue = o.queue
	}
	c.acks.seqs = append(c.acks.seqs, o.seq)
}

// unknownTag refuses a delivery tag that is not outstanding on the channel.
func unknownTag(tag uint64) *amqp.Error {
	return amqp.PreconditionFailed("unknown delivery tag %d", tag)
}

// ack settles one delivery, or all up to and including it; tag 0 with multiple is all.
func (ch *channel) ack(tag uint64, multiple bool) *amqp.Error {
	if !multiple && ch.tx == nil {
		ch.mu.Lock()
		i := ch.unacked.find(tag)
		if i < 0 {
			ch.mu.Unlock()
			return unknownTag(tag)
		}
		o := ch.unacked.take(i)
		ch.stats.Ack++
		parked := len(ch.parked) > 0
		ch.mu.Unlock()
		ch.conn.addAck(o)
		if parked {
			ch.conn.flushAcks()
			ch.unparkAll()
		}
		return nil
	}
	return ch.settle(tag, multiple, settleAck)
}

// nack is basic.reject and basic.nack. Only a reject counts as a failed delivery, as in RabbitMQ
// 4.3: with a nack a consumer may also mean that it is busy.
func (ch *channel) nack(tag uint64, multiple, requeue, failed bool) *amqp.Error {
	switch {
	case requeue && failed:
		return ch.settle(tag, multiple, settleFailed)
	case requeue:
		return ch.settle(tag, multiple, settleRequeue)
	}
	return ch.settle(tag, multiple, settleReject)
}

type settlement uint8

const (
	settleAck settlement = iota
	settleReject
	settleRequeue
	settleFailed // requeued, and it counts towards a delivery limit
)

// settle takes deliveries off the channel's list and settles them, at once or, in a
// transaction, when it commits.
func (ch *channel) settle(tag uint64, multiple bool, how settlement) *amqp.Error {
	ch.conn.flushAcks()
	list, err := ch.take(tag, multiple)
	if err != nil {
		return err
	}
	if ch.tx != nil {
		ch.acksUncommitted.Add(int64(len(list)))
		ch.tx.settle(list, how)
		return nil
	}
	ch.apply(list, how)
	return nil
}

func (ch *channel) take(tag uint64, multiple bool) ([]outstanding, *amqp.Error) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if multiple && tag == 0 {
		return ch.unacked.takeAll(), nil
	}
	i := ch.unacked.find(tag)
	if i < 0 {
		return nil, unknownTag(tag)
	}
	if multiple {
		return ch.unacked.takeThrough(i, nil), nil
	}
	return []outstanding{ch.unacked.take(i)}, nil
}

// apply settles deliveries in their queues.
func (ch *channel) apply(list []outstanding, how settlement) {
	if how == settleAck {
		ch.mu.Lock()
		ch.stats.Ack += uint64(len(list))
		ch.mu.Unlock()
	}
	w := &ch.conn.wakes
	forEachQueue(list, func(q queue.Source, seqs []uint64) {
		switch how {
		case settleAck:
			q.Ack(seqs, w)
		case settleReject:
			q.Reject(seqs, w)
		default:
			q.Requeue(seqs, how == settleFailed, w)
		}
	})
	ch.unparkAll()
}

// recoverDeliveries requeues everything that is outstanding on the channel.
func (ch *channel) recoverDeliveries(requeue bool) *amqp.Error {
	if !requeue {
		return amqp.NotImplemented("requeue=false")
	}
	ch.mu.Lock()
	list := ch.unacked.takeAll()
	ch.mu.Unlock()
	ch.apply(list, settleRequeue)
	return nil
}
