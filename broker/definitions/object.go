package definitions

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/settmq/settmq/amqp"
)

// object is one JSON object of the file. Its accessors report what is wrong and return a value that lets
// the reading go on, so that one pass finds every problem.
type object struct {
	p      *parser
	path   string
	fields map[string]json.RawMessage
}

func (o *object) at(key string) string {
	if o.path == "" {
		return key
	}
	return o.path + "." + key
}

func (o *object) problem(key, format string, args ...any) {
	o.p.problem(o.at(key), format, args...)
}

// has reports whether the key is there with a value other than null.
func (o *object) has(key string) bool {
	raw, ok := o.fields[key]
	return ok && string(raw) != "null"
}

// read decodes a value if it is there; otherwise to keeps what it has.
func read[T any](o *object, key, kind string, to *T) {
	if !o.has(key) {
		return
	}
	var v T
	if err := json.Unmarshal(o.fields[key], &v); err != nil {
		o.problem(key, "%s is needed", kind)
		return
	}
	*to = v
}

func (o *object) text(key, otherwise string) string {
	read(o, key, "a text", &otherwise)
	return otherwise
}

func (o *object) flag(key string, otherwise bool) bool {
	read(o, key, "true or false", &otherwise)
	return otherwise
}

func (o *object) number(key string, otherwise int64) int64 {
	read(o, key, "a whole number", &otherwise)
	return otherwise
}

// name is a text that must be there, of 1 to 255 bytes.
func (o *object) name(key string) string {
	if !o.has(key) {
		o.problem(key, "is missing")
		return ""
	}
	s := o.text(key, "")
	if !o.badType(key) && (s == "" || len(s) > maxName) {
		o.problem(key, "a name of %d bytes, it has 1 to %d", len(s), maxName)
	}
	return s
}

// badType reports whether the value is no text, which is then a problem that has been reported already.
func (o *object) badType(key string) bool { return o.fields[key][0] != '"' }

// shortText is a text of at most 255 bytes that may be empty or missing.
func (o *object) shortText(key string) string {
	s := o.text(key, "")
	if len(s) > maxName {
		o.problem(key, "%d bytes, at most %d", len(s), maxName)
	}
	return s
}

// vhost is the vhost the object belongs to: its own, or that of a file of a single vhost.
func (o *object) vhost() string {
	if !o.has("vhost") && o.p.options.VHost != "" {
		return o.p.options.VHost
	}
	return o.name("vhost")
}

// tags are a list, or one text with commas (RabbitMQ before 3.9).
func (o *object) tags(key string) []string {
	if !o.has(key) {
		return nil
	}
	var list []string
	if o.fields[key][0] == '"' {
		list = strings.Split(o.text(key, ""), ",")
	} else {
		read(o, key, "a list of texts", &list)
	}
	var tags []string
	for _, tag := range list {
		tag = strings.TrimSpace(tag)
		if len(tag) > maxName {
			o.problem(key, "a tag of %d bytes", len(tag))
		}
		if tag != "" && !slices.Contains(tags, tag) {
			tags = append(tags, tag)
		}
	}
	return tags
}

// limits are an object of numbers. Erlang writes an empty one as a list now and then.
func (o *object) limits(key string) []Limit {
	if !o.has(key) || isEmptyList(o.fields[key]) {
		return nil
	}
	inner, ok := o.p.object(o.at(key), o.fields[key])
	if !ok {
		return nil
	}
	var limits []Limit
	for name := range inner.fields {
		limits = append(limits, Limit{Name: name, Value: inner.number(name, -1)})
	}
	slices.SortFunc(limits, func(a, b Limit) int { return strings.Compare(a.Name, b.Name) })
	return limits
}

// arguments are a table.
func (o *object) arguments() amqp.Table {
	const key = "arguments"
	if !o.has(key) || isEmptyList(o.fields[key]) {
		return nil
	}
	b := &builder{d: json.NewDecoder(bytes.NewReader(o.fields[key])), problem: o.p.problem}
	return b.whole(o.at(key))
}

// value is any JSON that must be there.
func (o *object) value(key string) json.RawMessage {
	if raw, ok := o.fields[key]; ok {
		return raw
	}
	o.problem(key, "is missing")
	return nil
}

func isEmptyList(raw json.RawMessage) bool {
	return raw[0] == '[' && strings.TrimSpace(string(raw[1:len(raw)-1])) == ""
}

// Table turns a JSON object into a table, as it is done for arguments: whole numbers become 64-bit
// integers, other numbers doubles, texts long strings, null void. The error is an *Error.
func Table(raw json.RawMessage) (amqp.Table, error) {
	var p parser
	if nesting(raw) > MaxDepth {
		p.problem("", "nested deeper than %d levels", MaxDepth)
		return nil, &p.failed
	}
	b := &builder{d: json.NewDecoder(bytes.NewReader(raw)), problem: p.problem}
	t := b.whole("")
	if len(p.failed.Problems) > 0 {
		return nil, &p.failed
	}
	return t, nil
}

// builder makes a table of a stream of tokens, in one pass. The nesting is bounded before.
type builder struct {
	d       *json.Decoder
	problem func(path, format string, args ...any)
	failed  bool
}

func (b *builder) fail(path, format string, args ...any) {
	b.problem(path, format, args...)
	b.failed = true
}

func (b *builder) whole(path string) amqp.Table {
	b.d.UseNumber()
	t, err := b.d.Token()
	if err != nil || t != json.Delim('{') {
		b.fail(path, "an object is needed")
		return nil
	}
	table := b.table(path)
	if b.failed {
		return nil
	}
	if err := table.Check(); err != nil {
		b.fail(path, "cannot be a table: %v", err)
		return nil
	}
	return table
}

// table reads what follows '{'.
func (b *builder) table(path string) amqp.Table {
	var table amqp.Table
	seen := map[string]bool{}
	for b.d.More() && !b.failed {
		t, err := b.d.Token()
		if err != nil {
			b.fail(path, "not JSON: %v", err)
			return nil
		}
		key, _ := t.(string)
		at := key
		if path != "" {
			at = path + "." + short(key)
		}
		switch {
		case len(key) > maxName:
			b.fail(at, "a key of %d bytes, at most %d", len(key), maxName)
		case seen[key]:
			b.fail(at, "is there twice")
		default:
			seen[key] = true
			table = append(table, amqp.Field{Name: key, Value: b.value(at)})
		}
	}
	b.skip(path)
	return table
}

// skip takes the closing delimiter.
func (b *builder) skip(path string) {
	if b.failed {
		return
	}
	if _, err := b.d.Token(); err != nil {
		b.fail(path, "not JSON: %v", err)
	}
}

func (b *builder) value(path string) amqp.Value {
	t, err := b.d.Token()
	if err != nil {
		b.fail(path, "not JSON: %v", err)
		return amqp.Void()
	}
	switch t := t.(type) {
	case string:
		return amqp.String(t)
	case bool:
		return amqp.Bool(t)
	case json.Number:
		return b.number(path, t)
	case json.Delim:
		if t == '{' {
			return amqp.TableValue(b.table(path))
		}
		var items []amqp.Value
		for i := 0; b.d.More() && !b.failed; i++ {
			items = append(items, b.value(path+"["+strconv.Itoa(i)+"]"))
		}
		b.skip(path)
		return amqp.ArrayValue(items...)
	}
	return amqp.Void()
}

func (b *builder) number(path string, n json.Number) amqp.Value {
	if !strings.ContainsAny(string(n), ".eE") {
		v, err := n.Int64()
		if err != nil {
			b.fail(path, "%.40s does not fit into 64 bits", string(n))
		}
		return amqp.Int64(v)
	}
	v, err := n.Float64()
	if err != nil {
		b.fail(path, "%.40s is not a number we can keep", string(n))
	}
	return amqp.Float64(v)
}
