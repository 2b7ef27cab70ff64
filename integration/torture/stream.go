package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	// A stream's publisher sends streamBurst messages every streamPace: enough for every kill to meet some on their way,
	// little beside what goes through the queues.
	streamBurst = 5
	streamPace  = 2 * time.Millisecond
	// streamReach is how far before its end most readers begin.
	streamReach = 3000
)

// StreamLog holds what the clients know of a stream and judges what they read:
//
//   - every confirmed message is in it, once;
//   - an offset has the same message whenever it is read;
//   - a reader gets every message from the offset on that it asked for, one after the other;
//   - the messages of a publishing channel are in the order in which they were published.
//
// Its methods may be called from any goroutine.
type StreamLog struct {
	name    string
	checker *Checker // is told the violations
	// Dense tells that no offset is without a message. RabbitMQ's log has some, for its own notes. Set before use.
	Dense bool

	mu         sync.Mutex
	sent       []uint32               // by channel, the number of its messages; channel 0 is not used
	at         []MessageID            // by offset, as far as known
	where      map[MessageID]int64    // the other way round
	owed       map[MessageID]struct{} // confirmed and not read yet
	confirms   int
	deliveries int
}

// NewStreamLog returns the log of an empty stream.
func NewStreamLog(name string, checker *Checker) *StreamLog {
	return &StreamLog{
		name: name, checker: checker, sent: make([]uint32, 1),
		where: map[MessageID]int64{}, owed: map[MessageID]struct{}{},
	}
}

// OpenChannel returns the number of a new publishing channel.
func (l *StreamLog) OpenChannel() uint32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent = append(l.sent, 0)
	return uint32(len(l.sent) - 1)
}

// Published notes the next message of a channel, before it is sent.
func (l *StreamLog) Published(channel uint32) MessageID {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent[channel]++
	return MessageID{channel, l.sent[channel]}
}

// Confirmed notes a positive confirm.
func (l *StreamLog) Confirmed(id MessageID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.confirms++
	if _, read := l.where[id]; !read {
		l.owed[id] = struct{}{}
	}
}

// End is the offset behind the last one that was read.
func (l *StreamLog) End() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int64(len(l.at))
}

// Whole is called when everything from an offset on has been read that was confirmed before: what is owed still is lost.
func (l *StreamLog) Whole() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.owed {
		l.violate(Lost, id, "confirmed, and not in the stream")
	}
	clear(l.owed)
}

func (l *StreamLog) violate(k Kind, id MessageID, format string, args ...any) {
	l.checker.Violate(Violation{Kind: k, Queue: l.name, ID: id.String(), Detail: fmt.Sprintf(format, args...)})
}

// streamReader is one consumer's way through a stream.
type streamReader struct {
	l    *StreamLog
	next int64             // the offset that must come
	last map[uint32]uint32 // by channel, the last message
}

// Reader returns the judge of what a consumer gets that asked for an offset.
func (l *StreamLog) Reader(offset int64) *streamReader {
	return &streamReader{l: l, next: offset, last: map[uint32]uint32{}}
}

// Delivered judges a delivery.
func (r *streamReader) Delivered(offset int64, id MessageID) {
	l := r.l
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deliveries++
	if offset != r.next && (l.Dense || offset < r.next || l.anyLocked(r.next, offset)) {
		l.violate(Disorder, id, "offset %d where %d belongs", offset, r.next)
	}
	r.next = offset + 1
	if offset < 0 || id.Channel == 0 || int(id.Channel) >= len(l.sent) || id.Seq == 0 || id.Seq > l.sent[id.Channel] {
		l.violate(Ghost, id, "never published there, at offset %d", offset)
		return
	}
	if last := r.last[id.Channel]; id.Seq <= last {
		l.violate(Disorder, id, "at offset %d behind %d.%d", offset, id.Channel, last)
	}
	r.last[id.Channel] = id.Seq
	for int64(len(l.at)) <= offset {
		l.at = append(l.at, MessageID{})
	}
	if known := l.at[offset]; known != id && known != (MessageID{}) {
		l.violate(Changed, id, "at offset %d, which had %v before", offset, known)
	}
	if other, ok := l.where[id]; ok && other != offset {
		l.violate(Duplicate, id, "at the offsets %d and %d", other, offset)
	}
	l.at[offset], l.where[id] = id, offset
	delete(l.owed, id)
}

// anyLocked reports whether a message is known in a range of offsets.
func (l *StreamLog) anyLocked(lo, hi int64) bool {
	for ; lo < hi && lo < int64(len(l.at)); lo++ {
		if l.at[lo] != (MessageID{}) {
			return true
		}
	}
	return false
}

// take judges a delivery as the client has it.
func (r *streamReader) take(d amqp.Delivery) MessageID {
	id, err := open(d.MessageId, d.Type, d.Body)
	if err != nil {
		r.l.violate(Corrupt, id, "%v", err)
	}
	offset, ok := d.Headers["x-stream-offset"].(int64)
	if !ok {
		offset = -1
	}
	r.Delivered(offset, id)
	return id
}

// publishStream adds a publisher of a stream.
func (c *crowd) publishStream(l *StreamLog) {
	c.client(func(conn *amqp.Connection, rng *rand.Rand) {
		ch, err := conn.Channel()
		if err != nil {
			return
		}
		c.watch(ch)
		if err := ch.Confirm(false); err != nil {
			return
		}
		p := &publisher{c: c, ch: ch, rng: rng, number: l.OpenChannel(), slots: make(chan struct{}, c.t.o.Window)}
		confirms := ch.NotifyPublish(make(chan amqp.Confirmation, c.t.o.Window))
		var wg sync.WaitGroup
		wg.Go(func() {
			for confirm := range confirms {
				if confirm.Ack {
					l.Confirmed(MessageID{p.number, uint32(confirm.DeliveryTag)})
				}
				<-p.slots
			}
		})
		lost := ch.NotifyClose(make(chan *amqp.Error, 1))
		p.runStream(l, lost)
		conn.Close()
		wg.Wait()
	})
}

// runStream publishes until the connection is lost, or, when the crowd leaves, until everything is confirmed.
func (p *publisher) runStream(l *StreamLog, lost <-chan *amqp.Error) {
	pace := time.NewTicker(streamPace)
	defer pace.Stop()
	for n := 0; ; n++ {
		if n%streamBurst == 0 {
			<-pace.C
		}
		select {
		case p.slots <- struct{}{}:
		case <-lost:
			return
		}
		if p.c.ctx.Err() != nil {
			<-p.slots
			p.settle(lost)
			return
		}
		if p.sendStream(l) != nil {
			return
		}
	}
}

func (p *publisher) sendStream(l *StreamLog) error {
	id := l.Published(p.number)
	p.body = appendBody(p.body[:0], id, bodySize(p.rng), p.rng.IntN(maxBody))
	// Streams keep transient messages, too.
	mode := []uint8{amqp.Transient, amqp.Persistent}[p.rng.IntN(2)]
	return p.ch.PublishWithContext(context.Background(), "", l.name, false, false,
		amqp.Publishing{MessageId: id.String(), Type: seal(p.body), Body: p.body, DeliveryMode: mode})
}

// readStream adds a reader that begins here and there.
func (c *crowd) readStream(l *StreamLog) {
	c.client(func(conn *amqp.Connection, rng *rand.Rand) {
		for c.ctx.Err() == nil {
			ch, err := conn.Channel()
			if err != nil {
				return
			}
			c.watch(ch)
			end := l.End()
			from := end - rng.Int64N(min(end, streamReach)+1)
			if rng.IntN(8) == 0 {
				from = 0
			}
			count := 1 + rng.IntN(2*streamReach)
			err = readStream(ch, l, from, func(MessageID) bool { count--; return count > 0 }, c.ctx.Done())
			if err != nil {
				return
			}
		}
	})
}

// readStream reads from an offset on until more says no or stop is closed, and closes the channel.
func readStream(ch *amqp.Channel, l *StreamLog, from int64, more func(MessageID) bool, stop <-chan struct{}) error {
	const ackEvery = 50
	if err := ch.Qos(4*ackEvery, 0, false); err != nil {
		return err
	}
	deliveries, err := ch.Consume(l.name, "", false, false, false, false, amqp.Table{"x-stream-offset": from})
	if err != nil {
		return err
	}
	r := l.Reader(from)
	for n := 1; ; n++ {
		select {
		case d, ok := <-deliveries:
			if !ok {
				return amqp.ErrClosed
			}
			if !more(r.take(d)) {
				return ch.Close()
			}
			if n%ackEvery == 0 {
				if err := d.Ack(true); err != nil {
					return err
				}
			}
		case <-stop:
			return ch.Close()
		}
	}
}

// verifyStreams reads the streams from where their readers have come, or all of them, up to a message that it publishes
// itself: every confirmed one must be there.
func (t *torturer) verifyStreams(whole bool) error {
	for _, l := range t.streams {
		from := int64(0)
		if !whole {
			from = t.verified[l]
		}
		err := t.admin(func(ch *amqp.Channel) error { return t.verifyStream(ch, l, from) })
		var refused *amqp.Error
		if errors.As(err, &refused) && refused.Code == amqp.NotFound {
			t.checker.Violate(Violation{Kind: Topology, Detail: err.Error()})
			return errBroken
		}
		if err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	return nil
}

func (t *torturer) verifyStream(ch *amqp.Channel, l *StreamLog, from int64) error {
	if _, err := ch.QueueDeclarePassive(l.name, true, false, false, false, nil); err != nil {
		return err
	}
	if err := ch.Confirm(false); err != nil {
		return err
	}
	fence := l.Published(l.OpenChannel())
	body := appendBody(nil, fence, bodyHead, 0)
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	confirm, err := ch.PublishWithDeferredConfirm("", l.name, false, false, amqp.Publishing{MessageId: fence.String(), Type: seal(body), Body: body})
	if err == nil {
		_, err = confirm.WaitContext(ctx)
	}
	found := false
	if err == nil {
		err = readStream(ch, l, from, func(id MessageID) bool { found = id == fence; return !found }, ctx.Done())
	}
	if err != nil && ctx.Err() == nil {
		return err
	}
	if !found {
		t.checker.Violate(Violation{Kind: Stuck, Queue: l.name, Detail: fmt.Sprintf("it cannot be read from offset %d to its end in %v", from, settleTimeout)})
		return errBroken
	}
	l.Whole()
	t.verified[l] = l.End() - 1
	return nil
}
