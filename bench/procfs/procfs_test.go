package procfs

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// tree writes a /proc of four processes: 10 is the parent of 11, and that of 12.
func tree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for pid, line := range map[string]string{
		"10": "10 (beam (smp) x) S 1 10 10 0 -1 4194560 1 2 3 4 500 250 0 0 20 0 40 0 100 123456 1000 18446744073709551615 1 1",
		"11": "11 (child) S 10 10 10 0 -1 4194560 1 2 3 4 10 20 0 0 20 0 1 0 100 123456 10 18446744073709551615 1 1",
		"12": "12 (grandchild) S 11 10 10 0 -1 4194560 1 2 3 4 1 2 0 0 20 0 1 0 100 123456 1 18446744073709551615 1 1",
		"99": "99 (other) S 1 10 10 0 -1 4194560 1 2 3 4 9999 9999 0 0 20 0 1 0 100 123456 9999 18446744073709551615 1 1",
	} {
		dir := filepath.Join(root, pid, "fd")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(root, pid, "stat"), line)
		write(t, filepath.Join(root, pid, "status"), "Name:\tx\nRssAnon:\t       4 kB\nRssFile:\t       8 kB\n")
	}
	return root
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestReadAddsUpDescendants(t *testing.T) {
	u, err := read(tree(t), 10)
	if err != nil {
		t.Fatal(err)
	}
	want := Usage{
		User: 5110 * time.Millisecond, System: 2720 * time.Millisecond,
		RSS: 1011 * uint64(os.Getpagesize()), Anonymous: 3 * 4096, Processes: 3,
	}
	if u != want {
		t.Errorf("got %+v, want %+v", u, want)
	}
	if _, err := read(tree(t), 13); err == nil {
		t.Error("a process that does not exist has a usage")
	}
}

func TestStatMayBeDamaged(t *testing.T) {
	for _, line := range []string{"", "1 (x", "1 (x) S 1 2", "1 (x) S a 10 10 0 -1 4194560 1 2 3 4 10 20 0 0 20 0 1 0 100 123456 10 1"} {
		if _, err := parseStat([]byte(line)); err == nil {
			t.Errorf("%q is accepted", line)
		}
	}
}

func TestListenerPID(t *testing.T) {
	root := tree(t)
	write(t, filepath.Join(root, "net/tcp"), `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1629 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 777 1 0 100 0 0 10 0
   1: 0100007F:1629 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 888 1 0 100 0 0 10 0
`)
	for link, target := range map[string]string{"10/fd/3": "socket:[777]", "11/fd/9": "socket:[777]", "99/fd/1": "socket:[888]"} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	if pid, err := listenerPID(root, 0x1629); pid != 10 || err != nil {
		t.Errorf("got %d, %v", pid, err)
	}
	if pid, err := listenerPID(root, 80); err == nil {
		t.Errorf("got %d for a port nobody listens on", pid)
	}
}

func TestThisProcess(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux's /proc")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	pid, err := ListenerPID(l.Addr().(*net.TCPAddr).Port)
	if err != nil || pid != os.Getpid() {
		t.Errorf("listener %d, %v; this is %d", pid, err, os.Getpid())
	}
	u, err := Read(pid)
	if err != nil || u.RSS < 1<<20 || u.Processes < 1 {
		t.Errorf("%+v, %v", u, err)
	}
}
