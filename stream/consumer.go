package stream

import (
	"fmt"
	"slices"
	"sync"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/queue/fifo"
	"github.com/settmq/settmq/storage"
)

const (
	offsetHeader = "x-stream-offset"
	// maxWaiting keeps what waits for a socket in the processor's caches: a reader could fill any buffer in no time.
	maxWaiting = 256 << 10
	// turn is how many windows a consumer reads before another one has its turn.
	turn = 8
)

// consumer is a consumer's place in its stream, and the source of its deliveries: settling one gives credit back
// and nothing else.
//
// It pumps whoever makes a delivery possible: an ack, room in the outbox, or the reader goroutine that brought the
// next part of the log. While a reader has it (busy) the others only note what changed.
type consumer struct {
	stream *Stream
	c      *queue.Consumer
	sub    subscription

	// Owned by the reader goroutine that has the consumer; by whoever holds mu if none has.
	reader reader

	mu     sync.Mutex // before the stream's and the channel's
	closed bool       // guarded by mu, as all that follows
	busy   bool       // on the readers' list, or in the hands of one
	atEnd  bool       // waits for the next chunk; its writer puts it on the readers' list
	parked bool       // the sink refused
	held   uint32     // deliveries not settled
	handed uint64     // deliveries that the stream's count lacks
	next   uint64     // offset of the next message to look at

	// What is being delivered.
	block   *block
	resting bool // counted among the blocks that wait
	memory  bool // the block comes from memory: its checksums are good
	salt    uint32
	rest    []byte // whole chunks of block that are not begun
	entries []byte // of the chunk that is begun
	left    uint32 // messages in entries
	offset  uint64 // of the first of them

	// Scratch.
	message    storage.Message
	properties []byte
	field      []byte
	out        queue.Delivery
	failed     error // what ended the consumer
}

// About implements queue.Source.
func (k *consumer) About() *queue.Declaration { return k.stream.About() }

// Lasts implements queue.Source: settling touches no disk.
func (k *consumer) Lasts() bool { return false }

// Ack gives credit back.
func (k *consumer) Ack(seqs []uint64, w *queue.Wakes) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.held -= min(k.held, uint32(len(seqs)))
	k.stream.acked.Add(uint64(len(seqs)))
	k.goOnLocked(w)
}

// Reject gives credit back: a stream has no dead letters.
func (k *consumer) Reject(seqs []uint64, w *queue.Wakes) { k.Ack(seqs, w) }

// Requeue gives credit back; the message stays where it is in the log.
func (k *consumer) Requeue(seqs []uint64, _ bool, w *queue.Wakes) { k.Ack(seqs, w) }

// Unpark lets the consumer go on that its sink refused.
func (k *consumer) Unpark(_ fifo.ConsumerID, w *queue.Wakes) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.parked = false
	k.goOnLocked(w)
}

// Unsubscribe ends the consumer.
func (k *consumer) Unsubscribe(id fifo.ConsumerID, _ *queue.Wakes) {
	s := k.stream
	s.mu.Lock()
	delete(s.consumers, id)
	if i := slices.Index(s.atEnd, k); i >= 0 {
		s.atEnd = slices.Delete(s.atEnd, i, i+1)
	}
	s.mu.Unlock()
	k.close()
}

// close ends the deliveries. What a reader goroutine has in its hands it gives back itself.
func (k *consumer) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	if !k.busy {
		k.dropLocked()
	}
}

func (k *consumer) dropLocked() {
	k.dropBlockLocked()
	k.reader.close()
}

func (k *consumer) dropBlockLocked() {
	k.activeLocked()
	if k.block != nil {
		k.block.release()
	}
	k.block, k.rest, k.entries, k.left = nil, nil, nil, 0
}

// goOnLocked delivers what it can, and hands over to a reader goroutine when the files are needed.
func (k *consumer) goOnLocked(w *queue.Wakes) {
	if k.busy || k.atEnd || k.closed {
		return
	}
	if k.pumpLocked(w) {
		k.busy = true
		k.stream.engine.reads.push(k)
	}
}

// work is a reader goroutine's turn: it delivers and reads until nothing can move. again says that it used up its turn.
func (k *consumer) work() (again bool) {
	var w queue.Wakes
	k.mu.Lock()
	k.busy, k.atEnd = true, false
	for n := 0; !k.closed && k.pumpLocked(&w); n++ {
		if n == turn {
			k.mu.Unlock()
			w.Flush()
			return true
		}
		next := k.next
		k.mu.Unlock()
		w.Flush() // the writer begins while we read on
		b, data, err := k.load(next)
		k.mu.Lock()
		if err != nil {
			k.failed = err
			break
		}
		if b != nil {
			k.block, k.rest, k.memory = b, data, false
			k.salt = k.reader.seg.salt
		}
	}
	k.busy = false
	err := k.failed
	if k.closed || err != nil {
		k.dropLocked()
	}
	lost := err != nil && !k.closed
	k.closed = k.closed || lost
	k.mu.Unlock()
	w.Flush()
	if lost {
		k.stream.fault(err)
		k.Unsubscribe(k.c.ID, nil)
		k.c.Sink.Cancelled(k.c)
	}
	return false
}

// load reads the next whole chunks. Nothing, without an error, is read where the log ends.
func (k *consumer) load(next uint64) (b *block, whole []byte, err error) {
	b = newBlock(windowBlocks)
	for {
		data, err := k.reader.read(next, b.buf[:cap(b.buf)])
		if len(data) == 0 || err != nil {
			b.release()
			return nil, nil, err
		}
		n, need := k.reader.whole(data)
		switch {
		case n > 0:
			k.reader.pos += int64(n)
			return b, data[:n], nil
		case need <= int64(len(data)):
			b.release()
			return nil, nil, k.reader.damaged("no chunk where one has to be")
		}
		b.release()
		b = &block{buf: make([]byte, 0, need)} // larger than any pool keeps
		b.refs.Store(1)
	}
}

// pumpLocked delivers what is in memory while there is credit and room. It reports whether the files are needed to go
// on. The caller owns the reader.
func (k *consumer) pumpLocked(w *queue.Wakes) (read bool) {
	defer k.countLocked()
	k.activeLocked()
	for !k.parked && k.held < k.c.Prefetch {
		if k.left == 0 && !k.nextChunkLocked() {
			return k.failed == nil && !k.waitAtEndLocked()
		}
		if !k.deliverLocked(w) {
			break
		}
	}
	k.restLocked()
	return false
}

// countLocked tells the stream what was delivered.
func (k *consumer) countLocked() {
	if k.handed > 0 {
		k.stream.handed.Add(k.handed)
		k.handed = 0
	}
}

// activeLocked and restLocked count the consumers that keep a block while they wait for credit or room. Beyond a bound
// they let go of it and read it again later, so that memory does not grow with their number.
func (k *consumer) activeLocked() {
	if k.resting {
		k.resting = false
		k.stream.engine.resting.Add(-1)
	}
}

func (k *consumer) restLocked() {
	if k.block == nil {
		return
	}
	if k.stream.engine.resting.Add(1) > maxResting {
		k.stream.engine.resting.Add(-1)
		k.dropLocked()
		return
	}
	k.resting = true
}

// waitAtEndLocked puts a consumer that has read everything on the list of those who wait for the next chunk; false if
// there is something to read.
func (k *consumer) waitAtEndLocked() bool {
	s := k.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deleted {
		return true
	}
	if _, next := s.log.bounds(); k.next < next {
		return false
	}
	k.dropBlockLocked()
	k.atEnd = true
	s.atEnd = append(s.atEnd, k)
	return true
}

// nextChunkLocked begins the next chunk that is in memory; false if there is none, or if it is damaged (failed).
func (k *consumer) nextChunkLocked() bool {
	for {
		if len(k.rest) == 0 {
			k.dropBlockLocked()
			c := k.stream.log.inMemory(k.next)
			if c == nil {
				return false
			}
			k.reader.close() // it has fallen behind
			k.block, k.rest, k.salt, k.memory = c.block, c.bytes(), c.salt, true
		}
		var h chunkHeader
		if !h.decode(k.rest, k.salt) || h.size() > int64(len(k.rest)) {
			k.failed = k.reader.damaged("no chunk where one has to be")
			return false
		}
		b := k.rest[:h.size()]
		k.rest = k.rest[h.size():]
		filter := b[chunkHeaderSize : chunkHeaderSize+int(h.filterSize)]
		data := b[chunkHeaderSize+int(h.filterSize):]
		if h.kind == kindGap || h.next() <= k.next || !k.sub.wantsChunk(&h, filter) {
			k.next = max(k.next, h.next())
			continue
		}
		if !k.memory && !checkData(&h, data, k.salt) {
			k.failed = k.reader.damaged(fmt.Sprintf("messages %d to %d do not match their checksum", h.base, h.next()-1))
			return false
		}
		k.entries, k.left, k.offset = data, h.count, h.base
		return true
	}
}

// deliverLocked takes the next message; false if the sink refused it.
func (k *consumer) deliverLocked(w *queue.Wakes) bool {
	var e entry
	rest, ok := e.decode(k.entries)
	if !ok {
		panic("stream: a chunk with a good checksum does not hold its messages")
	}
	if k.offset >= k.next && k.sub.wants(e.properties) {
		if !k.c.Sink.Admit(k.c, uint32(len(e.body))) {
			k.parked = true
			return false
		}
		k.handOut(&e, w)
	}
	k.entries = rest
	k.left--
	k.offset++
	k.next = max(k.next, k.offset)
	return true
}

func (k *consumer) handOut(e *entry, w *queue.Wakes) {
	m := &k.message
	if m.Exchange != string(e.exchange) {
		m.Exchange = string(e.exchange)
	}
	if m.RoutingKey != string(e.routingKey) {
		m.RoutingKey = string(e.routingKey)
	}
	k.field = amqp.AppendLongField(k.field[:0], offsetHeader, int64(k.offset))
	k.properties = amqp.AppendWithFields(k.properties[:0], e.properties, k.field)
	m.Properties, m.Body = k.properties, e.body
	if len(e.body) >= queue.KeptBody {
		k.block.kept.Store(true)
	}
	k.held++
	k.handed++
	k.out = queue.Delivery{Seq: k.offset, Message: m}
	k.c.Sink.Deliver(k.c, &k.out, w)
	m.Body = nil
}
