package raw

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Frame types and the frame end byte.
const (
	frameMethod    = 1
	frameHeader    = 2
	frameBody      = 3
	frameHeartbeat = 8
	frameEnd       = 0xCE
	frameOverhead  = 8
)

// answerTimeout bounds the wait for any one frame. Some brokers think for three seconds
// before they drop a peer, and a busy machine adds to that.
const answerTimeout = 15 * time.Second

var protocolHeader = []byte("AMQP\x00\x00\x09\x01")

// event is one thing that came from the broker: a method, with its content if it has one, or
// a heartbeat.
type event struct {
	method *method // nil for a heartbeat
	args   map[string]string
	props  map[string]string
	body   []byte
	size   uint64
}

func (e *event) String() string {
	if e.method == nil {
		return "heartbeat"
	}
	var b strings.Builder
	b.WriteString(e.method.name)
	if code, ok := e.args["reply-code"]; ok && e.method.name != "basic.return" {
		fmt.Fprintf(&b, " %s %s.%s %s", code, e.args["class-id"], e.args["method-id"], quoteText(e.args["reply-text"]))
		return b.String()
	}
	for _, f := range e.method.fields {
		if v := e.args[f.name]; v != "" && v != "0" && v != "{}" {
			fmt.Fprintf(&b, " %s=%s", f.name, quoteName(v))
		}
	}
	for _, p := range propertyTable {
		if v, ok := e.props[p.name]; ok {
			fmt.Fprintf(&b, " %s=%s", p.name, v)
		}
	}
	if e.method.content {
		fmt.Fprintf(&b, " body=%s", renderBody(e.body))
	}
	return b.String()
}

// quoteText keeps a reply text readable, and on one line.
func quoteText(s string) string {
	if q := strconv.Quote(s); strings.ContainsAny(s, "\r\n\x00") {
		return q
	}
	return s
}

func renderBody(b []byte) string {
	if len(b) > 64 {
		if len(bytes.Trim(b, "\x00")) == 0 {
			return fmt.Sprintf("zeros=%d", len(b))
		}
		return fmt.Sprintf("(%d bytes)", len(b))
	}
	return quoteName(string(b))
}

// conn is a raw connection. Frames that arrive are sorted by channel, so that tests do not
// depend on how a broker interleaves its channels.
type conn struct {
	net.Conn
	url      brokerURL
	frameMax uint32 // what we agreed to; 0 is unlimited

	mu       sync.Mutex
	arrived  chan struct{}       // guarded by mu; closed and replaced when something below changes
	events   map[uint16][]*event // guarded by mu
	raw      []byte              // guarded by mu; bytes outside of frames: a protocol header
	end      error               // guarded by mu; why reading ended: io.EOF for an orderly end or a reset
	assembly map[uint16]*event   // of the reading goroutine
}

func dial(u brokerURL) (*conn, error) {
	nc, err := net.DialTimeout("tcp", u.host, answerTimeout)
	if err != nil {
		return nil, err
	}
	c := &conn{
		Conn: nc, url: u,
		arrived: make(chan struct{}), events: map[uint16][]*event{}, assembly: map[uint16]*event{},
	}
	go c.read()
	return c, nil
}

// read runs until the connection ends.
func (c *conn) read() {
	br := bufio.NewReader(c.Conn)
	for {
		// The first byte decides: no frame begins with the A of a protocol header.
		if first, err := br.Peek(1); err == nil && first[0] == protocolHeader[0] {
			chunk, _ := br.Peek(br.Buffered())
			c.update(func() { c.raw = append(c.raw, chunk...) })
			if _, err := br.Discard(len(chunk)); err != nil {
				c.update(func() { c.end = err })
				return
			}
			continue
		}
		ch, ev, err := c.readFrame(br)
		if err != nil {
			if isEnd(err) {
				err = io.EOF
			}
			c.update(func() { c.end = err })
			return
		}
		if ev != nil {
			c.update(func() { c.events[ch] = append(c.events[ch], ev) })
		}
	}
}

// isEnd tells an end of the connection, orderly or not, from bytes that make no sense.
func isEnd(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.As(err, &op)
}

func (c *conn) update(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	close(c.arrived)
	c.arrived = make(chan struct{})
}

func (c *conn) readFrame(br *bufio.Reader) (uint16, *event, error) {
	var head [7]byte
	if _, err := io.ReadFull(br, head[:1]); err != nil {
		return 0, nil, err
	}
	if _, err := io.ReadFull(br, head[1:]); err != nil {
		return 0, nil, fmt.Errorf("frame cut short: %w", err)
	}
	ch, size := binary.BigEndian.Uint16(head[1:]), binary.BigEndian.Uint32(head[3:])
	c.mu.Lock()
	limit := c.frameMax
	c.mu.Unlock()
	if limit != 0 && size > limit-frameOverhead || size > 1<<30 {
		return 0, nil, fmt.Errorf("the broker sent a payload of %d bytes with frame-max %d", size, limit)
	}
	payload := make([]byte, size+1)
	if _, err := io.ReadFull(br, payload); err != nil {
		return 0, nil, fmt.Errorf("frame cut short: %w", err)
	}
	if payload[size] != frameEnd {
		return 0, nil, fmt.Errorf("frame ends with %#x", payload[size])
	}
	ev, err := c.assemble(head[0], ch, payload[:size])
	return ch, ev, err
}

// assemble returns the event that the frame completes, if it does.
func (c *conn) assemble(kind uint8, ch uint16, payload []byte) (*event, error) {
	pending := c.assembly[ch]
	switch {
	case kind == frameHeartbeat && ch == 0 && len(payload) == 0:
		return &event{}, nil
	case kind == frameMethod && pending == nil:
		ev, err := decodeMethod(payload)
		if err != nil {
			return nil, err
		}
		if ev.method.content {
			c.assembly[ch] = ev
			return nil, nil
		}
		return ev, nil
	case kind == frameHeader && pending != nil && pending.props == nil:
		if err := pending.decodeHeader(payload); err != nil {
			return nil, err
		}
	case kind == frameBody && pending != nil && pending.props != nil:
		pending.body = append(pending.body, payload...)
		if len(payload) == 0 || uint64(len(pending.body)) > pending.size {
			return nil, fmt.Errorf("body frame of %d bytes makes %d of %d", len(payload), len(pending.body), pending.size)
		}
	default:
		return nil, fmt.Errorf("frame of type %d on channel %d is out of place", kind, ch)
	}
	if uint64(len(pending.body)) < pending.size {
		return nil, nil
	}
	delete(c.assembly, ch)
	return pending, nil
}

func decodeMethod(payload []byte) (*event, error) {
	r := reader{b: payload}
	id := uint32(r.uint(4))
	m := methodsByID[id]
	if m == nil {
		return nil, fmt.Errorf("the broker sent method %d.%d", id>>16, id&0xffff)
	}
	ev := &event{method: m, args: map[string]string{}}
	var bits, nbits uint64
	for _, f := range m.fields {
		if f.kind != bit {
			nbits = 0
			ev.args[f.name] = r.value(f.kind)
			continue
		}
		if nbits == 0 {
			bits = r.uint(1)
		}
		ev.args[f.name] = strconv.FormatUint(bits>>nbits&1, 10)
		nbits = (nbits + 1) % 8
	}
	if r.err == nil && len(r.b) > 0 {
		r.err = fmt.Errorf("%d bytes too many", len(r.b))
	}
	if r.err != nil {
		return nil, fmt.Errorf("%s from the broker: %w", m.name, r.err)
	}
	return ev, nil
}

func (e *event) decodeHeader(payload []byte) error {
	r := reader{b: payload}
	class, weight := r.uint(2), r.uint(2)
	e.size = r.uint(8)
	flags := r.uint(2)
	e.props = map[string]string{}
	for i, p := range propertyTable {
		if flags&(1<<(15-i)) != 0 {
			e.props[p.name] = r.value(p.kind)
		}
	}
	if r.err == nil && (class != 60 || weight != 0 || flags&3 != 0 || len(r.b) > 0) {
		r.err = fmt.Errorf("class %d, weight %d, flags %#x, %d bytes left", class, weight, flags, len(r.b))
	}
	if r.err != nil {
		return fmt.Errorf("content header from the broker: %w", r.err)
	}
	return nil
}

var errTimeout = errors.New("nothing came in time")

// await returns when ready does (called under mu), with errTimeout at the deadline.
func (c *conn) await(timeout time.Duration, ready func() bool) error {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		c.mu.Lock()
		ok, arrived := ready(), c.arrived
		c.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-arrived:
		case <-timer.C:
			return errTimeout
		}
	}
}

// next takes the next event of a channel. If the connection ends first, its error is returned.
func (c *conn) next(ch uint16) (*event, error) {
	var ev *event
	var end error
	err := c.await(answerTimeout, func() bool {
		if q := c.events[ch]; len(q) > 0 {
			ev, c.events[ch] = q[0], q[1:]
			return true
		}
		if end = c.end; end == nil && ch != 0 && c.closedLocked() {
			end = errors.New("the broker closes the connection")
		}
		return end != nil
	})
	if err == nil && ev == nil {
		err = end
	}
	if err != nil {
		return nil, fmt.Errorf("%w%s", err, c.elsewhere())
	}
	return ev, nil
}

// closedLocked tells if a connection.close waits to be read: nothing else will come.
func (c *conn) closedLocked() bool {
	for _, ev := range c.events[0] {
		if ev.method != nil && ev.method.name == "connection.close" {
			return true
		}
	}
	return false
}

// elsewhere describes what came but nobody asked for, to explain failures.
func (c *conn) elsewhere() string {
	var b strings.Builder
	c.mu.Lock()
	defer c.mu.Unlock()
	for ch, q := range c.events {
		for _, ev := range q {
			if ev.method == nil {
				continue // a heartbeat
			}
			fmt.Fprintf(&b, "; unread on channel %d: %v", ch, ev)
		}
	}
	if len(c.raw) > 0 {
		fmt.Fprintf(&b, "; unread bytes: %q", c.raw)
	}
	return b.String()
}

// nextRaw takes n bytes that were sent outside of frames.
func (c *conn) nextRaw(n int) ([]byte, error) {
	var out []byte
	err := c.await(answerTimeout, func() bool {
		if len(c.raw) >= n {
			out, c.raw = c.raw[:n], c.raw[n:]
			return true
		}
		return c.end != nil
	})
	if err == nil && len(out) < n {
		err = errors.New("the connection ended")
	}
	if err != nil {
		return nil, fmt.Errorf("%w%s", err, c.elsewhere())
	}
	return out, nil
}

// awaitEnd waits until the broker has ended the connection.
func (c *conn) awaitEnd(timeout time.Duration) error {
	var end error
	if err := c.await(timeout, func() bool { end = c.end; return end != nil }); err != nil {
		return fmt.Errorf("the connection is still open after %v%s", timeout, c.elsewhere())
	}
	if !errors.Is(end, io.EOF) {
		return end
	}
	return nil
}

func (c *conn) write(b []byte) error {
	if err := c.SetWriteDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	_, err := c.Conn.Write(b)
	return err
}

func appendFrame(b []byte, kind uint8, ch uint16, payload []byte) []byte {
	b = append(b, kind)
	b = binary.BigEndian.AppendUint16(b, ch)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	return append(append(b, payload...), frameEnd)
}

// encodeMethod is the payload of a method frame. Arguments not given are zero.
func encodeMethod(m *method, args map[string]string) ([]byte, error) {
	b := appendUint(nil, uint64(m.id()), 4)
	var err error
	nbits := 0
	for _, f := range m.fields {
		if f.kind != bit {
			nbits = 0
			if b, err = encodeValue(b, f.kind, args[f.name]); err != nil {
				return nil, fmt.Errorf("%s %s: %w", m.name, f.name, err)
			}
			continue
		}
		if nbits == 0 {
			b = append(b, 0)
		}
		if v := args[f.name]; v != "" && v != "0" {
			b[len(b)-1] |= 1 << nbits
		}
		nbits = (nbits + 1) % 8
	}
	return b, nil
}

// encodeHeader is the payload of a content header frame: class, weight, flags and raw (hex, in
// place of the properties) override what is right.
func encodeHeader(size uint64, args map[string]string) ([]byte, error) {
	class, weight, flags := uint64(60), uint64(0), uint64(0)
	for name, to := range map[string]*uint64{"class": &class, "weight": &weight, "size": &size} {
		if v, ok := args[name]; ok {
			n, err := strconv.ParseUint(v, 0, 64)
			if err != nil {
				return nil, err
			}
			*to = n
		}
	}
	var values []byte
	var err error
	for i, p := range propertyTable {
		v, ok := args[p.name]
		if !ok {
			continue
		}
		flags |= 1 << (15 - i)
		if values, err = encodeValue(values, p.kind, v); err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	if v, ok := args["flags"]; ok {
		if flags, err = strconv.ParseUint(v, 0, 16); err != nil {
			return nil, err
		}
	}
	if v, ok := args["raw"]; ok {
		if values, err = hex.DecodeString(v); err != nil {
			return nil, err
		}
	}
	b := appendUint(appendUint(nil, class, 2), weight, 2)
	b = appendUint(appendUint(b, size, 8), flags, 2)
	return append(b, values...), nil
}

// appendContent appends the header and body frames of a content.
func (c *conn) appendContent(b []byte, ch uint16, args map[string]string, body []byte) ([]byte, error) {
	header, err := encodeHeader(uint64(len(body)), args)
	if err != nil {
		return nil, err
	}
	b = appendFrame(b, frameHeader, ch, header)
	chunk := 1 << 20
	if c.frameMax != 0 {
		chunk = int(c.frameMax - frameOverhead)
	}
	for len(body) > 0 {
		n := min(len(body), chunk)
		b = appendFrame(b, frameBody, ch, body[:n])
		body = body[n:]
	}
	return b, nil
}

// send sends a method and, if it has one, its content (args "body" or "zeros").
func (c *conn) send(ch uint16, name string, args map[string]string) error {
	m := methodsByName[name]
	if m == nil {
		return fmt.Errorf("no method %q", name)
	}
	payload, err := encodeMethod(m, args)
	if err != nil {
		return err
	}
	b := appendFrame(nil, frameMethod, ch, payload)
	if m.content {
		body, err := bodyOf(args)
		if err != nil {
			return err
		}
		if b, err = c.appendContent(b, ch, args, body); err != nil {
			return err
		}
	}
	return c.write(b)
}

func bodyOf(args map[string]string) ([]byte, error) {
	if z, ok := args["zeros"]; ok {
		n, err := strconv.Atoi(z)
		return make([]byte, n), err
	}
	s, err := unquote(args["body"])
	return []byte(s), err
}

// call sends and takes the answer, which must be the named method.
func (c *conn) call(ch uint16, name string, args map[string]string, want string) (*event, error) {
	if err := c.send(ch, name, args); err != nil {
		return nil, err
	}
	return c.expect(ch, want)
}

func (c *conn) expect(ch uint16, want string) (*event, error) {
	ev, err := c.next(ch)
	if err != nil {
		return nil, fmt.Errorf("waiting for %s: %w", want, err)
	}
	if ev.method == nil || ev.method.name != want {
		return nil, fmt.Errorf("got %v, want %s", ev, want)
	}
	return ev, nil
}

const allCapabilities = "{authentication_failure_close=t:1,basic.nack=t:1,connection.blocked=t:1," +
	"consumer_cancel_notify=t:1,exchange_exchange_bindings=t:1,publisher_confirms=t:1}"

// handshake runs the opening from the protocol header to open-ok and returns connection.start.
// Options: user, pass, vhost, channel-max, frame-max, heartbeat, caps.
func (c *conn) handshake(o map[string]string) (*event, error) {
	if err := c.write(protocolHeader); err != nil {
		return nil, err
	}
	start, err := c.expect(0, "connection.start")
	if err != nil {
		return nil, err
	}
	or := func(name, otherwise string) string {
		if v, ok := o[name]; ok {
			return v
		}
		return otherwise
	}
	caps := allCapabilities
	if o["caps"] == "none" {
		caps = "{}"
	}
	tune, err := c.call(0, "connection.start-ok", map[string]string{
		"client-properties": `{product=S:raw,capabilities=F:` + caps + `}`,
		"mechanism":         "PLAIN",
		"response":          "\x00" + or("user", c.url.user) + "\x00" + or("pass", c.url.pass),
		"locale":            "en_US",
	}, "connection.tune")
	if err != nil {
		return nil, err
	}
	frameMax := or("frame-max", tune.args["frame-max"])
	if err := c.agree(frameMax); err != nil {
		return nil, err
	}
	if err := c.send(0, "connection.tune-ok", map[string]string{
		"channel-max": or("channel-max", tune.args["channel-max"]),
		"frame-max":   frameMax,
		"heartbeat":   or("heartbeat", "0"),
	}); err != nil {
		return nil, err
	}
	_, err = c.call(0, "connection.open", map[string]string{"virtual-host": or("vhost", c.url.vhost)}, "connection.open-ok")
	return start, err
}

// agree remembers the negotiated frame-max.
func (c *conn) agree(frameMax string) error {
	n, err := strconv.ParseUint(frameMax, 0, 32)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.frameMax = uint32(n)
	c.mu.Unlock()
	return nil
}

// leave closes an open connection in order. What nobody has asked for is an error.
func (c *conn) leave() error {
	defer c.Close()
	if err := c.send(0, "connection.close", map[string]string{"reply-code": "200", "reply-text": "bye"}); err != nil {
		return err
	}
	for {
		ev, err := c.next(0)
		if err != nil {
			return fmt.Errorf("waiting for connection.close-ok: %w", err)
		}
		if ev.method == nil {
			continue // a heartbeat
		}
		if ev.method.name != "connection.close-ok" {
			return fmt.Errorf("got %v, want connection.close-ok%s", ev, c.elsewhere())
		}
		break
	}
	if left := c.elsewhere(); left != "" {
		return fmt.Errorf("frames that nobody expected%s", left)
	}
	return nil
}
