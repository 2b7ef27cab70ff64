package main

import (
	"errors"
	"fmt"
)

// backlog fills the queues while nobody consumes, and then drains them.
func (r *run) backlog(res *Result) error {
	if err := r.setUp(); err != nil {
		return err
	}
	r.limited = true
	r.budget.Store(int64(r.scenario.Count))
	r.measuring.Store(true)
	fill := Phase{Name: "fill"}
	m := startMeter(r.env.pid)
	if err := r.startPublishers(); err != nil {
		return err
	}
	r.writers.Wait()
	fill.since(totals{}, r.totals())
	if err := m.stop(&fill, r.scenario.Body); err != nil {
		return err
	}
	r.measuring.Store(false)
	if r.failure != nil {
		return r.failure
	}
	r.latencies(&fill)
	res.Phases = append(res.Phases, fill)

	if err := r.connectConsumers(); err != nil {
		return err
	}
	drain := Phase{Name: "drain"}
	before := r.totals()
	m = startMeter(r.env.pid)
	err := r.startConsumers()
	if err == nil {
		r.waitDelivered()
	}
	drain.since(before, r.totals())
	if err = errors.Join(err, m.stop(&drain, r.scenario.Body)); err != nil {
		return err
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
