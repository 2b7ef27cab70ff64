// Package sysmem tells how much memory this process may use: the machine's, or less if a
// control group limits it.
package sysmem

import (
	"bufio"
	"os"
	"strconv"
	"strings"
)

// fallback is assumed where the system does not say.
const fallback = 4 << 30

// Total returns the bytes of memory that the process may use.
func Total() int64 {
	total := machine("/proc/meminfo")
	for _, name := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		if limit, ok := cgroup(name); ok && limit < total {
			total = limit
		}
	}
	return total
}

func machine(name string) int64 {
	f, err := os.Open(name)
	if err != nil {
		return fallback
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) == 3 && fields[0] == "MemTotal:" {
			if kb, err := strconv.ParseInt(fields[1], 10, 64); err == nil {
				return kb << 10
			}
		}
	}
	return fallback
}

// cgroup reads a limit; the word max, and numbers of pages beyond any machine, are none.
func cgroup(name string) (int64, bool) {
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n, err == nil && n > 0 && n < 1<<60
}
