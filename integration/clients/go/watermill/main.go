// Watermill's publishers and subscribers over AMQP: durable queues and a fan-out per topic, nacks, reconnects.
package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"clients/checks"
	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-amqp/v3/pkg/amqp"
	"github.com/ThreeDotsLabs/watermill/message"
	rabbit "github.com/rabbitmq/amqp091-go"
)

func main() {
	checks.Run(
		checks.Check{Name: "queue", Run: queue},
		checks.Check{Name: "fanOut", Run: fanOut},
		checks.Check{Name: "retry", Run: retry},
		checks.Check{Name: "recovery", Needs: "AMQP_CTL", Run: recovery},
	)
}

// system is a publisher and subscribers to one topic.
type system struct {
	publisher   *amqp.Publisher
	subscribers []*amqp.Subscriber
	topic       string
	queues      []string
}

func start(hint string, configs ...amqp.Config) (*system, []<-chan *message.Message, error) {
	s := &system{topic: checks.Name(hint)}
	var inboxes []<-chan *message.Message
	for _, c := range configs {
		c.Publish.ConfirmDelivery = true
		c.Connection.Reconnect = &amqp.ReconnectConfig{BackoffInitialInterval: 50e6, BackoffMultiplier: 1, BackoffMaxInterval: 100e6}
		sub, err := amqp.NewSubscriber(c, watermill.NopLogger{})
		if err != nil {
			return nil, nil, err
		}
		inbox, err := sub.Subscribe(context.Background(), s.topic)
		if err != nil {
			return nil, nil, err
		}
		s.subscribers, inboxes = append(s.subscribers, sub), append(inboxes, inbox)
		s.queues = append(s.queues, c.Queue.GenerateName(s.topic))
		if s.publisher == nil {
			if s.publisher, err = amqp.NewPublisher(c, watermill.NopLogger{}); err != nil {
				return nil, nil, err
			}
		}
	}
	return s, inboxes, nil
}

func (s *system) stop() error {
	errs := []error{s.publisher.Close()}
	for _, sub := range s.subscribers {
		errs = append(errs, sub.Close())
	}
	return checks.WithChannel(func(_ *rabbit.Connection, ch *rabbit.Channel) error {
		for _, q := range s.queues {
			_, err := ch.QueueDelete(q, false, false, false)
			errs = append(errs, err)
		}
		return errors.Join(append(errs, ch.ExchangeDelete(s.topic, false, false))...)
	})
}

func (s *system) publish(body string) error {
	m := message.NewMessage(watermill.NewUUID(), []byte(body))
	m.Metadata.Set("from", "test")
	return s.publisher.Publish(s.topic, m)
}

func queue() error {
	s, in, err := start("queue", amqp.NewDurableQueueConfig(checks.URL))
	if err != nil {
		return err
	}
	for i := range 100 {
		if err := s.publish(strconv.Itoa(i)); err != nil {
			return err
		}
	}
	for i := range 100 {
		m, err := checks.Next(in[0])
		if err != nil {
			return err
		}
		if err := errors.Join(checks.Equal(string(m.Payload), strconv.Itoa(i)), checks.Equal(m.Metadata.Get("from"), "test")); err != nil {
			return err
		}
		m.Ack()
	}
	return s.stop()
}

// fanOut: every subscriber has a queue of its own.
func fanOut() error {
	one := amqp.NewDurablePubSubConfig(checks.URL, amqp.GenerateQueueNameTopicNameWithSuffix("one"))
	two := amqp.NewDurablePubSubConfig(checks.URL, amqp.GenerateQueueNameTopicNameWithSuffix("two"))
	s, in, err := start("fan-out", one, two)
	if err != nil {
		return err
	}
	if err := s.publish("news"); err != nil {
		return err
	}
	for _, inbox := range in {
		m, err := checks.Next(inbox)
		if err := errors.Join(err, checks.Equal(string(m.Payload), "news")); err != nil {
			return err
		}
		m.Ack()
	}
	return s.stop()
}

// retry: what is nacked comes again.
func retry() error {
	s, in, err := start("retry", amqp.NewDurableQueueConfig(checks.URL))
	if err != nil {
		return err
	}
	if err := s.publish("job"); err != nil {
		return err
	}
	for try := range 4 {
		m, err := checks.Next(in[0])
		if err != nil {
			return err
		}
		if try < 3 {
			m.Nack()
		} else {
			m.Ack()
		}
	}
	return s.stop()
}

func recovery() error {
	s, in, err := start("recovery", amqp.NewDurableQueueConfig(checks.URL))
	if err != nil {
		return err
	}
	const all = 200
	var mu sync.Mutex
	got := make(map[string]bool)
	go func() {
		for m := range in[0] {
			mu.Lock()
			got[string(m.Payload)] = true
			mu.Unlock()
			m.Ack()
		}
	}()
	for i := range all {
		if i == all/4 || i == all/2 {
			if err := errors.Join(checks.Broker("kill"), checks.Broker("start")); err != nil {
				return err
			}
		}
		if err := checks.Eventually(func() error { return s.publish(strconv.Itoa(i)) }); err != nil {
			return err
		}
	}
	if err := checks.Eventually(func() error {
		mu.Lock()
		defer mu.Unlock()
		if len(got) < all {
			return fmt.Errorf("%d of %d messages came", len(got), all)
		}
		return nil
	}); err != nil {
		return err
	}
	return s.stop()
}
