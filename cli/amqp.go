package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
	"github.com/spf13/cobra"
)

const (
	defaultURL     = "amqp://guest:guest@127.0.0.1:5672/"
	connectTimeout = 10 * time.Second
	// confirmTimeout is how long a broker may take to confirm, so that a blocked one (disk full, memory
	// alarm) is reported instead of waited for without end.
	confirmTimeout = 30 * time.Second
)

// amqpClient is what the commands that speak AMQP share: their --url flag and their connection.
type amqpClient struct {
	cmd *cobra.Command
	url string
}

// newAMQPClient adds the flag that says where the broker is.
func newAMQPClient(cmd *cobra.Command) *amqpClient {
	c := &amqpClient{cmd: cmd}
	cmd.Flags().StringVar(&c.url, "url", "", "broker `URL` (default $AMQP_URL, or "+defaultURL+")")
	return c
}

// note tells the user something that is no result.
func (c *amqpClient) note(format string, args ...any) { note(c.cmd, format, args...) }

// explainAMQP words the errors of connections and channels. ok is false for other errors.
func explainAMQP(err error) (code int, text string, ok bool) {
	var refused *amqp091.Error
	var unreachable *connectError
	switch {
	case errors.As(err, &unreachable):
		return ExitUnreachable, err.Error(), true
	case errors.Is(err, amqp091.ErrClosed):
		return ExitFailed, "the connection broke", true
	case errors.As(err, &refused):
		text = strings.ReplaceAll(refused.Reason, "\n", " ")
		if refused.Server && refused.Code != amqp091.ConnectionForced {
			return ExitRefused, fmt.Sprintf("%s (%d)", text, refused.Code), true
		}
		return ExitFailed, text, true
	}
	return 0, "", false
}

// connectError is a failure to connect or to log in.
type connectError struct{ text string }

func (e *connectError) Error() string { return e.text }

// connect opens a connection and a channel. Errors never show the URL, which holds a password.
func (c *amqpClient) connect() (*amqp091.Connection, *amqp091.Channel, error) {
	target := c.url
	if target == "" {
		target = os.Getenv("AMQP_URL")
	}
	if target == "" {
		target = defaultURL
	}
	uri, err := amqp091.ParseURI(target)
	if err != nil {
		var perr *url.Error
		if errors.As(err, &perr) {
			err = perr.Err
		}
		return nil, nil, &connectError{"not an AMQP URL: " + strings.TrimPrefix(err.Error(), "AMQP ")}
	}
	addr := net.JoinHostPort(uri.Host, fmt.Sprint(uri.Port))
	properties := amqp091.NewConnectionProperties()
	properties.SetClientConnectionName(c.cmd.CommandPath())
	conn, err := amqp091.DialConfig(target, amqp091.Config{
		Heartbeat:  10 * time.Second,
		Properties: properties,
		Dial:       amqp091.DefaultDial(connectTimeout),
	})
	if err != nil {
		return nil, nil, &connectError{fmt.Sprintf("cannot connect to %s: %s", addr, connectReason(err, uri))}
	}
	ch, err := conn.Channel()
	if err != nil {
		_ = conn.Close()
		return nil, nil, &connectError{fmt.Sprintf("cannot open a channel on %s: %s", addr, connectReason(err, uri))}
	}
	return conn, ch, nil
}

// connectReason says why a connection failed, in the words of somebody who has just started.
func connectReason(err error, uri amqp091.URI) string {
	var op *net.OpError
	var refused *amqp091.Error
	switch {
	case errors.Is(err, amqp091.ErrCredentials):
		return fmt.Sprintf("user %q and this password may not log in", uri.Username)
	case errors.Is(err, amqp091.ErrVhost):
		return fmt.Sprintf("user %q has no access to vhost %q", uri.Username, uri.Vhost)
	case errors.As(err, &refused):
		return refused.Reason
	case errors.As(err, &op):
		if op.Op == "dial" {
			return fmt.Sprintf("%v (is the broker running?)", op.Err)
		}
		return op.Err.Error()
	case errors.Is(err, io.EOF):
		return "the other side closed the connection"
	}
	return err.Error()
}

// closeConn ends the connection in an orderly way, and gives up on a broker that does not answer.
func closeConn(conn *amqp091.Connection) {
	_ = conn.CloseDeadline(time.Now().Add(5 * time.Second))
}

// waitConfirm waits for the broker's word on one message.
func waitConfirm(ctx context.Context, d *amqp091.DeferredConfirmation) (acked bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
	defer cancel()
	acked, err = d.WaitContext(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no confirm within %s: is the broker blocked by an alarm?", confirmTimeout)
	}
	return acked, err
}
