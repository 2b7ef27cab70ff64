package management

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/settmq/settmq/auth"
	"github.com/settmq/settmq/broker"
	"github.com/settmq/settmq/queue"
)

// maxName is the longest name of a user or a vhost, in bytes, as a short string on the wire can be.
const maxName = 255

var vhostColumns = map[string]func(*broker.VHost) any{
	"name": func(v *broker.VHost) any { return v.Name() },
}

func (r *request) vhostRow(v *broker.VHost) object {
	m := v.Metadata()
	queueType := cmp.Or(m.DefaultQueueType, r.broker.DefaultQueueType().String())
	metadata := object{{"description", m.Description}, {"tags", texts(m.Tags)}, {"default_queue_type", queueType}}
	if m.ProtectedFromDeletion {
		metadata = append(metadata, field{"protected_from_deletion", true})
	}
	return object{
		{"name", v.Name()},
		{"description", m.Description},
		{"tags", texts(m.Tags)},
		{"default_queue_type", queueType},
		{"protected_from_deletion", m.ProtectedFromDeletion},
		{"metadata", metadata},
		{"tracing", v.Tracing()},
		{"cluster_state", object{{r.broker.Node(), "running"}}},
	}
}

// texts is never null in JSON.
func texts(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

func listVHosts(r *request) (any, error) {
	r.broker.Collect()
	return listOf(r.visibleVHosts(), vhostColumns, func(v *broker.VHost) object {
		return append(r.vhostRow(v), r.vhostStats(v)...)
	}).sortedBy("name"), nil
}

func getVHost(r *request) (any, error) {
	r.broker.Collect()
	return append(r.vhostRow(r.vhost), r.vhostStats(r.vhost)...), nil
}

// vhostStats are the numbers of a vhost: messages, and the bytes of the connections that are in it.
func (r *request) vhostStats(v *broker.VHost) object {
	if r.query.Get("disable_stats") == "true" {
		return nil
	}
	rates, lengthsOf, data := r.window("msg_rates"), r.window("lengths"), r.window("data_rates")
	s := r.broker.VHostSeries(v, rates.asked() || lengthsOf.asked() || data.asked())
	var ready, unacked, all int
	var d queue.Details
	queues := v.Queues()
	for _, q := range queues {
		q.Details(&d)
		ready, unacked, all = ready+d.Ready, unacked+d.Unacked, all+d.Messages()
	}
	now := v.MessageStats()
	o := object{}
	if len(queues) > 0 {
		o = lengths(ready, unacked, all, &s, lengthsOf, vhostLengths)
	}
	o = append(o, messageStats(&now, &s, rates, channelCounts, vhostMessages)...)
	if s.Last.TrafficSample != (broker.TrafficSample{}) {
		o = append(o, traffic(s.Last.TrafficSample, &s, data, func(v *broker.VHostSample) *broker.TrafficSample { return &v.TrafficSample })...)
	}
	return o
}

// putVHost makes a vhost, whose maker may do everything in it, or replaces what describes it.
func putVHost(r *request) (any, error) {
	name := r.param("vhost")
	if name == "" || len(name) > maxName {
		return nil, badRequest(fmt.Sprintf("a name has 1 to %d bytes", maxName))
	}
	o, err := r.decode()
	if err != nil {
		return nil, err
	}
	m, tracing, err := r.vhostMetadata(o)
	if err != nil {
		return nil, err
	}
	before := r.broker.VHost(name)
	v, err := r.broker.CreateVHost(name)
	if err != nil {
		if v == nil {
			return nil, badRequest(err.Error())
		}
		return nil, err
	}
	if before != nil && !o.has("protected_from_deletion") {
		m.ProtectedFromDeletion = v.Metadata().ProtectedFromDeletion
	}
	if err := v.SetMetadata(m); err != nil {
		return nil, err
	}
	if tracing != nil {
		v.SetTracing(*tracing)
	}
	if before == nil && r.user != nil {
		all, err := auth.CompilePermissions(".*", ".*", ".*")
		if err == nil {
			err = r.broker.Users().Grant(r.user.Name, name, all)
		}
		if err != nil {
			return nil, err
		}
	}
	return put(before == nil), nil
}

func (r *request) vhostMetadata(o body) (m broker.VHostMetadata, tracing *bool, err error) {
	if m.Description, err = o.text("description", ""); err != nil {
		return m, nil, err
	}
	if m.Tags, err = o.tags("tags"); err != nil {
		return m, nil, err
	}
	if m.DefaultQueueType, err = o.text("default_queue_type", ""); err != nil {
		return m, nil, err
	}
	if t := m.DefaultQueueType; t != "" && !slices.Contains([]string{"classic", "quorum", "stream"}, t) {
		return m, nil, badRequest(t + " is not a valid queue type")
	}
	if m.ProtectedFromDeletion, err = o.flag("protected_from_deletion", false); err != nil {
		return m, nil, err
	}
	if o.has("tracing") {
		on, err := o.flag("tracing", false)
		if err != nil {
			return m, nil, err
		}
		tracing = &on
	}
	return m, tracing, nil
}

// tags are a list, or a text with commas.
func (o body) tags(key string) ([]string, error) {
	if !o.has(key) {
		return nil, nil
	}
	var list []string
	if o[key][0] == '[' {
		if err := o.value(key, &list); err != nil {
			return nil, err
		}
	} else {
		text, err := o.text(key, "")
		if err != nil {
			return nil, err
		}
		list = strings.Split(text, ",")
	}
	var tags []string
	for _, t := range list {
		if t = strings.TrimSpace(t); t != "" && !slices.Contains(tags, t) {
			tags = append(tags, t)
		}
		if len(t) > maxName {
			return nil, badRequest("a tag is too long")
		}
	}
	return tags, nil
}

func deleteVHost(r *request) (any, error) {
	name := r.vhost.Name()
	err := r.broker.DeleteVHost(name)
	if errors.Is(err, broker.ErrProtected) {
		return nil, &apiError{
			http.StatusPreconditionFailed, "precondition_failed",
			"Refusing to delete virtual host '" + name + "' because it is protected from deletion",
		}
	}
	return noContent, err
}

// startVHost starts a vhost on a node: there is one node, and all vhosts run.
func startVHost(r *request) (any, error) {
	if node := r.param("node"); node != r.broker.Node() {
		return nil, badRequest("Unknown node: " + node)
	}
	return noContent, nil
}

func protectVHost(r *request) (any, error)   { return r.protect(true) }
func unprotectVHost(r *request) (any, error) { return r.protect(false) }

func (r *request) protect(on bool) (any, error) {
	m := r.vhost.Metadata()
	m.ProtectedFromDeletion = on
	return noContent, r.vhost.SetMetadata(m)
}
