package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

func (c child) Block() error   { return c.limitMemory(`{"mem_limit":1}`) }
func (c child) Unblock() error { return c.limitMemory(`{"mem_limit_relative":0.6}`) }

func (c child) limitMemory(body string) error {
	api := strings.Replace(c.ManagementURL(), "://", "://guest:guest@", 1) + "/api/nodes"
	resp, err := http.Get(api)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var nodes []struct{ Name string }
	if err := json.NewDecoder(resp.Body).Decode(&nodes); err != nil {
		return err
	}
	r, err := http.NewRequest(http.MethodPut, api+"/"+nodes[0].Name+"/limits", strings.NewReader(body))
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusNoContent {
		return errors.New(answer.Status)
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
