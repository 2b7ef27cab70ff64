package stream

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/storage/journal/faultfs"
)

// check compares deliveries with the messages from from to to-1.
func check(t testing.TB, list []got, from, to int) {
	t.Helper()
	if len(list) != to-from {
		t.Fatalf("got %d deliveries, want %d", len(list), to-from)
	}
	for i, g := range list {
		n := from + i
		if g.offset != uint64(n) || g.body != string(body(n)) {
			t.Fatalf("delivery %d is %d %q, want %d", i, g.offset, g.body, n)
		}
		v, _ := g.headers.Get("x-stream-offset")
		if off, ok := v.Int(); !ok || v.Kind() != amqp.KindLong || off != int64(n) {
			t.Fatalf("delivery %d has the offset header %v", n, v)
		}
		if g.exchange != "x" || g.routingKey != "key" {
			t.Fatalf("delivery %d came by %q and %q", n, g.exchange, g.routingKey)
		}
	}
}

func TestMessagesAreReadAsOftenAsWantedInOrder(t *testing.T) {
	r := newRig(t, faultfs.New(1), "/d/streams")
	s := r.open(queue.Settings{})
	publish(t, s, 0, 3000)
	for range 2 {
		_, k := consume(t, s, plenty, fromFirst())
		check(t, k.wait(t, 3000), 0, 3000)
	}
	_, k := consume(t, s, plenty)
	publish(t, s, 3000, 4000)
	check(t, k.wait(t, 1000), 3000, 4000)
	r.close()

	s = r.open(queue.Settings{})
	if i := s.Info(); i.Ready != 4000 {
		t.Errorf("%d messages after the restart", i.Ready)
	}
	_, k = consume(t, s, plenty, fromFirst())
	check(t, k.wait(t, 4000), 0, 4000)
	publish(t, s, 4000, 4001)
	check(t, k.wait(t, 4001), 0, 4001)
	r.close()
}

func TestCreditBoundsDeliveriesAndAnySettlementGivesItBack(t *testing.T) {
	r := newRig(t, faultfs.New(1), "/d/streams")
	s := r.open(queue.Settings{})
	publish(t, s, 0, 100)
	c, k := consume(t, s, 3, fromFirst())
	check(t, k.wait(t, 3), 0, 3)
	if i := s.Info(); i.Unacked != 3 || i.Consumers != 1 {
		t.Errorf("info is %+v", i)
	}
	var w queue.Wakes
	c.Queue.Ack([]uint64{0}, &w)
	check(t, k.wait(t, 4), 0, 4)
	c.Queue.Requeue([]uint64{1, 2}, true, &w)
	check(t, k.wait(t, 6), 0, 6)
	c.Queue.Unsubscribe(c.ID, &w)
	c.Queue.Ack([]uint64{3, 4, 5}, &w)
	check(t, k.list(), 0, 6)
	r.close()
}

func TestARefusedConsumerGoesOnWhereItWas(t *testing.T) {
	r := newRig(t, faultfs.New(1), "/d/streams")
	s := r.open(queue.Settings{})
	c, k := consume(t, s, plenty, fromFirst())
	k.mu.Lock()
	k.refuse = true
	k.mu.Unlock()
	publish(t, s, 0, 500)
	k.mu.Lock()
	k.refuse = false
	k.mu.Unlock()
	c.Queue.Unpark(c.ID, &queue.Wakes{})
	check(t, k.wait(t, 500), 0, 500)
	r.close()
}

func TestOffsets(t *testing.T) {
	r := newRig(t, faultfs.New(1), "/d/streams")
	s := r.open(queue.Settings{MaxSegmentBytes: queue.Some[int64](1)})
	// Ten hours, with a few chunks each, the last of one message.
	for i := range 10 {
		publish(t, s, i*100, i*100+99)
		publish(t, s, i*100+99, i*100+100)
		r.advance(time.Hour)
	}
	at := func(hours int) uint64 { return uint64(1_000_000 + hours*3600) }
	for _, tc := range []struct {
		offset amqp.Value
		first  int
	}{
		{amqp.String("first"), 0},
		{amqp.String("last"), 999},
		{amqp.String("next"), 1000},
		{amqp.Int32(0), 0},
		{amqp.Int8(-1), 0},
		{amqp.Int64(555), 555},
		{amqp.Int64(999), 999},
		{amqp.Int64(1000), 1000},
		{amqp.Timestamp(0), 0},
		{amqp.Timestamp(at(3)), 300},
		{amqp.Timestamp(at(3) + 1), 400},
		{amqp.Timestamp(at(11)), 1000},
		{amqp.String("3h"), 700},
		{amqp.String("1D"), 0},
		{amqp.String("1s"), 1000},
	} {
		_, k := consume(t, s, plenty, field("x-stream-offset", tc.offset))
		check(t, k.wait(t, 1000-tc.first), tc.first, 1000)
	}
	// Beyond the end: everything before is left out, also what comes later.
	_, k := consume(t, s, plenty, field("x-stream-offset", amqp.Int64(1015)))
	publish(t, s, 1000, 1010)
	publish(t, s, 1010, 1020)
	check(t, k.wait(t, 5), 1015, 1020)
	r.close()
}

func TestRefusals(t *testing.T) {
	r := newRig(t, faultfs.New(1), "/d/streams")
	s := r.open(queue.Settings{})
	refusal := func(c *queue.Consumer) string {
		c.Sink = newSink()
		var e *amqp.Error
		if err := s.Subscribe(c, nil, &queue.Wakes{}); !errors.As(err, &e) {
			t.Fatalf("not refused: %v", err)
		}
		return e.Text
	}
	for _, tc := range []struct {
		c    queue.Consumer
		want string
	}{
		{queue.Consumer{}, "PRECONDITION_FAILED - consumer prefetch count is not set for stream queue 's' in vhost '/'"},
		{queue.Consumer{Prefetch: 1, NoAck: true}, "NOT_IMPLEMENTED - automatic acknowledgement not supported by stream queue 's' in vhost '/'"},
		{
			queue.Consumer{Prefetch: 1, Arguments: amqp.Table{field("x-stream-offset", amqp.String("2X"))}},
			`PRECONDITION_FAILED - invalid arg 'x-stream-offset' for queue 's' in vhost '/': {invalid_stream_offset_arg,{longstr,<<"2X">>}}`,
		},
		{
			queue.Consumer{Prefetch: 1, Arguments: amqp.Table{field("x-stream-offset", amqp.Bool(true))}},
			`PRECONDITION_FAILED - invalid arg 'x-stream-offset' for queue 's' in vhost '/': {invalid_stream_offset_arg,{bool,true}}`,
		},
		{
			queue.Consumer{Prefetch: 1, Arguments: amqp.Table{field("x-stream-filter", amqp.Int32(5))}},
			`PRECONDITION_FAILED - invalid arg 'x-stream-filter' for queue 's' in vhost '/': {unacceptable_type,signedint}`,
		},
	} {
		if text := refusal(&tc.c); text != tc.want {
			t.Errorf("refused with %q, want %q", text, tc.want)
		}
	}
	if _, _, _, err := s.Get(true, nil); err == nil || err.Error() != "NOT_IMPLEMENTED - basic.get not supported by stream queues queue 's' in vhost '/'" {
		t.Errorf("get: %v", err)
	}
	if _, err := s.Purge(); err == nil || err.Error() != "NOT_IMPLEMENTED - queue.purge not supported by stream queues queue 's' in vhost '/'" {
		t.Errorf("purge: %v", err)
	}
	r.close()
}

func TestFilters(t *testing.T) {
	r := newRig(t, faultfs.New(1), "/d/streams")
	s := r.open(queue.Settings{})
	c := newConfirmer()
	n := 0
	add := func(value string) {
		var h []amqp.Field
		if value != "none" {
			h = append(h, field("x-stream-filter-value", amqp.String(value)))
		}
		s.Publish(message(c, uint64(n), body(n), h...), nil)
		n++
	}
	for range 1000 { // mixed in every chunk
		for _, v := range []string{"a", "b", "none", ""} {
			add(v)
		}
	}
	c.wait(t, n)
	for range 1000 { // chunks of c only
		add("c")
	}
	c.wait(t, n)
	for _, tc := range []struct {
		args amqp.Table
		want int
	}{
		{amqp.Table{field("x-stream-filter", amqp.String("a"))}, 1000},
		{amqp.Table{field("x-stream-filter", amqp.ArrayValue(amqp.String("a"), amqp.String("c")))}, 2000},
		{amqp.Table{field("x-stream-filter", amqp.String("a")), field("x-stream-match-unfiltered", amqp.Bool(true))}, 3000},
		{amqp.Table{field("x-stream-filter", amqp.String(""))}, 2000},
		{amqp.Table{field("x-stream-match-unfiltered", amqp.Bool(true))}, 5000},
	} {
		_, k := consume(t, s, plenty, append(amqp.Table{fromFirst()}, tc.args...)...)
		k.wait(t, tc.want)
		// The last message of all comes to everybody who wants it, behind everything before.
		if got := len(k.list()); got != tc.want {
			t.Errorf("%v: %d deliveries, want %d", tc.args, got, tc.want)
		}
	}
	r.close()
}

func TestSegmentsAreRemovedWholeByAgeAndSize(t *testing.T) {
	fs := faultfs.New(1)
	r := newRig(t, fs, "/d/streams")
	small := queue.Settings{MaxSegmentBytes: queue.Some[int64](1), MaxLengthBytes: queue.Some[int64](400 << 10)}
	s := r.open(small)
	big := make([]byte, 10_000)
	c := newConfirmer()
	for i := range 300 {
		s.Publish(message(c, uint64(i), big), nil)
		c.wait(t, i+1)
	}
	first, next := s.log.bounds()
	if size, _ := s.log.stat(); first == 0 || next != 300 || size > 400<<10 {
		t.Errorf("kept %d to %d, %d bytes", first, next, size)
	}
	_, k := consume(t, s, plenty, fromFirst())
	if list := k.wait(t, int(next-first)); list[0].offset != first {
		t.Errorf("first delivery is %d, want %d", list[0].offset, first)
	}
	_, k = consume(t, s, plenty, field("x-stream-offset", amqp.Int32(0)))
	if list := k.wait(t, int(next-first)); list[0].offset != first {
		t.Errorf("first delivery is %d, want %d", list[0].offset, first)
	}
	r.advance(2 * time.Hour)
	small.MaxAge = queue.Some(time.Hour)
	s.Configure(small)
	waitUntil(t, func() bool { f, _ := s.log.bounds(); return f > first })
	if len(s.log.segs) != 1 {
		t.Errorf("%d segments are left", len(s.log.segs))
	}
	r.close()
	s = r.open(small)
	if i := s.Info(); i.Ready == 0 || s.next != 300 {
		t.Errorf("after the restart: %d messages, next is %d", i.Ready, s.next)
	}
	r.close()
}

func waitUntil(t testing.TB, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing happened for too long")
		}
	}
}

func TestDeletingAStreamRemovesItsFilesAndCancelsItsConsumers(t *testing.T) {
	fs := faultfs.New(1)
	r := newRig(t, fs, "/d/streams")
	s := r.open(queue.Settings{})
	publish(t, s, 0, 10)
	consume(t, s, 5, fromFirst())
	_, consumers, err := s.Delete(true, true)
	if err != nil || len(consumers) != 1 {
		t.Fatalf("%d consumers, %v", len(consumers), err)
	}
	c := newConfirmer()
	s.Publish(message(c, 1, body(1)), nil)
	c.wait(t, 1)
	if err := s.Remove(); err != nil {
		t.Fatal(err)
	}
	if names, err := fs.ReadDir("/d/streams"); err != nil || len(names) > 0 {
		t.Errorf("left behind: %v %v", names, err)
	}
	r.close()
}

func TestFilesOfAForgottenStreamAreRemoved(t *testing.T) {
	fs := faultfs.New(1)
	r := newRig(t, fs, "/d/streams")
	publish(t, r.open(queue.Settings{}), 0, 10)
	r.close()
	e, err := OpenEngine(EngineOptions{FS: fs, Dir: "/d/streams", Store: r.store})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(e.Start(), e.Close()); err != nil {
		t.Fatal(err)
	}
	if names, err := fs.ReadDir("/d/streams"); err != nil || len(names) > 0 {
		t.Errorf("left behind: %v %v", names, err)
	}
}

func TestLargeAndSmallMessages(t *testing.T) {
	r := newRig(t, faultfs.New(1), "/d/streams")
	s := r.open(queue.Settings{})
	sizes := []int{0, 1, 3 << 20, 10, 20 << 10, 70 << 10, 0, 600 << 10, 5}
	c := newConfirmer()
	for i, n := range sizes {
		s.Publish(message(c, uint64(i), []byte(fmt.Sprintf("%0*d", n, i))), nil)
	}
	c.wait(t, len(sizes))
	_, k := consume(t, s, 2, fromFirst())
	for i := range sizes {
		list := k.wait(t, i+1)
		if want := fmt.Sprintf("%0*d", sizes[i], i); list[i].body != want {
			t.Fatalf("message %d has %d bytes, want %d", i, len(list[i].body), len(want))
		}
		s.mu.Lock()
		var src queue.Source
		for _, k := range s.consumers {
			src = k
		}
		s.mu.Unlock()
		src.Ack([]uint64{uint64(i)}, &queue.Wakes{})
	}
	r.close()
}
