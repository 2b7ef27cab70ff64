package storage

import (
	"errors"
	"fmt"
	"io"
	"sort"
	"sync"

	"github.com/dgraph-io/badger/v4"
)

// readChunk is how many messages Read looks up at a time under the queue's lock.
const readChunk = 256

// Read appends live, written messages to dst in order of their sequence numbers, starting at from,
// until maxItems or maxBytes (of properties and bodies) is reached; it returns at least one if
// there is one. next is the first sequence number not covered: everything live in [from, next)
// was returned. It stops before a message that is not written yet, and is at most NextSeq.
//
// Read does disk I/O: call it without locks. Any goroutine may. Messages settled meanwhile may
// still be among the items. Damage is a *CorruptError, and what was read before it is returned
// with it; wrong bytes are never returned.
func (q *Queue) Read(dst []Stored, from uint64, maxItems, maxBytes int) (items []Stored, next uint64, err error) {
	s := q.s
	s.readGate.RLock()
	defer s.readGate.RUnlock()
	if s.filesClosed {
		return dst, from, s.goneError()
	}
	r := readerPool.Get().(*reader)
	defer r.release()
	r.start(q, dst, maxItems, maxBytes)
	next = from
	for !r.full() {
		var done bool
		if next, done, err = r.chunk(next); err != nil || done {
			break
		}
	}
	return r.out, next, err
}

// reader is the scratch memory of one Read.
type reader struct {
	q            *Queue
	out          []Stored
	items, bytes int // still wanted; bytes may fall below 0
	refs         [readChunk]readRef
	records      []recordInfo
	notes        []NotedMessage // of refs and what lies between
	noteAt       int            // next of them
	window       journalWindow
	arena        messageArena
	state        *stateReader
}

// readRef is a live message to be read.
type readRef struct {
	seq    uint64
	loc    location // in the journal, or 0
	record int      // index in reader.records, if loc is 0
}

var readerPool = sync.Pool{New: func() any { return new(reader) }}

func (r *reader) start(q *Queue, dst []Stored, maxItems, maxBytes int) {
	r.q, r.out = q, dst
	r.items, r.bytes = maxItems, max(maxBytes, 1)
	r.window.reset(q.s)
}

func (r *reader) release() {
	r.q, r.out = nil, nil
	r.arena = messageArena{}
	if cap(r.window.buf) > maxWindow {
		r.window.buf = nil
	}
	readerPool.Put(r)
}

func (r *reader) full() bool { return r.items <= 0 || r.bytes <= 0 }

// chunk reads up to readChunk messages from `from` on. done says that there are no more.
func (r *reader) chunk(from uint64) (next uint64, done bool, err error) {
	n, next, done, err := r.lookup(from)
	if err != nil {
		return from, true, err
	}
	if n > 0 && r.refs[0].loc == 0 {
		// The snapshot is younger than the look-up, so it has every record found there.
		r.state = r.q.s.state.reader()
		defer func() { r.state.close() }()
	}
	for i := 0; i < n; {
		if r.full() {
			return r.refs[i].seq, false, nil
		}
		var k int
		if r.refs[i].loc == 0 {
			k, err = r.fromState(r.refs[i:n])
		} else {
			k, err = 1, r.fromJournal(&r.refs[i])
		}
		if err != nil {
			if r.refs[i].loc == 0 {
				i += k // those before the damage were read
			}
			return r.refs[i].seq, true, err
		}
		i += k
	}
	return next, done, nil
}

// lookup notes where the next live messages are.
func (r *reader) lookup(from uint64) (n int, next uint64, done bool, err error) {
	q := r.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.deleted {
		return 0, from, true, ErrNoQueue
	}
	r.records = r.records[:0]
	want := min(readChunk, r.items)
	next, done = max(from, q.next), true
	rec := -1
	q.live.each(from, func(seq uint64, l location) bool {
		if n == want || seq >= q.badgerHi && l == 0 {
			next, done = seq, n < want
			return false
		}
		ref := readRef{seq: seq}
		if seq >= q.badgerHi {
			ref.loc = l
		} else {
			if rec < 0 || r.records[rec].last < seq {
				i := q.findRecord(seq)
				if i < 0 {
					err = &CorruptError{Where: "state", What: "no record holds the message", Queue: q.id, Seq: seq}
					next = seq
					return false
				}
				r.records = append(r.records, q.records[i])
				rec = len(r.records) - 1
			}
			ref.record = rec
		}
		r.refs[n] = ref
		n++
		return true
	})
	r.notes, r.noteAt = q.live.notesIn(r.notes[:0], from, next), 0
	if n > 0 {
		err = nil // report it when the reader gets there
	}
	return n, next, done && err == nil, err
}

// findRecord returns the index of the record that covers seq, or -1. Called with q.mu held.
func (q *Queue) findRecord(seq uint64) int {
	i := sort.Search(len(q.records), func(i int) bool { return q.records[i].last >= seq })
	if i == len(q.records) || q.records[i].first > seq {
		return -1
	}
	return i
}

// fromState reads the messages at the head of refs that are in one record, and returns how many
// of them it is done with.
func (r *reader) fromState(refs []readRef) (n int, err error) {
	info := r.records[refs[0].record]
	same := 1
	for same < len(refs) && refs[same].loc == 0 && refs[same].record == refs[0].record {
		same++
	}
	err = r.state.record(r.q.id, &info, func(v *recordView) error {
		at := 0
		for n < same && !r.full() {
			seq := refs[n].seq
			at = v.find(seq, at)
			if at == v.count || v.seq(at) != seq {
				return fmt.Errorf("message %d is not in it: %w", seq, errLayout)
			}
			if err := r.fromRecord(v, at); err != nil {
				return err
			}
			n++
		}
		return nil
	})
	if err == nil {
		return n, nil
	}
	if errors.Is(err, badger.ErrKeyNotFound) && !r.anyLive(refs[:same]) {
		return same, nil // settled and cleaned up since the look-up
	}
	return n, recordError(r.q, &info, refs[n].seq, err)
}

func (r *reader) anyLive(refs []readRef) bool {
	r.q.mu.Lock()
	defer r.q.mu.Unlock()
	for i := range refs {
		if r.q.live.has(refs[i].seq) {
			return true
		}
	}
	return false
}

func (r *reader) fromRecord(v *recordView, i int) error {
	var op messageOp
	external, err := v.entry(i, &op)
	if err != nil {
		return err
	}
	m := r.arena.message(&op, external == nil)
	if external != nil {
		m.Body = make([]byte, op.bodySize)
		if err := r.state.readBody(external, m.Body); err != nil {
			return err
		}
	}
	r.add(op.seq, m)
	return nil
}

func (r *reader) fromJournal(ref *readRef) error {
	pos, at := ref.loc.position(r.q.s.oldest.Load())
	var op messageOp
	whole, err := r.window.message(pos, at, &op)
	if err == nil && !ref.loc.shared() && (op.qid != r.q.id || op.seq != ref.seq) {
		err = fmt.Errorf("holds another message: %w", errLayout)
	}
	if err != nil {
		return &CorruptError{
			Where: fmt.Sprintf("journal batch %v at byte %d", pos, at),
			What:  "cannot be read", Queue: r.q.id, Seq: ref.seq, Err: err,
		}
	}
	m := r.arena.message(&op, !whole)
	if whole {
		m.Body = op.body // its memory was made for this message alone
	}
	m.Transient = op.transient
	r.add(ref.seq, m)
	return nil
}

func (r *reader) add(seq uint64, m *Message) {
	it := Stored{Seq: seq, Message: m, Redelivered: seq < r.q.redeliveredBelow}
	for ; r.noteAt < len(r.notes) && r.notes[r.noteAt].Seq <= seq; r.noteAt++ {
		if r.notes[r.noteAt].Seq == seq {
			it.Note = r.notes[r.noteAt].Note
			m.Died = it.Note.Died
		}
	}
	r.out = append(r.out, it)
	r.items--
	r.bytes -= len(m.Body) + len(m.Properties)
}

// messageArena makes messages with few allocations. What shares an allocation is small, so that
// one message kept long does not keep much else.
type messageArena struct {
	messages []Message
	bytes    []byte
	exchange string
	key      string
}

const (
	arenaMessages = 16
	arenaBytes    = 16 << 10
)

// message copies op, with its body or without.
func (a *messageArena) message(op *messageOp, body bool) *Message {
	if len(a.messages) == 0 {
		a.messages = make([]Message, arenaMessages)
	}
	m := &a.messages[0]
	a.messages = a.messages[1:]
	// Neighbours mostly have the same names.
	if a.exchange != string(op.exchange) {
		a.exchange = string(op.exchange)
	}
	if a.key != string(op.routingKey) {
		a.key = string(op.routingKey)
	}
	m.Exchange, m.RoutingKey = a.exchange, a.key
	m.Properties = a.copy(op.properties)
	if body {
		m.Body = a.copy(op.body)
	}
	return m
}

func (a *messageArena) copy(b []byte) []byte {
	if len(b) > arenaBytes/4 {
		return append(make([]byte, 0, len(b)), b...)
	}
	if cap(a.bytes)-len(a.bytes) < len(b) {
		a.bytes = make([]byte, 0, arenaBytes)
	}
	lo := len(a.bytes)
	a.bytes = append(a.bytes, b...)
	return a.bytes[lo:len(a.bytes):len(a.bytes)]
}

// journalWindow reads message operations of the journal through a buffer, so that neighbours cost
// one read together.
type journalWindow struct {
	s     *Store
	pos   position // record the buffer belongs to
	valid bool
	head  batchHeader
	lo    uint64 // offset in the record of buf[0]
	buf   []byte
	grow  uint64 // size of the next read
}

const (
	minWindow = 16 << 10
	maxWindow = 1 << 20
)

func (w *journalWindow) reset(s *Store) {
	w.s, w.valid, w.buf, w.grow = s, false, w.buf[:0], minWindow
}

// message reads and checks the message operation at offset at of the record at pos. Slices in op
// are valid until the next call. An operation that does not fit the window is read into memory
// of its own, and whole is true.
func (w *journalWindow) message(pos position, at uint32, op *messageOp) (whole bool, err error) {
	b, err := w.bytes(pos, uint64(at), messageHeaderSize)
	if err != nil {
		return false, err
	}
	size, err := parseMessageSize(b)
	if err != nil {
		return false, err
	}
	if uint64(at)+size > w.head.msgEnd {
		return false, errLayout
	}
	if size > maxWindow {
		b = make([]byte, size)
		if err := w.s.journal.ReadAt(pos, uint64(at), b); err != nil {
			return false, err
		}
		return true, parseMessage(b, op, true)
	}
	if b, err = w.bytes(pos, uint64(at), size); err != nil {
		return false, err
	}
	return false, parseMessage(b, op, true)
}

// fields is message without the body, which it neither reads nor checks.
func (w *journalWindow) fields(pos position, at uint32, op *messageOp) error {
	n := uint64(messageHeaderSize)
	for {
		b, err := w.bytes(pos, uint64(at), n)
		if err != nil {
			return err
		}
		err = parseMessage(b, op, false)
		if err == nil {
			return nil
		}
		size, err2 := parseMessageSize(b)
		if err2 != nil || n >= size || n >= maxWindow {
			return errors.Join(err, err2)
		}
		n = min(max(2*n, minWindow), size, maxWindow)
	}
}

// bytes returns n bytes, at most maxWindow, of the message part of a record.
func (w *journalWindow) bytes(pos position, off, n uint64) ([]byte, error) {
	if !w.valid || w.pos != pos {
		if err := w.open(pos); err != nil {
			return nil, err
		}
	}
	if off < batchHeaderSize || off+n > w.head.msgEnd {
		return nil, errLayout
	}
	if off < w.lo || off+n > w.lo+uint64(len(w.buf)) {
		size := min(max(w.grow, n), w.head.msgEnd-off)
		w.grow = min(2*w.grow, maxWindow)
		if err := w.fill(pos, off, size); err != nil {
			return nil, err
		}
	}
	return w.buf[off-w.lo : off-w.lo+n], nil
}

// open reads the head of a record, and with it the first of its messages.
func (w *journalWindow) open(pos position) error {
	err := w.fill(pos, 0, minWindow)
	short := errors.Is(err, io.ErrUnexpectedEOF)
	if err != nil && !short {
		return err
	}
	// A short record leaves the rest of the buffer as it was; its head says where it ends.
	if w.head, err = parseBatchHeader(w.buf[:batchHeaderSize]); err != nil {
		return err
	}
	if short && w.head.total >= minWindow {
		return errLayout
	}
	w.buf = w.buf[:min(uint64(len(w.buf)), w.head.total)]
	w.pos, w.lo, w.valid = pos, 0, true
	return nil
}

func (w *journalWindow) fill(pos position, off, size uint64) error {
	w.valid = false
	if uint64(cap(w.buf)) < size {
		w.buf = make([]byte, size)
	}
	w.buf = w.buf[:size]
	clear(w.buf[:min(size, batchHeaderSize)])
	if err := w.s.journal.ReadAt(pos, off, w.buf); err != nil {
		return err
	}
	w.lo, w.valid = off, true
	return nil
}
