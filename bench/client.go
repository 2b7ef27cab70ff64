package main

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/settmq/settmq/bench/histogram"
)

// client measures a flow as a program with RabbitMQ's Go client sees it. What it costs is
// the client's work more than the broker's.
func (r *run) client(res *Result) error {
	if err := r.setUp(res); err != nil {
		return err
	}
	c := &clientFlow{run: r, window: make(chan time.Duration, r.scenario.Window), quit: make(chan struct{})}
	defer c.close()
	if err := c.open(); err != nil {
		return err
	}
	for _, f := range []func() error{c.publish, c.confirm, c.consume} {
		c.all.Go(func() { r.report(f()) })
	}
	if err := r.wait(r.env.warmup); err != nil {
		return err
	}
	ph := Phase{Name: steady}
	r.measuring.Store(true)
	m := startMeter(r.env.pid)
	before := c.totals()
	err := r.wait(r.env.duration)
	ph.since(before, c.totals())
	r.measuring.Store(false)
	if err := errors.Join(err, m.stop(&ph, r.scenario.Body)); err != nil {
		return err
	}
	c.close()
	ph.Confirm = newLatency(&c.latency)
	res.Phases = append(res.Phases, ph)
	return nil
}

// clientFlow is a connection that publishes and one that consumes.
type clientFlow struct {
	run      *run
	pub, sub *amqp091.Connection
	out      *amqp091.Channel
	confirms chan amqp091.Confirmation
	messages <-chan amqp091.Delivery
	window   chan time.Duration // when each publish that is not confirmed was made
	quit     chan struct{}
	once     sync.Once
	all      sync.WaitGroup

	sent, confirmed, delivered atomic.Uint64

	latency histogram.Histogram // owned by confirm, until it has ended
}

func (c *clientFlow) open() (err error) {
	url := c.run.env.url.String()
	if c.pub, err = amqp091.Dial(url); err != nil {
		return err
	}
	if c.sub, err = amqp091.Dial(url); err != nil {
		return err
	}
	if c.out, err = c.pub.Channel(); err != nil {
		return err
	}
	if err := c.out.Confirm(false); err != nil {
		return err
	}
	c.confirms = c.out.NotifyPublish(make(chan amqp091.Confirmation, c.run.scenario.Window))
	in, err := c.sub.Channel()
	if err != nil {
		return err
	}
	if err := in.Qos(c.run.scenario.Prefetch, 0, false); err != nil {
		return err
	}
	c.messages, err = in.Consume(c.run.queues[0], "", false, false, false, false, nil)
	return err
}

// close ends the connections and with them the goroutines.
func (c *clientFlow) close() {
	c.once.Do(func() {
		close(c.quit)
		c.run.gate.giveUp()
		for _, conn := range []*amqp091.Connection{c.pub, c.sub} {
			if conn != nil {
				_ = conn.Close()
			}
		}
		c.all.Wait()
	})
}

// over tells an error of the broker from the end of the run.
func (c *clientFlow) over(err error) error {
	select {
	case <-c.quit:
		return nil
	default:
		return err
	}
}

func (c *clientFlow) publish() error {
	m := amqp091.Publishing{DeliveryMode: amqp091.Persistent, Body: bodyOf(c.run.scenario.Body)}
	for c.run.gate.acquire(1) == 1 {
		select {
		case c.window <- c.run.now():
		case <-c.quit:
			return nil
		}
		if err := c.out.Publish("", c.run.queues[0], false, false, m); err != nil {
			return c.over(err)
		}
		c.sent.Add(1)
	}
	return nil
}

func (c *clientFlow) confirm() error {
	for got := range c.confirms { // in the order of the publishes
		at := <-c.window
		if !got.Ack {
			return fmt.Errorf("publish %d was nacked", got.DeliveryTag)
		}
		c.confirmed.Add(1)
		if c.run.measuring.Load() {
			c.latency.Record(c.run.now() - at)
		}
	}
	return nil
}

func (c *clientFlow) consume() error {
	for d := range c.messages {
		if err := d.Ack(false); err != nil {
			return c.over(err)
		}
		c.delivered.Add(1)
		c.run.gate.release(1)
	}
	return nil
}

func (c *clientFlow) totals() totals {
	return totals{sent: c.sent.Load(), confirmed: c.confirmed.Load(), delivered: c.delivered.Load()}
}
