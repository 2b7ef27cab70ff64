package definitions

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Limits of a file.
const (
	// DefaultMaxBytes is the largest file read when Options do not say, in bytes.
	DefaultMaxBytes = 20 << 20
	// MaxDepth is how deep objects and lists may nest in it, the file itself being the first level.
	MaxDepth = 64
	// maxProblems is how many problems are kept; the rest is counted.
	maxProblems = 100
	maxName     = 255 // a short string on the wire
	maxText     = 300 // of a problem: it may quote the file
)

// ErrTooLarge is returned for a file above the limit of Options.
var ErrTooLarge = errors.New("definitions: file too large")

// Options of Parse.
type Options struct {
	// MaxBytes is the largest file read; 0 is DefaultMaxBytes.
	MaxBytes int64
	// VHost is where the objects of a file of a single vhost belong. Such files do not name it. With
	// "" they are refused.
	VHost string
}

// Problem is one thing that is wrong with a file.
type Problem struct {
	Path string // of the value, such as "queues[3].arguments.x-expires"; "" for the file as a whole
	Text string
}

// String is the path and the text.
func (p Problem) String() string {
	if p.Path == "" {
		return p.Text
	}
	return p.Path + ": " + p.Text
}

// Error is everything that is wrong with a file.
type Error struct {
	Problems []Problem
	More     int // problems beyond those that are kept
}

// Error is one line per problem.
func (e *Error) Error() string {
	lines := make([]string, 0, len(e.Problems)+1)
	for _, p := range e.Problems {
		lines = append(lines, p.String())
	}
	if e.More > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", e.More))
	}
	return strings.Join(lines, "\n")
}

// Parse reads a definitions file. The error is an *Error that lists everything wrong with the content,
// or ErrTooLarge or the reader's. A file that is not JSON ends the reading at that place: later problems
// are not seen.
func Parse(r io.Reader, o Options) (*Definitions, error) {
	if o.MaxBytes <= 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	limited := &limitedReader{r: r, left: o.MaxBytes}
	buf := bufio.NewReader(limited)
	if bom, _ := buf.Peek(3); string(bom) == "\xef\xbb\xbf" { // put there by Windows tools
		_, _ = buf.Discard(3)
	}
	p := &parser{options: o, defs: &Definitions{}, seen: map[string]string{}}
	p.file(json.NewDecoder(fullReader{buf}))
	switch {
	case limited.err != nil && !errors.Is(limited.err, io.EOF):
		return nil, limited.err
	case len(p.failed.Problems) > 0:
		return nil, &p.failed
	}
	return p.defs, nil
}

// limitedReader is a reader that fails with ErrTooLarge, and remembers how it failed.
type limitedReader struct {
	r    io.Reader
	left int64
	err  error
}

func (l *limitedReader) Read(b []byte) (int, error) {
	if l.err != nil {
		return 0, l.err
	}
	// One byte more than allowed, to tell a file of exactly the limit from a longer one.
	if int64(len(b)) > l.left+1 {
		b = b[:l.left+1]
	}
	n, err := l.r.Read(b)
	l.left -= int64(n)
	if l.left < 0 {
		n, err = 0, ErrTooLarge
	}
	l.err = err
	return n, err
}

// fullReader fills what it is given as long as there is input. The decoder doubles its buffer, but looks
// at all blanks before a value again after every read: with short reads, a file of blanks would take
// quadratic time.
type fullReader struct{ r io.Reader }

func (f fullReader) Read(b []byte) (int, error) {
	n, err := io.ReadFull(f.r, b)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil // the next call says io.EOF
	}
	return n, err
}

// parser is the state of one Parse.
type parser struct {
	options Options
	defs    *Definitions
	failed  Error
	seen    map[string]string // identity of an object → path where it stands
	late    []func()          // what needs the whole file: it may come in any order
}

func (p *parser) problem(path, format string, args ...any) {
	if len(p.failed.Problems) == maxProblems {
		p.failed.More++
		return
	}
	text := fmt.Sprintf(format, args...)
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "..."
	}
	p.failed.Problems = append(p.failed.Problems, Problem{Path: path, Text: text})
}

// file reads the outermost object, section by section, so that a large file is not held whole.
func (p *parser) file(d *json.Decoder) {
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		p.notJSON(d, err, "an object is needed")
		return
	}
	keys := map[string]bool{}
	head := &object{p: p, fields: map[string]json.RawMessage{}}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			p.notJSON(d, err, "")
			return
		}
		key, _ := t.(string)
		if len(key) > maxName {
			p.problem("", "a key of %d bytes", len(key))
			return
		}
		if keys[key] {
			p.problem(key, "is there twice")
			return
		}
		keys[key] = true
		read, known := sections[key]
		if known {
			if !p.section(d, key, read) {
				return
			}
			continue
		}
		raw, ok := p.raw(d, key, 1)
		if !ok {
			return
		}
		if headKeys[key] {
			head.fields[key] = raw
		} else {
			p.defs.Ignored = append(p.defs.Ignored, key)
		}
	}
	if _, err := d.Token(); err != nil {
		p.notJSON(d, err, "")
		return
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		p.notJSON(d, err, "something follows the object")
		return
	}
	p.head(head)
	for _, f := range p.late {
		f()
	}
}

// headKeys are the keys of the file itself that are not sections. Those of description, limits and
// metadata occur in files of a single vhost.
var headKeys = map[string]bool{
	"rabbit_version": true, "rabbitmq_version": true, "product_name": true, "product_version": true,
	"explanation": true, "rabbitmq_definition_format": true, "original_cluster_name": true, "original_vhost_name": true,
	"description": true, "limits": true, "metadata": true, "default_queue_type": true, "tags": true,
}

func (p *parser) head(o *object) {
	for _, key := range []string{"rabbit_version", "rabbitmq_version"} {
		if v := o.text(key, ""); p.defs.Version == "" {
			p.defs.Version = v
		}
	}
	if p.options.VHost == "" {
		return
	}
	v := o.vhostFields()
	v.Name = p.options.VHost
	if _, ok := p.seen[identity("vhosts", v.Name)]; !ok {
		p.defs.VHosts = append(p.defs.VHosts, v)
	}
}

// section reads a list of objects. False ends the reading.
func (p *parser) section(d *json.Decoder, key string, read func(*object)) bool {
	t, err := d.Token()
	if err != nil {
		p.notJSON(d, err, "")
		return false
	}
	switch t {
	case nil:
		return true
	case json.Delim('['):
	default:
		p.problem(key, "a list is needed")
		return false
	}
	for i := 0; d.More(); i++ {
		path := fmt.Sprintf("%s[%d]", key, i)
		raw, ok := p.raw(d, path, 2)
		if !ok {
			return false
		}
		if o, ok := p.object(path, raw); ok {
			read(o)
		}
	}
	if _, err := d.Token(); err != nil {
		p.notJSON(d, err, "")
		return false
	}
	return true
}

// raw reads one value and checks what json.Decoder does not: nesting and UTF-8. depth is the number of
// levels around it.
func (p *parser) raw(d *json.Decoder, path string, depth int) (json.RawMessage, bool) {
	var raw json.RawMessage
	if err := d.Decode(&raw); err != nil {
		p.notJSON(d, err, "")
		return nil, false
	}
	if !utf8.Valid(raw) {
		p.problem(path, "not UTF-8")
		return nil, false
	}
	if nesting(raw)+depth > MaxDepth {
		p.problem(path, "nested deeper than %d levels", MaxDepth)
		return nil, false
	}
	return raw, true
}

// nesting is how deep objects and lists nest in a valid JSON value.
func nesting(raw []byte) (deepest int) {
	depth, quoted := 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
			deepest = max(deepest, depth)
		case c == '}' || c == ']':
			depth--
		}
	}
	return deepest
}

func (p *parser) notJSON(d *json.Decoder, err error, otherwise string) {
	var syntax *json.SyntaxError
	switch {
	case err == nil:
		p.problem("", "byte %d: %s", d.InputOffset(), otherwise)
	case errors.As(err, &syntax):
		p.problem("", "byte %d: not JSON: %v", syntax.Offset, err)
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		p.problem("", "byte %d: not JSON: the file ends too early", d.InputOffset())
	default:
		p.problem("", "byte %d: not JSON: %v", d.InputOffset(), err)
	}
}

// object takes an object apart; each value stays raw until it is asked for.
func (p *parser) object(path string, raw json.RawMessage) (*object, bool) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		p.problem(path, "an object is needed")
		return nil, false
	}
	o := &object{p: p, path: path, fields: map[string]json.RawMessage{}}
	for d.More() {
		t, err := d.Token()
		key, _ := t.(string)
		var value json.RawMessage
		if err == nil {
			err = d.Decode(&value)
		}
		if err != nil {
			p.problem(path, "not JSON: %v", err) // cannot be: the decoder has seen the bytes before
			return nil, false
		}
		if _, twice := o.fields[key]; twice {
			p.problem(path+"."+short(key), "is there twice")
		}
		o.fields[key] = value
	}
	return o, true
}

// short keeps a hostile key from filling the report.
func short(key string) string {
	if len(key) > 64 {
		return fmt.Sprintf("%.60q...", key)
	}
	return key
}

// once reports a problem if an object of the same kind and names came before.
func (p *parser) once(o *object, kind string, names ...string) {
	if names[0] == "" || names[len(names)-1] == "" && kind != "topic_permissions" {
		return // a missing name has been reported
	}
	id := identity(kind, names...)
	if first, ok := p.seen[id]; ok {
		p.problem(o.path, "is the same as %s", first)
		return
	}
	p.seen[id] = o.path
}

func identity(kind string, names ...string) string {
	// Lengths keep ("a", "bc") and ("ab", "c") apart; names may hold any byte.
	var b strings.Builder
	b.WriteString(kind)
	for _, n := range names {
		fmt.Fprintf(&b, " %d:%s", len(n), n)
	}
	return b.String()
}
