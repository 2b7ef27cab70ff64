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

// repeat runs do in as many goroutines as the scenario has publishers, until it returns
// errDone or an error. It returns how often it ran and the distribution of its durations.
func (r *run) repeat(do func(worker, i int) error) (uint64, *histogram.Histogram, error) {
	var (
		wg    sync.WaitGroup
		count atomic.Uint64
		next  atomic.Int64
		mu    sync.Mutex
		all   histogram.Histogram // guarded by mu
	)
	for w := range r.scenario.Publishers {
		wg.Go(func() {
			var h histogram.Histogram
			defer func() {
				mu.Lock()
				defer mu.Unlock()
				all.Merge(&h)
			}()
			for {
				start := time.Now()
				err := do(w, int(next.Add(1)-1))
				if err != nil {
					if !errors.Is(err, errDone) {
						r.report(err)
					}
					return
				}
				h.Record(time.Since(start))
				count.Add(1)
			}
		})
	}
	wg.Wait()
	return count.Load(), &all, r.failure
}

// errDone ends repeat.
var errDone = errors.New("done")

// measured runs one phase of operations.
func (r *run) measured(name string, do func(worker, i int) error) (Phase, error) {
	ph := Phase{Name: name}
	m := startMeter(r.env.pid)
	n, h, err := r.repeat(do)
	ph.Operations = n
	err = errors.Join(err, m.stop(&ph, 0))
	ph.Operate = newLatency(h)
	return ph, err
}

// idle opens connections with a channel each, and then leaves them alone.
func (r *run) idle(res *Result) error {
	conns := make([]*wire.Conn, r.scenario.Count)
	defer func() {
		for _, c := range conns {
			if c != nil {
				_ = c.Close()
			}
		}
	}()
	open, err := r.measured("open", func(_, i int) (err error) {
		if i >= len(conns) {
			return errDone
		}
		conns[i], err = wire.Open(r.env.url, fmt.Sprintf("%s idle %d", r.env.prefix, i))
		return err
	})
	if err != nil {
		return err
	}
	res.Phases = append(res.Phases, open)

	ph := Phase{Name: "idle"}
	m := startMeter(r.env.pid)
	if err := r.wait(r.env.duration); err != nil {
		return err
	}
	ph.Operations = uint64(len(conns)) // costs are per connection
	if err := m.stop(&ph, 0); err != nil {
		return err
	}
	ph.OperationRate = 0
	if ph.Cost != nil && open.Cost != nil {
		ph.Cost.RSSGrowth = open.Cost.RSSGrowth + ph.Cost.RSSGrowth // since before the first connection
		ph.Cost.PerUnit = float64(ph.Cost.RSSGrowth) / float64(len(conns))
	}
	res.Phases = append(res.Phases, ph)
	return nil
}

// churn opens a connection and a channel and closes both properly, over and over.
func (r *run) churn(res *Result) error {
	end := time.Now().Add(r.env.duration)
	ph, err := r.measured("connection and channel", func(_, i int) error {
		if time.Now().After(end) {
			return errDone
		}
		c, err := wire.Open(r.env.url, fmt.Sprintf("%s churn %d", r.env.prefix, i))
		if err != nil {
			return err
		}
		return c.CloseGracefully()
	})
	if err != nil {
		return err
	}
	res.Phases = append(res.Phases, ph)

	workers, err := r.workers()
	if err != nil {
		return err
	}
	defer closeAll(workers)
	end = time.Now().Add(r.env.duration)
	ph, err = r.measured("channel", func(w, _ int) error {
		if time.Now().After(end) {
			return errDone
		}
		return workers[w].CycleChannel(2)
	})
	if err != nil {
		return err
	}
	res.Phases = append(res.Phases, ph)
	return nil
}

// workers opens a connection for each goroutine of repeat.
func (r *run) workers() ([]*wire.Conn, error) {
	var list []*wire.Conn
	for i := range r.scenario.Publishers {
		c, err := wire.Open(r.env.url, fmt.Sprintf("%s worker %d", r.env.prefix, i))
		if err != nil {
			closeAll(list)
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

func closeAll(conns []*wire.Conn) {
	for _, c := range conns {
		_ = c.Close()
	}
}

// declare declares durable queues, each declare waiting for its answer, and deletes them.
func (r *run) declare(res *Result) error {
	workers, err := r.workers()
	if err != nil {
		return err
	}
	defer closeAll(workers)
	name := func(i int) string { return fmt.Sprintf("%s.d%d", r.env.prefix, i) }
	for i := range r.scenario.Count {
		r.queues = append(r.queues, name(i)) // for tearDown, should a phase fail
	}
	for _, phase := range []struct {
		name  string
		make  func(queue string) amqp.Method
		reply amqp.MethodID
	}{
		{"declare", func(q string) amqp.Method {
			return &amqp.QueueDeclare{Queue: q, Durable: true, Arguments: r.scenario.queueArguments()}
		}, amqp.QueueDeclareOkID},
		{"delete", func(q string) amqp.Method { return &amqp.QueueDelete{Queue: q} }, amqp.QueueDeleteOkID},
	} {
		ph, err := r.measured(phase.name, func(w, i int) error {
			if i >= r.scenario.Count {
				return errDone
			}
			_, err := workers[w].Call(phase.make(name(i)), phase.reply)
			return err
		})
		if err != nil {
			return err
		}
		if ph.Cost != nil && phase.name == "declare" {
			ph.Cost.PerUnit = float64(ph.Cost.RSSGrowth) / float64(r.scenario.Count)
		}
		res.Phases = append(res.Phases, ph)
	}
	r.queues = nil
	return nil
}
