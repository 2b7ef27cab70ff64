//go:build !linux

package main

import (
	"errors"
	"os"
	"syscall"
	"time"
)

// Elsewhere than on Linux rates and latencies are measured, costs are not.

var errLinuxOnly = errors.New("only on Linux")

func exactSleeps() {}

func sleep(d time.Duration) { time.Sleep(d) }

func ownCPU() time.Duration { return 0 }

func fdatasync(f *os.File) error { return f.Sync() }

func kernelVersion() string { return "" }

func processGroup() *syscall.SysProcAttr { return nil }

func signalGroup(pid int, _ bool) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return p.Kill()
}

func pauseGroup(int, bool) error { return errLinuxOnly }

func diskWritten(string) uint64 { return 0 }
