package cli

import (
	"bufio"
	"cmp"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// row is an object as the management API has it: maps, lists, texts, json.Numbers, booleans.
type row map[string]any

// output prints lists of objects the way the user wants them: the one place for -o, --columns and --sort.
type output struct {
	form    string
	columns []string // paths into the objects: name, owner_pid_details.name
	sort    string
	total   []string // all columns when the user names none
}

// addOutput adds the flags of a list to a command. columns are what is shown if the user says nothing; the
// first one is what -o name prints.
func addOutput(cmd *cobra.Command, columns ...string) *output {
	o := &output{total: columns}
	f := cmd.Flags()
	f.StringVarP(&o.form, "output", "o", "table", "`form`: table, json, csv, or name for the names alone")
	f.StringSliceVar(&o.columns, "columns", nil, "`columns` to show, any field of the objects (default "+strings.Join(columns, ",")+")")
	f.StringVar(&o.sort, "sort", "", "sort by a `column`; a minus in front turns the order round")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "csv", "name"}, cobra.ShellCompDirectiveNoFileComp))
	return o
}

// check finds a wrong form before anything is asked for.
func (o *output) check() error {
	if !slices.Contains([]string{"table", "json", "csv", "name"}, o.form) {
		return Usagef("--output %q is none of table, json, csv, name", o.form)
	}
	if len(o.columns) == 0 {
		o.columns = o.total
	}
	return nil
}

// print writes rows. JSON has the objects whole unless --columns was given.
func (o *output) print(w io.Writer, rows []row) error {
	chosen := len(o.columns) > 0
	if err := o.check(); err != nil {
		return err
	}
	o.order(rows)
	b := bufio.NewWriter(w)
	switch o.form {
	case "json":
		if err := writeJSON(b, rows, o.columns, chosen); err != nil {
			return err
		}
	case "csv":
		c := csv.NewWriter(b)
		_ = c.Write(o.columns) // kept for Error
		for _, r := range rows {
			_ = c.Write(o.cells(r))
		}
		c.Flush()
		if err := c.Error(); err != nil {
			return err
		}
	case "name":
		for _, r := range rows {
			fmt.Fprintln(b, text(field(r, o.total[0])))
		}
	default:
		o.table(b, rows)
	}
	return b.Flush()
}

// order sorts as --sort says. What is equal stays in its order.
func (o *output) order(rows []row) {
	key := strings.TrimPrefix(o.sort, "-")
	if key == "" {
		return
	}
	slices.SortStableFunc(rows, func(a, b row) int {
		if o.sort != key {
			a, b = b, a
		}
		return compare(field(a, key), field(b, key))
	})
}

func (o *output) cells(r row) []string {
	cells := make([]string, len(o.columns))
	for i, path := range o.columns {
		cells[i] = text(field(r, path))
	}
	return cells
}

// table writes aligned columns, numbers to the right, with a line of headers.
func (o *output) table(w io.Writer, rows []row) {
	lines := make([][]string, 0, len(rows)+1)
	header := make([]string, len(o.columns))
	width := make([]int, len(o.columns))
	right := make([]bool, len(o.columns))
	for i, path := range o.columns {
		header[i] = heading(path)
		right[i] = len(rows) > 0
	}
	lines = append(lines, header)
	for _, r := range rows {
		cells := o.cells(r)
		for i, path := range o.columns {
			cells[i] = printable([]byte(strings.ReplaceAll(cells[i], "\n", " ")))
			_, number := field(r, path).(json.Number)
			right[i] = right[i] && (number || cells[i] == "")
		}
		lines = append(lines, cells)
	}
	for _, cells := range lines {
		for i, c := range cells {
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	for _, cells := range lines {
		var b strings.Builder
		for i, c := range cells {
			if i > 0 {
				b.WriteString("  ")
			}
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(c))
			if right[i] {
				b.WriteString(pad + c)
			} else {
				b.WriteString(c + pad)
			}
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}

// heading is the last part of a path, or what the name is of: queue.name is QUEUE. Rates are a second's.
func heading(path string) string {
	i := strings.LastIndexByte(path, '.')
	if rate, ok := strings.CutSuffix(path, "_details.rate"); ok {
		return strings.ToUpper(rate[strings.LastIndexByte(rate, '.')+1:]) + "/S"
	}
	if i >= 0 && path[i+1:] == "name" {
		path = strings.TrimSuffix(path[:i], "_details")
		i = strings.LastIndexByte(path, '.')
	}
	return strings.ToUpper(path[i+1:])
}

func writeJSON(w io.Writer, rows []row, columns []string, chosen bool) error {
	list := make([]row, 0, len(rows))
	for _, r := range rows {
		if chosen {
			some := row{}
			for _, path := range columns {
				some[path] = field(r, path)
			}
			r = some
		}
		list = append(list, r)
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(list)
}

// field follows a path into an object: a.b is the member b of the member a. What is not there is nil.
func field(r row, path string) any {
	var v any = map[string]any(r)
	for path != "" {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		if whole, ok := m[path]; ok { // a key with dots in it
			return whole
		}
		var key string
		key, path, _ = strings.Cut(path, ".")
		v = m[key]
	}
	return v
}

// text is a value in a cell.
func text(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case json.Number:
		return v.String()
	case bool:
		return strconv.FormatBool(v)
	case []any:
		if plain := !slices.ContainsFunc(v, func(e any) bool { _, ok := e.(string); return !ok }); plain {
			texts := make([]string, len(v))
			for i, e := range v {
				texts[i] = e.(string)
			}
			return strings.Join(texts, ",")
		}
	case map[string]any:
		if len(v) == 0 {
			return ""
		}
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}

// compare orders numbers as numbers and everything else as text.
func compare(a, b any) int {
	x, okX := number(a)
	y, okY := number(b)
	if okX && okY {
		return cmp.Compare(x, y)
	}
	return strings.Compare(text(a), text(b))
}

func number(v any) (float64, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, v == nil
	}
	f, err := n.Float64()
	return f, err == nil
}
