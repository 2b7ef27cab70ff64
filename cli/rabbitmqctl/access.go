package rabbitmqctl

import (
	"fmt"
	"net/http"
	"strconv"

	"github.com/settmq/settmq/cli/api"
)

func accessCommands() map[string]command {
	return map[string]command{
		"set_permissions": {
			least: 4, most: 4, usage: "[--vhost <vhost>] <username> <conf> <write> <read>",
			banner: func(c *call) string {
				return fmt.Sprintf("Setting permissions for user %q in vhost %q ...", c.args[0], c.vhost())
			},
			run: func(c *call) (result, error) {
				body := map[string]any{"configure": c.args[1], "write": c.args[2], "read": c.args[3]}
				return nil, c.setPermission("permissions", body)
			},
		},
		"clear_permissions": {
			least: 1, most: 1, usage: "[--vhost <vhost>] <username>",
			banner: func(c *call) string {
				return fmt.Sprintf("Clearing permissions for user %q in vhost %q ...", c.args[0], c.vhost())
			},
			run: func(c *call) (result, error) {
				err := c.api.Do(c.ctx, http.MethodDelete, api.Path("permissions", c.vhost(), c.args[0]), nil, nil)
				if api.Is(err, http.StatusNotFound) { // nothing to clear, unless there is no such vhost
					err = c.haveVHost(c.vhost())
				}
				return nil, err
			},
		},
		"set_permissions_globally": {
			least: 4, most: 4, usage: "<username> <conf> <write> <read>",
			banner: func(c *call) string {
				return fmt.Sprintf("Setting permissions for user %q in all virtual hosts ...", c.args[0])
			},
			run: setPermissionsGlobally,
		},
		"list_permissions": {
			usage:  "[--vhost <vhost>] [--no-table-headers] [--timeout <timeout>]",
			banner: func(c *call) string { return fmt.Sprintf("Listing permissions for vhost %q ...", c.vhost()) },
			run: func(c *call) (result, error) {
				return c.permissions(noVHostOf(c), api.Path("vhosts", c.vhost(), "permissions"), "user", "configure", "write", "read")
			},
		},
		"list_user_permissions": {
			least: 1, most: 1, usage: "[--no-table-headers] <username> [--timeout <timeout>]",
			banner: func(c *call) string { return fmt.Sprintf("Listing permissions for user %q ...", c.args[0]) },
			run: func(c *call) (result, error) {
				return c.permissions(noUserOf(c), api.Path("users", c.args[0], "permissions"), "vhost", "configure", "write", "read")
			},
		},
		"set_topic_permissions": {
			least: 4, most: 4, usage: "[--vhost <vhost>] <username> <exchange> <write> <read>",
			banner: func(c *call) string {
				return fmt.Sprintf("Setting topic permissions on %q for user %q in vhost %q ...", c.args[1], c.args[0], c.vhost())
			},
			run: func(c *call) (result, error) {
				return nil, c.setPermission("topic-permissions", map[string]any{"exchange": c.args[1], "write": c.args[2], "read": c.args[3]})
			},
		},
		"clear_topic_permissions": {
			least: 1, most: 2, usage: "[--vhost <vhost>] <username> [<exchange>]",
			banner: func(c *call) string {
				if len(c.args) > 1 {
					return fmt.Sprintf("Clearing topic permissions on %q for user %q in vhost %q ...", c.args[1], c.args[0], c.vhost())
				}
				return fmt.Sprintf("Clearing topic permissions for user %q in vhost %q ...", c.args[0], c.vhost())
			},
			run: func(c *call) (result, error) {
				path := append([]string{"topic-permissions", c.vhost()}, c.args...)
				err := c.api.Do(c.ctx, http.MethodDelete, api.Path(path...), nil, nil)
				if api.Is(err, http.StatusNotFound) {
					err = c.haveVHost(c.vhost())
				}
				return nil, err
			},
		},
		"list_topic_permissions": {
			usage:  "[--vhost <vhost>] [--no-table-headers] [--timeout <timeout>]",
			banner: func(c *call) string { return fmt.Sprintf("Listing topic permissions for vhost %q ...", c.vhost()) },
			run: func(c *call) (result, error) {
				return c.permissions(noVHostOf(c), api.Path("vhosts", c.vhost(), "topic-permissions"), "user", "exchange", "write", "read")
			},
		},
		"list_user_topic_permissions": {
			least: 1, most: 1, usage: "[--no-table-headers] <username> [--timeout <timeout>]",
			banner: func(c *call) string { return fmt.Sprintf("Listing topic permissions for user %q ...", c.args[0]) },
			run: func(c *call) (result, error) {
				r, err := c.permissions(noUserOf(c), api.Path("users", c.args[0], "topic-permissions"), "vhost", "exchange", "write", "read")
				if err == nil {
					r.(*rows).bare = true
				}
				return r, err
			},
		},
	}
}

func noVHostOf(c *call) func(error) error {
	return func(err error) error { return noVHost(err, c.vhost()) }
}

func noUserOf(c *call) func(error) error {
	return func(err error) error {
		if api.Is(err, http.StatusNotFound) {
			return failf(exitUnavailable, "{:no_such_user, %q}", c.args[0])
		}
		return err
	}
}

// permissions lists those at path; missing words a 404.
func (c *call) permissions(missing func(error) error, path string, fields ...string) (result, error) {
	var all []map[string]any
	if err := c.api.Get(c.ctx, path, &all); err != nil {
		return nil, missing(err)
	}
	r := &rows{fields: fields}
	for _, o := range all {
		var line []any
		for _, f := range fields {
			line = append(line, plain(o, f))
		}
		r.values = append(r.values, line)
	}
	return r, nil
}

// setPermission sets one of the first operand, and says who or what is missing if that is why it fails.
func (c *call) setPermission(kind string, body map[string]any) error {
	err := c.api.Do(c.ctx, http.MethodPut, api.Path(kind, c.vhost(), c.args[0]), body, nil)
	if err == nil || !api.Is(err, http.StatusNotFound) && !api.Is(err, http.StatusBadRequest) {
		return err
	}
	if api.Is(c.api.Get(c.ctx, api.Path("vhosts", c.vhost()), nil), http.StatusNotFound) {
		return failf(exitUnavailable, "Virtual host %s does not exist", c.vhost())
	}
	if api.Is(c.api.Get(c.ctx, api.Path("users", c.args[0]), nil), http.StatusNotFound) {
		return failf(exitNoUser, "User %s does not exist", c.args[0])
	}
	return failf(exitUnavailable, "%s", err)
}

func setPermissionsGlobally(c *call) (result, error) {
	var vhosts []struct {
		Name string `json:"name"`
	}
	if err := c.api.Get(c.ctx, "vhosts", &vhosts); err != nil {
		return nil, err
	}
	for _, v := range vhosts {
		c.opts.values["vhost"] = v.Name
		if err := c.setPermission("permissions", map[string]any{"configure": c.args[1], "write": c.args[2], "read": c.args[3]}); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func policyCommands() map[string]command {
	const usage = "[--vhost <vhost>] [--priority <priority>] [--apply-to <apply-to>] <name> <pattern> <definition>"
	setting := func(c *call, what string) string {
		return fmt.Sprintf("Setting %s %q for pattern %q to %q with priority %q for vhost %q ...",
			what, c.args[0], raw(c.args[1]), raw(c.args[2]), first(c.opts.get("priority"), "0"), c.vhost())
	}
	return map[string]command{
		"set_policy": {
			least: 3, most: 3, usage: usage, switches: []string{"priority=", "apply-to="}, check: checkPriority,
			banner: func(c *call) string { return setting(c, "policy") },
			run:    func(c *call) (result, error) { return nil, c.setPolicy("policies") },
		},
		"set_operator_policy": {
			least: 3, most: 3, usage: usage, switches: []string{"priority=", "apply-to="}, check: checkPriority,
			banner: func(c *call) string { return setting(c, "operator policy override") },
			run:    func(c *call) (result, error) { return nil, c.setPolicy("operator-policies") },
		},
		"clear_policy": {
			least: 1, most: 1, usage: "[--vhost <vhost>] <name>",
			banner: func(c *call) string { return fmt.Sprintf("Clearing policy %q on vhost %q ...", c.args[0], c.vhost()) },
			run:    func(c *call) (result, error) { return nil, c.clear("policies", c.vhost(), c.args[0]) },
		},
		"clear_operator_policy": {
			least: 1, most: 1, usage: "[--vhost <vhost>] <name>",
			banner: func(c *call) string {
				return fmt.Sprintf("Clearing operator policy %q on vhost %q ...", c.args[0], c.vhost())
			},
			run: func(c *call) (result, error) { return nil, c.clear("operator-policies", c.vhost(), c.args[0]) },
		},
		"list_policies": {
			usage:  "[--vhost <vhost>] [--no-table-headers] [--timeout <timeout>]",
			banner: func(c *call) string { return fmt.Sprintf("Listing policies for vhost %q ...", c.vhost()) },
			run:    func(c *call) (result, error) { return c.policies("policies") },
		},
		"list_operator_policies": {
			usage: "[--vhost <vhost>] [--no-table-headers] [--timeout <timeout>]",
			banner: func(c *call) string {
				return fmt.Sprintf("Listing operator policy overrides for vhost %q ...", c.vhost())
			},
			run: func(c *call) (result, error) { return c.policies("operator-policies") },
		},
		"set_parameter": {
			least: 3, most: 3, usage: "[--vhost <vhost>] <component_name> <name> <value>",
			banner: func(c *call) string {
				return fmt.Sprintf("Setting runtime parameter %q for component %q to %q in vhost %q ...", c.args[1], c.args[0], raw(c.args[2]), c.vhost())
			},
			run: func(c *call) (result, error) {
				return nil, c.setParameter(c.args[2], "parameters", c.args[0], c.vhost(), c.args[1])
			},
		},
		"clear_parameter": {
			least: 2, most: 2, usage: "[--vhost <vhost>] <component_name> <name>",
			banner: func(c *call) string {
				return fmt.Sprintf("Clearing runtime parameter %q for component %q on vhost %q ...", c.args[1], c.args[0], c.vhost())
			},
			run: func(c *call) (result, error) { return nil, c.clear("parameters", c.args[0], c.vhost(), c.args[1]) },
		},
		"list_parameters": {
			usage:  "[--vhost <vhost>] [--no-table-headers] [--timeout <timeout>]",
			banner: func(c *call) string { return fmt.Sprintf("Listing runtime parameters for vhost %q ...", c.vhost()) },
			run:    listParameters,
		},
		"set_global_parameter": {
			least: 2, most: 2, usage: "<name> <value>",
			banner: func(c *call) string {
				return fmt.Sprintf("Setting global runtime parameter %q to %q ...", c.args[0], raw(c.args[1]))
			},
			run: func(c *call) (result, error) { return nil, c.setParameter(c.args[1], "global-parameters", c.args[0]) },
		},
		"clear_global_parameter": {
			least: 1, most: 1, usage: "<name>",
			banner: func(c *call) string { return fmt.Sprintf("Clearing global runtime parameter %q ...", c.args[0]) },
			run:    func(c *call) (result, error) { return nil, c.clear("global-parameters", c.args[0]) },
		},
		"list_global_parameters": {
			usage:  "[--no-table-headers] [--timeout <timeout>]",
			banner: say("Listing global runtime parameters ..."), run: listGlobalParameters,
		},
	}
}

func checkPriority(c *call) error {
	if p, set := c.opts.values["priority"]; set {
		if _, err := strconv.Atoi(p); err != nil {
			return failf(exitUsage, "Invalid options for this command:\n--priority : %s", p)
		}
	}
	return nil
}

func (c *call) setPolicy(kind string) error {
	var definition map[string]any
	if err := decode(c.args[2], &definition); err != nil {
		return err
	}
	priority, err := strconv.Atoi(first(c.opts.get("priority"), "0"))
	if err != nil {
		return err
	}
	if err := c.haveVHost(c.vhost()); err != nil {
		return err
	}
	body := map[string]any{
		"pattern": c.args[1], "definition": definition, "priority": priority, "apply-to": first(c.opts.get("apply-to"), "all"),
	}
	return invalid(c.api.Do(c.ctx, http.MethodPut, api.Path(kind, c.vhost(), c.args[0]), body, nil))
}

// clear deletes a policy or a parameter.
func (c *call) clear(path ...string) error {
	err := c.api.Do(c.ctx, http.MethodDelete, api.Path(path...), nil, nil)
	if api.Is(err, http.StatusNotFound) {
		return failf(exitUnavailable, "Parameter does not exist")
	}
	return err
}

func (c *call) policies(kind string) (result, error) {
	var all []map[string]any
	if err := c.api.Get(c.ctx, api.Path(kind, c.vhost()), &all); err != nil {
		return nil, noVHost(err, c.vhost())
	}
	r := &rows{fields: []string{"vhost", "name", "pattern", "apply-to", "definition", "priority"}}
	for _, p := range all {
		definition, err := encode(p["definition"])
		if err != nil {
			return nil, err
		}
		r.values = append(r.values, []any{p["vhost"], p["name"], p["pattern"], p["apply-to"], string(definition), p["priority"]})
	}
	return r, nil
}

func (c *call) setParameter(value string, path ...string) error {
	var v any
	if err := decode(value, &v); err != nil {
		return err
	}
	body := map[string]any{"value": v}
	switch path[0] {
	case "parameters":
		body["component"], body["vhost"], body["name"] = path[1], path[2], path[3]
		if err := c.haveVHost(path[2]); err != nil {
			return err
		}
	default:
		body["name"] = path[1]
	}
	return invalid(c.api.Do(c.ctx, http.MethodPut, api.Path(path...), body, nil))
}

func listParameters(c *call) (result, error) {
	var all []map[string]any
	if err := c.haveVHost(c.vhost()); err != nil {
		return nil, err
	}
	if err := c.api.Get(c.ctx, "parameters", &all); err != nil {
		return nil, err
	}
	r := &rows{fields: []string{"component", "name", "value"}}
	for _, p := range all {
		if p["vhost"] != c.vhost() {
			continue
		}
		value, err := encode(p["value"])
		if err != nil {
			return nil, err
		}
		r.values = append(r.values, []any{p["component"], p["name"], string(value)})
	}
	return r, nil
}

func listGlobalParameters(c *call) (result, error) {
	var all []map[string]any
	if err := c.api.Get(c.ctx, "global-parameters", &all); err != nil {
		return nil, err
	}
	r := &rows{fields: []string{"name", "value"}}
	for _, p := range all {
		value, err := encode(p["value"])
		if err != nil {
			return nil, err
		}
		r.values = append(r.values, []any{p["name"], string(value)})
	}
	return r, nil
}
