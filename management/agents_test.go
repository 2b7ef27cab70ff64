package management

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// What monitoring agents, scalers and provisioners ask for, and the fields that they read with the types that they need. A
// field is a path: a name, [] for each item of a list, which must not be empty; ? in front says that it may be missing.
var agents = []struct {
	agent, request string
	fields         string
}{
	{"KEDA", "GET /api/queues/%2F/orders", "messages:number messages_unacknowledged:number name:string message_stats.publish_details.rate:number"},
	{
		"KEDA", "GET /api/queues/%2F?page=1&use_regex=true&pagination=false&name=%5Eorders%24&page_size=100",
		"items[].name:string items[].messages:number items[].messages_unacknowledged:number items[].message_stats.publish_details.rate:number",
	},
	{"KEDA", "GET /api/queues?page=1&use_regex=true&pagination=false&name=ord.*&page_size=100", "items[].name:string items[].vhost:string"},
	{"Datadog", "GET /api/overview", "rabbitmq_version:string management_version:string cluster_name:string object_totals.queues:number object_totals.consumers:number " +
		"object_totals.connections:number object_totals.channels:number queue_totals.messages:number queue_totals.messages_ready:number " +
		"queue_totals.messages_unacknowledged:number queue_totals.messages_details.rate:number message_stats.publish:number message_stats.publish_details.rate:number " +
		"message_stats.confirm:number ?message_stats.ack:number node:string"},
	{"Datadog", "GET /api/vhosts", "[].name:string"},
	{"Datadog", "GET /api/nodes", "[].name:string [].fd_used:number [].fd_total:number [].disk_free:number [].mem_used:number [].mem_limit:number [].run_queue:number " +
		"[].sockets_used:number [].partitions:list [].running:bool [].mem_alarm:bool [].disk_free_alarm:bool [].disk_free_limit:number"},
	{"Datadog", "GET /api/queues", "[].name:string [].vhost:string [].node:string [].consumers:number [].memory:number [].messages:number [].messages_ready:number " +
		"[].messages_unacknowledged:number [].messages_details.rate:number [].messages_ready_details.rate:number [].state:string [].arguments:object"},
	{"Datadog", "GET /api/queues/%2F/orders/bindings", "[].source:string [].routing_key:string [].properties_key:string"},
	{"Datadog", "GET /api/exchanges", "[].name:string [].vhost:string [].type:string [].durable:bool"},
	{"Datadog", "GET /api/connections", "[].name:string [].state:string [].vhost:string [].user:string [].channels:number"},
	{"Datadog", "GET /api/aliveness-test/%2F", "status:string"},
	{"Telegraf", "GET /api/overview", "listeners[].protocol:string queue_totals.messages:number object_totals.exchanges:number message_stats.deliver_get:number"},
	{"Telegraf", "GET /api/nodes", "[].uptime:number [].proc_used:number [].proc_total:number [].fd_used_details.rate:number [].gc_num:number [].io_read_avg_time:number " +
		"[].mem_used_details.rate:number [].mnesia_disk_tx_count:number [].gc_bytes_reclaimed_details.rate:number"},
	{"Telegraf", "GET /api/nodes/{node}/memory", "memory.total.rss:number memory.binary:number memory.other_proc:number"},
	{"Telegraf", "GET /api/queues", "[].messages_ram:number [].message_bytes:number [].message_bytes_ready:number [].consumer_utilisation:number [].durable:bool [].auto_delete:bool"},
	{"Telegraf", "GET /api/exchanges", "[].internal:bool [].auto_delete:bool"},
	{"Telegraf", "GET /api/federation-links", ""},
	{"OpenTelemetry", "GET /api/queues", "[].consumers:number [].messages_unacknowledged:number [].message_stats.publish:number ?[].message_stats.deliver_get:number"},
	{"OpenTelemetry", "GET /api/nodes", "[].disk_free:number [].fd_used:number [].mem_limit:number [].mem_used:number [].sockets_total:number [].context_switches:number"},
	{"Flower", "GET /api/queues/%2F", "[].name:string [].messages:number [].messages_ready:number [].messages_unacknowledged:number [].consumers:number ?[].idle_since:string"},
	{"Hutch", "GET /api/vhosts", "[].name:string"},
	{"Hutch", "GET /api/bindings/%2F", "[].destination:string [].destination_type:string [].source:string [].routing_key:string [].arguments:object"},
	{"Hutch", "GET /api/nodes", "[].name:string"},
	{"netdata", "GET /api/definitions", "vhosts[].name:string rabbit_version:string queues[].name:string users[].name:string"},
	{"netdata", "GET /api/vhosts", "[].messages:number [].message_stats.publish:number"},
	{"nagios", "GET /api/healthchecks/node", "status:string"},
	{"nagios", "GET /api/health/checks/local-alarms", "status:string"},
	{"nagios", "GET /api/queues/%2F/orders", "consumers:number messages_ready:number policy:null"},
	{"NServiceBus", "GET /api/overview", "rabbitmq_version:string product_name:string disable_stats:bool enable_queue_totals:bool"},
	{"NServiceBus", "GET /api/feature-flags", "[].name:string [].state:string"},
	{"NServiceBus", "GET /api/queues/%2F/orders", "type:string arguments:object ?delivery_limit:number effective_policy_definition:object"},
	{"NServiceBus", "GET /api/queues?page=1&page_size=500", "items[].name:string page_count:number page:number ?items[].message_stats.ack:number"},
	{"EasyNetQ", "GET /api/vhosts", "[].name:string [].tracing:bool"},
	{"EasyNetQ", "GET /api/queues/%2F/orders?lengths_age=60&lengths_incr=5", "messages_details.samples[].sample:number messages_details.samples[].timestamp:number"},
	{"Terraform", "GET /api/users/guest", "name:string password_hash:string hashing_algorithm:string tags:list limits:object"},
	{"Terraform", "GET /api/permissions/%2F/guest", "configure:string write:string read:string"},
	{"Terraform", "GET /api/exchanges/%2F/amq.topic", "type:string durable:bool auto_delete:bool arguments:object"},
}

func TestWhatAgentsAskFor(t *testing.T) {
	a := newOwnAPI(t)
	a.put("/api/queues/%2F/orders", `{"durable":true}`)
	a.do("POST", "/api/bindings/%2F/e/amq.topic/q/orders", `{"routing_key":"order.#"}`, http.StatusCreated)
	a.do("POST", "/api/exchanges/%2F/amq.topic/publish",
		`{"properties":{"delivery_mode":2},"routing_key":"order.new","payload":"tea","payload_encoding":"string"}`, http.StatusOK)
	a.got("%2F", "orders", ackRequeue, 1)
	dial(t, a.amqpURL(), "guest")
	a.broker.TakeSample()
	a.broker.TakeSample()
	for _, agent := range agents {
		method, path, _ := strings.Cut(agent.request, " ")
		path = strings.ReplaceAll(path, "{node}", a.broker.Node())
		var answer any
		if err := json.Unmarshal([]byte(a.do(method, path, "", http.StatusOK)), &answer); err != nil {
			t.Errorf("%s: %s: %v", agent.agent, agent.request, err)
			continue
		}
		for _, field := range strings.Fields(agent.fields) {
			at, kind, _ := strings.Cut(field, ":")
			optional := strings.HasPrefix(at, "?")
			if err := reads(answer, strings.TrimPrefix(at, "?"), kind); err != nil && (!optional || err != errNoField) {
				t.Errorf("%s: %s: %s: %v", agent.agent, agent.request, field, err)
			}
		}
	}
}

var errNoField = fmt.Errorf("is not there")

// reads follows a path and checks the type of what is there, in every item of a list on its way.
func reads(v any, path, kind string) error {
	if path == "" {
		if got := kindOf(v); got != kind {
			return fmt.Errorf("is of type %s", got)
		}
		return nil
	}
	if rest, ok := strings.CutPrefix(path, "[]"); ok {
		list, ok := v.([]any)
		if !ok || len(list) == 0 {
			return fmt.Errorf("no list, or an empty one: %v", v)
		}
		err := error(nil)
		for _, item := range list { // what not all have, one has
			if err = reads(item, strings.TrimPrefix(rest, "."), kind); err == nil {
				return nil
			}
		}
		return err
	}
	name, rest := path, ""
	if i := strings.IndexAny(path, ".["); i >= 0 {
		name, rest = path[:i], strings.TrimPrefix(path[i:], ".")
	}
	fields, _ := v.(map[string]any)
	next, ok := fields[name]
	switch {
	case !ok && kind == "null":
		return nil
	case !ok:
		return errNoField
	}
	return reads(next, rest, kind)
}
