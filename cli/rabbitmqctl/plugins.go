package rabbitmqctl

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// enabledPlugins are those of RabbitMQ whose work SettMQ does without any. They are always on.
var enabledPlugins = []string{
	"rabbitmq_consistent_hash_exchange", "rabbitmq_delayed_message_exchange", "rabbitmq_event_exchange", "rabbitmq_management", "rabbitmq_management_agent",
	"rabbitmq_prometheus", "rabbitmq_random_exchange", "rabbitmq_recent_history_exchange", "rabbitmq_sharding", "rabbitmq_web_dispatch",
}

func pluginCommands() map[string]command {
	return map[string]command{
		"list": {
			most: 1, usage: "[pattern] [--verbose] [--minimal] [--enabled] [--implicitly-enabled]",
			switches: []string{"enabled", "enabled-explicitly", "implicitly-enabled", "minimal", "verbose", "offline", "online"},
			check: func(c *call) error {
				if _, err := regexp.Compile(c.pattern()); err != nil {
					return failf(exitUsage, "%s", err)
				}
				return nil
			},
			banner: func(c *call) string { return fmt.Sprintf("Listing plugins with pattern %q ...", raw(c.pattern())) },
			run:    listPlugins,
		},
		"enable": {
			most: -1, usage: "<plugin1> [ <plugin2>] | --all [--offline] [--online]", switches: []string{"all", "offline", "online"},
			check: func(c *call) error {
				if len(c.args) == 0 && !c.opts.has("all") {
					return failf(exitUsage, "not enough arguments.")
				}
				return nil
			},
			banner: func(c *call) string { return fmt.Sprintf("Enabling plugins on node %s:", c.nodeName()) },
			run:    enablePlugins,
		},
		"disable": {
			most: -1, usage: "<plugin> [<plugin>] | --all [--offline] [--online]", switches: []string{"all", "offline", "online"},
			run: func(c *call) (result, error) {
				for _, p := range c.args {
					if slices.Contains(enabledPlugins, p) {
						return nil, failf(exitSoftware, "not supported by SettMQ: %s is part of the broker and cannot be disabled", p)
					}
				}
				return nil, nil
			},
		},
		"set": {
			most: -1, usage: "[ <plugin> [<plugin>] ] [--offline] [--online]", switches: []string{"offline", "online"},
			banner: func(c *call) string { return fmt.Sprintf("Enabling plugins on node %s:", c.nodeName()) },
			run:    enablePlugins,
		},
		"is_enabled": {
			least: 1, most: -1, usage: "<plugin1> [ <plugin2>] [--offline] [--online]", switches: []string{"offline", "online"},
			banner: func(c *call) string {
				return fmt.Sprintf("Asking node %s if plugin %s is enabled...", c.nodeName(), strings.Join(c.args, ", "))
			},
			run: func(c *call) (result, error) {
				for _, p := range c.args {
					if !slices.Contains(enabledPlugins, p) {
						return nil, failf(exitUnavailable, "Plugin %s is not enabled on node %s. Enabled plugins and dependencies: %s", p, c.nodeName(), strings.Join(enabledPlugins, ", "))
					}
				}
				if len(c.args) == 1 {
					return message(fmt.Sprintf("Plugin %s is enabled on node %s", c.args[0], c.nodeName())), nil
				}
				return message(fmt.Sprintf("Plugins %s are enabled on node %s", strings.Join(c.args, ", "), c.nodeName())), nil
			},
		},
		"version":     {run: func(c *call) (result, error) { return rabbitVersion(c) }},
		"directories": {most: -1, open: true, run: refused("it has no plugins").run},
	}
}

func (c *call) pattern() string {
	if len(c.args) > 0 {
		return c.args[0]
	}
	return ".*"
}

func listPlugins(c *call) (result, error) {
	o, err := c.overview()
	if err != nil {
		return nil, err
	}
	pattern := regexp.MustCompile(c.pattern()) // checked before
	var found []string
	width := 0
	for _, p := range enabledPlugins {
		if pattern.MatchString(p) && !c.opts.has("implicitly-enabled") {
			found = append(found, p)
			width = max(width, len(p))
		}
	}
	var b strings.Builder
	minimal := c.opts.has("minimal")
	if !minimal && !c.quiet() {
		fmt.Fprintf(&b, " Configured: E = explicitly enabled; e = implicitly enabled\n | Status: * = running on %s\n |/\n", o.Node)
	}
	objects := []pairs{}
	for _, p := range found {
		if minimal {
			fmt.Fprintln(&b, p)
		} else {
			fmt.Fprintf(&b, "[E*] %-*s %s\n", width, p, o.RabbitMQVersion)
		}
		objects = append(objects, pairs{{"name", p}, {"enabled", "enabled"}, {"running", true}, {"version", o.RabbitMQVersion}, {"running_version", o.RabbitMQVersion}})
	}
	return &report{b.String(), pairs{{"status", "running"}, {"format", "normal"}, {"plugins", objects}}}, nil
}

// enablePlugins has nothing to do for a plugin whose work the broker does, and refuses others.
func enablePlugins(c *call) (result, error) {
	if c.opts.has("all") {
		c.args = enabledPlugins
	}
	for _, p := range c.args {
		if !slices.Contains(enabledPlugins, p) {
			return nil, failf(exitUnavailable, "SettMQ has no plugins, and nothing that does the work of %s. Part of the broker and always on: %s", p, strings.Join(enabledPlugins, ", "))
		}
	}
	var b strings.Builder
	if !c.quiet() {
		fmt.Fprintln(&b, strings.Join(c.args, "\n"))
	}
	fmt.Fprintf(&b, "The following plugins have been configured:\n%s\n", strings.Join(prefixed("  ", enabledPlugins), "\n"))
	fmt.Fprintf(&b, "Applying plugin configuration to %s...\nPlugin configuration unchanged.\n", c.nodeName())
	return &report{b.String(), pairs{{"enabled", []string{}}, {"set", enabledPlugins}, {"mode", "online"}}}, nil
}

func otherCommands() map[string]command {
	return map[string]command{
		"list_feature_flags": {
			most: -1, usage: "[<column> ...]", switches: []string{"detailed"}, banner: say("Listing feature flags ..."),
			check: columnsOf("name", "state", "stability", "provided_by", "desc", "doc_url", "experiment_level", "callbacks", "require_level"),
			run:   func(c *call) (result, error) { return c.flags("feature-flags", []string{"name", "state"}) },
		},
		"list_deprecated_features": {
			most: -1, usage: "[<column> ...]", switches: []string{"used"}, banner: say("Listing deprecated features ..."),
			run: func(c *call) (result, error) { return c.flags("deprecated-features", []string{"name", "state"}) },
		},
		"enable_feature_flag": {
			least: 1, most: 1, usage: "<all | feature_flag> [--opt-in]", switches: []string{"opt-in", "experimental"},
			banner: func(c *call) string {
				if c.args[0] == "all" {
					return "Enabling all feature flags ..."
				}
				return fmt.Sprintf("Enabling feature flag %q ...", c.args[0])
			},
			run: func(c *call) (result, error) {
				if c.args[0] == "all" {
					return nil, nil
				}
				var all []struct {
					Name string `json:"name"`
				}
				if err := c.api.Get(c.ctx, "feature-flags", &all); err != nil {
					return nil, err
				}
				for _, flag := range all {
					if flag.Name == c.args[0] {
						return nil, nil // all of them are on
					}
				}
				return nil, failf(exitUsage, "This feature flag is not supported by node %s", c.nodeName())
			},
		},
		"set_cluster_name": {
			least: 1, most: 1, usage: "<name>",
			banner: func(c *call) string { return fmt.Sprintf("Setting cluster name to %s ...", c.args[0]) },
			run: func(c *call) (result, error) {
				return nil, c.api.Do(c.ctx, "PUT", "cluster-name", map[string]any{"name": c.args[0]}, nil)
			},
		},
		"force_gc":                 nothing("SettMQ collects its garbage by itself"),
		"eval":                     refused("there is no Erlang in it"),
		"eval_file":                refused("there is no Erlang in it"),
		"exec":                     refused("there is no Erlang in it"),
		"rotate_logs":              refused("it logs to standard error; what keeps the log rotates it"),
		"reset":                    refused("stop it and remove its data directory"),
		"force_reset":              refused("stop it and remove its data directory"),
		"stop":                     refused("end its process, or stop its service or container"),
		"shutdown":                 refused("end its process, or stop its service or container"),
		"stop_app":                 refused("the process is the broker: there is no application to stop inside it"),
		"start_app":                startApp,
		"join_cluster":             refused("it has no clusters"),
		"forget_cluster_node":      refused("it has no clusters"),
		"change_cluster_node_type": refused("it has no clusters"),
		"set_log_level":            refused("set log.level and send it SIGHUP"),
		"suspend_listeners":        refused("stop it"),
		"resume_listeners":         refused("its listeners are never suspended"),
	}
}

// startApp succeeds when the application runs, which is all the original promises.
var startApp = command{
	banner: func(c *call) string { return fmt.Sprintf("Starting node %s ...", c.nodeName()) },
	run: func(c *call) (result, error) {
		_, err := c.overview()
		return nil, err
	},
}

func (c *call) flags(path string, usual []string) (result, error) {
	var all []map[string]any
	if err := c.api.Get(c.ctx, path, &all); err != nil {
		return nil, err
	}
	return c.pick(all, usual, func(o map[string]any, column string) any {
		if n, ok := o[column].(json.Number); ok {
			return n.String()
		}
		return plain(o, column)
	}), nil
}

// allCommands is every command of every tool.
func allCommands() map[string]command {
	all := map[string]command{}
	for _, some := range []map[string]command{
		userCommands(), vhostCommands(), accessCommands(), policyCommands(), topologyCommands(), nodeCommands(), alarmLimitCommands(), otherCommands(),
	} {
		maps.Copy(all, some)
	}
	return all
}
