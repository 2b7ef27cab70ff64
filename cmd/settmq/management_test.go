package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/settmq/settmq/internal/testbroker"
)

// call makes a request of guest to a broker's API.
func call(t *testing.T, b *testbroker.Broker, method, path, body string) (status int, answer string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, b.ManagementURL()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth("guest", "guest")
	w, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Body.Close()
	text, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.StatusCode, string(text)
}

func TestAPIIsServed(t *testing.T) {
	b := testbroker.Start(t, testbroker.Options{})
	awaitLog(t, b, "Server startup complete")
	if status, answer := call(t, b, "GET", "/health/ready", ""); status != http.StatusOK || answer != `{"status":"ok"}` {
		t.Errorf("ready: %d %s", status, answer)
	}
	_, port, err := net.SplitHostPort(b.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if status, answer := call(t, b, "GET", "/api/health/checks/port-listener/"+port, ""); status != http.StatusOK {
		t.Errorf("listener: %d %s", status, answer)
	}
	socket := filepath.Join(b.DataDir(), "management.sock")
	local := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}}
	w, err := local.Get("http://local/api/users")
	if err != nil || w.StatusCode != http.StatusOK {
		t.Fatalf("over the socket: %v %v", w, err)
	}
	_ = w.Body.Close()
	local.CloseIdleConnections()
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket outlives the broker: %v", err)
	}
}

// A socket that a killed broker left behind does not keep the next one from starting.
func TestLeftSocketIsReplaced(t *testing.T) {
	b := testbroker.Start(t, testbroker.Options{})
	awaitLog(t, b, "management API for the command line")
	if err := b.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Restart(); err != nil {
		t.Fatal(err)
	}
	if log := b.LogTail(); strings.Contains(log, "no socket for the command line") {
		t.Errorf("the log says\n%s", log)
	}
}

// With a vhost and with a user go their connections, as in RabbitMQ.
func TestDeletedVHostsAndUsersLoseTheirConnections(t *testing.T) {
	b := testbroker.Start(t, testbroker.Options{})
	awaitLog(t, b, "Server startup complete")
	for path, body := range map[string]string{"/api/vhosts/v": "", "/api/users/u": `{"password":"p","tags":""}`} {
		if status, answer := call(t, b, "PUT", path, body); status != http.StatusCreated {
			t.Fatalf("%s: %d %s", path, status, answer)
		}
	}
	if status, answer := call(t, b, "PUT", "/api/permissions/v/u", `{"configure":".*","write":".*","read":".*"}`); status != http.StatusCreated {
		t.Fatalf("%d %s", status, answer)
	}
	for _, c := range []struct{ login, path, reason string }{
		{"u:p", "/api/users/u", "CONNECTION_FORCED - user 'u' is deleted"},
		{"guest:guest", "/api/vhosts/v", "CONNECTION_FORCED - vhost 'v' is deleted"},
	} {
		conn, err := amqp091.Dial("amqp://" + c.login + "@" + b.Addr() + "/v")
		if err != nil {
			t.Fatal(err)
		}
		closed := conn.NotifyClose(make(chan *amqp091.Error, 1))
		if status, answer := call(t, b, "DELETE", c.path, ""); status != http.StatusNoContent {
			t.Fatalf("%s: %d %s", c.path, status, answer)
		}
		select {
		case e := <-closed:
			if e == nil || e.Code != amqp091.ConnectionForced || e.Reason != c.reason {
				t.Errorf("%s: closed with %v", c.path, e)
			}
		case <-time.After(30 * time.Second):
			t.Errorf("%s: the connection stays", c.path)
		}
		_ = conn.Close()
	}
}
