package rabbitmqctl

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// formatters are those that there are. RabbitMQ has erlang, too: whoever reads that needs Erlang.
var formatters = []string{"table", "json", "csv", "pretty_table", "string", "plain", "report"}

// result is what a command has found out. It prints itself as the call's formatter says.
type result interface{ print(c *call) error }

// okResult is a change that has been made: nothing to say, but in JSON.
type okResult struct{}

func (okResult) print(c *call) error {
	if c.opts.get("formatter") == "json" {
		return writeJSON(c.out, pairs{{"result", "ok"}})
	}
	return nil
}

// message is one line for people.
type message string

func (m message) print(c *call) error {
	if c.opts.get("formatter") == "json" {
		return writeJSON(c.out, pairs{{"message", string(m)}})
	}
	_, err := fmt.Fprintln(c.out, string(m))
	return err
}

// report is text for people, and an object for programs.
type report struct {
	text   string
	object pairs
}

func (r *report) print(c *call) error {
	if c.opts.get("formatter") == "json" {
		return writeJSON(c.out, r.object)
	}
	_, err := io.WriteString(c.out, r.text)
	return err
}

// pair is a member of an object; an object keeps its order.
type pair struct {
	key   string
	value any
}

type pairs []pair

// MarshalJSON writes the members in their order.
func (p pairs) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range p {
		if i > 0 {
			b.WriteByte(',')
		}
		k, err := encode(m.key)
		if err != nil {
			return nil, err
		}
		v, err := encode(m.value)
		if err != nil {
			return nil, err
		}
		b.Write(k)
		b.WriteByte(':')
		b.Write(v)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// encode is json.Marshal that leaves <, > and & alone.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func writeJSON(w io.Writer, v any) error {
	b, err := encode(v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", b)
	return err
}

// rows is a list.
type rows struct {
	fields []string
	values [][]any // texts, numbers, booleans, arguments, lists of texts
	// bare lists have no line of headers.
	bare bool
	// stream is a list that RabbitMQ prints as it comes: nothing at all when it is empty.
	stream bool
}

func (r *rows) print(c *call) error {
	switch c.opts.get("formatter") {
	case "json":
		return r.json(c.out)
	case "csv":
		r.csv(c.out, c.headers())
	case "pretty_table":
		r.pretty(c.out)
	default:
		r.table(c.out, c.headers() && !r.bare)
	}
	return nil
}

func (r *rows) json(w io.Writer) error {
	if len(r.values) == 0 && !r.stream {
		_, err := fmt.Fprintln(w, "[]")
		return err
	}
	fmt.Fprintln(w, "[")
	for i, v := range r.values {
		o := make(pairs, len(r.fields))
		for j, f := range r.fields {
			o[j] = pair{f, v[j]}
		}
		if i > 0 {
			fmt.Fprint(w, ",")
		}
		if err := writeJSON(w, o); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(w, "]")
	return err
}

func (r *rows) csv(w io.Writer, headers bool) {
	line := func(cells []string) {
		for i, c := range cells {
			cells[i] = `"` + strings.ReplaceAll(c, `"`, `""`) + `"`
		}
		fmt.Fprintln(w, strings.Join(cells, ","))
	}
	if headers {
		line(slices.Clone(r.fields))
	}
	for _, v := range r.values {
		line(cells(v))
	}
}

func (r *rows) table(w io.Writer, headers bool) {
	if len(r.values) == 0 {
		if !r.stream {
			fmt.Fprintln(w)
		}
		return
	}
	if headers {
		fmt.Fprintln(w, strings.Join(r.fields, "\t"))
	}
	for _, v := range r.values {
		fmt.Fprintln(w, strings.Join(cells(v), "\t"))
	}
}

// pretty draws lines around the cells.
func (r *rows) pretty(w io.Writer) {
	width := make([]int, len(r.fields))
	lines := [][]string{r.fields}
	for _, v := range r.values {
		lines = append(lines, cells(v))
	}
	for _, l := range lines {
		for i, c := range l {
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	border := func(left, middle, right string) {
		parts := make([]string, len(width))
		for i, n := range width {
			parts[i] = strings.Repeat("─", n+2)
		}
		fmt.Fprintln(w, left+strings.Join(parts, middle)+right)
	}
	border("┌", "┬", "┐")
	for i, l := range lines {
		if i > 0 {
			border("├", "┼", "┤")
		}
		for j, c := range l {
			fmt.Fprintf(w, "│ %s%s ", c, strings.Repeat(" ", width[j]-utf8.RuneCountInString(c)))
		}
		fmt.Fprintln(w, "│")
	}
	border("└", "┴", "┘")
}

func cells(values []any) []string {
	list := make([]string, len(values))
	for i, v := range values {
		list[i] = cell(v)
	}
	return list
}

// cell is a value in a table: texts as they are, everything else as Erlang writes it.
func cell(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case []string:
		return "[" + strings.Join(v, ", ") + "]"
	case typed:
		return term(pairs(v))
	case pairs, []any, map[string]any:
		return term(v)
	}
	return fmt.Sprint(v)
}

// term writes a value of arguments as Erlang does: {"k",1} in lists.
func term(v any) string {
	switch v := v.(type) {
	case nil:
		return "undefined"
	case string:
		b, err := encode(v)
		if err != nil {
			return fmt.Sprintf("%q", v)
		}
		return string(b)
	case pairs:
		list := make([]string, len(v))
		for i, p := range v {
			list[i] = "{" + term(p.key) + "," + term(p.value) + "}"
		}
		return "[" + strings.Join(list, ",") + "]"
	case map[string]any:
		return term(sorted(v))
	case []any:
		list := make([]string, len(v))
		for i, e := range v {
			list[i] = term(e)
		}
		return "[" + strings.Join(list, ",") + "]"
	}
	return fmt.Sprint(v)
}

// sorted is a map as an object with its members in alphabetical order.
func sorted(m map[string]any) pairs {
	p := make(pairs, 0, len(m))
	for k, v := range m {
		p = append(p, pair{k, v})
	}
	slices.SortFunc(p, func(a, b pair) int { return strings.Compare(a.key, b.key) })
	return p
}
