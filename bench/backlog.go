package main

import (
	"cmp"
	"errors"
	"fmt"
	"time"
)

// settleTime lets a broker finish what it does behind a load before its memory is read.
const settleTime = 2 * time.Second

// backlog fills the queues while nobody consumes, starts the broker again if that is
// asked for, and then drains them.
func (r *run) backlog(res *Result) error {
	if err := r.setUp(res); err != nil {
		return err
	}
	if err := r.fill(res); err != nil {
		return err
	}
	var started time.Duration
	if r.scenario.Restart {
		var err error
		if started, err = r.startAgain(); err != nil {
			return err
		}
	}
	begun := time.Since(r.base) - started // when the process was started, on the clock of the run
	if err := r.connectConsumers(); err != nil {
		return err
	}
	drain := Phase{Name: "drain"}
	before := r.totals()
	m := startMeter(r.env.pid)
	err := r.startConsumers()
	if err == nil {
		r.waitDelivered()
	}
	drain.since(before, r.totals())
	if err = errors.Join(err, m.stop(&drain, r.scenario.Body)); err != nil {
		return err
	}
	if started > 0 {
		drain.Start = started.Seconds()
		if first := r.firstDelivery(); first > 0 {
			drain.First = (first - begun).Seconds()
		}
	}
	res.Phases = append(res.Phases, drain)
	if err := r.finish(res); err != nil {
		return err
	}
	if res.Undelivered > 0 {
		return fmt.Errorf("%d messages of the backlog were not delivered; the drain rate includes %v of waiting", res.Undelivered, stallTimeout)
	}
	return nil
}

// fill publishes the backlog, first a part of it and then the rest, which is what is measured: the memory in between tells
// what a waiting message costs beyond all fixed windows, if the first part fills those.
func (r *run) fill(res *Result) error {
	first := cmp.Or(r.scenario.First, r.scenario.Count/5)
	if err := r.fillWith(first, &Phase{}); err != nil {
		return err
	}
	before, err := r.settledCost()
	if err != nil {
		return err
	}
	ph := Phase{Name: "fill"}
	r.measuring.Store(true)
	err = r.fillWith(r.scenario.Count-first, &ph)
	r.measuring.Store(false)
	if err != nil {
		return err
	}
	r.latencies(&ph)
	all, err := r.settledCost()
	if ph.Cost != nil {
		ph.Cost.RSS, ph.Cost.Anonymous = all.RSS, all.Anonymous
		ph.Cost.PerUnit = (float64(all.Anonymous) - float64(before.Anonymous)) / float64(r.scenario.Count-first)
	}
	res.Phases = append(res.Phases, ph)
	return err
}

// fillWith publishes n messages and waits for their confirms.
func (r *run) fillWith(n int, ph *Phase) error {
	r.limited = true
	r.budget.Store(int64(n))
	before := r.totals()
	m := startMeter(r.env.pid)
	if err := r.startPublishers(); err != nil {
		return err
	}
	r.writers.Wait()
	ph.since(before, r.totals())
	if err := m.stop(ph, r.scenario.Body); err != nil {
		return err
	}
	return r.failed()
}

// settledCost is what the broker holds after it was left alone for a while; of an unknown
// process nothing.
func (r *run) settledCost() (Cost, error) {
	if err := r.wait(r.env.settle); err != nil {
		return Cost{}, err
	}
	var ph Phase
	if err := startMeter(r.env.pid).stop(&ph, 0); err != nil || ph.Cost == nil {
		return Cost{}, err
	}
	return *ph.Cost, nil
}

// startAgain starts the broker again and returns how long that took; 0 if there is no
// command to do it with.
func (r *run) startAgain() (time.Duration, error) {
	r.closeFlows()
	_ = r.admin.CloseGracefully()
	took, err := r.env.restart(0)
	var skip skipped
	if errors.As(err, &skip) {
		return 0, nil
	}
	return took, err
}

// firstDelivery is when the first delivery came, on the clock of the run; 0: never.
func (r *run) firstDelivery() (first time.Duration) {
	for _, c := range r.consumers {
		if at := time.Duration(c.first.Load()); at > 0 && (first == 0 || at < first) {
			first = at
		}
	}
	return first
}
