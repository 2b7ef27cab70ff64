package broker

import (
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/storage"
	"github.com/settmq/settmq/storage/journal/faultfs"
)

// withKey makes a persistent message.
func withKey(exchange, routingKey, key string, confirm storage.Confirmer, seq uint64) (*storage.Message, *amqp.Properties) {
	p := &amqp.Properties{Flags: amqp.PropHeaders, Headers: amqp.Table{field(queue.DeduplicationHeader, amqp.String(key))}.Append(nil)}
	return &storage.Message{Exchange: exchange, RoutingKey: routingKey, Properties: p.Append(nil), Body: []byte(key), Confirm: confirm, ConfirmSeq: seq}, p
}

func sendKey(t testing.TB, r *Router, exchange, routingKey, key string, confirm storage.Confirmer, seq uint64) {
	t.Helper()
	m, p := withKey(exchange, routingKey, key, confirm, seq)
	rt, err := r.Route([]byte(exchange), []byte(routingKey), p)
	if err != nil {
		t.Error(err)
		return
	}
	var w queue.Wakes
	if stores := rt.Stores(m); !rt.Publish(m, &w) || stores != (confirm != nil) {
		t.Errorf("message %d: refused, or not to be confirmed", seq)
	}
}

type confirmedCount struct{ n atomic.Int64 }

func (c *confirmedCount) Confirm(seqs []uint64, _ bool) { c.n.Add(int64(len(seqs))) }

// wait waits until n messages are confirmed.
func (c *confirmedCount) wait(t testing.TB, n int64) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); c.n.Load() != n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d messages are confirmed, want %d", c.n.Load(), n)
		}
	}
}

func dedupExchange(t testing.TB, v *VHost, queues []string, args ...amqp.Field) {
	t.Helper()
	declareExchange(t, v, "x", "x-message-deduplication", append(args, field("x-cache-size", amqp.Int32(1000)))...)
	for _, name := range queues {
		bind(t, v, "x", name, "", QueueResource)
	}
}

// Publishers with the same messages at the same time: one of each goes through, all are confirmed.
func TestOneOfManyEqualMessagesGoesThrough(t *testing.T) {
	const publishers, keys = 8, 300
	for name, args := range map[string][]amqp.Field{"disk": nil, "memory": {field("x-cache-persistence", amqp.String("memory"))}} {
		t.Run(name, func(t *testing.T) {
			v := newBroker(t).VHost("/")
			a := declareQueue(t, v, "a", true)
			own := declareWithWindow(t, v, "own", append(args, field("x-cache-size", amqp.Int32(1000)))...)
			bind(t, v, "amq.fanout", "own", "", QueueResource)
			s, err := v.DeclareQueue(actor{id: 1}, QueueDeclare{Name: "s", Durable: true, Arguments: amqp.Table{field("x-queue-type", amqp.String("stream"))}})
			must(t, err)
			dedupExchange(t, v, []string{"a", "s"}, args...)
			var (
				confirmed confirmedCount
				running   sync.WaitGroup
			)
			for range publishers {
				running.Go(func() {
					r := v.NewRouter()
					for i := range keys {
						sendKey(t, r, "x", "k", strconv.Itoa(i), &confirmed, uint64(i))
						sendKey(t, r, "amq.fanout", "k", strconv.Itoa(i), &confirmed, uint64(i))
					}
				})
			}
			running.Wait()
			confirmed.wait(t, 2*publishers*keys)
			for _, q := range []Queue{a, s, own} {
				if n := q.Info().Ready; n != keys {
					t.Errorf("%s has %d messages, want %d", q.About().Name, n, keys)
				}
			}
		})
	}
}

// A duplicate is confirmed when the message that went through is on disk, not before.
func TestDuplicateIsConfirmedWithItsOriginal(t *testing.T) {
	for name, args := range map[string][]amqp.Field{"disk": nil, "memory": {field("x-cache-persistence", amqp.String("memory"))}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				disk := &slowDisk{FS: faultfs.New(1)}
				b := open(t, testOptions(t, dir, disk))
				defer closeBroker(t, b)
				v := b.VHost("/")
				declareQueue(t, v, "a", true)
				dedupExchange(t, v, []string{"a"}, args...)
				own, err := v.DeclareQueue(actor{id: 1}, QueueDeclare{Name: "own", Durable: true, Arguments: amqp.Table{field("x-message-deduplication", amqp.Bool(true))}})
				must(t, err)
				bind(t, v, "amq.fanout", own.About().Name, "", QueueResource)
				left := declareWithWindow(t, v, "left", append(args, field("x-cache-size", amqp.Int32(1000)))...)
				r := v.NewRouter()
				var first, second confirmedCount
				disk.close()
				for _, c := range []*confirmedCount{&first, &second} {
					sendKey(t, r, "x", "k", "a", c, 1)
					sendKey(t, r, "amq.fanout", "k", "a", c, 1)
					sendKey(t, r, "", "left", "a", c, 1)
					if name == "disk" { // else it is confirmed, as it is nowhere any more
						if _, err := left.Purge(); err != nil {
							t.Error(err)
						}
					}
				}
				synctest.Wait()
				if first.n.Load()+second.n.Load() > 0 {
					t.Errorf("%d and %d are confirmed before they are on disk", first.n.Load(), second.n.Load())
				}
				disk.open()
				synctest.Wait()
				if first.n.Load() != 3 || second.n.Load() != 3 {
					t.Errorf("%d and %d are confirmed, want 3 and 3", first.n.Load(), second.n.Load())
				}
			})
		})
	}
}

func TestPolicyChangesAWindow(t *testing.T) {
	v := newBroker(t).VHost("/")
	a := declareQueue(t, v, "a", true)
	declareExchange(t, v, "x", "x-message-deduplication", field("x-cache-size", amqp.Int32(1)))
	bind(t, v, "x", "a", "", QueueResource)
	r := v.NewRouter()
	var c confirmedCount
	want := func(n int, keys ...string) {
		t.Helper()
		for _, k := range keys {
			sendKey(t, r, "x", "k", k, &c, 1)
		}
		if got := a.Info().Ready; got != n {
			t.Fatalf("%d messages, want %d", got, n)
		}
	}
	want(3, "1", "2", "1")
	setPolicy(t, v, UserPolicy, "p", `{"pattern": "^x$", "apply-to": "exchanges", "definition": {"x-cache-size": 5}}`)
	want(5, "3", "4", "1", "3", "4")
	if err := v.ClearPolicy(UserPolicy, "p"); err != nil {
		t.Fatal(err)
	}
	want(8, "5", "3", "4", "4")
}

func declareWithWindow(t testing.TB, v *VHost, name string, args ...amqp.Field) Queue {
	t.Helper()
	q, err := v.DeclareQueue(actor{id: 1}, QueueDeclare{Name: name, Durable: true, Arguments: append(args, field("x-message-deduplication", amqp.Bool(true)))})
	must(t, err)
	return q
}

// A policy gives a queue a window, and takes it away; so it is after a restart.
func TestPolicyGivesAQueueAWindow(t *testing.T) {
	o := testOptions(t, t.TempDir(), nil)
	b := open(t, o)
	v := b.VHost("/")
	q := declareWithWindow(t, v, "q")
	want := func(step string, n int, keys ...string) {
		t.Helper()
		var c confirmedCount
		r := v.NewRouter()
		for i, k := range keys {
			sendKey(t, r, "", "q", k, &c, uint64(i))
		}
		c.wait(t, int64(len(keys)))
		if got, err := q.Purge(); err != nil || got != n {
			t.Errorf("%s: %d messages, want %d (%v)", step, got, n, err)
		}
	}
	want("no window", 2, "a", "b", "a")
	want("no window, gone", 2, "a", "b")
	setPolicy(t, v, UserPolicy, "p", `{"pattern": "^q$", "apply-to": "queues", "definition": {"x-cache-size": 5}}`)
	want("window", 2, "a", "b")
	want("window, known", 1, "a", "b", "c")
	closeBroker(t, b)
	b = open(t, o)
	v = b.VHost("/")
	q = v.queues["q"]
	want("restarted", 1, "a", "b", "c", "d")
	if err := v.ClearPolicy(UserPolicy, "p"); err != nil {
		t.Fatal(err)
	}
	want("without the policy", 1, "a")
	want("without the policy, gone", 1, "a")
	stored := v.windowOf[q].storeID
	if _, err := v.DeleteQueue(actor{id: 1}, "q", false, false); err != nil {
		t.Fatal(err)
	}
	if b.store.Queue(stored) != nil || len(v.windowOf) > 0 || len(b.windows.all) > 0 {
		t.Error("the window is still there without its queue")
	}
	closeBroker(t, b)
}
