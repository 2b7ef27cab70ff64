package integration

import (
	"context"
	"fmt"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// newStream declares a stream.
func newStream(t testing.TB, ch *amqp.Channel, args amqp.Table) string {
	t.Helper()
	all := amqp.Table{"x-queue-type": "stream"}
	for k, v := range args {
		all[k] = v
	}
	return sharedQueue(t, ch, all)
}

// fillStream publishes bodies m0 … and waits for the confirm of each, so that every message has a chunk of its own.
func fillStream(t testing.TB, ch *amqp.Channel, stream string, from, to int, header func(int) amqp.Table) {
	t.Helper()
	for i := from; i < to; i++ {
		p := amqp.Publishing{Body: fmt.Appendf(nil, "m%d", i)}
		if header != nil {
			p.Headers = header(i)
		}
		publishConfirmed(t, ch, "", stream, p)
	}
}

// wantOffsets receives the messages with these offsets and acknowledges them.
func wantOffsets(t testing.TB, deliveries <-chan amqp.Delivery, offsets ...int) {
	t.Helper()
	for _, n := range offsets {
		d := receive(t, deliveries)
		if off, ok := d.Headers["x-stream-offset"].(int64); !ok || off != int64(n) || string(d.Body) != fmt.Sprint("m", n) || d.Redelivered {
			t.Fatalf("delivered %q with offset %v, redelivered=%t, want m%d", d.Body, d.Headers["x-stream-offset"], d.Redelivered, n)
		}
		ack(t, d, false)
	}
}

func span(from, to int) (list []int) {
	for i := from; i < to; i++ {
		list = append(list, i)
	}
	return list
}

// TestStreamExample is the example of docs/streams.md.
func TestStreamExample(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ch := open(t)
	name := nameFor(t, "orders")
	removeQueue(t, name)
	var got []string
	err := func() error {
		_, err := ch.QueueDeclare(name, true, false, false, false, amqp.Table{
			"x-queue-type":       "stream",
			"x-max-age":          "7D",
			"x-max-length-bytes": int64(20_000_000_000),
		})
		if err != nil {
			return err
		}
		if err := ch.Confirm(false); err != nil {
			return err
		}
		for _, order := range []string{"one", "two", "three"} {
			confirm, err := ch.PublishWithDeferredConfirmWithContext(ctx, "", name, false, false, amqp.Publishing{
				Headers: amqp.Table{"x-stream-filter-value": "germany"},
				Body:    []byte(order),
			})
			if err != nil {
				return err
			}
			confirm.Wait()
		}

		if err := ch.Qos(100, 0, false); err != nil { // a stream needs a prefetch
			return err
		}
		deliveries, err := ch.Consume(name, "", false, false, false, false, amqp.Table{
			"x-stream-offset": int64(1),
			"x-stream-filter": "germany",
		})
		if err != nil {
			return err
		}
		for order := range deliveries {
			offset := order.Headers["x-stream-offset"].(int64)
			if order.Headers["x-stream-filter-value"] == "germany" {
				got = append(got, fmt.Sprint(offset, " ", string(order.Body)))
			}
			if err := order.Ack(false); err != nil { // gives credit back; nothing is removed
				return err
			}
			if offset == 2 {
				break
			}
		}
		return nil
	}()
	must(t, err)
	if fmt.Sprint(got) != "[1 two 2 three]" {
		t.Errorf("got %v", got)
	}
}

func TestStreamOffsets(t *testing.T) {
	t.Parallel()
	ch := open(t)
	confirmMode(t, ch)
	name := newStream(t, ch, nil)
	fillStream(t, ch, name, 0, 10, nil)
	for _, tc := range []struct {
		offset any
		first  int
	}{
		{"first", 0},
		{"last", 9},
		{"next", 10},
		{nil, 10},
		{0, 0},
		{int64(4), 4},
		{int8(9), 9},
		{int16(10), 10},
		{int32(-1), 0},
		{time.Unix(0, 0), 0},
		{time.Now().Add(-time.Hour), 0},
		{time.Now().Add(time.Hour), 10},
		{"1h", 0},
		{"3Y", 0},
	} {
		t.Run(fmt.Sprintf("%T %v", tc.offset, tc.offset), func(t *testing.T) {
			consumer := open(t)
			prefetch(t, consumer, 20, false)
			args := amqp.Table{}
			if tc.offset != nil {
				args["x-stream-offset"] = tc.offset
			}
			deliveries := consume(t, consumer, name, "", args)
			wantOffsets(t, deliveries, span(tc.first, 10)...)
			select {
			case d := <-deliveries:
				t.Errorf("one more: %q", d.Body)
			case <-time.After(20 * time.Millisecond): // nothing must come; a slow broker passes
			}
		})
	}
	t.Run("beyond the end", func(t *testing.T) {
		consumer := open(t)
		prefetch(t, consumer, 20, false)
		deliveries := consume(t, consumer, name, "", amqp.Table{"x-stream-offset": 15})
		fillStream(t, ch, name, 10, 20, nil)
		wantOffsets(t, deliveries, span(15, 20)...)
	})
}

// TestStreamIsReadByEveryConsumer: reading takes nothing away, whoever reads and however it is settled.
func TestStreamIsReadByEveryConsumer(t *testing.T) {
	t.Parallel()
	ch := open(t)
	confirmMode(t, ch)
	name := newStream(t, ch, nil)
	fillStream(t, ch, name, 0, 5, nil)
	for range 3 {
		consumer := open(t)
		prefetch(t, consumer, 1, false)
		deliveries := consume(t, consumer, name, "", amqp.Table{"x-stream-offset": "first"})
		for i := range 5 {
			d := wantDelivery(t, deliveries, fmt.Sprint("m", i), false)
			switch i % 3 {
			case 0:
				ack(t, d, true)
			case 1:
				nack(t, d, false, true)
			case 2:
				must(t, d.Reject(true))
			}
		}
	}
	// Those at the end get what comes.
	var all []<-chan amqp.Delivery
	for range 3 {
		consumer := open(t)
		prefetch(t, consumer, 10, false)
		all = append(all, consume(t, consumer, name, "", nil))
	}
	fillStream(t, ch, name, 5, 10, nil)
	for _, deliveries := range all {
		wantOffsets(t, deliveries, span(5, 10)...)
	}
}

func TestStreamPrefetchIsCredit(t *testing.T) {
	t.Parallel()
	ch := open(t)
	confirmMode(t, ch)
	name := newStream(t, ch, nil)
	fillStream(t, ch, name, 0, 10, nil)
	for _, global := range []bool{false, true} {
		if global && !sut.settmq && !sut.globalQosIgnored {
			continue // a RabbitMQ that knows a global prefetch wants one of the consumer for a stream
		}
		consumer := open(t)
		prefetch(t, consumer, 3, global)
		deliveries := consume(t, consumer, name, "c", amqp.Table{"x-stream-offset": "first"})
		var last amqp.Delivery
		for i := range 3 {
			last = wantDelivery(t, deliveries, fmt.Sprint("m", i), false)
		}
		select {
		case d := <-deliveries:
			t.Errorf("global=%t: delivered beyond the prefetch: %q", global, d.Body)
		case <-time.After(20 * time.Millisecond): // nothing must come; a slow broker passes
		}
		ack(t, last, true)
		last = wantDelivery(t, deliveries, "m3", false)
		must(t, consumer.Cancel("c", false))
		ack(t, last, true) // settles two that were on their way, too
	}
}

// TestStreamFilters: chunks without a value that is wanted are left out. Other messages of a chunk may come, so every
// message is alone in its chunk.
func TestStreamFilters(t *testing.T) {
	t.Parallel()
	ch := open(t)
	confirmMode(t, ch)
	name := newStream(t, ch, amqp.Table{"x-stream-filter-size-bytes": 255})
	fillStream(t, ch, name, 0, 9, func(i int) amqp.Table {
		switch i % 3 {
		case 0:
			return amqp.Table{"x-stream-filter-value": "a"}
		case 1:
			return amqp.Table{"x-stream-filter-value": "b", "other": "header"}
		}
		return nil
	})
	for _, tc := range []struct {
		args amqp.Table
		want []int
	}{
		{amqp.Table{"x-stream-filter": "a"}, []int{0, 3, 6}},
		{amqp.Table{"x-stream-filter": []any{"a", "b"}}, []int{0, 1, 3, 4, 6, 7}},
		{amqp.Table{"x-stream-filter": "b", "x-stream-match-unfiltered": true}, []int{1, 2, 4, 5, 7, 8}},
		{amqp.Table{"x-stream-filter": "b", "x-stream-match-unfiltered": false}, []int{1, 4, 7}},
		{amqp.Table{"x-stream-filter": "none of them"}, nil},
		{amqp.Table{"x-stream-match-unfiltered": true}, span(0, 9)},
	} {
		t.Run(fmt.Sprint(tc.args), func(t *testing.T) {
			consumer := open(t)
			prefetch(t, consumer, 20, false)
			tc.args["x-stream-offset"] = "first"
			deliveries := consume(t, consumer, name, "", tc.args)
			wantOffsets(t, deliveries, tc.want...)
			select {
			case d := <-deliveries:
				t.Errorf("one more: %q", d.Body)
			case <-time.After(20 * time.Millisecond): // nothing must come; a slow broker passes
			}
		})
	}
}

// TestStreamHandsPropertiesOn: but for the offset, which is the broker's to give.
func TestStreamHandsPropertiesOn(t *testing.T) {
	t.Parallel()
	ch := open(t)
	confirmMode(t, ch)
	name := newStream(t, ch, nil)
	must(t, ch.QueueBind(name, "key", "amq.topic", false, nil))
	large := make([]byte, 300_000)
	for _, p := range []amqp.Publishing{
		{DeliveryMode: 2, ContentType: "text/plain", ContentEncoding: "gzip", MessageId: "1", Headers: amqp.Table{"x-stream-offset": "mine", "k": "v"}, Body: []byte("x")},
		{DeliveryMode: 1, Body: large},
		{DeliveryMode: 1, CorrelationId: "c"},
	} {
		publishConfirmed(t, ch, "amq.topic", "key", p)
	}
	prefetch(t, ch, 10, false)
	deliveries := consume(t, ch, name, "", amqp.Table{"x-stream-offset": "first"})
	d := wantDelivery(t, deliveries, "x", false)
	if d.DeliveryMode != 2 || d.ContentType != "text/plain" || d.ContentEncoding != "gzip" || d.MessageId != "1" || d.Exchange != "amq.topic" || d.RoutingKey != "key" ||
		len(d.Headers) != 2 || d.Headers["x-stream-offset"] != int64(0) || d.Headers["k"] != "v" {
		t.Errorf("delivered %+v", d)
	}
	d = wantDelivery(t, deliveries, string(large), false)
	if d.DeliveryMode != 1 || len(d.Headers) != 1 || d.Headers["x-stream-offset"] != int64(1) {
		t.Errorf("delivered mode %d with %v", d.DeliveryMode, d.Headers)
	}
	d = wantDelivery(t, deliveries, "", false)
	if d.CorrelationId != "c" || d.Headers["x-stream-offset"] != int64(2) {
		t.Errorf("delivered %q with %v", d.CorrelationId, d.Headers)
	}
}

func TestStreamDeleteIgnoresConditionsAndCancels(t *testing.T) {
	t.Parallel()
	ch := open(t)
	confirmMode(t, ch)
	name := newStream(t, ch, nil)
	fillStream(t, ch, name, 0, 3, nil)
	consumer := open(t)
	prefetch(t, consumer, 1, false)
	cancelled := consumer.NotifyCancel(make(chan string, 1))
	wantDelivery(t, consume(t, consumer, name, "c", amqp.Table{"x-stream-offset": "first"}), "m0", false)
	n, err := ch.QueueDelete(name, true, true, false)
	if err != nil || n != 0 {
		t.Errorf("deleted %d, %v", n, err)
	}
	if tag := await(t, "cancel notice", cancelled); tag != "c" {
		t.Errorf("cancelled %q", tag)
	}
	// A new one of that name is empty.
	_, err = ch.QueueDeclare(name, true, false, false, false, amqp.Table{"x-queue-type": "stream"})
	must(t, err)
	prefetch(t, ch, 1, false)
	deliveries := consume(t, ch, name, "", amqp.Table{"x-stream-offset": "first"})
	fillStream(t, ch, name, 0, 1, nil)
	wantOffsets(t, deliveries, 0)
}

func TestStreamTransaction(t *testing.T) {
	t.Parallel()
	ch := open(t)
	name := newStream(t, ch, nil)
	must(t, ch.Tx())
	publish(t, ch, "", name, "lost")
	must(t, ch.TxRollback())
	publish(t, ch, "", name, "m0", "m1")
	must(t, ch.TxCommit())
	consumer := open(t)
	prefetch(t, consumer, 5, false)
	wantOffsets(t, consume(t, consumer, name, "", amqp.Table{"x-stream-offset": "first"}), 0, 1)
}

func TestStreamMessageCount(t *testing.T) {
	t.Parallel()
	ch := open(t)
	confirmMode(t, ch)
	name := newStream(t, ch, nil)
	fillStream(t, ch, name, 0, 7, nil)
	wantReady(t, ch, name, 7)
}

func TestStreamRefusals(t *testing.T) {
	t.Parallel()
	stream := amqp.Table{"x-queue-type": "stream"}
	consumer := func(count int, noAck bool, args amqp.Table) func(*testing.T, *scene) {
		return func(t *testing.T, s *scene) {
			s.declare(t, stream)
			if count > 0 {
				must(t, s.ch.Qos(count, 0, false))
			}
			_, _ = s.ch.Consume(s.q, "", noAck, false, false, false, args)
		}
	}
	const queue = "queue '{q}' in vhost '{vhost}'"
	cases := []refusal{
		{name: "no prefetch", code: 406, text: "PRECONDITION_FAILED - consumer prefetch count is not set for stream " + queue, do: consumer(0, false, nil)},
		{name: "no prefetch and no ack", code: 406, text: "PRECONDITION_FAILED - consumer prefetch count is not set for stream " + queue, do: consumer(0, true, nil)},
		{name: "no ack", code: 540, text: "NOT_IMPLEMENTED - automatic acknowledgement not supported by stream " + queue, do: consumer(1, true, nil)},
		{name: "get", code: 540, text: "NOT_IMPLEMENTED - basic.get not supported by stream queues " + queue, do: func(t *testing.T, s *scene) {
			s.declare(t, stream)
			_, _, _ = s.ch.Get(s.q, false)
		}},
		{name: "purge", code: 540, text: "NOT_IMPLEMENTED - queue.purge not supported by stream queues " + queue, do: func(t *testing.T, s *scene) {
			s.declare(t, stream)
			_, _ = s.ch.QueuePurge(s.q, false)
		}},
		{name: "stream arguments on a classic queue", code: 406, text: "PRECONDITION_FAILED - invalid arg 'x-stream-offset' for " + queue + " of queue type rabbit_classic_queue", do: func(t *testing.T, s *scene) {
			s.declare(t, nil)
			_, _ = s.ch.Consume(s.q, "", false, false, false, false, amqp.Table{"x-stream-offset": "first"})
		}},
	}
	for _, name := range []string{"x-priority", "x-consumer-timeout"} {
		cases = append(cases, refusal{
			name: name, code: 406, text: "PRECONDITION_FAILED - invalid arg '" + name + "' for " + queue + " of queue type rabbit_stream_queue",
			do: consumer(1, false, amqp.Table{name: 5}),
		})
	}
	for _, offset := range []string{"4", "2X", "0s", "-1h", "h", "FIRST"} {
		cases = append(cases, refusal{
			name: "offset " + offset, code: 406, text: "PRECONDITION_FAILED - invalid arg 'x-stream-offset' for " + queue + `: {invalid_stream_offset_arg,{longstr,<<"` + offset + `">>}}`,
			do: consumer(1, false, amqp.Table{"x-stream-offset": offset}),
		})
	}
	for _, tc := range []struct {
		name, text string
		args       amqp.Table
	}{
		{"offset of a wrong type", "PRECONDITION_FAILED - invalid arg 'x-stream-offset' for " + queue + ": {invalid_stream_offset_arg,{bool,true}}", amqp.Table{"x-stream-offset": true}},
		{"filter of a wrong type", "PRECONDITION_FAILED - invalid arg 'x-stream-filter' for " + queue + ": {unacceptable_type,signedint}", amqp.Table{"x-stream-filter": 5}},
		{"match-unfiltered of a wrong type", "PRECONDITION_FAILED - invalid arg 'x-stream-match-unfiltered' for " + queue + ": {unacceptable_type,longstr}", amqp.Table{"x-stream-match-unfiltered": "true"}},
	} {
		cases = append(cases, refusal{name: tc.name, code: 406, text: tc.text, do: consumer(1, false, tc.args), unless: "stream-consumer-arguments"})
	}
	refuse(t, cases)

	ch := open(t)
	name := newStream(t, ch, amqp.Table{"x-max-age": "1h"})
	_, err := ch.QueueDeclare(name, true, false, false, false, amqp.Table{"x-queue-type": "stream", "x-max-age": "60m"})
	must(t, err) // the same time
	_, err = ch.QueueDeclare(name, true, false, false, false, amqp.Table{"x-queue-type": "stream", "x-max-age": "2D"})
	want := replyText(fmt.Sprintf("PRECONDITION_FAILED - inequivalent arg 'x-max-age' for queue '%s' in vhost '%s': received '172800000' but current is '3600000'", name, sut.uri.Vhost))
	if e := amqpError(t, err); e.Code != 406 || e.Reason != want {
		t.Errorf("refused with %d %q", e.Code, e.Reason)
	}
}

// TestStreamRetention: whole segments go, the oldest first, and with them the first offset.
func TestStreamRetention(t *testing.T) {
	t.Parallel()
	ch := open(t)
	confirmMode(t, ch)
	name := newStream(t, ch, amqp.Table{"x-max-length-bytes": 500_000, "x-stream-max-segment-size-bytes": 100_000})
	body := make([]byte, 10_000)
	for range 40 {
		var batch []amqp.Publishing
		for range 10 {
			batch = append(batch, amqp.Publishing{Body: body})
		}
		publishConfirmed(t, ch, "", name, batch...)
	}
	eventually(t, func() error {
		consumer := open(t)
		defer consumer.Close()
		prefetch(t, consumer, 1, false)
		d := receive(t, consume(t, consumer, name, "", amqp.Table{"x-stream-offset": "first"}))
		if first := d.Headers["x-stream-offset"].(int64); first < 300 || first >= 400 {
			return fmt.Errorf("the first message kept has the offset %d", first)
		}
		return nil
	})
}

// TestStreamSurvivesRestartAndKill: what was confirmed is there, under the same offsets.
func TestStreamSurvivesRestartAndKill(t *testing.T) {
	b := ownBroker(t)
	name := nameFor(t, "stream")
	next := 0
	for _, end := range []func() error{b.Stop, b.Kill, b.Kill} {
		conn := dialURL(t, b.URL())
		ch := channel(t, conn)
		confirmMode(t, ch)
		_, err := ch.QueueDeclare(name, true, false, false, false, amqp.Table{"x-queue-type": "stream"})
		must(t, err)
		for range 5 {
			var batch []amqp.Publishing
			for range 200 {
				batch = append(batch, amqp.Publishing{Body: fmt.Appendf(nil, "m%d", next)})
				next++
			}
			publishConfirmed(t, ch, "", name, batch...)
		}
		must(t, end())
		must(t, b.Start())
	}
	conn := dialURL(t, b.URL())
	t.Cleanup(func() {
		if ch, err := conn.Channel(); err == nil {
			_, _ = ch.QueueDelete(name, false, false, false)
		}
	})
	ch := channel(t, conn)
	prefetch(t, ch, 100, false)
	wantOffsets(t, consume(t, ch, name, "", amqp.Table{"x-stream-offset": "first"}), span(0, next)...)
	prefetch(t, ch, 100, false)
	wantOffsets(t, consume(t, ch, name, "", amqp.Table{"x-stream-offset": 1500}), span(1500, next)...)
}
