package broker

import (
	"strings"
	"testing"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/storage"
)

// replySink counts replies until it is full.
type replySink struct{ got, room int }

func (s *replySink) Reply(*storage.Message, *queue.Wakes) bool {
	if s.got == s.room {
		return false
	}
	s.got++
	return true
}

// send publishes to the default exchange and returns the route.
func send(t *testing.T, r *Router, key string, headers ...amqp.Field) *Route {
	t.Helper()
	var p amqp.Properties
	if len(headers) > 0 {
		p.Flags, p.Headers = amqp.PropHeaders, amqp.Table(headers).Append(nil)
	}
	rt, err := r.Route(nil, []byte(key), &p)
	must(t, err)
	var w queue.Wakes
	rt.Publish(&storage.Message{}, &w)
	return rt
}

func TestReplyReachesItsAddressOnly(t *testing.T) {
	v := newBroker(t).VHost("/")
	r := v.NewRouter()
	mine, other := &replySink{room: 10}, &replySink{room: 10}
	a := v.AddReplyConsumer(7, 1, mine)
	b := v.AddReplyConsumer(7, 2, other)
	if !IsReplyAddress(a.Address()) || a.Address() == b.Address() {
		t.Fatalf("addresses %q and %q", a.Address(), b.Address())
	}
	if rt := send(t, r, a.Address()); rt.Unroutable() || rt.RoutingKey != a.Address() || mine.got != 1 || other.got != 0 {
		t.Errorf("%+v; %d replies came, %d to another", rt, mine.got, other.got)
	}
	send(t, r, a.Address(), field("CC", texts(a.Address(), a.Address(), b.Address())))
	if mine.got != 2 || other.got != 1 {
		t.Errorf("%d and %d replies after one with CC, want 2 and 1", mine.got, other.got)
	}
}

// TestForgedReplyAddress: all of an address but its secret can be known.
func TestForgedReplyAddress(t *testing.T) {
	b := newBroker(t)
	v := b.VHost("/")
	r := v.NewRouter()
	s := &replySink{room: 10}
	a := v.AddReplyConsumer(7, 1, s)
	old := v.AddReplyConsumer(8, 1, s)
	old.Remove()
	elsewhere, err := b.CreateVHost("elsewhere")
	if err != nil {
		t.Fatal(err)
	}
	flip := func(i int) string {
		k := []byte(a.Address())
		if k[i] == 'A' {
			k[i] = 'B'
		} else {
			k[i] = 'A'
		}
		return string(k)
	}
	n := len(a.Address())
	for name, key := range map[string]string{
		"first of the secret": flip(n - 22), "middle of the secret": flip(n - 10), "removed": old.Address(),
		"another vhost": elsewhere.AddReplyConsumer(7, 1, s).Address(),
	} {
		if rt := send(t, r, key); rt.Unroutable() || s.got != 0 {
			t.Errorf("%s: unroutable is %t, %d replies came", name, rt.Unroutable(), s.got)
		}
		if v.HasReplyAddress(key) {
			t.Errorf("%s: the address is said to be alive", name)
		}
	}
	for name, key := range map[string]string{
		"cut": a.Address()[:n-1], "longer": a.Address() + "A", "no base64": a.Address()[:n-1] + "!", "no dot": strings.Replace(a.Address()[len(addressPrefix):], ".", "A", 1),
		"the prefix": addressPrefix, "the pseudo-queue": ReplyTo,
	} {
		if rt := send(t, r, key); !rt.Unroutable() || s.got != 0 {
			t.Errorf("%s: unroutable is %t, %d replies came", name, rt.Unroutable(), s.got)
		}
	}
}

// TestRemovedReplyConsumerDoesNotTakeItsSuccessorAlong: a channel's place is used again.
func TestRemovedReplyConsumerDoesNotTakeItsSuccessorAlong(t *testing.T) {
	v := newBroker(t).VHost("/")
	first := v.AddReplyConsumer(7, 1, &replySink{})
	first.Remove()
	second := v.AddReplyConsumer(7, 1, &replySink{})
	first.Remove()
	if v.HasReplyAddress(first.Address()) || !v.HasReplyAddress(second.Address()) {
		t.Error("the second consumer must be alive, and only it")
	}
}

func TestDroppedRepliesAreCounted(t *testing.T) {
	b := newBroker(t)
	v := b.VHost("/")
	a := v.AddReplyConsumer(7, 1, &replySink{room: 2})
	r := v.NewRouter()
	for range 5 {
		send(t, r, a.Address())
	}
	if n := b.RepliesDropped(); n != 3 {
		t.Errorf("%d replies dropped, want 3", n)
	}
}

func TestReplyAllocatesNothing(t *testing.T) {
	v := newBroker(t).VHost("/")
	r := v.NewRouter()
	key := []byte(v.AddReplyConsumer(7, 1, &replySink{room: 1 << 30}).Address())
	var (
		p amqp.Properties
		w queue.Wakes
		m storage.Message
	)
	if n := testing.AllocsPerRun(1000, func() {
		rt, err := r.Route(nil, key, &p)
		must(t, err)
		rt.Publish(&m, &w)
	}); n > 0 {
		t.Errorf("%v allocations per reply", n)
	}
}

func BenchmarkReply(b *testing.B) {
	v := newBroker(b).VHost("/")
	r := v.NewRouter()
	key := []byte(v.AddReplyConsumer(7, 1, &replySink{room: 1 << 62}).Address())
	var (
		p amqp.Properties
		w queue.Wakes
		m storage.Message
	)
	b.ReportAllocs()
	for b.Loop() {
		rt, err := r.Route(nil, key, &p)
		must(b, err)
		rt.Publish(&m, &w)
	}
}
