package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
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

	syncDelay int // ms, added to every sync of its files at the next start

	child *exec.Cmd
	ended chan error
}

// slowSyncs is the command that delays syncs: strace stops a process at these calls only,
// and lets the other threads go on meanwhile.
const slowSyncs = "exec strace -f --seccomp-bpf -qq -o /dev/null -e trace=%[1]s -e inject=%[1]s:delay_exit=%[2]d -- /bin/sh -c %[3]s"

// shell returns the command that starts the broker.
func (t *target) shell() string {
	if t.syncDelay == 0 {
		return t.command
	}
	quoted := "'" + strings.ReplaceAll(t.command, "'", `'\''`) + "'"
	return fmt.Sprintf(slowSyncs, "fdatasync,fsync,sync,syncfs,msync", t.syncDelay*1000, quoted)
}

const startTimeout = 60 * time.Second

// start runs the command, if there is one, and waits until the broker accepts a login.
func (t *target) start(log *os.File) error {
	if t.command == "" {
		return nil
	}
	t.child = exec.Command("/bin/sh", "-c", t.shell())
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
		case <-time.After(time.Millisecond):
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
	return &env{
		url: u, label: t.label, settings: t.settings, broker: t, pid: t.process(u),
		warmup: c.warmup, duration: c.duration, settle: settleTime, probeDir: c.probeDir,
	}, nil
}

// process returns the broker's process, or 0 if it is not known.
func (t *target) process(u *url.URL) int {
	if t.pid != 0 || !local(u) {
		return t.pid
	}
	_, port, err := net.SplitHostPort(wire.Address(u))
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(port)
	pid, _ := procfs.ListenerPID(n) // 0 if it cannot be seen
	return pid
}

func local(u *url.URL) bool {
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}
