package broker

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/settmq/settmq/broker/definitions"
)

// importedSettings is what a definitions file has beside users and topology, checked and
// ready to be applied.
type importedSettings struct {
	metadata   map[string]VHostMetadata // by vhost
	policies   []importedPolicy
	parameters []definitions.Parameter
	limits     map[string]limits // by vhost
	users      map[string]limits // by user
}

type importedPolicy struct {
	vhost  string
	kind   PolicyKind
	policy *Policy
}

func (im *importer) checkSettings() {
	s := &im.settings
	s.metadata, s.limits, s.users = make(map[string]VHostMetadata), make(map[string]limits), make(map[string]limits)
	for _, d := range im.defs.VHosts {
		m := im.vhosts[d.Name].metadata.over(d)
		if err := m.check(); err != nil {
			im.problem("vhost '%s': %w", d.Name, err)
		}
		s.metadata[d.Name] = m
		if len(d.Limits) > 0 {
			s.limits[d.Name] = im.checkLimits("vhost '"+d.Name+"'", vhostLimitNames, d.Limits)
		}
	}
	for _, u := range im.defs.Users {
		if len(u.Limits) > 0 {
			s.users[u.Name] = im.checkLimits("user '"+u.Name+"'", userLimitNames, u.Limits)
		}
	}
	for _, p := range im.defs.Policies {
		value, _ := json.Marshal(map[string]any{"pattern": p.Pattern, "definition": p.Definition, "priority": p.Priority, "apply-to": p.ApplyTo})
		im.checkPolicy(UserPolicy, p.VHost, p.Name, value)
	}
	for _, p := range im.defs.Parameters {
		im.checkParameter(p)
	}
	for _, g := range im.defs.GlobalParameters {
		if _, err := decodeJSON(g.Value); err != nil {
			im.problem("global parameter '%s': %w", g.Name, err)
		}
	}
}

func (im *importer) checkLimits(what string, names []string, list []definitions.Limit) limits {
	fields := make(map[string]any)
	for _, l := range list {
		fields[l.Name] = l.Value
	}
	l, err := checkLimits(names, "limits", fields)
	if err != nil {
		im.problem("%s: %w", what, err)
	}
	return l
}

// checkPolicy leaves settings out that RabbitMQ 4 does not have any more: they are in every
// export of a 3.x cluster with mirrored queues. A policy of which nothing is left goes too.
func (im *importer) checkPolicy(kind PolicyKind, vhost, name string, value []byte) {
	what := fmt.Sprintf("%s '%s'", kind, name)
	if im.vhost(what, vhost) == nil {
		return
	}
	value, retired := withoutRetired(value)
	if len(retired) > 0 {
		im.broker.log.Warn().Str("vhost", vhost).Str("policy", name).Strs("settings", retired).
			Msg("settings of old RabbitMQ versions left out of an imported policy")
		if value == nil {
			return
		}
	}
	p, err := ParsePolicy(kind, name, value)
	if err != nil {
		im.problem("%s in vhost '%s': %w", what, vhost, err)
		return
	}
	im.settings.policies = append(im.settings.policies, importedPolicy{vhost, kind, p})
}

// withoutRetired takes retired settings out of a policy; value is nil if nothing is left.
func withoutRetired(value []byte) (rest []byte, retired []string) {
	v, err := decodeJSON(value)
	if err != nil {
		return value, nil
	}
	fields, _ := v.(map[string]any)
	values, _ := fields["definition"].(map[string]any)
	for _, name := range retiredPolicyKeys {
		if _, ok := values[name]; ok {
			retired = append(retired, name)
			delete(values, name)
		}
	}
	if len(retired) == 0 {
		return value, nil
	}
	if len(values) == 0 {
		return nil, retired
	}
	rest, _ = json.Marshal(fields) // came out of JSON
	return rest, retired
}

func (im *importer) checkParameter(p definitions.Parameter) {
	what := fmt.Sprintf("parameter %s '%s'", p.Component, p.Name)
	switch p.Component {
	case OperatorPolicy.String():
		im.checkPolicy(OperatorPolicy, p.VHost, p.Name, p.Value)
	case vhostLimitsComponent:
		l, err := parseLimits(vhostLimitNames, p.Name, p.Value)
		if im.vhost(what, p.VHost) != nil && err != nil {
			im.problem("%s: %w", what, err)
		}
		im.settings.limits[p.VHost] = l
	default: // of a plugin, perhaps: what somebody has set is not lost
		if im.vhost(what, p.VHost) != nil {
			im.settings.parameters = append(im.settings.parameters, p)
		}
	}
}

// applySettings comes before queues and exchanges are made, which look for their policies.
func (im *importer) applySettings() {
	s := &im.settings
	for name, m := range s.metadata {
		v := im.vhosts[name]
		if old := v.metadata; im.fresh[name] || !m.equal(old) {
			v.putMetadataLocked(m, &im.change)
		}
	}
	for name, l := range s.limits {
		im.vhosts[name].putLimitsLocked(l, &im.change)
	}
	changed := make(map[*VHost]bool)
	for _, p := range s.policies {
		v := im.vhosts[p.vhost]
		if have := v.policies.find(p.kind, p.policy.Name); have != nil && have.equal(p.policy) {
			im.report.Present++
			continue
		}
		v.putPolicyLocked(p.kind, p.policy, &im.change)
		changed[v] = true
		im.report.Policies++
	}
	for v := range changed {
		im.policed = append(im.policed, v)
	}
	for _, p := range s.parameters {
		im.vhosts[p.VHost].putParameterLocked(parameterID{p.Component, p.Name}, p.Value, &im.change)
		im.report.Parameters++
	}
	for _, g := range im.defs.GlobalParameters {
		im.broker.putGlobalLocked(g.Name, g.Value, &im.change)
		im.report.Parameters++
	}
}

func (p *Policy) equal(o *Policy) bool {
	return p.Name == o.Name && p.Pattern == o.Pattern && p.ApplyTo == o.ApplyTo && p.Priority == o.Priority &&
		string(p.Definition) == string(o.Definition) // both written by us
}

// over returns what a file says of a vhost, and where it is silent what held before.
func (m VHostMetadata) over(d definitions.VHost) VHostMetadata {
	m.Description = cmp.Or(d.Description, m.Description)
	m.DefaultQueueType = cmp.Or(d.DefaultQueueType, m.DefaultQueueType)
	if d.Tags != nil {
		m.Tags = d.Tags
	}
	return m
}

func (m VHostMetadata) equal(o VHostMetadata) bool {
	return m.Description == o.Description && m.DefaultQueueType == o.DefaultQueueType && slices.Equal(m.Tags, o.Tags)
}

// defaultType is the type of queues that name none: that of the file's vhost, or what is there.
func (im *importer) defaultType(v *VHost) QueueType {
	if t, ok := parseQueueType(im.settings.metadata[v.name].DefaultQueueType); ok {
		return t
	}
	return v.defaultType()
}
