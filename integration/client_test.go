package integration

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Helpers around amqp091-go. They fail the test themselves; t.Helper makes the failure point
// at the caller.

var (
	runID    = func() string { b := make([]byte, 4); _, _ = rand.Read(b); return hex.EncodeToString(b) }()
	sequence atomic.Uint64
)

// uniqueName returns a name that no other test and no other run of the suite uses.
func uniqueName(hint string) string {
	return fmt.Sprintf("it-%s-%d-%s", runID, sequence.Add(1), hint)
}

// nameFor is uniqueName with the test's name in it, cut to leave room in a short string.
func nameFor(t testing.TB, hint string) string {
	n := strings.NewReplacer("/", "-", " ", "-", "#", "-").Replace(t.Name())
	return uniqueName(n[:min(len(n), 100)] + "-" + hint)
}

// dial opens a connection that is closed when the test ends.
func dial(t testing.TB) *amqp.Connection {
	t.Helper()
	return dialURL(t, sut.url)
}

func dialURL(t testing.TB, url string) *amqp.Connection {
	t.Helper()
	return dialConfig(t, url, amqp.Config{})
}

// dialConfig is dial with a configuration; its empty fields get the suite's defaults.
func dialConfig(t testing.TB, url string, c amqp.Config) *amqp.Connection {
	t.Helper()
	if c.Properties == nil {
		c.Properties = amqp.NewConnectionProperties()
		c.Properties.SetClientConnectionName(t.Name())
	}
	conn, err := amqp.DialConfig(url, c)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // most tests have closed it already, or made the broker do so
	return conn
}

// channel opens a channel on conn.
func channel(t testing.TB, conn *amqp.Connection) *amqp.Channel {
	t.Helper()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatalf("channel.open: %v", err)
	}
	return ch
}

// open is dial and channel.
func open(t testing.TB) *amqp.Channel {
	t.Helper()
	return channel(t, dial(t))
}

// admin is the connection that cleanup works on, whatever the test did to its own ones.
var admin adminConn

type adminConn struct {
	mu   sync.Mutex
	conn *amqp.Connection // guarded by mu
}

// do runs f on a channel of its own. Errors are not reported: what cleanup could not remove is
// gone already, or its absence is what the test was about.
func (a *adminConn) do(f func(*amqp.Channel)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conn == nil || a.conn.IsClosed() {
		conn, err := amqp.Dial(sut.url)
		if err != nil {
			return
		}
		a.conn = conn
	}
	ch, err := a.conn.Channel()
	if err != nil {
		return
	}
	f(ch)
	_ = ch.Close()
}

func (a *adminConn) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conn != nil {
		_ = a.conn.Close()
	}
}

func removeQueue(t testing.TB, name string) {
	t.Cleanup(func() {
		admin.do(func(ch *amqp.Channel) { _, _ = ch.QueueDelete(name, false, false, false) })
	})
}

func removeExchange(t testing.TB, name string) {
	t.Cleanup(func() {
		admin.do(func(ch *amqp.Channel) { _ = ch.ExchangeDelete(name, false, false) })
	})
}

// privateQueue declares an exclusive queue with a name of its own.
func privateQueue(t testing.TB, ch *amqp.Channel, args amqp.Table) string {
	t.Helper()
	q, err := ch.QueueDeclare(nameFor(t, "q"), false, false, true, false, args)
	if err != nil {
		t.Fatalf("queue.declare: %v", err)
	}
	return q.Name
}

// sharedQueue declares a durable queue that every connection may use.
func sharedQueue(t testing.TB, ch *amqp.Channel, args amqp.Table) string {
	t.Helper()
	name := nameFor(t, "q")
	if _, err := ch.QueueDeclare(name, true, false, false, false, args); err != nil {
		t.Fatalf("queue.declare: %v", err)
	}
	removeQueue(t, name)
	return name
}

// newExchange declares a transient exchange.
func newExchange(t testing.TB, ch *amqp.Channel, kind string, args amqp.Table) string {
	t.Helper()
	name := nameFor(t, "x")
	if err := ch.ExchangeDeclare(name, kind, false, false, false, false, args); err != nil {
		t.Fatalf("exchange.declare: %v", err)
	}
	removeExchange(t, name)
	return name
}

func bind(t testing.TB, ch *amqp.Channel, queue, key, exchange string, args amqp.Table) {
	t.Helper()
	if err := ch.QueueBind(queue, key, exchange, false, args); err != nil {
		t.Fatalf("queue.bind %q to %q by %q: %v", queue, exchange, key, err)
	}
}

func bindExchange(t testing.TB, ch *amqp.Channel, destination, key, source string, args amqp.Table) {
	t.Helper()
	if err := ch.ExchangeBind(destination, key, source, false, args); err != nil {
		t.Fatalf("exchange.bind %q to %q by %q: %v", destination, source, key, err)
	}
}

// publish sends bodies in order, one message each.
func publish(t testing.TB, ch *amqp.Channel, exchange, key string, bodies ...string) {
	t.Helper()
	for _, body := range bodies {
		publishMessage(t, ch, exchange, key, amqp.Publishing{Body: []byte(body)})
	}
}

func publishMessage(t testing.TB, ch *amqp.Channel, exchange, key string, p amqp.Publishing) {
	t.Helper()
	if err := ch.Publish(exchange, key, false, false, p); err != nil {
		t.Fatalf("basic.publish: %v", err)
	}
}

// publishConfirmed sends messages and waits for their confirms on ch, which is in confirm mode.
func publishConfirmed(t testing.TB, ch *amqp.Channel, exchange, key string, messages ...amqp.Publishing) {
	t.Helper()
	pending := make([]*amqp.DeferredConfirmation, 0, len(messages))
	for _, p := range messages {
		c, err := ch.PublishWithDeferredConfirm(exchange, key, false, false, p)
		if err != nil {
			t.Fatalf("basic.publish: %v", err)
		}
		pending = append(pending, c)
	}
	for _, c := range pending {
		select {
		case <-c.Done():
			if !c.Acked() {
				t.Fatalf("publish %d was nacked", c.DeliveryTag)
			}
		case <-time.After(patience):
			t.Fatalf("no confirm for publish %d", c.DeliveryTag)
		}
	}
}

// openConfirming opens a channel in confirm mode on a connection of its own.
func openConfirming(t testing.TB) *amqp.Channel {
	t.Helper()
	ch := open(t)
	confirmMode(t, ch)
	return ch
}

func confirmMode(t testing.TB, ch *amqp.Channel) {
	t.Helper()
	if err := ch.Confirm(false); err != nil {
		t.Fatalf("confirm.select: %v", err)
	}
}

// persistent returns one persistent message per body.
func persistent(bodies ...string) []amqp.Publishing {
	var out []amqp.Publishing
	for _, b := range bodies {
		out = append(out, amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte(b)})
	}
	return out
}

// inspect returns the counts of a queue by a passive declare. It is no barrier for publishes:
// RabbitMQ answers it before messages that wait in front of the queue.
func inspect(t testing.TB, ch *amqp.Channel, queue string) amqp.Queue {
	t.Helper()
	q, err := ch.QueueDeclarePassive(queue, false, false, false, false, nil)
	if err != nil {
		t.Fatalf("queue.declare passive %q: %v", queue, err)
	}
	return q
}

// wantReady waits until the queue has this many ready messages. To prove that a publish did
// not reach a queue use wantBodies: a basic.get keeps its place behind publishes.
func wantReady(t testing.TB, ch *amqp.Channel, queue string, want int) {
	t.Helper()
	eventually(t, func() error {
		if got := inspect(t, ch, queue).Messages; got != want {
			return fmt.Errorf("queue %q has %d ready messages, want %d", queue, got, want)
		}
		return nil
	})
}

// eventually polls f until it returns nil. f must cost the broker a round trip, or yield.
func eventually(t testing.TB, f func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond) // a pause between polls, not a guess about the outcome
	}
}

// get fetches one message that must be there.
func get(t testing.TB, ch *amqp.Channel, queue string, autoAck bool) amqp.Delivery {
	t.Helper()
	d, ok, err := ch.Get(queue, autoAck)
	if err != nil {
		t.Fatalf("basic.get %q: %v", queue, err)
	}
	if !ok {
		t.Fatalf("basic.get %q: empty", queue)
	}
	return d
}

// drain fetches and acknowledges everything in the queue and returns the bodies.
func drain(t testing.TB, ch *amqp.Channel, queue string) []string {
	t.Helper()
	bodies := []string{}
	for {
		d, ok, err := ch.Get(queue, true)
		if err != nil {
			t.Fatalf("basic.get %q: %v", queue, err)
		}
		if !ok {
			return bodies
		}
		bodies = append(bodies, string(d.Body))
	}
}

// wantBodies drains the queue and compares.
func wantBodies(t testing.TB, ch *amqp.Channel, queue string, want ...string) {
	t.Helper()
	if got := drain(t, ch, queue); strings.Join(got, "|") != strings.Join(want, "|") {
		t.Fatalf("queue %q held %q, want %q", queue, got, want)
	}
}

// consume starts a consumer with acknowledgements.
func consume(t testing.TB, ch *amqp.Channel, queue, tag string, args amqp.Table) <-chan amqp.Delivery {
	t.Helper()
	d, err := ch.Consume(queue, tag, false, false, false, false, args)
	if err != nil {
		t.Fatalf("basic.consume %q: %v", queue, err)
	}
	return d
}

func prefetch(t testing.TB, ch *amqp.Channel, count int, global bool) {
	t.Helper()
	if err := ch.Qos(count, 0, global); err != nil {
		t.Fatalf("basic.qos: %v", err)
	}
}

// receive waits for one delivery.
func receive(t testing.TB, deliveries <-chan amqp.Delivery) amqp.Delivery {
	t.Helper()
	select {
	case d, ok := <-deliveries:
		if !ok {
			t.Fatal("the consumer was cancelled, or its channel closed, instead of a delivery")
		}
		return d
	case <-time.After(patience):
		t.Fatal("no delivery")
	}
	panic("unreachable")
}

// wantDelivery waits for a delivery and checks its body and redelivered flag.
func wantDelivery(t testing.TB, deliveries <-chan amqp.Delivery, body string, redelivered bool) amqp.Delivery {
	t.Helper()
	d := receive(t, deliveries)
	if string(d.Body) != body || d.Redelivered != redelivered {
		t.Fatalf("delivered %.80q redelivered=%t, want %.80q redelivered=%t", d.Body, d.Redelivered, body, redelivered)
	}
	return d
}

func ack(t testing.TB, d amqp.Delivery, multiple bool) {
	t.Helper()
	if err := d.Ack(multiple); err != nil {
		t.Fatalf("basic.ack: %v", err)
	}
}

func nack(t testing.TB, d amqp.Delivery, multiple, requeue bool) {
	t.Helper()
	if err := d.Nack(multiple, requeue); err != nil {
		t.Fatalf("basic.nack: %v", err)
	}
}

// await receives from c.
func await[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v, ok := <-c:
		if !ok {
			t.Fatalf("%s: closed without a value", what)
		}
		return v
	case <-time.After(patience):
		t.Fatalf("no %s", what)
	}
	panic("unreachable")
}

// must fails the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// amqpError returns the broker's exception in err.
func amqpError(t testing.TB, err error) *amqp.Error {
	t.Helper()
	var e *amqp.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v (%T), want an exception of the broker", err, err)
	}
	return e
}
