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
func withKey(exchange, key string, confirm storage.Confirmer, seq uint64) (*storage.Message, *amqp.Properties) {
	p := &amqp.Properties{Flags: amqp.PropHeaders, Headers: amqp.Table{field(queue.DeduplicationHeader, amqp.String(key))}.Append(nil)}
	return &storage.Message{Exchange: exchange, RoutingKey: "k", Properties: p.Append(nil), Body: []byte(key), Confirm: confirm, ConfirmSeq: seq}, p
}

func sendKey(t testing.TB, r *Router, exchange, key string, confirm storage.Confirmer, seq uint64) {
	t.Helper()
	m, p := withKey(exchange, key, confirm, seq)
	rt, err := r.Route([]byte(exchange), []byte("k"), p)
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
						sendKey(t, r, "x", strconv.Itoa(i), &confirmed, uint64(i))
					}
				})
			}
			running.Wait()
			confirmed.wait(t, publishers*keys)
			for _, q := range []Queue{a, s} {
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
				r := v.NewRouter()
				var first, second confirmedCount
				disk.close()
				for _, c := range []*confirmedCount{&first, &second} {
					sendKey(t, r, "x", "a", c, 1)
					sendKey(t, r, "amq.fanout", "a", c, 1)
				}
				synctest.Wait()
				if first.n.Load()+second.n.Load() > 0 {
					t.Error("confirmed before it is on disk")
				}
				disk.open()
				synctest.Wait()
				if first.n.Load() != 2 || second.n.Load() != 2 {
					t.Errorf("%d and %d are confirmed, want 2 and 2", first.n.Load(), second.n.Load())
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
			sendKey(t, r, "x", k, &c, 1)
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
