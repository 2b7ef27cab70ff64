package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
	"github.com/spf13/cobra"
)

const (
	confirmWindow = 256      // messages on their way before the first confirm is waited for
	maxLine       = 16 << 20 // bytes of a line of standard input
)

// pubCommand publishes messages with confirms and mandatory.
func (a *App) pubCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "pub [body ...]",
		GroupID: GroupMessages,
		Short:   "Publish messages and wait for their confirms",
		Long: lines("Publishes each body as a message, or each line of standard input if there is none. Returns when",
			"the broker has confirmed all of them. A message that reaches no queue is reported (exit code 4)."),
		Example: lines("  settmq pub --key hello \"hi\"                     to the queue hello",
			"  settmq pub --exchange events --key order.new < orders.txt"),
	}
	p := publisher{amqpClient: newAMQPClient(cmd), stdout: a.Stdout}
	f := cmd.Flags()
	f.StringVar(&p.exchange, "exchange", "", "`name` of the exchange (default: the default exchange, which takes the key for the name of a queue)")
	f.StringVar(&p.key, "key", "", "routing `key`")
	persistent := f.Bool("persistent", false, "messages survive a restart of the broker, in durable queues")
	count := f.Int("count", 1, "publish every body `n` times")
	f.StringVar(&p.template.ContentType, "content-type", "", "content `type` of the messages")
	headers := f.StringArray("header", nil, "`key=value` to send as a header; may be repeated")
	cmd.RunE = func(_ *cobra.Command, bodies []string) error {
		if *count < 1 {
			return Usagef("--count must be at least 1")
		}
		if p.exchange == "" && p.key == "" {
			return Usagef("needs --key, the name of a queue, or --exchange")
		}
		if *persistent {
			p.template.DeliveryMode = amqp091.Persistent
		}
		for _, h := range *headers {
			k, v, ok := strings.Cut(h, "=")
			if !ok || k == "" || len(k) > 255 {
				return Usagef("--header %q is not key=value", h)
			}
			if p.template.Headers == nil {
				p.template.Headers = amqp091.Table{}
			}
			p.template.Headers[k] = v
		}
		return p.run(bodies, a.Stdin, *count)
	}
	return cmd
}

// publisher sends messages and keeps account of what became of them.
type publisher struct {
	*amqpClient
	stdout        io.Writer
	exchange, key string
	template      amqp091.Publishing

	conn    *amqp091.Connection
	ch      *amqp091.Channel
	closed  chan *amqp091.Error // why the broker closed the channel or the connection
	waiting []*amqp091.DeferredConfirmation
	stored  int // confirmed, returned ones included
	refused int // nacked

	returns  sync.WaitGroup // the goroutine that counts returns; ends when the channel closes
	returned int            // owned by that goroutine until returns is done
	first    amqp091.Return
}

// run connects, publishes and reports.
func (p *publisher) run(bodies []string, stdin io.Reader, count int) error {
	conn, ch, err := p.connect()
	if err != nil {
		return err
	}
	defer closeConn(conn)
	if err := p.start(conn, ch); err != nil {
		return err
	}
	return p.finish(p.publishAll(bodies, stdin, count))
}

func (p *publisher) start(conn *amqp091.Connection, ch *amqp091.Channel) error {
	p.conn, p.ch = conn, ch
	// One for the channel's error and one for the connection's.
	p.closed = make(chan *amqp091.Error, 2)
	notifyClosed(p.closed, conn, ch)
	returns := ch.NotifyReturn(make(chan amqp091.Return, confirmWindow))
	p.returns.Go(func() {
		for r := range returns {
			if p.returned == 0 {
				p.first = r
				p.first.Body = nil
			}
			p.returned++
		}
	})
	return ch.Confirm(false)
}

// publishAll publishes bodies or, without any, the lines of stdin.
func (p *publisher) publishAll(bodies []string, stdin io.Reader, count int) error {
	if len(bodies) > 0 {
		for _, body := range bodies {
			if err := p.publish([]byte(body), count); err != nil {
				return err
			}
		}
		return p.drain(0)
	}
	if isCharDevice(stdin) {
		p.note("type messages, one a line; Ctrl-D ends")
	}
	lines := bufio.NewScanner(stdin)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		// The client keeps no body after it has been written, so the scanner may reuse its buffer.
		if err := p.publish(lines.Bytes(), count); err != nil {
			return err
		}
		// Lines of a person come slowly: have each confirmed, so that a mistake shows at once.
		if isCharDevice(stdin) {
			if err := p.drain(0); err != nil {
				return err
			}
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return errors.Join(p.drain(0), fmt.Errorf("a line of standard input is longer than %d MiB", maxLine>>20))
	} else if err != nil {
		return errors.Join(p.drain(0), fmt.Errorf("standard input: %w", err))
	}
	return p.drain(0)
}

func (p *publisher) publish(body []byte, count int) error {
	m := p.template
	m.Body = body
	for range count {
		m.Timestamp = time.Now()
		d, err := p.ch.PublishWithDeferredConfirm(p.exchange, p.key, true, false, m)
		if err != nil {
			return p.why(err)
		}
		p.waiting = append(p.waiting, d)
		if len(p.waiting) >= confirmWindow {
			if err := p.drain(confirmWindow / 2); err != nil {
				return err
			}
		}
	}
	return nil
}

// drain waits until at most keep messages are unconfirmed.
func (p *publisher) drain(keep int) error {
	for len(p.waiting) > keep {
		acked, err := waitConfirm(context.Background(), p.waiting[0])
		if err != nil {
			return err
		}
		if !acked && p.ch.IsClosed() {
			return p.why(amqp091.ErrClosed)
		}
		p.waiting = p.waiting[1:]
		if acked {
			p.stored++
		} else {
			p.refused++
		}
	}
	return nil
}

// why prefers what the broker said when it closed the channel to the client's "closed".
func (p *publisher) why(err error) error { return closeReason(p.closed, err) }

// finish closes the channel, so that every return is counted, and reports.
func (p *publisher) finish(err error) error {
	closeConn(p.conn)
	p.returns.Wait()
	if routed := p.stored - p.returned; routed > 0 {
		fmt.Fprintf(p.stdout, "%s confirmed\n", messages(routed))
	}
	var result error
	if p.returned > 0 {
		p.note("%s reached no queue: %s (%d) for key %q on %s%s", messages(p.returned), p.first.ReplyText, p.first.ReplyCode,
			p.first.RoutingKey, exchangeName(p.first.Exchange), p.hint())
		result = Told(ExitUnroutable)
	}
	if p.refused > 0 {
		p.note("%s refused by the broker: not stored", messages(p.refused))
		result = Told(ExitFailed)
	}
	if err != nil {
		if n := len(p.waiting); n > 0 {
			p.note("%s not confirmed", messages(n))
		}
		return err
	}
	return result
}

// hint tells newcomers how to get a queue.
func (p *publisher) hint() string {
	if p.exchange != "" {
		return ""
	}
	return fmt.Sprintf("; create the queue with: settmq sub --queue %s", p.key)
}

func exchangeName(name string) string {
	if name == "" {
		return "the default exchange"
	}
	return fmt.Sprintf("exchange %q", name)
}

func messages(n int) string {
	if n == 1 {
		return "1 message"
	}
	return fmt.Sprintf("%d messages", n)
}

// notifyClosed has the reasons of both kinds of close sent to one channel with room for two. The
// client closes what it is given, so each kind gets its own and is copied over.
func notifyClosed(to chan<- *amqp091.Error, conn *amqp091.Connection, ch *amqp091.Channel) {
	for _, from := range []chan *amqp091.Error{
		ch.NotifyClose(make(chan *amqp091.Error, 1)),
		conn.NotifyClose(make(chan *amqp091.Error, 1)),
	} {
		go func() {
			if err := <-from; err != nil { // nil: closed by us
				to <- err
			}
		}()
	}
}

// closeReason is the reason that notifyClosed brings within a moment, or err.
func closeReason(closed <-chan *amqp091.Error, err error) error {
	if !errors.Is(err, amqp091.ErrClosed) {
		return err
	}
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case reason := <-closed:
		return reason
	case <-timer.C:
		return err
	}
}
