package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/settmq/settmq/internal/testbroker"
)

// awaitLog waits until the broker's log holds text.
func awaitLog(t *testing.T, b *testbroker.Broker, text string) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		log, err := os.ReadFile(b.LogFile())
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(log), text) {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("the log never said %q", text)
		case <-b.Exited():
			t.Fatalf("the broker ended before it said %q", text)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestSupervisorIsToldOfEveryState(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	expect := func(want string) {
		t.Helper()
		if err := l.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		n, err := l.Read(buf)
		if err != nil || string(buf[:n]) != want {
			t.Fatalf("got %q (%v), want %q", buf[:n], err, want)
		}
	}
	b := testbroker.Start(t, testbroker.Options{Env: []string{"NOTIFY_SOCKET=" + socket}})
	expect("READY=1")
	file := filepath.Join(b.Dir(), "settmq.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	hangup := func(more string) {
		t.Helper()
		if err := os.WriteFile(file, append(text, more...), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(b.PID(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		expect("RELOADING=1")
		expect("READY=1")
	}
	hangup("nonsense: 1\n")
	awaitLog(t, b, "nothing was reloaded")
	hangup("log: {level: debug}\nchannel_max: 7\n")
	awaitLog(t, b, "changed settings that count from the next start on")
	awaitLog(t, b, "channel_max")
	if conn, err := amqp091.Dial(b.URL()); err != nil {
		t.Error(err)
	} else {
		_ = conn.Close()
	}
	awaitLog(t, b, "DBG") // the level counts at once
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	expect("STOPPING=1")
}

func TestFirstUserFromTheEnvironment(t *testing.T) {
	b := testbroker.Start(t, testbroker.Options{Env: []string{
		"RABBITMQ_DEFAULT_USER=app", "RABBITMQ_DEFAULT_PASS=s3cret", "RABBITMQ_DEFAULT_VHOST=prod", "RABBITMQ_ERLANG_COOKIE=x", "SETTMQ_CHANNEL_MAX=9",
	}})
	awaitLog(t, b, "RABBITMQ_ERLANG_COOKIE")
	conn, err := amqp091.Dial("amqp://app:s3cret@" + b.Addr() + "/prod")
	if err != nil {
		t.Fatal(err)
	}
	if conn.Config.ChannelMax != 9 {
		t.Errorf("channel_max is %d", conn.Config.ChannelMax)
	}
	_ = conn.Close()
	if _, err := amqp091.Dial(b.URL()); err == nil {
		t.Error("guest exists")
	}
	if log, err := os.ReadFile(b.LogFile()); err != nil || strings.Contains(string(log), "s3cret") {
		t.Errorf("the password is in the log, or there is none: %v", err)
	}
}

func TestMisspeltVariableRefusesTheStart(t *testing.T) {
	t.Setenv("SETTMQ_AUTH_DEFAULT_PASSWORD", "x")
	code, out := runSettmq(t, "serve", "--config", configFile(t, t.TempDir(), "127.0.0.1:0", ""))
	if code != exitConfig || !strings.Contains(out, "SETTMQ_AUTH_DEFAULT_PASSWORD") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}
