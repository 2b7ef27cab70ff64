package broker

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/auth"
	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/storage"
)

// PolicyKind tells a vhost's own policies from those of the operator, which bound them: of
// each kind one policy at most applies to a queue or exchange, and both are merged.
type PolicyKind uint8

// The kinds of policies.
const (
	UserPolicy PolicyKind = iota
	OperatorPolicy
)

// policyKinds are RabbitMQ's names for the kinds, and where their records are.
var policyKinds = [...]struct {
	component string
	key       byte
}{
	UserPolicy:     {"policy", keyPolicy},
	OperatorPolicy: {"operator_policy", keyOperatorPolicy},
}

// String returns the kind's name as a component of runtime parameters.
func (k PolicyKind) String() string { return policyKinds[k].component }

// Policy gives settings to the queues and exchanges of a vhost whose names match its pattern.
// It does not change.
type Policy struct {
	Name       string          `json:"-"`
	Pattern    string          `json:"pattern"`    // a regular expression that occurs in the name
	ApplyTo    string          `json:"apply-to"`   // all, exchanges, queues, classic_queues, quorum_queues, streams
	Priority   int64           `json:"priority"`   // the highest of those that match applies
	Definition json.RawMessage `json:"definition"` // an object of settings

	pattern   *auth.Pattern  // nil matches every name
	values    map[string]any // of Definition: string, int64, float64, bool, nil, []any, map[string]any
	queues    types          // whose queues it can apply to
	exchanges bool
}

// InvalidError is the refusal of a policy, parameter or limit, in RabbitMQ's words, which
// span lines.
type InvalidError struct {
	Problems []string
	bare     bool // without RabbitMQ's usual first line
}

// Error is the text that RabbitMQ answers with.
func (e *InvalidError) Error() string {
	if e.bare {
		return strings.Join(e.Problems, "\n")
	}
	return "Validation failed\n\n" + strings.Join(e.Problems, "\n") + "\n"
}

func invalid(format string, args ...any) error {
	return &InvalidError{Problems: []string{fmt.Sprintf(format, args...)}}
}

func bare(format string, args ...any) error {
	return &InvalidError{Problems: []string{fmt.Sprintf(format, args...)}, bare: true}
}

// ErrNoSuch is returned when a policy, parameter or limit to clear is not there.
var ErrNoSuch = errors.New("does not exist")

// ParsePolicy reads and checks a policy: the object that RabbitMQ's HTTP API takes, or the
// value of a parameter, with pattern, definition, priority (0 if missing) and apply-to (all).
// Other keys are ignored. The error is an *InvalidError.
func ParsePolicy(kind PolicyKind, name string, object []byte) (*Policy, error) {
	v, err := decodeJSON(object)
	if err != nil {
		return nil, bare("%s: %v", name, err)
	}
	fields, ok := v.(map[string]any)
	if !ok {
		return nil, invalid("%s not a list %s", name, erlang(v))
	}
	p := &Policy{Name: name, ApplyTo: "all"}
	var problems []string
	problem := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if d, ok := fields["definition"]; !ok {
		problem("Key \"definition\" not found in %s", name)
	} else if p.values, ok = d.(map[string]any); !ok {
		problem("definition must be a dictionary: %s", erlang(d))
	} else {
		if why := checkPolicyValues(kind, p.values); why != "" {
			problem("%s", why)
		}
		p.Definition, _ = json.Marshal(p.values) // came out of JSON
	}
	if to, ok := fields["apply-to"]; ok && to != nil {
		if p.ApplyTo, ok = to.(string); !ok {
			problem("apply-to should be binary, actually was %s", erlang(to))
		}
	}
	if !p.scope() {
		problem("apply-to '%s' unrecognised; should be one of: 'queues', 'classic_queues',  'quorum_queues', 'streams', 'exchanges', or 'all'", p.ApplyTo)
	}
	if pattern, ok := fields["pattern"]; !ok {
		problem("Key \"pattern\" not found in %s", name)
	} else if p.Pattern, ok = pattern.(string); !ok {
		problem("pattern should be a binary but was %s", erlang(pattern))
	} else if err := p.compile(); err != nil {
		problem("pattern should be regular expression but is invalid: %v", err)
	}
	if n, ok := fields["priority"]; ok && n != nil {
		if p.Priority, ok = n.(int64); !ok {
			problem("priority should be a number, actually was %s", erlang(n))
		}
	}
	if problems != nil {
		return nil, &InvalidError{Problems: problems}
	}
	return p, nil
}

// decodePolicy reads a record. What was a good policy when it was set is one now.
func decodePolicy(name string, key, value []byte) (*Policy, error) {
	p := &Policy{Name: name}
	if err := decodeRecord(key, value, p); err != nil {
		return nil, err
	}
	v, err := decodeJSON(p.Definition)
	if err == nil {
		p.values, _ = v.(map[string]any)
		err = p.compile()
	}
	if err != nil {
		return nil, fmt.Errorf("policy '%s': %w", name, err)
	}
	if !p.scope() {
		return nil, fmt.Errorf("policy '%s' applies to '%s', which is unknown", name, p.ApplyTo)
	}
	return p, nil
}

// compile prepares the pattern. The empty one matches everything, unlike that of a permission.
func (p *Policy) compile() (err error) {
	if p.Pattern != "" {
		p.pattern, err = auth.CompilePattern(p.Pattern)
	}
	return err
}

// scope works out what the policy can apply to; false if ApplyTo is none of the names. As in
// RabbitMQ, a policy with a key that a queue type does not know does not apply to queues of
// that type at all, and the next one gets its turn. What classic queues have beyond RabbitMQ's
// they take from policies for classic queues, so that others mean the same on both.
func (p *Policy) scope() bool {
	switch p.ApplyTo {
	case "all":
		p.exchanges, p.queues = true, allTypes
	case "exchanges":
		p.exchanges = true
	case "queues":
		p.queues = allTypes
	default:
		i := slices.IndexFunc(queueTypes[:], func(t queueTypeNames) bool { return t.applyTo == p.ApplyTo })
		if i < 0 {
			return false
		}
		p.queues = 1 << i
	}
	for name := range p.values {
		k := policyKeys[name]
		if p.ApplyTo == "classic_queues" && (name == "delivery-limit" || name == "dead-letter-strategy") {
			continue
		}
		p.queues &= k.types
	}
	return true
}

func (p *Policy) matches(name string) bool { return p.pattern == nil || p.pattern.Match(name) }

// decodeJSON decodes with integers as int64; those that do not fit are the nearest that do.
func decodeJSON(raw []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the JSON value")
	}
	return numbers(v), nil
}

func numbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		n, err := v.Int64()
		if err == nil {
			return n
		}
		if !strings.ContainsAny(v.String(), ".eE") {
			if v.String()[0] == '-' {
				return int64(math.MinInt64)
			}
			return int64(math.MaxInt64)
		}
		f, _ := v.Float64()
		return f
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = numbers(v[k])
		}
	}
	return v
}

// EffectivePolicy is what the policies say of one queue or exchange. It does not change.
type EffectivePolicy struct {
	Policy, Operator *Policy        // nil if none of the kind matches; not both
	Definition       map[string]any // of both together; not to be changed
}

func (e *EffectivePolicy) equal(o *EffectivePolicy) bool {
	return e == o || e != nil && o != nil && e.Policy == o.Policy && e.Operator == o.Operator
}

func (e *EffectivePolicy) values() map[string]any {
	if e == nil {
		return nil
	}
	return e.Definition
}

// policySet is all policies of a vhost. It does not change: setting a policy makes a new one.
type policySet struct {
	kinds [2][]*Policy // the first that matches applies
	slow  bool         // one has a pattern that may take long

	mu     sync.Mutex
	merged map[[2]*Policy]*EffectivePolicy   // shared by all that match the same
	found  map[policyTarget]*EffectivePolicy // if slow: what was matched lately
}

// policyTarget is what policies are matched against.
type policyTarget struct {
	exchange bool
	kind     QueueType
	name     string
}

// maxFound bounds what a set of policies remembers.
const maxFound = 1024

// with returns the set with p in place of the policy of its name. A nil p removes name.
func (s *policySet) with(kind PolicyKind, name string, p *Policy) *policySet {
	n := &policySet{kinds: s.kinds}
	list := slices.DeleteFunc(slices.Clone(s.kinds[kind]), func(o *Policy) bool { return o.Name == name })
	if p != nil {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b *Policy) int {
		return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.Name, b.Name))
	})
	n.kinds[kind] = list
	for _, list := range n.kinds {
		n.slow = n.slow || slices.ContainsFunc(list, func(p *Policy) bool { return p.pattern.Slow() })
	}
	return n
}

func (s *policySet) find(kind PolicyKind, name string) *Policy {
	if i := slices.IndexFunc(s.kinds[kind], func(p *Policy) bool { return p.Name == name }); i >= 0 {
		return s.kinds[kind][i]
	}
	return nil
}

func (s *policySet) forQueue(name string, t QueueType) *EffectivePolicy {
	return s.forTarget(policyTarget{kind: t, name: name})
}

func (s *policySet) forExchange(name string) *EffectivePolicy {
	return s.forTarget(policyTarget{exchange: true, name: name})
}

func (s *policySet) forTarget(t policyTarget) *EffectivePolicy {
	matches := func(p *Policy) bool {
		return (t.exchange && p.exchanges || !t.exchange && p.queues.has(t.kind)) && p.matches(t.name)
	}
	if !s.slow {
		return s.effective(matches)
	}
	s.mu.Lock()
	e, ok := s.found[t]
	s.mu.Unlock()
	if ok {
		return e
	}
	e = s.effective(matches)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.found == nil || len(s.found) >= maxFound {
		s.found = make(map[policyTarget]*EffectivePolicy)
	}
	s.found[t] = e
	return e
}

// matchAhead matches the policies of the vhost against something that is to be declared, before the vhost is locked for it:
// a pattern that takes long then holds up nobody else.
func (v *VHost) matchAhead(t policyTarget) {
	v.mu.RLock()
	set := v.policies
	v.mu.RUnlock()
	if set.slow {
		set.forTarget(t)
	}
}

func (s *policySet) effective(matches func(*Policy) bool) *EffectivePolicy {
	var pair [2]*Policy
	for kind, list := range s.kinds {
		if i := slices.IndexFunc(list, matches); i >= 0 {
			pair[kind] = list[i]
		}
	}
	if pair == [2]*Policy{} {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.merged[pair]
	if e == nil {
		e = &EffectivePolicy{Policy: pair[UserPolicy], Operator: pair[OperatorPolicy]}
		var values [2]map[string]any
		for kind, p := range pair {
			if p != nil {
				values[kind] = p.values
			}
		}
		e.Definition = mergePolicies(values[UserPolicy], values[OperatorPolicy])
		if s.merged == nil {
			s.merged = make(map[[2]*Policy]*EffectivePolicy)
		}
		s.merged[pair] = e
	}
	return e
}

// SetPolicy makes or replaces a policy and reports whether it is new. When it returns, the
// policy is on disk and every queue and exchange obeys it; messages flow meanwhile.
func (v *VHost) SetPolicy(kind PolicyKind, p *Policy) (created bool, err error) {
	v.mu.Lock()
	created = v.policies.find(kind, p.Name) == nil
	var c storage.Change
	v.putPolicyLocked(kind, p, &c)
	ticket := v.applyLocked(c)
	v.mu.Unlock()
	v.applyPolicies()
	if err := ticket.Wait(); err != nil {
		return created, err
	}
	v.broker.Event(kind.event("set"), v.policyFields(kind, p.Name, textField("pattern", p.Pattern), textField("apply-to", p.ApplyTo),
		amqp.Field{Name: "priority", Value: amqp.Int64(p.Priority)}, textField("definition", string(p.Definition)))...)
	return created, nil
}

// putPolicyLocked is SetPolicy without what follows from it.
func (v *VHost) putPolicyLocked(kind PolicyKind, p *Policy, c *storage.Change) {
	v.policies = v.policies.with(kind, p.Name, p)
	c.Put = append(c.Put, storage.KV{Key: metaKey(policyKinds[kind].key, v.name, p.Name), Value: encodeRecord(p)})
	if idle := withoutEffect(p.values); len(idle) > 0 {
		v.broker.log.Warn().Str("vhost", v.name).Str("policy", p.Name).Strs("settings", idle).
			Msg("policy settings that have no effect in this version")
	}
}

// ClearPolicy removes a policy; ErrNoSuch if it is not there.
func (v *VHost) ClearPolicy(kind PolicyKind, name string) error {
	v.mu.Lock()
	if v.policies.find(kind, name) == nil {
		v.mu.Unlock()
		return ErrNoSuch
	}
	v.policies = v.policies.with(kind, name, nil)
	ticket := v.applyLocked(storage.Change{Delete: [][]byte{metaKey(policyKinds[kind].key, v.name, name)}})
	v.mu.Unlock()
	v.applyPolicies()
	v.broker.Event(kind.event("cleared"), v.policyFields(kind, name)...)
	return ticket.Wait()
}

// Policies returns the policies of a kind, those first that go before others.
func (v *VHost) Policies(kind PolicyKind) []*Policy {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return slices.Clone(v.policies.kinds[kind])
}

// Policy returns a policy by its name, or nil.
func (v *VHost) Policy(kind PolicyKind, name string) *Policy {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.policies.find(kind, name)
}

// QueuePolicy returns what the policies say of a queue, nil if none matches.
func (v *VHost) QueuePolicy(q Queue) *EffectivePolicy {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.policyOf[q]
}

// ExchangePolicy returns what the policies say of an exchange, nil if none matches.
func (v *VHost) ExchangePolicy(name string) *EffectivePolicy {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if x := v.exchanges[name]; x != nil {
		return x.policy
	}
	return nil
}

// applyPolicies brings every queue and exchange of the vhost in line with its policies.
// Patterns are matched and queues configured without the vhost's lock: declarations in
// between see the new policies already.
func (v *VHost) applyPolicies() {
	v.configuring.Lock()
	defer v.configuring.Unlock()
	v.mu.RLock()
	set := v.policies
	queues := make([]Queue, 0, len(v.queues))
	for _, q := range v.queues {
		queues = append(queues, q)
	}
	exchanges := make([]*Exchange, 0, len(v.exchanges))
	for _, x := range v.exchanges {
		exchanges = append(exchanges, x)
	}
	v.mu.RUnlock()
	for _, x := range exchanges {
		if e := set.forExchange(x.Name); !e.equal(x.policy) {
			v.mu.Lock()
			x.obey(e)
			v.changedLocked()
			v.mu.Unlock()
		}
	}
	for _, q := range queues {
		v.applyPolicy(q, set)
	}
}

func (v *VHost) applyPolicy(q Queue, set *policySet) {
	d := q.About()
	e := set.forQueue(d.Name, typeOf(d.Arguments))
	v.mu.Lock()
	changed := v.queues[d.Name] == q && !e.equal(v.policyOf[q])
	if changed {
		v.rememberPolicyLocked(q, e)
		v.setWindowLocked(q)
	}
	v.mu.Unlock()
	if changed {
		v.configure(q, e)
	}
}

// configure makes a queue do what its arguments and its policy say together.
func (v *VHost) configure(q Queue, e *EffectivePolicy) {
	d := q.About()
	q.Configure(mergeSettings(typeOf(d.Arguments), d.Arguments, e.values(), v.broker.defaults))
}

// QueueSettings is what arguments, policies and defaults say of a queue together.
func (v *VHost) QueueSettings(q Queue) queue.Settings {
	d := q.About()
	return mergeSettings(typeOf(d.Arguments), d.Arguments, v.QueuePolicy(q).values(), v.broker.defaults)
}

// settings are what a queue that is to be made starts with. The vhost is locked, so that no
// change of the policies comes in between.
func (v *VHost) settings(d QueueDeclare) queue.Settings {
	t := typeOf(d.Arguments)
	return mergeSettings(t, d.Arguments, v.policies.forQueue(d.Name, t).values(), v.broker.defaults)
}

func (v *VHost) rememberPolicyLocked(q Queue, e *EffectivePolicy) {
	if e == nil {
		delete(v.policyOf, q)
	} else {
		v.policyOf[q] = e
	}
}

// obey makes an exchange do what its policy says; its own arguments go before it. Its vhost is
// locked, or nobody knows it yet. Only applyPolicies changes the policy afterwards.
func (x *Exchange) obey(e *EffectivePolicy) {
	x.policy = e
	if x.window != nil {
		x.window.SetLimits(windowLimits(x.Arguments, e.values()))
	}
	if a, ok := x.Arguments.Get("alternate-exchange"); ok {
		x.alternate = a.Text()
		return
	}
	x.alternate, _ = e.values()["alternate-exchange"].(string)
}
