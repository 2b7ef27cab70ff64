package server

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/queue"
)

const (
	// byReference is the body size from which a body is written from where it lies
	// instead of being copied between frames.
	byReference = queue.KeptBody
	// byReferenceBehind is the same behind so much that the writer will write it: what the kernel
	// gathers for the writer, the publisher's reader need not copy.
	byReferenceBehind = 1 << 10
	// writeTimeout ends a connection whose peer takes less than writePiece in that time.
	writeTimeout = 30 * time.Second
	writePiece   = 256 << 10
	// writeHereMax is how much is written by whoever appended it: little, so that it is
	// not kept from its own work while the writer could do it on another core.
	writeHereMax = 8 << 10
	// keptBuffer is the largest buffer that goes back to the pool.
	keptBuffer = 1 << 20
)

// outbox holds the frames that wait for a connection's socket, in order. Anybody may append;
// one writer goroutine empties it, started when it is needed first. It is bounded twice: deliveries stop at limit bytes
// (admit), and so does reading what the peer asks for (waitForRoom), so that a peer which
// reads no replies cannot pile them up.
type outbox struct {
	nc    net.Conn
	limit int64
	// try writes as much as the socket takes without waiting; less than all without an error
	// means that it is full. nil where that cannot be done, e.g. with TLS.
	try func(b []byte) (int, error)
	// gathers says that one system call writes many pieces. With TLS each would be a record.
	gathers bool

	size      atomic.Int64  // bytes waiting or being written
	written   atomic.Uint64 // writes so far, for heartbeats
	sentBytes atomic.Uint64
	signal    chan struct{} // capacity 1
	started   atomic.Bool   // the writer was
	writer    sync.WaitGroup

	mu       sync.Mutex
	buf      []byte            // frames; buf[:sealed] is in chunks already
	sealed   int               // guarded by mu, like all below
	chunks   net.Buffers       // sealed parts of buf and bodies by reference, in order
	confirms []*channel        // channels with confirms to encode
	parked   []*queue.Consumer // refused for lack of room
	room     chan struct{}     // closed when there is room again; nil if nobody waits
	woken    bool              // a wake is on its way
	writing  bool              // somebody is at the socket
	finish   bool              // close the socket when all is written
	dead     bool              // the socket is gone, nothing is taken any more
	onDead   func()            // called when it goes; set before run
}

func newOutbox(nc net.Conn, limit int) *outbox {
	_, gathers := nc.(*net.TCPConn)
	return &outbox{nc: nc, limit: int64(limit), try: tryWriter(nc), gathers: gathers, signal: make(chan struct{}, 1)}
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 64<<10); return &b }}

func putBuffer(b []byte) {
	if cap(b) >= 4<<10 && cap(b) <= keptBuffer {
		b = b[:0]
		buffers.Put(&b)
	}
}

// chunkLists are for outbox.chunks.
var chunkLists = sync.Pool{New: func() any { return new(net.Buffers) }}

// keptChunks is the longest list that goes back to the pool.
const keptChunks = 4096

// lockForAppend gives the caller the buffer to append frames to; done stores it back.
func (o *outbox) lockForAppend() {
	o.mu.Lock()
	if o.buf == nil {
		o.buf = *buffers.Get().(*[]byte)
	}
}

// unlockAppended ends lockForAppend. It reports whether the caller has to wake the writer.
func (o *outbox) unlockAppended(before int) (wake bool) {
	o.size.Add(int64(len(o.buf) - before))
	wake = !o.woken
	o.woken = true
	if o.dead {
		o.dropLocked()
	}
	o.mu.Unlock()
	return wake
}

func (o *outbox) dropLocked() {
	putBuffer(o.buf)
	o.buf, o.sealed, o.chunks = nil, 0, nil
	o.size.Store(0)
}

// Wake implements queue.Waker.
func (o *outbox) Wake(alone bool) {
	if !alone || !o.writeHere() {
		o.wakeWriter()
	}
}

// wakeWriter starts the writer when it is needed for the first time: a connection at rest has
// none.
func (o *outbox) wakeWriter() {
	if !o.started.Load() {
		o.mu.Lock()
		if !o.dead && o.started.CompareAndSwap(false, true) {
			o.writer.Go(o.run)
		}
		o.mu.Unlock()
	}
	o.wakeIfStarted()
}

func (o *outbox) wakeIfStarted() {
	select {
	case o.signal <- struct{}{}:
	default:
	}
}

// method appends a method frame and remembers in w that the writer must be woken.
func (o *outbox) method(channel uint16, m amqp.Method, w *queue.Wakes) {
	o.lockForAppend()
	before := len(o.buf)
	o.buf = amqp.AppendMethod(o.buf, channel, m)
	if o.unlockAppended(before) {
		w.Add(o)
	}
}

// heartbeat appends a heartbeat frame and wakes the writer.
func (o *outbox) heartbeat() {
	o.lockForAppend()
	before := len(o.buf)
	o.buf = amqp.AppendHeartbeat(o.buf)
	if o.unlockAppended(before) {
		o.wakeWriter()
	}
}

// deliver appends basic.deliver with its content.
func (o *outbox) deliver(ch *channel, tag string, deliveryTag uint64, d *queue.Delivery, w *queue.Wakes) {
	o.lockForAppend()
	before := len(o.buf)
	m := d.Message
	o.buf = amqp.AppendDeliver(o.buf, ch.id, tag, deliveryTag, d.Redelivered, m.Exchange, m.RoutingKey)
	o.contentLocked(ch, queue.Visible(m), m.Body, d.Lasting)
	if o.unlockAppended(before) {
		w.Add(o)
	}
}

// content appends a method and a content in one piece.
func (o *outbox) content(ch *channel, method amqp.Method, properties, body []byte, w *queue.Wakes) {
	o.lockForAppend()
	before := len(o.buf)
	o.buf = amqp.AppendMethod(o.buf, ch.id, method)
	o.contentLocked(ch, properties, body, false)
	if o.unlockAppended(before) {
		w.Add(o)
	}
}

func (o *outbox) contentLocked(ch *channel, properties, body []byte, lasting bool) {
	behind := lasting && o.gathers && len(o.buf) > writeHereMax
	if len(body) < byReferenceBehind || len(body) < byReference && !behind {
		o.buf = amqp.AppendContent(o.buf, ch.id, properties, body, ch.conn.frameMax)
		return
	}
	o.buf = amqp.AppendContentHeader(o.buf, ch.id, uint64(len(body)), properties)
	o.size.Add(int64(len(body)))
	if o.chunks == nil {
		o.chunks = *chunkLists.Get().(*net.Buffers)
	}
	for chunk := amqp.BodyChunk(ch.conn.frameMax); len(body) > 0; {
		n := min(chunk, len(body))
		o.buf = amqp.AppendFrameHead(o.buf, amqp.FrameBody, ch.id, uint32(n))
		o.chunks = append(o.chunks, o.buf[o.sealed:], body[:n])
		o.sealed = len(o.buf)
		o.buf = append(o.buf, amqp.FrameEnd)
		body = body[n:]
	}
}

// appendRaw lets f append ready-made frames.
func (o *outbox) appendRaw(f func(b []byte) []byte) (wake bool) {
	o.lockForAppend()
	before := len(o.buf)
	o.buf = f(o.buf)
	return o.unlockAppended(before)
}

// admit reports whether a delivery may be appended; if not, c is remembered and unparked
// when there is room.
func (o *outbox) admit(c *queue.Consumer) bool {
	limit := o.limit
	if c.MaxWaiting > 0 {
		limit = min(limit, int64(c.MaxWaiting))
	}
	if o.size.Load() < limit {
		return true
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.size.Load() < limit/2 { // written meanwhile, perhaps with nobody parked
		return true
	}
	if !o.dead {
		o.parked = append(o.parked, c)
	}
	return false
}

// waitForRoom returns once less than limit is waiting to be written, or the socket is gone.
func (o *outbox) waitForRoom() {
	o.mu.Lock()
	if o.dead || o.size.Load() < o.limit/2 {
		o.mu.Unlock()
		return
	}
	if o.room == nil {
		o.room = make(chan struct{})
	}
	room := o.room
	o.mu.Unlock()
	<-room
}

// confirm marks ch as having confirms to send. It reports whether the caller has to wake the writer.
func (o *outbox) confirm(ch *channel) (wake bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.confirms = append(o.confirms, ch)
	wake = !o.woken
	o.woken = true
	return wake
}

// end closes the socket once everything is written.
func (o *outbox) end() {
	o.mu.Lock()
	o.finish = true
	rest := o.writing || o.waitingLocked()
	o.mu.Unlock()
	if rest || o.started.Load() {
		o.wakeWriter()
	} else {
		o.kill()
	}
}

// waitingLocked reports whether there is anything to be written.
func (o *outbox) waitingLocked() bool {
	return len(o.buf) > 0 || len(o.chunks) > 0 || len(o.confirms) > 0
}

// kill drops everything; the writer ends.
func (o *outbox) kill() {
	o.mu.Lock()
	first := !o.dead
	o.dead = true
	o.dropLocked()
	o.parked, o.confirms = nil, nil
	o.roomLocked()
	o.mu.Unlock()
	_ = o.nc.Close()
	if first {
		o.onDead()
	}
	o.wakeIfStarted()
}

func (o *outbox) roomLocked() {
	if o.room != nil {
		close(o.room)
		o.room = nil
	}
}

// batch is what the writer takes at once.
type batch struct {
	buf    []byte // all of it, for the pool
	chunks net.Buffers
	rest   []byte // what follows the chunks
	size   int64
}

// run is the writer goroutine. It returns when the socket is closed.
func (o *outbox) run() {
	var w queue.Wakes
	for range o.signal {
		for more := true; more; {
			o.encodeConfirms()
			b, state := o.take()
			if state == taken && !o.write(b) || state == ended {
				o.kill()
				return
			}
			o.unpark(&w)
			more = state != idle
		}
	}
}

func (o *outbox) encodeConfirms() {
	o.mu.Lock()
	list := o.confirms
	o.confirms = nil
	o.mu.Unlock()
	for _, ch := range list {
		ch.sendConfirms()
	}
}

// What take found.
const (
	taken = iota // frames to write
	again        // confirms came in meanwhile: encode them and look again
	idle         // nothing
	ended        // nothing, and the socket is to be closed (or is)
)

// take swaps the waiting frames out.
func (o *outbox) take() (b batch, state int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.writing {
		return b, idle // it wakes the writer for the rest
	}
	o.woken = false
	switch {
	case o.dead:
		return b, ended
	case len(o.buf) > 0 || len(o.chunks) > 0:
	case len(o.confirms) > 0:
		return b, again
	default:
		putBuffer(o.buf)
		o.buf = nil
		if o.finish {
			return b, ended
		}
		return b, idle
	}
	b = batch{buf: o.buf, chunks: o.chunks, rest: o.buf[o.sealed:], size: int64(len(o.buf))}
	for i := 1; i < len(b.chunks); i += 2 {
		b.size += int64(len(b.chunks[i]))
	}
	o.buf, o.sealed, o.chunks = nil, 0, nil
	o.writing = true
	return b, taken
}

func (o *outbox) write(b batch) bool {
	err := o.writePieces(b)
	putBuffer(b.buf)
	if n := cap(b.chunks); n > 0 && n <= keptChunks && err == nil {
		list := b.chunks[:0] // nothing but nil in it any more
		chunkLists.Put(&list)
	}
	o.written.Add(1)
	o.sentBytes.Add(uint64(b.size))
	o.size.Add(-b.size)
	o.mu.Lock()
	o.writing = false
	o.mu.Unlock()
	return err == nil
}

// writeHere writes what waits in the caller's goroutine, if it is little, nobody is writing and
// the socket takes it at once. It reports whether it tried; what the socket did not take is left
// to the writer.
func (o *outbox) writeHere() bool {
	if o.try == nil {
		return false
	}
	o.encodeConfirms()
	o.mu.Lock()
	if o.writing || o.dead || o.finish || len(o.buf) == 0 || len(o.buf) > writeHereMax ||
		len(o.chunks) > 0 || len(o.parked) > 0 || o.room != nil {
		o.mu.Unlock()
		return false
	}
	b := o.buf
	o.buf = nil
	o.woken, o.writing = false, true
	o.mu.Unlock()
	n, err := o.try(b)
	o.written.Add(1)
	o.sentBytes.Add(uint64(max(n, 0)))
	o.mu.Lock()
	o.writing = false
	if !o.dead {
		o.size.Add(-int64(n))
	}
	if n == len(b) {
		putBuffer(b)
	} else {
		// Where a body by reference would be: chunks alternate.
		o.chunks = append(net.Buffers{nil, b[n:]}, o.chunks...)
	}
	more := o.waitingLocked() || o.finish
	o.mu.Unlock()
	if err != nil {
		o.kill()
	} else if more {
		o.wakeWriter()
	}
	return true
}

// writePieces writes a batch with a deadline for every piece, so that a slow peer which
// goes on reading is not taken for one that stopped.
func (o *outbox) writePieces(b batch) error {
	for len(b.chunks) > 0 {
		n, size := 0, 0
		for ; n < len(b.chunks) && size < writePiece; n++ {
			size += len(b.chunks[n])
		}
		piece := b.chunks[:n:n]
		b.chunks = b.chunks[n:]
		_ = o.nc.SetWriteDeadline(time.Now().Add(writeTimeout))
		if _, err := piece.WriteTo(o.nc); err != nil {
			return err
		}
	}
	for rest := b.rest; len(rest) > 0; {
		n := min(len(rest), writePiece)
		_ = o.nc.SetWriteDeadline(time.Now().Add(writeTimeout))
		if _, err := o.nc.Write(rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// unpark lets the consumers go on that were refused while the outbox was full.
func (o *outbox) unpark(w *queue.Wakes) {
	if o.size.Load() >= o.limit/2 {
		return
	}
	o.mu.Lock()
	list := o.parked
	o.parked = nil
	o.roomLocked()
	o.mu.Unlock()
	for _, c := range list {
		c.Queue.Unpark(c.ID, w)
	}
	w.Flush()
}
