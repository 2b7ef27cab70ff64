package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/settmq/settmq/internal/testbroker"
)

const (
	// settleTimeout bounds how long a broker may take to answer, or to hand out what it has.
	settleTimeout = 60 * time.Second
	// quietTime without a delivery, with all queues empty, ends a drain.
	quietTime = 300 * time.Millisecond
	// barrenLives in a row without a confirm mean that the broker is stuck.
	barrenLives = 10
	// recoveryKillShare is how often the broker is killed again before it is up.
	recoveryKillShare = 0.15
)

// torturer is a run.
type torturer struct {
	o        Options
	rng      *rand.Rand // of the main goroutine
	broker   *testbroker.Broker
	url      string
	checker  *Checker
	queues   []string
	routes   []Route
	streams  []*StreamLog
	verified map[*StreamLog]int64 // offset up to which verifyStreams has read
	result   Result
	restarts []time.Duration
}

// Run makes a run. The error tells that it could not be made; a broken contract is in the
// result.
func Run(ctx context.Context, o Options) (*Result, error) {
	if o.Seed == 0 {
		o.Seed = uint64(time.Now().UnixNano())
	}
	t := &torturer{o: o, rng: rand.New(rand.NewPCG(o.Seed, 0)), result: Result{Options: o}}
	prefix := t.layout()
	t.checker = NewChecker(t.queues, t.routes)
	t.verified = map[*StreamLog]int64{}
	for i := range 2 {
		l := NewStreamLog(fmt.Sprintf("%s.s%d", prefix, i), t.checker)
		l.Dense = t.o.URL == ""
		t.streams = append(t.streams, l)
	}
	begin := time.Now()
	if err := t.setUp(ctx); err != nil {
		return nil, err
	}
	err := t.lives(ctx)
	if err == nil {
		err = t.lastLife()
	}
	if err != nil && !errors.Is(err, errBroken) && ctx.Err() == nil && t.gone() {
		err = t.died(fmt.Sprintf("it ended by itself (%v): %v", t.broker.ExitErr(), err))
	}
	if clean := t.tearDown(); err == nil {
		err = clean
	}
	if err != nil && !errors.Is(err, errBroken) {
		return nil, err
	}
	r := &t.result
	r.Stats, r.Counts, r.First = t.checker.Result()
	for _, l := range t.streams {
		r.StreamConfirmed += l.confirms
		r.StreamDeliveries += l.deliveries
	}
	r.OK = len(r.Counts) == 0
	r.Seconds = time.Since(begin).Seconds()
	if n := len(t.restarts); n > 0 {
		slices.Sort(t.restarts)
		r.RestartMedianMS = float64(t.restarts[n/2].Microseconds()) / 1000
		r.RestartMaxMS = float64(t.restarts[n-1].Microseconds()) / 1000
	}
	return r, nil
}

// errBroken ends a run whose broker cannot go on; the violation has been noted.
var errBroken = errors.New("the broker cannot go on")

// layout names what is declared: queues reached through the default exchange, queues behind a
// fanout, and a topic exchange in front of some of both.
func (t *torturer) layout() (prefix string) {
	prefix = "torture"
	if t.o.URL != "" {
		prefix = fmt.Sprintf("torture-%d-%d", os.Getpid(), t.o.Seed)
	}
	for i := range 7 {
		t.queues = append(t.queues, fmt.Sprintf("%s.q%d", prefix, i))
	}
	for i := range 4 {
		t.routes = append(t.routes, Route{Key: t.queues[i], Queues: []int{i}})
	}
	t.routes = append(t.routes,
		Route{Exchange: prefix + ".fan", Queues: []int{4, 5, 6}},
		Route{Exchange: prefix + ".topic", Key: "some.key", Queues: []int{0, 4}},
		Route{Exchange: prefix + ".topic", Key: "other.key", Queues: []int{3, 4}},
	)
	return prefix
}

func (t *torturer) setUp(ctx context.Context) error {
	t.url = t.o.URL
	if t.url == "" {
		b, err := testbroker.Launch(ctx, testbroker.Options{Dir: t.o.Dir, Config: t.o.Config})
		if err != nil {
			return err
		}
		t.broker, t.url = b, b.URL()
		t.checker.VolatileLives = true
	}
	return t.admin(func(ch *amqp.Channel) error {
		fan, topic := t.routes[4].Exchange, t.routes[5].Exchange
		err := errors.Join(
			ch.ExchangeDeclare(fan, "fanout", true, false, false, false, nil),
			ch.ExchangeDeclare(topic, "topic", true, false, false, false, nil))
		for _, q := range t.queues {
			if err == nil {
				_, err = ch.QueueDeclare(q, true, false, false, false, nil)
			}
		}
		for _, l := range t.streams {
			if err == nil { // many segments
				_, err = ch.QueueDeclare(l.name, true, false, false, false, amqp.Table{"x-queue-type": "stream", "x-stream-max-segment-size-bytes": 1 << 20})
			}
		}
		for _, i := range t.routes[4].Queues {
			err = errors.Join(err, ch.QueueBind(t.queues[i], "", fan, false, nil))
		}
		return errors.Join(err,
			ch.QueueBind(t.queues[0], "some.*", topic, false, nil),
			ch.QueueBind(t.queues[3], "other.#", topic, false, nil),
			ch.QueueBind(t.queues[4], "#.key", topic, false, nil))
	})
}

func (t *torturer) tearDown() error {
	if t.broker != nil {
		return t.broker.Close()
	}
	return t.admin(func(ch *amqp.Channel) error {
		var err error
		for _, q := range t.queues {
			_, e := ch.QueueDelete(q, false, false, false)
			err = errors.Join(err, e)
		}
		for _, l := range t.streams {
			_, e := ch.QueueDelete(l.name, false, false, false)
			err = errors.Join(err, e)
		}
		return errors.Join(err,
			ch.ExchangeDelete(t.routes[4].Exchange, false, false), ch.ExchangeDelete(t.routes[5].Exchange, false, false))
	})
}

// admin runs f on a channel of a connection of its own.
func (t *torturer) admin(f func(ch *amqp.Channel) error) error {
	conn, err := amqp.DialConfig(t.url, amqp.Config{Dial: amqp.DefaultDial(settleTimeout)})
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	if err := f(ch); err != nil {
		return err
	}
	return conn.Close()
}

// lives is the main part: load, kill, start, compare.
func (t *torturer) lives(ctx context.Context) error {
	begin := time.Now()
	barren, confirmed := 0, 0
	for ctx.Err() == nil {
		stats, _, _ := t.checker.Result()
		enough := t.result.Kills >= t.o.Kills && stats.Confirmed >= t.o.Messages
		if enough || t.o.Duration > 0 && time.Since(begin) >= t.o.Duration {
			return nil
		}
		if barren++; stats.Confirmed > confirmed {
			barren, confirmed = 0, stats.Confirmed
		}
		if barren >= barrenLives {
			t.checker.Violate(Violation{Kind: Stuck, Detail: fmt.Sprintf("no confirm in %d lives", barren)})
			return errBroken
		}
		if err := t.live(ctx); err != nil {
			return err
		}
		if err := t.rise(); err != nil {
			return err
		}
		if err := t.verifyStreams(false); err != nil {
			return err
		}
		if t.o.DrainEvery > 0 && t.rng.IntN(t.o.DrainEvery) == 0 {
			if err := t.drain(); err != nil {
				return err
			}
		}
	}
	return context.Cause(ctx)
}

// live is one life: from the first connection to the kill.
func (t *torturer) live(ctx context.Context) error {
	length := t.o.MinLife + time.Duration(t.rng.Int64N(int64(t.o.MaxLife-t.o.MinLife)+1))
	c := newCrowd(t)
	for i := range t.o.Publishers {
		c.publish(i)
	}
	for q := range t.queues {
		for i := range t.o.Consumers {
			c.consume(q, styles[(q+i+t.result.Kills)%len(styles)])
		}
	}
	for _, l := range t.streams {
		c.publishStream(l)
		c.readStream(l)
	}
	err := t.wait(ctx, length)
	if err == nil && t.broker != nil {
		err = t.broker.Kill()
	}
	c.cut()
	t.result.Kills++
	t.checker.NextLife()
	return err
}

// wait lets the time pass, unless the broker dies by itself.
func (t *torturer) wait(ctx context.Context, d time.Duration) error {
	var exited <-chan struct{}
	if t.broker != nil {
		exited = t.broker.Exited()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-exited:
		return t.died(fmt.Sprintf("it ended by itself: %v", t.broker.ExitErr()))
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// gone tells that the broker has ended, where it should be up.
func (t *torturer) gone() bool {
	if t.broker == nil {
		return false
	}
	select {
	case <-t.broker.Exited():
		return true
	default:
		return false
	}
}

func (t *torturer) died(what string) error {
	t.checker.Violate(Violation{Kind: Died, Detail: what + "\n" + t.broker.LogTail()})
	return errBroken
}

// rise starts the broker, sometimes killing it once more before it is up, and compares what is
// there with what is owed.
func (t *torturer) rise() error {
	if t.broker == nil {
		return t.compare()
	}
	if t.rng.Float64() < recoveryKillShare {
		if err := t.killInRecovery(time.Duration(t.rng.Int64N(int64(150 * time.Millisecond)))); err != nil {
			return err
		}
	}
	took, err := t.broker.Restart()
	if err != nil {
		return t.died(fmt.Sprintf("it does not start: %v", err))
	}
	t.restarts = append(t.restarts, took)
	if took > t.o.MaxRestart {
		t.checker.Violate(Violation{Kind: Slow, Detail: fmt.Sprintf("start took %v, allowed are %v", took, t.o.MaxRestart)})
	}
	return t.compare()
}

// killInRecovery starts the broker and kills it after d, up or not.
func (t *torturer) killInRecovery(d time.Duration) error {
	killed := make(chan error, 1)
	early := time.AfterFunc(d, func() { killed <- t.broker.Kill() })
	_, failed := t.broker.Restart()
	if early.Stop() { // it was quicker, up or dead
		if failed != nil {
			return t.died(fmt.Sprintf("it does not start: %v", failed))
		}
		return t.broker.Kill()
	}
	if failed != nil {
		t.result.RecoveryKills++
	}
	return <-killed
}

// compare checks that every queue holds at least what it owes. A broker that was not killed
// may take a moment to notice that its clients are gone.
func (t *torturer) compare() error {
	deadline := time.Now()
	if t.broker == nil {
		deadline = deadline.Add(settleTimeout)
	}
	for {
		counts, err := t.countReady()
		if err != nil {
			return err
		}
		short, total := -1, 0
		for q, n := range counts {
			total += n
			if n < t.checker.Owed(q) {
				short = q
			}
		}
		t.result.LargestRecovered = max(t.result.LargestRecovered, total)
		if short < 0 {
			t.progress(total)
			return nil
		}
		if time.Now().After(deadline) {
			t.logf("queue %s holds %d messages, owed are %d: looking for the missing", t.queues[short], counts[short], t.checker.Owed(short))
			return t.drain() // names them
		}
	}
}

// countReady asks for the number of ready messages of every queue.
func (t *torturer) countReady() ([]int, error) {
	counts := make([]int, len(t.queues))
	err := t.admin(func(ch *amqp.Channel) error {
		for i, q := range t.queues {
			got, err := ch.QueueDeclarePassive(q, true, false, false, false, nil)
			if err != nil {
				return fmt.Errorf("%s: %w", q, err)
			}
			counts[i] = got.Messages
		}
		for _, r := range t.routes[4:6] {
			if err := ch.ExchangeDeclarePassive(r.Exchange, "", true, false, false, false, nil); err != nil {
				return fmt.Errorf("%s: %w", r.Exchange, err)
			}
		}
		return nil
	})
	var refused *amqp.Error
	if errors.As(err, &refused) && refused.Code == amqp.NotFound {
		t.checker.Violate(Violation{Kind: Topology, Detail: err.Error()})
		return nil, errBroken
	}
	return counts, err
}

// drain empties the queues and accounts for every message.
func (t *torturer) drain() error {
	t.result.Drains++
	c := newCrowd(t)
	defer func() {
		c.cut()
		t.checker.NextLife()
	}()
	for q := range t.queues {
		c.consume(q, drainer)
	}
	deadline := time.Now().Add(settleTimeout)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	last, since := -1, time.Now()
	for {
		<-tick.C
		counts, err := t.countReady()
		if err != nil {
			return err
		}
		stats, _, _ := t.checker.Result()
		if stats.Deliveries != last || slices.Max(counts) > 0 {
			last, since = stats.Deliveries, time.Now()
		}
		if time.Since(since) > quietTime {
			break
		}
		if time.Now().After(deadline) {
			t.checker.Violate(Violation{Kind: Stuck, Detail: fmt.Sprintf("queues are not empty after %v of consuming: %v", settleTimeout, counts)})
			break
		}
	}
	c.leave()
	t.checker.Drained()
	return nil
}

// lastLife accounts for everything, then stops the broker in order: it has nothing left to
// hand out, and must not find anything when it starts again.
func (t *torturer) lastLife() error {
	c := newCrowd(t)
	for i := range t.o.Publishers {
		c.publish(i)
	}
	err := t.wait(context.Background(), t.o.MinLife)
	c.leave() // nobody dies here, so nothing may come back
	if err == nil {
		err = t.drain()
	}
	if err != nil || t.broker == nil {
		return err
	}
	if err := t.broker.Stop(); err != nil {
		return t.died(fmt.Sprintf("SIGTERM: %v", err))
	}
	if _, err := t.broker.Restart(); err != nil {
		return t.died(fmt.Sprintf("after an orderly stop: %v", err))
	}
	counts, err := t.countReady()
	if err != nil {
		return err
	}
	for q, n := range counts {
		if n > 0 {
			t.checker.Violate(Violation{Kind: Resurrected, Queue: t.queues[q], Detail: fmt.Sprintf("%d acked messages are back after an orderly stop", n)})
		}
	}
	return t.verifyStreams(true)
}

func (t *torturer) progress(recovered int) {
	stats, counts, _ := t.checker.Result()
	bad := 0
	for _, n := range counts {
		bad += n
	}
	t.logf("kill %d: %d confirmed, %d deliveries, %d recovered, %d violations", t.result.Kills, stats.Confirmed, stats.Deliveries, recovered, bad)
}

func (t *torturer) logf(format string, args ...any) {
	if t.o.Progress != nil {
		fmt.Fprintf(t.o.Progress, format+"\n", args...)
	}
}
