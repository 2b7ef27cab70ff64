package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/settmq/settmq/internal/testbroker"
)

func (c child) Block() error   { return c.limitMemory(`{"mem_limit":1}`) }
func (c child) Unblock() error { return c.limitMemory(`{"mem_limit_relative":0.6}`) }

func (c child) limitMemory(body string) error {
	return c.api(http.MethodPut, "/nodes/"+url.PathEscape(c.node())+"/limits", body, http.StatusNoContent)
}

// node is the broker's name; "" if it cannot be had.
func (c child) node() string {
	resp, err := http.Get(c.apiURL() + "/nodes")
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	var nodes []struct{ Name string }
	if err := json.NewDecoder(resp.Body).Decode(&nodes); err != nil || len(nodes) != 1 {
		return ""
	}
	return nodes[0].Name
}

func (c child) apiURL() string {
	return strings.Replace(c.ManagementURL(), "://", "://guest:guest@", 1) + "/api"
}

// api makes a request whose answer has the wanted status.
func (c child) api(method, path, body string, want int) error {
	r, err := http.NewRequest(method, c.apiURL()+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != want {
		text, _ := io.ReadAll(answer.Body)
		return fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, text)
	}
	return nil
}

// The alarm is that of the whole broker, so the test is not parallel.
func TestAlarmHoldsPublishersAndNobodyElse(t *testing.T) {
	b := ownBroker(t)
	publisher, consumer := dialURL(t, b.URL()), dialURL(t, b.URL())
	notices := publisher.NotifyBlocked(make(chan amqp.Blocking, 10))
	ch, other := channel(t, publisher), channel(t, consumer)
	names := &durableNames{url: b.URL()}
	t.Cleanup(func() { names.remove() })
	q := names.queue(t, ch, "q", true, nil)
	confirmMode(t, ch)
	const before = 100
	for i := range before {
		publishConfirmed(t, ch, "", q, amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte(fmt.Sprint(i))})
	}

	must(t, b.Block())
	t.Cleanup(func() { _ = b.Unblock() })
	// RabbitMQ lets the publish through that makes it notice.
	first, err := ch.PublishWithDeferredConfirm("", q, false, false, amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte("first")})
	must(t, err)
	if n := await(t, "the notice", notices); !n.Active || n.Reason != "low on memory" {
		t.Fatalf("told %+v", n)
	}
	held, err := ch.PublishWithDeferredConfirm("", q, false, false, amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte("held")})
	must(t, err)
	// Consumers go on, their acks count, and so do declarations.
	prefetch(t, other, 10, false)
	deliveries := consume(t, other, q, "", nil)
	for i := range before {
		d := receive(t, deliveries)
		if string(d.Body) != fmt.Sprint(i) {
			t.Fatalf("got %s, want %d", d.Body, i)
		}
		ack(t, d, false)
	}
	inspect(t, other, q)
	if held.Acked() {
		t.Error("a publish was confirmed during the alarm")
	}

	must(t, b.Unblock())
	if n := await(t, "the end of it", notices); n.Active {
		t.Fatalf("told %+v", n)
	}
	for i, c := range []*amqp.DeferredConfirmation{first, held} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if stored, err := c.WaitContext(ctx); err != nil || !stored {
			t.Errorf("message %d: stored %v, %v", i, stored, err)
		}
		receive(t, deliveries)
	}
}

// The publishers of one vhost wait, and those of another do not.
func TestFullVHostHoldsItsOwnPublishers(t *testing.T) {
	t.Parallel()
	if sut.external {
		t.Skip("RabbitMQ has no max-message-bytes")
	}
	b := child{testbroker.Start(t, testbroker.Options{})}
	const body, most = 10_000, 1_000_000
	must(t, b.api(http.MethodPut, "/vhosts/small", "{}", http.StatusCreated))
	must(t, b.api(http.MethodPut, "/vhost-limits/small/max-message-bytes", fmt.Sprintf(`{"value":%d}`, most), http.StatusNoContent))

	publisher := dialURL(t, b.URL()+"small")
	notices := publisher.NotifyBlocked(make(chan amqp.Blocking, 10))
	ch := channel(t, publisher)
	confirmMode(t, ch)
	_, err := ch.QueueDeclare("q", true, false, false, false, nil)
	must(t, err)
	sent := 0
	var last *amqp.DeferredConfirmation
	for told := false; !told; { // one at a time: a held connection is not read, and the client would wait in its write
		last, err = ch.PublishWithDeferredConfirm("", "q", false, false, amqp.Publishing{DeliveryMode: amqp.Persistent, Body: make([]byte, body)})
		must(t, err)
		sent++
		select {
		case n := <-notices:
			if told = n.Active && n.Reason == "the vhost is full"; !told {
				t.Fatalf("told %+v", n)
			}
		case <-last.Done():
		}
	}
	held, err := ch.PublishWithDeferredConfirm("", "q", false, false, amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte("held")})
	must(t, err)

	other := channel(t, dialURL(t, b.URL()))
	confirmMode(t, other)
	_, err = other.QueueDeclare("q", true, false, false, false, nil)
	must(t, err)
	publishConfirmed(t, other, "", "q", amqp.Publishing{Body: make([]byte, body)})
	must(t, b.api(http.MethodPost, "/exchanges/small/amq.default/publish", `{"properties":{},"routing_key":"q","payload":"x","payload_encoding":"string"}`, http.StatusServiceUnavailable))
	if held.Acked() {
		t.Error("a publish to the full vhost was confirmed")
	}

	consumer := channel(t, dialURL(t, b.URL()+"small"))
	prefetch(t, consumer, 100, false)
	deliveries := consume(t, consumer, "q", "", nil)
	for range sent + 1 {
		ack(t, receive(t, deliveries), false)
	}
	if n := await(t, "the end of it", notices); n.Active {
		t.Fatalf("told %+v", n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, c := range []*amqp.DeferredConfirmation{last, held} {
		if stored, err := c.WaitContext(ctx); err != nil || !stored {
			t.Errorf("stored %v, %v", stored, err)
		}
	}
}
