//go:build unix

package management

import (
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// fileDescriptors counts the open ones, as far as the system tells, and how many there may be.
func fileDescriptors() (open, limit uint64) {
	if list, err := os.ReadDir("/proc/self/fd"); err == nil {
		open = uint64(len(list))
	}
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) == nil {
		limit = min(r.Cur, math.MaxInt64)
	}
	return open, limit
}

// contextSwitches counts those of the process since its start.
func contextSwitches() uint64 {
	var r unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &r) != nil {
		return 0
	}
	return uint64(r.Nvcsw) + uint64(r.Nivcsw)
}
