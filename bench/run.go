package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/bench/histogram"
	"github.com/settmq/settmq/bench/wire"
)

const (
	readyTimeout = 30 * time.Second // for consumers to be confirmed, and for idle brokers to answer
	stallTimeout = 5 * time.Second  // without a delivery: what is missing will not come
	drainTimeout = 30 * time.Second // for publishers to get their last confirms

	probeTime = 300 * time.Millisecond // of the fsync probe before a run with persistent messages
)

// env is a broker and how to measure it.
type env struct {
	url      *url.URL
	label    string
	settings string
	broker   *target // who can start it again; nil: nobody
	pid      int     // 0: unknown, costs are not measured
	prefix   string  // of the names of everything a run declares
	warmup   time.Duration
	duration time.Duration
	settle   time.Duration

	probeDir string // on the broker's disk
}

// restart ends the broker and starts it again, every sync delayed by so many milliseconds.
// It returns how long the start took until a client was logged in.
func (e *env) restart(syncDelay int) (time.Duration, error) {
	if e.broker == nil || e.broker.command == "" {
		return 0, skipped("needs a command that starts the broker")
	}
	if err := e.broker.stop(); err != nil {
		return 0, err
	}
	e.broker.syncDelay = syncDelay
	start := time.Now()
	err := e.broker.start(os.Stderr)
	took := time.Since(start)
	e.pid = e.broker.process(e.url)
	return took, err
}

// skipped is why a scenario cannot be run on a broker. It is no failure of either.
type skipped string

func (s skipped) Error() string { return string(s) }

// run is one scenario on one broker.
type run struct {
	env      *env
	scenario Scenario
	base     time.Time
	admin    *wire.Conn
	exchange string // declared by us, or ""
	queues   []string
	targets  []wire.Target
	gate     *gate

	publishers []*publisher
	consumers  []*consumer
	writers    sync.WaitGroup
	readers    sync.WaitGroup

	measuring atomic.Bool
	stopping  atomic.Bool
	limited   bool
	budget    atomic.Int64 // messages that may still be published, if limited

	failOnce sync.Once
	failure  error         // set before broken is closed
	broken   chan struct{} // closed at the first error
}

// execute runs a scenario. A Result is returned in any case; its Error says what failed.
func execute(e *env, s Scenario) Result {
	res := Result{Scenario: s, Started: time.Now().UTC().Truncate(time.Second), Machine: describeMachine()}
	res.Broker = Broker{Label: e.label, URL: e.url.Redacted(), PID: e.pid, Settings: e.settings}
	err := s.check()
	if err == nil && s.Persistent && e.probeDir != "" {
		res.Machine.Probe, err = runProbe(e.probeDir, probeTime)
	}
	if err == nil {
		err = executeKind(e, s, &res)
	}
	var skip skipped
	if errors.As(err, &skip) {
		res.Skipped = skip.Error()
	} else if err != nil {
		res.Error = err.Error()
	}
	return res
}

// delayed runs f on a broker whose syncs are delayed, and starts it without the delay
// again. With a delay of 0 it only runs f.
func (e *env) delayed(ms int, f func() error) error {
	if ms == 0 {
		return f()
	}
	if _, err := e.restart(ms); err != nil {
		return err
	}
	err := f()
	_, back := e.restart(0)
	return errors.Join(err, back)
}

func executeKind(e *env, s Scenario, res *Result) error {
	return e.delayed(s.SyncDelay, func() error { return executeNow(e, s, res) })
}

func executeNow(e *env, s Scenario, res *Result) (err error) {
	if s.Restart && s.Kind != kindBacklog {
		var skip skipped
		if _, err := e.restart(0); err != nil && !errors.As(err, &skip) {
			return err
		}
	}
	admin, err := wire.Open(e.url, e.prefix+" admin")
	if err != nil {
		return err
	}
	res.Broker.describe(admin)
	res.Broker.PID = e.pid
	r := &run{env: e, scenario: s, base: time.Now(), admin: admin, broken: make(chan struct{})}
	weight := 1
	if s.Exchange == "fanout" {
		weight = s.Queues
	}
	r.gate = newGate(s.InFlight, weight)
	defer func() { err = errors.Join(err, r.tearDown()) }()
	switch s.Kind {
	case kindFlow:
		return r.flow(res)
	case kindBacklog:
		return r.backlog(res)
	case kindIdle:
		return r.idle(res)
	case kindChurn:
		return r.churn(res)
	case kindDeclare:
		return r.declare(res)
	case kindStart:
		return r.starts(res)
	case kindClient:
		return r.client(res)
	}
	return fmt.Errorf("unknown kind %q", s.Kind)
}

func (b *Broker) describe(c *wire.Conn) {
	text := func(name string) string {
		v, _ := c.Server().Get(name)
		return v.Text()
	}
	b.Product, b.Version = text("product"), text("version")
	b.Platform, b.Info = text("platform"), text("information")
	b.FrameMax = c.FrameMax()
}

// now is the time since the run began.
func (r *run) now() time.Duration { return time.Since(r.base) }

// report ends the run at the first error that is one.
func (r *run) report(err error) {
	if err == nil || errors.Is(err, wire.ErrClosed) {
		return
	}
	r.failOnce.Do(func() {
		r.failure = err
		close(r.broken)
		r.stopping.Store(true)
		r.gate.giveUp()
	})
}

// failed returns the first error so far.
func (r *run) failed() error {
	select {
	case <-r.broken:
		return r.failure
	default:
		return nil
	}
}

// take takes up to n messages from the budget.
func (r *run) take(n int) int {
	if !r.limited || n == 0 {
		return n
	}
	left := r.budget.Add(-int64(n))
	if left >= 0 {
		return n
	}
	got := max(n+int(left), 0)
	r.budget.Add(int64(n - got))
	return got
}

// putBack returns what take gave and was not published.
func (r *run) putBack(n int) {
	if r.limited && n > 0 {
		r.budget.Add(int64(n))
	}
}

// setUp declares the scenario's exchange, queues and bindings.
func (r *run) setUp(res *Result) error {
	s := &r.scenario
	for i := range s.Queues {
		name := fmt.Sprintf("%s.q%d", r.env.prefix, i)
		r.queues = append(r.queues, name)
		if _, err := r.admin.Call(&amqp.QueueDeclare{Queue: name, Durable: true, Arguments: s.queueArguments()}, amqp.QueueDeclareOkID); err != nil {
			return refused(s, err)
		}
	}
	if s.Exchange == "" {
		for _, q := range r.queues {
			r.targets = append(r.targets, wire.Target{RoutingKey: q})
		}
		return nil
	}
	name := r.env.prefix + ".x"
	if _, err := r.admin.Call(&amqp.ExchangeDeclare{Exchange: name, Type: s.Exchange, Durable: true}, amqp.ExchangeDeclareOkID); err != nil {
		return err
	}
	r.exchange = name
	if s.Exchange == "fanout" {
		r.targets = []wire.Target{{Exchange: name, RoutingKey: "any"}}
		return r.bind(len(r.queues), func(int) string { return "" })
	}
	for i := range s.Bindings {
		r.targets = append(r.targets, wire.Target{Exchange: name, RoutingKey: fmt.Sprintf("site.%d.sensor.temp", i)})
	}
	ph := Phase{Name: "bind", Operations: uint64(s.Bindings)}
	m := startMeter(r.env.pid)
	err := errors.Join(r.bind(s.Bindings, func(i int) string { return fmt.Sprintf("site.%d.*.temp", i) }), m.stop(&ph, 0))
	res.Phases = append(res.Phases, ph)
	return err
}

// refused tells a broker that does not have a type of queue from one that fails.
func refused(s *Scenario, err error) error {
	var e *amqp.Error
	if s.QueueType != "" && errors.As(err, &e) {
		return skipped(fmt.Sprintf("no queues of type %s: %s", s.QueueType, e.Text))
	}
	return err
}

func (s *Scenario) queueArguments() amqp.Table {
	if s.QueueType == "" {
		return nil
	}
	return amqp.Table{{Name: "x-queue-type", Value: amqp.String(s.QueueType)}}
}

// consumerArguments let a stream be read from its start.
func (s *Scenario) consumerArguments() amqp.Table {
	if s.QueueType != streamType {
		return nil
	}
	return amqp.Table{{Name: "x-stream-offset", Value: amqp.String("first")}}
}

// bind makes n bindings, spread over the queues. They are pipelined: only the last one of
// each hundred is answered.
func (r *run) bind(n int, key func(i int) string) error {
	var out []byte
	for i := range n {
		wait := i%100 == 99 || i == n-1
		out = amqp.AppendMethod(out, 1, &amqp.QueueBind{
			Queue: r.queues[i%len(r.queues)], Exchange: r.exchange, RoutingKey: key(i), NoWait: !wait,
		})
		if !wait {
			continue
		}
		if err := r.admin.Write(out); err != nil {
			return err
		}
		if _, err := r.admin.Await(amqp.QueueBindOkID); err != nil {
			return err
		}
		out = out[:0]
	}
	return nil
}

// closeFlows closes the publishers' and consumers' connections and waits for their goroutines.
func (r *run) closeFlows() {
	for _, p := range r.publishers {
		_ = p.conn.Close()
	}
	for _, c := range r.consumers {
		_ = c.conn.Close()
	}
	r.writers.Wait()
	r.readers.Wait()
}

// tearDown closes everything and deletes what setUp declared.
func (r *run) tearDown() error {
	r.stopping.Store(true)
	r.gate.giveUp()
	r.closeFlows()
	_ = r.admin.Close()
	if len(r.queues) == 0 && r.exchange == "" {
		return nil
	}
	admin, err := wire.Open(r.env.url, r.env.prefix+" admin") // the old one may have been closed by an error
	if err != nil {
		return fmt.Errorf("cleaning up: %w", err)
	}
	defer admin.Close()
	for _, q := range r.queues {
		if _, err := admin.Call(&amqp.QueueDelete{Queue: q}, amqp.QueueDeleteOkID); err != nil {
			return fmt.Errorf("cleaning up: %w", err)
		}
	}
	if r.exchange != "" {
		if _, err := admin.Call(&amqp.ExchangeDelete{Exchange: r.exchange}, amqp.ExchangeDeleteOkID); err != nil {
			return fmt.Errorf("cleaning up: %w", err)
		}
	}
	return admin.CloseGracefully()
}

// startPublishers connects as many as the scenario has before it starts the first.
func (r *run) startPublishers() error {
	before := len(r.publishers)
	for i := range r.scenario.Publishers {
		p, err := newPublisher(r, i)
		if err != nil {
			return err
		}
		r.publishers = append(r.publishers, p)
	}
	for _, p := range r.publishers[before:] {
		p.start()
	}
	return nil
}

func (r *run) connectConsumers() error {
	for i := range r.scenario.Consumers {
		c, err := newConsumer(r, i)
		if err != nil {
			return err
		}
		r.consumers = append(r.consumers, c)
	}
	return nil
}

// startConsumers returns when the broker has confirmed all consumers.
func (r *run) startConsumers() error {
	for _, c := range r.consumers {
		c.start()
	}
	deadline := time.After(readyTimeout)
	for _, c := range r.consumers {
		select {
		case <-c.ready:
		case <-r.broken:
			return r.failure
		case <-deadline:
			return fmt.Errorf("no consume-ok within %v", readyTimeout)
		}
	}
	return nil
}

// wait lets d pass, unless the run fails.
func (r *run) wait(d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-r.broken:
		return r.failure
	}
}

// totals are counts since the start of a run.
type totals struct{ sent, confirmed, nacked, returned, blocked, delivered, redelivered uint64 }

func (r *run) totals() (t totals) {
	for _, p := range r.publishers {
		t.sent += p.sent.Load()
		t.confirmed += p.confirmed.Load()
		t.nacked += p.nacked.Load()
		t.returned += p.returned.Load()
		t.blocked += p.blocked.Load()
	}
	for _, c := range r.consumers {
		t.delivered += c.delivered.Load()
		t.redelivered += c.redelivered.Load()
	}
	return t
}

// since sets the counts of a phase that began at before.
func (p *Phase) since(before, after totals) {
	p.Published = after.sent - before.sent
	p.Confirmed = after.confirmed - before.confirmed
	p.Delivered = after.delivered - before.delivered
}

// latencies adds the distributions to a phase, when all goroutines have ended.
func (r *run) latencies(ph *Phase) {
	var confirms, lag, endToEnd histogram.Histogram
	for _, p := range r.publishers {
		confirms.Merge(&p.confirms)
		lag.Merge(&p.lag)
	}
	for _, c := range r.consumers {
		endToEnd.Merge(&c.endToEnd)
	}
	ph.Confirm, ph.Lag, ph.EndToEnd = newLatency(&confirms), newLatency(&lag), newLatency(&endToEnd)
}

// flow measures one stretch of a steady stream.
func (r *run) flow(res *Result) error {
	if err := errors.Join(r.setUp(res), r.connectConsumers()); err != nil {
		return err
	}
	if err := r.startConsumers(); err != nil {
		return err
	}
	if err := r.startPublishers(); err != nil {
		return err
	}
	if err := r.wait(r.env.warmup); err != nil {
		return err
	}
	ph := Phase{Name: steady}
	r.measuring.Store(true)
	m := startMeter(r.env.pid)
	before := r.totals()
	if p := res.Machine.Probe; p != nil {
		ph.Sync = p.OverwriteP50us
	}
	err := r.wait(r.env.duration)
	ph.since(before, r.totals())
	err = errors.Join(err, m.stop(&ph, r.scenario.Body))
	r.measuring.Store(false)
	if err != nil {
		return err
	}
	err = r.finish(res)
	r.latencies(&ph)
	res.Phases = append(res.Phases, ph)
	return err
}

// finish stops publishing, waits for what is on its way, and closes the connections.
func (r *run) finish(res *Result) error {
	r.stopping.Store(true)
	r.gate.giveUp()
	err := r.waitWriters()
	if len(r.consumers) > 0 {
		r.waitDelivered()
	}
	t := r.totals()
	if want := r.expected(t); t.delivered < want && len(r.consumers) > 0 {
		res.Undelivered = want - t.delivered
	}
	res.Redelivered, res.Nacked, res.Returned, res.Blocked = t.redelivered, t.nacked, t.returned, t.blocked
	r.closeFlows()
	return err
}

// waitWriters waits until the publishers have ended.
func (r *run) waitWriters() error {
	done := make(chan struct{})
	go func() { r.writers.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-r.broken:
		return r.failure
	case <-time.After(drainTimeout):
		return fmt.Errorf("publishers got no answer within %v", drainTimeout)
	}
}

// expected is how many deliveries the publishes should lead to.
func (r *run) expected(t totals) uint64 {
	return (t.sent - min(t.nacked+t.returned, t.sent)) * uint64(r.gate.weight)
}

// waitDelivered waits until everything has arrived, or nothing has for a while.
func (r *run) waitDelivered() {
	last, since := uint64(0), time.Now()
	for time.Since(since) < stallTimeout {
		t := r.totals()
		if t.delivered >= r.expected(t) {
			return
		}
		if t.delivered > last {
			last, since = t.delivered, time.Now()
		}
		select {
		case <-r.broken:
			return
		case <-time.After(2 * time.Millisecond):
		}
	}
}
