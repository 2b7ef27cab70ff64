package main

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/bench/histogram"
	"github.com/settmq/settmq/bench/wire"
)

// consumer consumes from one or several queues on one connection and channel. Its one
// goroutine reads, and acknowledges everything a read brought with one write.
type consumer struct {
	run    *run
	conn   *wire.Conn
	queues []string
	ready  chan struct{} // closed when the broker has confirmed the last consumer
	acks   []byte

	delivered, redelivered atomic.Uint64
	first                  atomic.Int64 // when the first delivery came, since the run began; 0: not yet

	endToEnd histogram.Histogram // owned by the goroutine, until it has ended
}

func newConsumer(r *run, i int) (*consumer, error) {
	conn, err := wire.Open(r.env.url, fmt.Sprintf("%s consumer %d", r.env.prefix, i))
	if err != nil {
		return nil, err
	}
	c := &consumer{run: r, conn: conn, ready: make(chan struct{})}
	for j, q := range r.queues {
		if j%r.scenario.Consumers == i || j == i%len(r.queues) {
			c.queues = append(c.queues, q)
		}
	}
	if n := r.scenario.Prefetch; n > 0 {
		if _, err := conn.Call(&amqp.BasicQos{PrefetchCount: uint16(min(n, 65535))}, amqp.BasicQosOkID); err != nil {
			_ = conn.Close()
			return nil, err
		}
	}
	return c, nil
}

func (c *consumer) start() {
	c.run.readers.Go(func() {
		if err := c.consume(); !errors.Is(err, wire.ErrClosed) {
			c.run.report(err)
		}
	})
}

func (c *consumer) consume() error {
	var out []byte
	for i, q := range c.queues { // only the last answers: deliveries may come at once
		out = amqp.AppendMethod(out, 1, &amqp.BasicConsume{
			Queue: q, ConsumerTag: fmt.Sprint("c", i), NoAck: c.run.scenario.AutoAck, NoWait: i < len(c.queues)-1,
			Arguments: c.run.scenario.consumerArguments(),
		})
	}
	if err := c.conn.Write(out); err != nil {
		return err
	}
	for {
		if err := c.conn.Fill(); err != nil {
			return err
		}
		if err := c.burst(); err != nil {
			return err
		}
	}
}

// burst handles what one read brought.
func (c *consumer) burst() error {
	s := &c.run.scenario
	var now time.Duration
	stamped := s.Rate > 0 && c.run.measuring.Load()
	if stamped {
		now = c.run.now()
	}
	n, redelivered, last := 0, 0, uint64(0)
	c.acks = c.acks[:0]
	var e wire.Event
	for {
		ok, err := c.conn.Next(&e)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		switch e.Kind {
		case wire.Delivery:
			if c.delivered.Load() == 0 && n == 0 {
				c.first.Store(int64(time.Since(c.run.base)))
			}
			n++
			if e.Redelivered {
				redelivered++
			}
			if stamped {
				c.endToEnd.Record(now - time.Duration(e.Stamp))
			}
			last = e.Tag
			if !s.AutoAck && !s.Multiple {
				c.acks = amqp.AppendAck(c.acks, 1, e.Tag, false)
			}
		case wire.Other:
			switch e.Method.(type) {
			case *amqp.BasicConsumeOk:
				close(c.ready)
			case *amqp.BasicCancel:
				return errors.New("the broker cancelled a consumer")
			}
		}
	}
	if !s.AutoAck && s.Multiple && n > 0 {
		c.acks = amqp.AppendAck(c.acks, 1, last, true)
	}
	c.delivered.Add(uint64(n))
	if redelivered > 0 {
		c.redelivered.Add(uint64(redelivered))
	}
	if len(c.acks) > 0 {
		if err := c.conn.Write(c.acks); err != nil {
			return err
		}
	}
	c.run.gate.release(n)
	return nil
}
