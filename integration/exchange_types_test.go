package integration

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// needsType skips a test on a broker that lacks a plugin.
func needsType(t *testing.T, kind string) {
	t.Helper()
	if sut.settmq {
		return
	}
	ch, name := open(t), nameFor(t, "probe")
	var e *amqp.Error
	if err := ch.ExchangeDeclare(name, kind, false, false, false, false, nil); errors.As(err, &e) && e.Code == 406 {
		t.Skipf("the plugin for %s is not enabled", kind)
	}
	_ = ch.ExchangeDelete(name, false, false)
}

// spread publishes messages with different keys to an exchange, one confirm at the end, and
// returns how many each queue has got; each message must be in one queue.
func spread(t *testing.T, ch *amqp.Channel, exchange string, queues []string, messages ...amqp.Publishing) []int {
	t.Helper()
	before := make([]int, len(queues))
	for i, q := range queues {
		before[i] = inspect(t, ch, q).Messages
	}
	publishConfirmed(t, ch, exchange, "", messages...)
	counts := make([]int, len(queues))
	eventually(t, func() error { // RabbitMQ confirms transient messages before they are counted
		sum := 0
		for i, q := range queues {
			counts[i] = inspect(t, ch, q).Messages - before[i]
			sum += counts[i]
		}
		if sum != len(messages) {
			return fmt.Errorf("%d messages in the queues, want %d", sum, len(messages))
		}
		return nil
	})
	return counts
}

func numbered(n int, make func(i int) amqp.Publishing) (list []amqp.Publishing) {
	for i := range n {
		list = append(list, make(i))
	}
	return list
}

// TestConsistentHashByKey is the example of docs/consistent-hash-exchange.md.
func TestConsistentHashByKey(t *testing.T) {
	t.Parallel()
	needsType(t, "x-consistent-hash")
	ch := open(t)
	confirmMode(t, ch)
	q1, q2, orders := privateQueue(t, ch, nil), privateQueue(t, ch, nil), nameFor(t, "orders")
	removeExchange(t, orders)
	must(t, func() error {
		err := ch.ExchangeDeclare(orders, "x-consistent-hash", true, false, false, false, nil)
		if err != nil {
			return err
		}
		if err := ch.QueueBind(q1, "1", orders, false, nil); err != nil { // one share
			return err
		}
		return ch.QueueBind(q2, "3", orders, false, nil) // three shares
	}())
	for i := range 400 {
		publishMessage(t, ch, orders, fmt.Sprintf("customer-%d", i%100), amqp.Publishing{Body: []byte(strconv.Itoa(i % 100))})
	}
	var a, b []string
	eventually(t, func() error {
		a, b = append(a, drain(t, ch, q1)...), append(b, drain(t, ch, q2)...)
		if len(a)+len(b) != 400 {
			return fmt.Errorf("%d and %d messages", len(a), len(b))
		}
		return nil
	})
	if len(a) < 40 || len(b) < 200 {
		t.Errorf("%d and %d messages for weights 1 and 3", len(a), len(b))
	}
	for _, key := range a {
		if slices.Contains(b, key) {
			t.Fatalf("customer %s is in both queues", key)
		}
	}
}

func TestConsistentHashByHeaderAndProperty(t *testing.T) {
	t.Parallel()
	needsType(t, "x-consistent-hash")
	for name, tt := range map[string]struct {
		args amqp.Table
		make func(i int) amqp.Publishing
	}{
		"header":         {amqp.Table{"hash-header": "customer"}, func(i int) amqp.Publishing { return amqp.Publishing{Headers: amqp.Table{"customer": int32(i)}} }},
		"message-id":     {amqp.Table{"hash-property": "message_id"}, func(i int) amqp.Publishing { return amqp.Publishing{MessageId: strconv.Itoa(i)} }},
		"correlation-id": {amqp.Table{"hash-property": "correlation_id"}, func(i int) amqp.Publishing { return amqp.Publishing{CorrelationId: strconv.Itoa(i)} }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ch := open(t)
			confirmMode(t, ch)
			x := newExchange(t, ch, "x-consistent-hash", tt.args)
			queues := []string{privateQueue(t, ch, nil), privateQueue(t, ch, nil), privateQueue(t, ch, nil)}
			for _, q := range queues {
				bind(t, ch, q, "1", x, nil)
			}
			for i, n := range spread(t, ch, x, queues, numbered(300, tt.make)...) {
				if n < 30 {
					t.Errorf("queue %d got %d of 300 messages", i, n)
				}
			}
			same := spread(t, ch, x, queues, numbered(50, func(int) amqp.Publishing { return tt.make(7) })...)
			if slices.Max(same) != 50 {
				t.Errorf("messages with one hash key are in %v", same)
			}
			without := spread(t, ch, x, queues, numbered(50, func(int) amqp.Publishing { return amqp.Publishing{} })...)
			if slices.Max(without) != 50 {
				t.Errorf("messages without a hash key are in %v", without)
			}
		})
	}
}

func TestModulusHashExchange(t *testing.T) {
	t.Parallel()
	needsType(t, "x-modulus-hash")
	ch := open(t)
	x := newExchange(t, ch, "x-modulus-hash", nil)
	q1, q2 := privateQueue(t, ch, nil), privateQueue(t, ch, nil)
	bind(t, ch, q1, "", x, nil)
	bind(t, ch, q2, "", x, nil)
	for i := range 200 {
		publish(t, ch, x, strconv.Itoa(i%50), strconv.Itoa(i%50))
	}
	a, b := drain(t, ch, q1), drain(t, ch, q2)
	if len(a)+len(b) != 200 || len(a) < 40 || len(b) < 40 {
		t.Errorf("%d and %d of 200 messages", len(a), len(b))
	}
	for _, key := range a {
		if slices.Contains(b, key) {
			t.Fatalf("key %s is in both queues", key)
		}
	}
}

func TestRandomExchanges(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"x-random", "x-local-random"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			needsType(t, kind)
			ch := open(t)
			confirmMode(t, ch)
			x := newExchange(t, ch, kind, nil)
			queues := []string{privateQueue(t, ch, nil), privateQueue(t, ch, nil), privateQueue(t, ch, nil)}
			for _, q := range queues {
				bind(t, ch, q, "", x, nil)
			}
			messages := numbered(600, func(int) amqp.Publishing { return amqp.Publishing{} })
			for i, n := range spread(t, ch, x, queues, messages...) {
				if n < 120 {
					t.Errorf("queue %d got %d of 600 messages", i, n)
				}
			}
		})
	}
}

// TestPickingExchangesIgnoreCC: a message has one place, whatever other keys it names.
func TestPickingExchangesIgnoreCC(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"x-random", "x-local-random", "x-modulus-hash", "x-consistent-hash"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			needsType(t, kind)
			ch := open(t)
			confirmMode(t, ch)
			x := newExchange(t, ch, kind, nil)
			key := map[string]string{"x-consistent-hash": "1"}[kind]
			queues := []string{privateQueue(t, ch, nil), privateQueue(t, ch, nil)}
			for _, q := range queues {
				bind(t, ch, q, key, x, nil)
			}
			spread(t, ch, x, queues, numbered(20, func(i int) amqp.Publishing {
				return amqp.Publishing{Headers: amqp.Table{"CC": []any{"a", "b", "c", strconv.Itoa(i)}}}
			})...)
		})
	}
}

// wantHistory drains a queue, in which the bodies must appear in order.
func wantHistory(t *testing.T, ch *amqp.Channel, queue string, want ...string) {
	t.Helper()
	var got []string
	eventually(t, func() error {
		if got = append(got, drain(t, ch, queue)...); len(got) < len(want) {
			return fmt.Errorf("the queue has got %q, want %q", got, want)
		}
		return nil
	})
	if !slices.Equal(got, want) {
		t.Errorf("the queue has got %q, want %q", got, want)
	}
}

// TestRecentHistory is the example of docs/recent-history-exchange.md.
func TestRecentHistory(t *testing.T) {
	t.Parallel()
	needsType(t, "x-recent-history")
	ch := open(t)
	chat := nameFor(t, "chat")
	removeExchange(t, chat)
	err := ch.ExchangeDeclare(chat, "x-recent-history", true, false, false, false, amqp.Table{
		"x-recent-history-length": 3,
	})
	must(t, err)
	early := privateQueue(t, ch, nil)
	bind(t, ch, early, "", chat, nil)
	publish(t, ch, chat, "k", "1", "2", "3", "4", "5")
	wantHistory(t, ch, early, "1", "2", "3", "4", "5")

	late := privateQueue(t, ch, nil)
	bind(t, ch, late, "", chat, nil)
	d := receive(t, consume(t, ch, late, "c", nil))
	if string(d.Body) != "3" || d.Exchange != chat || d.RoutingKey != "k" || d.Redelivered {
		t.Errorf("first came %q of exchange %q with key %q, redelivered: %t", d.Body, d.Exchange, d.RoutingKey, d.Redelivered)
	}

	fan, through := newExchange(t, ch, "fanout", nil), privateQueue(t, ch, nil)
	bind(t, ch, through, "", fan, nil)
	bindExchange(t, ch, fan, "", chat, nil)
	if differs(t, "history-through-exchanges") {
		wantHistory(t, ch, through, "5", "4", "3")
	} else {
		wantHistory(t, ch, through, "3", "4", "5")
	}

	publishMessage(t, ch, chat, "k", amqp.Publishing{Headers: amqp.Table{"x-recent-history-no-store": true}, Body: []byte("secret")})
	publish(t, ch, chat, "k", "6")
	wantHistory(t, ch, early, "secret", "6")
	bind(t, ch, early, "again", chat, nil) // another binding of the same queue
	wantHistory(t, ch, early, "4", "5", "6")
	bind(t, ch, early, "again", chat, nil) // the same binding
	publish(t, ch, chat, "k", "7")
	wantHistory(t, ch, early, "7")
}

func TestRecentHistoryKeepsTwentyMessages(t *testing.T) {
	t.Parallel()
	needsType(t, "x-recent-history")
	ch := open(t)
	confirmMode(t, ch)
	x, source := newExchange(t, ch, "x-recent-history", nil), newExchange(t, ch, "fanout", nil)
	bindExchange(t, ch, x, "", source, nil)
	var want []string
	for i := range 30 {
		publishConfirmed(t, ch, source, "k", amqp.Publishing{Body: []byte(strconv.Itoa(i))})
		if i >= 10 {
			want = append(want, strconv.Itoa(i))
		}
	}
	q := privateQueue(t, ch, nil)
	bind(t, ch, q, "", x, nil)
	wantHistory(t, ch, q, want...)
}

// TestRecentHistorySurvives: what a durable exchange remembers of persistent messages is as safe
// as in a queue.
func TestRecentHistorySurvives(t *testing.T) {
	for _, e := range ends {
		t.Run(e.name, func(t *testing.T) {
			needsType(t, "x-recent-history")
			b := ownBroker(t)
			ch := channel(t, dialURL(t, b.URL()))
			confirmMode(t, ch)
			x := nameFor(t, "x")
			must(t, ch.ExchangeDeclare(x, "x-recent-history", true, false, false, false, amqp.Table{"x-recent-history-length": 5}))
			publishConfirmed(t, ch, x, "k", persistent("1", "2", "3", "4", "5", "6", "7", "8")...)
			must(t, e.end(b))
			must(t, b.Start())
			ch = channel(t, dialURL(t, b.URL()))
			q := privateQueue(t, ch, nil)
			bind(t, ch, q, "", x, nil)
			wantHistory(t, ch, q, "4", "5", "6", "7", "8")
			publishConfirmed(t, confirming(t, ch), x, "k", persistent("9")...)
			other := privateQueue(t, ch, nil)
			bind(t, ch, other, "", x, nil)
			wantHistory(t, ch, other, "5", "6", "7", "8", "9")
			must(t, ch.ExchangeDelete(x, false, false))
		})
	}
}

func confirming(t *testing.T, ch *amqp.Channel) *amqp.Channel {
	t.Helper()
	confirmMode(t, ch)
	return ch
}
