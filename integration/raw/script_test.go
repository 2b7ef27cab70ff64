package raw

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// scenario is one "=== name" section of a script file.
type scenario struct {
	name    string
	differs string   // why brokers differ on purpose; empty if they do not
	only    string   // the only broker it is for, as in "@"
	reason  string   // for only
	needs   []string // queue arguments that the broker must support
	lines   []line
}

type line struct {
	no   int    // in the file
	for_ string // broker condition after "@", empty for all
	conn string
	text string
}

// parseScripts reads a script file.
func parseScripts(name string) ([]*scenario, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var all []*scenario
	var s *scenario
	for i, text := range strings.Split(string(data), "\n") {
		text = strings.TrimSpace(text)
		if title, ok := strings.CutPrefix(text, "=== "); ok {
			s = &scenario{name: title}
			all = append(all, s)
			continue
		}
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		if s == nil {
			return nil, fmt.Errorf("%s:%d: before the first scenario", name, i+1)
		}
		if r, ok := strings.CutPrefix(text, "differs: "); ok {
			s.differs = r
			continue
		}
		if r, ok := strings.CutPrefix(text, "needs: "); ok {
			s.needs = append(s.needs, r)
			continue
		}
		if r, ok := strings.CutPrefix(text, "only: "); ok {
			s.only, s.reason, _ = strings.Cut(r, " ")
			continue
		}
		l := line{no: i + 1, conn: "a"}
		if strings.HasPrefix(text, "@") {
			l.for_, text, _ = strings.Cut(text[1:], " ")
		}
		if len(text) > 3 && text[1] == ':' && text[2] == ' ' {
			l.conn, text = text[:1], text[3:]
		}
		l.text = strings.TrimSpace(text)
		if l.for_ != "" && s.differs == "" {
			return nil, fmt.Errorf("%s:%d: a line for one broker, but no \"differs:\" before it", name, i+1)
		}
		s.lines = append(s.lines, l)
	}
	return all, nil
}

// matches tells if a condition like "settmq" or "rabbitmq>=4.3" holds for the broker.
func (b *brokerInfo) matches(condition string) (bool, error) {
	if condition == "" {
		return true, nil
	}
	m := regexp.MustCompile(`^(settmq|rabbitmq)(?:(<|>=)(\d+)\.(\d+))?$`).FindStringSubmatch(condition)
	if m == nil {
		return false, fmt.Errorf("condition %q", condition)
	}
	if b.flavour != m[1] || m[2] == "" {
		return b.flavour == m[1], nil
	}
	major, _ := strconv.Atoi(m[3])
	minor, _ := strconv.Atoi(m[4])
	older := b.major < major || b.major == major && b.minor < minor
	return older == (m[2] == "<"), nil
}

// run is the state of a scenario that is being played.
type run struct {
	info   *brokerInfo
	url    brokerURL
	prefix string // of fresh names
	vars   map[string]string
	conns  map[string]*conn
	log    []string
	made   [][2]string // methods that undo what was declared: name, object
}

func (s *scenario) play(t *testing.T, info *brokerInfo, prefix string) {
	r := &run{
		info: info, url: info.url, prefix: prefix, conns: map[string]*conn{},
		vars: map[string]string{"vhost": info.url.vhost, "user": info.url.user, "pass": info.url.pass},
	}
	defer r.sweep(t)
	var lines []line
	for _, l := range s.lines {
		ok, err := info.matches(l.for_)
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			lines = append(lines, l)
		}
	}
	err := r.play(lines)
	for name, c := range r.conns {
		if err == nil {
			if err = c.leave(); err != nil {
				err = fmt.Errorf("leaving connection %s: %w", name, err)
			}
		}
		c.Close()
	}
	if err != nil {
		t.Errorf("%v\nplayed so far:\n  %s", err, strings.Join(r.log, "\n  "))
	}
}

func (r *run) play(lines []line) error {
	for i := 0; i < len(lines); i++ {
		l := lines[i]
		word, rest, _ := strings.Cut(l.text, " ")
		if word == "eventually" || word == "repeat" {
			end := i + 1
			for end < len(lines) && lines[end].text != "end" {
				end++
			}
			if err := r.block(word, rest, lines[i+1:end]); err != nil {
				return err
			}
			i = end
			continue
		}
		text := r.expand(l.text)
		r.log = append(r.log, fmt.Sprintf("%3d %s: %s", l.no, l.conn, text))
		if len(r.log) > 200 {
			r.log = r.log[100:]
		}
		if err := r.step(l.conn, text); err != nil {
			return fmt.Errorf("line %d: %s: %s: %w", l.no, l.conn, text, err)
		}
	}
	return nil
}

func (r *run) block(word, arg string, lines []line) error {
	if word == "repeat" {
		n, err := strconv.Atoi(arg)
		for i := 1; i <= n && err == nil; i++ {
			r.vars["i"] = strconv.Itoa(i)
			err = r.play(lines)
		}
		return err
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		before := maps.Clone(r.conns)
		err := r.play(lines)
		if err == nil || time.Now().After(deadline) {
			return err
		}
		for name, c := range r.conns { // opened by this attempt
			if before[name] == nil {
				c.Close()
				delete(r.conns, name)
			}
		}
	}
}

var variable = regexp.MustCompile(`\$[a-z][a-z0-9_]*`)

func (r *run) expand(text string) string {
	return variable.ReplaceAllStringFunc(text, func(v string) string {
		name := v[1:]
		if _, ok := r.vars[name]; !ok {
			r.vars[name] = r.prefix + name
		}
		return r.vars[name]
	})
}

// step plays one line that is not a block.
func (r *run) step(name, text string) error {
	words := tokens(text)
	switch verb := words[0]; verb {
	case "dial", "open":
		return r.open(name, verb, words[1:])
	}
	c := r.conns[name]
	if c == nil {
		return errors.New("no such connection")
	}
	switch verb := words[0]; verb {
	case "header":
		return c.write(protocolHeader)
	case "channel":
		return eachChannel(words[1:], func(ch uint16) error {
			_, err := c.call(ch, "channel.open", nil, "channel.open-ok")
			return err
		})
	case ">", ">m", ">h", ">b":
		ch, err := strconv.ParseUint(words[1], 10, 16)
		if err != nil {
			return err
		}
		return r.send(c, verb, uint16(ch), text, words[2:])
	case ">f":
		return sendFrame(c, words[1:])
	case ">x":
		b, err := hex.DecodeString(strings.Join(words[1:], ""))
		if err != nil {
			return err
		}
		return c.write(b)
	case "<":
		return r.receive(c, text, words)
	case "<raw":
		want, err := hex.DecodeString(strings.Join(words[1:], ""))
		if err != nil {
			return err
		}
		got, err := c.nextRaw(len(want))
		if err == nil && !bytes.Equal(got, want) {
			err = fmt.Errorf("got %x", got)
		}
		return err
	case "eof":
		delete(r.conns, name)
		defer c.Close()
		return awaitEOF(c, words[1:])
	case "close", "reset":
		delete(r.conns, name)
		return c.cut(verb == "reset")
	}
	return errors.New("no such verb")
}

func (r *run) open(name, verb string, words []string) error {
	if old := r.conns[name]; old != nil {
		return errors.New("this connection is open")
	}
	c, err := dial(r.url)
	if err != nil {
		return err
	}
	r.conns[name] = c
	if verb == "open" {
		_, err = c.handshake(arguments(words))
	}
	return err
}

func eachChannel(words []string, f func(uint16) error) error {
	for _, w := range words {
		ch, err := strconv.ParseUint(w, 10, 16)
		if err != nil {
			return err
		}
		if err := f(uint16(ch)); err != nil {
			return err
		}
	}
	return nil
}

func awaitEOF(c *conn, words []string) error {
	within := 10 * time.Second
	if len(words) > 0 {
		var err error
		if within, err = time.ParseDuration(words[0]); err != nil {
			return err
		}
	}
	if err := c.awaitEnd(within); err != nil {
		return err
	}
	if left := c.elsewhere(); left != "" {
		return fmt.Errorf("the connection ended, but%s", left)
	}
	return nil
}

// tokens splits at spaces outside of quotes and brackets.
func tokens(text string) []string {
	var out []string
	for _, w := range splitTop(text, ' ') {
		if w != "" {
			out = append(out, w)
		}
	}
	return out
}

func arguments(words []string) map[string]string {
	args := map[string]string{}
	for _, w := range words {
		name, value, ok := strings.Cut(w, "=")
		if !ok {
			value = "1"
		}
		args[name] = value
	}
	return args
}

func (r *run) send(c *conn, verb string, ch uint16, text string, words []string) error {
	switch verb {
	case ">b":
		body := []byte(strings.Join(words, " "))
		if n, ok := strings.CutPrefix(string(body), "zeros="); ok {
			size, err := strconv.Atoi(n)
			if err != nil {
				return err
			}
			body = make([]byte, size)
		}
		return c.write(appendFrame(nil, frameBody, ch, body))
	case ">h":
		payload, err := encodeHeader(0, arguments(words))
		if err != nil {
			return err
		}
		return c.write(appendFrame(nil, frameHeader, ch, payload))
	}
	m := methodsByName[words[0]]
	if m == nil {
		return fmt.Errorf("no method %q", words[0])
	}
	args := arguments(words[1:])
	if strings.HasSuffix(m.name, ".close") && len(words) > 2 {
		var err error
		if args, err = closeArguments(text); err != nil {
			return err
		}
	}
	if err := m.check(args); err != nil {
		return err
	}
	switch m.name {
	case "queue.declare":
		r.made = append(r.made, [2]string{"queue", args["queue"]})
	case "exchange.declare":
		r.made = append(r.made, [2]string{"exchange", args["exchange"]})
	case "connection.tune-ok":
		if err := c.agree(args["frame-max"]); err != nil {
			return err
		}
	}
	if verb == ">m" {
		payload, err := encodeMethod(m, args)
		if err != nil {
			return err
		}
		return c.write(appendFrame(nil, frameMethod, ch, payload))
	}
	return c.send(ch, m.name, args)
}

// check refuses arguments that the method does not have: a misspelt one would be a zero.
func (m *method) check(args map[string]string) error {
next:
	for name := range args {
		for _, f := range m.fields {
			if f.name == name {
				continue next
			}
		}
		if m.content && (isProperty(name) || name == "body" || name == "zeros" || name == "props") {
			continue
		}
		return fmt.Errorf("%s has no %q", m.name, name)
	}
	return nil
}

// closeArguments reads "> 1 channel.close CODE CLASS.METHOD TEXT".
func closeArguments(text string) (map[string]string, error) {
	parts := strings.SplitN(strings.TrimLeft(text, "<> "), " ", 5)
	if len(parts) < 4 {
		return nil, errors.New("want CODE CLASS.METHOD TEXT")
	}
	class, method, ok := strings.Cut(parts[3], ".")
	if !ok {
		class, method = parts[3], parts[3]
	}
	args := map[string]string{"reply-code": parts[2], "class-id": class, "method-id": method}
	if len(parts) == 5 {
		args["reply-text"] = parts[4]
	}
	if strings.HasPrefix(args["reply-text"], `"`) {
		s, err := strconv.Unquote(args["reply-text"])
		if err != nil {
			return nil, err
		}
		args["reply-text"] = s
	}
	return args, nil
}

func sendFrame(c *conn, words []string) error {
	args := arguments(words)
	var payload []byte
	if n, ok := strings.CutPrefix(args["payload"], "zeros:"); ok {
		size, err := strconv.Atoi(n)
		if err != nil {
			return err
		}
		payload = make([]byte, size)
	} else {
		var err error
		if payload, err = hex.DecodeString(args["payload"]); err != nil {
			return err
		}
	}
	kind, err := strconv.ParseUint(args["type"], 0, 8)
	if err != nil {
		return err
	}
	ch, err := strconv.ParseUint(args["channel"], 0, 16)
	if err != nil {
		return err
	}
	b := appendFrame(nil, uint8(kind), uint16(ch), payload)
	if v, ok := args["size"]; ok {
		size, err := strconv.ParseUint(v, 0, 32)
		if err != nil {
			return err
		}
		copy(b[3:], appendUint(nil, size, 4))
	}
	if v, ok := args["end"]; ok {
		end, err := hex.DecodeString(v)
		if err != nil {
			return err
		}
		b = append(b[:len(b)-1], end...)
	}
	return c.write(b)
}

// receive compares the next event of a channel with "< CH METHOD ARGS".
func (r *run) receive(c *conn, text string, words []string) error {
	ch, err := strconv.ParseUint(words[1], 10, 16)
	if err != nil {
		return err
	}
	ev, err := c.next(uint16(ch))
	for err == nil && ev.method == nil && words[2] != "heartbeat" {
		ev, err = c.next(uint16(ch))
	}
	if err != nil {
		return err
	}
	if words[2] == "heartbeat" {
		if ev.method != nil {
			return fmt.Errorf("got %v", ev)
		}
		return nil
	}
	m := methodsByName[words[2]]
	if m == nil {
		return fmt.Errorf("no method %q", words[2])
	}
	if ev.method != m {
		return fmt.Errorf("got %v", ev)
	}
	args := arguments(words[3:])
	if strings.HasSuffix(m.name, ".close") {
		if args, err = closeArguments(text); err != nil {
			return err
		}
	}
	if err := m.check(args); err != nil {
		return err
	}
	if err := r.compare(ev, args); err != nil {
		return fmt.Errorf("got %v: %w", ev, err)
	}
	return nil
}

func (r *run) compare(ev *event, want map[string]string) error {
	for _, f := range ev.method.fields {
		if err := r.compareField(f, ev.args[f.name], want[f.name]); err != nil {
			return err
		}
	}
	if !ev.method.content {
		return nil
	}
	for _, p := range propertyTable {
		got, has := ev.props[p.name]
		w, expected := want[p.name]
		if want["props"] == "*" && !expected {
			continue
		}
		if has != expected {
			return fmt.Errorf("%s there: %t, want %t", p.name, has, expected)
		}
		if has {
			if err := r.compareField(p, got, w); err != nil {
				return err
			}
		}
	}
	if want["body"] == "*" {
		return nil
	}
	body, err := bodyOf(want)
	if err == nil && !bytes.Equal(body, ev.body) {
		err = fmt.Errorf("body differs from %s", renderBody(body))
	}
	return err
}

func (r *run) compareField(f field, got, want string) error {
	switch {
	case want == "*", f.name == "reply-code" && slices.Contains(strings.Split(want, "|"), got):
		return nil
	case strings.HasPrefix(want, "?"):
		r.vars[want[1:]] = got
		return nil
	case f.name == "reply-text" && strings.HasPrefix(want, "~"):
		re, err := regexp.Compile(`^(?s:` + want[1:] + `)$`)
		if err == nil && !re.MatchString(got) {
			err = errors.New("the text does not match")
		}
		return err
	case f.name == "reply-text":
		// Only close and return have it; scripts write it without quotes, or quoted.
		if w, err := unquote(want); err == nil {
			want = w
		}
	case f.kind == bit:
		if want == "" {
			want = "0"
		}
	default:
		var err error
		if want, err = canonical(f.kind, want); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	if got != want {
		return fmt.Errorf("%s is %q, want %q", f.name, got, want)
	}
	return nil
}

// sweep deletes what the scenario may have left behind.
func (r *run) sweep(t *testing.T) {
	if len(r.made) == 0 || t.Failed() && r.info.child != nil {
		return
	}
	c, err := dial(r.url)
	if err != nil {
		t.Errorf("sweep: %v", err)
		return
	}
	defer c.Close()
	if _, err := c.handshake(nil); err != nil {
		t.Errorf("sweep: %v", err)
		return
	}
	for _, m := range r.made {
		if m[1] == "" || strings.HasPrefix(m[1], "amq.") || strings.HasPrefix(m[1], `"`) {
			continue
		}
		// A refusal (a name that is not allowed) closes the channel: open one for each.
		_, err := c.call(1, "channel.open", nil, "channel.open-ok")
		if err == nil {
			err = c.send(1, m[0]+".delete", map[string]string{m[0]: m[1]})
		}
		if err == nil {
			if ev, e := c.next(1); e != nil || ev.method.name == "channel.close" {
				t.Logf("sweep: %s %q: %v %v", m[0], m[1], ev, e)
				return
			}
			_, err = c.call(1, "channel.close", map[string]string{"reply-code": "200"}, "channel.close-ok")
		}
		if err != nil {
			t.Logf("sweep: %s %q: %v", m[0], m[1], err)
			return
		}
	}
	if err := c.leave(); err != nil {
		t.Errorf("sweep: %v", err)
	}
}
