package broker

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rs/zerolog"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/auth"
	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/storage"
	"github.com/settmq/settmq/storage/journal"
)

// testOptions are a small broker with one user, logging errors through t.
func testOptions(t testing.TB, dir string, disk journal.FS) Options {
	return Options{
		Storage: storage.Options{
			Dir: dir, FS: disk, JournalSegment: 256 << 10, JournalMax: 1 << 20, Small: true, MinFree: 1,
			Log: zerolog.Nop(),
		},
		Log:   zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.ErrorLevel),
		First: FirstRun{VHost: "/", User: "guest", Password: "guest", Configure: ".*", Write: ".*", Read: ".*"},
	}
}

func open(t testing.TB, o Options) *Broker {
	t.Helper()
	b, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func closeBroker(t testing.TB, b *Broker) {
	t.Helper()
	if err := b.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
}

// newBroker opens a broker that is closed with the test.
func newBroker(t testing.TB, change ...func(*Options)) *Broker {
	t.Helper()
	o := testOptions(t, t.TempDir(), nil)
	for _, f := range change {
		f(&o)
	}
	b := open(t, o)
	t.Cleanup(func() { closeBroker(t, b) })
	return b
}

// actor is a connection that may do everything.
type actor struct {
	System
	id uint64
}

func (a actor) ConnectionID() uint64 { return a.id }

// noSink takes no deliveries.
type noSink struct{ cancelled atomic.Int32 }

func (s *noSink) Admit(*queue.Consumer, uint32) bool                     { return false }
func (s *noSink) Deliver(*queue.Consumer, *queue.Delivery, *queue.Wakes) {}
func (s *noSink) TimedOut(*queue.Consumer, int64, *queue.Wakes) []uint64 { return nil }
func (s *noSink) Cancelled(*queue.Consumer)                              { s.cancelled.Add(1) }

// must fails the test on a refusal.
func must(t testing.TB, err *amqp.Error) {
	t.Helper()
	if err != nil {
		t.Fatalf("refused: %d %s", err.Code, err.Text)
	}
}

// refused checks a refusal.
func refused(t testing.TB, err *amqp.Error, code uint16, text string) {
	t.Helper()
	switch {
	case err == nil:
		t.Errorf("allowed, want %d %s", code, text)
	case err.Code != code || text != "" && err.Text != text:
		t.Errorf("refused with %d %s\nwant %d %s", err.Code, err.Text, code, text)
	}
}

func declareQueue(t testing.TB, v *VHost, name string, durable bool) Queue {
	t.Helper()
	q, err := v.DeclareQueue(actor{id: 1}, QueueDeclare{Name: name, Durable: durable})
	must(t, err)
	return q
}

func declareExchange(t testing.TB, v *VHost, name, kind string, args ...amqp.Field) {
	t.Helper()
	must(t, v.DeclareExchange(actor{id: 1}, ExchangeDeclare{Name: name, Type: kind, Durable: true, Arguments: args}))
}

func bind(t testing.TB, v *VHost, source, destination, key string, kind Resource, args ...amqp.Field) {
	t.Helper()
	must(t, v.Bind(actor{id: 1}, BindingSpec{Source: source, Destination: destination, Kind: kind, RoutingKey: key, Arguments: args}))
}

// routed names the queues that a message goes to, sorted.
func routed(t testing.TB, r *Router, exchange, key string, headers ...amqp.Field) []string {
	t.Helper()
	var p amqp.Properties
	if len(headers) > 0 {
		p.Flags |= amqp.PropHeaders
		p.Headers = amqp.Table(headers).Append(nil)
	}
	rt, err := r.Route([]byte(exchange), []byte(key), &p)
	must(t, err)
	names := []string{}
	for _, q := range rt.Queues {
		names = append(names, q.About().Name)
	}
	slices.Sort(names)
	return names
}

func expectRoute(t testing.TB, r *Router, exchange, key string, want ...string) {
	t.Helper()
	if got := routed(t, r, exchange, key); !slices.Equal(got, want) && len(got)+len(want) > 0 {
		t.Errorf("%q with key %q goes to %v, want %v", exchange, key, got, want)
	}
}

func texts(list ...string) amqp.Value {
	var values []amqp.Value
	for _, s := range list {
		values = append(values, amqp.String(s))
	}
	return amqp.ArrayValue(values...)
}

func field(name string, v amqp.Value) amqp.Field { return amqp.Field{Name: name, Value: v} }

func hashed(t testing.TB, name, password string) *auth.User {
	t.Helper()
	hash, err := auth.HashPassword(password)
	if err != nil {
		t.Fatal(err)
	}
	return &auth.User{Name: name, PasswordHash: hash, Algorithm: auth.SHA256}
}

func permissions(t testing.TB, configure, write, read string) auth.Permissions {
	t.Helper()
	p, err := auth.CompilePermissions(configure, write, read)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// slowDisk is a journal file system whose syncs wait while it is closed.
type slowDisk struct {
	journal.FS
	mu     sync.Mutex
	closed chan struct{} // guarded by mu: syncs wait for it, nil if they need not
}

func (d *slowDisk) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = make(chan struct{})
}

func (d *slowDisk) open() {
	d.mu.Lock()
	defer d.mu.Unlock()
	close(d.closed)
	d.closed = nil
}

func (d *slowDisk) OpenFile(name string, create bool) (journal.File, error) {
	f, err := d.FS.OpenFile(name, create)
	return slowFile{f, d}, err
}

type slowFile struct {
	journal.File
	d *slowDisk
}

func (f slowFile) Sync() error {
	f.d.mu.Lock()
	closed := f.d.closed
	f.d.mu.Unlock()
	if closed != nil {
		<-closed
	}
	return f.File.Sync()
}
