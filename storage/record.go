package storage

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
)

// A packed record holds many messages of one queue in one value of Badger:
//
//	version u8 | 0 u8 | 0 u16 | count u32 | first seq u64 | qid u64
//	table    count times: distance from first seq u32, offset of the entry u32, body size u32
//	crc32c u32 over all of the above
//	entries  crc32c u32 | flags u8 | exchange | key | properties | body, or the id of its body keys
//
// The table has its own checksum and every entry one of its own, over its sequence number too, so
// that one message is read and checked without the others. Little endian.
const (
	recordVersion    = 1
	recordHeaderSize = 24
	recordTableEntry = 12
	entryOverhead    = 4 + 1 + 3*5 + bodyIDSize + recordTableEntry

	entryExternal = 1 // the body is under keys of its own
)

// recordInfo is what a queue remembers of a record, all of it in the record's key.
type recordInfo struct {
	first, last uint64 // sequence numbers of the first and last message
	bytes       uint64 // of all bodies
	count       uint32
}

func (r *recordInfo) key(dst []byte, qid uint64) []byte {
	dst = append(dst, keyRecord)
	dst = binary.BigEndian.AppendUint64(dst, qid)
	dst = binary.BigEndian.AppendUint64(dst, r.first)
	dst = binary.BigEndian.AppendUint64(dst, r.last)
	dst = binary.BigEndian.AppendUint32(dst, r.count)
	return binary.BigEndian.AppendUint64(dst, r.bytes)
}

func parseRecordKey(k []byte) (qid uint64, r recordInfo, err error) {
	if len(k) != recordKeySize {
		return 0, r, errLayout
	}
	qid = binary.BigEndian.Uint64(k[1:])
	r.first = binary.BigEndian.Uint64(k[9:])
	r.last = binary.BigEndian.Uint64(k[17:])
	r.count = binary.BigEndian.Uint32(k[25:])
	r.bytes = binary.BigEndian.Uint64(k[29:])
	if r.last < r.first || r.last >= 1<<63 || r.count == 0 || uint64(r.count) > r.last-r.first+1 {
		return 0, r, errRange
	}
	return qid, r, nil
}

// recordBuilder packs messages of one queue.
type recordBuilder struct {
	qid     uint64
	info    recordInfo
	table   []byte
	entries []byte
}

func (b *recordBuilder) reset(qid uint64) {
	b.qid = qid
	b.info = recordInfo{}
	b.table = b.table[:0]
	b.entries = b.entries[:0]
}

func (b *recordBuilder) empty() bool { return b.info.count == 0 }

// fits reports whether a message of n bytes in all can join.
func (b *recordBuilder) fits(seq uint64, n int) bool {
	return b.empty() || seq-b.info.first <= math.MaxUint32 &&
		recordHeaderSize+4+len(b.table)+len(b.entries)+entryOverhead+n <= maxRecord
}

// add appends a message; with external not nil the body lies under that id.
func (b *recordBuilder) add(seq uint64, op *messageOp, external *bodyID) {
	if b.empty() {
		b.info.first = seq
	}
	b.info.last = seq
	b.info.count++
	b.info.bytes += op.bodySize
	b.table = binary.LittleEndian.AppendUint32(b.table, uint32(seq-b.info.first))
	b.table = binary.LittleEndian.AppendUint32(b.table, uint32(len(b.entries)))
	b.table = binary.LittleEndian.AppendUint32(b.table, uint32(op.bodySize))
	start := len(b.entries)
	flags := byte(0)
	if external != nil {
		flags = entryExternal
	}
	e := append(b.entries, 0, 0, 0, 0, flags)
	e = appendBytes(e, op.exchange)
	e = appendBytes(e, op.routingKey)
	e = appendBytes(e, op.properties)
	if external != nil {
		e = append(e, external[:]...)
	} else {
		e = append(e, op.body...)
	}
	binary.LittleEndian.PutUint32(e[start:], entrySum(b.qid, seq, e[start+4:]))
	b.entries = e
}

func entrySum(qid, seq uint64, entry []byte) uint32 {
	var id [16]byte
	binary.LittleEndian.PutUint64(id[:], qid)
	binary.LittleEndian.PutUint64(id[8:], seq)
	return crc32.Update(crc32.Update(0, castagnoli, id[:]), castagnoli, entry)
}

// write puts the record into w and starts the next one. It returns what was written.
func (b *recordBuilder) write(w *stateWriter) recordInfo {
	mem := w.alloc(recordKeySize + b.size())
	key := b.info.key(mem[:0:recordKeySize], b.qid)
	b.encode(mem[recordKeySize:])
	w.set(key, mem[recordKeySize:])
	info := b.info
	b.reset(b.qid)
	return info
}

// size is the length of the value.
func (b *recordBuilder) size() int { return recordHeaderSize + len(b.table) + 4 + len(b.entries) }

// encode writes the value into v, which has that size.
func (b *recordBuilder) encode(v []byte) {
	head := recordHeaderSize + len(b.table)
	clear(v[:recordHeaderSize])
	v[0] = recordVersion
	binary.LittleEndian.PutUint32(v[4:], b.info.count)
	binary.LittleEndian.PutUint64(v[8:], b.info.first)
	binary.LittleEndian.PutUint64(v[16:], b.qid)
	for i := 0; i < len(b.table); i += recordTableEntry {
		copy(v[recordHeaderSize+i:], b.table[i:i+recordTableEntry])
		at := binary.LittleEndian.Uint32(b.table[i+4:]) + uint32(head) + 4
		binary.LittleEndian.PutUint32(v[recordHeaderSize+i+4:], at)
	}
	binary.LittleEndian.PutUint32(v[head:], crc32.Checksum(v[:head], castagnoli))
	copy(v[head+4:], b.entries)
}

// recordView reads a record's value. Slices alias it.
type recordView struct {
	qid   uint64
	first uint64
	count int
	value []byte
}

// openRecord checks the head of a value that was stored under info.
func openRecord(qid uint64, info *recordInfo, value []byte) (r recordView, err error) {
	if len(value) < recordHeaderSize+4 {
		return r, errShort
	}
	count := binary.LittleEndian.Uint32(value[4:])
	head := recordHeaderSize + uint64(count)*recordTableEntry
	switch {
	case value[0] != recordVersion:
		return r, errVersion
	case head+4 > uint64(len(value)):
		return r, errLayout
	case crc32.Checksum(value[:head], castagnoli) != binary.LittleEndian.Uint32(value[head:]):
		return r, errChecksum
	}
	r = recordView{
		qid:   binary.LittleEndian.Uint64(value[16:]),
		first: binary.LittleEndian.Uint64(value[8:]),
		count: int(count),
		value: value,
	}
	if r.qid != qid || r.first != info.first || count != info.count {
		return r, fmt.Errorf("holds something else: %w", errLayout)
	}
	return r, nil
}

// seq returns the sequence number of entry i.
func (r *recordView) seq(i int) uint64 {
	return r.first + uint64(binary.LittleEndian.Uint32(r.value[recordHeaderSize+i*recordTableEntry:]))
}

func (r *recordView) bodySize(i int) uint64 {
	return uint64(binary.LittleEndian.Uint32(r.value[recordHeaderSize+i*recordTableEntry+8:]))
}

// find returns the index of the first entry at or after `from` whose sequence number is at least
// seq.
func (r *recordView) find(seq uint64, from int) int {
	// Mostly it is the next one.
	if from < r.count && r.seq(from) >= seq {
		return from
	}
	lo, hi := from, r.count
	for lo < hi {
		mid := (lo + hi) / 2
		if r.seq(mid) < seq {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// entry decodes and checks entry i. external is set when the body lies elsewhere.
func (r *recordView) entry(i int, op *messageOp) (external *bodyID, err error) {
	row := r.value[recordHeaderSize+i*recordTableEntry:]
	lo := uint64(binary.LittleEndian.Uint32(row[4:]))
	hi := uint64(len(r.value))
	if i+1 < r.count {
		hi = uint64(binary.LittleEndian.Uint32(row[recordTableEntry+4:]))
	}
	if lo+5 > hi || hi > uint64(len(r.value)) {
		return nil, errLayout
	}
	e := r.value[lo:hi]
	if entrySum(r.qid, r.seq(i), e[4:]) != binary.LittleEndian.Uint32(e) {
		return nil, errChecksum
	}
	c := cursor{b: e[5:]}
	op.qid, op.seq = r.qid, r.seq(i)
	op.exchange, op.routingKey, op.properties = c.bytes(), c.bytes(), c.bytes()
	op.bodySize = r.bodySize(i)
	op.body = nil
	if e[4]&entryExternal != 0 {
		id := c.take(bodyIDSize)
		if c.err == nil {
			external = new(bodyID(id))
		}
	} else {
		op.body = c.take(op.bodySize)
	}
	if c.err != nil {
		return nil, c.err
	}
	if len(c.b) != 0 {
		return nil, errLayout
	}
	return external, nil
}
