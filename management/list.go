package management

import (
	"cmp"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/settmq/settmq/auth"
)

const (
	defaultPageSize = 100
	maxPageSize     = 500
)

// list is the answer to a request for many things, before it is sorted, filtered, paged and cut to columns as the
// query says. Rows are rendered as late as can be: a page of queues costs what its rows cost, as long as it is
// sorted by columns that are known without rendering.
type list struct {
	len int
	// known returns a column that takes no rendering, such as the name; false if it does.
	known func(i int, column string) (any, bool)
	row   func(i int) object
	// sort are the columns that it is sorted by if the query names none; vhost and name for nil.
	sort []string
	// whole lists are never paged, whatever the query says: RabbitMQ's old, short ones.
	whole bool
}

// listOf is the list of items that row renders. known are the columns that take no rendering.
func listOf[T any](items []T, known map[string]func(T) any, row func(T) object) *list {
	return &list{
		len: len(items),
		known: func(i int, column string) (any, bool) {
			if f := known[column]; f != nil {
				return f(items[i]), true
			}
			return nil, false
		},
		row: func(i int) object { return row(items[i]) },
	}
}

// rows is the list of what is rendered already.
func rows(items []object) *list {
	return &list{
		len:   len(items),
		known: func(i int, column string) (any, bool) { return dotted(items[i], column), true },
		row:   func(i int) object { return items[i] },
	}
}

// unpaged makes the list one that is never paged.
func (l *list) unpaged() *list {
	l.whole = true
	return l
}

// sortedBy sets the columns that the list is sorted by if the query names none.
func (l *list) sortedBy(columns ...string) *list {
	l.sort = columns
	return l
}

// paging is what a query says of pages.
type paging struct {
	page, size int // page 0: there are no pages
	name       string
	regex      bool
}

// parsePaging reads and checks a query.
func parsePaging(q url.Values) (p paging, err error) {
	number := func(key string) (n int, text string) {
		if !q.Has(key) {
			return 0, "undefined"
		}
		n, bad := strconv.Atoi(q.Get(key))
		if bad != nil {
			err = &apiError{http.StatusBadRequest, "bad_request", "Pagination parameters are invalid"}
		}
		return n, strconv.Itoa(n)
	}
	page, pageText := number("page")
	size, sizeText := number("page_size")
	switch {
	case err != nil || !q.Has("page"):
		return p, err
	case !q.Has("page_size"):
		size = defaultPageSize
	}
	if page <= 0 || size <= 0 || size > maxPageSize {
		return p, &apiError{
			http.StatusBadRequest, "invalid_pagination_parameters",
			fmt.Sprintf("Invalid pagination parameters: page number %s, page size %s", pageText, sizeText),
		}
	}
	return paging{page: page, size: size, name: q.Get("name"), regex: q.Get("use_regex") == "true"}, nil
}

// render makes the answer: a JSON array, or the object of a page.
func (l *list) render(q url.Values) (any, error) {
	p, err := parsePaging(q)
	if err != nil {
		return nil, err
	}
	v := &view{list: l, rendered: make(map[int]object)}
	order := make([]int, l.len)
	for i := range order {
		order[i] = i
	}
	if order, err = v.order(order, q); err != nil {
		return nil, err
	}
	columns := parseColumns(q)
	if p.page == 0 || l.whole {
		return v.take(order, columns), nil
	}
	if order, err = v.filter(order, p); err != nil {
		return nil, err
	}
	from := 0
	if p.page > math.MaxInt/maxPageSize {
		from = math.MaxInt
	} else {
		from = (p.page - 1) * p.size
	}
	if from > len(order) {
		return nil, &apiError{
			http.StatusBadRequest, "page_out_of_range",
			fmt.Sprintf("Page out of range, page: %d page size: %d, len: %d", p.page, p.size, len(order)),
		}
	}
	on := order[from:min(len(order), from+p.size)]
	return object{
		{"filtered_count", len(order)},
		{"item_count", len(on)},
		{"items", v.take(on, columns)},
		{"page", p.page},
		{"page_count", (len(order) + p.size - 1) / p.size},
		{"page_size", p.size},
		{"total_count", l.len},
	}, nil
}

// view is a list with the rows that had to be rendered for its order.
type view struct {
	*list
	rendered map[int]object
}

func (v *view) at(i int) object {
	o, ok := v.rendered[i]
	if !ok {
		o = v.row(i)
		v.rendered[i] = o
	}
	return o
}

func (v *view) column(i int, name string) any {
	if value, ok := v.known(i, name); ok {
		return value
	}
	return dotted(v.at(i), name)
}

func (v *view) order(order []int, q url.Values) ([]int, error) {
	by := v.sort
	if by == nil {
		by = []string{"vhost", "name"}
	}
	if first := q.Get("sort"); first != "" {
		by = append([]string{first}, by...)
	}
	keys := make([]any, len(order)*len(by))
	for i := range order {
		for j, name := range by {
			keys[i*len(by)+j] = v.column(i, name)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int {
		for j := range by {
			if c := compare(keys[a*len(by)+j], keys[b*len(by)+j]); c != 0 {
				return c
			}
		}
		return 0
	})
	if q.Get("sort_reverse") == "true" {
		slices.Reverse(order)
	}
	return order, nil
}

// filter keeps the rows whose name has the text in it, whatever the case, or matches the expression.
func (v *view) filter(order []int, p paging) ([]int, error) {
	if p.name == "" {
		return order, nil
	}
	matches := func(name string) bool { return strings.Contains(strings.ToLower(name), strings.ToLower(p.name)) }
	if p.regex {
		pattern, err := auth.CompilePattern("(?i)" + p.name)
		if err != nil {
			return nil, &apiError{http.StatusBadRequest, "bad_request", "Pagination parameters are invalid"}
		}
		matches = pattern.Match
	}
	return slices.DeleteFunc(order, func(i int) bool {
		name, _ := v.column(i, "name").(string)
		return !matches(name)
	}), nil
}

func (v *view) take(order []int, c columns) []object {
	taken := make([]object, len(order))
	for n, i := range order {
		taken[n] = c.cutObject(v.at(i))
		delete(v.rendered, i)
	}
	return taken
}

// dotted returns a field of a field of an object: "message_stats.publish_details.rate". What is not there counts as 0.
func dotted(o object, name string) any {
	first, rest, deeper := strings.Cut(name, ".")
	value, ok := o.get(first)
	switch {
	case !ok:
		return 0
	case !deeper:
		return value
	}
	if inner, ok := value.(object); ok {
		return dotted(inner, rest)
	}
	return 0
}

// compare orders values as Erlang does: numbers, then booleans, then everything else, then texts.
func compare(a, b any) int {
	if x, ok := a.(string); ok {
		if y, ok := b.(string); ok {
			return cmp.Compare(x, y)
		}
	}
	rankA, numberA := rank(a)
	rankB, numberB := rank(b)
	return cmp.Or(cmp.Compare(rankA, rankB), cmp.Compare(numberA, numberB))
}

func rank(v any) (kind int, number float64) {
	switch v := v.(type) {
	case int:
		return 0, float64(v)
	case int64:
		return 0, float64(v)
	case uint64:
		return 0, float64(v)
	case float64:
		return 0, v
	case bool:
		if v {
			return 1, 1
		}
		return 1, 0
	case string:
		return 3, 0
	}
	return 2, 0
}

// columns are the fields that an answer is cut to, as paths; nil for all.
type columns [][]string

func parseColumns(q url.Values) columns {
	if !q.Has("columns") {
		return nil
	}
	c := columns{}
	for path := range strings.SplitSeq(q.Get("columns"), ",") {
		if path != "" {
			c = append(c, strings.Split(path, "."))
		}
	}
	return c
}

// cut takes the fields away that are not asked for.
func (c columns) cut(v any) any {
	if c == nil {
		return v
	}
	switch v := v.(type) {
	case object:
		return c.cutObject(v)
	case []object:
		cut := make([]object, len(v))
		for i, o := range v {
			cut[i] = c.cutObject(o)
		}
		return cut
	}
	return v
}

func (c columns) cutObject(o object) object {
	if c == nil {
		return o
	}
	cut := object{}
	for _, f := range o {
		var inner columns
		wanted, whole := false, false
		for _, path := range c {
			if path[0] != f.name {
				continue
			}
			wanted = true
			if len(path) == 1 {
				whole = true
			} else {
				inner = append(inner, path[1:])
			}
		}
		switch {
		case whole:
			cut = append(cut, f)
		case wanted:
			cut = append(cut, field{f.name, inner.cut(f.value)})
		}
	}
	return cut
}
