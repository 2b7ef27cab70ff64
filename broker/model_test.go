package broker

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/storage/journal/faultfs"
)

// The model of a vhost: plain maps, every rule written down in the slowest way.
type (
	modelExchange struct {
		kind                string
		durable, autoDelete bool
		alternate           string
	}
	modelQueue struct {
		durable, autoDelete bool
		owner               uint64
		consumers           int
	}
	modelBinding struct {
		source, destination string
		toQueue             bool
		key, x              string // x: the value of an argument, "" for none
	}
	model struct {
		exchanges map[string]modelExchange
		queues    map[string]modelQueue
		bindings  map[modelBinding]bool
	}
)

func newModel() *model {
	m := &model{exchanges: map[string]modelExchange{}, queues: map[string]modelQueue{}, bindings: map[modelBinding]bool{}}
	for _, d := range defaultExchanges {
		if d.Name != "" {
			m.exchanges[d.Name] = modelExchange{kind: d.Type, durable: true}
		}
	}
	return m
}

// durable is what is left of the model after a restart.
func (m *model) durable() *model {
	d := newModel()
	for name, x := range m.exchanges {
		if x.durable {
			d.exchanges[name] = x
		}
	}
	for name, q := range m.queues {
		if q.durable && q.owner == 0 {
			q.consumers = 0
			d.queues[name] = q
		}
	}
	for b := range m.bindings {
		_, from := d.exchanges[b.source]
		_, queue := d.queues[b.destination]
		_, exchange := d.exchanges[b.destination]
		if from && (b.toQueue && queue || !b.toQueue && exchange) {
			d.bindings[b] = true
		}
	}
	return d
}

// unbind removes a binding and what goes with it.
func (m *model) unbind(b modelBinding) {
	delete(m.bindings, b)
	if x, ok := m.exchanges[b.source]; !ok || !x.autoDelete {
		return
	}
	for o := range m.bindings {
		if o.source == b.source {
			return
		}
	}
	m.deleteExchange(b.source)
}

func (m *model) deleteExchange(name string) {
	delete(m.exchanges, name)
	for b := range maps.Clone(m.bindings) {
		if b.source == name {
			delete(m.bindings, b)
		}
	}
	m.unbindFrom(name, false)
}

func (m *model) deleteQueue(name string) {
	delete(m.queues, name)
	m.unbindFrom(name, true)
}

func (m *model) unbindFrom(destination string, toQueue bool) {
	for b := range maps.Clone(m.bindings) {
		if b.destination == destination && b.toQueue == toQueue && m.bindings[b] {
			m.unbind(b)
		}
	}
}

// route is where a message without headers goes.
func (m *model) route(exchange, key string) []string {
	if exchange == "" {
		if _, ok := m.queues[key]; ok {
			return []string{key}
		}
		return nil
	}
	queues, visited := map[string]bool{}, map[string]bool{}
	var visit func(name string)
	visit = func(name string) {
		x, ok := m.exchanges[name]
		if !ok || visited[name] {
			return
		}
		visited[name] = true
		matched := false
		for b := range m.bindings {
			if b.source != name || !modelMatch(x.kind, b, key) {
				continue
			}
			matched = true
			if b.toQueue {
				queues[b.destination] = true
			} else {
				visit(b.destination)
			}
		}
		if !matched {
			visit(x.alternate)
		}
	}
	visit(exchange)
	return slices.Sorted(maps.Keys(queues))
}

func modelMatch(kind string, b modelBinding, key string) bool {
	switch kind {
	case "fanout":
		return true
	case "topic":
		return b.key == key || b.key == "#" || b.key == "*" && !strings.Contains(key, ".") || b.key == "a.*" && strings.HasPrefix(key, "a.")
	case "headers":
		return b.x == "" // nothing asked for: all match
	}
	return b.key == key
}

// String lists everything, sorted, for comparison.
func (m *model) String() string {
	var lines []string
	for name, x := range m.exchanges {
		lines = append(lines, fmt.Sprintf("exchange %s %+v", name, x))
	}
	for name, q := range m.queues {
		lines = append(lines, fmt.Sprintf("queue %s %+v", name, q))
	}
	for b := range m.bindings {
		lines = append(lines, fmt.Sprintf("binding %+v", b))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// snapshot reads a vhost into a model.
func snapshot(v *VHost) *model {
	m := &model{exchanges: map[string]modelExchange{}, queues: map[string]modelQueue{}, bindings: map[modelBinding]bool{}}
	v.Bindings(func(b *Binding) {
		mb := modelBinding{source: b.Source.Name, key: b.RoutingKey}
		if x, ok := b.Arguments.Get("x"); ok {
			mb.x = x.Text()
		}
		switch d := b.Destination.(type) {
		case Queue:
			mb.destination, mb.toQueue = d.About().Name, true
		case *Exchange:
			mb.destination = d.Name
		}
		m.bindings[mb] = true
	})
	for _, q := range v.Queues() {
		d := q.About()
		m.queues[d.Name] = modelQueue{durable: d.Durable, autoDelete: d.AutoDelete, owner: d.Owner, consumers: q.Info().Consumers}
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	for name, x := range v.exchanges {
		if name != "" {
			m.exchanges[name] = modelExchange{kind: x.Type, durable: x.Durable, autoDelete: x.AutoDelete, alternate: x.alternate}
		}
	}
	return m
}

// world is a vhost and its model under random operations.
type world struct {
	t      *rapid.T
	dir    string
	disk   *faultfs.FS
	o      Options
	b      *Broker
	v      *VHost
	router *Router
	m      *model

	consumers []*queue.Consumer
}

var (
	exchangeNames = []string{"x1", "x2", "x3", "amq.topic"}
	queueNames    = []string{"q1", "q2", "q3", "q4"}
	bindingKeys   = []string{"a", "a.b", "a.*", "#", "*"}
	messageKeys   = []string{"a", "a.b", "a.c", "b", "q1"}
)

func (w *world) pick(what string, from []string) string {
	return rapid.SampledFrom(from).Draw(w.t, what)
}

func (w *world) flag(what string) bool { return rapid.Bool().Draw(w.t, what) }

func (w *world) actor() actor { return actor{id: rapid.Uint64Range(1, 2).Draw(w.t, "conn")} }

// expect compares an outcome with the model's: 0 is success.
func (w *world) expect(what string, err *amqp.Error, code uint16) {
	var got uint16
	if err != nil {
		got = err.Code
	}
	if got != code {
		w.t.Fatalf("%s: code %d (%v), the model says %d", what, got, err, code)
	}
}

func (w *world) declareExchange() {
	d := ExchangeDeclare{
		Name: w.pick("name", exchangeNames[:3]), Type: w.pick("type", []string{"direct", "fanout", "topic", "headers"}),
		Durable: w.flag("durable"), AutoDelete: rapid.IntRange(0, 3).Draw(w.t, "autodelete") == 0,
	}
	want := modelExchange{kind: d.Type, durable: d.Durable, autoDelete: d.AutoDelete}
	if rapid.IntRange(0, 2).Draw(w.t, "alternate") == 0 {
		want.alternate = w.pick("alternate to", exchangeNames)
		d.Arguments = amqp.Table{field("alternate-exchange", amqp.String(want.alternate))}
	}
	code := uint16(0)
	if have, ok := w.m.exchanges[d.Name]; ok && have != want {
		code = amqp.ReplyPreconditionFailed
	}
	w.expect("declare exchange", w.v.DeclareExchange(w.actor(), d), code)
	if code == 0 {
		w.m.exchanges[d.Name] = want
	}
}

func (w *world) deleteExchange() {
	name, ifUnused := w.pick("name", exchangeNames[:3]), w.flag("if-unused")
	used := false
	for b := range w.m.bindings {
		used = used || b.source == name
	}
	code := uint16(0)
	if used && ifUnused {
		code = amqp.ReplyPreconditionFailed
	}
	w.expect("delete exchange", w.v.DeleteExchange(w.actor(), name, ifUnused), code)
	if _, ok := w.m.exchanges[name]; ok && code == 0 {
		w.m.deleteExchange(name)
	}
}

func (w *world) declareQueue() {
	a := w.actor()
	d := QueueDeclare{
		Name: w.pick("name", queueNames), Durable: w.flag("durable"), AutoDelete: w.flag("auto-delete"),
		Exclusive: rapid.IntRange(0, 4).Draw(w.t, "exclusive") == 0,
	}
	want := modelQueue{durable: d.Durable && !d.Exclusive, autoDelete: d.AutoDelete}
	if d.Exclusive {
		want.owner = a.id
	}
	code := uint16(0)
	if have, ok := w.m.queues[d.Name]; ok {
		switch {
		case have.owner != want.owner:
			code = amqp.ReplyResourceLocked
		case have.durable != want.durable || have.autoDelete != want.autoDelete:
			code = amqp.ReplyPreconditionFailed
		}
		want.consumers = have.consumers
	}
	_, err := w.v.DeclareQueue(a, d)
	w.expect("declare queue", err, code)
	if code == 0 {
		w.m.queues[d.Name] = want
	}
}

func (w *world) locked(a actor, q modelQueue) bool { return q.owner != 0 && q.owner != a.id }

func (w *world) deleteQueue() {
	a, name, ifUnused := w.actor(), w.pick("name", queueNames), w.flag("if-unused")
	have, ok := w.m.queues[name]
	code := uint16(0)
	switch {
	case ok && w.locked(a, have):
		code = amqp.ReplyResourceLocked
	case ok && ifUnused && have.consumers > 0:
		code = amqp.ReplyPreconditionFailed
	}
	_, err := w.v.DeleteQueue(a, name, ifUnused, false)
	w.expect("delete queue", err, code)
	if ok && code == 0 {
		w.m.deleteQueue(name)
		w.consumers = slices.DeleteFunc(w.consumers, func(c *queue.Consumer) bool { return c.Queue.About().Name == name })
	}
}

func (w *world) binding() (modelBinding, BindingSpec) {
	b := modelBinding{source: w.pick("source", exchangeNames), toQueue: rapid.IntRange(0, 2).Draw(w.t, "kind") > 0, key: w.pick("key", bindingKeys)}
	spec := BindingSpec{Source: b.source, Kind: ExchangeResource, RoutingKey: b.key}
	if b.toQueue {
		spec.Kind = QueueResource
		b.destination = w.pick("queue", queueNames)
	} else {
		b.destination = w.pick("exchange", exchangeNames)
	}
	spec.Destination = b.destination
	if rapid.IntRange(0, 3).Draw(w.t, "arguments") == 0 {
		b.x = "y"
		spec.Arguments = amqp.Table{field("x", amqp.String("y"))}
	}
	return b, spec
}

func (w *world) bind() {
	a := w.actor()
	b, spec := w.binding()
	_, from := w.m.exchanges[b.source]
	q, isQueue := w.m.queues[b.destination]
	_, isExchange := w.m.exchanges[b.destination]
	code := uint16(0)
	switch {
	case !from || b.toQueue && !isQueue || !b.toQueue && !isExchange:
		code = amqp.ReplyNotFound
	case b.toQueue && w.locked(a, q):
		code = amqp.ReplyResourceLocked
	}
	w.expect("bind", w.v.Bind(a, spec), code)
	if code == 0 {
		w.m.bindings[b] = true
	}
}

func (w *world) unbind() {
	a := w.actor()
	b, spec := w.binding()
	if w.flag("existing") && len(w.m.bindings) > 0 {
		list := slices.SortedFunc(maps.Keys(w.m.bindings), func(a, b modelBinding) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		b = rapid.SampledFrom(list).Draw(w.t, "binding")
		spec = BindingSpec{Source: b.source, Destination: b.destination, RoutingKey: b.key}
		if b.toQueue {
			spec.Kind = QueueResource
		}
		if b.x != "" {
			spec.Arguments = amqp.Table{field("x", amqp.String(b.x))}
		}
	}
	code := uint16(0)
	if w.m.bindings[b] && b.toQueue && w.locked(a, w.m.queues[b.destination]) {
		code = amqp.ReplyResourceLocked
	}
	w.expect("unbind", w.v.Unbind(a, spec), code)
	if code == 0 && w.m.bindings[b] {
		w.m.unbind(b)
	}
}

func (w *world) subscribe() {
	name := w.pick("name", queueNames)
	have, ok := w.m.queues[name]
	if !ok {
		return
	}
	q, err := w.v.UseQueue(actor{id: max(have.owner, 1)}, name)
	w.expect("use queue", err, 0)
	c := &queue.Consumer{ID: w.b.NextConsumerID(), Queue: q, Sink: &noSink{}}
	if err := q.Subscribe(c, nil, &queue.Wakes{}); err != nil {
		w.t.Fatal(err)
	}
	have.consumers++
	w.m.queues[name] = have
	w.consumers = append(w.consumers, c)
}

func (w *world) unsubscribe() {
	if len(w.consumers) == 0 {
		return
	}
	i := rapid.IntRange(0, len(w.consumers)-1).Draw(w.t, "consumer")
	c := w.consumers[i]
	w.consumers = slices.Delete(w.consumers, i, i+1)
	c.Queue.Unsubscribe(c.ID, &queue.Wakes{})
	q := w.m.queues[c.Queue.About().Name]
	q.consumers--
	w.m.queues[c.Queue.About().Name] = q
	if q.autoDelete && q.consumers == 0 {
		w.m.deleteQueue(c.Queue.About().Name)
	}
}

func (w *world) closeConnection() {
	a := w.actor()
	for _, c := range slices.Clone(w.consumers) {
		if c.Queue.About().Owner == a.id {
			c.Queue.Unsubscribe(c.ID, &queue.Wakes{})
		}
	}
	w.consumers = slices.DeleteFunc(w.consumers, func(c *queue.Consumer) bool { return c.Queue.About().Owner == a.id })
	w.v.ConnectionClosed(a.id)
	for name, q := range maps.Clone(w.m.queues) {
		if q.owner == a.id {
			w.m.deleteQueue(name)
		}
	}
}

// publish asks the long-lived router, whose cache must never be behind the topology.
func (w *world) publish() {
	x, key := w.pick("exchange", append([]string{""}, exchangeNames...)), w.pick("key", messageKeys)
	rt, err := w.router.Route([]byte(x), []byte(key), &amqp.Properties{})
	if _, ok := w.m.exchanges[x]; !ok && x != "" {
		w.expect("publish", err, amqp.ReplyNotFound)
		return
	}
	w.expect("publish", err, 0)
	got := []string{}
	for _, q := range rt.Queues {
		if w.v.queues[q.About().Name] != q {
			w.t.Fatalf("%q with key %q goes to a deleted queue %s", x, key, q.About().Name)
		}
		got = append(got, q.About().Name)
	}
	slices.Sort(got)
	if want := w.m.route(x, key); !slices.Equal(got, want) && len(got)+len(want) > 0 {
		w.t.Fatalf("%q with key %q goes to %v, the model says %v\n%s", x, key, got, want, w.m)
	}
}

func (w *world) compare(when string) {
	if got, want := snapshot(w.v).String(), w.m.String(); got != want {
		w.t.Fatalf("%s the vhost is\n%s\n\nthe model\n%s", when, got, want)
	}
}

// restart ends the broker in an orderly way or by a power cut, and opens it again.
func (w *world) restart() {
	if w.flag("power cut") {
		// The state as it is at this moment, with the journal's files cut.
		image := w.dir + "-image"
		if err := os.CopyFS(image, os.DirFS(w.dir)); err != nil {
			w.t.Fatal(err)
		}
		w.disk = w.disk.PowerCut(rand.New(rand.NewPCG(rapid.Uint64().Draw(w.t, "cut"), 1)))
		w.o.Storage.FS = w.disk
		_ = w.b.Close() // its files are dead
		if err := errors.Join(os.RemoveAll(w.dir), os.Rename(image, w.dir)); err != nil {
			w.t.Fatal(err)
		}
	} else if err := w.b.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.open()
	w.m = w.m.durable()
	w.consumers = nil
	w.compare("after a restart")
}

func (w *world) open() {
	b, err := Open(w.o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.b, w.v = b, b.VHost("/")
	w.router = w.v.NewRouter()
}

// TestTopologyAgainstAModel declares, binds and deletes at random, publishes through a
// router that caches, and restarts: what is durable must be what the model kept.
func TestTopologyAgainstAModel(t *testing.T) {
	root, n := t.TempDir(), 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		w := &world{t: rt, dir: filepath.Join(root, fmt.Sprint(n)), disk: faultfs.New(uint64(n)), m: newModel()}
		w.o = testOptions(t, w.dir, w.disk)
		w.o.Storage.OnFailure = func(error) {} // after a power cut
		w.open()
		defer func() { _ = w.b.Close() }()
		step := func(f func()) func(*rapid.T) {
			return func(*rapid.T) { f() }
		}
		rt.Repeat(map[string]func(*rapid.T){
			"declare exchange": step(w.declareExchange), "declare exchange too": step(w.declareExchange), "delete exchange": step(w.deleteExchange),
			"declare queue": step(w.declareQueue), "declare queue too": step(w.declareQueue), "delete queue": step(w.deleteQueue),
			"bind": step(w.bind), "bind too": step(w.bind), "bind as well": step(w.bind), "unbind": step(w.unbind),
			"subscribe": step(w.subscribe), "unsubscribe": step(w.unsubscribe), "close connection": step(w.closeConnection),
			"publish": step(w.publish), "publish too": step(w.publish), "publish as well": step(w.publish),
			"": func(*rapid.T) { w.compare("after an operation") },
		})
		w.restart()
	})
}
