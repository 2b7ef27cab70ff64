package main

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/bench/histogram"
	"github.com/settmq/settmq/bench/wire"
)

const (
	// batchBytes and batchMost bound what one write sends.
	batchBytes = 128 << 10
	batchMost  = 1000

	// behindLimit is how far a broker may be behind at a fixed rate before the run fails.
	behindLimit = 20 * time.Second
)

// publisher publishes on one connection. Its goroutine writes; if it publishes without
// confirms or at a fixed rate, a second one reads.
type publisher struct {
	run   *run
	conn  *wire.Conn
	batch *wire.Batch
	most  int // messages in one write

	sent, confirmed, nacked, returned, blocked atomic.Uint64

	lag histogram.Histogram // owned by the writer, until it has ended

	mu       sync.Mutex // taken only at a fixed rate, where two goroutines use the window
	window   *window
	confirms histogram.Histogram
}

func newPublisher(r *run, i int) (*publisher, error) {
	conn, err := wire.Open(r.env.url, fmt.Sprintf("%s publisher %d", r.env.prefix, i))
	if err != nil {
		return nil, err
	}
	s := &r.scenario
	p := &publisher{run: r, conn: conn, most: min(max(batchBytes/(s.Body+100), 1), batchMost)}
	var targets []wire.Target
	for j, t := range r.targets {
		if j%s.Publishers == i%len(r.targets) || j == i%len(r.targets) {
			targets = append(targets, t)
		}
	}
	if s.Window > 0 {
		if _, err := conn.Call(&amqp.ConfirmSelect{}, amqp.ConfirmSelectOkID); err != nil {
			_ = conn.Close()
			return nil, err
		}
		size := s.Window
		if s.Rate > 0 {
			size = max(s.Rate/s.Publishers*int(behindLimit/time.Second), 1000)
		}
		p.window = newWindow(size)
		p.most = min(p.most, size)
	}
	p.batch = wire.NewBatch(wire.BatchOptions{
		Targets: targets, Body: bodyOf(s.Body), Persistent: s.Persistent, FrameMax: conn.FrameMax(), Most: p.most,
	})
	return p, nil
}

// bodyOf returns bytes that do not compress, the same in every run.
func bodyOf(n int) []byte {
	b := make([]byte, n)
	x := uint64(0x9E3779B97F4A7C15)
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x >> 32)
	}
	return b
}

// start runs the goroutines. r.writers is done when everything is published and, with
// confirms, confirmed; r.readers when the connection is closed.
func (p *publisher) start() {
	r := p.run
	write := p.flood
	switch {
	case r.scenario.Rate > 0:
		write = p.pace
	case p.window != nil:
		write = p.windowed
	}
	r.writers.Go(func() { r.report(write()) })
	if r.scenario.Rate > 0 || p.window == nil {
		r.readers.Go(func() { r.report(p.listen()) })
	}
}

// flood publishes without confirms as fast as the broker reads.
func (p *publisher) flood() error {
	for !p.run.stopping.Load() {
		n := p.run.gate.acquire(p.run.take(p.most))
		if n == 0 {
			return nil
		}
		if err := p.conn.Write(p.batch.Take(n)); err != nil {
			return err
		}
		p.sent.Add(uint64(n))
	}
	return nil
}

// windowed publishes with a bound on unconfirmed messages. One goroutine writes and reads:
// it fills the window and then waits for a confirm, so nothing is handed to another thread.
func (p *publisher) windowed() error {
	for {
		n := 0
		if !p.run.stopping.Load() {
			n = p.admit(p.run.take(min(p.window.room(), p.most)))
		}
		switch {
		case n > 0:
			p.window.publish(n, p.run.now())
			if err := p.conn.Write(p.batch.Take(n)); err != nil {
				return err
			}
			p.sent.Add(uint64(n))
			if p.window.room() > 0 {
				continue
			}
		case p.window.outstanding() == 0:
			return nil
		}
		if err := p.conn.Fill(); err != nil {
			return err
		}
		if err := p.events(); err != nil {
			return err
		}
	}
}

// admit asks the gate for n messages, and waits only if there is no confirm to wait for.
func (p *publisher) admit(n int) int {
	if n == 0 {
		return 0
	}
	got := p.run.gate.tryAcquire(n)
	if got == 0 && p.window.outstanding() == 0 {
		got = p.run.gate.acquire(n)
	}
	p.run.putBack(n - got)
	return got
}

// pace publishes at a fixed rate whatever the broker does (open loop). Every message
// carries the time at which it was due, so being late is part of the latency.
func (p *publisher) pace() error {
	exactSleeps()
	s := &p.run.scenario
	interval := time.Duration(float64(time.Second) * float64(s.Publishers) / float64(s.Rate))
	due := p.run.now()
	for !p.run.stopping.Load() {
		now := p.run.now()
		if now < due {
			sleep(due - now)
			continue
		}
		n := min(int((now-due)/interval)+1, p.most)
		measuring := p.run.measuring.Load()
		for i := range n {
			at := due + time.Duration(i)*interval
			p.batch.Stamp(i, uint64(at))
			if measuring {
				p.lag.Record(now - at)
			}
		}
		if err := p.note(n, due, interval); err != nil {
			return err
		}
		if err := p.conn.Write(p.batch.Take(n)); err != nil {
			return err
		}
		p.sent.Add(uint64(n))
		due += time.Duration(n) * interval
	}
	return nil
}

// note enters n publishes into the window.
func (p *publisher) note(n int, due, interval time.Duration) error {
	if p.window == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.window.room() < n {
		return fmt.Errorf("the broker is more than %v behind with its confirms", behindLimit)
	}
	for i := range n {
		p.window.publish(1, due+time.Duration(i)*interval)
	}
	return nil
}

// listen reads until the connection is closed.
func (p *publisher) listen() error {
	for {
		if err := p.conn.Fill(); err != nil {
			if errors.Is(err, wire.ErrClosed) {
				return nil
			}
			return err
		}
		if err := p.events(); err != nil {
			return err
		}
	}
}

// events handles what the last read brought.
func (p *publisher) events() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var h *histogram.Histogram
	if p.run.measuring.Load() {
		h = &p.confirms
	}
	now := p.run.now()
	confirmed := 0
	defer func() { p.confirmed.Add(uint64(confirmed)) }()
	var e wire.Event
	for {
		ok, err := p.conn.Next(&e)
		if !ok || err != nil {
			return err
		}
		switch e.Kind {
		case wire.Ack, wire.Nack:
			if p.window == nil {
				return errors.New("a confirm that nobody asked for")
			}
			n, err := p.window.settle(e.Tag, e.Multiple, now, h)
			if err != nil {
				return err
			}
			if e.Kind == wire.Ack {
				confirmed += n
			} else {
				p.nacked.Add(uint64(n))
				p.run.gate.release(n * p.run.gate.weight)
			}
		case wire.Return:
			p.returned.Add(1)
			p.run.gate.release(p.run.gate.weight)
		case wire.Blocked:
			p.blocked.Add(1)
		}
	}
}
