package broker

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/auth"
	"github.com/settmq/settmq/exchange"
	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/queue/fifo"
	"github.com/settmq/settmq/storage"
	streams "github.com/settmq/settmq/stream"
)

// Options say how a broker runs.
type Options struct {
	Storage storage.Options
	Log     zerolog.Logger

	// Node is the broker's name in what it says of itself.
	Node string
	// EventVHost is the vhost in which there is an event exchange; "" for none. It must exist.
	EventVHost string

	// LoopbackUsers may only log in from this machine.
	LoopbackUsers []string
	// First is created when the data directory is new.
	First FirstRun
	// Limits keep one client from taking everything.
	Limits Limits
	// MessageMemory bounds what stored messages take in memory, in bytes, with their properties and all that belongs to them.
	MessageMemory uint64
	// MemoryWatermark is the size of the process, in bytes, beyond which publishers are
	// blocked; 0 for no limit.
	MemoryWatermark uint64
	// DiskFreeLimit is the free space on the data directory's file system, in bytes,
	// below which publishers are blocked; 0 for no limit.
	DiskFreeLimit uint64
	// DefaultQueueType is that of queues that name none, unless their vhost has one; "" is classic.
	DefaultQueueType string
	// ConsumerTimeout bounds how long consumers of quorum queues may hold a message if nobody says
	// otherwise; 0 for no limit.
	ConsumerTimeout time.Duration
	// Interceptors add to every message that a client publishes; none by default.
	Interceptors Interceptors
}

// FirstRun is what a new broker starts with: one user with all rights in one vhost. An
// empty user name creates the vhost only.
type FirstRun struct {
	VHost                  string
	User, Password         string
	Tags                   []string
	Configure, Write, Read string
}

// Limits bound what can be declared and tried; 0 is no limit.
type Limits struct {
	MaxVHosts            int
	MaxQueuesPerVHost    int
	MaxExchangesPerVHost int
	MaxBindings          int // from one exchange
	MaxFailedLogins      int // in a minute, of one user from one address that is not this machine's
}

// Broker is a running broker. All methods may be called from any goroutine.
type Broker struct {
	store        *storage.Store
	pager        *queue.Pager
	streams      *streams.Engine
	timers       *queue.Timers
	log          zerolog.Logger
	node         string
	limits       Limits
	interceptors Interceptors
	defaults     settingsDefaults
	defaultType  QueueType // of queues that name none, in vhosts that say nothing
	users        *Users
	alarms       Alarms

	lastConsumer   atomic.Uint64
	lastConnection atomic.Uint64
	repliesDropped atomic.Uint64
	connections    connections
	churn          churn
	watch          watch
	stats          messageTotals
	totals         publishTotals

	mu      sync.RWMutex // before every vhost's lock
	vhosts  map[string]*VHost
	past    [len(queueTypes)]QueueTotals // of queues whose vhost is gone; guarded by mu
	globals map[string]json.RawMessage   // the global parameters

	sampler *sampler
	events  *events // nil: there is no event exchange
	windows windows
}

// pagerWorkers read pages in parallel; a disk gains little from more.
const pagerWorkers = 2

// Open recovers the data directory, or makes a new one, and starts the broker. The errors
// of [storage.Open] come through.
func Open(o Options) (*Broker, error) {
	b := &Broker{
		log: o.Log, node: o.Node, limits: o.Limits, interceptors: o.Interceptors, defaults: settingsDefaults{ConsumerTimeout: o.ConsumerTimeout},
		vhosts: make(map[string]*VHost), globals: make(map[string]json.RawMessage),
	}
	var ok bool
	if b.defaultType, ok = parseQueueType(cmp.Or(o.DefaultQueueType, ClassicQueue.String())); !ok {
		return nil, fmt.Errorf("unsupported queue type '%s'", o.DefaultQueueType)
	}
	so := o.Storage
	space := so.OnSpace
	so.OnSpace = func(low bool) {
		b.alarms.set(alarmStorage, low)
		if space != nil {
			space(low)
		}
	}
	store, err := storage.Open(so)
	if err != nil {
		return nil, err
	}
	b.store = store
	b.pager = queue.NewPager(pagerWorkers)
	b.timers = queue.NewTimers()
	b.users = newUsers(store, o.LoopbackUsers, o.Limits.MaxFailedLogins)
	b.users.tell = b.Event
	err = b.openStreams(so)
	if err == nil {
		err = b.load(o.First)
	}
	if err == nil {
		err = b.streams.Start()
	}
	if err != nil {
		b.timers.Close()
		b.pager.Close()
		return nil, errors.Join(err, store.Close())
	}
	if o.EventVHost != "" {
		if err := b.addEventExchange(o.EventVHost); err != nil {
			b.pager.Close()
			return nil, errors.Join(err, store.Close())
		}
	}
	b.timers.Start()
	startSampler(b, o)
	return b, nil
}

// Close stops the deliveries, writes everything that must last and closes the store. The
// connections must be gone.
func (b *Broker) Close() error {
	b.sampler.stop()
	b.events.close()
	b.timers.Close()
	b.pager.Close()
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, v := range b.vhosts {
		v.mu.RLock()
		for _, q := range v.queues {
			q.Stop()
		}
		v.mu.RUnlock()
	}
	return errors.Join(b.streams.Close(), b.store.Close())
}

// load brings topology and users back, or creates the first ones.
func (b *Broker) load(first FirstRun) error {
	if err := b.users.load(); err != nil {
		return err
	}
	err := b.store.Scan([]byte{keyVHost}, func(k, value []byte) error {
		names, err := metaNames(k, 1)
		if err != nil {
			return err
		}
		v := newVHost(b, names[0])
		b.vhosts[names[0]] = v
		return decodeRecord(k, value, &v.metadata)
	})
	if err != nil {
		return fmt.Errorf("vhosts: %w", err)
	}
	ran, err := b.ranBefore()
	if err != nil {
		return err
	}
	if !ran {
		return b.firstRun(first)
	}
	for _, l := range []struct {
		kind  byte
		names int // in the key
		what  string
		load  func(names []string, key, value []byte) error
	}{
		{keyGlobalParameter, 1, "global parameters", b.loadGlobalParameter},
		{keyParameter, 3, "parameters", b.loadParameter},
		{keyVHostLimits, 1, "limits of vhosts", b.loadVHostLimits},
		{keyPolicy, 2, "policies", b.loadPolicy(UserPolicy)},
		{keyOperatorPolicy, 2, "operator policies", b.loadPolicy(OperatorPolicy)},
		{keyExchange, 2, "exchanges", b.loadExchange},
		{keyQueue, 2, "queues", b.loadQueue},
		{keyBinding, 6, "bindings", b.loadBinding},
	} {
		err := b.store.Scan([]byte{l.kind}, func(k, v []byte) error {
			names, err := metaNames(k, l.names)
			if err != nil {
				return err
			}
			return l.load(names, k, v)
		})
		if err != nil {
			return fmt.Errorf("%s: %w", l.what, err)
		}
	}
	for _, v := range b.vhosts {
		for _, q := range v.queues {
			v.setWindowLocked(q) // it may also be one that a policy asked for just before the end
		}
	}
	return nil
}

// newStore makes a store for what is about to be declared, ahead of its record: a store without an owner is harmless.
func (b *Broker) newStore() (id uint64) {
	id = b.store.NextID()
	b.store.Apply(storage.Change{CreateQueues: []uint64{id}})
	return id
}

// ranMark is there from the first run on: what an operator deletes later must not come
// back, least of all a user with a known password.
var ranMark = metaKey(keySetting, "ran")

func (b *Broker) ranBefore() (ran bool, err error) {
	ran = len(b.vhosts) > 0
	err = b.store.Scan(ranMark, func(k, _ []byte) error {
		ran = true
		return nil
	})
	return ran, err
}

// firstRun makes the first vhost and user and the cluster's id, all or none.
func (b *Broker) firstRun(f FirstRun) error {
	b.vhosts[f.VHost] = newVHost(b, f.VHost)
	id, err := json.Marshal(clusterIDPrefix + rand.Text()[:22])
	if err != nil {
		return err
	}
	b.globals[clusterID] = id
	c := storage.Change{Put: []storage.KV{
		{Key: metaKey(keyGlobalParameter, clusterID), Value: encodeRecord(json.RawMessage(id))},
		{Key: metaKey(keyVHost, f.VHost), Value: encodeRecord(VHostMetadata{})},
		{Key: ranMark, Value: encodeRecord(struct{}{})},
	}}
	if f.User == "" {
		return b.store.Apply(c).Wait()
	}
	hash, err := auth.HashPassword(f.Password)
	if err != nil {
		return fmt.Errorf("default user '%s': %w", f.User, err)
	}
	p, err := auth.CompilePermissions(f.Configure, f.Write, f.Read)
	if err != nil {
		return fmt.Errorf("default permissions: %w", err)
	}
	return b.users.begin([]usersChange{
		b.users.put(&auth.User{Name: f.User, PasswordHash: hash, Algorithm: auth.SHA256, Tags: f.Tags}),
		b.users.grant(f.User, f.VHost, p),
	}, c).Wait()
}

func (b *Broker) vhostOf(key []byte, name string) (*VHost, error) {
	if v := b.vhosts[name]; v != nil {
		return v, nil
	}
	return nil, fmt.Errorf("metadata record %q belongs to no vhost", key)
}

func (b *Broker) loadGlobalParameter(names []string, key, value []byte) error {
	var raw json.RawMessage
	err := decodeRecord(key, value, &raw)
	b.globals[names[0]] = raw
	return err
}

func (b *Broker) loadParameter(names []string, key, value []byte) error {
	v, err := b.vhostOf(key, names[0])
	if err != nil {
		return err
	}
	var raw json.RawMessage
	err = decodeRecord(key, value, &raw)
	v.parameters[parameterID{names[1], names[2]}] = raw
	return err
}

func (b *Broker) loadVHostLimits(names []string, key, value []byte) error {
	v, err := b.vhostOf(key, names[0])
	if err != nil {
		return err
	}
	return decodeRecord(key, value, &v.limits)
}

func (b *Broker) loadPolicy(kind PolicyKind) func(names []string, key, value []byte) error {
	return func(names []string, key, value []byte) error {
		v, err := b.vhostOf(key, names[0])
		if err != nil {
			return err
		}
		p, err := decodePolicy(names[1], key, value)
		if err != nil {
			return err
		}
		v.policies = v.policies.with(kind, p.Name, p)
		return nil
	}
}

func (b *Broker) loadExchange(names []string, key, value []byte) error {
	v, err := b.vhostOf(key, names[0])
	if err != nil {
		return err
	}
	var r exchangeRecord
	if err := decodeRecord(key, value, &r); err != nil {
		return err
	}
	if !exchange.Known(r.Type) {
		return fmt.Errorf("exchange '%s' in vhost '%s' has the unknown type '%s'", names[1], names[0], r.Type)
	}
	args, err := decodeArguments(r.Arguments)
	if err != nil {
		return fmt.Errorf("exchange '%s' in vhost '%s': %w", names[1], names[0], err)
	}
	x := &Exchange{Name: names[1], Type: r.Type, Durable: true, AutoDelete: r.AutoDelete, Internal: r.Internal, Arguments: args, storeID: r.StoreID}
	if r.StoreID != 0 && b.store.Queue(r.StoreID) == nil {
		return fmt.Errorf("exchange '%s' in vhost '%s' has no store %d", names[1], names[0], r.StoreID)
	}
	v.addExchangeLocked(x)
	if x.history != nil {
		if err := x.history.load(); err != nil {
			return fmt.Errorf("history of exchange '%s' in vhost '%s': %w", names[1], names[0], err)
		}
	}
	return nil
}

func (b *Broker) loadQueue(names []string, key, value []byte) error {
	v, err := b.vhostOf(key, names[0])
	if err != nil {
		return err
	}
	var r queueRecord
	if err := decodeRecord(key, value, &r); err != nil {
		return err
	}
	args, err := decodeArguments(r.Arguments)
	if err != nil {
		return fmt.Errorf("queue '%s' in vhost '%s': %w", names[1], names[0], err)
	}
	d := QueueDeclare{Name: names[1], Durable: true, AutoDelete: r.AutoDelete, Arguments: args}
	if typeOf(args) == StreamQueue {
		s, err := v.openStream(r.ID, d, nil)
		if err != nil {
			return fmt.Errorf("stream '%s' in vhost '%s': %w", names[1], names[0], err)
		}
		v.addQueueLocked(s, nil)
		return nil
	}
	o := v.queueOptions(r.ID, d)
	if o.Store = b.store.Queue(r.ID); o.Store == nil {
		return fmt.Errorf("queue '%s' in vhost '%s' has no messages file %d", names[1], names[0], r.ID)
	}
	var w *queueWindow
	if r.WindowID != 0 {
		if b.store.Queue(r.WindowID) == nil {
			return fmt.Errorf("queue '%s' in vhost '%s' has no file %d of what it remembers", names[1], names[0], r.WindowID)
		}
		w = &queueWindow{v.newWindow(r.WindowID, queue.WindowLimits{}), r.WindowID} // load sets its limits
	}
	v.addQueueLocked(queue.New(o), w)
	return nil
}

func (b *Broker) loadBinding(names []string, key, value []byte) error {
	v, err := b.vhostOf(key, names[0])
	if err != nil {
		return err
	}
	var r bindingRecord
	if err := decodeRecord(key, value, &r); err != nil {
		return err
	}
	if r.Arguments == nil {
		r.Arguments = []byte(names[5])
	}
	args, err := decodeArguments(r.Arguments)
	if err != nil {
		return fmt.Errorf("binding %q: %w", key, err)
	}
	kind := ExchangeResource
	if names[2] == "q" {
		kind = QueueResource
	}
	bind, refused := v.resolveLocked(System{}, BindingSpec{Source: names[1], Destination: names[3], Kind: kind, RoutingKey: names[4], Arguments: args})
	if refused != nil {
		return fmt.Errorf("binding %q: %w", key, refused)
	}
	v.addBindingLocked(bind.id(), bind)
	return nil
}

// CreateVHost makes a vhost; an existing one is returned as it is.
func (b *Broker) CreateVHost(name string) (*VHost, error) {
	b.mu.Lock()
	if v := b.vhosts[name]; v != nil {
		b.mu.Unlock()
		return v, nil
	}
	if limit := b.limits.MaxVHosts; limit > 0 && len(b.vhosts) >= limit {
		b.mu.Unlock()
		return nil, fmt.Errorf("cannot create vhost '%s': vhost limit of %d is reached", name, limit)
	}
	v := newVHost(b, name)
	b.vhosts[name] = v
	b.Event("vhost.created", textField("name", name))
	ticket := b.store.Apply(storage.Change{Put: []storage.KV{{Key: metaKey(keyVHost, name), Value: encodeRecord(VHostMetadata{})}}})
	b.mu.Unlock()
	return v, ticket.Wait()
}

// VHost returns the vhost of that name, or nil.
func (b *Broker) VHost(name string) *VHost {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.vhosts[name]
}

// VHosts returns all vhosts, by name.
func (b *Broker) VHosts() []*VHost {
	b.mu.RLock()
	defer b.mu.RUnlock()
	list := make([]*VHost, 0, len(b.vhosts))
	for _, v := range b.vhosts {
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b *VHost) int { return cmp.Compare(a.name, b.name) })
	return list
}

// Node is the broker's name.
func (b *Broker) Node() string { return b.node }

// Users returns the accounts and rights.
func (b *Broker) Users() *Users { return b.users }

// Alarms returns the alarms that block publishers.
func (b *Broker) Alarms() *Alarms { return &b.alarms }

// Store returns the store, for the commit budget of publishers and the barrier of
// transactions.
func (b *Broker) Store() *storage.Store { return b.store }

// NextConsumerID and NextConnectionID give names that are unique while the broker runs.
func (b *Broker) NextConsumerID() fifo.ConsumerID { return fifo.ConsumerID(b.lastConsumer.Add(1)) }

// NextConnectionID gives a connection its name; never 0.
func (b *Broker) NextConnectionID() uint64 { return b.lastConnection.Add(1) }

// Queues returns the queues of the vhost, in no order.
func (v *VHost) Queues() []Queue {
	v.mu.RLock()
	defer v.mu.RUnlock()
	list := make([]Queue, 0, len(v.queues))
	for _, q := range v.queues {
		list = append(list, q)
	}
	return list
}

// keepers returns the queues that keep bodies in memory and can drop them: those that last, and
// those in which delayed messages wait.
func (v *VHost) keepers() (list []*queue.Queue) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	for _, q := range v.queues {
		if c, ok := q.(*queue.Queue); ok && c.Lasts() {
			list = append(list, c)
		}
	}
	for _, x := range v.exchanges {
		if x.delayed != nil && x.delayed.Lasts() {
			list = append(list, x.delayed)
		}
	}
	return list
}

// Enter lets a connection into a vhost: the vhost exists, neither it nor the user has too many
// connections, and the user has rights in it. It counts the connection until Leave.
func (b *Broker) Enter(user, vhost string) (*VHost, *amqp.Error) {
	v := b.VHost(vhost)
	if v == nil {
		return nil, amqp.NotAllowed("vhost %s not found", vhost)
	}
	if err := v.enter(user); err != nil {
		return nil, err
	}
	err := b.users.enter(user)
	if err == nil {
		if b.users.MayEnter(user, vhost) {
			return v, nil
		}
		b.users.leave(user)
		err = amqp.NotAllowed("access to vhost '%s' refused for user '%s'", vhost, user)
	}
	v.leave()
	return nil, err
}

// Leave is what every Enter that succeeded must be followed by, once.
func (b *Broker) Leave(user string, v *VHost) {
	v.leave()
	b.users.leave(user)
}
