package management

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"

	"github.com/settmq/settmq/server"
)

// amqpURL is where clients of the broker connect: AMQP_URL for a RabbitMQ.
func (a *api) amqpURL() string {
	a.t.Helper()
	if a.broker == nil {
		u := os.Getenv("AMQP_URL")
		if u == "" {
			a.t.Skip("AMQP_URL is not set")
		}
		return u
	}
	srv := server.New(server.Options{
		Broker: a.broker, Log: zerolog.Nop(), Product: "RabbitMQ", Version: "3.13.7", Heartbeat: time.Minute, FrameMax: 128 << 10,
		InitialFrameMax: 8 << 10, ChannelMax: 2047, HandshakeTimeout: 30 * time.Second, TLSTimeout: 30 * time.Second, MaxMessageSize: 1 << 20,
		Mechanisms: []string{"PLAIN"}, MaxHandshakes: 100, MaxHandshakesPerIP: 100, MaxConsumersPerChannel: 100, Outbox: 1 << 20,
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		a.t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	a.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		srv.Shutdown(ctx)
		<-served
	})
	return "amqp://guest:guest@" + l.Addr().String() + "/"
}

// dial connects a user, whose password is the name.
func dial(t *testing.T, address, user string) (*amqp091.Connection, string) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(user, user)
	c, err := amqp091.DialConfig(u.String(), amqp091.Config{Heartbeat: 10 * time.Second, Properties: amqp091.Table{"connection_name": "contract"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, c.LocalAddr().String() + " -> " + c.RemoteAddr().String()
}

// The contract of what is open: the requests are those of testdata/live, made while a client is connected.
func TestContractOfWhatIsOpen(t *testing.T) {
	a := newAPI(t)
	c, name := dial(t, a.amqpURL(), "guest")
	ch, err := c.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	if err := ch.Qos(7, 0, false); err != nil {
		t.Fatal(err)
	}
	if _, err := ch.QueueDeclare("contract-live", false, false, true, false, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := ch.Consume("contract-live", "tag", false, false, false, false, amqp091.Table{"x-priority": 5}); err != nil {
		t.Fatal(err)
	}
	const file = "testdata/live/answers.json"
	requests := readRequests(t, "testdata/live/requests")
	for i := range requests {
		requests[i].Path = strings.NewReplacer("{name}", url.PathEscape(name), "{channel}", url.PathEscape(name+" (1)")).Replace(requests[i].Path)
	}
	got := a.play(requests)
	for i := range got { // its ports are others every time
		got[i].Path = strings.NewReplacer(url.PathEscape(name+" (1)"), "{channel}", url.PathEscape(name), "{name}").Replace(got[i].Path)
		got[i].Answer = bytes.ReplaceAll(got[i].Answer, []byte(name), []byte("{name}"))
	}
	if *record {
		writeContract(t, file, got)
		return
	}
	for i, want := range readContract(t, file) {
		compareAnswers(t, want, got[i])
	}
}

func TestConnectionsBelongToTheirUsers(t *testing.T) {
	a := newAPI(t)
	a.user("open-mine", "management", "/")
	a.user("open-other", "management", "/")
	a.user("open-monitor", "monitoring", "/")
	address := a.amqpURL()
	c, name := dial(t, address, "open-mine")
	closed := c.NotifyClose(make(chan *amqp091.Error, 1))
	path := "/api/connections/" + url.PathEscape(name)
	// RabbitMQ takes a while to know of a connection.
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if status, _ := a.as("guest", "GET", path, ""); status == http.StatusOK {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the connection is not listed")
		}
	}
	for user, sees := range map[string]bool{"open-mine": true, "open-other": false, "open-monitor": true, "guest": true} {
		status, answer := a.as(user, "GET", "/api/connections", "")
		if status != http.StatusOK || strings.Contains(answer, `"name":"`+name+`"`) != sees {
			t.Errorf("%s lists %s", user, answer)
		}
		want := http.StatusOK
		if !sees {
			want = http.StatusUnauthorized
		}
		if status, answer := a.as(user, "GET", path, ""); status != want {
			t.Errorf("%s looks at it: %d %s", user, status, answer)
		}
	}
	for _, user := range []string{"open-other", "open-monitor"} {
		if status, answer := a.as(user, "DELETE", path, ""); status != http.StatusUnauthorized {
			t.Errorf("%s closes it: %d %s", user, status, answer)
		}
	}
	r := a.request("open-mine", "DELETE", path, "")
	r.Header.Set("X-Reason", "enough of it")
	if w, answer := a.send(r); w.StatusCode != http.StatusNoContent {
		t.Fatalf("%d %s", w.StatusCode, answer)
	}
	select {
	case e := <-closed:
		if e == nil || e.Code != amqp091.ConnectionForced || e.Reason != "CONNECTION_FORCED - enough of it" {
			t.Errorf("closed with %v", e)
		}
	case <-time.After(30 * time.Second):
		t.Error("it stays open")
	}
}

func TestLimitsOfTheAlarms(t *testing.T) {
	a := newOwnAPI(t)
	const path = "/api/nodes/settmq@test/limits"
	alarms := func() (memory, disk bool) {
		var node struct {
			Memory bool `json:"mem_alarm"`
			Disk   bool `json:"disk_free_alarm"`
		}
		if err := json.Unmarshal([]byte(a.do("GET", "/api/nodes/settmq@test", "", http.StatusOK)), &node); err != nil {
			t.Fatal(err)
		}
		return node.Memory, node.Disk
	}
	for _, c := range []struct {
		body         string
		memory, disk bool
	}{
		{`{"mem_limit":1}`, true, false},
		{`{"disk_free_limit":1152921504606846976}`, true, true},
		{`{"mem_limit_relative":1,"disk_free_limit_relative":0}`, false, false},
		{`{"mem_limit_relative":0}`, true, false},
		{`{"mem_limit":"1152921504606846976"}`, false, false},
	} {
		a.do("PUT", path, c.body, http.StatusNoContent)
		if memory, disk := alarms(); memory != c.memory || disk != c.disk {
			t.Errorf("%s: alarms %v, %v", c.body, memory, disk)
		}
	}
	for _, body := range []string{
		`{}`, `[]`, `{"mem_limit":-1}`, `{"mem_limit":1.5}`, `{"mem_limit":"x"}`, `{"mem_limit_relative":-0.1}`, `{"mem_limit_relative":1e300}`,
		`{"mem_limit":1,"mem_limit_relative":0.1}`, `{"mem_limit":1,"disk_free_limit":"x"}`,
	} {
		a.do("PUT", path, body, http.StatusBadRequest)
	}
	if memory, _ := alarms(); memory {
		t.Error("a refused request did something")
	}
	a.do("PUT", "/api/nodes/other@test/limits", `{"mem_limit":1}`, http.StatusNotFound)
}
