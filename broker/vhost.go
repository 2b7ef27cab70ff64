package broker

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/exchange"
	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/storage"
)

// VHost is a namespace of exchanges, queues and bindings. All methods may be called from
// any goroutine; those that change something durable return after the change is on disk.
type VHost struct {
	broker *Broker
	name   string

	mu          sync.RWMutex // before every queue's lock; never held across a disk or a socket
	exchanges   map[string]*Exchange
	queues      map[string]Queue
	inbound     map[exchange.Destination]map[bindingID]*Binding // by destination
	exclusive   map[uint64]map[Queue]struct{}                   // by owning connection
	last        *storage.Ticket                                 // of the newest change that is to last
	metadata    VHostMetadata
	policies    *policySet
	policyOf    map[Queue]*EffectivePolicy // of the queues that a policy matches
	windowOf    map[Queue]*queueWindow     // of the queues that have one
	parameters  map[parameterID]json.RawMessage
	limits      limits
	full        atomic.Bool                  // publishers are held back, by MaxMessageBytes
	connections int                          // that are in the vhost
	gone        bool                         // it was deleted: nothing can be made in it
	past        [len(queueTypes)]QueueTotals // of deleted queues
	stats       messageTotals

	defaultExchange *Exchange // immutable

	// once is held while something is published through a window. It comes before mu.
	once sync.Mutex

	replies    replies
	ownRouters sync.Pool   // of *Router, for messages that the broker publishes itself
	tracing    atomic.Bool // the firehose is on

	// generation rises with every change of the topology: cached routes of an older
	// generation are stale.
	generation atomic.Uint64

	// configuring is held by the one who makes queues and exchanges obey changed policies. It
	// comes before mu.
	configuring sync.Mutex
}

// Exchange is a declared exchange. Its properties do not change; its bindings and what
// policies say of it are guarded by the vhost's lock.
type Exchange struct {
	Name       string
	Type       string
	Durable    bool
	AutoDelete bool
	Internal   bool
	Arguments  amqp.Table
	policy     *EffectivePolicy // nil for none
	alternate  string           // name of the alternate exchange, "" for none
	router     exchange.Router
	history    *history      // of type x-recent-history
	delayed    *queue.Queue  // of type x-delayed-message: messages whose time has not come
	window     *queue.Window // of type x-message-deduplication
	storeID    uint64        // of the store of one of them, 0 if it has none
	stats      *exchangeTotals
	outbound   map[bindingID]*Binding
}

// Binding leads from an exchange to a queue or another exchange.
type Binding struct {
	Source      *Exchange
	Destination exchange.Destination // Queue or *Exchange
	RoutingKey  string
	Arguments   amqp.Table
}

// bindingID is what makes two bindings the same: RabbitMQ compares source, destination,
// routing key and the arguments sorted by key, with their types.
type bindingID struct {
	source, destination string
	toQueue             bool
	key, arguments      string
}

// defaultExchanges are there in every vhost (AMQP 0-9-1 §3.1.3 and RabbitMQ's own).
var defaultExchanges = []Exchange{
	{Name: "", Type: "direct"},
	{Name: "amq.direct", Type: "direct"},
	{Name: "amq.fanout", Type: "fanout"},
	{Name: "amq.topic", Type: "topic"},
	{Name: "amq.headers", Type: "headers"},
	{Name: "amq.match", Type: "headers"},
	{Name: traceExchange, Type: "topic", Internal: true},
}

func newVHost(b *Broker, name string) *VHost {
	v := &VHost{
		broker:     b,
		name:       name,
		exchanges:  make(map[string]*Exchange),
		queues:     make(map[string]Queue),
		inbound:    make(map[exchange.Destination]map[bindingID]*Binding),
		exclusive:  make(map[uint64]map[Queue]struct{}),
		policies:   &policySet{},
		policyOf:   make(map[Queue]*EffectivePolicy),
		windowOf:   make(map[Queue]*queueWindow),
		parameters: make(map[parameterID]json.RawMessage),
	}
	v.ownRouters.New = func() any { return v.NewRouter() }
	for _, d := range defaultExchanges {
		v.addExchangeLocked(&Exchange{Name: d.Name, Type: d.Type, Internal: d.Internal, Durable: true})
	}
	v.defaultExchange = v.exchanges[""]
	return v
}

// Name returns the vhost's name.
func (v *VHost) Name() string { return v.name }

// Broker returns the broker that the vhost belongs to.
func (v *VHost) Broker() *Broker { return v.broker }

// changedLocked marks every cached route stale.
func (v *VHost) changedLocked() { v.generation.Add(1) }

// routing is what exchanges know of the broker.
var routing = exchange.Environment{
	Name: func(d exchange.Destination) string {
		switch d := d.(type) {
		case Queue:
			return "queue " + d.About().Name
		case *Exchange:
			return "exchange " + d.Name
		}
		panic(fmt.Sprintf("binding to a %T", d))
	},
	Random: rand.IntN,
}

func (v *VHost) addExchangeLocked(x *Exchange) {
	r, ok := exchange.New(x.Type, x.Arguments, routing)
	if !ok {
		panic("exchange of unknown type " + x.Type) // checked before
	}
	x.router = r
	x.outbound = make(map[bindingID]*Binding)
	if x.Type == exchange.Deduplication {
		x.window = v.newWindow(x.storeID, windowLimits(x.Arguments, nil))
	}
	x.stats = new(exchangeTotals)
	x.obey(v.policies.forExchange(x.Name))
	if x.Type == exchange.RecentHistory {
		x.history = newHistory(x.Arguments, v.broker.store.Queue(x.storeID))
	}
	if x.Type == exchange.Delayed {
		x.delayed = v.newDelayed(x)
	}
	v.exchanges[x.Name] = x
	v.changedLocked()
}

// addQueueLocked adds a queue with its window, which may be nil.
func (v *VHost) addQueueLocked(q Queue, w *queueWindow) {
	d := q.About()
	v.queues[d.Name] = q
	if d.Exclusive() {
		owned := v.exclusive[d.Owner]
		if owned == nil {
			owned = make(map[Queue]struct{})
			v.exclusive[d.Owner] = owned
		}
		owned[q] = struct{}{}
	}
	if e := v.policies.forQueue(d.Name, typeOf(d.Arguments)); e != nil {
		v.policyOf[q] = e
	}
	if w != nil {
		v.windowOf[q] = w
	}
	v.changedLocked()
}

func (b *Binding) id() bindingID {
	id := bindingID{source: b.Source.Name, key: b.RoutingKey}
	switch d := b.Destination.(type) {
	case Queue:
		id.destination, id.toQueue = d.About().Name, true
	case *Exchange:
		id.destination = d.Name
	}
	if len(b.Arguments) > 0 {
		id.arguments = string(b.Arguments.Sorted().Append(nil))
	}
	return id
}

func (v *VHost) addBindingLocked(id bindingID, b *Binding) {
	b.Source.outbound[id] = b
	in := v.inbound[b.Destination]
	if in == nil {
		in = make(map[bindingID]*Binding)
		v.inbound[b.Destination] = in
	}
	in[id] = b
	b.Source.router.Bind(b.RoutingKey, b.Arguments, b.Destination)
	v.changedLocked()
	v.bindingChanged("binding.created", id, b)
}

// durable reports whether a binding lasts: both its ends do.
func (b *Binding) durable() bool {
	if !b.Source.Durable {
		return false
	}
	switch d := b.Destination.(type) {
	case Queue:
		return d.Lasts()
	case *Exchange:
		return d.Durable
	}
	return false
}

func (v *VHost) bindingKey(id bindingID) []byte {
	kind := "e"
	if id.toQueue {
		kind = "q"
	}
	return metaKey(keyBinding, v.name, id.source, kind, id.destination, id.key, id.keyArguments())
}

// longArguments is the length from which encoded arguments do not stand in the key of a
// binding's record: the state database takes keys of 65000 bytes at most.
const longArguments = 1 << 10

// keyArguments are the arguments as they stand in the key: whole, or a digest of many.
func (id bindingID) keyArguments() string {
	if len(id.arguments) < longArguments {
		return id.arguments
	}
	sum := sha256.Sum256([]byte(id.arguments))
	return string(sum[:])
}

// record is what is stored beside the key.
func (id bindingID) record() bindingRecord {
	if len(id.arguments) < longArguments {
		return bindingRecord{}
	}
	return bindingRecord{Arguments: []byte(id.arguments)}
}

// removeBindingLocked takes a binding away and, with the last one of an auto-delete
// exchange, that exchange too. What was durable is added to c.
func (v *VHost) removeBindingLocked(id bindingID, b *Binding, c *storage.Change) {
	delete(b.Source.outbound, id)
	if in := v.inbound[b.Destination]; in != nil {
		delete(in, id)
		if len(in) == 0 {
			delete(v.inbound, b.Destination)
		}
	}
	b.Source.router.Unbind(b.RoutingKey, b.Arguments, b.Destination)
	v.bindingChanged("binding.deleted", id, b)
	if b.durable() {
		c.Delete = append(c.Delete, v.bindingKey(id))
	}
	v.changedLocked()
	if b.Source.AutoDelete && len(b.Source.outbound) == 0 && v.exchanges[b.Source.Name] == b.Source {
		v.removeExchangeLocked(b.Source, c)
	}
}

// removeExchangeLocked takes an exchange away with every binding from and to it.
func (v *VHost) removeExchangeLocked(x *Exchange, c *storage.Change) {
	delete(v.exchanges, x.Name)
	v.broker.Event("exchange.deleted", textField("name", x.Name), textField("vhost", v.name))
	if x.Durable {
		c.Delete = append(c.Delete, metaKey(keyExchange, v.name, x.Name))
		if x.storeID != 0 {
			c.DeleteQueues = append(c.DeleteQueues, x.storeID)
		}
	}
	if x.delayed != nil {
		_, _, _ = x.delayed.Delete(false, false) // what waits is cancelled
	}
	if x.window != nil {
		v.broker.windows.remove(x.window)
	}
	for id, b := range x.outbound {
		v.removeBindingLocked(id, b, c)
	}
	v.removeInboundLocked(x, c)
	v.changedLocked()
}

func (v *VHost) removeInboundLocked(d exchange.Destination, c *storage.Change) {
	for id, b := range v.inbound[d] {
		v.removeBindingLocked(id, b, c)
	}
}

// removeQueueLocked takes a queue that is already marked deleted out of the topology.
func (v *VHost) removeQueueLocked(q Queue, c *storage.Change) {
	d := q.About()
	delete(v.queues, d.Name)
	v.removedLocked(q)
	v.broker.churn.queuesDeleted.Add(1)
	v.broker.Event("queue.deleted", textField("name", d.Name), textField("vhost", v.name), textField("type", typeOf(d.Arguments).module()))
	delete(v.policyOf, q)
	if d.Exclusive() {
		delete(v.exclusive[d.Owner], q)
		if len(v.exclusive[d.Owner]) == 0 {
			delete(v.exclusive, d.Owner)
		}
	}
	v.removeInboundLocked(q, c)
	if q.Lasts() {
		c.Delete = append(c.Delete, metaKey(keyQueue, v.name, d.Name))
		c.DeleteQueues = append(c.DeleteQueues, d.ID)
	}
	if w := v.windowOf[q]; w != nil {
		delete(v.windowOf, q)
		v.broker.windows.remove(w.Window)
		if w.storeID != 0 {
			c.DeleteQueues = append(c.DeleteQueues, w.storeID)
		}
	}
	v.changedLocked()
}

// apply hands a change to the store. Call it with the lock held, so that changes reach the
// journal in the order in which they happened, and wait for the ticket without it.
func (v *VHost) applyLocked(c storage.Change) *storage.Ticket {
	if v.gone {
		return v.last
	}
	if len(c.Put) == 0 && len(c.Delete) == 0 && len(c.CreateQueues) == 0 && len(c.DeleteQueues) == 0 {
		return nil
	}
	v.last = v.broker.store.Apply(c)
	return v.last
}

// wait returns when the change behind t is on disk. A nil ticket stands for a change that
// nothing durable took part in. Operations that find their work done already wait for the
// newest change of the vhost: it may have been done a moment ago and not be on disk yet.
func wait(t *storage.Ticket) *amqp.Error {
	if t == nil {
		return nil
	}
	if err := t.Wait(); err != nil {
		return amqp.InternalError("the change could not be stored: %v", err)
	}
	return nil
}
