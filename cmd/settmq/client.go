package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
)

// Exit codes of the client commands (pub, get, sub) and of config and version.
const (
	exitOK          = 0
	exitFailed      = 1 // what was asked for failed: a connection broke, a message was not stored, a config is wrong
	exitUsage       = 2 // the command line is wrong
	exitUnreachable = 3 // no connection to the broker, or the login was refused
	exitUnroutable  = 4 // pub: at least one message found no queue
	exitEmpty       = 5 // get: the queue holds no message
	exitRefused     = 6 // the broker refused: no such queue or exchange, no permission, other properties
)

const (
	defaultURL     = "amqp://guest:guest@127.0.0.1:5672/"
	connectTimeout = 10 * time.Second
	// confirmTimeout is how long a broker may take to confirm, so that a blocked one (disk full, memory
	// alarm) is reported instead of waited for without end.
	confirmTimeout = 30 * time.Second
)

// command is what the client commands share: their name, flags and output.
type command struct {
	name   string
	flags  *flag.FlagSet
	url    string
	stdout io.Writer
	stderr io.Writer
}

// newCommand makes a command with its --url flag. usage is shown by --help, above the flags.
func newCommand(name, usage string, stdout, stderr io.Writer) *command {
	c := &command{name: name, flags: flag.NewFlagSet(name, flag.ContinueOnError), stdout: stdout, stderr: stderr}
	c.flags.SetOutput(io.Discard) // parse prints, once and to the right place
	c.flags.Usage = func() {
		fmt.Fprintf(c.flags.Output(), "%s\n\nFlags:\n", strings.TrimSpace(usage))
		c.flags.PrintDefaults()
	}
	return c
}

// withURL adds the flag that says where the broker is.
func (c *command) withURL() *command {
	c.flags.StringVar(&c.url, "url", "", "broker `URL` (default $AMQP_URL, or "+defaultURL+")")
	return c
}

// parse reads flags and operands in any order; what follows "--" is operands only. done is true when
// there is nothing left to do but to exit with code.
func (c *command) parse(args []string) (operands []string, code int, done bool) {
	for {
		if err := c.flags.Parse(args); errors.Is(err, flag.ErrHelp) {
			c.flags.SetOutput(c.stdout)
			c.flags.Usage()
			return nil, exitOK, true
		} else if err != nil {
			return nil, c.usage("%v", err), true
		}
		rest := c.flags.Args()
		if len(rest) == 0 {
			return operands, exitOK, false
		}
		if read := args[:len(args)-len(rest)]; len(read) > 0 && read[len(read)-1] == "--" {
			return append(operands, rest...), exitOK, false
		}
		operands, args = append(operands, rest[0]), rest[1:]
	}
}

// usage reports a wrong command line.
func (c *command) usage(format string, args ...any) int {
	fmt.Fprintf(c.stderr, "settmq %s: %s (try settmq %s --help)\n", c.name, fmt.Sprintf(format, args...), c.name)
	return exitUsage
}

// note tells the user something that is no result.
func (c *command) note(format string, args ...any) {
	fmt.Fprintf(c.stderr, "settmq %s: %s\n", c.name, fmt.Sprintf(format, args...))
}

// fail reports an error in one line and returns the exit code that fits it.
func (c *command) fail(err error) int {
	code, text := exitFailed, err.Error()
	var refused *amqp091.Error
	var unreachable *connectError
	switch {
	case errors.As(err, &unreachable):
		code = exitUnreachable
	case errors.Is(err, amqp091.ErrClosed):
		text = "the connection broke"
	case errors.As(err, &refused):
		text = strings.ReplaceAll(refused.Reason, "\n", " ")
		if refused.Server && refused.Code != amqp091.ConnectionForced {
			code = exitRefused
			text = fmt.Sprintf("%s (%d)", text, refused.Code)
		}
	}
	c.note("%s", text)
	return code
}

// connectError is a failure to connect or to log in.
type connectError struct{ text string }

func (e *connectError) Error() string { return e.text }

// connect opens a connection and a channel. Errors never show the URL, which holds a password.
func (c *command) connect() (*amqp091.Connection, *amqp091.Channel, error) {
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
	properties.SetClientConnectionName("settmq " + c.name)
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

// listFlag is a flag that may be given more than once.
type listFlag []string

func (l *listFlag) String() string { return strings.Join(*l, ",") }

// Set adds a value.
func (l *listFlag) Set(s string) error {
	*l = append(*l, s)
	return nil
}

// isCharDevice reports whether a stream is a terminal (or the like) and not a file or a pipe.
func isCharDevice(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
