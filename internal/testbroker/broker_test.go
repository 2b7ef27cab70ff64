package testbroker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The tests need no broker: the test binary plays one when it is started as
// "settmq serve --config FILE" with fakeEnv set.
const fakeEnv = "TESTBROKER_FAKE"

func TestMain(m *testing.M) {
	if mode := os.Getenv(fakeEnv); mode != "" && len(os.Args) > 3 && os.Args[1] == "serve" {
		if err := fake(mode, os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	os.Setenv("SETTMQ_BINARY", self)
	Main(m)
}

func fake(mode, config string) error {
	if mode == "broken" {
		return errors.New("no room for a badger")
	}
	addr, err := addressIn(config)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	go func() {
		<-term
		l.Close()
	}()
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := io.ReadFull(conn, make([]byte, 8)); err == nil {
			fmt.Fprint(conn, "AMQP")
		}
		conn.Close()
	}
}

func addressIn(config string) (string, error) {
	f, err := os.Open(config)
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if _, quoted, ok := strings.Cut(lines.Text(), "address: "); ok {
			return strings.Trim(quoted, `"`), nil
		}
	}
	return "", errors.New("no address in the configuration")
}

func TestLivesOfABroker(t *testing.T) {
	b := Start(t, Options{Env: []string{fakeEnv + "=well"}})
	first, addr := b.PID(), b.Addr()
	if err := b.Kill(); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := b.ExitErr(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("after Kill the child ended with %v, want SIGKILL", err)
	}
	if err := b.Kill(); err != nil {
		t.Errorf("killing the dead: %v", err)
	}
	if _, err := b.Restart(); err != nil {
		t.Fatal(err)
	}
	if b.PID() == first || b.Addr() != addr {
		t.Errorf("after Restart pid %d at %s, before %d at %s: want another pid, same address", b.PID(), b.Addr(), first, addr)
	}
	if m, err := b.Memory(); !errors.Is(err, errors.ErrUnsupported) && (err != nil || m.RSS == 0 || m.Peak < m.RSS) {
		t.Errorf("memory %+v, %v", m, err)
	}
	if err := b.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func TestFailedStartShowsTheLog(t *testing.T) {
	begin := time.Now()
	_, err := Launch(context.Background(), Options{Env: []string{fakeEnv + "=broken"}})
	if err == nil || !strings.Contains(err.Error(), "no room for a badger") {
		t.Fatalf("got %v, want an error with the log of the child", err)
	}
	if took := time.Since(begin); took > startTimeout/2 {
		t.Errorf("noticed after %v that the child is dead", took)
	}
}
