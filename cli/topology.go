package cli

import (
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/settmq/settmq/cli/api"
)

func (a *App) queuesCommand() *cobra.Command {
	path := func(vhost, name string) string { return api.Path("queues", vhost, name) }
	return group("queues", "Queues: list, show, declare, delete, purge",
		a.list(listing{path: "queues", byVHost: true, columns: []string{
			"name", "vhost", "type", "state", "messages_ready", "messages_unacknowledged", "messages", "consumers", "policy",
		}}),
		a.show("queue", true, path), declareQueue(), deleteQueue(), purgeQueue())
}

func declareQueue() *cobra.Command {
	var vhost, kind string
	var durable, autoDelete bool
	var args *[]string
	cmd := apiCommand("declare NAME", "Make a queue, if it is not there", operands(1, 1, "the name of one queue"), func(r *request) error {
		m, err := arguments(*args)
		if err != nil {
			return err
		}
		if kind != "" {
			m["x-queue-type"] = kind
		}
		body := map[string]any{"durable": durable, "auto_delete": autoDelete, "arguments": m}
		if err := r.api.Do(r.ctx, http.MethodPut, api.Path("queues", vhost, r.args[0]), body, nil); err != nil {
			return missing(err, "vhost", vhost, "")
		}
		return r.done("queue %q is there", r.args[0])
	})
	f := cmd.Flags()
	vhostFlag(cmd, &vhost)
	f.StringVar(&kind, "type", "", "`type`: classic, quorum or stream (default: that of the vhost)")
	f.BoolVar(&durable, "durable", true, "the queue survives a restart of the broker")
	f.BoolVar(&autoDelete, "auto-delete", false, "the queue goes with its last consumer")
	args = argumentFlag(cmd)
	return cmd
}

func deleteQueue() *cobra.Command {
	var vhost string
	var ifUnused, ifEmpty bool
	cmd := apiCommand("delete NAME", "Delete a queue with its messages", operands(1, 1, "the name of one queue"), func(r *request) error {
		q := url.Values{}
		if ifUnused {
			q.Set("if-unused", "true")
		}
		if ifEmpty {
			q.Set("if-empty", "true")
		}
		if err := r.api.Do(r.ctx, http.MethodDelete, withQuery(api.Path("queues", vhost, r.args[0]), q), nil, nil); err != nil {
			return missing(err, "queue", r.args[0], vhost)
		}
		return r.done("queue %q deleted", r.args[0])
	})
	vhostFlag(cmd, &vhost)
	cmd.Flags().BoolVar(&ifUnused, "if-unused", false, "only if it has no consumers")
	cmd.Flags().BoolVar(&ifEmpty, "if-empty", false, "only if it holds no messages")
	return cmd
}

func purgeQueue() *cobra.Command {
	var vhost string
	cmd := apiCommand("purge NAME", "Drop the messages of a queue that wait", operands(1, 1, "the name of one queue"), func(r *request) error {
		if err := r.api.Do(r.ctx, http.MethodDelete, api.Path("queues", vhost, r.args[0], "contents"), nil, nil); err != nil {
			return missing(err, "queue", r.args[0], vhost)
		}
		return r.done("queue %q purged", r.args[0])
	})
	vhostFlag(cmd, &vhost)
	return cmd
}

func (a *App) exchangesCommand() *cobra.Command {
	path := func(vhost, name string) string { return api.Path("exchanges", vhost, name) }
	return group("exchanges", "Exchanges: list, show, declare, delete",
		a.list(listing{path: "exchanges", byVHost: true, columns: []string{"name", "vhost", "type", "durable", "auto_delete", "internal", "policy"}}),
		a.show("exchange", true, path), declareExchange(), deleteExchange())
}

func declareExchange() *cobra.Command {
	var vhost, kind string
	var durable, autoDelete, internal bool
	var args *[]string
	cmd := apiCommand("declare NAME --type TYPE", "Make an exchange, if it is not there", operands(1, 1, "the name of one exchange"), func(r *request) error {
		if kind == "" {
			return Usagef("needs --type: direct, fanout, topic, headers or another")
		}
		m, err := arguments(*args)
		if err != nil {
			return err
		}
		body := map[string]any{"type": kind, "durable": durable, "auto_delete": autoDelete, "internal": internal, "arguments": m}
		if err := r.api.Do(r.ctx, http.MethodPut, api.Path("exchanges", vhost, r.args[0]), body, nil); err != nil {
			return missing(err, "vhost", vhost, "")
		}
		return r.done("exchange %q is there", r.args[0])
	})
	f := cmd.Flags()
	vhostFlag(cmd, &vhost)
	f.StringVar(&kind, "type", "", "`type`: direct, fanout, topic, headers, x-consistent-hash …")
	f.BoolVar(&durable, "durable", true, "the exchange survives a restart of the broker")
	f.BoolVar(&autoDelete, "auto-delete", false, "the exchange goes with its last binding")
	f.BoolVar(&internal, "internal", false, "only other exchanges may publish to it")
	args = argumentFlag(cmd)
	return cmd
}

func deleteExchange() *cobra.Command {
	var vhost string
	var ifUnused bool
	cmd := apiCommand("delete NAME", "Delete an exchange", operands(1, 1, "the name of one exchange"), func(r *request) error {
		q := url.Values{}
		if ifUnused {
			q.Set("if-unused", "true")
		}
		if err := r.api.Do(r.ctx, http.MethodDelete, withQuery(api.Path("exchanges", vhost, r.args[0]), q), nil, nil); err != nil {
			return missing(err, "exchange", r.args[0], vhost)
		}
		return r.done("exchange %q deleted", r.args[0])
	})
	vhostFlag(cmd, &vhost)
	cmd.Flags().BoolVar(&ifUnused, "if-unused", false, "only if nothing is bound to it")
	return cmd
}

func (a *App) bindingsCommand() *cobra.Command {
	return group("bindings", "Bindings: list, declare, delete",
		a.list(listing{path: "bindings", byVHost: true, columns: []string{
			"source", "vhost", "destination", "destination_type", "routing_key", "arguments", "properties_key",
		}}),
		bindingCommand("declare SOURCE DESTINATION", "Bind a queue, or an exchange, to an exchange", addBinding),
		bindingCommand("delete SOURCE DESTINATION", "Remove a binding", removeBinding))
}

// binding is what a binding command was told.
type binding struct {
	vhost, source, destination, kind, key string
	arguments                             map[string]any
}

// path is the place of the bindings between source and destination.
func (b *binding) path() string {
	return api.Path("bindings", b.vhost, "e", b.source, b.kind, b.destination)
}

func bindingCommand(use, short string, run func(r *request, b *binding) error) *cobra.Command {
	var b binding
	var toExchange bool
	var args *[]string
	cmd := apiCommand(use, short, operands(2, 2, "an exchange, and what is bound to it"), func(r *request) error {
		m, err := arguments(*args)
		if err != nil {
			return err
		}
		b.source, b.destination, b.kind, b.arguments = r.args[0], r.args[1], "q", m
		if toExchange {
			b.kind = "e"
		}
		return run(r, &b)
	})
	vhostFlag(cmd, &b.vhost)
	cmd.Flags().StringVar(&b.key, "key", "", "routing `key` or pattern")
	cmd.Flags().BoolVar(&toExchange, "to-exchange", false, "the destination is an exchange")
	args = argumentFlag(cmd)
	return cmd
}

func addBinding(r *request, b *binding) error {
	body := map[string]any{"routing_key": b.key, "arguments": b.arguments}
	if err := r.api.Do(r.ctx, http.MethodPost, b.path(), body, nil); err != nil {
		if api.Is(err, http.StatusNotFound) {
			return &missingError{fmt.Sprintf("there is no exchange %q, or no %q to bind to it, in vhost %q", b.source, b.destination, b.vhost)}
		}
		return err
	}
	return r.done("%q is bound to %q", b.destination, b.source)
}

// removeBinding looks for the binding first: its key in the API depends on its arguments.
func removeBinding(r *request, b *binding) error {
	var list []struct {
		Key        string         `json:"routing_key"`
		Arguments  map[string]any `json:"arguments"`
		Properties string         `json:"properties_key"`
	}
	err := r.api.Get(r.ctx, b.path(), &list)
	if err != nil && !api.Is(err, http.StatusNotFound) {
		return err
	}
	for _, found := range list {
		if found.Key != b.key || len(found.Arguments) != len(b.arguments) || text(any(found.Arguments)) != text(any(b.arguments)) {
			continue
		}
		if err := r.api.Do(r.ctx, http.MethodDelete, b.path()+"/"+api.Path(found.Properties), nil, nil); err != nil {
			return err
		}
		return r.done("%q is no longer bound to %q", b.destination, b.source)
	}
	return &missingError{fmt.Sprintf("there is no such binding of %q to %q in vhost %q; settmq bindings list shows keys and arguments", b.destination, b.source, b.vhost)}
}

func withQuery(path string, q url.Values) string {
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

func (a *App) connectionsCommand() *cobra.Command {
	path := func(_, name string) string { return api.Path("connections", name) }
	return group("connections", "Connections: list, show, close",
		a.list(listing{path: "connections", columns: []string{
			"name", "user", "vhost", "state", "channels", "protocol", "ssl", "client_properties.connection_name", "client_properties.product",
		}}),
		a.show("connection", false, path), closeConnection())
}

func closeConnection() *cobra.Command {
	var user, reason string
	cmd := apiCommand("close {NAME | --by-user USER}", "Close a connection, or all of a user", operands(0, 1, "one connection or --by-user"), func(r *request) error {
		path := ""
		switch {
		case (user == "") == (len(r.args) == 0):
			return Usagef("needs the name of one connection, or --by-user")
		case user != "":
			path = api.Path("connections", "username", user)
		default:
			path = api.Path("connections", r.args[0])
		}
		if err := r.api.DoWith(r.ctx, "X-Reason", reason, http.MethodDelete, path, nil, nil); err != nil {
			return missing(err, "connection", append(r.args, user)[0], "")
		}
		return r.done("closed")
	})
	cmd.Flags().StringVar(&user, "by-user", "", "close all connections of the `user`")
	cmd.Flags().StringVar(&reason, "reason", "closed by settmq connections close", "what the client is `told`")
	return cmd
}

func (a *App) channelsCommand() *cobra.Command {
	path := func(_, name string) string { return api.Path("channels", name) }
	return group("channels", "Channels: list, show",
		a.list(listing{path: "channels", columns: []string{
			"name", "user", "vhost", "consumer_count", "prefetch_count", "messages_unacknowledged", "messages_unconfirmed", "confirm", "transactional",
		}}),
		a.show("channel", false, path))
}

func (a *App) consumersCommand() *cobra.Command {
	return group("consumers", "Consumers: list",
		a.list(listing{path: "consumers", byVHost: true, columns: []string{
			"consumer_tag", "queue.vhost", "queue.name", "channel_details.name", "ack_required", "prefetch_count", "exclusive", "activity_status",
		}}))
}
