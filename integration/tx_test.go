package integration

import (
	"fmt"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

func TestTxRefusals(t *testing.T) {
	t.Parallel()
	refuse(t, []refusal{
		{name: "select on a confirm channel", do: func(t *testing.T, s *scene) {
			confirmMode(t, s.ch)
			_ = s.ch.Tx()
		}, code: 406, text: "PRECONDITION_FAILED - cannot switch from confirm to tx mode"},
		{
			name: "commit without select", do: func(_ *testing.T, s *scene) { _ = s.ch.TxCommit() },
			code: 406, text: "PRECONDITION_FAILED - channel is not transactional",
		},
		{
			name: "rollback without select", do: func(_ *testing.T, s *scene) { _ = s.ch.TxRollback() },
			code: 406, text: "PRECONDITION_FAILED - channel is not transactional",
		},
		{name: "publish to no exchange, at once", do: func(t *testing.T, s *scene) {
			must(t, s.ch.Tx())
			publish(t, s.ch, s.x, "k", "m")
		}, code: 404, text: "NOT_FOUND - no exchange '{x}' in vhost '{vhost}'"},
		{name: "ack of an unknown tag, at once", do: func(t *testing.T, s *scene) {
			must(t, s.ch.Tx())
			must(t, s.ch.Ack(3, false))
		}, code: 406, text: "PRECONDITION_FAILED - unknown delivery tag 3"},
		{name: "ack twice in one transaction", do: func(t *testing.T, s *scene) {
			s.declare(t, nil)
			publish(t, s.ch, "", s.q, "m")
			wantReady(t, s.ch, s.q, 1)
			must(t, s.ch.Tx())
			d := get(t, s.ch, s.q, false)
			ack(t, d, false)
			ack(t, d, false)
		}, code: 406, text: "PRECONDITION_FAILED - unknown delivery tag 1"},
	})
}

// transactional returns a channel in tx mode, and another one to look from outside.
func transactional(t *testing.T) (tx, outside *amqp.Channel, queue string) {
	t.Helper()
	conn := dial(t)
	tx, outside = channel(t, conn), channel(t, conn)
	must(t, tx.Tx())
	must(t, tx.Tx()) // idempotent
	return tx, outside, privateQueue(t, outside, nil)
}

func TestTxPublishesAppearAtCommit(t *testing.T) {
	t.Parallel()
	tx, outside, q := transactional(t)
	other := privateQueue(t, outside, nil)
	publish(t, tx, "", q, "1", "2")
	publish(t, tx, "", other, "o")
	publishMessage(t, tx, "", q, persistent("3")[0])
	must(t, tx.Qos(0, 0, false)) // a round trip on the channel
	wantBodies(t, outside, q)
	must(t, tx.TxCommit())
	// commit-ok means that they are there.
	for _, c := range []struct {
		queue string
		n     int
	}{{q, 3}, {other, 1}} {
		if got := inspect(t, outside, c.queue).Messages; got != c.n {
			t.Fatalf("%d messages after commit-ok, want %d", got, c.n)
		}
	}
	wantBodies(t, outside, q, "1", "2", "3")
	// The next transaction has begun.
	publish(t, tx, "", q, "4")
	must(t, tx.Qos(0, 0, false))
	wantBodies(t, outside, q)
	must(t, tx.TxCommit())
	must(t, tx.TxCommit()) // an empty one
	wantBodies(t, outside, q, "4")
}

func TestTxRollbackForgetsPublishes(t *testing.T) {
	t.Parallel()
	tx, outside, q := transactional(t)
	publish(t, tx, "", q, "dropped")
	must(t, tx.TxRollback())
	publish(t, tx, "", q, "kept")
	must(t, tx.TxCommit())
	wantBodies(t, outside, q, "kept")
	publish(t, tx, "", q, "lost with the channel")
	must(t, tx.Close())
	wantBodies(t, outside, q)
}

func TestTxReturnsAtCommit(t *testing.T) {
	t.Parallel()
	c := wireDial(t)
	q := c.declare(1)
	txSelect, txSelectOk, txCommit, txCommitOk := id(90, 10), id(90, 11), id(90, 20), id(90, 21)
	c.send(1, txSelect, nil)
	c.expect(1, txSelectOk)
	c.publish(1, publishArgs("", "nowhere", true, false), nil, "unroutable")
	c.publish(1, publishArgs("", q, true, false), nil, "routed")
	c.quiet(1, q)
	c.send(1, txCommit, nil)
	c.expect(1, basicReturn)
	if m := c.content(1); string(m.body) != "unroutable" {
		t.Fatalf("returned %q", m.body)
	}
	c.expect(1, txCommitOk)
	if n, _ := c.inspect(1, q); n != 1 {
		t.Fatalf("%d messages, want 1", n)
	}
}

func TestTxRoutesAtPublish(t *testing.T) {
	t.Parallel()
	tx, outside, q := transactional(t)
	x := newExchange(t, outside, "fanout", nil)
	bind(t, outside, q, "", x, nil)
	publish(t, tx, x, "", "m")
	must(t, tx.Qos(0, 0, false))
	must(t, outside.QueueUnbind(q, "", x, nil))
	must(t, tx.TxCommit())
	wantBodies(t, outside, q, "m")
}

func TestTxAcksTakeEffectAtCommit(t *testing.T) {
	t.Parallel()
	tx, outside, q := transactional(t)
	publish(t, outside, "", q, "1", "2", "3", "4", "5")
	wantReady(t, outside, q, 5)
	var d []amqp.Delivery
	for i := range 4 {
		d = append(d, get(t, tx, q, false))
		if string(d[i].Body) != fmt.Sprint(i+1) {
			t.Fatalf("got %q", d[i].Body)
		}
	}
	// Rolled back: outstanding again, and not redelivered.
	ack(t, d[0], false)
	nack(t, d[1], false, true)
	must(t, tx.TxRollback())
	wantReady(t, outside, q, 1)
	ack(t, d[0], false) // so they may be settled once more
	nack(t, d[1], false, true)
	must(t, d[2].Reject(false))
	wantReady(t, outside, q, 1)
	must(t, tx.TxCommit())
	wantReady(t, outside, q, 2)
	// 1 is acknowledged, 2 requeued, 3 rejected, 4 still out.
	if got := get(t, outside, q, true); string(got.Body) != "2" || !got.Redelivered {
		t.Fatalf("got %q redelivered=%t", got.Body, got.Redelivered)
	}
	must(t, tx.Close())
	wantReady(t, outside, q, 2)
	for _, want := range []string{"4", "5"} {
		if got := get(t, outside, q, true); string(got.Body) != want || got.Redelivered != (want == "4") {
			t.Fatalf("got %q redelivered=%t, want %q", got.Body, got.Redelivered, want)
		}
	}
}

func TestTxAcksAreForgottenWithTheChannel(t *testing.T) {
	t.Parallel()
	tx, outside, q := transactional(t)
	publish(t, outside, "", q, "m")
	wantReady(t, outside, q, 1)
	ack(t, get(t, tx, q, false), false)
	must(t, tx.Close())
	wantReady(t, outside, q, 1)
	if d := get(t, outside, q, true); !d.Redelivered {
		t.Fatal("not marked redelivered")
	}
}

func TestTxAcksGiveCreditAtCommit(t *testing.T) {
	t.Parallel()
	tx, outside, q := transactional(t)
	publish(t, outside, "", q, "1", "2", "3")
	wantReady(t, outside, q, 3)
	prefetch(t, tx, 1, false)
	deliveries := consume(t, tx, q, "", nil)
	d := wantDelivery(t, deliveries, "1", false)
	publish(t, tx, "", q, "4")
	ack(t, d, false)
	prefetch(t, tx, 1, false)
	wantReady(t, outside, q, 2)
	must(t, tx.TxCommit())
	wantDelivery(t, deliveries, "2", false)
	wantReady(t, outside, q, 2)
}
