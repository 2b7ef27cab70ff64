package main

import (
	"os"
	"syscall"
	"time"
)

const prSetTimerSlack = 29

// exactSleeps makes sleeps of the calling thread end within a microsecond or two of their
// time instead of 50. The goroutine has to be locked to its thread.
func exactSleeps() {
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, prSetTimerSlack, 1, 0) // without it: later, not wrong
}

// sleep waits in the kernel. time.Sleep may be a millisecond late, since the runtime's
// poller counts in those.
func sleep(d time.Duration) {
	t := syscall.NsecToTimespec(int64(d))
	for syscall.Nanosleep(&t, &t) == syscall.EINTR {
	}
}

// ownCPU returns the processor time this process has used.
func ownCPU() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func fdatasync(f *os.File) error { return syscall.Fdatasync(int(f.Fd())) }

func kernelVersion() string {
	b, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return string(b)
}

// processGroup makes a child the leader of a group, so that what it starts can be ended with it.
func processGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func signalGroup(pid int, hard bool) error {
	if hard {
		return syscall.Kill(-pid, syscall.SIGKILL)
	}
	return syscall.Kill(-pid, syscall.SIGTERM)
}

func pauseGroup(pid int, pause bool) error {
	if pause {
		return syscall.Kill(-pid, syscall.SIGSTOP)
	}
	return syscall.Kill(-pid, syscall.SIGCONT)
}
