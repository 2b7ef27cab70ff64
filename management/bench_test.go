package management

import (
	"fmt"
	"net/http"
	"testing"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/settmq/settmq/broker"
)

// BenchmarkLists reports what lists of 10 000 queues, and of 500 connections with a channel and a consumer each, cost.
func BenchmarkLists(b *testing.B) {
	a := newOwnAPI(b)
	v := a.broker.VHost("/")
	for i := range 10000 {
		if _, err := v.DeclareQueue(broker.System{}, broker.QueueDeclare{Name: fmt.Sprintf("queue-%05d", i)}); err != nil {
			b.Fatal(err)
		}
	}
	address := a.amqpURL()
	for i := range 500 {
		c, err := amqp091.Dial(address)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = c.Close() })
		ch, err := c.Channel()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := ch.Consume(fmt.Sprintf("queue-%05d", i), "", false, false, false, false, nil); err != nil {
			b.Fatal(err)
		}
	}
	a.broker.TakeSample()
	a.broker.TakeSample()
	for _, path := range []string{
		"/api/overview", "/api/queues", "/api/queues?page=1&page_size=100", "/api/queues?page=1&page_size=500",
		"/api/queues?page=1&page_size=100&sort=messages&sort_reverse=true", "/api/queues?page=1&page_size=100&name=9$&use_regex=true",
		"/api/queues?page=1&page_size=100&sort=message_stats.publish_details.rate", "/api/queues?columns=name,messages",
		"/api/connections", "/api/connections?page=1&page_size=100", "/api/channels", "/api/channels?page=1&page_size=100",
		"/api/consumers", "/api/bindings", "/api/exchanges", "/api/definitions",
	} {
		b.Run(path, func(b *testing.B) {
			size := 0
			for b.Loop() {
				size = len(a.do("GET", path, "", http.StatusOK))
			}
			b.ReportMetric(float64(size), "bytes")
		})
	}
}
