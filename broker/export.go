package broker

import (
	"cmp"
	"maps"
	"slices"

	"github.com/settmq/settmq/broker/definitions"
)

// definitionsVersion is what exports say they come from: the RabbitMQ whose form they have.
const definitionsVersion = "4.3.6"

// Export returns the definitions of the whole broker, sorted: everything that an import into
// an empty one brings back, which is neither messages nor exclusive queues. Each vhost is seen
// at one moment.
func (b *Broker) Export() *definitions.Definitions {
	d := &definitions.Definitions{Version: definitionsVersion, Cluster: b.ClusterName()}
	for _, v := range b.VHosts() {
		v.export(d)
	}
	b.users.export(d)
	globals := b.GlobalParameters()
	for _, name := range slices.Sorted(maps.Keys(globals)) {
		d.GlobalParameters = append(d.GlobalParameters, definitions.GlobalParameter{Name: name, Value: globals[name]})
	}
	return d
}

// Export returns the definitions of the vhost alone, see [Broker.Export].
func (v *VHost) Export() *definitions.Definitions {
	d := &definitions.Definitions{Version: definitionsVersion, Cluster: v.broker.ClusterName()}
	v.export(d)
	return d
}

func (v *VHost) export(d *definitions.Definitions) {
	parameters := v.Parameters("")
	v.mu.RLock()
	defer v.mu.RUnlock()
	d.VHosts = append(d.VHosts, definitions.VHost{
		Name: v.name, Description: v.metadata.Description, Tags: v.metadata.Tags,
		DefaultQueueType: v.metadata.DefaultQueueType, Tracing: v.Tracing(), Limits: v.limits.list(),
	})
	for _, p := range parameters { // the limits once more: RabbitMQ reads them here
		d.Parameters = append(d.Parameters, definitions.Parameter(p))
	}
	policies := slices.Clone(v.policies.kinds[UserPolicy])
	slices.SortFunc(policies, func(a, b *Policy) int { return cmp.Compare(a.Name, b.Name) })
	for _, p := range policies {
		d.Policies = append(d.Policies, definitions.Policy{
			VHost: v.name, Name: p.Name, Pattern: p.Pattern, ApplyTo: p.ApplyTo, Priority: p.Priority, Definition: p.Definition,
		})
	}
	v.exportTopology(d)
}

func (v *VHost) exportTopology(d *definitions.Definitions) {
	for _, name := range slices.Sorted(maps.Keys(v.queues)) {
		q := v.queues[name].About()
		if q.Exclusive() {
			continue
		}
		d.Queues = append(d.Queues, definitions.Queue{
			VHost: v.name, Name: name, Type: typeOf(q.Arguments).String(), Durable: q.Durable, AutoDelete: q.AutoDelete, Arguments: q.Arguments,
		})
	}
	for _, name := range slices.Sorted(maps.Keys(v.exchanges)) {
		x := v.exchanges[name]
		if !predeclared(name) {
			d.Exchanges = append(d.Exchanges, definitions.Exchange{
				VHost: v.name, Name: name, Type: x.Type, Durable: x.Durable, AutoDelete: x.AutoDelete, Internal: x.Internal, Arguments: x.Arguments,
			})
		}
		from := len(d.Bindings)
		for id, b := range x.outbound {
			if q, ok := b.Destination.(Queue); ok && q.About().Exclusive() {
				continue
			}
			d.Bindings = append(d.Bindings, definitions.Binding{
				VHost: v.name, Source: name, Destination: id.destination, ToExchange: !id.toQueue, RoutingKey: b.RoutingKey, Arguments: b.Arguments,
			})
		}
		slices.SortFunc(d.Bindings[from:], func(a, b definitions.Binding) int {
			return cmp.Or(cmp.Compare(a.Destination, b.Destination), cmp.Compare(a.RoutingKey, b.RoutingKey),
				cmp.Compare(string(a.Arguments.Append(nil)), string(b.Arguments.Append(nil))))
		})
	}
}

// predeclared reports whether an exchange is there in every vhost.
func predeclared(name string) bool {
	return slices.ContainsFunc(defaultExchanges, func(x Exchange) bool { return x.Name == name })
}

func (l limits) list() []definitions.Limit {
	var list []definitions.Limit
	for _, name := range slices.Sorted(maps.Keys(l)) {
		list = append(list, definitions.Limit{Name: name, Value: l[name]})
	}
	return list
}

func (u *Users) export(d *definitions.Definitions) {
	u.mu.RLock()
	defer u.mu.RUnlock()
	for _, name := range slices.Sorted(maps.Keys(u.users)) {
		d.Users = append(d.Users, definitions.User{User: *u.users[name], Limits: u.limits[name].list()})
	}
	grants := func(a, b grant) int { return cmp.Or(cmp.Compare(a.vhost, b.vhost), cmp.Compare(a.user, b.user)) }
	for _, g := range slices.SortedFunc(maps.Keys(u.permissions), grants) {
		d.Permissions = append(d.Permissions, definitions.Permission{User: g.user, VHost: g.vhost, Permissions: u.permissions[g]})
	}
	for _, g := range slices.SortedFunc(maps.Keys(u.topics), grants) {
		for _, t := range u.topics[g] {
			d.TopicPermissions = append(d.TopicPermissions, definitions.TopicPermission{User: g.user, VHost: g.vhost, TopicPermission: t.TopicPermission})
		}
	}
}
