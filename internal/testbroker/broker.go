package testbroker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// startTimeout bounds the wait for the first answer; a start with millions of stored
	// messages takes about two seconds, a cold build machine is slow.
	startTimeout = 60 * time.Second
	// stopTimeout bounds the wait after SIGTERM; five seconds are promised.
	stopTimeout = 30 * time.Second
	// logTail is how much of the child's log goes into an error.
	logTail = 4 << 10
)

// Options says how to start the broker. The zero value is a broker with the defaults, a
// temporary data directory and a free port.
type Options struct {
	// Dir holds the data directory, the configuration and the log. Empty: Start takes
	// t.TempDir(), Launch makes a temporary one that Close removes.
	Dir string
	// Port on 127.0.0.1; 0 picks a free one. Restart keeps it.
	Port int
	// Config is YAML appended to the generated configuration; it must not set the data
	// directory or the listeners again.
	Config string
	// Env is appended to the child's environment ("NAME=value").
	Env []string
	// Args are appended to "settmq serve --config FILE".
	Args []string
}

// Broker is a settmq child process. Its methods may be called from any goroutine, but only
// one of Stop, Restart and Close at a time. Kill during a Restart makes that one fail, or ends
// what it started.
type Broker struct {
	// Immutable after Launch.
	opts    Options
	binary  string
	tempDir string // removed by Close; empty when the caller owns the directory
	dir     string

	mu   sync.Mutex
	port int    // guarded by mu
	cur  *child // guarded by mu; the running or last child
}

// child is one life of the process.
type child struct {
	pid  int
	done chan struct{} // closed when the process has been reaped
	err  error         // valid after done: what Wait returned
}

// Start launches a broker for a test, fails the test if it does not come up, and stops it
// when the test ends. The log is shown if the test failed.
func Start(t testing.TB, o Options) *Broker {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	b, err := Launch(context.Background(), o)
	if err != nil {
		t.Fatalf("testbroker: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("settmq log (tail):\n%s", b.LogTail())
		}
		if err := b.Close(); err != nil {
			t.Errorf("testbroker: %v", err)
		}
	})
	return b
}

// Launch builds settmq if necessary, starts it and waits until it answers. The caller calls
// Close. ctx bounds the start only.
func Launch(ctx context.Context, o Options) (*Broker, error) {
	binary, err := Binary()
	if err != nil {
		return nil, err
	}
	b := &Broker{opts: o, binary: binary, dir: o.Dir, port: o.Port}
	if b.dir == "" {
		if b.dir, err = os.MkdirTemp("", "settmq-data-"); err != nil {
			return nil, err
		}
		b.tempDir = b.dir
	}
	// Somebody else may take the free port between choosing it and listening on it.
	for attempt := 0; ; attempt++ {
		if o.Port == 0 {
			if b.port, err = freePort(); err != nil {
				break
			}
		}
		if err = b.start(ctx); err == nil {
			return b, nil
		}
		if o.Port != 0 || attempt == 2 || !strings.Contains(b.LogTail(), "address already in use") {
			break
		}
	}
	return nil, errors.Join(err, b.Close())
}

// URL is the AMQP address with the default user and the default virtual host.
func (b *Broker) URL() string { return "amqp://guest:guest@" + b.Addr() + "/" }

// Addr is the listener's host:port.
func (b *Broker) Addr() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(b.port))
}

var managementURL = regexp.MustCompile(`management API .*url=(http[^ \n]*)`)

// ManagementURL is where the HTTP API of the running child is, without a user; "" if it has none. The log must be in
// the console's format.
func (b *Broker) ManagementURL() string {
	log, err := os.ReadFile(b.LogFile())
	if err != nil {
		return ""
	}
	found := managementURL.FindAllSubmatch(log, -1)
	if found == nil {
		return ""
	}
	return string(found[len(found)-1][1])
}

// Dir is the directory that holds everything of this broker; DataDir is inside it.
func (b *Broker) Dir() string { return b.dir }

// DataDir is the broker's data directory.
func (b *Broker) DataDir() string { return filepath.Join(b.dir, "data") }

// LogFile is where standard output and standard error of all lives go.
func (b *Broker) LogFile() string { return filepath.Join(b.dir, "settmq.log") }

// PID is the process id of the running or last child.
func (b *Broker) PID() int { return b.child().pid }

// Exited is closed when the current child has ended.
func (b *Broker) Exited() <-chan struct{} { return b.child().done }

// ExitErr is what the last child ended with, as of os/exec; it waits for the end.
func (b *Broker) ExitErr() error {
	c := b.child()
	<-c.done
	return c.err
}

// LogTail returns the last few kilobytes of the log.
func (b *Broker) LogTail() string {
	f, err := os.Open(b.LogFile())
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if end, err := f.Seek(0, io.SeekEnd); err == nil && end > logTail {
		if _, err := f.Seek(-logTail, io.SeekEnd); err != nil {
			return err.Error()
		}
	} else if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err.Error()
	}
	out, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	return string(out)
}

// Kill ends the child with SIGKILL and waits for it. A child that is already dead is fine.
func (b *Broker) Kill() error {
	c := b.child()
	if err := c.signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-c.done
	return nil
}

// Stop asks the child to shut down (SIGTERM) and waits. The error tells a non-zero exit
// status or that it had to be killed after 30 seconds.
func (b *Broker) Stop() error {
	c := b.child()
	if err := c.signal(syscall.SIGTERM); err != nil {
		return err
	}
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-c.done:
		return c.err
	case <-timer.C:
		return errors.Join(fmt.Errorf("settmq ignored SIGTERM for %v", stopTimeout), b.Kill())
	}
}

// Restart starts the child again on the same port and directory and returns the time until
// it answered. A running child is stopped first.
func (b *Broker) Restart() (time.Duration, error) {
	select {
	case <-b.Exited():
	default:
		if err := b.Stop(); err != nil {
			return 0, err
		}
	}
	begin := time.Now()
	err := b.start(context.Background())
	return time.Since(begin), err
}

// Close stops the child if it runs and removes the directory if Launch made it.
func (b *Broker) Close() error {
	var err error
	if c := b.child(); c.pid != 0 {
		select {
		case <-c.done: // ended earlier, its status is the caller's business
		default:
			err = b.Stop()
		}
	}
	if b.tempDir != "" {
		err = errors.Join(err, os.RemoveAll(b.tempDir))
	}
	return err
}

func (b *Broker) child() *child {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cur == nil {
		c := &child{done: make(chan struct{})}
		close(c.done)
		return c
	}
	return b.cur
}

func (c *child) signal(sig syscall.Signal) error {
	select {
	case <-c.done:
		return nil
	default:
	}
	if err := syscall.Kill(c.pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal %v to settmq: %w", sig, err)
	}
	return nil
}

// start runs one life of the child and returns when it answers or has failed to.
func (b *Broker) start(ctx context.Context) error {
	config := filepath.Join(b.dir, "settmq.yaml")
	if err := os.WriteFile(config, b.config(), 0o600); err != nil {
		return err
	}
	log, err := os.OpenFile(b.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(b.binary, append([]string{"serve", "--config", config}, b.opts.Args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), b.opts.Env...)
	cmd.SysProcAttr = sysProcAttr()
	c, err := run(cmd)
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.cur = c
	b.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := awaitAnswer(ctx, b.Addr(), c.done); err != nil {
		return errors.Join(fmt.Errorf("settmq did not come up: %w\n%s", err, b.LogTail()), b.Kill())
	}
	return nil
}

// run starts cmd and reaps it. The thread that forks is kept for the child's life, because
// the parent-death signal is tied to the thread.
func run(cmd *exec.Cmd) (*child, error) {
	c := &child{done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			c.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			c.err = cmd.Wait()
			close(c.done)
		}
	}()
	return c, <-started
}

// awaitAnswer polls until the listener answers a protocol header with at least one byte.
func awaitAnswer(ctx context.Context, addr string, dead <-chan struct{}) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		last := answers(ctx, addr)
		if last == nil {
			return nil
		}
		select {
		case <-dead:
			return errors.New("the process ended")
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), last)
		case <-tick.C:
		}
	}
}

func answers(ctx context.Context, addr string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	if _, err := conn.Write([]byte("AMQP\x00\x00\x09\x01")); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
