package stream

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/queue/fifo"
	"github.com/settmq/settmq/storage"
	"github.com/settmq/settmq/storage/journal"
)

const patience = 30 * time.Second

// store is the part of the broker's store that streams use.
type store struct {
	mu      sync.Mutex
	charged int64
	held    bool
	failed  error
	changed sync.Cond
}

func newStore() *store {
	s := &store{}
	s.changed.L = &s.mu
	return s
}

func (s *store) Charge(n int64) { s.set(func() { s.charged += n }) }

func (s *store) HoldForSpace(on bool) { s.set(func() { s.held = on }) }

func (s *store) Fail(err error) { s.set(func() { s.failed = err }) }

func (s *store) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	s.changed.Broadcast()
}

// rig is an engine on a file system, with a clock that the test moves.
type rig struct {
	t      testing.TB
	fs     journal.FS
	dir    string
	store  *store
	engine *Engine

	mu    sync.Mutex
	clock time.Time

	damaged bool // faults are expected
	faults  int
}

func newRig(t testing.TB, fs journal.FS, dir string) *rig {
	return &rig{t: t, fs: fs, dir: dir, store: newStore(), clock: time.UnixMilli(1_000_000_000)}
}

func (r *rig) now() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.clock
}

func (r *rig) advance(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clock = r.clock.Add(d)
}

// fault is told what cannot be read.
func (r *rig) fault(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.damaged {
		r.t.Errorf("fault: %v", err)
	}
	r.faults++
}

// tryOpen opens the engine and one stream.
func (r *rig) tryOpen(settings queue.Settings) (*Stream, error) {
	e, err := OpenEngine(EngineOptions{
		FS: r.fs, Dir: r.dir, Store: r.store, Now: r.now,
	})
	if err != nil {
		return nil, err
	}
	s, err := e.Open(Options{
		Declaration: queue.Declaration{ID: 7, Name: "s", Durable: true}, Label: "queue 's' in vhost '/'", Settings: settings,
		OnFault: func(_ *Stream, err error) { r.fault(err) },
	})
	if err != nil {
		return nil, err
	}
	r.engine = e
	return s, e.Start()
}

func (r *rig) open(settings queue.Settings) *Stream {
	r.t.Helper()
	s, err := r.tryOpen(settings)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func (r *rig) close() {
	r.t.Helper()
	if err := r.engine.Close(); err != nil {
		r.t.Fatal(err)
	}
}

// confirmer counts confirms.
type confirmer struct {
	mu      sync.Mutex
	changed sync.Cond
	seqs    map[uint64]bool
}

func newConfirmer() *confirmer {
	c := &confirmer{seqs: make(map[uint64]bool)}
	c.changed.L = &c.mu
	return c
}

func (c *confirmer) Confirm(seqs []uint64, _ bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range seqs {
		c.seqs[s] = true
	}
	c.changed.Broadcast()
}

// wait returns once n are confirmed, or stop says that there is no point.
func (c *confirmer) wait(t testing.TB, n int) {
	t.Helper()
	waitFor(t, &c.changed, func() bool { return len(c.seqs) >= n })
}

// waitFor waits for a condition under a lock.
func waitFor(t testing.TB, c *sync.Cond, ok func() bool) {
	t.Helper()
	late := false
	timer := time.AfterFunc(patience, func() {
		c.L.Lock()
		late = true
		c.L.Unlock()
		c.Broadcast()
	})
	defer timer.Stop()
	c.L.Lock()
	defer c.L.Unlock()
	for !ok() {
		if late {
			t.Fatal("nothing happened for too long")
		}
		c.Wait()
	}
}

func body(i int) []byte { return []byte(fmt.Sprintf("message %d", i)) }

// message makes a message whose confirm goes to c under seq.
func message(c *confirmer, seq uint64, body []byte, headers ...amqp.Field) *storage.Message {
	p := amqp.Properties{Flags: amqp.PropContentType, ContentType: []byte("text/plain")}
	if len(headers) > 0 {
		p.Flags |= amqp.PropHeaders
		p.Headers = amqp.Table(headers).Append(nil)
	}
	m := &storage.Message{Exchange: "x", RoutingKey: "key", Properties: p.Append(nil), Body: body}
	if c != nil {
		m.Confirm, m.ConfirmSeq = c, seq
	}
	m.Targets.Store(1)
	return m
}

// publish appends messages with the numbers from to to-1 and waits for their confirms.
func publish(t testing.TB, s *Stream, from, to int) {
	t.Helper()
	c := newConfirmer()
	for i := from; i < to; i++ {
		s.Publish(message(c, uint64(i), body(i)), nil)
	}
	c.wait(t, to-from)
}

type got struct {
	offset     uint64
	body       string
	headers    amqp.Table
	exchange   string
	routingKey string
}

// sink is a channel with a client that takes everything and, unless told otherwise, acks at once.
type sink struct {
	mu        sync.Mutex
	changed   sync.Cond
	got       []got
	refuse    bool
	cancelled bool
}

func newSink() *sink {
	k := &sink{}
	k.changed.L = &k.mu
	return k
}

func (k *sink) Admit(*queue.Consumer, uint32) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return !k.refuse
}

func (k *sink) Deliver(_ *queue.Consumer, d *queue.Delivery, _ *queue.Wakes) {
	headers, _, err := amqp.ParseTable(amqp.HeadersOf(d.Message.Properties))
	if err != nil {
		panic(err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.got = append(k.got, got{d.Seq, string(d.Message.Body), headers, d.Message.Exchange, d.Message.RoutingKey})
	k.changed.Broadcast()
}

// TimedOut implements queue.Sink; streams know no timeout.
func (k *sink) TimedOut(*queue.Consumer, int64, *queue.Wakes) []uint64 { return nil }

func (k *sink) Cancelled(*queue.Consumer) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cancelled = true
	k.changed.Broadcast()
}

func (k *sink) list() []got {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]got(nil), k.got...)
}

// wait returns the deliveries once there are n.
func (k *sink) wait(t testing.TB, n int) []got {
	t.Helper()
	waitFor(t, &k.changed, func() bool { return len(k.got) >= n })
	return k.list()
}

var lastConsumer fifo.ConsumerID

func field(name string, v amqp.Value) amqp.Field { return amqp.Field{Name: name, Value: v} }

// consume subscribes a sink.
func consume(t testing.TB, s *Stream, prefetch uint32, args ...amqp.Field) (*queue.Consumer, *sink) {
	t.Helper()
	lastConsumer++
	k := newSink()
	c := &queue.Consumer{ID: lastConsumer, Tag: "t", Prefetch: prefetch, Sink: k, Arguments: args}
	if err := s.Subscribe(c, nil, &queue.Wakes{}); err != nil {
		t.Fatal(err)
	}
	return c, k
}

const plenty = 1 << 30

func fromFirst() amqp.Field { return field("x-stream-offset", amqp.String("first")) }
