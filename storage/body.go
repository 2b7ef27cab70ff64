package storage

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// Bodies that several queues share, and those too large for a record, are stored once under keys
// of their own. Their id is where they lay in the journal: unique, and the same when a checkpoint
// is repeated after a crash.
const (
	bodyIDSize    = 16
	bodyChunk     = 512 << 10 // bytes per key
	minSharedBody = 4 << 10   // smaller ones are copied into each queue's records
	maxRecordBody = 256 << 10 // larger ones do not go into records
	bodyKeySize   = 1 + bodyIDSize + 4
)

type bodyID [bodyIDSize]byte

func makeBodyID(pos position, op uint32) (id bodyID) {
	binary.BigEndian.PutUint64(id[:], pos.Segment)
	binary.BigEndian.PutUint32(id[8:], pos.Offset)
	binary.BigEndian.PutUint32(id[12:], op)
	return id
}

func (id *bodyID) key(dst []byte, chunk uint32) []byte {
	dst = append(append(dst, keyBody), id[:]...)
	return binary.BigEndian.AppendUint32(dst, chunk)
}

func (id *bodyID) refsKey() []byte { return append([]byte{keyBodyRefs}, id[:]...) }

// writeBody stores a body in chunks; read gives the bytes at an offset.
func (w *stateWriter) writeBody(id *bodyID, size uint64, read func(off uint64, p []byte) error) error {
	for off, chunk := uint64(0), uint32(0); off < size; chunk++ {
		n := min(size-off, bodyChunk)
		mem := w.alloc(bodyKeySize + 1 + int(n) + 4)
		key := id.key(mem[:0:bodyKeySize], chunk)
		v := mem[bodyKeySize:]
		v[0] = sealVersion
		if err := read(off, v[1:1+n]); err != nil {
			return err
		}
		sum := crc32.Update(0, castagnoli, key)
		binary.LittleEndian.PutUint32(v[1+n:], crc32.Update(sum, castagnoli, v[:1+n]))
		w.set(key, v)
		off += n
	}
	return w.err
}

// readBody fills p, which has the body's size.
func (t *stateReader) readBody(id *bodyID, p []byte) error {
	for off, chunk := 0, uint32(0); off < len(p); chunk++ {
		n := min(len(p)-off, bodyChunk)
		key := id.key(t.key[:0], chunk)
		t.key = key
		err := t.value(key, func(v []byte) error {
			b, err := unseal(key, v)
			if err == nil && len(b) != n {
				err = errLayout
			}
			copy(p[off:], b)
			return err
		})
		if err != nil {
			return fmt.Errorf("body chunk %d: %w", chunk, err)
		}
		off += n
	}
	return nil
}

// target is one queue's copy of a message.
type target struct{ qid, seq uint64 }

// encodeTargets is the payload of 'b': body size, then the targets.
func encodeTargets(size uint64, targets []target) []byte {
	b := binary.AppendUvarint(nil, size)
	b = binary.AppendUvarint(b, uint64(len(targets)))
	for _, t := range targets {
		b = binary.AppendUvarint(b, t.qid)
		b = binary.AppendUvarint(b, t.seq)
	}
	return b
}

// decodeTargets calls fn for each target until it returns false.
func decodeTargets(b []byte, fn func(target) bool) (size uint64, err error) {
	c := cursor{b: b}
	size = c.uvarint()
	for n := c.uvarint(); n > 0 && c.err == nil; n-- {
		t := target{c.uvarint(), c.uvarint()}
		if c.err == nil && !fn(t) {
			break
		}
	}
	return size, c.err
}
