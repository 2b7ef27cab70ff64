package integration

import (
	"fmt"
	"slices"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func TestConfirmRefusals(t *testing.T) {
	t.Parallel()
	refuse(t, []refusal{
		{name: "on a tx channel", do: func(t *testing.T, s *scene) {
			must(t, s.ch.Tx())
			_ = s.ch.Confirm(false)
		}, code: 406, text: "PRECONDITION_FAILED - cannot switch from tx to confirm mode"},
	})
}

// confirms reads basic.ack frames until all of 1..n are confirmed, each once.
func confirms(t *testing.T, c *wireConn, channel uint16, from, n uint64) {
	t.Helper()
	open := map[uint64]bool{}
	for seq := from; seq < from+n; seq++ {
		open[seq] = true
	}
	for len(open) > 0 {
		r := c.expect(channel, basicAck)
		tag, multiple := r.longlong(), r.octet()&1 == 1
		covered := 0
		for seq := range open {
			if seq == tag || multiple && seq < tag {
				delete(open, seq)
				covered++
			}
		}
		if covered == 0 {
			t.Fatalf("confirm %d (multiple=%t) covers nothing that is open", tag, multiple)
		}
	}
}

func TestConfirmsCountFromOne(t *testing.T) {
	t.Parallel()
	c := wireDial(t)
	q := c.declare(1)
	c.publish(1, publishArgs("", q, false, false), nil, "not confirmed")
	c.send(1, confirmSelect, args{}.bits(false))
	c.expect(1, confirmSelectOk)
	c.publish(1, publishArgs("", q, false, false), nil, "first")
	confirms(t, c, 1, 1, 1)
	c.publish(1, publishArgs("", "nowhere", false, false), nil, "dropped")
	confirms(t, c, 1, 2, 1)
	c.send(1, confirmSelect, args{}.bits(false)) // again, no reset
	c.expect(1, confirmSelectOk)
	for range 50 {
		c.publish(1, publishArgs("", q, false, false), nil, "more")
	}
	confirms(t, c, 1, 3, 50)

	// Each channel counts for itself.
	c.openChannel(2)
	c.send(2, confirmSelect, args{}.bits(true)) // nowait
	c.publish(2, publishArgs("", q, false, false), nil, "other channel")
	confirms(t, c, 2, 1, 1)
	c.quiet(1, q)
}

func TestReturnPrecedesConfirm(t *testing.T) {
	t.Parallel()
	c := wireDial(t)
	q := c.declare(1)
	c.send(1, confirmSelect, args{}.bits(false))
	c.expect(1, confirmSelectOk)
	for i := range uint64(20) {
		c.publish(1, publishArgs("", "nowhere", true, false), nil, "lost")
		r := c.expect(1, basicReturn)
		if code, text := r.short(), r.shortstr(); code != 312 || text != "NO_ROUTE" {
			t.Fatalf("returned with %d %q", code, text)
		}
		if m := c.content(1); string(m.body) != "lost" {
			t.Fatalf("returned %q", m.body)
		}
		confirms(t, c, 1, 2*i+1, 1)
		c.publish(1, publishArgs("", q, true, false), nil, "routed")
		confirms(t, c, 1, 2*i+2, 1)
	}
}

func TestConfirmIsOwedPerPublish(t *testing.T) {
	t.Parallel()
	const n = 1000
	for _, c := range []struct {
		name string
		mode uint8
		args amqp.Table
	}{
		{"transient", 1, nil},
		{"persistent", 2, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ch, consumer := open(t), open(t)
			q := sharedQueue(t, ch, c.args)
			deliveries, err := consumer.Consume(q, "", true, false, false, false, nil)
			must(t, err)
			confirmMode(t, ch)
			pending := make([]*amqp.DeferredConfirmation, n)
			for i := range pending {
				pending[i], err = ch.PublishWithDeferredConfirm("", q, false, false, amqp.Publishing{DeliveryMode: c.mode, Body: fmt.Append(nil, i)})
				must(t, err)
			}
			// The consumer takes each message at once, often before it is stored.
			for i := range n {
				wantDelivery(t, deliveries, fmt.Sprint(i), false)
			}
			for i, p := range pending {
				await(t, fmt.Sprint("confirm of ", i), done(p))
				if !p.Acked() {
					t.Fatalf("publish %d is nacked", i)
				}
			}
		})
	}
}

// done turns the outcome of a confirmation into a value: true for an ack.
func done(c *amqp.DeferredConfirmation) <-chan bool {
	out := make(chan bool, 1)
	go func() {
		out <- c.Wait()
	}()
	return out
}

func TestConfirmCoversEveryQueue(t *testing.T) {
	t.Parallel()
	ch := open(t)
	x := newExchange(t, ch, "fanout", nil)
	var queues []string
	for range 5 {
		queues = append(queues, sharedQueue(t, ch, nil))
		bind(t, ch, queues[len(queues)-1], "", x, nil)
	}
	queues = append(queues, privateQueue(t, ch, nil)) // durable and transient together
	bind(t, ch, queues[5], "", x, nil)
	confirmMode(t, ch)
	publishConfirmed(t, ch, x, "", persistent("1", "2", "3")...)
	for _, q := range queues {
		if got := inspect(t, ch, q).Messages; got != 3 {
			t.Fatalf("confirmed with %d of 3 messages in queue %q", got, q)
		}
	}
}

func TestConfirmOfADeletedQueueIsAnAck(t *testing.T) {
	t.Parallel()
	ch := open(t)
	confirmMode(t, ch)
	var pending []*amqp.DeferredConfirmation
	for range 20 {
		q := sharedQueue(t, ch, nil)
		for range 10 {
			c, err := ch.PublishWithDeferredConfirm("", q, false, false, persistent("m")[0])
			must(t, err)
			pending = append(pending, c)
		}
		_, err := ch.QueueDelete(q, false, false, false)
		must(t, err)
	}
	for i, c := range pending {
		await(t, fmt.Sprint("confirm of ", i), done(c))
		if !c.Acked() {
			t.Fatalf("publish %d is nacked", i)
		}
	}
}

// Not parallel: it measures time. A broker that confirms on a timer, say of 20 ms, confirms a
// lone publish after 10 ms in the median. What is not written to a disk has no reason to wait.
func TestConfirmsDoNotWaitForATick(t *testing.T) {
	ch := open(t)
	q := sharedQueue(t, ch, nil)
	confirmMode(t, ch)
	took := make([]time.Duration, 101)
	for i := range took {
		start := time.Now()
		publishConfirmed(t, ch, "", q, amqp.Publishing{Body: []byte("m")})
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	if median := took[len(took)/2]; median > 8*time.Millisecond {
		t.Fatalf("the median of %d single confirms is %v", len(took), median)
	}
}

func TestEarlierPublishesAreConfirmedOrLostWithTheChannel(t *testing.T) {
	t.Parallel()
	conn := dial(t)
	ch := channel(t, conn)
	q := sharedQueue(t, ch, nil)
	confirmMode(t, ch)
	publishConfirmed(t, ch, "", q, persistent("confirmed")...)
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))
	publish(t, ch, uniqueName("no-exchange"), "k", "refused")
	_ = ch.Publish("", q, false, false, persistent("ignored after the exception")[0])
	if e := await(t, "exception", closed); e.Code != 404 {
		t.Fatal(e)
	}
	wantBodies(t, channel(t, conn), q, "confirmed")
}
