package broker

import (
	"slices"
	"sync"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/exchange"
	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/storage"
)

// maxCachedRoutes bounds what one channel remembers; a publisher with more keys than that
// in use starts over.
const maxCachedRoutes = 512

// Route is where a publish goes. It is valid for one publish, or for as long as its
// [Router] returns it.
type Route struct {
	Exchange   string // as strings that messages share
	RoutingKey string
	Topic      bool     // the exchange is of type topic: topic permissions apply
	ExtraKeys  []string // from the CC and BCC headers
	Queues     []Queue
	lasting    int32 // how many of Queues and histories store what is persistent
	keeping    int32 // and how many store everything
	streams    int32 // of them those that are streams
	histories  []*history
	windows    []window  // of what is on the way and deduplicates
	remembers  bool      // one of windows stores keys
	from       *Exchange // where the way begins
	vhost      *VHost
	without    func(Queue) bool // queues that are left out of the way
	replies    []*ReplyConsumer
	address    bool // a key is a reply address, whether or not its consumer is still there
	counts     *PublishStats
}

// Unroutable reports whether a mandatory message must be returned. A reply address counts as
// a destination even if the requester is gone.
func (rt *Route) Unroutable() bool { return len(rt.Queues) == 0 && !rt.address }

// Clone returns a route that outlives the next use of its Router.
func (rt *Route) Clone() Route {
	c := *rt
	c.Queues = slices.Clone(rt.Queues)
	c.histories = slices.Clone(rt.histories)
	c.windows = slices.Clone(rt.windows)
	c.replies = slices.Clone(rt.replies)
	return c
}

// Router finds routes for one channel and remembers them until the topology changes. It
// belongs to one goroutine.
type Router struct {
	vhost      *VHost
	generation uint64
	cache      map[string]*Route
	cacheKey   []byte
	walk       walk
	extra      Route // last route that was not worth remembering

	mu          sync.Mutex      // after a channel's, before the exchanges'
	counts      []*PublishStats // guarded by mu, for all but the owner, as all that follows
	gone        ExchangeStats   // of counters that were let go
	confirmed   uint64          // confirms that belong to publishes not counted yet
	confirming  bool            // the channel is in confirm mode
	goneAwaited uint64
	goneSizes   MessageSizes
	told        published
}

// NewRouter returns a router for the vhost.
func (v *VHost) NewRouter() *Router {
	return &Router{vhost: v, cache: make(map[string]*Route)}
}

// Route finds the queues for a message, each at most once however many bindings lead to
// it. Errors: 404 no such exchange, 403
// internal exchange, 406 CC or BCC of a wrong type.
func (r *Router) Route(exchangeName, routingKey []byte, p *amqp.Properties) (*Route, *amqp.Error) {
	if g := r.vhost.generation.Load(); g != r.generation || len(r.cache) > maxCachedRoutes {
		clear(r.cache)
		r.generation = g
	}
	var keys []string
	if p.Has(amqp.PropHeaders) {
		var err *amqp.Error
		if keys, err = senderSelected(p); err != nil {
			r.vhost.mu.RLock()
			defer r.vhost.mu.RUnlock()
			if _, missing := r.vhost.publishableLocked(string(exchangeName)); missing != nil {
				return nil, missing
			}
			return nil, err
		}
	}
	if len(keys) == 0 && len(exchangeName) == 0 {
		if c, ok := r.vhost.replyConsumer(routingKey); ok {
			return r.reply(c, routingKey), nil
		}
	}
	r.cacheKey = append(append(append(r.cacheKey[:0], byte(len(exchangeName))), exchangeName...), routingKey...)
	if len(keys) == 0 {
		if rt, ok := r.cache[string(r.cacheKey)]; ok {
			return rt, nil
		}
	}
	return r.find(string(exchangeName), string(routingKey), keys, p)
}

// reply is the route of a direct reply. It is looked up every time: requesters come and go
// faster than the topology changes.
func (r *Router) reply(c *ReplyConsumer, routingKey []byte) *Route {
	rt := &r.extra
	*rt = Route{Queues: rt.Queues[:0], replies: rt.replies[:0], address: true, counts: r.countsFor(r.vhost.defaultExchange)}
	if c == nil {
		rt.RoutingKey = string(routingKey)
		return rt
	}
	rt.RoutingKey = c.address
	rt.replies = append(rt.replies, c)
	return rt
}

func (r *Router) find(exchangeName, routingKey string, extraKeys []string, p *amqp.Properties) (*Route, *amqp.Error) {
	v := r.vhost
	v.mu.RLock()
	defer v.mu.RUnlock()
	x, err := v.publishableLocked(exchangeName)
	if err != nil {
		return nil, err
	}
	rt := r.evaluateLocked(x, routingKey, extraKeys, p)
	rt.counts = r.countsFor(x)
	if len(extraKeys) == 0 && r.walk.cacheable {
		remembered := rt.Clone()
		rt = &remembered
		r.cache[string(r.cacheKey)] = rt
	}
	return rt, nil
}

// publishableLocked is the exchange of that name, if clients may publish to it.
func (v *VHost) publishableLocked(name string) (*Exchange, *amqp.Error) {
	x, ok := v.exchanges[name]
	switch {
	case !ok:
		return nil, v.noSuch(ExchangeResource, name)
	case x.Internal:
		return nil, amqp.AccessRefused("cannot publish to internal %s", v.resource(ExchangeResource, x.Name))
	}
	return x, nil
}

// evaluateLocked finds the way from x on. The result is valid until the next use of r.
func (r *Router) evaluateLocked(x *Exchange, routingKey string, extraKeys []string, p *amqp.Properties) *Route {
	w := &r.walk
	w.reset(r.vhost, routingKey, extraKeys, p)
	w.follow(x)
	w.sift()
	rt := &r.extra
	*rt = Route{
		Exchange: x.Name, RoutingKey: routingKey, Topic: x.Type == "topic", ExtraKeys: extraKeys,
		Queues: append(rt.Queues[:0], w.queues.list...), replies: append(rt.replies[:0], w.replies.list...), address: w.address,
		histories: append(rt.histories[:0], w.histories...), windows: append(rt.windows[:0], w.windows...), from: x, vhost: r.vhost, without: w.without,
	}
	rt.countStores()
	return rt
}

// countStores fills in what stores the message.
func (rt *Route) countStores() {
	rt.streams, rt.keeping, rt.lasting = 0, 0, 0
	for _, q := range rt.Queues {
		switch {
		case isStream(q):
			rt.streams++
			rt.keeping++
		case keepsTransient(q):
			rt.keeping++
		case q.Lasts():
			rt.lasting++
		}
	}
	for _, h := range rt.histories {
		if h.store != nil {
			rt.lasting++
		}
	}
	rt.remembers = slices.ContainsFunc(rt.windows, window.Lasts)
}

// Stores reports whether a message with this delivery mode will be written to disk.
func (rt *Route) Stores(m *storage.Message) bool {
	return rt.targets(m) > 0 || rt.remembers && !m.Transient
}

// Streams reports whether one of the queues is a stream.
func (rt *Route) Streams() bool { return rt.streams > 0 }

// Reaches reports whether one of the queues is s.
func (rt *Route) Reaches(s queue.Source) bool {
	for _, q := range rt.Queues {
		if queue.Source(q) == s {
			return true
		}
	}
	return false
}

// targets is how many queues write the message to disk.
func (rt *Route) targets(m *storage.Message) int32 {
	if m.Transient {
		return rt.keeping
	}
	return rt.keeping + rt.lasting
}

// Publish puts m in every queue of the route. It returns false if one of them refused it: then
// no confirm comes, and the publisher is told at once. Otherwise, if [Route.Stores], the confirm
// comes from the store; else the caller may confirm it when Publish returns.
func (rt *Route) Publish(m *storage.Message, w *queue.Wakes) (accepted bool) {
	if len(rt.windows) > 0 {
		return rt.publishOnce(m, w)
	}
	targets := rt.targets(m)
	return rt.put(m, targets, targets > 0, nil, w)
}

// put puts m in every queue of the route. targets are those of m, counting what p adds if that is not nil; told says that
// the store has to confirm.
func (rt *Route) put(m *storage.Message, targets int32, told bool, p *passage, w *queue.Wakes) (accepted bool) {
	stored := m
	if m.Transient && rt.keeping > rt.streams {
		stored = lasting(m)
	}
	if p != nil {
		p.begin(stored)
	}
	if told {
		// One more than the queues, dropped below: the confirm must not go out, nor the
		// count reach zero, before the last queue has the message.
		stored.Targets.Store(targets + 1)
	}
	accepted = true
	for _, h := range rt.histories {
		h.record(m)
	}
	for _, q := range rt.Queues {
		copied := m
		if stored != m && (keepsTransient(q) || isStream(q)) {
			copied = stored
		}
		if !q.Publish(copied, w) {
			accepted = false
			if p != nil {
				p.refused = append(p.refused, q)
			}
		}
	}
	for _, c := range rt.replies {
		c.reply(m, w)
	}
	if p != nil {
		p.settle(stored, accepted)
	}
	if told {
		stored.Rejected = !accepted
		stored.Done()
	}
	return accepted
}

// walk is one evaluation of the exchanges that a message passes, breadth first, each
// exchange once; cycles are harmless.
type walk struct {
	vhost      *VHost
	message    exchange.Message
	keys       []string
	props      *amqp.Properties
	hasHeaders bool                // message.Headers is filled in
	cacheable  bool                // the result holds for every message with these keys
	exchanges  distinct[*Exchange] // visited and to visit
	matched    []exchange.Destination
	queues     distinct[Queue]
	histories  []*history // of the exchanges visited
	windows    []window
	knows      func(window) bool // a duplicate gets no further; nil: nothing is one
	without    func(Queue) bool  // queues that are left out; nil: none
	replies    distinct[*ReplyConsumer]
	address    bool // a key is a reply address
}

func (w *walk) reset(v *VHost, routingKey string, extraKeys []string, p *amqp.Properties) {
	w.vhost, w.props = v, p
	w.keys = append(append(w.keys[:0], routingKey), extraKeys...)
	w.hasHeaders, w.cacheable = false, true
	w.message = exchange.Message{Properties: p}
	w.exchanges.reset()
	w.queues.reset()
	clear(w.histories)
	w.histories = w.histories[:0]
	clear(w.windows)
	w.windows = w.windows[:0]
	w.replies.reset()
	w.address = false
}

func (w *walk) follow(first *Exchange) {
	w.exchanges.add(first)
	for i := 0; i < len(w.exchanges.list); i++ {
		x := w.exchanges.list[i]
		if w.evaluate(x) {
			continue
		}
		// Nothing matched here at all: the alternate exchange gets its turn.
		if alt, ok := w.vhost.exchanges[x.alternate]; ok && x.alternate != "" {
			w.exchanges.add(alt)
		}
	}
}

// passes reports whether the message goes through a window.
func (w *walk) passes(win window) bool {
	if w.knows != nil && w.knows(win) {
		return false
	}
	w.windows = append(w.windows, win)
	return true
}

// sift takes out the queues that are left out, or whose window knows the message.
func (w *walk) sift() {
	if w.without == nil && len(w.vhost.windowOf) == 0 {
		return
	}
	w.queues.list = slices.DeleteFunc(w.queues.list, func(q Queue) bool {
		if w.without != nil && w.without(q) {
			return true
		}
		win := w.vhost.windowOf[q]
		return win != nil && !w.passes(window{win.Window, q})
	})
}

// evaluate collects what x routes to; false if no binding matched.
func (w *walk) evaluate(x *Exchange) bool {
	if x.Name == "" {
		return w.evaluateDefault()
	}
	if x.delayed != nil {
		w.cacheable = false
		if delayOf(w.props.Headers) > 0 {
			w.queues.add(x.delayed)
			return true
		}
	}
	if x.window != nil {
		if !w.passes(window{Window: x.window}) {
			return false
		}
	}
	keys, needs := w.keys, x.router.Needs()
	if needs&exchange.EveryKey == 0 {
		keys = keys[:1]
	}
	if needs&exchange.MessageHeaders != 0 {
		w.loadHeaders()
	}
	w.cacheable = w.cacheable && needs.Cacheable()
	if x.history != nil {
		w.histories = append(w.histories, x.history)
	}
	w.matched = w.matched[:0]
	for _, k := range keys {
		w.message.RoutingKey = k
		w.matched = x.router.Route(w.matched, &w.message)
	}
	for i, d := range w.matched {
		switch d := d.(type) {
		case Queue:
			w.queues.add(d)
		case *Exchange:
			w.exchanges.add(d)
		}
		w.matched[i] = nil
	}
	return len(w.matched) > 0
}

// evaluateDefault: every queue is bound to the default exchange by its name, and every reply
// consumer by its address.
func (w *walk) evaluateDefault() bool {
	found := false
	for _, k := range w.keys {
		if q, ok := w.vhost.queues[k]; ok {
			w.queues.add(q)
			found = true
		} else if c, ok := w.vhost.replyConsumer([]byte(k)); ok {
			w.address, found = true, true
			if c != nil {
				w.replies.add(c)
			}
		}
	}
	return found
}

// distinct is a list without repetitions that allocates nothing while it is short and
// reused.
type distinct[T comparable] struct {
	list []T
	seen map[T]struct{} // beside list, once that is long
}

// manyDistinct is where looking through the list gets slower than a map.
const manyDistinct = 16

func (d *distinct[T]) reset() {
	clear(d.list)
	d.list = d.list[:0]
	clear(d.seen)
}

func (d *distinct[T]) add(v T) {
	if len(d.list) < manyDistinct {
		if !slices.Contains(d.list, v) {
			d.list = append(d.list, v)
		}
		return
	}
	if d.seen == nil {
		d.seen = make(map[T]struct{})
	}
	if len(d.seen) == 0 {
		for _, have := range d.list {
			d.seen[have] = struct{}{}
		}
	}
	if _, dup := d.seen[v]; !dup {
		d.seen[v] = struct{}{}
		d.list = append(d.list, v)
	}
}

func (w *walk) loadHeaders() {
	if w.hasHeaders || !w.props.Has(amqp.PropHeaders) {
		return
	}
	w.hasHeaders = true
	w.message.Headers, _, _ = amqp.ParseTable(w.props.Headers) // its shape was checked on arrival
}

// senderSelected returns the routing keys in the CC and BCC headers, RabbitMQ's extension
// for sender-selected distribution.
func senderSelected(p *amqp.Properties) ([]string, *amqp.Error) {
	var keys []string
	for _, name := range [...]string{"CC", queue.BlindHeader} {
		v, ok := amqp.LookupHeader(p.Headers, name)
		if !ok {
			continue
		}
		if v.Kind() != 'A' {
			return nil, amqp.PreconditionFailed("invalid message: {unacceptable_type_in_header,\"%s\",%s}", name, v.TypeName())
		}
		for _, e := range v.Array() {
			if e.Kind() == 'S' {
				keys = append(keys, e.Text())
			}
		}
	}
	return keys, nil
}
