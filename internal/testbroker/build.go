package testbroker

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// module names the module whose command is built, so that a test in a sub-module still finds it.
const module = "github.com/settmq/settmq"

var build struct {
	once   sync.Once
	dir    string // temporary, holds the binary; removed by Main and RemoveBinary
	binary string
	err    error
}

// Binary returns the path of the settmq executable. The first call builds it; later calls,
// from any goroutine, return the same result. Call RemoveBinary (or use Main) before exiting.
func Binary() (string, error) {
	build.once.Do(func() { build.binary, build.err = compile() })
	return build.binary, build.err
}

func compile() (string, error) {
	if b := os.Getenv("SETTMQ_BINARY"); b != "" {
		abs, err := filepath.Abs(b)
		if err != nil {
			return "", fmt.Errorf("SETTMQ_BINARY: %w", err)
		}
		if _, err := os.Stat(abs); err != nil {
			return "", fmt.Errorf("SETTMQ_BINARY: %w", err)
		}
		return abs, nil
	}
	dir, err := os.MkdirTemp("", "settmq-test-")
	if err != nil {
		return "", err
	}
	build.dir = dir
	binary := filepath.Join(dir, "settmq")
	args := []string{"build", "-o", binary}
	args = append(args, strings.Fields(os.Getenv("SETTMQ_BUILD_FLAGS"))...)
	args = append(args, module+"/cmd/settmq")
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return binary, nil
}

// RemoveBinary deletes what Binary built. No child may be started afterwards.
func RemoveBinary() error {
	build.once.Do(func() { build.err = errors.New("testbroker: the binary has been removed") })
	if build.dir == "" {
		return nil
	}
	return os.RemoveAll(build.dir)
}

// Main is a TestMain body: it runs the tests, removes the binary and exits.
func Main(m *testing.M) {
	code := m.Run()
	if err := RemoveBinary(); err != nil {
		fmt.Fprintln(os.Stderr, "testbroker:", err)
	}
	os.Exit(code)
}

// External returns AMQP_URL and true if the tests should run against a broker that somebody
// else started. Such a broker cannot be stopped, killed or measured.
func External() (url string, ok bool) {
	url = os.Getenv("AMQP_URL")
	return url, url != ""
}
