package cli

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
	"github.com/spf13/cobra"
)

const (
	maxLatencies  = 1 << 20 // confirms whose latency is kept
	maxBenchBody  = 16 << 20
	benchPrefetch = 1000
)

// load is what bench was asked for, and what it counts.
type load struct {
	*amqpClient
	duration             time.Duration
	size, window         int
	producers, consumers int
	transient            bool

	published, confirmed, refused, delivered atomic.Int64

	mu        sync.Mutex
	latencies []time.Duration // guarded by mu; of confirms
}

// benchCommand puts a small load on a broker. What is published in the project's tables is measured by bench/, which
// costs less itself.
func (a *App) benchCommand() *cobra.Command {
	l := load{}
	cmd := &cobra.Command{
		Use: "bench", GroupID: GroupMessages, Short: "Put a small load on a broker and say what it did", Args: NoOperands,
		Long: lines("Publishes to a queue of its own, with confirms, and consumes from it, for a few seconds. The queue goes with the command.",
			"It shows what one client program gets on this machine, not what the broker can do."),
	}
	l.amqpClient = newAMQPClient(cmd)
	f := cmd.Flags()
	f.DurationVar(&l.duration, "duration", 5*time.Second, "`time` to publish for")
	f.IntVar(&l.size, "size", 1024, "`bytes` of a body")
	f.IntVar(&l.window, "window", 256, "messages of a producer on their way to a confirm, at most `n`")
	f.IntVar(&l.producers, "producers", 1, "`n` connections that publish")
	f.IntVar(&l.consumers, "consumers", 1, "`n` connections that consume; 0 leaves the messages in the queue")
	f.BoolVar(&l.transient, "transient", false, "messages that are not written to disk")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if l.duration <= 0 || l.size < 0 || l.size > maxBenchBody || l.window < 1 || l.producers < 1 || l.consumers < 0 || l.producers+l.consumers > 1000 {
			return Usagef("--duration, --window and --producers are at least 1, --size is at most %d MiB, connections at most 1000", maxBenchBody>>20)
		}
		if err := l.run(cmd.Context()); err != nil {
			return err
		}
		return l.report(a)
	}
	return cmd
}

func (l *load) run(ctx context.Context) error {
	conn, ch, err := l.connect()
	if err != nil {
		return err
	}
	defer closeConn(conn)
	name := fmt.Sprintf("settmq.bench.%d", time.Now().UnixNano())
	if _, err := ch.QueueDeclare(name, true, false, false, false, nil); err != nil {
		return err
	}
	defer ch.QueueDelete(name, false, false, false) //nolint:errcheck // the connection may be gone
	errs := make(chan error, l.producers+l.consumers)
	consuming, stop := context.WithCancel(ctx)
	defer stop()
	var consumers, producers sync.WaitGroup
	for range l.consumers {
		consumers.Go(func() { errs <- l.consume(consuming, name) })
	}
	publishing, cancel := context.WithTimeout(ctx, l.duration)
	defer cancel()
	for range l.producers {
		producers.Go(func() { errs <- l.publish(publishing, name) })
	}
	producers.Wait()
	// What is confirmed is still on its way to the consumers: a second is plenty, or they are too slow.
	for wait := time.Now().Add(time.Second); l.consumers > 0 && l.delivered.Load() < l.confirmed.Load() && time.Now().Before(wait); {
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	consumers.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// publish keeps a window of messages on their way until ctx ends, then waits for their confirms.
func (l *load) publish(ctx context.Context, queue string) error {
	conn, ch, err := l.connect()
	if err != nil {
		return err
	}
	defer closeConn(conn)
	if err := ch.Confirm(false); err != nil {
		return err
	}
	m := amqp091.Publishing{Body: make([]byte, l.size)}
	if !l.transient {
		m.DeliveryMode = amqp091.Persistent
	}
	type sent struct {
		at time.Time
		d  *amqp091.DeferredConfirmation
	}
	var waiting []sent
	settle := func(keep int) error {
		for len(waiting) > keep {
			acked, err := waitConfirm(context.WithoutCancel(ctx), waiting[0].d)
			switch {
			case err != nil:
				return err
			case acked:
				l.confirmed.Add(1)
				l.took(time.Since(waiting[0].at))
			case ch.IsClosed():
				return amqp091.ErrClosed
			default:
				l.refused.Add(1)
			}
			waiting = waiting[1:]
		}
		return nil
	}
	for ctx.Err() == nil {
		d, err := ch.PublishWithDeferredConfirm("", queue, false, false, m)
		if err != nil {
			return err
		}
		l.published.Add(1)
		waiting = append(waiting, sent{time.Now(), d})
		if err := settle(l.window - 1); err != nil {
			return err
		}
	}
	return settle(0)
}

func (l *load) took(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.latencies) < maxLatencies {
		l.latencies = append(l.latencies, d)
	}
}

func (l *load) consume(ctx context.Context, queue string) error {
	conn, ch, err := l.connect()
	if err != nil {
		return err
	}
	defer closeConn(conn)
	if err := ch.Qos(benchPrefetch, 0, false); err != nil {
		return err
	}
	deliveries, err := ch.Consume(queue, "", false, false, false, false, nil)
	if err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case d, ok := <-deliveries:
			if !ok {
				return amqp091.ErrClosed
			}
			if err := d.Ack(false); err != nil {
				return err
			}
			l.delivered.Add(1)
		}
	}
}

func (l *load) report(a *App) error {
	seconds := l.duration.Seconds()
	slices.Sort(l.latencies)
	quantile := func(q float64) time.Duration {
		if len(l.latencies) == 0 {
			return 0
		}
		return l.latencies[int(q*float64(len(l.latencies)-1))].Round(time.Microsecond)
	}
	_, err := fmt.Fprintf(a.Stdout, "confirmed  %d, %.0f/s\ndelivered  %d, %.0f/s\nconfirm    p50 %v, p99 %v\n",
		l.confirmed.Load(), float64(l.confirmed.Load())/seconds, l.delivered.Load(), float64(l.delivered.Load())/seconds, quantile(0.5), quantile(0.99))
	if n := l.refused.Load(); n > 0 && err == nil {
		return fmt.Errorf("%d messages were refused", n)
	}
	return err
}
