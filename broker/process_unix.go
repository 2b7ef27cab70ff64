//go:build unix

package broker

import (
	"math"

	"golang.org/x/sys/unix"
)

func fileLimit() uint64 {
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) != nil {
		return 0
	}
	return min(r.Cur, math.MaxInt64)
}

// ContextSwitches counts those of the process since its start.
func ContextSwitches() uint64 {
	var r unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &r) != nil {
		return 0
	}
	return uint64(r.Nvcsw) + uint64(r.Nivcsw)
}
