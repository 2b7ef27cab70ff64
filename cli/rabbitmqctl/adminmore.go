package rabbitmqctl

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/settmq/settmq/cli/api"
)

// kind of the destination of a binding, as in the API's paths.
func (c *adminCall) kind() string {
	if strings.HasPrefix(c.values["destination_type"], "e") {
		return "e"
	}
	return "q"
}

// declareRights makes users, permissions, policies and parameters.
func (c *adminCall) declareRights(what, done string) error {
	v := c.values
	switch what {
	case "user":
		body := map[string]any{"tags": v["tags"]}
		switch {
		case v["password_hash"] != "":
			body["password_hash"] = v["password_hash"]
		case v["password"] != "":
			body["password"] = v["password"]
		default:
			return wrong("one of mandatory arguments \"['password', 'password_hash']\" is required")
		}
		return c.change(http.MethodPut, done, body, "users", v["name"])
	case "permission":
		if err := c.need("user", "configure", "write", "read"); err != nil {
			return err
		}
		body := map[string]any{"configure": v["configure"], "write": v["write"], "read": v["read"]}
		return c.change(http.MethodPut, done, body, "permissions", c.vhost(), v["user"])
	case "policy", "operator_policy":
		if err := c.need("pattern", "definition"); err != nil {
			return err
		}
		definition, err := c.object("definition")
		if err != nil {
			return err
		}
		priority, err := strconv.Atoi(first(v["priority"], "0"))
		if err != nil {
			return wrong("priority %q is no number", v["priority"])
		}
		body := map[string]any{"pattern": v["pattern"], "definition": definition, "priority": priority, "apply-to": first(v["apply_to"], "all")}
		return c.change(http.MethodPut, done, body, policyPath(what), c.vhost(), v["name"])
	case "parameter":
		if err := c.need("component", "value"); err != nil {
			return err
		}
		var value any
		if err := json.Unmarshal([]byte(v["value"]), &value); err != nil {
			return wrong("could not parse JSON of value: %v", err)
		}
		body := map[string]any{"component": v["component"], "vhost": c.vhost(), "name": v["name"], "value": value}
		return c.change(http.MethodPut, done, body, "parameters", v["component"], c.vhost(), v["name"])
	}
	return wrong("Don't know how to declare %s", what)
}

func policyPath(what string) string {
	if what == "policy" {
		return "policies"
	}
	return "operator-policies"
}

func (c *adminCall) delete(what string) error {
	v := c.values
	done := what + " deleted"
	switch what {
	case "queue", "exchange":
		return c.change(http.MethodDelete, done, nil, what+"s", c.vhost(), v["name"])
	case "vhost", "user":
		return c.change(http.MethodDelete, done, nil, what+"s", v["name"])
	case "permission":
		return c.change(http.MethodDelete, done, nil, "permissions", c.vhost(), v["user"])
	case "policy", "operator_policy":
		return c.change(http.MethodDelete, done, nil, policyPath(what), c.vhost(), v["name"])
	case "parameter":
		return c.change(http.MethodDelete, done, nil, "parameters", v["component"], c.vhost(), v["name"])
	case "binding":
		if err := c.need("source", "destination"); err != nil {
			return err
		}
		key := v["properties_key"]
		if key == "" {
			if key = v["routing_key"]; key == "" {
				key = "~"
			}
		}
		return c.change(http.MethodDelete, done, nil, "bindings", c.vhost(), "e", v["source"], c.kind(), v["destination"], key)
	}
	return wrong("Don't know how to delete %s", what)
}

// lists by name, with the columns that are shown when none are named; nil is every field that fits into a cell.
var lists = map[string][]string{
	"queues": {"name", "messages"}, "exchanges": {"name", "type"}, "bindings": {"source", "destination", "routing_key"}, "vhosts": {"name", "messages"},
	"users": nil, "permissions": nil, "policies": nil, "operator_policies": nil, "parameters": nil,
	"connections": {"name", "user", "channels"}, "channels": {"name", "user"}, "consumers": nil, "nodes": {"name", "type", "mem_used"},
}

func (c *adminCall) list(what string) error {
	what = strings.ReplaceAll(what, "-", "_")
	columns, ok := lists[what]
	if !ok {
		return wrong("Don't know how to list %s", what)
	}
	path := strings.ReplaceAll(what, "_", "-")
	if vhost := first(c.values["vhost"], c.switches["vhost"]); vhost != "" &&
		slices.Contains([]string{"queues", "exchanges", "bindings", "policies", "operator_policies", "consumers"}, what) {
		path += "/" + api.Path(vhost)
	}
	var all []map[string]any
	if err := c.api.Get(c.ctx, path, &all); err != nil {
		return err
	}
	return c.print(all, c.columns(columns))
}

func (c *adminCall) columns(usual []string) []string {
	var named []string
	if len(c.words) > 2 {
		for _, w := range c.words[2:] {
			named = append(named, strings.Split(w, ",")...)
		}
	}
	if len(named) > 0 {
		return named
	}
	return usual
}

func (c *adminCall) show() error {
	if len(c.words) < 2 || c.words[1] != "overview" {
		return wrong("show needs overview")
	}
	var o map[string]any
	if err := c.api.Get(c.ctx, "overview", &o); err != nil {
		return err
	}
	return c.print([]map[string]any{o}, c.columns([]string{"rabbitmq_version", "cluster_name", "queue_totals.messages", "object_totals.queues"}))
}

func (c *adminCall) publish() error {
	if err := c.need("routing_key"); err != nil {
		return err
	}
	properties, err := c.object("properties")
	if err != nil {
		return err
	}
	payload, ok := c.values["payload"]
	if !ok {
		b, err := io.ReadAll(io.LimitReader(c.tool.Stdin, 64<<20))
		if err != nil {
			return err
		}
		payload = string(b)
	}
	encoding := first(c.values["payload_encoding"], "string")
	if encoding == "string" && !utf8.ValidString(payload) {
		encoding, payload = "base64", base64.StdEncoding.EncodeToString([]byte(payload))
	}
	var routed struct {
		Routed bool `json:"routed"`
	}
	body := map[string]any{"routing_key": c.values["routing_key"], "payload": payload, "payload_encoding": encoding, "properties": properties}
	exchange := first(c.values["exchange"], "amq.default")
	if err := c.api.Do(c.ctx, http.MethodPost, api.Path("exchanges", c.vhost(), exchange, "publish"), body, &routed); err != nil {
		return err
	}
	if !routed.Routed {
		return c.say("Message published but NOT routed")
	}
	return c.say("Message published")
}

func (c *adminCall) get() error {
	queue := c.values["queue"]
	if queue == "" {
		return wrong("mandatory argument \"queue\" is required")
	}
	count, err := strconv.Atoi(first(c.values["count"], "1"))
	if err != nil {
		return wrong("count %q is no number", c.values["count"])
	}
	body := map[string]any{
		"count": count, "ackmode": first(c.values["ackmode"], c.values["ack_mode"], "ack_requeue_true"), "encoding": first(c.values["encoding"], "auto"),
	}
	var all []map[string]any
	if err := c.api.Do(c.ctx, http.MethodPost, api.Path("queues", c.vhost(), queue, "get"), body, &all); err != nil {
		return err
	}
	return c.print(all, []string{"routing_key", "exchange", "message_count", "payload", "payload_bytes", "payload_encoding", "properties", "redelivered"})
}

func (c *adminCall) export(file string) error {
	file = first(file, c.values["file"])
	if file == "" {
		return wrong("export needs the name of a file")
	}
	path := "definitions"
	if vhost := c.switches["vhost"]; vhost != "" {
		path = api.Path("definitions", vhost)
	}
	var d json.RawMessage
	if err := c.api.Get(c.ctx, path, &d); err != nil {
		return err
	}
	if file == "-" {
		_, err := fmt.Fprintf(c.tool.Stdout, "%s\n", d)
		return err
	}
	if err := os.WriteFile(file, d, 0o600); err != nil { // password hashes are in it
		return err
	}
	return c.say("Exported definitions for %s to %q", first(c.switches["host"], "localhost"), file)
}

func (c *adminCall) load(file string) error {
	file = first(file, c.values["file"])
	if file == "" {
		return wrong("import needs the name of a file")
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if !json.Valid(b) {
		return fmt.Errorf("%s is no JSON", file)
	}
	path := "definitions"
	if vhost := c.switches["vhost"]; vhost != "" {
		path = api.Path("definitions", vhost)
	}
	if err := c.api.Do(c.ctx, http.MethodPost, path, json.RawMessage(b), nil); err != nil {
		return err
	}
	return c.say("Uploaded definitions from %q to %s. The import process may take some time. Consult server logs to track progress.", first(c.switches["host"], "localhost"), file)
}

// print shows objects as --format says.
func (c *adminCall) print(all []map[string]any, columns []string) error {
	w := c.tool.Stdout
	if by := c.switches["sort"]; by != "" {
		slices.SortStableFunc(all, func(a, b map[string]any) int { return strings.Compare(cell(at(a, by)), cell(at(b, by))) })
	}
	if c.switches["reverse"] != "" {
		slices.Reverse(all)
	}
	format := first(c.switches["format"], "table")
	switch format {
	case "raw_json", "json":
		return writeJSON(w, all)
	case "pretty_json":
		b, err := json.MarshalIndent(all, "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "%s\n", b)
		return err
	}
	if columns == nil {
		columns = fields(all)
	}
	var lines [][]string
	for _, o := range all {
		line := make([]string, len(columns))
		for i, column := range columns {
			if v := at(o, column); v != nil {
				line[i] = flat(v)
			}
		}
		lines = append(lines, line)
	}
	switch format {
	case "table":
		c.grid(columns, lines)
	case "tsv":
		for _, l := range append([][]string{columns}, lines...) {
			fmt.Fprintln(w, strings.Join(l, "\t"))
		}
	case "bash":
		names := make([]string, len(lines))
		for i, l := range lines {
			names[i] = l[0]
		}
		fmt.Fprintln(w, strings.Join(names, " "))
	case "kvp":
		for _, l := range lines {
			cells := make([]string, len(l))
			for i := range l {
				cells[i] = fmt.Sprintf("%s=%q", columns[i], raw(l[i]))
			}
			fmt.Fprintln(w, strings.Join(cells, " "))
		}
	case "long":
		width := 0
		for _, column := range columns {
			width = max(width, utf8.RuneCountInString(column))
		}
		border := "\n" + strings.Repeat("-", 80) + "\n"
		fmt.Fprintln(w, border)
		for _, l := range lines {
			for i := range l {
				fmt.Fprintf(w, "%*s: %s\n", width, columns[i], l[i])
			}
			fmt.Fprintln(w, border)
		}
	default:
		return wrong("there is no format %q", format)
	}
	return nil
}

// fields are those of the objects that fit into a cell: the name, then the others by the alphabet.
func fields(all []map[string]any) []string {
	var list []string
	for _, o := range all {
		for key, v := range o {
			if _, inner := v.(map[string]any); !inner && !slices.Contains(list, key) {
				list = append(list, key)
			}
		}
	}
	slices.SortFunc(list, func(a, b string) int {
		if (a == "name") != (b == "name") {
			if a == "name" {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	return list
}

// flat is a value in a table. What is an object has columns of its own, such as arguments.x-max-length.
func flat(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case bool:
		if v { // as Python writes it
			return "True"
		}
		return "False"
	case map[string]any:
		return ""
	case []any:
		return strings.Join(texts(v), ", ")
	}
	return fmt.Sprint(v)
}

// at follows a path such as queue.name into an object.
func at(o map[string]any, path string) any {
	if v, ok := o[path]; ok {
		return v
	}
	head, rest, more := strings.Cut(path, ".")
	if inner, ok := o[head].(map[string]any); ok && more {
		return at(inner, rest)
	}
	return nil
}

// grid draws a table with signs that every terminal has.
func (c *adminCall) grid(columns []string, lines [][]string) {
	w := c.tool.Stdout
	if len(lines) == 0 {
		_ = c.say("No items") // standard output is gone: nobody is left to tell
		return
	}
	width := make([]int, len(columns))
	for _, l := range append([][]string{columns}, lines...) {
		for i, text := range l {
			width[i] = max(width[i], utf8.RuneCountInString(text))
		}
	}
	border := "+"
	for _, n := range width {
		border += strings.Repeat("-", n+2) + "+"
	}
	fmt.Fprintln(w, border)
	head := "|"
	for i, text := range columns {
		left := (width[i] - utf8.RuneCountInString(text)) / 2
		head += strings.Repeat(" ", left+1) + text + strings.Repeat(" ", width[i]-utf8.RuneCountInString(text)-left+1) + "|"
	}
	fmt.Fprintln(w, head)
	fmt.Fprintln(w, border)
	for _, l := range lines {
		row := "|"
		for i, text := range l {
			row += " " + text + strings.Repeat(" ", width[i]-utf8.RuneCountInString(text)+1) + "|"
		}
		fmt.Fprintln(w, row)
	}
	fmt.Fprintln(w, border)
}
