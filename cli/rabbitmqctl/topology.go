package rabbitmqctl

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/settmq/settmq/cli/api"
)

// Columns of the lists, as RabbitMQ 4.3 knows them. Those that only Erlang has (pids, memory of a process) are
// empty.
var (
	queueColumns = []string{
		"name", "durable", "auto_delete", "arguments", "policy", "operator_policy", "effective_policy_definition", "pid", "owner_pid", "exclusive",
		"exclusive_consumer_pid", "exclusive_consumer_tag", "messages_ready", "messages_unacknowledged", "messages", "messages_ready_ram",
		"messages_unacknowledged_ram", "messages_ram", "messages_persistent", "message_bytes", "message_bytes_ready", "message_bytes_unacknowledged",
		"message_bytes_ram", "message_bytes_persistent", "head_message_timestamp", "disk_reads", "disk_writes", "consumers", "consumer_utilisation",
		"consumer_capacity", "memory", "state", "type", "leader", "members", "online", "confirm_on", "slave_pids", "synchronised_slave_pids",
		"mirror_pids", "synchronised_mirror_pids", "storage_version", "open_files", "messages_paged_out", "message_bytes_paged_out",
	}
	exchangeColumns   = []string{"name", "type", "durable", "auto_delete", "internal", "arguments", "policy", "user_who_performed_action"}
	bindingColumns    = []string{"source_name", "source_kind", "destination_name", "destination_kind", "routing_key", "arguments"}
	connectionColumns = []string{
		"pid", "name", "port", "host", "peer_port", "peer_host", "ssl", "ssl_protocol", "ssl_key_exchange", "ssl_cipher", "ssl_hash", "peer_cert_subject",
		"peer_cert_issuer", "peer_cert_validity", "state", "channels", "protocol", "auth_mechanism", "user", "vhost", "timeout", "frame_max",
		"channel_max", "client_properties", "recv_oct", "recv_cnt", "send_oct", "send_cnt", "send_pend", "connected_at", "user_provided_name", "node", "type",
	}
	channelColumns = []string{
		"pid", "connection", "name", "number", "user", "vhost", "transactional", "confirm", "consumer_count", "messages_unacknowledged",
		"messages_uncommitted", "acks_uncommitted", "messages_unconfirmed", "prefetch_count", "global_prefetch_count", "state", "user_who_performed_action",
	}
	consumerColumns = []string{
		"queue_name", "channel_pid", "consumer_tag", "ack_required", "prefetch_count", "active", "activity_status", "arguments", "exclusive",
	}
)

func topologyCommands() map[string]command {
	const columns = "[--no-table-headers] [<column> ...] [--timeout <timeout>]"
	return map[string]command{
		"list_queues": {
			most: -1, usage: "[--vhost <vhost>] [--online] [--offline] [--local] [--no-table-headers] [<column>, ...] [--timeout <timeout>]",
			switches: []string{"online", "offline", "local"}, check: columnsOf(queueColumns...),
			banner: func(c *call) string {
				return fmt.Sprintf("Timeout: 60.0 seconds ...\nListing queues for vhost %s ...", c.vhost())
			},
			run: listQueues,
		},
		"list_exchanges": {
			most: -1, usage: "[--vhost <vhost>] " + columns, check: columnsOf(exchangeColumns...),
			banner: func(c *call) string { return fmt.Sprintf("Listing exchanges for vhost %s ...", c.vhost()) },
			run: func(c *call) (result, error) {
				return c.listIn("exchanges", []string{"name", "type"}, plain)
			},
		},
		"list_bindings": {
			most: -1, usage: "[--vhost <vhost>] " + columns, check: columnsOf(bindingColumns...),
			banner: func(c *call) string { return fmt.Sprintf("Listing bindings for vhost %s...", c.vhost()) },
			run: func(c *call) (result, error) {
				return c.listIn("bindings", bindingColumns, func(o map[string]any, column string) any {
					switch column {
					case "source_name":
						return plain(o, "source")
					case "source_kind":
						return "exchange"
					case "destination_name":
						return plain(o, "destination")
					case "destination_kind":
						return plain(o, "destination_type")
					}
					return plain(o, column)
				})
			},
		},
		"list_connections": {
			most: -1, usage: columns, check: columnsOf(connectionColumns...), banner: say("Listing connections ..."),
			run: func(c *call) (result, error) {
				return c.listAll("connections", []string{"user", "peer_host", "peer_port", "state"}, func(o map[string]any, column string) any {
					if column == "pid" { // what close_connection takes
						column = "name"
					}
					return plain(o, column)
				})
			},
		},
		"list_channels": {
			most: -1, usage: columns, check: columnsOf(channelColumns...), banner: say("Listing channels ..."),
			run: func(c *call) (result, error) {
				return c.listAll("channels", []string{"pid", "user", "consumer_count", "messages_unacknowledged"}, func(o map[string]any, column string) any {
					if column == "pid" || column == "connection" {
						return channelID(o, column)
					}
					return plain(o, column)
				})
			},
		},
		"list_consumers": {
			most: -1, usage: "[--vhost <vhost>] " + columns, check: columnsOf(consumerColumns...),
			banner: func(c *call) string { return fmt.Sprintf("Listing consumers in vhost %s ...", c.vhost()) },
			run: func(c *call) (result, error) {
				usual := []string{"queue_name", "channel_pid", "consumer_tag", "ack_required", "prefetch_count", "active", "arguments"}
				return c.listIn("consumers", usual, func(o map[string]any, column string) any {
					switch column {
					case "queue_name":
						q, _ := o["queue"].(map[string]any)
						return plain(q, "name")
					case "channel_pid":
						details, _ := o["channel_details"].(map[string]any)
						return channelID(details, "pid")
					}
					return plain(o, column)
				})
			},
		},
		"list_unresponsive_queues": {
			most: -1, usage: "[--vhost <vhost>] [--queue-timeout <timeout>] " + columns, switches: []string{"local", "queue-timeout="},
			banner: func(c *call) string { return fmt.Sprintf("Listing unresponsive queues for vhost %s ...", c.vhost()) },
			// A queue answers when its lock is free, or the request that lists all of them does not.
			run: func(c *call) (result, error) {
				_, err := c.listIn("queues", []string{"name"}, plain)
				return &rows{stream: true}, err
			},
		},
		"purge_queue": {
			least: 1, most: 1, usage: "[--vhost <vhost>] <queue>",
			banner: func(c *call) string { return fmt.Sprintf("Purging queue '%s' in vhost '%s' ...", c.args[0], c.vhost()) },
			run: func(c *call) (result, error) {
				err := c.api.Do(c.ctx, http.MethodDelete, api.Path("queues", c.vhost(), c.args[0], "contents"), nil, nil)
				if api.Is(err, http.StatusNotFound) {
					err = &failure{code: exitData, text: "Object (queue, stream, exchange, etc) was not found", bare: true}
				}
				return nil, err
			},
		},
		"delete_queue": {
			least: 1, most: 1, usage: "[--vhost <vhost>] <queue_name> [--if-empty|-e] [--if-unused|-u] [--force]", switches: []string{"if-empty", "if-unused", "enabled"},
			banner: deletingQueue, run: deleteQueue,
		},
		"close_connection": {
			least: 2, most: 2, usage: "<connection_pid> <explanation>",
			banner: func(c *call) string { return fmt.Sprintf("Closing connection %s, reason: %s...", c.args[0], c.args[1]) },
			run: func(c *call) (result, error) {
				err := c.api.DoWith(c.ctx, "X-Reason", header(c.args[1]), http.MethodDelete, api.Path("connections", c.args[0]), nil, nil)
				if api.Is(err, http.StatusNotFound) {
					err = failf(exitUnavailable, "there is no connection %s: rabbitmqctl list_connections name has their names", c.args[0])
				}
				return nil, err
			},
		},
		"close_all_connections": {
			least: 1, most: 1, usage: "[--vhost <vhost> --limit <limit>] [-n <node> --global] [--per-connection-delay <delay>] <explanation>",
			switches: []string{"limit=", "global", "per-connection-delay="},
			banner: func(c *call) string {
				if c.opts.has("global") {
					return fmt.Sprintf("Closing all connections to node %s (global), reason: %s...", c.nodeName(), c.args[0])
				}
				return fmt.Sprintf("Closing all connections in vhost %s, reason: %s...", c.vhost(), c.args[0])
			},
			run: func(c *call) (result, error) {
				n, err := c.closeAll(c.args[0], func(o map[string]any) bool { return c.opts.has("global") || o["vhost"] == c.vhost() })
				return message(fmt.Sprintf("Closed %d connections", n)), err
			},
		},
		"close_all_user_connections": {
			least: 2, most: 2, usage: "<username> <explanation>",
			banner: func(c *call) string {
				return fmt.Sprintf("Closing connections of user %s, reason: %s...", c.args[0], c.args[1])
			},
			run: func(c *call) (result, error) {
				_, err := c.closeAll(c.args[1], func(o map[string]any) bool { return o["user"] == c.args[0] })
				return nil, err
			},
		},
		"export_definitions": {
			least: 1, most: 1, usage: "<file_path> [--format <json | erlang>] [--timeout <timeout>]", switches: []string{"format="}, check: onlyJSON,
			banner: func(c *call) string {
				if c.args[0] == "-" {
					return ""
				}
				return fmt.Sprintf("Exporting definitions in JSON to a file at %q ...", c.args[0])
			},
			run: exportDefinitions,
		},
		"import_definitions": {
			most: 1, usage: "<file_path> [--format <json | erlang>] [--skip-if-unchanged] [--timeout <timeout>]", switches: []string{"format=", "skip-if-unchanged"},
			check: func(c *call) error {
				if err := onlyJSON(c); err != nil || len(c.args) == 0 || c.args[0] == "-" {
					return err
				}
				if _, err := os.Stat(c.args[0]); err != nil {
					return failf(exitData, "Bad argument: File %s does not exist", c.args[0])
				}
				return nil
			},
			banner: func(c *call) string {
				if len(c.args) == 0 || c.args[0] == "-" {
					return "Importing definitions in JSON from standard input ..."
				}
				return fmt.Sprintf("Importing definitions in JSON from a file at %q ...", c.args[0])
			},
			run: importDefinitions,
		},
	}
}

// channelID is what stands for a process id of Erlang: the name of the channel, or of its connection.
func channelID(o map[string]any, column string) any {
	if column == "connection" {
		details, _ := o["connection_details"].(map[string]any)
		return plain(details, "name")
	}
	return plain(o, "name")
}

// listIn lists objects of the vhost. There is nothing in a vhost that is not there.
func (c *call) listIn(kind string, usual []string, value func(o map[string]any, column string) any) (result, error) {
	return c.listAll(kind+"/"+api.Path(c.vhost()), usual, value)
}

func (c *call) listAll(path string, usual []string, value func(o map[string]any, column string) any) (result, error) {
	var all []map[string]any
	if err := c.api.Get(c.ctx, path, &all); err != nil && !api.Is(err, http.StatusNotFound) { // a vhost that is not there has nothing in it
		return nil, err
	}
	slices.SortStableFunc(all, func(a, b map[string]any) int { return strings.Compare(fmt.Sprint(a["name"]), fmt.Sprint(b["name"])) })
	r := c.pick(all, usual, func(o map[string]any, column string) any {
		switch column {
		case "arguments", "client_properties", "effective_policy_definition":
			m, _ := o[column].(map[string]any)
			return typed(sorted(m))
		}
		return value(o, column)
	})
	r.stream = true
	return r, nil
}

// header makes a reason fit for a header of HTTP.
func header(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
}

// typed are arguments. RabbitMQ's JSON gives each its AMQP type.
type typed pairs

// MarshalJSON writes a list of [name, type, value].
func (t typed) MarshalJSON() ([]byte, error) {
	list := make([][3]any, 0, len(t))
	for _, p := range t {
		list = append(list, [3]any{p.key, typeName(p.value), p.value})
	}
	return encode(list)
}

func typeName(v any) string {
	switch v := v.(type) {
	case string:
		return "longstr"
	case bool:
		return "bool"
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE") {
			return "double"
		}
		return "long"
	case []any:
		return "array"
	case map[string]any:
		return "table"
	}
	return "void"
}

func listQueues(c *call) (result, error) {
	if c.opts.has("offline") && !c.opts.has("online") {
		return &rows{stream: true}, nil
	}
	return c.listIn("queues", []string{"name", "messages"}, func(o map[string]any, column string) any {
		switch column {
		case "leader", "pid":
			return plain(o, "node")
		case "members", "online":
			if o["type"] == "classic" {
				return ""
			}
			return []string{fmt.Sprint(o["node"])}
		case "messages", "messages_ready", "messages_unacknowledged", "consumers":
			if o[column] == nil {
				return json.Number("0")
			}
		case "owner_pid":
			details, _ := o["owner_pid_details"].(map[string]any)
			return plain(details, "name")
		}
		return plain(o, column)
	})
}

func deletingQueue(c *call) string {
	text := fmt.Sprintf("Deleting queue '%s' on vhost '%s' ", c.args[0], c.vhost())
	unused, empty := c.opts.has("if-unused"), c.opts.has("if-empty") || c.opts.has("enabled")
	switch {
	case unused && empty:
		text += "if queue is empty and if queue is unused "
	case unused:
		text += "if queue is unused "
	case empty:
		text += "if queue is empty "
	}
	return text + "..."
}

func deleteQueue(c *call) (result, error) {
	var q struct {
		Ready json.Number `json:"messages_ready"`
	}
	path := api.Path("queues", c.vhost(), c.args[0])
	err := c.api.Get(c.ctx, path, &q)
	if err == nil {
		query := url.Values{}
		if c.opts.has("if-unused") {
			query.Set("if-unused", "true")
		}
		if c.opts.has("if-empty") || c.opts.has("enabled") { // -e
			query.Set("if-empty", "true")
		}
		err = c.api.Do(c.ctx, http.MethodDelete, path+"?"+query.Encode(), nil, nil)
	}
	if api.Is(err, http.StatusNotFound) {
		return nil, failf(exitUsage, "No such queue was found")
	} else if err != nil {
		return nil, err
	}
	return message(fmt.Sprintf("Queue was successfully deleted with %s ready messages", first(q.Ready.String(), "0"))), nil
}

func (c *call) closeAll(reason string, which func(o map[string]any) bool) (int, error) {
	var all []map[string]any
	if err := c.api.Get(c.ctx, "connections", &all); err != nil {
		return 0, err
	}
	n := 0
	for _, o := range all {
		if !which(o) {
			continue
		}
		err := c.api.DoWith(c.ctx, "X-Reason", header(reason), http.MethodDelete, api.Path("connections", fmt.Sprint(o["name"])), nil, nil)
		if err != nil && !api.Is(err, http.StatusNotFound) { // it may be gone already
			return n, err
		}
		n++
	}
	return n, nil
}

func onlyJSON(c *call) error {
	if f := c.opts.get("format"); f != "" && !strings.EqualFold(f, "json") {
		return failf(exitUsage, "Formatter should be json: SettMQ has no Erlang terms")
	}
	return nil
}

func exportDefinitions(c *call) (result, error) {
	var d json.RawMessage
	if err := c.api.Get(c.ctx, "definitions", &d); err != nil {
		return nil, err
	}
	if c.args[0] == "-" {
		_, err := c.out.Write(append(d, '\n'))
		return message(""), err
	}
	return nil, os.WriteFile(c.args[0], d, 0o600) // password hashes are in it
}

func importDefinitions(c *call) (result, error) {
	from := c.tool.Stdin
	if len(c.args) > 0 && c.args[0] != "-" {
		f, err := os.Open(c.args[0])
		if err != nil {
			return nil, err
		}
		defer f.Close()
		from = f
	}
	b, err := io.ReadAll(from)
	if err != nil {
		return nil, err
	}
	if !json.Valid(b) {
		return nil, failf(exitData, "the definitions are not valid JSON")
	}
	if err := c.api.Do(c.ctx, http.MethodPost, "definitions", json.RawMessage(b), nil); err != nil {
		return nil, err
	}
	if c.quiet() {
		return nil, nil
	}
	return message("Successfully started definition import. This process is asynchronous and can take some time. Watch target node logs for completion."), nil
}
