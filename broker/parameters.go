package broker

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/url"
	"slices"

	"github.com/settmq/settmq/storage"
)

// Parameter is a runtime parameter of a vhost: a JSON value that a component of the broker
// reads. Operator policies and the vhost's limits are listed as parameters too, as in RabbitMQ.
type Parameter struct {
	VHost, Component, Name string
	Value                  json.RawMessage
}

type parameterID struct{ component, name string }

// knownComponents are the components that parameters can be set for besides those that have
// operations of their own: those of RabbitMQ's federation and shovel plugins. Nothing reads
// them yet.
var knownComponents = []string{"federation-upstream", "federation-upstream-set", "shovel"}

const vhostLimitsComponent, vhostLimitsName = "vhost-limits", "limits"

// SetParameter makes or replaces a parameter and reports whether it is new; operator policies
// and vhost limits are set likewise. It returns when the parameter is on disk. The error is an
// *InvalidError if the parameter is refused.
func (v *VHost) SetParameter(component, name string, value []byte) (created bool, err error) {
	switch component {
	case UserPolicy.String():
		return false, bare("policies may not be set using this method")
	case OperatorPolicy.String():
		p, err := ParsePolicy(OperatorPolicy, name, value)
		if err != nil {
			return false, err
		}
		return v.SetPolicy(OperatorPolicy, p)
	case vhostLimitsComponent:
		if name != vhostLimitsName {
			return false, bare("limits of a vhost are the parameter '%s'", vhostLimitsName)
		}
		limits, err := parseLimits(vhostLimitNames, name, value)
		if err != nil {
			return false, err
		}
		created = len(v.Limits()) == 0
		return created, v.SetLimits(limits)
	}
	if !slices.Contains(knownComponents, component) {
		return false, invalid("component %s not found", component)
	}
	decoded, err := decodeJSON(value)
	if err != nil {
		return false, bare("%s: %v", name, err)
	}
	if err := checkURIs(component, decoded); err != nil {
		return false, err
	}
	id := parameterID{component, name}
	var c storage.Change
	v.mu.Lock()
	_, replaced := v.parameters[id]
	v.putParameterLocked(id, value, &c)
	ticket := v.applyLocked(c)
	v.mu.Unlock()
	v.broker.Event("parameter.set", textField("component", component), textField("name", name), textField("vhost", v.name), textField("value", string(value)))
	return !replaced, ticket.Wait()
}

// uriKeys are the keys of a component's parameters that must be there: addresses of brokers.
var uriKeys = map[string][]string{"federation-upstream": {"uri"}, "shovel": {"src-uri", "dest-uri"}}

// checkURIs refuses a parameter that lacks an address, or has one that is none. There may be a list of them.
func checkURIs(component string, decoded any) error {
	fields, _ := decoded.(map[string]any)
	for _, key := range uriKeys[component] {
		list, ok := fields[key].([]any)
		if !ok {
			list = []any{fields[key]}
		}
		for _, item := range list {
			text, _ := item.(string)
			if u, err := url.Parse(text); err != nil || u.Scheme != "amqp" && u.Scheme != "amqps" {
				return invalid("%s should be a URI of AMQP or a list of them, actually was %s", key, erlang(fields[key]))
			}
		}
	}
	return nil
}

func (v *VHost) putParameterLocked(id parameterID, value json.RawMessage, c *storage.Change) {
	v.parameters[id] = slices.Clone(value)
	c.Put = append(c.Put, storage.KV{Key: metaKey(keyParameter, v.name, id.component, id.name), Value: encodeRecord(value)})
	v.broker.log.Warn().Str("vhost", v.name).Str("component", id.component).Str("parameter", id.name).
		Msg("a parameter that has no effect in this version")
}

// ClearParameter removes a parameter; ErrNoSuch if it is not there.
func (v *VHost) ClearParameter(component, name string) error {
	switch component {
	case OperatorPolicy.String():
		return v.ClearPolicy(OperatorPolicy, name)
	case vhostLimitsComponent:
		if name != vhostLimitsName || len(v.Limits()) == 0 {
			return ErrNoSuch
		}
		return v.SetLimits(nil)
	}
	id := parameterID{component, name}
	v.mu.Lock()
	if _, ok := v.parameters[id]; !ok {
		v.mu.Unlock()
		return ErrNoSuch
	}
	delete(v.parameters, id)
	ticket := v.applyLocked(storage.Change{Delete: [][]byte{metaKey(keyParameter, v.name, component, name)}})
	v.mu.Unlock()
	v.broker.Event("parameter.cleared", textField("component", component), textField("name", name), textField("vhost", v.name))
	return ticket.Wait()
}

// Parameters returns the parameters of a component, or of all for "", by component and name.
// Policies are not among them, operator policies are.
func (v *VHost) Parameters(component string) []Parameter {
	v.mu.RLock()
	defer v.mu.RUnlock()
	var list []Parameter
	add := func(c, name string, value json.RawMessage) {
		if component == "" || component == c {
			list = append(list, Parameter{VHost: v.name, Component: c, Name: name, Value: value})
		}
	}
	for id, value := range v.parameters {
		add(id.component, id.name, value)
	}
	for _, p := range v.policies.kinds[OperatorPolicy] {
		value, _ := json.Marshal(p)
		add(OperatorPolicy.String(), p.Name, value)
	}
	if len(v.limits) > 0 {
		value, _ := json.Marshal(v.limits)
		add(vhostLimitsComponent, vhostLimitsName, value)
	}
	slices.SortFunc(list, func(a, b Parameter) int {
		return cmp.Or(cmp.Compare(a.Component, b.Component), cmp.Compare(a.Name, b.Name))
	})
	return list
}

// SetGlobalParameter makes or replaces a parameter of the broker, such as cluster_name, and
// reports whether it is new. It returns when the parameter is on disk.
func (b *Broker) SetGlobalParameter(name string, value []byte) (created bool, err error) {
	if _, err := decodeJSON(value); err != nil {
		return false, bare("%s: %v", name, err)
	}
	var c storage.Change
	b.mu.Lock()
	_, replaced := b.globals[name]
	b.putGlobalLocked(name, value, &c)
	ticket := b.store.Apply(c)
	b.mu.Unlock()
	b.Event("parameter.set", textField("component", "global"), textField("name", name), textField("value", string(value)))
	return !replaced, ticket.Wait()
}

func (b *Broker) putGlobalLocked(name string, value json.RawMessage, c *storage.Change) {
	b.globals[name] = slices.Clone(value)
	c.Put = append(c.Put, storage.KV{Key: metaKey(keyGlobalParameter, name), Value: encodeRecord(value)})
}

// ClearGlobalParameter removes a parameter of the broker; ErrNoSuch if it is not there.
func (b *Broker) ClearGlobalParameter(name string) error {
	b.mu.Lock()
	if _, ok := b.globals[name]; !ok {
		b.mu.Unlock()
		return ErrNoSuch
	}
	delete(b.globals, name)
	ticket := b.store.Apply(storage.Change{Delete: [][]byte{metaKey(keyGlobalParameter, name)}})
	b.mu.Unlock()
	b.Event("parameter.cleared", textField("component", "global"), textField("name", name))
	return ticket.Wait()
}

// GlobalParameters returns the parameters of the broker by name. The map is the caller's.
func (b *Broker) GlobalParameters() map[string]json.RawMessage {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return maps.Clone(b.globals)
}

// ClusterName is the global parameter cluster_name, "" if it is not set.
func (b *Broker) ClusterName() string { return b.globalText("cluster_name") }

// clusterID is the global parameter by which RabbitMQ's metrics tell clusters with the same name apart.
const clusterID, clusterIDPrefix = "internal_cluster_id", "rabbitmq-cluster-id-"

// ClusterID tells this broker from others with the same name. One that is from before there were such ids has its name in it.
func (b *Broker) ClusterID() string {
	return cmp.Or(b.globalText(clusterID), clusterIDPrefix+cmp.Or(b.ClusterName(), b.Node()))
}

// globalText is a global parameter that is a text, else "".
func (b *Broker) globalText(name string) (text string) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	_ = json.Unmarshal(b.globals[name], &text)
	return text
}
