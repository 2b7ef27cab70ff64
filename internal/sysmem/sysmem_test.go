package sysmem

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLimitsAreRead(t *testing.T) {
	file := func(text string) string {
		name := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	if got := machine(file("MemFree: 1 kB\nMemTotal:  2048 kB\n")); got != 2048<<10 {
		t.Errorf("machine: %d", got)
	}
	if got := machine(file("nothing\n")); got != fallback {
		t.Errorf("machine without MemTotal: %d", got)
	}
	for text, want := range map[string]int64{"max\n": 0, "1048576\n": 1 << 20, "9223372036854771712\n": 0} {
		got, ok := cgroup(file(text))
		if ok != (want != 0) || ok && got != want {
			t.Errorf("cgroup %q: %d, %v", text, got, ok)
		}
	}
	if Total() <= 0 {
		t.Error("no memory at all")
	}
}
