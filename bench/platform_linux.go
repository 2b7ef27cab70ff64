package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
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

// diskWritten returns the bytes written so far to the disk that dir is on, by anybody; 0
// if it is not known. What Linux counts for a single process is of no use: a page of a large
// folio counts as the whole folio.
func diskWritten(dir string) uint64 {
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		return 0
	}
	major, minor := st.Dev>>8&0xfff|st.Dev>>32&^0xfff, st.Dev&0xff|st.Dev>>12&^0xff // as in sys/sysmacros.h
	b, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/stat", major, minor))
	f := strings.Fields(string(b))
	if err != nil || len(f) < 7 {
		return 0
	}
	sectors, _ := strconv.ParseUint(f[6], 10, 64)
	return sectors * 512
}

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
