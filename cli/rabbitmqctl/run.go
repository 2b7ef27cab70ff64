package rabbitmqctl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/settmq/settmq/cli/api"
)

// Exit codes, as of sysexits.h. RabbitMQ's tools use these.
const (
	exitOK          = 0
	exitUsage       = 64
	exitData        = 65
	exitNoUser      = 67
	exitUnavailable = 69
	exitSoftware    = 70
	exitTempFail    = 75
)

// Tool is one of RabbitMQ's programs.
type Tool struct {
	Name string // rabbitmqctl, rabbitmq-diagnostics, rabbitmq-plugins
	// Client makes the client of the broker's management API.
	Client func() (*api.Client, error)
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
}

// Names of the tools that Run is for.
const (
	ctl         = "rabbitmqctl"
	diagnostics = "rabbitmq-diagnostics"
	plugins     = "rabbitmq-plugins"
)

// Names are the tools that Run knows.
var Names = []string{ctl, diagnostics, plugins, admin}

// command is one command of a tool.
type command struct {
	least    int                 // operands
	most     int                 // -1: any number
	usage    string              // behind the name
	switches []string            // of its own; one that takes a value ends in =
	open     bool                // takes any switch, for it does nothing with them
	check    func(c *call) error // what is wrong with the operands, before anything is said or done
	banner   func(c *call) string
	run      func(c *call) (result, error)
}

// call is a command under way.
type call struct {
	ctx   context.Context
	tool  *Tool
	name  string
	args  []string
	opts  options
	api   *api.Client
	out   *bufio.Writer
	node  string // asked for by nodeName
	given []string
}

// failure is an error as RabbitMQ's tools word it.
type failure struct {
	code int
	text string
	bare bool // without "Error:" in front
}

func (f *failure) Error() string { return f.text }

func failf(code int, format string, args ...any) error {
	return &failure{code: code, text: fmt.Sprintf(format, args...)}
}

// Run runs a command line of the tool and returns the exit code.
func (t *Tool) Run(ctx context.Context, args []string) int {
	if t.Name == admin {
		return t.runAdmin(ctx, args)
	}
	opts, rest, unknown := parse(args)
	c := &call{ctx: ctx, tool: t, opts: opts, given: args, out: bufio.NewWriter(t.Stdout)}
	defer c.out.Flush() //nolint:errcheck // standard output is gone, nobody is left to tell
	if opts.has("version") && len(rest) == 0 {
		rest = []string{"version"}
	}
	if len(rest) == 0 || rest[0] == "help" || opts.has("help") {
		return c.help(rest)
	}
	c.name, c.args = rest[0], rest[1:]
	cmd, ok := t.commands()[c.name]
	if !ok {
		return c.notFound()
	}
	if code := c.validate(&cmd, unknown); code != exitOK {
		return code
	}
	client, err := t.Client()
	if err != nil {
		fmt.Fprintf(t.Stderr, "Error: %v\n", err)
		return exitUsage
	}
	defer client.Close()
	c.api = client
	return c.execute(&cmd)
}

// commands of this tool, by name.
func (t *Tool) commands() map[string]command {
	if t.Name == plugins {
		return pluginCommands()
	}
	return allCommands()
}

func (c *call) execute(cmd *command) int {
	if name := c.opts.get("node"); name != "" {
		if err := c.checkNode(name); err != nil {
			return c.fail(err)
		}
	}
	if cmd.banner != nil && !c.quiet() && !c.machine() {
		if text := cmd.banner(c); text != "" {
			fmt.Fprintln(c.out, text)
		}
	}
	if c.opts.has("dry-run") {
		return exitOK
	}
	if !strings.HasPrefix(c.name, "await_") && c.name != "wait" { // they see to it themselves
		limit, err := c.timeout(0)
		if err != nil {
			return c.fail(err)
		}
		if limit > 0 {
			ctx, cancel := context.WithTimeout(c.ctx, limit)
			defer cancel()
			c.ctx = ctx
		}
	}
	r, err := cmd.run(c)
	if err != nil {
		return c.fail(err)
	}
	if r == nil {
		r = okResult{}
	}
	if err := r.print(c); err != nil {
		return c.fail(err)
	}
	return exitOK
}

// timeout is --timeout, in seconds, or what is usual.
func (c *call) timeout(usual time.Duration) (time.Duration, error) {
	text := c.opts.get("timeout")
	if text == "" || text == "infinity" {
		return usual, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > 1<<30 {
		return 0, failf(exitUsage, "--timeout %q is no number of seconds", text)
	}
	return time.Duration(n) * time.Second, nil
}

// quiet is set by -q and -s: no line that announces the command.
func (c *call) quiet() bool { return c.opts.has("quiet") || c.opts.has("silent") }

// headers tells whether a table has a line of headers.
func (c *call) headers() bool {
	return !c.opts.has("silent") && !c.opts.has("no-table-headers")
}

// machine is set when the output is for programs: nothing but the result is printed.
func (c *call) machine() bool {
	return c.opts.get("formatter") == "json" || c.opts.get("formatter") == "csv"
}

func (c *call) vhost() string {
	if v := c.opts.get("vhost"); v != "" {
		return v
	}
	return "/"
}

// fail prints an error and returns its exit code.
func (c *call) fail(err error) int {
	_ = c.out.Flush()
	var f *failure
	var unreachable *api.UnreachableError
	var refused *api.Error
	switch {
	case errors.As(err, &f):
		if f.bare {
			fmt.Fprintln(c.tool.Stderr, f.text)
		} else {
			fmt.Fprintf(c.tool.Stderr, "Error:\n%s\n", f.text)
		}
		return f.code
	case errors.Is(err, context.DeadlineExceeded):
		fmt.Fprintf(c.tool.Stderr, "Error: operation %s on node %s timed out. Timeout value used: %s seconds\n", c.name, first(c.node, c.opts.get("node")), c.opts.get("timeout"))
		return exitTempFail
	case errors.As(err, &unreachable):
		fmt.Fprintf(c.tool.Stderr, "Error: unable to perform an operation on the node. %s. Is the broker running?\n", unreachable)
		return exitUnavailable
	case errors.As(err, &refused):
		if refused.Status == http.StatusUnauthorized {
			fmt.Fprintln(c.tool.Stderr, "Error:\nthe management API refused the login")
			return exitUnavailable
		}
		fmt.Fprintf(c.tool.Stderr, "Error:\n%s\n", refused.Error())
		return exitData
	}
	fmt.Fprintf(c.tool.Stderr, "Error:\n%v\n", err)
	return exitSoftware
}

// nodeName is the broker's name. When the broker cannot be asked it is the one of the command line, or what it would
// be called by default.
func (c *call) nodeName() string {
	if c.node == "" {
		var o struct {
			Node string `json:"node"`
		}
		if c.api.Get(c.ctx, "overview", &o) == nil {
			c.node = o.Node
		}
	}
	if c.node == "" {
		host, _ := os.Hostname() // "" is as good as any
		host, _, _ = strings.Cut(host, ".")
		return first(c.opts.get("node"), "settmq@"+first(host, "localhost"))
	}
	return c.node
}

// checkNode refuses the name of a node on another machine: there is only the broker here. What stands before
// the @ does not matter.
func (c *call) checkNode(name string) error {
	_, host, ok := strings.Cut(name, "@")
	if !ok {
		return nil
	}
	here, err := os.Hostname()
	if err != nil {
		return err
	}
	short, _, _ := strings.Cut(here, ".")
	_, broker, _ := strings.Cut(c.nodeName(), "@")
	if slices.Contains([]string{"localhost", "127.0.0.1", here, short, broker}, host) {
		return nil
	}
	return failf(exitUnavailable, "unable to connect to node %s: SettMQ has no clusters. Its management API elsewhere is reached with SETTMQ_URL", name)
}

// await tries until the broker answers and check passes, or the time is over.
func (c *call) await(limit time.Duration, check func() error) error {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-deadline.C:
			return err
		case <-c.ctx.Done():
			return c.ctx.Err()
		case <-tick.C:
		}
	}
}

// validate checks switches and operands.
func (c *call) validate(cmd *command, unknown []string) int {
	code, problem := exitUsage, c.problem(cmd, unknown)
	if problem == "" && cmd.check != nil {
		var f *failure
		if err := cmd.check(c); errors.As(err, &f) {
			code, problem = f.code, f.text
		}
	}
	if problem == "" {
		return exitOK
	}
	fmt.Fprintf(c.tool.Stderr, "Error (argument validation): %s\nArguments given:\n\t%s\n\nUsage\n\n%s\n", problem, strings.Join(c.given, " "), c.usageLine(cmd))
	return code
}

// problem is what is wrong with the switches or the number of operands, or nothing.
func (c *call) problem(cmd *command, unknown []string) string {
	if cmd.open {
		return ""
	}
	allowed := slices.Concat(globalSwitches, cmd.switches)
	var bad []string
	for _, s := range unknown {
		bad = append(bad, s+" : ")
	}
	for _, name := range slices.Sorted(maps.Keys(c.opts.values)) {
		if !slices.Contains(allowed, name) && !slices.Contains(allowed, name+"=") {
			bad = append(bad, fmt.Sprintf("--%s : %s", name, c.opts.values[name]))
		}
	}
	switch formatter := first(c.opts.get("formatter"), "table"); {
	case len(bad) > 0:
		return "Invalid options for this command:\n" + strings.Join(bad, "\n")
	case len(c.args) < cmd.least:
		return "not enough arguments."
	case cmd.most >= 0 && len(c.args) > cmd.most:
		return "too many arguments."
	case !slices.Contains(formatters, formatter):
		return fmt.Sprintf("there is no formatter '%s'", formatter)
	}
	return ""
}

func (c *call) usageLine(cmd *command) string {
	return strings.TrimSpace(fmt.Sprintf("%s [--node <node>] [--longnames] [--quiet] %s %s", c.tool.Name, c.name, cmd.usage))
}

func (c *call) notFound() int {
	near, least := "", 4
	for name := range c.tool.commands() {
		if d := distance(c.name, name); d < least || d == least && name < near {
			near, least = name, d
		}
	}
	fmt.Fprintf(c.tool.Stderr, "\nCommand '%s' not found. \n", c.name)
	if near != "" {
		fmt.Fprintf(c.tool.Stderr, "Did you mean '%s'? \n", near)
	}
	fmt.Fprintln(c.tool.Stderr)
	return exitUsage
}

// help lists the commands, or shows how one is called.
func (c *call) help(args []string) int {
	args = slices.DeleteFunc(args, func(a string) bool { return a == "help" })
	if len(args) > 0 {
		cmd, ok := c.tool.commands()[args[0]]
		c.name = args[0]
		if !ok {
			return c.notFound()
		}
		fmt.Fprintf(c.out, "\nUsage\n\n%s\n", c.usageLine(&cmd))
		return exitOK
	}
	w, code := io.Writer(c.out), exitOK
	if len(c.given) == 0 {
		w, code = c.tool.Stderr, exitUsage
	}
	fmt.Fprintf(w, "\nUsage\n\n%s [--node <node>] [--timeout <timeout>] [--longnames] [--quiet] <command> [<command options>]\n\nAvailable commands:\n\n", c.tool.Name)
	commands := c.tool.commands()
	for _, name := range slices.Sorted(maps.Keys(commands)) {
		fmt.Fprintf(w, "   %s\n", strings.TrimSpace(name+" "+commands[name].usage))
	}
	fmt.Fprintf(w, "\nThis is SettMQ's %s. Use '%s help <command>' to learn more about a specific command\n", c.tool.Name, c.tool.Name)
	return code
}

// distance is how many letters have to change to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := before
			if a[i] != b[j] {
				cost++
			}
			before = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func first(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}
