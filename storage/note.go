package storage

import (
	"encoding/binary"
	"slices"
)

// Note is what the owner of a queue wants to find again beside a message after a restart: numbers
// that the store keeps and does not interpret. Times are milliseconds; 0 means none.
type Note struct {
	Deadline   int64  // when the message expires
	NotBefore  int64  // until when it is held back
	Size       uint32 // body bytes
	Group      uint16
	Deliveries uint16
	Acquired   uint16
	Priority   uint8
	Died       bool     // it was a dead letter before
	Key        [16]byte // by which its queue knows it from others; zero for none
}

// NotedMessage is a live message with its note, as Open found them.
type NotedMessage struct {
	Seq  uint64
	Note Note
}

const (
	noteDeadline = 1 << iota
	noteNotBefore
	noteGroup
	noteCounts
	notePriority
	noteDied
	noteKey

	// notesSlack is how many bytes of superseded and dead notes a page may keep.
	notesSlack = 4 << 10
)

// appendNote appends the encoded form of n: a byte that says which fields follow, and those.
func appendNote(b []byte, n *Note) []byte {
	at := len(b)
	b = append(b, 0)
	b = binary.AppendUvarint(b, uint64(n.Size))
	flags := byte(0)
	if n.Deadline != 0 {
		flags |= noteDeadline
		b = binary.AppendVarint(b, n.Deadline)
	}
	if n.NotBefore != 0 {
		flags |= noteNotBefore
		b = binary.AppendVarint(b, n.NotBefore)
	}
	if n.Group != 0 {
		flags |= noteGroup
		b = binary.LittleEndian.AppendUint16(b, n.Group)
	}
	if n.Deliveries != 0 || n.Acquired != 0 {
		flags |= noteCounts
		b = binary.LittleEndian.AppendUint16(b, n.Deliveries)
		b = binary.LittleEndian.AppendUint16(b, n.Acquired)
	}
	if n.Priority != 0 {
		flags |= notePriority
		b = append(b, n.Priority)
	}
	if n.Died {
		flags |= noteDied
	}
	if n.Key != ([16]byte{}) {
		flags |= noteKey
		b = append(b, n.Key[:]...)
	}
	b[at] = flags
	return b
}

// note decodes what appendNote wrote.
func (c *cursor) note() (n Note) {
	flags := c.byte()
	n.Size = uint32(c.uvarint())
	if flags&noteDeadline != 0 {
		n.Deadline = c.varint()
	}
	if flags&noteNotBefore != 0 {
		n.NotBefore = c.varint()
	}
	if flags&noteGroup != 0 {
		n.Group = c.uint16()
	}
	if flags&noteCounts != 0 {
		n.Deliveries, n.Acquired = c.uint16(), c.uint16()
	}
	if flags&notePriority != 0 {
		n.Priority = c.byte()
	}
	n.Died = flags&noteDied != 0
	if flags&noteKey != 0 {
		copy(n.Key[:], c.take(uint64(len(n.Key))))
	}
	if flags >= noteKey<<1 {
		c.fail(errUnknown)
	}
	return n
}

// pageNotes are the notes of one page, encoded: index in the page u16, note; of several with one
// index the last holds. A note costs some ten bytes of memory that way, and a page without notes
// nothing.
type pageNotes struct {
	b      []byte
	tidied int  // length after the last tidy
	dirty  bool // differs from what Badger has
	stored bool // Badger has the page's notes
}

// setNote keeps a note for a live message; a dead one is left alone.
func (s *liveSet) setNote(seq uint64, n *Note) bool {
	no, w, bit := split(seq)
	p := s.find(no)
	if p == nil || p.live[w]&bit == 0 {
		return false
	}
	if p.notes == nil {
		p.notes = new(pageNotes)
	}
	t := p.notes
	t.b = binary.LittleEndian.AppendUint16(t.b, uint16(seq&(pageSeqs-1)))
	t.b = appendNote(t.b, n)
	t.dirty = true
	if len(t.b) > 2*t.tidied+notesSlack {
		t.b = p.encodeNotes(make([]byte, 0, len(t.b)), ^uint64(0))
		t.tidied = len(t.b)
	}
	return true
}

// eachNote calls fn for the newest note of every live message of the page, in order.
func (p *page) eachNote(fn func(seq uint64, n *Note)) {
	if p.notes == nil {
		return
	}
	var at [pageSeqs]uint32 // offset of the newest note plus 1
	for c := (cursor{b: p.notes.b}); len(c.b) > 0; {
		i := c.uint16()
		off := len(p.notes.b) - len(c.b)
		c.note()
		if c.err == nil {
			at[i&(pageSeqs-1)] = uint32(off) + 1
		}
	}
	for i, off := range at {
		if off == 0 || p.live[i>>6]&(1<<(i&63)) == 0 {
			continue
		}
		c := cursor{b: p.notes.b[off-1:]}
		n := c.note()
		fn(p.no<<pageShift+uint64(i), &n)
	}
}

// encodeNotes appends the notes of the page's live messages below hi to b.
func (p *page) encodeNotes(b []byte, hi uint64) []byte {
	p.eachNote(func(seq uint64, n *Note) {
		if seq < hi {
			b = appendNote(binary.LittleEndian.AppendUint16(b, uint16(seq&(pageSeqs-1))), n)
		}
	})
	return b
}

// notesIn returns the notes of live messages in [lo, hi), ascending.
func (s *liveSet) notesIn(dst []NotedMessage, lo, hi uint64) []NotedMessage {
	for i := s.search(lo >> pageShift); i < len(s.pages) && s.pages[i].no<<pageShift < hi; i++ {
		s.pages[i].eachNote(func(seq uint64, n *Note) {
			if lo <= seq && seq < hi {
				dst = append(dst, NotedMessage{seq, *n})
			}
		})
	}
	return dst
}

// loadNotes adds a page of notes read from Badger; those of messages that do not live are dropped.
func (s *liveSet) loadNotes(no uint64, b []byte) error {
	for c := (cursor{b: b}); len(c.b) > 0; {
		i := c.uint16()
		if c.note(); c.err != nil || i >= pageSeqs {
			return errLayout
		}
	}
	if p := s.find(no); p != nil {
		p.notes = &pageNotes{b: slices.Clone(b), stored: true}
		p.notes.tidied = len(b)
	} else {
		s.deadNotes = append(s.deadNotes, no)
	}
	return nil
}

// notedSeq is a note on its way to the journal.
type notedSeq struct {
	seq  uint64
	note Note
}

// AppendNoted is Append with a note.
func (q *Queue) AppendNoted(seq uint64, m *Message, n Note) {
	q.append(seq, m, &n)
}

// SetNote replaces the note of a message that was appended and not settled; others are ignored. It becomes
// durable with one of the next batches; nobody is told when.
func (q *Queue) SetNote(seq uint64, n Note) {
	q.mu.Lock()
	if !q.deleted && q.live.setNote(seq, &n) {
		q.changed = true
		q.noted = append(q.noted, notedSeq{seq, n})
		q.wakeLocked(false)
	}
	q.mu.Unlock()
}

// UpdateNote changes the note of a message that was appended and not settled, or gives it one; it is
// [Queue.SetNote] after a look at what is there. change must not call the store.
func (q *Queue) UpdateNote(seq uint64, change func(*Note)) {
	q.mu.Lock()
	n := q.live.noteOf(seq)
	q.mu.Unlock()
	change(&n)
	q.SetNote(seq, n)
}

// noteOf returns the newest note of a message.
func (s *liveSet) noteOf(seq uint64) (n Note) {
	p := s.find(seq >> pageShift)
	if p == nil || p.notes == nil {
		return n
	}
	for c := (cursor{b: p.notes.b}); len(c.b) > 0; {
		i := c.uint16()
		if v := c.note(); uint64(i) == seq&(pageSeqs-1) {
			n = v
		}
	}
	return n
}

// Notes returns the notes of all live messages in the order of their sequence numbers.
func (q *Queue) Notes() []NotedMessage {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.live.notesIn(nil, 0, q.next)
}

// takeNotesLocked moves the notes of messages that the journal has, or gets with this batch, into
// the batch.
func (c *committer) takeNotesLocked(q *Queue, t *takenQueue) {
	if len(q.noted) == 0 {
		return
	}
	lo := len(c.notes)
	kept := q.noted[:0]
	for _, n := range q.noted {
		switch {
		case n.seq >= q.taken:
			kept = append(kept, n)
		case q.live.has(n.seq):
			c.notes = append(c.notes, n)
		}
	}
	t.notes = c.notes[lo:len(c.notes):len(c.notes)]
	if q.noted = kept; len(kept) == 0 && cap(kept) > maxKeptEntries {
		q.noted = nil
	}
}

// notes appends notes of a queue to the batch.
func (w *batchWriter) notes(qid uint64, notes []notedSeq) {
	b := append(w.buf, opNotes)
	b = binary.AppendUvarint(b, qid)
	b = binary.AppendUvarint(b, uint64(len(notes)))
	last := uint64(0)
	for i := range notes {
		b = binary.AppendUvarint(b, notes[i].seq-last) // wraps around where they do not ascend
		b = appendNote(b, &notes[i].note)
		last = notes[i].seq
	}
	w.buf = b
}

// notePage are the encoded notes of a page to be written; empty ones are deleted.
type notePage struct {
	no uint64
	b  []byte
}

// checkpointNotes appends the pages whose notes differ from what Badger has, as they are below hi,
// and takes them for written.
func (s *liveSet) checkpointNotes(out []notePage, hi uint64) []notePage {
	for _, no := range s.deadNotes {
		if p := s.find(no); p != nil {
			if p.notes == nil {
				p.notes = new(pageNotes)
			}
			p.notes.stored, p.notes.dirty = true, true
			continue
		}
		out = append(out, notePage{no: no})
	}
	s.deadNotes = s.deadNotes[:0]
	for _, p := range s.pages {
		start := p.no << pageShift
		if start >= hi {
			break
		}
		t := p.notes
		if t == nil || !t.dirty {
			continue
		}
		b := p.encodeNotes(nil, hi)
		if len(b) > 0 || t.stored {
			out = append(out, notePage{no: p.no, b: b})
		}
		t.stored = len(b) > 0
		// A page that is not wholly below hi has notes still to come.
		t.dirty = start+pageSeqs > hi
	}
	return out
}

func (c *checkpoint) writeNotes(q *Queue, p *notePage) {
	key := binary.BigEndian.AppendUint64(queueKey(keyNotes, q.id), p.no)
	if len(p.b) == 0 {
		c.w.delete(key)
		return
	}
	c.w.seal(key, p.b)
}
