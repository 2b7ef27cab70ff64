package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
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

// A vhost that goes while its clients declare, publish and consume leaves nothing that the next start cannot read.
func TestVHostDeletedUnderLoad(t *testing.T) {
	b := testbroker.Start(t, testbroker.Options{})
	awaitLog(t, b, "Server startup complete")
	for round := range 3 {
		if status, answer := call(t, b, "PUT", "/api/vhosts/v", ""); status != http.StatusCreated {
			t.Fatalf("round %d: %d %s", round, status, answer)
		}
		var clients sync.WaitGroup
		busy := make(chan struct{}, 8)
		for range 4 {
			clients.Go(func() { useVHost(b.Addr(), busy) })
		}
		for range 8 { // each of them has published by now
			select {
			case <-busy:
			case <-time.After(30 * time.Second):
				t.Fatal("the clients do nothing")
			}
		}
		if status, answer := call(t, b, "DELETE", "/api/vhosts/v", ""); status != http.StatusNoContent {
			t.Fatalf("round %d: %d %s", round, status, answer)
		}
		clients.Wait() // every connection was closed
	}
	if err := b.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Restart(); err != nil {
		t.Fatal(err)
	}
	if status, answer := call(t, b, "GET", "/api/vhosts", ""); status != http.StatusOK || strings.Contains(answer, `"name":"v"`) {
		t.Errorf("after a restart: %d %s", status, answer)
	}
}

// useVHost declares, publishes and consumes in the vhost until its connection is closed, and says so after each round
// as long as somebody listens.
func useVHost(address string, busy chan<- struct{}) {
	for i := 0; ; i++ {
		conn, err := amqp091.Dial("amqp://guest:guest@" + address + "/v")
		if err != nil {
			return
		}
		ch, err := conn.Channel()
		for err == nil {
			name := fmt.Sprintf("q-%s-%d", conn.LocalAddr(), i)
			i++
			if _, err = ch.QueueDeclare(name, true, false, false, false, nil); err == nil {
				err = ch.QueueBind(name, "#", "amq.topic", false, nil)
			}
			if err == nil {
				_, err = ch.Consume(name, "", true, false, false, false, nil)
			}
			if err == nil {
				err = ch.PublishWithContext(context.Background(), "amq.topic", "k", false, false, amqp091.Publishing{Body: []byte("x"), DeliveryMode: 2})
			}
			select {
			case busy <- struct{}{}:
			default:
			}
		}
		_ = conn.Close()
	}
}
