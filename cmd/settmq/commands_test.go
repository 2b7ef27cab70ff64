package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/settmq/settmq"
	"github.com/settmq/settmq/cli"
)

// runCommand runs a command line as main would.
func runCommand(stdin string, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	app := &cli.App{Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs}
	code = app.Execute(context.Background(), commands(app), args)
	return code, out.String(), errs.String()
}

func TestWrongCommandLinesAreExplainedInOneLine(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"config"}, "settmq config: needs check, default or environment"},
		{[]string{"config", "check"}, "settmq config check: needs one file"},
		{[]string{"config", "change"}, `settmq config: unknown command "change"`},
		{[]string{"config", "default", "x"}, `settmq config default: does not take "x"`},
		{[]string{"version", "x"}, `settmq version: does not take "x"`},
		{[]string{"serve", "x"}, `settmq serve: does not take "x"`},
		{[]string{"recover"}, "settmq recover: needs --accept-loss"},
		{[]string{"sbu"}, `settmq: unknown command "sbu", did you mean sub`},
		{[]string{"--nonsense"}, "settmq: unknown flag: --nonsense"},
	} {
		code, stdout, stderr := runCommand("", tc.args...)
		if code != cli.ExitUsage || stdout != "" || !strings.HasPrefix(stderr, tc.want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: code %d, stdout %q, stderr %q", tc.args, code, stdout, stderr)
		}
	}
}

func TestHelpAndVersionAreResults(t *testing.T) {
	for args, want := range map[string]string{
		"--help": "Usage:\n  settmq [flags]", "serve -h": "Usage:\n  settmq serve [flags]", "recover --help": "Usage:\n  settmq recover",
		"config --help": "check ", "version --help": "settmq version", "--version": "settmq ", "version": "settmq ", "completion bash": "__start_settmq",
	} {
		code, stdout, stderr := runCommand("", strings.Fields(args)...)
		if code != cli.ExitOK || !strings.Contains(stdout, want) || stderr != "" {
			t.Errorf("%s: code %d, stdout %q, stderr %q", args, code, stdout, stderr)
		}
	}
}

func TestConfigCommands(t *testing.T) {
	code, stdout, stderr := runCommand("", "config", "default")
	if code != cli.ExitOK || stdout != string(settmq.ExampleConfig) || stderr != "" {
		t.Errorf("default: code %d, stderr %q", code, stderr)
	}
	path := filepath.Join(t.TempDir(), "settmq.yaml")
	if err := os.WriteFile(path, []byte(stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := runCommand("", "config", "check", path); code != cli.ExitOK || stdout != path+": ok\n" || stderr != "" {
		t.Errorf("check: code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	if code, stdout, _ := runCommand("", "config", "environment"); code != cli.ExitOK || !strings.Contains(stdout, "\nSETTMQ_LOG_LEVEL=info\n") {
		t.Errorf("environment: code %d, stdout %q", code, stdout)
	}
	if err := os.WriteFile(path, []byte("channel_max: 0\nframe_max: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr = runCommand("", "config", "check", path)
	want := path + ": frame_max: 1 is not within 4KiB to 16MiB\n" + path + ": channel_max: 0 is not within 1 to 65535\n"
	if code != cli.ExitFailed || stdout != "" || stderr != want {
		t.Errorf("check: code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	if code, _, stderr := runCommand("", "config", "check", path+"x"); code != cli.ExitFailed || !strings.Contains(stderr, "no such file") {
		t.Errorf("missing file: code %d, stderr %q", code, stderr)
	}
}

func TestVersionIsOneLine(t *testing.T) {
	code, stdout, _ := runCommand("", "version")
	if code != cli.ExitOK || !strings.HasPrefix(stdout, "settmq ") || strings.Count(stdout, "\n") != 1 {
		t.Errorf("code %d, stdout %q", code, stdout)
	}
}
