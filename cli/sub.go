package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	amqp091 "github.com/rabbitmq/amqp091-go"
	"github.com/spf13/cobra"
)

// subCommand prints messages until it is interrupted.
func (a *App) subCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "sub {--queue name | --exchange name [--key pattern ...]}",
		GroupID: GroupMessages,
		Short:   "Subscribe to a queue or an exchange",
		Long: lines("Prints messages until Ctrl-C. With --queue it consumes from that queue, which is created (durable)",
			"if it is missing, and bound if --exchange is given too. With --exchange alone it uses a queue of its",
			"own that goes away with it."),
		Example: lines("  settmq sub --queue hello", "  settmq sub --exchange amq.topic --key 'orders.#' --json"),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return Usagef("does not take %q: name a queue with --queue", args[0])
			}
			return nil
		},
	}
	s := subscription{amqpClient: newAMQPClient(cmd), stdout: a.Stdout}
	f := cmd.Flags()
	f.StringVar(&s.queue, "queue", "", "`name` of the queue to consume from")
	f.StringVar(&s.exchange, "exchange", "", "`name` of an exchange to bind the queue to")
	f.StringArrayVar(&s.keys, "key", nil, "routing `key` or pattern to bind with (default #); may be repeated")
	f.IntVar(&s.count, "count", 0, "stop after `n` messages (default: never)")
	f.IntVar(&s.prefetch, "prefetch", 100, "messages to have on the way, at most `n`")
	f.BoolVar(&s.noAck, "no-ack", false, "do not acknowledge: what is on the way at the end is lost")
	f.BoolVar(&s.json, "json", false, "print whole messages as lines of JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case s.queue == "" && s.exchange == "":
			return Usagef("needs --queue or --exchange")
		case s.exchange == "" && len(s.keys) > 0:
			return Usagef("--key needs --exchange")
		case s.count < 0:
			return Usagef("--count cannot be negative")
		case s.prefetch < 1 || s.prefetch > 65535:
			return Usagef("--prefetch must be within 1 to 65535")
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		return s.run(ctx)
	}
	return cmd
}

// subscription is what sub was asked for.
type subscription struct {
	*amqpClient
	stdout          io.Writer
	queue, exchange string
	keys            []string
	count, prefetch int
	noAck, json     bool
}

func (s *subscription) run(ctx context.Context) error {
	conn, ch, err := s.connect()
	if err != nil {
		return err
	}
	defer closeConn(conn)
	if ch, err = s.prepare(conn, ch); err != nil {
		return err
	}
	return s.consume(ctx, conn, ch)
}

// prepare makes sure that there is a queue, and binds it. The channel may be a new one.
func (s *subscription) prepare(conn *amqp091.Connection, ch *amqp091.Channel) (*amqp091.Channel, error) {
	if s.queue == "" {
		q, err := ch.QueueDeclare("", false, true, true, false, nil)
		if err != nil {
			return nil, err
		}
		s.queue = q.Name
	} else {
		// Look before declaring: an existing queue may have any properties.
		_, err := ch.QueueDeclarePassive(s.queue, true, false, false, false, nil)
		var refused *amqp091.Error
		if errors.As(err, &refused) && refused.Code == amqp091.NotFound {
			if ch, err = conn.Channel(); err != nil { // the refusal has closed the channel
				return nil, err
			}
			if _, err = ch.QueueDeclare(s.queue, true, false, false, false, nil); err == nil {
				s.note("created queue %q", s.queue)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	if s.exchange == "" {
		return ch, nil
	}
	if len(s.keys) == 0 {
		s.keys = []string{"#"}
	}
	for _, key := range s.keys {
		if err := ch.QueueBind(s.queue, key, s.exchange, false, nil); err != nil {
			return nil, err
		}
	}
	return ch, nil
}

// consume prints messages until ctx ends, the count is reached, or the broker ends it.
func (s *subscription) consume(ctx context.Context, conn *amqp091.Connection, ch *amqp091.Channel) error {
	closed := make(chan *amqp091.Error, 2)
	notifyClosed(closed, conn, ch)
	prefetch := s.prefetch
	if s.count > 0 {
		prefetch = min(prefetch, s.count) // leave the rest to others
	}
	if err := ch.Qos(prefetch, 0, false); err != nil {
		return err
	}
	cancelled := ch.NotifyCancel(make(chan string, 1))
	deliveries, err := ch.Consume(s.queue, "", s.noAck, false, false, false, nil)
	if err != nil {
		return err
	}
	s.note("waiting for messages on queue %q, Ctrl-C ends", s.queue)
	p := newPrinter(s.stdout, s.json)
	for n := 0; s.count == 0 || n < s.count; n++ {
		select {
		case <-ctx.Done():
			return nil // what was not acknowledged goes back to the queue
		case d, ok := <-deliveries:
			if !ok {
				return s.ended(closed, cancelled)
			}
			if err := p.print(&d); err != nil {
				return fmt.Errorf("output: %w", err)
			}
			if s.noAck {
				continue
			}
			if err := d.Ack(false); err != nil {
				return closeReason(closed, err)
			}
		}
	}
	// Answered after the acknowledgements before it have been carried out.
	if err := ch.Close(); err != nil {
		return closeReason(closed, err)
	}
	return nil
}

// ended says why there are no more deliveries.
func (s *subscription) ended(closed <-chan *amqp091.Error, cancelled <-chan string) error {
	select {
	case _, ok := <-cancelled:
		if ok {
			return fmt.Errorf("queue %q was deleted", s.queue)
		}
	default:
	}
	return closeReason(closed, amqp091.ErrClosed)
}
