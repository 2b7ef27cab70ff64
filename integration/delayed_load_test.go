package integration

import (
	"encoding/binary"
	"flag"
	"slices"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

var (
	delays    = flag.Int("delays", 20000, "messages in TestManyDelaysSurviveAKill")
	delayRate = flag.Int("delay-rate", 20000, "how many of them are due per second")
)

// Many waiting messages, a kill, and all of them come once and none early. With -delays 1000000 it
// shows what docs/delayed-messages.md says; that takes minutes.
func TestManyDelaysSurviveAKill(t *testing.T) {
	if !sut.settmq {
		t.Skip("RabbitMQ has delayed exchanges in a plugin only, which is archived")
	}
	b := ownBroker(t)
	ch := channel(t, dialURL(t, b.URL()))
	confirmMode(t, ch)
	x := uniqueName("delays")
	must(t, ch.ExchangeDeclare(x, "x-delayed-message", true, false, false, false, amqp.Table{"x-delayed-type": "fanout"}))
	removeExchange(t, x)
	q := durableQueue(t, ch, "delays", nil)
	bind(t, ch, q, "", x, nil)

	// The first is due when all are published and the broker is up again.
	first := time.Now().Add(2*time.Second + time.Duration(*delays)*25*time.Microsecond)
	const window = 500
	var last *amqp.DeferredConfirmation
	for i := range *delays {
		due := first.Add(time.Duration(i) * time.Second / time.Duration(*delayRate))
		body := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(make([]byte, 0, 64), uint64(i)), uint64(due.UnixMilli()))
		c, err := ch.PublishWithDeferredConfirm(x, "", false, false, amqp.Publishing{
			// Published a little before it is sent: rounded up, so that early means early.
			Headers: amqp.Table{"x-delay": time.Until(due).Milliseconds() + 1}, Body: body[:64], DeliveryMode: amqp.Persistent,
		})
		must(t, err)
		if i%window == 0 && last != nil && !await(t, "confirm", done(last)) {
			t.Fatal("refused")
		}
		if i%window == 0 || i == *delays-1 {
			last = c
		}
	}
	await(t, "the last confirm", done(last))
	if time.Now().After(first) {
		t.Logf("publishing took too long by %v", time.Since(first))
	}
	must(t, b.Kill())
	must(t, b.Start())
	up := time.Now()
	conn := dialURL(t, b.URL())
	in, err := channel(t, conn).Consume(q, "", true, false, false, false, nil)
	must(t, err)
	seen := make([]bool, *delays)
	var late []time.Duration
	end := time.After(time.Until(first) + time.Duration(*delays)*time.Second/time.Duration(*delayRate) + patience)
	for n := range *delays {
		var d amqp.Delivery
		select {
		case d = <-in:
		case <-end:
			t.Fatalf("%d of %d messages came", n, *delays)
		}
		now := time.Now()
		i, due := binary.BigEndian.Uint64(d.Body), time.UnixMilli(int64(binary.BigEndian.Uint64(d.Body[8:])))
		switch {
		case i >= uint64(len(seen)) || seen[i]:
			t.Fatalf("message %d comes twice", i)
		case now.Before(due):
			t.Fatalf("message %d comes %v early", i, due.Sub(now))
		}
		seen[i] = true
		if due.After(up) { // what was due before the start cannot be in time
			late = append(late, now.Sub(due))
		}
	}
	slices.Sort(late)
	if n := len(late); n > 0 {
		t.Logf("%d delays, of these %d due while the broker was up: late by %v (median), %v (99 %%), %v at most",
			*delays, n, late[n/2], late[n*99/100], late[n-1])
	}
}
