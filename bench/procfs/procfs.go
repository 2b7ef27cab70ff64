// Package procfs reads what a process costs from Linux's /proc: processor time, memory,
// and which process listens on a port. A broker may be several
// processes, so Read adds up a process and all its descendants.
package procfs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Root is where procfs is mounted.
const Root = "/proc"

// clockTick is the unit of times in /proc/*/stat: USER_HZ is 100 on every architecture
// that Go runs on.
const clockTick = time.Second / 100

// Usage is what a process and its descendants have used so far and hold now.
type Usage struct {
	User, System time.Duration // processor time since they started; 10 ms resolution
	RSS          uint64        // bytes of memory resident now
	Anonymous    uint64        // bytes of it that are no file's
	Processes    int
}

// Read returns the usage of pid and its descendants.
func Read(pid int) (Usage, error) { return read(Root, pid) }

func read(root string, pid int) (Usage, error) {
	stats, err := allStats(root)
	if err != nil {
		return Usage{}, err
	}
	if _, ok := stats[pid]; !ok {
		return Usage{}, fmt.Errorf("procfs: no process %d", pid)
	}
	var u Usage
	for p, s := range stats {
		if !descends(stats, p, pid) {
			continue
		}
		u.User += s.user
		u.System += s.system
		u.RSS += s.rss
		u.Anonymous += anonymous(root, p)
		u.Processes++
	}
	return u, nil
}

// descends reports whether p is root or below it. Parents change while we read, so the
// number of steps is bounded.
func descends(stats map[int]stat, p, root int) bool {
	for range 64 {
		if p == root {
			return true
		}
		s, ok := stats[p]
		if !ok {
			return false
		}
		p = s.parent
	}
	return false
}

type stat struct {
	parent       int
	user, system time.Duration
	rss          uint64
}

func allStats(root string) (map[int]stat, error) {
	dir, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	stats := make(map[int]stat)
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join(root, name, "stat"))
		if err != nil {
			continue // ended meanwhile
		}
		s, err := parseStat(line)
		if err != nil {
			return nil, err
		}
		stats[pid] = s
	}
	return stats, nil
}

// parseStat reads /proc/<pid>/stat, see proc_pid_stat(5). The name in parentheses may hold
// anything, blanks and parentheses too.
func parseStat(line []byte) (stat, error) {
	end := bytes.LastIndexByte(line, ')')
	if end < 0 {
		return stat{}, errors.New("procfs: stat without a name")
	}
	f := strings.Fields(string(line[end+1:]))
	if len(f) < 22 {
		return stat{}, fmt.Errorf("procfs: stat has %d fields", len(f)+2)
	}
	var n [4]uint64
	for i, field := range []int{4, 14, 15, 24} { // ppid, utime, stime, rss
		v, err := strconv.ParseUint(f[field-3], 10, 64)
		if err != nil {
			return stat{}, fmt.Errorf("procfs: stat field %d: %w", field, err)
		}
		n[i] = v
	}
	return stat{
		parent: int(n[0]), user: time.Duration(n[1]) * clockTick, system: time.Duration(n[2]) * clockTick,
		rss: n[3] * uint64(os.Getpagesize()),
	}, nil
}

// anonymous returns RssAnon of /proc/<pid>/status, or 0 if it may not be read.
func anonymous(root string, pid int) uint64 {
	b, err := os.ReadFile(filepath.Join(root, strconv.Itoa(pid), "status"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			n, _ := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64)
			return n << 10
		}
	}
	return 0
}

// ListenerPID returns the process that listens on a TCP port of this machine. It sees
// other users' processes only if run as root.
func ListenerPID(port int) (int, error) { return listenerPID(Root, port) }

func listenerPID(root string, port int) (int, error) {
	inodes := make(map[string]bool)
	for _, name := range []string{"net/tcp", "net/tcp6"} {
		if err := listenerInodes(filepath.Join(root, name), port, inodes); err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, err
		}
	}
	if len(inodes) == 0 {
		return 0, fmt.Errorf("procfs: nothing listens on port %d", port)
	}
	links, err := filepath.Glob(filepath.Join(root, "[0-9]*", "fd", "*"))
	if err != nil {
		return 0, err
	}
	best := 0
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil || !inodes[target] {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(link))))
		if err == nil && (best == 0 || pid < best) {
			best = pid // a parent that shares the socket with its children comes first
		}
	}
	if best == 0 {
		return 0, fmt.Errorf("procfs: cannot see who listens on port %d", port)
	}
	return best, nil
}

// listenerInodes collects "socket:[inode]" of the sockets that listen on port.
func listenerInodes(path string, port int, inodes map[string]bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	suffix := fmt.Sprintf(":%04X", port)
	for s := bufio.NewScanner(f); s.Scan(); {
		// sl local_address rem_address st queues timer retrnsmt uid timeout inode
		fields := strings.Fields(s.Text())
		if len(fields) > 9 && strings.HasSuffix(fields[1], suffix) && fields[3] == "0A" {
			inodes["socket:["+fields[9]+"]"] = true
		}
	}
	return nil
}
