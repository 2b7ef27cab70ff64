package server

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/settmq/settmq/amqp"
)

// TestFirehoseUnderLoad: copies of everything that goes through many queues and channels at once
// arrive, each publish before its delivery, and switching it off ends that.
func TestFirehoseUnderLoad(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		v := r.b.VHost("/")
		watcher := r.open()
		watcher.declare("traces")
		call[*amqp.QueueBindOk](watcher, 1, &amqp.QueueBind{Queue: "traces", Exchange: "amq.rabbitmq.trace", RoutingKey: "#"})
		v.SetTracing(true)
		const connections, messages = 5, 40
		for i := range connections {
			q := fmt.Sprint("q", i)
			consumer, publisher := r.open(), r.open()
			consumer.declare(q)
			consumer.consume(q, true)
			go func() {
				for n := range messages {
					publisher.publish(1, "", q, fmt.Sprint(n))
				}
			}()
			go func() {
				for range messages {
					expectContent[*amqp.BasicDeliver](consumer, 1)
				}
			}()
		}
		synctest.Wait()
		v.SetTracing(false)
		watcher.publish(1, "", "q0", "not traced")
		watcher.consume("traces", true)
		published, delivered := map[string]bool{}, map[string]bool{}
		for range 2 * connections * messages {
			d, body := expectContent[*amqp.BasicDeliver](watcher, 1)
			if d.RoutingKey == "publish." {
				published[string(body)] = true
				continue
			}
			if !published[string(body)] {
				t.Fatalf("%s of %q before its publish", d.RoutingKey, body)
			}
			delivered[d.RoutingKey+" "+string(body)] = true
		}
		if len(delivered) != connections*messages {
			t.Errorf("%d different deliveries were traced, want %d", len(delivered), connections*messages)
		}
		watcher.silent("after all traces")
	})
}
