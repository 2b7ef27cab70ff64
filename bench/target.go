package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/settmq/settmq/bench/procfs"
	"github.com/settmq/settmq/bench/wire"
)

// target is a broker as the command line gives it: an address, and perhaps a command that
// starts it.
type target struct {
	label    string
	url      string
	pid      int    // 0: find out
	command  string // "": it is running
	settings string
	pause    bool // stop the process while it is not its turn

	child *exec.Cmd
	ended chan error
}

const startTimeout = 60 * time.Second

// start runs the command, if there is one, and waits until the broker accepts a login.
func (t *target) start(log *os.File) error {
	if t.command == "" {
		return nil
	}
	t.child = exec.Command("/bin/sh", "-c", t.command)
	t.child.SysProcAttr = processGroup()
	t.child.Stdout, t.child.Stderr = log, log
	if err := t.child.Start(); err != nil {
		return err
	}
	t.ended = make(chan error, 1)
	go func() { t.ended <- t.child.Wait() }()
	u, err := parseURL(t.url)
	if err != nil {
		return err
	}
	deadline := time.Now().Add(startTimeout)
	for {
		c, err := wire.Open(u, "bench start")
		if err == nil {
			return c.CloseGracefully()
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("%s does not accept connections after %v: %w", t.label, startTimeout, err), t.stop())
		}
		select {
		case err := <-t.ended:
			t.child = nil
			return fmt.Errorf("%s ended while starting: %w", t.label, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// stop ends what start began.
func (t *target) stop() error {
	if t.child == nil {
		return nil
	}
	pid := t.child.Process.Pid
	t.child = nil
	_ = signalGroup(pid, false)
	select {
	case <-t.ended:
		return nil
	case <-time.After(20 * time.Second):
	}
	if err := signalGroup(pid, true); err != nil {
		return err
	}
	<-t.ended
	return fmt.Errorf("%s had to be killed", t.label)
}

// env finds the broker's process, if it is on this machine.
func (t *target) env(c *common) (*env, error) {
	u, err := parseURL(t.url)
	if err != nil {
		return nil, err
	}
	e := &env{url: u, label: t.label, settings: t.settings, pid: t.pid, warmup: c.warmup, duration: c.duration}
	if e.pid == 0 && local(u) {
		if _, port, err := net.SplitHostPort(wire.Address(u)); err == nil {
			n, _ := strconv.Atoi(port)
			e.pid, _ = procfs.ListenerPID(n) // 0 if it cannot be seen
		}
	}
	return e, nil
}

func local(u *url.URL) bool {
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}
