package integration

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

const replyTo = "amq.rabbitmq.reply-to"

// TestDirectReplyTo is the example of docs/direct-reply-to.md.
func TestDirectReplyTo(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	service := open(t)
	requests := privateQueue(t, service, nil)
	served := make(chan error, 1)
	go func() {
		served <- func() error {
			deliveries, err := service.Consume(requests, "", true, false, false, false, nil)
			if err != nil {
				return err
			}
			request := <-deliveries
			return service.PublishWithContext(ctx, "", request.ReplyTo, false, false, amqp.Publishing{
				CorrelationId: request.CorrelationId,
				Body:          []byte("hello, " + string(request.Body)),
			})
		}()
	}()

	ch := open(t)
	answer, err := func() (string, error) {
		replies, err := ch.Consume("amq.rabbitmq.reply-to", "", true, false, false, false, nil) // auto-ack: true
		if err != nil {
			return "", err
		}
		err = ch.PublishWithContext(ctx, "", requests, false, false, amqp.Publishing{
			ReplyTo:       "amq.rabbitmq.reply-to",
			CorrelationId: "1",
			Body:          []byte("badger"),
		})
		if err != nil {
			return "", err
		}
		reply := <-replies
		return string(reply.Body), nil
	}()
	must(t, err)
	must(t, await(t, "the end of the service", served))
	if answer != "hello, badger" {
		t.Errorf("the answer is %q", answer)
	}
}

// TestManyRequestersGetTheirOwnReplies: channels of several connections ask one service at the
// same time.
func TestManyRequestersGetTheirOwnReplies(t *testing.T) {
	t.Parallel()
	service := open(t)
	requests := privateQueue(t, service, nil)
	for _, d := range []<-chan amqp.Delivery{consume(t, service, requests, "a", nil), consume(t, service, requests, "b", nil)} {
		go func() {
			for r := range d {
				_ = r.Ack(false)
				_ = service.Publish("", r.ReplyTo, false, false, amqp.Publishing{CorrelationId: r.CorrelationId, Body: r.Body})
			}
		}()
	}
	var all sync.WaitGroup
	for range 4 {
		conn := dial(t)
		for range 3 {
			ch := channel(t, conn)
			replies, err := ch.Consume(replyTo, "", true, false, false, false, nil)
			must(t, err)
			all.Go(func() {
				name := uniqueName("requester")
				for i := range 50 {
					publishMessage(t, ch, "", requests, amqp.Publishing{ReplyTo: replyTo, CorrelationId: strconv.Itoa(i), Body: []byte(name)})
				}
				seen := make(map[string]bool)
				for range 50 {
					r := receive(t, replies)
					if string(r.Body) != name || seen[r.CorrelationId] || r.Redelivered || r.Exchange != "" || !strings.HasPrefix(r.RoutingKey, replyTo+".") {
						t.Errorf("%s got %q for %q from %q", name, r.Body, r.CorrelationId, r.RoutingKey)
					}
					seen[r.CorrelationId] = true
				}
			})
		}
	}
	all.Wait()
}

// TestLargeReplies: a body of many frames goes through whole.
func TestLargeReplies(t *testing.T) {
	t.Parallel()
	ch, service := open(t), open(t)
	q := privateQueue(t, service, nil)
	replies, err := ch.Consume(replyTo, "", true, false, false, false, nil)
	must(t, err)
	publishMessage(t, ch, "", q, amqp.Publishing{ReplyTo: replyTo})
	var address string
	eventually(t, func() error {
		d, ok, err := service.Get(q, true)
		if address = d.ReplyTo; err == nil && !ok {
			return fmt.Errorf("no request yet")
		}
		return err
	})
	for _, size := range []int{0, 1, 131064, 131065, 1 << 20} {
		body := strings.Repeat("b", size)
		publish(t, service, "", address, body)
		if r := receive(t, replies); string(r.Body) != body {
			t.Errorf("%d bytes came, want %d", len(r.Body), size)
		}
	}
}
