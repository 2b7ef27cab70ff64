package testbroker

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"
)

// sysProcAttr makes the child die with its parent and keeps the terminal's signals from it.
func sysProcAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

// Memory is what the kernel says about the child's resident memory, in bytes.
type Memory struct {
	RSS  uint64 // now
	Peak uint64 // highest since the start or the last ResetPeak
}

// Memory reads the child's resident memory.
func (b *Broker) Memory() (Memory, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.PID()))
	if err != nil {
		return Memory{}, err
	}
	var m Memory
	for line := range bytes.Lines(status) {
		name, rest, _ := bytes.Cut(line, []byte(":"))
		var to *uint64
		switch string(name) {
		case "VmRSS":
			to = &m.RSS
		case "VmHWM":
			to = &m.Peak
		default:
			continue
		}
		kib, err := strconv.ParseUint(string(bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(rest), []byte("kB")))), 10, 64)
		if err != nil {
			return Memory{}, fmt.Errorf("proc status %s: %w", name, err)
		}
		*to = kib << 10
	}
	return m, nil
}

// ResetPeak makes Memory.Peak start again from the present value.
func (b *Broker) ResetPeak() error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", b.PID()), []byte("5"), 0)
}

// OpenFiles counts the child's file descriptors.
func (b *Broker) OpenFiles() (int, error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", b.PID()))
	return len(entries), err
}
