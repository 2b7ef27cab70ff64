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
	return store.Reserve(n)
}

// holdPublisher waits while an alarm is on. The client hears of it, if it wants to; its
// deliveries go on, and so do the confirms of what it has published.
func (c *conn) holdPublisher() {
	alarms := c.srv.o.Broker.Alarms()
	for alarms.Blocked() {
		c.mu.Lock()
		resume := make(chan struct{})
		c.resume = resume
		c.mu.Unlock()
		if reason := alarms.Reason(); reason == "" {
			break
		} else if c.client.blockedNotify && !c.blockedSent {
			c.blockedSent = true
			c.out.method(0, &amqp.ConnectionBlocked{Reason: reason}, &c.wakes)
		}
		c.flushAcks()
		c.wakes.Flush()
		c.paused.Store(true)
		select {
		case <-resume:
		case <-c.stop:
			c.paused.Store(false)
			return
		}
		c.paused.Store(false)
	}
	if c.blockedSent {
		c.blockedSent = false
		c.out.method(0, &amqp.ConnectionUnblocked{}, &c.wakes)
	}
}

// alarmChanged hears that publishers may go on, or must wait.
func (c *conn) alarmChanged(reason string) {
	if reason != "" {
		return // the next publish finds out
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.resume != nil {
		close(c.resume)
		c.resume = nil
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
