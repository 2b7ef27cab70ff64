package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/settmq/settmq/internal/testbroker"
)

func TestMain(m *testing.M) { testbroker.Main(m) }

// runSettmq runs the program to its end, or for ten seconds.
func runSettmq(t *testing.T, args ...string) (code int, output string) {
	t.Helper()
	binary, err := testbroker.Binary()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("settmq %q: %v", args, err)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

// configFile writes a config and returns its path.
func configFile(t *testing.T, dataDir, address, more string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "settmq.yaml")
	if !strings.Contains(more, "management:") {
		more += "management: {listen: \"127.0.0.1:0\"}\n"
	}
	text := fmt.Sprintf("data_dir: %s\nlisteners: [{address: %q}]\n%s", dataDir, address, more)
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestFailedStartSaysWhatWhereAndWhatToDo(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	running := testbroker.Start(t, testbroker.Options{})
	file := filepath.Join(t.TempDir(), "file")
	newer := t.TempDir()
	for name, text := range map[string]string{file: "not a directory", filepath.Join(newer, "format"): "settmq storage format 9999\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	definitions := filepath.Join(t.TempDir(), "defs.json")
	if err := os.WriteFile(definitions, []byte(`{"bindings":[{"source":"no","vhost":"/","destination":"q","destination_type":"queue","routing_key":"","arguments":{}}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		config string
		code   int
		says   []string
	}{
		{"port taken", configFile(t, t.TempDir(), taken.Addr().String(), ""), exitListen, []string{taken.Addr().String(), "in use", "listeners"}},
		{"management port taken", configFile(t, t.TempDir(), "127.0.0.1:0", "management: {listen: \""+taken.Addr().String()+"\"}\n"), exitListen, []string{taken.Addr().String(), "in use", "management.listen"}},
		{"unknown key", configFile(t, t.TempDir(), "127.0.0.1:0", "no_such_key: 1\n"), exitConfig, []string{"line 3", "no_such_key"}},
		{"bad value", configFile(t, t.TempDir(), "127.0.0.1:0", "heartbeat: 10\n"), exitConfig, []string{"line 3", "not a duration"}},
		{"file missing", filepath.Join(t.TempDir(), "none.yaml"), exitConfig, []string{"none.yaml"}},
		{"data directory is a file", configFile(t, file, "127.0.0.1:0", ""), exitDataDir, []string{file}},
		{"locked", configFile(t, running.DataDir(), "127.0.0.1:0", ""), exitLocked, []string{running.DataDir(), "another broker", "data_dir"}},
		{"newer format", configFile(t, newer, "127.0.0.1:0", ""), exitNewerFormat, []string{newer, "newer version"}},
		{"definitions that cannot be used", configFile(t, t.TempDir(), "127.0.0.1:0", "load_definitions: "+definitions+"\n"), exitConfig, []string{definitions, "no such source", "Nothing of the file"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out := runSettmq(t, "serve", "--config", c.config)
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			for _, s := range c.says {
				if !strings.Contains(out, s) {
					t.Errorf("does not say %q:\n%s", s, out)
				}
			}
		})
	}
}

// connections get connection.close 320, exit 0 within five seconds with a thousand of
// them, most of which do not answer, and no recovery is needed by the next start.
func TestStopWithAThousandConnections(t *testing.T) {
	if testing.Short() {
		t.Skip("opens a thousand connections")
	}
	b := testbroker.Start(t, testbroker.Options{Config: "limits: {max_handshakes_per_ip: 256}\n"})
	polite, err := amqp091.Dial(b.URL())
	if err != nil {
		t.Fatal(err)
	}
	told := polite.NotifyClose(make(chan *amqp091.Error, 1))
	silent := make([]net.Conn, 1000)
	var opening sync.WaitGroup
	for i := range 16 {
		opening.Go(func() {
			for k := i; k < len(silent); k += 16 {
				var err error
				if silent[k], err = openAndIgnore(b.Addr()); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	opening.Wait()
	defer func() {
		for _, c := range silent {
			if c != nil {
				_ = c.Close()
			}
		}
	}()
	if t.Failed() {
		t.FailNow()
	}
	start := time.Now()
	if err := syscall.Kill(b.PID(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-b.Exited():
	case <-time.After(15 * time.Second):
		t.Fatal("still running")
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
	if err := b.ExitErr(); err != nil {
		t.Errorf("ended with %v", err)
	}
	if e := <-told; e == nil || e.Code != amqp091.ConnectionForced || !strings.Contains(e.Reason, "shutdown") {
		t.Errorf("a client heard %v", e)
	}
	if _, err := b.Restart(); err != nil {
		t.Fatal(err)
	}
	if log := b.LogTail(); !strings.Contains(log, "clean=true") {
		t.Errorf("the next start found no clean end:\n%s", log)
	}
}

// openAndIgnore opens a connection and answers nothing afterwards.
func openAndIgnore(addr string) (net.Conn, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	frame := func(method string) string {
		return fmt.Sprintf("\x01\x00\x00%c%c%c%c%s\xce", 0, 0, len(method)>>8, len(method)&255, method)
	}
	const login = "\x00guest\x00guest"
	for _, out := range []string{
		"AMQP\x00\x00\x09\x01",
		frame("\x00\x0a\x00\x0b\x00\x00\x00\x00\x05PLAIN\x00\x00\x00\x0c" + login + "\x05en_US"),
		frame("\x00\x0a\x00\x1f\x07\xff\x00\x02\x00\x00\x00\x00") + frame("\x00\x0a\x00\x28\x01/\x00\x00"),
	} {
		if _, err := c.Write([]byte(out)); err != nil {
			return nil, err
		}
		if _, err := c.Read(make([]byte, 4096)); err != nil { // start, tune, open-ok
			return nil, err
		}
	}
	return c, nil
}

func TestDefinitionsAreLoadedAtStart(t *testing.T) {
	name, err := filepath.Abs("../../broker/definitions/testdata/cluster-4.3.json")
	if err != nil {
		t.Fatal(err)
	}
	// One thing that cannot be taken over refuses the whole file.
	code, out := runSettmq(t, "serve", "--config", configFile(t, t.TempDir(), "127.0.0.1:0", "load_definitions: "+name+"\n"))
	if code != exitConfig || !strings.Contains(out, "there is no such source") || !strings.Contains(out, "Nothing of the file was taken over") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	own := filepath.Join(t.TempDir(), "defs.json")
	if err := os.WriteFile(own, []byte(`{
		"users": [{"name":"app","password_hash":"kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR","hashing_algorithm":"rabbit_password_hashing_sha256","tags":""}],
		"vhosts": [{"name":"prod"}],
		"permissions": [{"user":"app","vhost":"prod","configure":".*","write":".*","read":".*"}],
		"exchanges": [{"name":"ev","vhost":"prod","type":"topic","durable":true,"auto_delete":false,"internal":false,"arguments":{}}],
		"queues": [{"name":"q","vhost":"prod","durable":true,"auto_delete":false,"arguments":{"x-queue-type":"classic"}}],
		"bindings": [{"source":"ev","vhost":"prod","destination":"q","destination_type":"queue","routing_key":"a.#","arguments":{}}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	b := testbroker.Start(t, testbroker.Options{Config: "load_definitions: " + own + "\n"})
	for range 2 { // and it may be loaded again
		conn, err := amqp091.Dial("amqp://app:test12@" + b.Addr() + "/prod")
		if err != nil {
			t.Fatal(err)
		}
		ch, err := conn.Channel()
		if err != nil {
			t.Fatal(err)
		}
		if err := ch.Confirm(false); err != nil {
			t.Fatal(err)
		}
		done, err := ch.PublishWithDeferredConfirm("ev", "a.b", true, false, amqp091.Publishing{Body: []byte("hi"), DeliveryMode: 2})
		if err != nil || !done.Wait() {
			t.Fatalf("publish: %v", err)
		}
		if d, ok, err := ch.Get("q", true); err != nil || !ok || string(d.Body) != "hi" {
			t.Fatalf("get: %q %v %v", d.Body, ok, err)
		}
		_ = conn.Close()
		if _, err := b.Restart(); err != nil {
			t.Fatal(err)
		}
	}
}
