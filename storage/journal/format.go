package journal

import (
	"encoding/binary"
	"hash/crc32"
)

// All numbers on disk are little endian.
//
// A segment starts with one page. Its first sector holds head slot A, written before the
// file gets its name; the second sector holds slot B, written together with the first
// record. Fragments follow from byte pageSize on, each at a multiple of 8:
//
//	head slot, 64 bytes             fragment header, 48 bytes
//	 0  magic "SETTJRNL"             0  u32 the segment's mark (low half of its salt)
//	 8  u8  version                  4  u32 CRC32C of bytes 8..48
//	 9  u8  slot, 'A' or 'B'         8  u32 length of the payload
//	10  6 zero bytes                12  u32 CRC32C of the payload
//	16  u64 segment id              16  u8  kind
//	24  u64 size of the file        17  u8  flags
//	32  u64 salt, random            18  2 zero bytes
//	40  u64 first sequence, or 0    20  u32 epoch, random per Open
//	48  u64 synced (slot B)         24  u64 sequence
//	56  u32 link of the first       32  u64 synced
//	60  u32 CRC32C of bytes 0..60   40  u32 link: header CRC of the fragment before
//	                                44  4 zero bytes
//
// Both CRCs of a fragment start from a seed made of the segment's id and salt, so that a
// fragment of another segment, or of an earlier life of the same file, is never valid.
const (
	pageSize   = 4096
	sectorSize = 512
	headSize   = 64
	fragHeader = 48
	slotB      = sectorSize

	formatVersion = 1

	// maxFragment bounds the payload of a fragment, and so what a reader must hold to
	// check a CRC.
	maxFragment = 1 << 20
	// minFragment is the smallest piece worth starting at the end of a segment when
	// the record does not fit whole.
	minFragment = 1 << 10
	// minSegment leaves room for a page of records besides the head.
	minSegment = 2 * pageSize
	// maxSegment keeps every offset within Position.Offset.
	maxSegment = 1 << 30
)

// maxSequence is more than a log can reach, and far from overflow.
const maxSequence = 1 << 62

const headMagic = "SETTJRNL"

// Kinds of fragments.
const (
	kindFull   = 1 + iota // a whole record
	kindFirst             // first piece of a record
	kindMiddle            // neither first nor last
	kindLast              // last piece
	kindSeal              // the log goes on in the next segment
	kindMark              // the log ends here; overwritten by the next record
	kindGap               // loss accepted by the operator: skip
	kindEnd               // not a kind
)

const (
	// flagEpoch is set on the first fragment an opened journal writes.
	flagEpoch = 1 << 0
	// flagToEnd is set on a gap that swallows the rest of its segment.
	flagToEnd = 1 << 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// head is a decoded head slot.
type head struct {
	id       uint64
	size     int64
	salt     uint64
	firstSeq uint64 // 0: not known when the slot was written
	synced   uint64
	link     uint32
}

func (h *head) put(b []byte, slot byte) {
	b = b[:headSize]
	clear(b)
	copy(b, headMagic)
	b[8], b[9] = formatVersion, slot
	binary.LittleEndian.PutUint64(b[16:], h.id)
	binary.LittleEndian.PutUint64(b[24:], uint64(h.size))
	binary.LittleEndian.PutUint64(b[32:], h.salt)
	binary.LittleEndian.PutUint64(b[40:], h.firstSeq)
	binary.LittleEndian.PutUint64(b[48:], h.synced)
	binary.LittleEndian.PutUint32(b[56:], h.link)
	binary.LittleEndian.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
}

// parseHead decodes a slot. newer is set for a well-formed slot of a later version.
func parseHead(b []byte, slot byte) (h head, ok, newer bool) {
	if len(b) < headSize {
		return h, false, false
	}
	b = b[:headSize]
	if string(b[:8]) != headMagic || binary.LittleEndian.Uint32(b[60:]) != crc32.Checksum(b[:60], castagnoli) {
		return h, false, false
	}
	if b[8] > formatVersion {
		return h, false, true
	}
	h = head{
		id:       binary.LittleEndian.Uint64(b[16:]),
		size:     int64(binary.LittleEndian.Uint64(b[24:])),
		salt:     binary.LittleEndian.Uint64(b[32:]),
		firstSeq: binary.LittleEndian.Uint64(b[40:]),
		synced:   binary.LittleEndian.Uint64(b[48:]),
		link:     binary.LittleEndian.Uint32(b[56:]),
	}
	ok = b[8] == formatVersion && b[9] == slot && h.size >= minSegment && h.size%pageSize == 0 && h.size <= maxSegment
	return h, ok, false
}

// seed is where the CRCs of a segment's fragments start.
func (h *head) seed() uint32 {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], h.id)
	binary.LittleEndian.PutUint64(b[8:], h.salt)
	return crc32.Checksum(b[:], castagnoli)
}

// fragment is a decoded fragment header.
type fragment struct {
	length  uint32
	sum     uint32 // of the payload
	kind    uint8
	flags   uint8
	epoch   uint32
	seq     uint64
	synced  uint64 // every sequence up to this one was durable; of a gap: the sequence after it, 0 unknown
	link    uint32
	ownLink uint32 // CRC of this header: the link of the next
}

// span is what the fragment occupies in the file.
func (f *fragment) span() int64 { return align8(fragHeader + int64(f.length)) }

// evidence is the highest sequence that this header proves to have been durable.
func (f *fragment) evidence() uint64 {
	if f.kind == kindGap {
		return f.seq
	}
	return f.synced
}

// put encodes the header into b and sets ownLink.
func (f *fragment) put(b []byte, s *segment) {
	b = b[:fragHeader]
	binary.LittleEndian.PutUint32(b, s.mark)
	binary.LittleEndian.PutUint32(b[8:], f.length)
	binary.LittleEndian.PutUint32(b[12:], f.sum)
	binary.LittleEndian.PutUint32(b[16:], uint32(f.kind)|uint32(f.flags)<<8)
	binary.LittleEndian.PutUint32(b[20:], f.epoch)
	binary.LittleEndian.PutUint64(b[24:], f.seq)
	binary.LittleEndian.PutUint64(b[32:], f.synced)
	binary.LittleEndian.PutUint32(b[40:], f.link)
	binary.LittleEndian.PutUint32(b[44:], 0)
	f.ownLink = crc32.Update(s.seed, castagnoli, b[8:])
	binary.LittleEndian.PutUint32(b[4:], f.ownLink)
}

// parse decodes and checks the header at the head of b. The payload is not looked at.
func (f *fragment) parse(b []byte, s *segment) bool {
	if len(b) < fragHeader || binary.LittleEndian.Uint32(b) != s.mark {
		return false
	}
	b = b[:fragHeader]
	f.ownLink = binary.LittleEndian.Uint32(b[4:])
	if crc32.Update(s.seed, castagnoli, b[8:]) != f.ownLink {
		return false
	}
	kind := binary.LittleEndian.Uint32(b[16:])
	f.length = binary.LittleEndian.Uint32(b[8:])
	f.sum = binary.LittleEndian.Uint32(b[12:])
	f.kind, f.flags = uint8(kind), uint8(kind>>8)
	f.epoch = binary.LittleEndian.Uint32(b[20:])
	f.seq = binary.LittleEndian.Uint64(b[24:])
	f.synced = binary.LittleEndian.Uint64(b[32:])
	f.link = binary.LittleEndian.Uint32(b[40:])
	switch {
	case kind>>16 != 0, f.kind == 0, f.kind >= kindEnd, f.seq == 0, f.seq > maxSequence, f.synced > maxSequence:
		return false
	case f.kind == kindGap:
		return f.synced > f.seq || f.synced == 0 && f.flags&flagToEnd != 0
	case f.kind == kindSeal, f.kind == kindMark:
		return f.length == 0
	}
	return f.length <= maxFragment && f.synced < f.seq
}

func align8(n int64) int64 { return (n + 7) &^ 7 }

// place says how many payload bytes of a record with left bytes to go fit in a fragment
// at off. A segment always keeps room for one more header, for its seal or mark. Not ok
// means that the segment must be sealed.
func place(off, segSize, left int64) (n int64, ok bool) {
	room := segSize - off - 2*fragHeader
	switch {
	case room < 0:
		return 0, false
	case left <= room:
		return min(left, maxFragment), true
	case room < minFragment:
		return 0, false
	}
	return min(room, maxFragment), true
}
