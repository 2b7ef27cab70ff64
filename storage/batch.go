package storage

import (
	"encoding/binary"
	"hash/crc32"
)

// A batch is one record of the journal: all that was pending when the committer looked.
//
//	header  version u8 | flags u8 | 0 u16 | 0 u32 | total u64 | end of messages u64 | end of states u64
//	messages  message and reference operations, in the order of each queue
//	states    settlements, delivery limits and notes
//	meta      metadata changes, queue creation and deletion, id reservations
//
// The meta part is replayed first: it may hold what a message in the same batch depends on, never
// the other way round. Messages stand in front because locations address only the first 4 MiB of
// a record; a message larger than that is the only one in its batch.
//
//	message  1 | crc32c u32 | flags u8 | n u32 | n bytes: qid, seq, exchange, key, properties, body
//	ref      2 | at, qid, seq, body size, flags: the message operation at offset `at` is also this one
//	settle   3 | qid, number of runs, (distance from the last run's end, length)…
//	limit    4 | qid, upTo      the delivery limit is raised to upTo
//	exact    5 | qid, upTo      the delivery limit is upTo, also when that is less
//	notes    6 | qid, number, (distance from the last seq, note)…
//	put     10 | key, value
//	delete  11 | key
//	create  12 | qid, delivery limit
//	drop    13 | qid
//	ids     14 | upTo           ids below upTo may be in use
//
// Integers without a width are uvarints, byte fields have a uvarint length in front. The checksum
// of a message covers its flags, length and fields; the journal's own covers the rest.
const (
	batchVersion    = 1
	batchHeaderSize = 32

	flagClean = 1 // last batch of an orderly Close

	opMessage = 1
	opRef     = 2
	opSettle  = 3
	opLimit   = 4
	opExact   = 5
	opNotes   = 6
	opPut     = 10
	opDelete  = 11
	opCreate  = 12
	opDrop    = 13
	opIDs     = 14

	messageHeaderSize = 10
	messageTransient  = 1
	messageShared     = 2 // references to it follow

	// messageOverhead bounds what a message operation needs beside its four fields: header, two
	// ids of up to 10 bytes, four lengths of up to 5.
	messageOverhead = messageHeaderSize + 20 + 20
	refOverhead     = 40

	// followerSize is the room that is kept in a batch for what follows a message.
	followerSize = 128

	// maxBatch is how much one batch takes; only a single larger message exceeds it.
	maxBatch = 4<<20 - 64<<10

	// maxInlineBody is the size up to which a body is copied into the batch buffer; larger ones
	// go to the journal by reference.
	maxInlineBody = 16 << 10

	// maxBody bounds a message body: 512 MiB is the hard limit of the broker, and a body with
	// its other fields must fit in a u32.
	maxBody = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// batchWriter builds the encoded form of a batch. The buffers it hands out are valid until reset.
type batchWriter struct {
	buf    []byte   // everything but large bodies
	chunks []bChunk // order of buf ranges and large bodies
	from   int      // start of the buf range not yet in chunks
	size   uint64   // bytes so far
	bufs   [][]byte
}

type bChunk struct {
	lo, hi int
	body   []byte // instead of lo, hi
}

func (w *batchWriter) reset() {
	clear(w.chunks)
	clear(w.bufs)
	if cap(w.buf) > 2*maxBatch {
		w.buf = nil
	}
	w.buf = append(w.buf[:0], make([]byte, batchHeaderSize)...)
	w.chunks = w.chunks[:0]
	w.bufs = w.bufs[:0]
	w.from = 0
	w.size = 0
}

// offset is where the next byte goes in the record.
func (w *batchWriter) offset() uint64 { return w.size + uint64(len(w.buf)-w.from) }

// message appends a message operation and returns its offset.
func (w *batchWriter) message(qid, seq uint64, m *Message) uint32 {
	at := uint32(w.offset())
	start := len(w.buf)
	b := append(w.buf, opMessage, 0, 0, 0, 0, messageFlags(m), 0, 0, 0, 0)
	b = binary.AppendUvarint(b, qid)
	b = binary.AppendUvarint(b, seq)
	b = appendString(b, m.Exchange)
	b = appendString(b, m.RoutingKey)
	b = appendBytes(b, m.Properties)
	b = binary.AppendUvarint(b, uint64(len(m.Body)))
	inline := len(m.Body) <= maxInlineBody
	if inline {
		b = append(b, m.Body...)
	}
	n := len(b) - start - messageHeaderSize
	if !inline {
		n += len(m.Body)
	}
	binary.LittleEndian.PutUint32(b[start+6:], uint32(n))
	sum := crc32.Update(0, castagnoli, b[start+5:])
	if !inline {
		sum = crc32.Update(sum, castagnoli, m.Body)
	}
	binary.LittleEndian.PutUint32(b[start+1:], sum)
	w.buf = b
	if !inline {
		w.cut()
		w.chunks = append(w.chunks, bChunk{body: m.Body})
		w.size += uint64(len(m.Body))
	}
	return at
}

// cut ends the current range of buf.
func (w *batchWriter) cut() {
	if len(w.buf) > w.from {
		w.chunks = append(w.chunks, bChunk{lo: w.from, hi: len(w.buf)})
		w.size += uint64(len(w.buf) - w.from)
		w.from = len(w.buf)
	}
}

func messageFlags(m *Message) (flags byte) {
	if m.Transient {
		flags |= messageTransient
	}
	if m.shared {
		flags |= messageShared
	}
	return flags
}

// ref appends a further target of the message operation at offset at.
func (w *batchWriter) ref(at uint32, qid, seq uint64, m *Message) {
	b := append(w.buf, opRef)
	b = binary.AppendUvarint(b, uint64(at))
	b = binary.AppendUvarint(b, qid)
	b = binary.AppendUvarint(b, seq)
	b = binary.AppendUvarint(b, uint64(len(m.Body)))
	w.buf = append(b, messageFlags(m))
}

// settle appends the settlement of runs, which ascend where they can: an out-of-order run is
// encoded by wrapping around.
func (w *batchWriter) settle(qid uint64, runs []run) {
	b := append(w.buf, opSettle)
	b = binary.AppendUvarint(b, qid)
	b = binary.AppendUvarint(b, uint64(len(runs)))
	last := uint64(0)
	for _, r := range runs {
		b = binary.AppendUvarint(b, r.lo-last)
		b = binary.AppendUvarint(b, r.hi-r.lo)
		last = r.hi
	}
	w.buf = b
}

// limit appends a delivery limit; kind is opLimit or opExact.
func (w *batchWriter) limit(kind byte, qid, upTo uint64) {
	b := append(w.buf, kind)
	b = binary.AppendUvarint(b, qid)
	w.buf = binary.AppendUvarint(b, upTo)
}

// finish fills in the header and returns the record. msgEnd and stateEnd are offsets.
func (w *batchWriter) finish(msgEnd, stateEnd uint64, flags byte) [][]byte {
	w.cut()
	h := w.buf[:batchHeaderSize]
	h[0] = batchVersion
	h[1] = flags
	binary.LittleEndian.PutUint64(h[8:], w.size)
	binary.LittleEndian.PutUint64(h[16:], msgEnd)
	binary.LittleEndian.PutUint64(h[24:], stateEnd)
	for _, c := range w.chunks {
		if c.body != nil {
			w.bufs = append(w.bufs, c.body)
		} else {
			w.bufs = append(w.bufs, w.buf[c.lo:c.hi])
		}
	}
	return w.bufs
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendBytes(b, s []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// Metadata operations are encoded by Apply, before the committer sees them.

func appendPut(b, k, v []byte) []byte { return appendBytes(appendBytes(append(b, opPut), k), v) }
func appendDelete(b, k []byte) []byte { return appendBytes(append(b, opDelete), k) }
func appendDrop(b []byte, qid uint64) []byte {
	return binary.AppendUvarint(append(b, opDrop), qid)
}

func appendCreate(b []byte, qid, limit uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(append(b, opCreate), qid), limit)
}

func appendIDs(b []byte, upTo uint64) []byte {
	return binary.AppendUvarint(append(b, opIDs), upTo)
}
