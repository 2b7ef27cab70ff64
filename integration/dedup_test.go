package integration

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const dedupType = "x-message-deduplication"

// needsDedup skips a test on a broker without the community's plugin.
func needsDedup(t *testing.T) {
	t.Helper()
	needsType(t, dedupType)
	if !sut.settmq {
		t.Skip("the community's plugin keeps fewer promises")
	}
}

// keyed are persistent messages with a key each; a nil key is none.
func keyed(keys ...any) (list []amqp.Publishing) {
	for _, k := range keys {
		p := amqp.Publishing{DeliveryMode: 2, Body: fmt.Append(nil, k)}
		if k != nil {
			p.Headers = amqp.Table{"x-deduplication-header": k}
		}
		list = append(list, p)
	}
	return list
}

// TestDeduplicationPage runs the examples of docs/deduplication.md.
func TestDeduplicationPage(t *testing.T) {
	t.Parallel()
	needsDedup(t)
	ch, orders, body := open(t), nameFor(t, "orders"), []byte("one pizza")
	confirmMode(t, ch)
	err := ch.ExchangeDeclare(orders, "x-message-deduplication", true, false, false, false, amqp.Table{
		"x-cache-size": 100_000,
		"x-cache-ttl":  600_000, // ten minutes
	})
	must(t, err)
	removeExchange(t, orders)
	q := privateQueue(t, ch, nil)
	bind(t, ch, q, "whatever", orders, nil)
	for range 3 {
		err = ch.Publish(orders, "", false, false, amqp.Publishing{
			Headers:      amqp.Table{"x-deduplication-header": "order-4711"},
			DeliveryMode: amqp.Persistent,
			Body:         body,
		})
		must(t, err)
	}
	publishConfirmed(t, ch, orders, "", keyed(nil, nil)...)
	wantBodies(t, ch, q, "one pizza", "<nil>", "<nil>")

	removeQueue(t, "refresh")
	_, err = ch.QueueDeclare("refresh", true, false, false, false, amqp.Table{"x-message-deduplication": true})
	must(t, err)
	publishConfirmed(t, ch, "", "refresh", keyed("a", "b", "a", nil, "b", nil)...)
	d := get(t, ch, "refresh", false)
	publishConfirmed(t, ch, "", "refresh", keyed("a")...)
	ack(t, d, false)
	publishConfirmed(t, ch, "", "refresh", keyed("a")...)
	wantBodies(t, ch, "refresh", "b", "<nil>", "<nil>", "a")

	removeQueue(t, "payments")
	_, err = ch.QueueDeclare("payments", true, false, false, false, amqp.Table{
		"x-message-deduplication": true,
		"x-cache-size":            1_000_000,
		"x-cache-ttl":             86_400_000, // a day
	})
	must(t, err)
	publishConfirmed(t, ch, "", "payments", keyed("a")...)
	wantBodies(t, ch, "payments", "a")
	publishConfirmed(t, ch, "", "payments", keyed("a", "b")...)
	wantBodies(t, ch, "payments", "b")
}

func TestDeduplicationWindows(t *testing.T) {
	t.Parallel()
	needsDedup(t)
	ch := open(t)
	confirmMode(t, ch)
	q := privateQueue(t, ch, nil)
	bound := func(args amqp.Table) string {
		x := newExchange(t, ch, dedupType, args)
		bind(t, ch, q, "", x, nil)
		return x
	}
	t.Run("size", func(t *testing.T) {
		x := bound(amqp.Table{"x-cache-size": "2"})
		publishConfirmed(t, ch, x, "", keyed("a", "b", "a", "c", "b", "a", "c")...)
		wantBodies(t, ch, q, "a", "b", "c", "a")
	})
	t.Run("kinds of values", func(t *testing.T) {
		x := bound(amqp.Table{"x-cache-size": 100})
		publishConfirmed(t, ch, x, "", keyed(int32(42), int64(42), "42", 4.2, 4.2, true, int16(42), []any{"a"}, []any{"a"})...)
		wantBodies(t, ch, q, "42", "42", "4.2", "true", "[a]", "[a]")
	})
	t.Run("time", func(t *testing.T) {
		x := bound(amqp.Table{"x-cache-size": 100, "x-cache-ttl": 50})
		long := keyed("long", "never")
		long[0].Headers["x-cache-ttl"], long[1].Headers["x-cache-ttl"] = 3_600_000, 0
		publishConfirmed(t, ch, x, "", append(keyed("a"), long...)...)
		wantBodies(t, ch, q, "a", "long", "never")
		eventually(t, func() error {
			publishConfirmed(t, ch, x, "", append(keyed("a"), long...)...)
			if got := drain(t, ch, q); len(got) != 2 || got[0] != "a" || got[1] != "never" {
				return fmt.Errorf("got %q, want a and never", got)
			}
			return nil
		})
	})
	t.Run("message-id", func(t *testing.T) {
		x := bound(amqp.Table{"x-cache-size": 100, "x-deduplication-property": "message-id"})
		list := append(persistent("first", "second", "other"), keyed("1")...)
		for i, id := range []string{"1", "1", "2", "3"} {
			list[i].MessageId = id
		}
		publishConfirmed(t, ch, x, "", list...)
		wantBodies(t, ch, q, "first", "other")
	})
}

func TestDeduplicationOnTheWayAndAlternateExchange(t *testing.T) {
	t.Parallel()
	needsDedup(t)
	ch := open(t)
	confirmMode(t, ch)
	behind, beside, dropped := privateQueue(t, ch, nil), privateQueue(t, ch, nil), privateQueue(t, ch, nil)
	alternate := newExchange(t, ch, "fanout", nil)
	first := newExchange(t, ch, "direct", nil)
	x := newExchange(t, ch, dedupType, amqp.Table{"x-cache-size": 10, "alternate-exchange": alternate})
	bindExchange(t, ch, x, "k", first, nil)
	bind(t, ch, beside, "k", first, nil)
	bind(t, ch, behind, "", x, nil)
	bind(t, ch, dropped, "", alternate, nil)
	publishConfirmed(t, ch, first, "k", keyed("a", "a", "b", nil, "a")...)
	wantBodies(t, ch, behind, "a", "b", "<nil>")
	wantBodies(t, ch, beside, "a", "a", "b", "<nil>", "a")
	wantBodies(t, ch, dropped, "a", "a")
}

// A duplicate is not unroutable, and a refused message is no original.
func TestDeduplicationOfMandatoryAndRefusedMessages(t *testing.T) {
	t.Parallel()
	needsDedup(t)
	ch := open(t)
	confirmMode(t, ch)
	x := newExchange(t, ch, dedupType, amqp.Table{"x-cache-size": 10})
	q := privateQueue(t, ch, amqp.Table{"x-max-length": 1, "x-overflow": "reject-publish"})
	bind(t, ch, q, "", x, nil)
	returns := ch.NotifyReturn(make(chan amqp.Return, 10))
	send := func(key string, want bool) {
		t.Helper()
		p := keyed(key)[0]
		d, err := ch.PublishWithDeferredConfirm(x, "", true, false, p)
		must(t, err)
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if acked, err := d.WaitContext(ctx); err != nil || acked != want {
			t.Fatalf("%s: acked %v, %v; want %v", key, acked, err, want)
		}
	}
	send("a", true)
	send("a", true)
	send("b", false)
	wantBodies(t, ch, q, "a")
	send("b", true)
	wantBodies(t, ch, q, "b")
	select {
	case r := <-returns:
		t.Fatalf("%q came back", r.Body)
	default:
	}
}

func TestDeduplicationInTransactions(t *testing.T) {
	t.Parallel()
	needsDedup(t)
	ch := open(t)
	must(t, ch.Tx())
	x := newExchange(t, ch, dedupType, amqp.Table{"x-cache-size": 10})
	q := sharedQueue(t, open(t), nil)
	bind(t, ch, q, "", x, nil)
	publishMessage(t, ch, x, "", keyed("a")[0])
	must(t, ch.TxRollback())
	for range 2 {
		publishMessage(t, ch, x, "", keyed("a")[0])
	}
	must(t, ch.TxCommit())
	publishMessage(t, ch, x, "", keyed("a")[0])
	must(t, ch.TxCommit())
	wantBodies(t, open(t), q, "a")
}

// What leaves a queue in whatever way frees its key.
func TestDeduplicatingQueueForgetsWhatLeaves(t *testing.T) {
	t.Parallel()
	needsDedup(t)
	ch := open(t)
	confirmMode(t, ch)
	dead := privateQueue(t, ch, nil)
	args := func(more amqp.Table) amqp.Table {
		a := amqp.Table{"x-message-deduplication": true, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
		for k, v := range more {
			a[k] = v
		}
		return a
	}
	for _, kind := range []string{"classic", "quorum"} {
		t.Run(kind, func(t *testing.T) {
			q := sharedQueue(t, ch, args(amqp.Table{"x-queue-type": kind}))
			publishConfirmed(t, ch, "", q, keyed("a", "a")...)
			nack(t, get(t, ch, q, false), false, false)
			publishConfirmed(t, ch, "", q, keyed("a", "a")...)
			nack(t, get(t, ch, q, false), false, true) // stays
			publishConfirmed(t, ch, "", q, keyed("a", "b")...)
			if n, err := ch.QueuePurge(q, false); err != nil || n != 2 {
				t.Fatalf("%d messages purged, %v; want 2", n, err)
			}
			publishConfirmed(t, ch, "", q, keyed("a", "b", "a")...)
			wantBodies(t, ch, q, "a", "b")
			eventually(t, func() error { return hasReady(ch, dead, 1) })
			wantBodies(t, ch, dead, "a")
		})
	}
	t.Run("maxlen and expired", func(t *testing.T) {
		q := privateQueue(t, ch, args(amqp.Table{"x-max-length": 1}))
		publishConfirmed(t, ch, "", q, keyed("a", "b", "a", "a")...)
		wantBodies(t, ch, dead, "a", "b")
		p := keyed("b")[0]
		p.Expiration = "0"
		publishConfirmed(t, ch, "", q, p)
		wantBodies(t, ch, q, "a")
		publishConfirmed(t, ch, "", q, keyed("b", "b")...)
		wantBodies(t, ch, q, "b")
	})
	t.Run("no-ack consumer", func(t *testing.T) {
		q := privateQueue(t, ch, args(nil))
		deliveries, err := ch.Consume(q, "", true, false, false, false, nil)
		must(t, err)
		for range 3 {
			publishConfirmed(t, ch, "", q, keyed("a")...)
			receive(t, deliveries)
		}
	})
}

// A queue with a window knows a key when its message has left, too.
func TestWindowsOfQueues(t *testing.T) {
	t.Parallel()
	needsDedup(t)
	ch := open(t)
	confirmMode(t, ch)
	window := func(more amqp.Table) amqp.Table {
		args := amqp.Table{dedupType: true, "x-cache-size": 100}
		maps.Copy(args, more)
		return args
	}
	t.Run("size", func(t *testing.T) {
		for _, kind := range []string{"classic", "quorum"} {
			q := sharedQueue(t, ch, window(amqp.Table{"x-cache-size": 2, "x-queue-type": kind}))
			publishConfirmed(t, ch, "", q, keyed("a", "b", "a")...)
			wantBodies(t, ch, q, "a", "b")
			publishConfirmed(t, ch, "", q, keyed("b", "a", nil, "c", "b", "a", "c")...)
			wantBodies(t, ch, q, "<nil>", "c", "a")
		}
	})
	t.Run("what is in the queue is known, beyond the window", func(t *testing.T) {
		q := privateQueue(t, ch, window(amqp.Table{"x-cache-size": 1}))
		publishConfirmed(t, ch, "", q, keyed("a", "b", "c", "a", "b", "c")...)
		wantBodies(t, ch, q, "a", "b", "c")
	})
	t.Run("time", func(t *testing.T) {
		q := privateQueue(t, ch, window(amqp.Table{"x-cache-ttl": 50}))
		long := keyed("long")[0]
		long.Headers["x-cache-ttl"] = 3_600_000
		publishConfirmed(t, ch, "", q, append(keyed("a"), long)...)
		wantBodies(t, ch, q, "a", "long")
		eventually(t, func() error {
			publishConfirmed(t, ch, "", q, append(keyed("a"), long)...)
			if got := drain(t, ch, q); fmt.Sprint(got) != "[a]" {
				return fmt.Errorf("got %q, want a", got)
			}
			return nil
		})
	})
	t.Run("each queue by itself", func(t *testing.T) {
		one, other, all := privateQueue(t, ch, window(nil)), privateQueue(t, ch, window(amqp.Table{"x-deduplication-property": "message-id"})), privateQueue(t, ch, nil)
		x := newExchange(t, ch, "fanout", nil)
		for _, q := range []string{one, other, all} {
			bind(t, ch, q, "", x, nil)
		}
		list := append(keyed("a", "a"), persistent("b", "b")...)
		list[2].MessageId, list[3].MessageId = "1", "1"
		publishConfirmed(t, ch, "", one, keyed("a")...)
		publishConfirmed(t, ch, x, "", list...)
		wantBodies(t, ch, one, "a", "b", "b")
		wantBodies(t, ch, other, "a", "b")
		wantBodies(t, ch, all, "a", "a", "b", "b")
	})
	t.Run("refused by one of two", func(t *testing.T) {
		full, q := privateQueue(t, ch, window(amqp.Table{"x-max-length": 0, "x-overflow": "reject-publish"})), privateQueue(t, ch, window(nil))
		x := newExchange(t, ch, "fanout", nil)
		bind(t, ch, full, "", x, nil)
		bind(t, ch, q, "", x, nil)
		for range 2 {
			if d, err := ch.PublishWithDeferredConfirm(x, "", false, false, keyed("a")[0]); err != nil || d.Wait() {
				t.Fatalf("confirmed, or %v", err)
			}
		}
		wantBodies(t, ch, q, "a")
	})
	t.Run("dead letters come back", func(t *testing.T) {
		wait, work := nameFor(t, "wait"), nameFor(t, "work")
		for q, args := range map[string]amqp.Table{
			wait: {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": work, "x-message-ttl": 1},
			work: window(amqp.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": wait}),
		} {
			_, err := ch.QueueDeclare(q, true, false, false, false, args)
			must(t, err)
			removeQueue(t, q)
		}
		publishConfirmed(t, ch, "", work, keyed("a")...)
		for range 3 {
			nack(t, get(t, ch, work, false), false, false)
			eventually(t, func() error { return hasReady(ch, work, 1) })
		}
		publishConfirmed(t, ch, "", work, keyed("a")...)
		wantBodies(t, ch, work, "a")
		publishConfirmed(t, ch, "", work, keyed("a")...)
		wantBodies(t, ch, work)
	})
	t.Run("transient messages", func(t *testing.T) {
		q := privateQueue(t, ch, window(nil))
		p := keyed("a")[0]
		p.DeliveryMode = 1
		publishConfirmed(t, ch, "", q, p)
		wantBodies(t, ch, q, "a")
		publishConfirmed(t, ch, "", q, p)
		wantBodies(t, ch, q)
	})
}

func TestDeduplicationArgumentsAreChecked(t *testing.T) {
	t.Parallel()
	needsDedup(t)
	conn := dial(t)
	for _, tt := range []struct {
		args amqp.Table
		text string
	}{
		{nil, "Missing or invalid argument, 'x-cache-size' must be an integer greater than 0"},
		{amqp.Table{"x-cache-size": 0}, "Missing or invalid argument, 'x-cache-size' must be an integer greater than 0"},
		{amqp.Table{"x-cache-size": "ten"}, "Missing or invalid argument, 'x-cache-size' must be an integer greater than 0"},
		{amqp.Table{"x-cache-size": 1, "x-cache-ttl": -1}, "Invalid argument, 'x-cache-ttl' must be an integer greater than 0"},
		{amqp.Table{"x-cache-size": 1, "x-cache-ttl": true}, "Invalid argument, 'x-cache-ttl' must be an integer greater than 0"},
		{amqp.Table{"x-cache-size": 1, "x-cache-persistence": "ssd"}, "Invalid argument, 'x-cache-persistence' must be either 'disk' or 'memory'"},
		{amqp.Table{"x-cache-size": 1, "x-deduplication-property": "app-id"}, "Invalid argument, 'x-deduplication-property' must be 'message-id'"},
	} {
		err := channel(t, conn).ExchangeDeclare(nameFor(t, "x"), dedupType, false, false, false, false, tt.args)
		refusedWith(t, err, 406, "PRECONDITION_FAILED - "+tt.text)
	}
	for _, tt := range []struct {
		argument string
		value    any
		others   amqp.Table
		why      string
	}{
		{"x-message-deduplication", "yes", nil, "{unacceptable_type,longstr}"},
		{"x-cache-size", 10, nil, "cache_but_no_message_deduplication"},
		{"x-cache-size", 0, amqp.Table{dedupType: true}, "{value_zero,0}"},
		{"x-cache-ttl", 10, amqp.Table{dedupType: true}, "cache_but_no_cache_size"},
		{"x-cache-ttl", -1, amqp.Table{dedupType: true, "x-cache-size": 1}, "{value_negative,-1}"},
		{"x-cache-persistence", "disk", amqp.Table{dedupType: true}, "cache_but_no_cache_size"},
		{"x-cache-persistence", "ssd", amqp.Table{dedupType: true, "x-cache-size": 1}, "invalid_cache_persistence"},
	} {
		name, args := nameFor(t, "q"), amqp.Table{tt.argument: tt.value}
		maps.Copy(args, tt.others)
		_, err := channel(t, conn).QueueDeclare(name, false, true, true, false, args)
		refusedWith(t, err, 406, fmt.Sprintf("PRECONDITION_FAILED - invalid arg '%s' for queue '%s' in vhost '/': %s", tt.argument, name, tt.why))
	}
	err := channel(t, conn).ExchangeDeclare(nameFor(t, "x"), "x-delayed-message", false, false, false, false, amqp.Table{"x-delayed-type": dedupType, "x-cache-size": 1})
	refusedWith(t, err, 406, "PRECONDITION_FAILED - Invalid argument, 'x-delayed-type' must be an existing exchange type")
}

func TestDeduplicationSurvives(t *testing.T) {
	needsDedup(t)
	var x, forgetful, q, own, window string
	lives(t, func(t *testing.T, ch *amqp.Channel, names *durableNames) {
		x = names.exchange(t, ch, dedupType, true, amqp.Table{"x-cache-size": 1000})
		forgetful = nameFor(t, "memory")
		must(t, ch.ExchangeDeclare(forgetful, dedupType, true, false, false, false, amqp.Table{"x-cache-size": 1000, "x-cache-persistence": "memory"}))
		names.exchanges = append(names.exchanges, forgetful)
		q, own = names.queue(t, ch, "q", true, nil), names.queue(t, ch, "own", true, amqp.Table{dedupType: true})
		window = names.queue(t, ch, "window", true, amqp.Table{dedupType: true, "x-cache-size": 1000})
		bind(t, ch, q, "", x, nil)
		bind(t, ch, q, "", forgetful, nil)
		confirmMode(t, ch)
		publishConfirmed(t, ch, x, "", keyed("a", "b", "a")...)
		publishConfirmed(t, ch, forgetful, "", keyed("c", "c")...)
		publishConfirmed(t, ch, "", own, keyed("a", "b", "a")...)
		wantBodies(t, ch, q, "a", "b", "c")
		publishConfirmed(t, ch, x, "", keyed("d")...)
		publishConfirmed(t, ch, "", window, keyed("a", "b", "a")...)
		for _, q := range []string{own, window} {
			ack(t, get(t, ch, q, false), false)
			publishConfirmed(t, ch, "", q, persistent("after the ack")...) // which is on disk with it
		}
	}, func(t *testing.T, ch *amqp.Channel, _ *durableNames) {
		confirmMode(t, ch)
		publishConfirmed(t, ch, x, "", keyed("a", "b", "d", "e")...)
		publishConfirmed(t, ch, forgetful, "", keyed("c")...)
		got := drain(t, ch, q)
		for len(got) > 3 { // what was consumed in the first life may come again after a crash
			got = got[1:]
		}
		if fmt.Sprint(got) != "[d e c]" {
			t.Errorf("got %q, want d, e and c", got)
		}
		publishConfirmed(t, ch, "", own, keyed("b", "c", "b")...)
		counts := make(map[string]int)
		for _, body := range drain(t, ch, own) {
			counts[body]++
		}
		if counts["b"] != 1 || counts["c"] != 1 {
			t.Errorf("the queue has %v, want b and c once", counts)
		}
		publishConfirmed(t, ch, "", window, keyed("a", "b", "c")...)
		wantBodies(t, ch, window, "b", "after the ack", "c")
	})
}

// A publisher sends all again that was not confirmed when the broker was killed, and much that was: each message is there
// once.
func TestResendingAfterKillsMakesNoDuplicates(t *testing.T) {
	needsDedup(t)
	for _, by := range []string{"exchange", "queue", "window of a queue"} {
		t.Run(by, func(t *testing.T) {
			b := ownBroker(t)
			names := &durableNames{url: b.URL()}
			t.Cleanup(func() { names.remove() })
			ch := channel(t, dialURL(t, b.URL()))
			var x, q string
			switch by {
			case "exchange":
				x = names.exchange(t, ch, dedupType, true, amqp.Table{"x-cache-size": 1_000_000})
				q = names.queue(t, ch, "q", true, nil)
				bind(t, ch, q, "", x, nil)
			case "queue":
				q = names.queue(t, ch, "q", true, amqp.Table{dedupType: true})
			default:
				q = names.queue(t, ch, "q", true, amqp.Table{dedupType: true, "x-cache-size": 1_000_000})
			}
			counts := make(map[string]int)
			r := resender{exchange: x, key: q, confirmed: make(map[int]bool)}
			for round := range 4 {
				confirmMode(t, ch)
				if round == 3 {
					r.sendUntil(t, ch, r.next, nil)
					break
				}
				r.sendUntil(t, ch, r.next+20_000, func() { must(t, b.Kill()) })
				must(t, b.Start())
				ch = channel(t, dialURL(t, b.URL()))
				if by == "window of a queue" {
					for range 200 {
						d := get(t, ch, q, false)
						counts[string(d.Body)]++
						ack(t, d, false)
					}
					confirmMode(t, ch)
					publishConfirmed(t, ch, "", q, persistent("after the acks")...) // which are on disk with it
				}
			}
			for _, body := range drain(t, ch, q) {
				counts[body]++
			}
			for i := range r.next {
				if n := counts[fmt.Sprint(i)]; n != 1 {
					t.Fatalf("message %d of %d is there %d times", i, r.next, n)
				}
			}
		})
	}
}

// resender publishes numbered messages and keeps track of what was confirmed.
type resender struct {
	exchange, key string
	next          int // below it everything was sent at least once
	confirmed     map[int]bool
}

// sendUntil sends what is not confirmed, and some of what is, and then new messages below end. After some new confirms it
// calls kill, if that is not nil, and returns when the channel is closed; else it waits for all confirms.
func (r *resender) sendUntil(t *testing.T, ch *amqp.Channel, end int, kill func()) {
	t.Helper()
	type sent struct {
		n int
		c *amqp.DeferredConfirmation
	}
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))
	window, done := make(chan sent, 300), make(chan bool, 1)
	go func() {
		defer func() { done <- true }()
		fresh := 0
		for s := range window {
			select {
			case <-s.c.Done():
			case <-closed:
			}
			if !s.c.Acked() {
				continue
			}
			r.confirmed[s.n] = true
			if fresh++; fresh == 1000 && kill != nil {
				kill()
			}
		}
	}()
	send := func(n int) error {
		c, err := ch.PublishWithDeferredConfirm(r.exchange, r.key, false, false, keyed(n)[0])
		if err == nil {
			window <- sent{n, c}
		}
		return err
	}
	var again []int
	for n := range r.next {
		again = append(again, n)
	}
	var err error
	for _, n := range again {
		if err = send(n); err != nil {
			break
		}
	}
	for ; err == nil && r.next < end; r.next++ {
		err = send(r.next)
	}
	close(window)
	await(t, "the confirms", done)
	if err != nil && (kill == nil || !errors.Is(err, amqp.ErrClosed) && !ch.IsClosed()) {
		t.Fatal(err)
	}
	if kill == nil && len(r.confirmed) != r.next {
		t.Fatalf("%d of %d messages are confirmed", len(r.confirmed), r.next)
	}
}
