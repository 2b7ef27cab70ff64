package main

import (
	"math/rand/v2"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// style is a manner of consuming.
type style struct {
	name     string
	prefetch int
	batch    int           // ack so many at once, with multiple; 0 acks singly
	nack     float64       // share that goes back with nack or reject and requeue
	hold     time.Duration // work per message
	quit     int           // close the channel after about so many deliveries, some unacked
	get      bool          // use basic.get
}

var styles = []style{
	{name: "steady", prefetch: 50, nack: 0.03},
	{name: "batch", prefetch: 300, batch: 40, nack: 0.01},
	{name: "slow", prefetch: 3, hold: 500 * time.Microsecond, nack: 0.1},
	{name: "quitter", prefetch: 100, nack: 0.02, quit: 400},
	{name: "greedy", batch: 10},
	{name: "getter", nack: 0.05, get: true},
}

// drainer takes everything.
var drainer = style{name: "drainer", prefetch: 500, batch: 50}

// flushAfter is how long a batch may stay open when nothing comes.
const flushAfter = 5 * time.Millisecond

// consume adds a consumer of a queue.
func (c *crowd) consume(queue int, s style) {
	c.client(func(conn *amqp.Connection, rng *rand.Rand) {
		for c.ctx.Err() == nil {
			ch, err := conn.Channel()
			if err != nil {
				return
			}
			c.watch(ch)
			k := &consumer{c: c, style: s, ch: ch, rng: rng, queue: queue, stream: streams.Add(1)}
			if s.get {
				err = k.poll()
			} else {
				err = k.follow()
			}
			if err != nil {
				return
			}
		}
	})
}

// consumer is one channel of a consumer.
type consumer struct {
	style
	c      *crowd
	ch     *amqp.Channel
	rng    *rand.Rand
	queue  int
	stream uint64
	open   []taken // not settled, in the order of their tags
}

type taken struct {
	id  MessageID
	tag uint64
}

// follow consumes until the channel ends. A nil error means that it may be opened again.
func (k *consumer) follow() error {
	if err := k.ch.Qos(k.prefetch, 0, false); err != nil {
		return err
	}
	deliveries, err := k.ch.Consume(k.c.t.queues[k.queue], "", false, false, false, false, nil)
	if err != nil {
		return err
	}
	quit := 0
	if k.quit > 0 {
		quit = 1 + k.rng.IntN(2*k.quit)
	}
	flush := time.NewTicker(flushAfter)
	defer flush.Stop()
	for n := 1; ; n++ {
		select {
		case d, ok := <-deliveries:
			if !ok {
				return amqp.ErrClosed
			}
			k.take(d)
			if k.hold > 0 {
				time.Sleep(k.hold) // work
			}
			if n == quit {
				return k.ch.Close() // this one and perhaps others go back
			}
			if err := k.answer(d); err != nil {
				k.rest(deliveries)
				return err
			}
		case <-flush.C:
			if err := k.flush(); err != nil {
				k.rest(deliveries)
				return err
			}
		case <-k.c.ctx.Done():
			if err := k.flush(); err != nil {
				k.rest(deliveries)
				return err
			}
			return k.ch.Close()
		}
	}
}

// rest records what had arrived when the connection broke.
func (k *consumer) rest(deliveries <-chan amqp.Delivery) {
	for d := range deliveries {
		k.take(d)
	}
}

// poll takes messages with basic.get.
func (k *consumer) poll() error {
	pause := time.NewTicker(2 * time.Millisecond)
	defer pause.Stop()
	for k.c.ctx.Err() == nil {
		d, ok, err := k.ch.Get(k.c.t.queues[k.queue], false)
		if err != nil {
			return err
		}
		if !ok {
			<-pause.C
			continue
		}
		k.take(d)
		if err := k.answer(d); err != nil {
			return err
		}
	}
	return k.ch.Close()
}

// take records a delivery.
func (k *consumer) take(d amqp.Delivery) {
	id, err := open(d.MessageId, d.Type, d.Body)
	if err != nil {
		k.c.t.checker.Violate(Violation{Kind: Corrupt, Queue: k.c.t.queues[k.queue], ID: d.MessageId, Detail: err.Error()})
	}
	k.c.t.checker.Delivered(k.queue, id, k.stream, d.Redelivered)
	k.open = append(k.open, taken{id, d.DeliveryTag})
}

// answer settles the delivery that was just taken, or keeps it for the batch.
func (k *consumer) answer(d amqp.Delivery) error {
	if k.rng.Float64() < k.nack {
		k.open = k.open[:len(k.open)-1]
		if k.rng.IntN(2) == 0 {
			return d.Reject(true)
		}
		return d.Nack(false, true)
	}
	if k.batch > 0 {
		if len(k.open) < k.batch {
			return nil
		}
		if k.rng.IntN(50) == 0 { // the whole batch goes back
			k.open = k.open[:0]
			return d.Nack(true, true)
		}
		return k.flush()
	}
	last := k.open[len(k.open)-1]
	k.open = k.open[:len(k.open)-1]
	k.c.t.checker.Settling(k.queue, last.id)
	if k.rng.IntN(50) == 0 {
		return d.Reject(false) // dropped: there is no dead-letter exchange
	}
	return d.Ack(false)
}

// flush acks everything that is open.
func (k *consumer) flush() error {
	if len(k.open) == 0 {
		return nil
	}
	for _, m := range k.open {
		k.c.t.checker.Settling(k.queue, m.id)
	}
	tag := k.open[len(k.open)-1].tag
	k.open = k.open[:0]
	return k.ch.Ack(tag, true)
}
