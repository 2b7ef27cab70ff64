//go:build unix

package metrics

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
