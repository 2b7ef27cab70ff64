package server

import (
	"time"

	"github.com/settmq/settmq/amqp"
)

// reserve waits until the store takes another n bytes. It is the only place where a
// publisher waits for the disk; no lock is held.
func (c *conn) reserve(n int) error {
	store := c.srv.o.Broker.Store()
	if store.TryReserve(n) {
		return nil
	}
	c.flushAcks()
	c.wakes.Flush()
	c.paused.Store(true)
	defer c.paused.Store(false)
	return store.Reserve(n)
}

// maxHeld bounds the publishes, in bytes, that a connection may send ahead while an alarm is
// on. Within it the connection is still read, so that the acks of its consumers count; a
// client that goes on publishing is not read any more until the alarm clears.
const maxHeld = 256 << 10

// heldPublish is a complete publish that waits for an alarm to clear.
type heldPublish struct {
	ch      *channel
	content content
}

// mustHold reports whether a publish has to wait, or to line up behind one that does.
func (c *conn) mustHold() bool { return len(c.held) > 0 || c.vhost.PublishersWait() }

// hold keeps the finished publish of ch for later and tells the client, if it wants to know,
// to stop publishing.
func (c *conn) hold(ch *channel) {
	c.held = append(c.held, heldPublish{ch, ch.content})
	c.heldBytes += len(ch.content.data) + len(ch.content.exchange) + len(ch.content.routingKey)
	ch.content = content{}
	c.mu.Lock()
	c.holding = true
	c.mu.Unlock()
	if reason := c.vhost.WaitReason(); reason != "" && c.client.blockedNotify && !c.blockedSent {
		c.blockedSent = true
		c.out.method(0, &amqp.ConnectionBlocked{Reason: reason}, &c.wakes)
	}
	if c.heldBytes >= maxHeld {
		c.awaitAlarm()
	}
	if !c.vhost.PublishersWait() { // over already: the wake may have come before holding was set
		c.releaseHeld()
	}
}

// releaseHeld carries the held publishes out, in their order, unless publishers have to wait again.
func (c *conn) releaseHeld() {
	for len(c.held) > 0 && c.state == running && !c.vhost.PublishersWait() {
		h := c.held[0]
		c.held = c.held[1:]
		if h.ch.closing {
			continue
		}
		if err := h.ch.checkedPublish(&h.content); err != nil {
			c.failed(h.ch, err.For(amqp.BasicPublishID))
		}
	}
	if len(c.held) > 0 {
		return
	}
	c.held, c.heldBytes = nil, 0
	c.mu.Lock()
	c.holding = false
	c.mu.Unlock()
	if c.blockedSent && c.state == running {
		c.blockedSent = false
		c.out.method(0, &amqp.ConnectionUnblocked{}, &c.wakes)
	}
}

// awaitAlarm stops reading the connection until publishers may go on, or the connection ends.
func (c *conn) awaitAlarm() {
	c.paused.Store(true)
	defer c.paused.Store(false)
	for c.vhost.PublishersWait() {
		c.mu.Lock()
		if c.resume == nil {
			c.resume = make(chan struct{})
		}
		resume := c.resume
		c.mu.Unlock()
		if !c.vhost.PublishersWait() {
			return
		}
		c.flushAcks()
		c.wakes.Flush()
		select {
		case <-resume:
		case <-c.stop:
			return
		}
	}
}

// lookAgain hears that publishers may go on, perhaps not those of this connection.
func (c *conn) lookAgain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.resume != nil {
		close(c.resume)
		c.resume = nil
	}
	if c.holding {
		c.resumed = true
		_ = c.nc.SetReadDeadline(time.Unix(1, 0)) // wakes the reader
	}
}

// beatState is what the heartbeat goroutine remembers of a connection.
type beatState struct {
	nextSend, nextCheck time.Time
	written, received   uint64
	silent              int // checks without a byte
}

// beat sends a heartbeat after half an interval without another frame, and cuts a peer off
// that sent nothing for two intervals (AMQP 0-9-1 §4.2.7). While the reader is held by an
// alarm it cannot know, so the peer is given the benefit of the doubt.
func (c *conn) beat(now time.Time) {
	interval := time.Duration(c.heartbeat.Load())
	if interval == 0 {
		return
	}
	b := &c.beats
	if b.nextSend.IsZero() {
		b.nextSend, b.nextCheck = now.Add(interval/2), now.Add(interval)
		b.written, b.received = c.out.written.Load(), c.received.Load()
		return
	}
	if !now.Before(b.nextSend) {
		b.nextSend = now.Add(interval / 2)
		if w := c.out.written.Load(); w == b.written {
			c.out.heartbeat()
			b.written = w + 1
		} else {
			b.written = w
		}
	}
	if now.Before(b.nextCheck) {
		return
	}
	b.nextCheck = now.Add(interval)
	switch r := c.received.Load(); {
	case r != b.received || c.paused.Load():
		b.received, b.silent = r, 0
	default:
		if b.silent++; b.silent >= 2 {
			c.log.Warn().Dur("dur", interval).Msg("missed heartbeats from client, closing")
			c.out.kill()
		}
	}
}
