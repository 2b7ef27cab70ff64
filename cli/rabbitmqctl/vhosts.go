package rabbitmqctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/settmq/settmq/cli/api"
)

const vhostMetadata = `[--description <description> --tags "<tag1>,<tag2>,<...>" --default-queue-type <quorum|classic|stream>]`

var metadataSwitches = []string{"description=", "tags=", "default-queue-type="}

func vhostCommands() map[string]command {
	return map[string]command{
		"list_vhosts": {
			most: -1, usage: "[--no-table-headers] [<column> ...] [--timeout <timeout>]",
			banner: say("Listing vhosts ..."), check: columnsOf("name", "tracing", "cluster_state", "description", "tags", "default_queue_type", "protected_from_deletion", "metadata"),
			run: listVHosts,
		},
		"add_vhost": {
			least: 1, most: 1, usage: "<vhost> " + vhostMetadata, switches: metadataSwitches, check: checkQueueType,
			banner: func(c *call) string { return fmt.Sprintf("Adding vhost %q ...", c.args[0]) }, run: putVHost,
		},
		"update_vhost_metadata": {
			least: 1, most: 1, usage: "<vhost> " + vhostMetadata, switches: metadataSwitches, check: checkQueueType,
			banner: func(c *call) string { return fmt.Sprintf("Updating metadata of vhost %q ...", c.args[0]) },
			run: func(c *call) (result, error) {
				return nil, c.changeVHost(c.args[0], c.metadata())
			},
		},
		"set_vhost_tags": {
			least: 2, most: -1, usage: "<vhost> <tag> [...]",
			banner: func(c *call) string {
				return fmt.Sprintf("Setting tags for virtual host %q to [%s] ...", c.args[0], strings.Join(c.args[1:], ", "))
			},
			run: func(c *call) (result, error) {
				return nil, c.changeVHost(c.args[0], map[string]any{"tags": strings.Join(c.args[1:], ",")})
			},
		},
		"delete_vhost": {
			least: 1, most: 1, usage: "<vhost>",
			banner: func(c *call) string { return fmt.Sprintf("Deleting vhost %q ...", c.args[0]) },
			run: func(c *call) (result, error) {
				return nil, noVHost(c.api.Do(c.ctx, http.MethodDelete, api.Path("vhosts", c.args[0]), nil, nil), c.args[0])
			},
		},
		"trace_on":  tracing(true),
		"trace_off": tracing(false),
		"set_vhost_limits": {
			least: 1, most: 1, usage: "[--vhost <vhost>] <definition>",
			banner: func(c *call) string {
				return fmt.Sprintf("Setting vhost limits to %q for vhost %q ...", raw(c.args[0]), c.vhost())
			},
			run: setVHostLimits,
		},
		"clear_vhost_limits": {
			usage:  "[--vhost <vhost>]",
			banner: func(c *call) string { return fmt.Sprintf("Clearing vhost %q limits ...", c.vhost()) },
			run: func(c *call) (result, error) {
				limits, err := c.limits("vhost-limits", c.vhost())
				if err != nil {
					return nil, err
				}
				for _, l := range limits {
					err := c.api.Do(c.ctx, http.MethodDelete, api.Path("vhost-limits", c.vhost(), l.key), nil, nil)
					if err != nil && !api.Is(err, http.StatusNotFound) {
						return nil, err
					}
				}
				return nil, nil
			},
		},
		"list_vhost_limits": {
			usage: "[--vhost <vhost>] [--global] [--no-table-headers]", switches: []string{"global"},
			banner: func(c *call) string {
				if c.opts.get("vhost") == "" {
					return "Listing limits for all vhosts ..."
				}
				return fmt.Sprintf("Listing limits for vhost %q ...", c.vhost())
			},
			run: listVHostLimits,
		},
		"restart_vhost": refused("a vhost cannot fail by itself here: there is nothing to restart"),
	}
}

// columnsOf checks the columns that are asked for.
func columnsOf(known ...string) func(c *call) error {
	return func(c *call) error {
		var unknown []string
		for _, a := range c.columns() {
			if !slices.Contains(known, a) {
				unknown = append(unknown, a)
			}
		}
		if len(unknown) > 0 {
			return failf(exitUsage, "Info key(s) %s are not supported", strings.Join(unknown, ","))
		}
		return nil
	}
}

// columns are the operands of a list, which may have commas between, too.
func (c *call) columns() []string {
	var list []string
	for _, a := range c.args {
		for name := range strings.SplitSeq(a, ",") {
			if name = strings.TrimSpace(name); name != "" {
				list = append(list, name)
			}
		}
	}
	return list
}

// pick makes rows of objects: the columns that are asked for, or the usual ones.
func (c *call) pick(objects []map[string]any, usual []string, value func(o map[string]any, column string) any) *rows {
	r := &rows{fields: c.columns()}
	if len(r.fields) == 0 {
		r.fields = usual
	}
	for _, o := range objects {
		var line []any
		for _, f := range r.fields {
			line = append(line, value(o, f))
		}
		r.values = append(r.values, line)
	}
	return r
}

// plain is the value of an object as it is; what is not there is an empty text.
func plain(o map[string]any, column string) any {
	if v := o[column]; v != nil {
		return v
	}
	return ""
}

func listVHosts(c *call) (result, error) {
	var all []map[string]any
	if err := c.api.Get(c.ctx, "vhosts", &all); err != nil {
		return nil, err
	}
	return c.pick(all, []string{"name"}, func(o map[string]any, column string) any {
		if column == "tags" {
			return texts(o[column])
		}
		return plain(o, column)
	}), nil
}

// texts is a list of texts of JSON.
func texts(v any) []string {
	l := []string{}
	for _, e := range anys(v) {
		l = append(l, fmt.Sprint(e))
	}
	return l
}

func anys(v any) []any {
	l, _ := v.([]any)
	return l
}

func checkQueueType(c *call) error {
	kind, set := c.opts.values["default-queue-type"]
	if set && !slices.Contains([]string{"quorum", "stream", "classic"}, kind) {
		return failf(exitData, "Bad argument: Default queue type must be one of: quorum, stream, classic. Provided: %s", kind)
	}
	return nil
}

// metadata of a vhost on the command line.
func (c *call) metadata() map[string]any {
	body := map[string]any{}
	for _, s := range []string{"description", "tags", "default-queue-type"} {
		if v, set := c.opts.values[s]; set {
			body[strings.ReplaceAll(s, "-", "_")] = v
		}
	}
	return body
}

// putVHost makes a vhost. One that is there stays as it is, but for what the command line says.
func putVHost(c *call) (result, error) {
	body := c.metadata()
	var f *failure
	if err := c.changeVHost(c.args[0], body); !errors.As(err, &f) {
		return nil, err
	}
	return nil, c.api.Do(c.ctx, http.MethodPut, api.Path("vhosts", c.args[0]), body, nil)
}

// changeVHost writes a vhost back with what change says. The API takes what is left out for empty.
func (c *call) changeVHost(name string, change map[string]any) error {
	var v map[string]any
	if err := c.api.Get(c.ctx, api.Path("vhosts", name), &v); err != nil {
		return noVHost(err, name)
	}
	body := map[string]any{"tags": strings.Join(texts(v["tags"]), ",")}
	for _, key := range []string{"description", "default_queue_type", "tracing"} {
		if v[key] != nil {
			body[key] = v[key]
		}
	}
	maps.Copy(body, change)
	return c.api.Do(c.ctx, http.MethodPut, api.Path("vhosts", name), body, nil)
}

func noVHost(err error, name string) error {
	if api.Is(err, http.StatusNotFound) {
		return &failure{code: exitData, text: fmt.Sprintf("Virtual host '%s' does not exist", name), bare: true}
	}
	return err
}

func (c *call) haveVHost(name string) error {
	return noVHost(c.api.Get(c.ctx, api.Path("vhosts", name), nil), name)
}

func tracing(on bool) command {
	verb, state := "Stopping", "disabled"
	if on {
		verb, state = "Starting", "enabled"
	}
	return command{
		usage:  "[--vhost <vhost>]",
		banner: func(c *call) string { return fmt.Sprintf("%s tracing for vhost %q ...", verb, c.vhost()) },
		run: func(c *call) (result, error) {
			if err := c.changeVHost(c.vhost(), map[string]any{"tracing": on}); err != nil {
				return nil, err
			}
			return message(fmt.Sprintf("Trace %s for vhost %s", state, c.vhost())), nil
		},
	}
}

// decode reads JSON of the command line.
func decode(text string, to any) error {
	if err := json.Unmarshal([]byte(text), to); err != nil {
		return failf(exitUnavailable, "Could not parse JSON document: %s", err)
	}
	return nil
}

// invalid words a refusal of a setting.
func invalid(err error) error {
	if api.Is(err, http.StatusBadRequest) {
		return failf(exitUnavailable, "Validation failed\n\n%s\n", err)
	}
	return err
}

func setVHostLimits(c *call) (result, error) {
	var limits map[string]any
	if err := decode(c.args[0], &limits); err != nil {
		return nil, err
	}
	if err := c.haveVHost(c.vhost()); err != nil {
		return nil, err
	}
	for name, value := range limits {
		err := c.api.Do(c.ctx, http.MethodPut, api.Path("vhost-limits", c.vhost(), name), map[string]any{"value": value}, nil)
		if err != nil {
			return nil, invalid(err)
		}
	}
	return nil, nil
}

func listVHostLimits(c *call) (result, error) {
	if c.opts.get("vhost") == "" {
		var all []struct {
			VHost string         `json:"vhost"`
			Value map[string]any `json:"value"`
		}
		if err := c.api.Get(c.ctx, "vhost-limits", &all); err != nil {
			return nil, err
		}
		r := &rows{fields: []string{"vhost", "limits"}}
		for _, l := range all {
			b, err := encode(sorted(l.Value))
			if err != nil {
				return nil, err
			}
			r.values = append(r.values, []any{l.VHost, string(b)})
		}
		return r, nil
	}
	if err := c.haveVHost(c.vhost()); err != nil {
		return nil, err
	}
	limits, err := c.limits("vhost-limits", c.vhost())
	if err != nil {
		return nil, err
	}
	if len(limits) == 0 {
		return &rows{}, nil
	}
	b, err := encode(limits)
	if err != nil {
		return nil, err
	}
	return &report{text: string(b) + "\n", object: pairs{{"node", c.nodeName()}, {"value", string(b)}, {"result", "ok"}}}, nil
}

// refused is a command that has no meaning here: it says so and fails.
func refused(why string) command {
	return command{most: -1, open: true, run: func(*call) (result, error) {
		return nil, failf(exitSoftware, "not supported by SettMQ: %s", why)
	}}
}

// nothing is a command that has nothing to do here, and whose success is no lie.
func nothing(banner string) command {
	return command{most: -1, open: true, banner: say(banner), run: func(*call) (result, error) { return nil, nil }}
}
