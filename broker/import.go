package broker

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/settmq/settmq/broker/definitions"
	"github.com/settmq/settmq/exchange"
	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/storage"
)

// ImportReport counts what an import made, and what was there already.
type ImportReport struct {
	VHosts, Users, Permissions, Exchanges, Queues, Bindings int // made or replaced
	Policies, Parameters                                    int // operator policies are policies
	Present                                                 int // equal ones found
}

// ImportError is everything that keeps definitions from being imported.
type ImportError struct{ Problems []error }

// Error is one line per problem.
func (e *ImportError) Error() string { return errors.Join(e.Problems...).Error() }

// Unwrap returns the problems.
func (e *ImportError) Unwrap() []error { return e.Problems }

// Import takes the definitions of a RabbitMQ over: all of them or, with an *ImportError that
// lists every problem, none. Users, permissions, policies, parameters and limits are
// replaced; exchanges, queues and bindings that are there already must be the same. It
// returns when everything is on disk and obeyed.
func (b *Broker) Import(d *definitions.Definitions) (ImportReport, error) {
	return b.runImport(d, false)
}

// Merge is Import, except that exchanges and queues that are there already stay as they are, whatever the definitions
// say of them, and that bindings without an end are left out: what RabbitMQ does with a file that is uploaded.
func (b *Broker) Merge(d *definitions.Definitions) (ImportReport, error) { return b.runImport(d, true) }

func (b *Broker) runImport(d *definitions.Definitions, merge bool) (ImportReport, error) {
	b.mu.Lock()
	im := &importer{broker: b, merge: merge, defs: d, vhosts: make(map[string]*VHost), fresh: make(map[string]bool)}
	im.openVHosts()
	locked := im.lockVHosts()
	im.check()
	if len(im.problems) > 0 {
		unlockVHosts(locked)
		b.mu.Unlock()
		return ImportReport{}, &ImportError{im.problems}
	}
	im.apply()
	users := im.usersChanges()
	ticket := b.users.begin(users, im.change)
	for _, v := range locked {
		v.last = ticket
	}
	unlockVHosts(locked)
	b.mu.Unlock()
	for _, v := range im.policed {
		v.applyPolicies()
	}
	for _, v := range d.VHosts {
		if v.Tracing {
			im.vhosts[v.Name].SetTracing(true)
		}
	}
	return im.report, ticket.Wait()
}

// importer is one import under way, with the broker and all vhosts concerned locked.
type importer struct {
	broker   *Broker
	defs     *definitions.Definitions
	merge    bool              // what is there already need not be the same
	vhosts   map[string]*VHost // that the file may refer to
	fresh    map[string]bool   // those that the import makes
	settings importedSettings
	bindings []definitions.Binding // that can be made
	policed  []*VHost              // whose policies the import changes
	problems []error
	change   storage.Change
	report   ImportReport
}

func (im *importer) problem(format string, args ...any) {
	im.problems = append(im.problems, fmt.Errorf(format, args...))
}

func (im *importer) openVHosts() {
	for name, v := range im.broker.vhosts {
		im.vhosts[name] = v
	}
	for _, d := range im.defs.VHosts {
		if im.vhosts[d.Name] == nil {
			im.vhosts[d.Name] = newVHost(im.broker, d.Name)
			im.fresh[d.Name] = true
		}
	}
	if limit := im.broker.limits.MaxVHosts; limit > 0 && len(im.vhosts) > limit {
		im.problem("vhost limit of %d would be exceeded", limit)
	}
}

// lockVHosts locks all vhosts in the order of their names.
func (im *importer) lockVHosts() []*VHost {
	list := make([]*VHost, 0, len(im.vhosts))
	for _, v := range im.vhosts {
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b *VHost) int { return cmp.Compare(a.name, b.name) })
	for _, v := range list {
		v.mu.Lock()
	}
	return list
}

func unlockVHosts(list []*VHost) {
	for _, v := range list {
		v.mu.Unlock()
	}
}

// check looks for everything that would stand in the way, without changing anything.
func (im *importer) check() {
	im.checkSettings()
	d := im.defs
	exchanges := make(map[[2]string]string) // vhost, name → type, of those to come
	queues := make(map[[2]string]string)    // the same of queues
	for _, x := range d.Exchanges {
		im.checkExchange(x)
		exchanges[[2]string{x.VHost, x.Name}] = x.Type
	}
	for _, q := range d.Queues {
		im.checkQueue(q)
		queues[[2]string{q.VHost, q.Name}] = typeOf(queueDeclare(q).Arguments).String()
	}
	for _, bd := range d.Bindings {
		im.checkBinding(bd, exchanges, queues)
	}
	users := make(map[string]bool)
	for _, u := range d.Users {
		users[u.Name] = true
	}
	grantee := func(what, user, vhost string) {
		if !users[user] && im.broker.users.User(user) == nil {
			im.problem("%s for user '%s': there is no such user", what, user)
		}
		im.vhost(what+" for user '"+user+"'", vhost)
	}
	for _, p := range d.Permissions {
		grantee("permission", p.User, p.VHost)
	}
	for _, p := range d.TopicPermissions {
		grantee("topic permission", p.User, p.VHost)
	}
}

func (im *importer) vhost(what, name string) *VHost {
	v := im.vhosts[name]
	if v == nil {
		im.problem("%s: there is no vhost '%s'", what, name)
	}
	return v
}

func exchangeDeclare(x definitions.Exchange) ExchangeDeclare {
	return ExchangeDeclare{Name: x.Name, Type: x.Type, Durable: x.Durable, AutoDelete: x.AutoDelete, Internal: x.Internal, Arguments: x.Arguments}
}

func (im *importer) checkExchange(x definitions.Exchange) {
	v := im.vhost("exchange '"+x.Name+"'", x.VHost)
	if v == nil {
		return
	}
	if !exchange.Known(x.Type) {
		im.problem("%s: unknown exchange type '%s'", v.resource(ExchangeResource, x.Name), x.Type)
		return
	}
	if have := v.exchanges[x.Name]; have != nil {
		if err := v.checkExchangeEquivalent(have, exchangeDeclare(x)); err != nil && !im.merge {
			im.problem("%s", err.Text)
		}
		return
	}
	if _, err := v.newExchange(System{}, exchangeDeclare(x)); err != nil {
		im.problem("%s", err.Text)
	}
}

func queueDeclare(q definitions.Queue) QueueDeclare {
	return QueueDeclare{Name: q.Name, Durable: q.Durable, AutoDelete: q.AutoDelete, Arguments: q.Arguments}
}

func (im *importer) checkQueue(q definitions.Queue) {
	v := im.vhost("queue '"+q.Name+"'", q.VHost)
	if v == nil {
		return
	}
	d := queueDeclare(q).withType(im.defaultType(v))
	if have := v.queues[q.Name]; have != nil {
		if err := v.checkQueueEquivalent(System{}, have, d); err != nil && !im.merge {
			im.problem("%s", err.Text)
		}
		return
	}
	if err := v.checkNewQueue(System{}, d); err != nil {
		im.problem("%s", err.Text)
	}
}

func (im *importer) checkBinding(b definitions.Binding, exchanges map[[2]string]string, queues map[[2]string]string) {
	what := fmt.Sprintf("binding from '%s' to '%s' in vhost '%s'", b.Source, b.Destination, b.VHost)
	v := im.vhost(what, b.VHost)
	if v == nil {
		return
	}
	kind, ok := exchanges[[2]string{b.VHost, b.Source}]
	if x := v.exchanges[b.Source]; x != nil && b.Source != "" {
		kind, ok = x.Type, true
	}
	if !ok {
		if im.merge {
			im.leftOut(v, b)
		} else {
			im.problem("%s: there is no such source", what)
		}
		return
	}
	key := [2]string{b.VHost, b.Destination}
	if im.merge && !im.reaches(v, b, key, exchanges, queues) {
		im.leftOut(v, b)
		return
	}
	check := exchange.Binding{Key: b.RoutingKey, Arguments: b.Arguments}
	if !b.ToExchange {
		if check.QueueType = queues[key]; v.queues[b.Destination] != nil {
			check.QueueType = destinationType(v.queues[b.Destination])
		}
	}
	if err := exchange.CheckBinding(kind, check); err != nil {
		im.problem("%s: %s", what, err.Text)
	}
	if b.ToExchange && b.Destination == "" {
		im.problem("%s: nothing can be bound to the default exchange", what)
	} else if _, coming := exchanges[key]; b.ToExchange && !coming && v.exchanges[b.Destination] == nil {
		im.problem("%s: there is no such exchange", what)
	}
	if !b.ToExchange && !im.reaches(v, b, key, exchanges, queues) {
		im.problem("%s: there is no such queue", what)
	}
	im.bindings = append(im.bindings, b)
}

// reaches reports whether the destination of a binding is there or will be.
func (im *importer) reaches(v *VHost, b definitions.Binding, key [2]string, exchanges, queues map[[2]string]string) bool {
	if b.ToExchange {
		_, coming := exchanges[key]
		return coming || v.exchanges[b.Destination] != nil
	}
	return queues[key] != "" || v.queues[b.Destination] != nil
}

// leftOut notes a binding that has lost an end: exports of RabbitMQ have such, and it ignores them.
func (im *importer) leftOut(v *VHost, b definitions.Binding) {
	im.broker.log.Warn().Str("vhost", v.name).Str("source", b.Source).Str("destination", b.Destination).
		Msg("imported binding left out: one of its ends is not there")
}

// apply makes the vhosts, exchanges, queues and bindings; nothing can fail any more.
func (im *importer) apply() {
	for name := range im.fresh {
		im.broker.vhosts[name] = im.vhosts[name]
		im.report.VHosts++
	}
	im.applySettings()
	for _, x := range im.defs.Exchanges {
		v := im.vhosts[x.VHost]
		if v.exchanges[x.Name] != nil {
			im.report.Present++
			continue
		}
		v.putExchangeLocked(&Exchange{Name: x.Name, Type: x.Type, Durable: x.Durable, AutoDelete: x.AutoDelete, Internal: x.Internal, Arguments: x.Arguments}, &im.change)
		im.report.Exchanges++
	}
	for _, q := range im.defs.Queues {
		im.applyQueue(q)
	}
	for _, b := range im.bindings {
		im.applyBinding(b)
	}
}

func (im *importer) applyQueue(q definitions.Queue) {
	v := im.vhosts[q.VHost]
	if v.queues[q.Name] != nil {
		im.report.Present++
		return
	}
	id, d := im.broker.store.NextID(), queueDeclare(q).withType(v.defaultType())
	if typeOf(d.Arguments) == StreamQueue {
		v.putQueue(id, d, nil, &im.change)
		v.addQueueLocked(v.newStreamLocked(id, d), nil)
		im.report.Queues++
		return
	}
	o := v.queueOptions(id, d)
	w := v.newQueueWindowLocked(d)
	if q.Durable {
		v.putQueue(id, d, w, &im.change)
		// The store knows the queue once it has its part of the change; the rest follows
		// under the same locks, so nobody can come between.
		im.broker.store.Apply(storage.Change{CreateQueues: []uint64{id}})
		o.Store = im.broker.store.Queue(id)
	}
	v.addQueueLocked(queue.New(o), w)
	im.report.Queues++
}

func (im *importer) applyBinding(d definitions.Binding) {
	v := im.vhosts[d.VHost]
	kind := QueueResource
	if d.ToExchange {
		kind = ExchangeResource
	}
	b, err := v.resolveLocked(System{}, BindingSpec{Source: d.Source, Destination: d.Destination, Kind: kind, RoutingKey: d.RoutingKey, Arguments: d.Arguments})
	if err != nil {
		panic("import: binding checked and yet refused: " + err.Text)
	}
	id := b.id()
	if _, exists := b.Source.outbound[id]; exists {
		im.report.Present++
		return
	}
	v.putBindingLocked(id, b, &im.change)
	im.report.Bindings++
}

func (im *importer) usersChanges() []usersChange {
	u := im.broker.users
	var list []usersChange
	for i := range im.defs.Users {
		list = append(list, u.put(&im.defs.Users[i].User))
		im.report.Users++
	}
	for name, l := range im.settings.users {
		list = append(list, u.limit(name, func(limits) limits { return l }))
	}
	for _, p := range im.defs.Permissions {
		list = append(list, u.grant(p.User, p.VHost, p.Permissions))
		im.report.Permissions++
	}
	for _, p := range im.defs.TopicPermissions {
		list = append(list, u.grantTopic(p.User, p.VHost, p.TopicPermission))
		im.report.Permissions++
	}
	return list
}
