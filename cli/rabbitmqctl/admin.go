package rabbitmqctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/settmq/settmq/cli/api"
)

const admin = "rabbitmqadmin"

const adminUsage = `Usage: rabbitmqadmin [options] subcommand

  list {queues|exchanges|bindings|vhosts|users|permissions|policies|operator_policies|parameters|connections|channels|consumers|nodes} [column ...]
  show overview [column ...]
  declare {queue|exchange|binding|vhost|user|permission|policy|operator_policy|parameter} name=value ...
  delete {queue|exchange|binding|vhost|user|permission|policy|operator_policy|parameter} name=value ...
  purge queue name=...
  close connection name=...
  publish routing_key=... payload=... [exchange=...] [properties=JSON]
  get queue=... [count=1] [ackmode=ack_requeue_true]
  export FILE
  import FILE

Options: -H host, -P port, -u user, -p password, -V vhost, -U base-uri, -s (TLS), --ssl-ca-cert-file FILE,
  -f {table|tsv|long|kvp|bash|raw_json|pretty_json}, -S column, -R, -q

name=value may be written --name value, and "queues declare" is "declare queue". Without -H, -P, -U and -u it is this machine's broker.
`

// Switches of rabbitmqadmin in front of the subcommand, with the long name that their value is kept by. Those that
// end in ! take none.
var adminSwitches = map[string]string{
	"-H": "host", "--host": "host", "-P": "port", "--port": "port", "-V": "vhost", "--vhost": "vhost", "-u": "username", "--username": "username",
	"-p": "password", "--password": "password", "-U": "base-uri", "--base-uri": "base-uri", "-s": "ssl!", "--ssl": "ssl!", "--use-tls": "ssl!",
	"--ssl-ca-cert-file": "ca", "--tls-ca-cert-file": "ca", "-f": "format", "--format": "format", "-S": "sort", "--sort": "sort",
	"-R": "reverse!", "--sort-reverse": "reverse!", "-q": "quiet!", "--quiet": "quiet!", "-d": "depth", "--depth": "depth",
	"--non-interactive": "non-interactive!", "-h": "help!", "--help": "help!", "--version": "version!", "--path-prefix": "path-prefix",
}

// adminCall is a command line of rabbitmqadmin.
type adminCall struct {
	ctx      context.Context
	tool     *Tool
	api      *api.Client
	switches map[string]string
	words    []string          // the subcommand, and operands that are no name=value
	values   map[string]string // name=value, with underscores in the names
}

// runAdmin runs a command line of rabbitmqadmin. Exit codes are 0 and 1.
func (t *Tool) runAdmin(ctx context.Context, args []string) int {
	c := &adminCall{ctx: ctx, tool: t, switches: map[string]string{}, values: map[string]string{}}
	if err := c.parse(args); err != nil {
		return c.fail(err)
	}
	if c.switches["help"] != "" || len(c.words) == 0 || c.words[0] == "help" {
		fmt.Fprint(t.Stdout, adminUsage)
		if len(args) == 0 {
			return 1
		}
		return 0
	}
	client, err := c.client()
	if err != nil {
		fmt.Fprintf(t.Stderr, "*** %v\n", err)
		return 1
	}
	defer client.Close()
	c.api = client
	if err := c.run(); err != nil {
		return c.fail(err)
	}
	return 0
}

// fail prints an error and returns its exit code, which is always 1.
func (c *adminCall) fail(err error) int {
	w := c.tool.Stderr
	var usage *failure
	var refused *api.Error
	switch {
	case errors.As(err, &usage):
		fmt.Fprintf(w, "\nERROR: %s\n\nrabbitmqadmin --help for help\n\n", usage.text)
	case !errors.As(err, &refused):
		fmt.Fprintf(w, "*** %v\n\n", err)
	case refused.Status == http.StatusUnauthorized:
		fmt.Fprintf(w, "*** Access refused: %s\n\n", refused.Path)
	case refused.Status == http.StatusNotFound:
		fmt.Fprintf(w, "*** Not found: %s\n\n", refused.Path)
	default:
		fmt.Fprintf(w, "*** %s: %s\n\n", first(refused.Kind, "error"), refused)
	}
	return 1
}

func (c *adminCall) parse(args []string) error {
	for i := 0; i < len(args); i++ {
		a := args[i]
		if len(c.words) < 2 { // options stand in front, and between the two words
			name, value, has := strings.Cut(a, "=")
			if long, ok := adminSwitches[name]; ok {
				flag, without := strings.CutSuffix(long, "!")
				switch {
				case without:
					value = "true"
				case !has:
					if i++; i == len(args) {
						return wrong("%s needs a value", a)
					}
					value = args[i]
				}
				c.switches[flag] = value
				continue
			}
		}
		switch name, value, has := strings.Cut(a, "="); {
		case strings.HasPrefix(a, "--") && len(c.words) > 0:
			if !has {
				if i++; i == len(args) {
					return wrong("%s needs a value", a)
				}
				value = args[i]
			}
			c.set(name[2:], value)
		case strings.HasPrefix(a, "-"):
			return wrong("no such option: %s", a)
		case has && len(c.words) > 0:
			c.set(name, value)
		default:
			c.words = append(c.words, a)
		}
	}
	// "queues declare" is "declare queue".
	if len(c.words) >= 2 && slices.Contains([]string{"list", "declare", "delete", "purge", "close"}, c.words[1]) {
		c.words[0], c.words[1] = c.words[1], c.words[0]
	}
	return nil
}

func (c *adminCall) set(name, value string) {
	c.values[strings.ReplaceAll(name, "-", "_")] = value
}

// client is the tool's own if nothing says where the broker is, or who asks.
func (c *adminCall) client() (*api.Client, error) {
	s := c.switches
	if s["host"] == "" && s["port"] == "" && s["base-uri"] == "" && s["username"] == "" {
		return c.tool.Client()
	}
	scheme, port := "http", "15672"
	if s["ssl"] != "" {
		scheme, port = "https", "15671"
	}
	target := api.Target{
		URL:  first(s["base-uri"], scheme+"://"+first(s["host"], "localhost")+":"+first(s["port"], port)+s["path-prefix"]),
		User: first(s["username"], "guest"), Password: first(s["password"], "guest"), CAFile: s["ca"],
	}
	return api.New(target)
}

func wrong(format string, args ...any) error { return failf(1, format, args...) }

func (c *adminCall) run() error {
	what := ""
	if len(c.words) > 1 {
		what = c.words[1]
	}
	switch c.words[0] {
	case "list":
		return c.list(what)
	case "show":
		return c.show()
	case "declare":
		return c.declare(singular(what))
	case "delete":
		return c.delete(singular(what))
	case "purge":
		return c.change(http.MethodDelete, "queue purged", nil, "queues", c.vhost(), c.values["name"], "contents")
	case "close":
		if singular(what) != "connection" {
			return wrong("close needs connection")
		}
		return c.change(http.MethodDelete, "connection closed", nil, "connections", c.values["name"])
	case "publish":
		return c.publish()
	case "get":
		return c.get()
	case "export":
		return c.export(what)
	case "import":
		return c.load(what)
	}
	return wrong("Action %s not understood", c.words[0])
}

// singular is the name of one of them: queues and queue are both queue.
func singular(what string) string {
	switch {
	case strings.HasSuffix(what, "ies"):
		return strings.TrimSuffix(what, "ies") + "y"
	case what == "operator_policy" || what == "alias":
		return what
	}
	return strings.ReplaceAll(strings.TrimSuffix(what, "s"), "-", "_")
}

func (c *adminCall) vhost() string { return first(c.values["vhost"], c.switches["vhost"], "/") }

// need is the value of a name, which has to be given.
func (c *adminCall) need(names ...string) error {
	for _, n := range names {
		if _, ok := c.values[n]; !ok {
			return wrong("mandatory argument %q is required", n)
		}
	}
	return nil
}

// object is a value that is a JSON object.
func (c *adminCall) object(name string) (map[string]any, error) {
	m := map[string]any{}
	if text := c.values[name]; text != "" {
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			return nil, wrong("could not parse JSON of %s: %v", name, err)
		}
	}
	return m, nil
}

func (c *adminCall) flag(name string, usual bool) bool {
	v, ok := c.values[name]
	if !ok {
		return usual
	}
	return v == "true"
}

// change makes a request and says what it has done.
func (c *adminCall) change(method, done string, body any, path ...string) error {
	if slices.Contains(path, "") {
		return wrong("mandatory argument \"name\" is required")
	}
	if err := c.api.Do(c.ctx, method, api.Path(path...), body, nil); err != nil {
		return err
	}
	return c.say("%s", done)
}

func (c *adminCall) say(format string, args ...any) error {
	if c.switches["quiet"] != "" {
		return nil
	}
	_, err := fmt.Fprintf(c.tool.Stdout, format+"\n", args...)
	return err
}

func (c *adminCall) declare(what string) error {
	v := c.values
	done := what + " declared"
	arguments, err := c.object("arguments")
	if err != nil {
		return err
	}
	switch what {
	case "queue":
		if kind := first(v["queue_type"], v["type"]); kind != "" {
			arguments["x-queue-type"] = kind
		}
		body := map[string]any{"durable": c.flag("durable", true), "auto_delete": c.flag("auto_delete", false), "arguments": arguments}
		return c.change(http.MethodPut, done, body, "queues", c.vhost(), v["name"])
	case "exchange":
		if err := c.need("type"); err != nil {
			return err
		}
		body := map[string]any{
			"type": v["type"], "durable": c.flag("durable", true), "auto_delete": c.flag("auto_delete", false),
			"internal": c.flag("internal", false), "arguments": arguments,
		}
		return c.change(http.MethodPut, done, body, "exchanges", c.vhost(), v["name"])
	case "binding":
		if err := c.need("source", "destination"); err != nil {
			return err
		}
		body := map[string]any{"routing_key": v["routing_key"], "arguments": arguments}
		return c.change(http.MethodPost, done, body, "bindings", c.vhost(), "e", v["source"], c.kind(), v["destination"])
	case "vhost":
		body := map[string]any{}
		for _, key := range []string{"description", "tags", "default_queue_type"} {
			if text, ok := v[key]; ok {
				body[key] = text
			}
		}
		if _, ok := v["tracing"]; ok {
			body["tracing"] = c.flag("tracing", false)
		}
		return c.change(http.MethodPut, done, body, "vhosts", v["name"])
	}
	return c.declareRights(what, done)
}
