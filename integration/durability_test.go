package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/settmq/settmq/internal/testbroker"
)

// These tests stop, kill and start the broker, so they are not parallel: with AMQP_CTL it is the
// broker of all tests.

// controlled is a broker that may be ended.
type controlled interface {
	URL() string
	Stop() error // SIGTERM; an error if it does not end with status 0
	Kill() error // SIGKILL
	Start() error
	Block() error // raises the memory alarm
	Unblock() error
}

// ownBroker starts a broker for this test, or takes the external one.
func ownBroker(t *testing.T) controlled {
	t.Helper()
	if !sut.external {
		return child{testbroker.Start(t, testbroker.Options{})}
	}
	program := os.Getenv("AMQP_CTL")
	if program == "" {
		t.Skip("the broker is not ours to stop: AMQP_CTL is not set")
	}
	b := script{program}
	t.Cleanup(func() {
		if t.Failed() { // others need it
			_ = b.Start()
		}
	})
	return b
}

type child struct{ *testbroker.Broker }

func (c child) Start() error {
	_, err := c.Restart()
	return err
}

// script is AMQP_CTL.
type script struct{ program string }

func (s script) URL() string    { return sut.url }
func (s script) Stop() error    { return s.run("stop") }
func (s script) Kill() error    { return s.run("kill") }
func (s script) Start() error   { return s.run("start") }
func (s script) Block() error   { return s.run("block") }
func (s script) Unblock() error { return s.run("unblock") }

func (s script) run(verb string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.program, verb)
	cmd.WaitDelay = time.Second // a daemon may keep the output open
	if out, err := cmd.CombinedOutput(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return fmt.Errorf("%s %s: %w\n%s", s.program, verb, err, out)
	}
	return nil
}

// ends are the ways in which a broker ends.
var ends = []struct {
	name string
	end  func(controlled) error
}{
	{"restart", controlled.Stop},
	{"kill", controlled.Kill},
}

// lives runs a test for each end: before in the first life, after in the second one.
func lives(t *testing.T, before, after func(t *testing.T, ch *amqp.Channel, names *durableNames)) {
	t.Helper()
	for _, e := range ends {
		t.Run(e.name, func(t *testing.T) {
			b := ownBroker(t)
			names := &durableNames{url: b.URL(), crash: e.name == "kill"}
			conn := dialURL(t, b.URL())
			before(t, channel(t, conn), names)
			must(t, e.end(b))
			eventually(t, func() error {
				if !conn.IsClosed() {
					return errors.New("the connection survives the broker")
				}
				return nil
			})
			must(t, b.Start())
			ch := channel(t, dialURL(t, b.URL()))
			t.Cleanup(func() { names.remove() })
			after(t, ch, names)
		})
	}
}

// durableNames are what a test has declared, for the removal.
type durableNames struct {
	url               string
	crash             bool // the first life ended by SIGKILL
	queues, exchanges []string
}

func (n *durableNames) queue(t *testing.T, ch *amqp.Channel, hint string, durable bool, args amqp.Table) string {
	t.Helper()
	name := nameFor(t, hint)
	_, err := ch.QueueDeclare(name, durable, false, false, false, args)
	must(t, err)
	n.queues = append(n.queues, name)
	return name
}

func (n *durableNames) exchange(t *testing.T, ch *amqp.Channel, kind string, durable bool, args amqp.Table) string {
	t.Helper()
	name := nameFor(t, kind)
	must(t, ch.ExchangeDeclare(name, kind, durable, false, false, false, args))
	n.exchanges = append(n.exchanges, name)
	return name
}

func (n *durableNames) remove() {
	conn, err := amqp.Dial(n.url)
	if err != nil {
		return
	}
	defer conn.Close()
	for _, q := range n.queues {
		if ch, err := conn.Channel(); err == nil {
			_, _ = ch.QueueDelete(q, false, false, false)
		}
	}
	for _, x := range n.exchanges {
		if ch, err := conn.Channel(); err == nil {
			_ = ch.ExchangeDelete(x, false, false)
		}
	}
}

// gone checks that a passive declare is answered with 404.
func gone(t *testing.T, url, kind, name string) {
	t.Helper()
	ch := channel(t, dialURL(t, url))
	var err error
	if kind == "queue" {
		_, err = ch.QueueDeclarePassive(name, true, false, false, false, nil)
	} else {
		err = ch.ExchangeDeclarePassive(name, "direct", true, false, false, false, nil)
	}
	if err == nil {
		t.Errorf("%s %q is still there", kind, name)
		return
	}
	if e := amqpError(t, err); e.Code != amqp.NotFound {
		t.Errorf("%s %q: %v", kind, name, err)
	}
}

func TestConfirmedPersistentMessagesSurvive(t *testing.T) {
	const n = 500
	var q, other string
	lives(t, func(t *testing.T, ch *amqp.Channel, names *durableNames) {
		q, other = names.queue(t, ch, "q", true, nil), names.queue(t, ch, "other", true, nil)
		x := names.exchange(t, ch, "fanout", true, nil)
		bind(t, ch, q, "", x, nil)
		bind(t, ch, other, "", x, nil)
		confirmMode(t, ch)
		messages := make([]amqp.Publishing, n)
		for i := range messages {
			messages[i] = amqp.Publishing{
				DeliveryMode: 2, Body: fmt.Append(nil, i), MessageId: fmt.Sprint("id ", i), Headers: amqp.Table{"h": int64(i)},
			}
		}
		publishConfirmed(t, ch, x, "key", messages...)
	}, func(t *testing.T, ch *amqp.Channel, names *durableNames) {
		for _, q := range []string{q, other} {
			if got := inspect(t, ch, q).Messages; got != n {
				t.Fatalf("%d messages of %d", got, n)
			}
			for i := range n {
				d := get(t, ch, q, true)
				if string(d.Body) != fmt.Sprint(i) || d.MessageId != fmt.Sprint("id ", i) || d.Headers["h"] != int64(i) ||
					d.RoutingKey != "key" || d.DeliveryMode != 2 {
					t.Fatalf("message %d comes back as %q, id %q, headers %v, key %q", i, d.Body, d.MessageId, d.Headers, d.RoutingKey)
				}
				if d.Redelivered && !names.crash { // after a crash the broker may not know
					t.Fatalf("message %d was never delivered but is marked redelivered", i)
				}
			}
		}
	})
}

func TestTransientThingsDoNotSurvive(t *testing.T) {
	var q, x, exclusive string
	lives(t, func(t *testing.T, ch *amqp.Channel, names *durableNames) {
		q, x = names.queue(t, ch, "q", true, nil), names.exchange(t, ch, "direct", false, nil)
		exclusive = nameFor(t, "exclusive")
		_, err := ch.QueueDeclare(exclusive, true, false, true, false, nil)
		must(t, err)
		confirmMode(t, ch)
		publishConfirmed(t, ch, "", exclusive, persistent("m")...)
		publishConfirmed(t, ch, "", q,
			amqp.Publishing{DeliveryMode: 1, Body: []byte("transient")}, amqp.Publishing{DeliveryMode: 2, Body: []byte("persistent")},
			amqp.Publishing{Body: []byte("no mode")}, amqp.Publishing{DeliveryMode: 2, Body: []byte("persistent too")})
	}, func(t *testing.T, ch *amqp.Channel, names *durableNames) {
		wantBodies(t, ch, q, "persistent", "persistent too")
		if !differs(t, "transient-exchanges") {
			gone(t, names.url, "exchange", x)
		}
		gone(t, names.url, "queue", exclusive)
	})
}

func TestTransientSharedQueueDoesNotSurvive(t *testing.T) {
	needs(t, "transient-queues")
	var q string
	lives(t, func(t *testing.T, ch *amqp.Channel, names *durableNames) {
		q = names.queue(t, ch, "q", false, nil)
		confirmMode(t, ch)
		publishConfirmed(t, ch, "", q, persistent("m")...)
	}, func(t *testing.T, _ *amqp.Channel, names *durableNames) {
		gone(t, names.url, "queue", q)
	})
}

func TestTopologySurvives(t *testing.T) {
	var direct, topic, headers, inner, alternate, q, qa, deleted, unbound string
	lives(t, func(t *testing.T, ch *amqp.Channel, names *durableNames) {
		q, qa = names.queue(t, ch, "q", true, amqp.Table{"x-queue-type": "classic"}), names.queue(t, ch, "alternate", true, nil)
		deleted, unbound = names.queue(t, ch, "deleted", true, nil), names.queue(t, ch, "unbound", true, nil)
		alternate = names.exchange(t, ch, "fanout", true, nil)
		direct = names.exchange(t, ch, "direct", true, amqp.Table{"alternate-exchange": alternate})
		topic, headers = names.exchange(t, ch, "topic", true, nil), names.exchange(t, ch, "headers", true, nil)
		inner = nameFor(t, "inner")
		must(t, ch.ExchangeDeclare(inner, "fanout", true, false, true, false, nil))
		names.exchanges = append(names.exchanges, inner)

		bind(t, ch, qa, "", alternate, nil)
		bind(t, ch, q, "d", direct, nil)
		bind(t, ch, q, "t.*", topic, nil)
		bind(t, ch, q, "", headers, amqp.Table{"x-match": "any", "n": int32(1), "s": "v"})
		bindExchange(t, ch, inner, "i.#", topic, nil)
		bind(t, ch, q, "", inner, nil)
		bind(t, ch, unbound, "d", direct, nil)
		must(t, ch.QueueUnbind(unbound, "d", direct, nil))
		bind(t, ch, deleted, "d", direct, nil)
		_, err := ch.QueueDelete(deleted, false, false, false)
		must(t, err)
	}, func(t *testing.T, ch *amqp.Channel, names *durableNames) {
		for _, p := range []struct {
			exchange, key string
			headers       amqp.Table
		}{{direct, "d", nil}, {direct, "lost", nil}, {topic, "t.x", nil}, {topic, "i.x.y", nil}, {headers, "", amqp.Table{"n": int64(1)}}} {
			publishMessage(t, ch, p.exchange, p.key, amqp.Publishing{Headers: p.headers, Body: []byte(p.key)})
		}
		wantBodies(t, ch, q, "d", "t.x", "i.x.y", "")
		wantBodies(t, ch, qa, "lost")
		wantBodies(t, ch, unbound)
		gone(t, names.url, "queue", deleted)
		// Properties and arguments are those of the first declaration.
		_, err := ch.QueueDeclare(q, true, false, false, false, nil)
		must(t, err)
		must(t, ch.ExchangeDeclare(direct, "direct", true, false, false, false, amqp.Table{"alternate-exchange": alternate}))
		must(t, ch.ExchangeDeclare(inner, "fanout", true, false, true, false, nil))
	})
}

func TestQueueArgumentsSurvive(t *testing.T) {
	var q string
	args := amqp.Table{"x-max-length": int32(2)}
	lives(t, func(t *testing.T, ch *amqp.Channel, names *durableNames) {
		q = nameFor(t, "q")
		_, err := ch.QueueDeclare(q, true, false, false, false, args)
		must(t, err)
		names.queues = append(names.queues, q)
	}, func(t *testing.T, ch *amqp.Channel, _ *durableNames) {
		_, err := ch.QueueDeclare(q, true, false, false, false, args)
		must(t, err)
		publish(t, ch, "", q, "1", "2", "3")
		wantBodies(t, ch, q, "2", "3")
	})
}

func TestDeliveredButUnacknowledgedComesBackRedelivered(t *testing.T) {
	var q string
	lives(t, func(t *testing.T, ch *amqp.Channel, names *durableNames) {
		q = names.queue(t, ch, "q", true, nil)
		confirmMode(t, ch)
		publishConfirmed(t, ch, "", q, persistent("1", "2", "3", "4")...)
		prefetch(t, ch, 2, false)
		deliveries := consume(t, ch, q, "", nil)
		wantDelivery(t, deliveries, "1", false)
		wantDelivery(t, deliveries, "2", false)
	}, func(t *testing.T, ch *amqp.Channel, _ *durableNames) {
		for i, want := range []string{"1", "2", "3", "4"} {
			d := get(t, ch, q, true)
			if string(d.Body) != want {
				t.Fatalf("got %q, want %q", d.Body, want)
			}
			// Those that were out must say so. After a crash more may be marked, never fewer.
			if i < 2 && !d.Redelivered {
				t.Errorf("%q was delivered before and is not marked redelivered", want)
			}
		}
	})
}

func TestAcknowledgedMessagesStayGone(t *testing.T) {
	const n = 200
	b := ownBroker(t)
	names := &durableNames{url: b.URL()}
	ch := channel(t, dialURL(t, b.URL()))
	q, purged := names.queue(t, ch, "q", true, nil), names.queue(t, ch, "purged", true, nil)
	confirmMode(t, ch)
	for i := range n {
		publishConfirmed(t, ch, "", q, persistent(fmt.Sprint(i))...)
	}
	publishConfirmed(t, ch, "", purged, persistent("1", "2")...)
	deliveries := consume(t, ch, q, "", nil)
	for i := range n {
		if d := wantDelivery(t, deliveries, fmt.Sprint(i), false); i%2 == 0 {
			ack(t, d, false)
		}
	}
	if k, err := ch.QueuePurge(purged, false); k != 2 || err != nil {
		t.Fatalf("purge: %d, %v", k, err)
	}
	// An orderly end, right behind the last acknowledgement.
	must(t, b.Stop())
	must(t, b.Start())
	ch = channel(t, dialURL(t, b.URL()))
	t.Cleanup(names.remove)
	for i := 1; i < n; i += 2 {
		if d := get(t, ch, q, true); string(d.Body) != fmt.Sprint(i) {
			t.Fatalf("got %q, want %d", d.Body, i)
		}
	}
	wantBodies(t, ch, q)
	wantBodies(t, ch, purged)
}

// A queue whose name begins with another one's must not suffer what is done to that one.
func TestQueuesWithACommonPrefixAreIndependent(t *testing.T) {
	var base string
	suffixes := []string{"", ".eu", ".eu.x", "\x00", "\xf4\x8f\xbf\xbf"}
	lives(t, func(t *testing.T, ch *amqp.Channel, names *durableNames) {
		base = names.queue(t, ch, "q", true, nil)
		for _, s := range suffixes[1:] {
			_, err := ch.QueueDeclare(base+s, true, false, false, false, nil)
			must(t, err)
			names.queues = append(names.queues, base+s)
		}
		confirmMode(t, ch)
		for _, s := range suffixes {
			publishConfirmed(t, ch, "", base+s, persistent("a"+s, "b"+s)...)
		}
		if n, err := ch.QueuePurge(base, false); n != 2 || err != nil {
			t.Fatalf("purge: %d, %v", n, err)
		}
		if n, err := ch.QueueDelete(base+".eu", false, false, false); n != 2 || err != nil {
			t.Fatalf("delete: %d, %v", n, err)
		}
	}, func(t *testing.T, ch *amqp.Channel, names *durableNames) {
		wantBodies(t, ch, base)
		gone(t, names.url, "queue", base+".eu")
		for _, s := range suffixes[2:] {
			wantBodies(t, ch, base+s, "a"+s, "b"+s)
		}
	})
}

func TestRequeuedMessagesSurviveInOrder(t *testing.T) {
	var q string
	lives(t, func(t *testing.T, ch *amqp.Channel, names *durableNames) {
		q = names.queue(t, ch, "q", true, nil)
		confirmMode(t, ch)
		publishConfirmed(t, ch, "", q, persistent("1", "2", "3", "4", "5")...)
		first, second := get(t, ch, q, false), get(t, ch, q, false)
		ack(t, get(t, ch, q, false), false)
		nack(t, second, false, true)
		nack(t, first, false, true)
		wantReady(t, ch, q, 4)
	}, func(t *testing.T, ch *amqp.Channel, _ *durableNames) {
		got := drain(t, ch, q)
		if s := fmt.Sprint(got); s != "[1 2 4 5]" && s != "[1 2 3 4 5]" { // the ack of 3 may be lost in a crash
			t.Fatalf("the queue holds %v", got)
		}
	})
}

func TestLargeMessagesSurvive(t *testing.T) {
	var q string
	sizes := []int{0, 1, 4095, 4096, 128 << 10, 5 << 20}
	body := func(i, size int) []byte {
		b := make([]byte, size)
		for j := range b {
			b[j] = byte(i + j*j>>4)
		}
		return b
	}
	lives(t, func(t *testing.T, ch *amqp.Channel, names *durableNames) {
		q = names.queue(t, ch, "q", true, nil)
		confirmMode(t, ch)
		for i, size := range sizes {
			publishConfirmed(t, ch, "", q, amqp.Publishing{DeliveryMode: 2, Body: body(i, size)})
		}
	}, func(t *testing.T, ch *amqp.Channel, _ *durableNames) {
		for i, size := range sizes {
			if d := get(t, ch, q, true); string(d.Body) != string(body(i, size)) {
				t.Fatalf("a body of %d bytes comes back as %d other bytes", size, len(d.Body))
			}
		}
	})
}

func TestCommittedTransactionSurvives(t *testing.T) {
	var q string
	lives(t, func(t *testing.T, ch *amqp.Channel, names *durableNames) {
		q = names.queue(t, ch, "q", true, nil)
		must(t, ch.Tx())
		for _, m := range persistent("1", "2") {
			publishMessage(t, ch, "", q, m)
		}
		must(t, ch.TxCommit())
		publishMessage(t, ch, "", q, persistent("not committed")[0])
		prefetch(t, ch, 0, false)
	}, func(t *testing.T, ch *amqp.Channel, _ *durableNames) {
		wantBodies(t, ch, q, "1", "2")
	})
}

func TestShutdownSaysGoodbye(t *testing.T) {
	b := ownBroker(t)
	conn := dialURL(t, b.URL())
	closed := conn.NotifyClose(make(chan *amqp.Error, 1))
	ch := channel(t, conn)
	consume(t, ch, privateQueue(t, ch, nil), "", nil)
	must(t, b.Stop()) // status 0
	e := await(t, "connection.close", closed)
	if e.Code != 320 || e.Reason != "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'" {
		t.Errorf("closed with %d %q", e.Code, e.Reason)
	}
	must(t, b.Start())
}
