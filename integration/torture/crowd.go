package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// crowd is the clients of one life.
type crowd struct {
	t      *torturer
	ctx    context.Context // done when the clients shall finish in order
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	sockets []net.Conn // guarded by mu
	dead    bool       // guarded by mu; cut: nobody connects any more
	next    uint64     // guarded by mu; seeds handed out
}

// streams numbers the consuming channels of the process.
var streams atomic.Uint64

var errCut = errors.New("cut")

func newCrowd(t *torturer) *crowd {
	ctx, cancel := context.WithCancel(context.Background())
	return &crowd{t: t, ctx: ctx, cancel: cancel}
}

// cut drops every connection at once and waits until all clients have recorded what they got.
func (c *crowd) cut() {
	c.t.checker.Dying()
	c.mu.Lock()
	c.dead = true
	for _, s := range c.sockets {
		s.Close()
	}
	c.mu.Unlock()
	c.leave()
}

// leave lets the clients finish in order, within a bound.
func (c *crowd) leave() {
	c.cancel()
	timer := time.AfterFunc(settleTimeout, func() {
		c.t.checker.Violate(Violation{Kind: Stuck, Detail: "clients wait for the broker's answers"})
		c.mu.Lock()
		defer c.mu.Unlock()
		c.dead = true
		for _, s := range c.sockets {
			s.Close()
		}
	})
	defer timer.Stop()
	c.wg.Wait()
}

// client runs f with a connection and a random source of its own; errors end the client: the
// broker is being killed.
func (c *crowd) client(f func(conn *amqp.Connection, rng *rand.Rand)) {
	c.mu.Lock()
	c.next++
	rng := rand.New(rand.NewPCG(c.t.o.Seed, uint64(c.t.result.Kills)<<32|c.next))
	c.mu.Unlock()
	c.wg.Add(1)
	go func() {
		defer c.wg.Done()
		conn, err := amqp.DialConfig(c.t.url, amqp.Config{Dial: c.dial})
		if err != nil {
			return
		}
		defer conn.Close()
		f(conn, rng)
	}()
}

func (c *crowd) dial(network, addr string) (net.Conn, error) {
	s, err := amqp.DefaultDial(settleTimeout)(network, addr)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		s.Close()
		return nil, errCut
	}
	c.sockets = append(c.sockets, s)
	return s, nil
}

// watch notes it if the broker closes the channel: there is no reason to.
func (c *crowd) watch(ch *amqp.Channel) {
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))
	c.wg.Add(1)
	go func() {
		defer c.wg.Done()
		if err := <-closed; err != nil && err.Server {
			c.t.checker.Violate(Violation{Kind: Refused, Detail: err.Error()})
		}
	}()
}

// publish adds a publisher.
func (c *crowd) publish(int) {
	c.client(func(conn *amqp.Connection, rng *rand.Rand) {
		ch, err := conn.Channel()
		if err != nil {
			return
		}
		c.watch(ch)
		if err := ch.Confirm(false); err != nil {
			return
		}
		p := &publisher{c: c, ch: ch, rng: rng, number: c.t.checker.OpenChannel(), slots: make(chan struct{}, c.t.o.Window)}
		confirms := ch.NotifyPublish(make(chan amqp.Confirmation, c.t.o.Window))
		returns := ch.NotifyReturn(make(chan amqp.Return, 1))
		var wg sync.WaitGroup
		wg.Add(2)
		go func() {
			defer wg.Done()
			for confirm := range confirms {
				c.t.checker.Confirmed(MessageID{p.number, uint32(confirm.DeliveryTag)}, confirm.Ack)
				<-p.slots
			}
		}()
		go func() {
			defer wg.Done()
			for r := range returns {
				c.t.checker.Violate(Violation{Kind: Returned, ID: r.MessageId, Detail: r.ReplyText})
			}
		}()
		lost := ch.NotifyClose(make(chan *amqp.Error, 1))
		p.run(lost)
		conn.Close()
		wg.Wait()
	})
}

type publisher struct {
	c      *crowd
	ch     *amqp.Channel
	rng    *rand.Rand
	number uint32
	slots  chan struct{} // one taken per unconfirmed message
	body   []byte
}

// run publishes until the connection is lost, or, when the crowd leaves, until everything is
// confirmed.
func (p *publisher) run(lost <-chan *amqp.Error) {
	t := p.c.t
	pause := time.NewTicker(2 * time.Millisecond)
	defer pause.Stop()
	for n := 0; ; n++ {
		if n%64 == 0 {
			for t.checker.Backlog() > t.o.Backlog {
				select {
				case <-pause.C:
				case <-lost:
					return
				case <-p.c.ctx.Done():
				}
				if p.c.ctx.Err() != nil {
					break
				}
			}
		}
		select {
		case p.slots <- struct{}{}:
		case <-lost:
			return
		case <-p.c.ctx.Done():
			p.settle(lost)
			return
		}
		if p.c.ctx.Err() != nil {
			<-p.slots
			p.settle(lost)
			return
		}
		if err := p.send(); err != nil {
			return
		}
	}
}

// settle waits until nothing is outstanding.
func (p *publisher) settle(lost <-chan *amqp.Error) {
	for range cap(p.slots) {
		select {
		case p.slots <- struct{}{}:
		case <-lost:
			return
		}
	}
}

func (p *publisher) send() error {
	t := p.c.t
	route := p.rng.IntN(len(t.routes))
	transient := p.rng.IntN(20) == 0
	id := t.checker.Published(p.number, route, transient)
	p.body = appendBody(p.body[:0], id, bodySize(p.rng), p.rng.IntN(maxBody))
	msg := amqp.Publishing{MessageId: id.String(), Type: seal(p.body), Body: p.body, DeliveryMode: amqp.Persistent}
	if transient {
		msg.DeliveryMode = amqp.Transient
	}
	if p.rng.IntN(10) == 0 {
		msg.Headers = amqp.Table{"n": int32(id.Seq), "torture": true}
	}
	r := t.routes[route]
	return p.ch.PublishWithContext(context.Background(), r.Exchange, r.Key, p.rng.IntN(4) == 0, false, msg)
}
