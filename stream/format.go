package stream

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
)

// Layout of a segment file, all integers little-endian:
//
//	0     head, 64 bytes; a copy at 2048
//	4096  chunks, one behind the other, then zeros up to what is allocated
//
// A chunk is a header, its filter, and its entries, one a message. A gap is a header without entries that
// stands where a chunk was lost: it says how many offsets and bytes are to be skipped.
const (
	headSize   = 64
	headCopy   = 2048
	chunksFrom = 4096

	chunkHeaderSize = 56
	entryHeaderSize = 10
	maxFilterSize   = 255
)

const formatVersion = 1

var (
	headMagic  = []byte("SettStrm")
	chunkMagic = []byte{0xa7, 'S', 'Q', 'c'}
)

const (
	kindData = 0
	kindGap  = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// segmentHead says which file this is. The salt is random: checksums of chunks start from it, so that
// nobody who only chooses messages can forge a chunk.
type segmentHead struct {
	salt uint32
	id   uint64
	base uint64 // offset of the first message
}

func (h segmentHead) encode() []byte {
	b := make([]byte, chunksFrom)
	copy(b, headMagic)
	b[8] = formatVersion
	binary.LittleEndian.PutUint32(b[12:], h.salt)
	binary.LittleEndian.PutUint64(b[16:], h.id)
	binary.LittleEndian.PutUint64(b[24:], h.base)
	binary.LittleEndian.PutUint32(b[32:], crc32.Checksum(b[:32], castagnoli))
	copy(b[headCopy:], b[:headSize])
	return b
}

// decodeHead reads either copy of the head.
func decodeHead(b []byte) (h segmentHead, ok bool, err error) {
	for _, at := range [...]int{0, headCopy} {
		if len(b) < at+headSize {
			continue
		}
		c := b[at : at+headSize]
		if string(c[:8]) != string(headMagic) || binary.LittleEndian.Uint32(c[32:]) != crc32.Checksum(c[:32], castagnoli) {
			continue
		}
		if c[8] != formatVersion {
			return h, false, fmt.Errorf("stream: segment has the unknown format version %d", c[8])
		}
		return segmentHead{
			salt: binary.LittleEndian.Uint32(c[12:]), id: binary.LittleEndian.Uint64(c[16:]), base: binary.LittleEndian.Uint64(c[24:]),
		}, true, nil
	}
	return h, false, nil
}

// chunkHeader describes a chunk.
type chunkHeader struct {
	base         uint64 // offset of its first message
	time         int64  // when it was written, in ms since 1970; never falls within a stream
	count        uint32 // messages, or lost messages
	length       uint32 // bytes of entries, or bytes to skip behind the header
	dataSum      uint32 // of the entries
	link         uint32 // sum of the header before it in the segment, else the salt
	synced       uint64 // everything before this byte of the segment was durable when the chunk was written
	kind         uint8
	filterSize   uint8
	hasUnfilterd bool
	sum          uint32 // of the header and the filter
}

// size is the length of the whole chunk in the file.
func (h *chunkHeader) size() int64 {
	return chunkHeaderSize + int64(h.filterSize) + int64(h.length)
}

func (h *chunkHeader) next() uint64 { return h.base + uint64(h.count) }

// encode fills in the header at the front of a chunk whose filter is in place already.
func (h *chunkHeader) encode(b []byte, salt uint32) {
	copy(b, chunkMagic)
	binary.LittleEndian.PutUint64(b[8:], h.base)
	binary.LittleEndian.PutUint64(b[16:], uint64(h.time))
	binary.LittleEndian.PutUint32(b[24:], h.count)
	binary.LittleEndian.PutUint32(b[28:], h.length)
	binary.LittleEndian.PutUint32(b[32:], h.dataSum)
	binary.LittleEndian.PutUint32(b[36:], h.link)
	binary.LittleEndian.PutUint64(b[40:], h.synced)
	b[48], b[49], b[50] = h.kind, h.filterSize, 0
	if h.hasUnfilterd {
		b[50] = 1
	}
	clear(b[51:chunkHeaderSize])
	h.sum = crc32.Update(salt, castagnoli, b[8:chunkHeaderSize+int(h.filterSize)])
	binary.LittleEndian.PutUint32(b[4:], h.sum)
}

// decode reads a header with its filter; false if b does not begin with a valid one. b may end behind them.
func (h *chunkHeader) decode(b []byte, salt uint32) bool {
	if len(b) < chunkHeaderSize || string(b[:4]) != string(chunkMagic) {
		return false
	}
	n := chunkHeaderSize + int(b[49])
	if len(b) < n {
		return false
	}
	sum := binary.LittleEndian.Uint32(b[4:])
	if crc32.Update(salt, castagnoli, b[8:n]) != sum {
		return false
	}
	*h = chunkHeader{
		base: binary.LittleEndian.Uint64(b[8:]), time: int64(binary.LittleEndian.Uint64(b[16:])),
		count: binary.LittleEndian.Uint32(b[24:]), length: binary.LittleEndian.Uint32(b[28:]),
		dataSum: binary.LittleEndian.Uint32(b[32:]), link: binary.LittleEndian.Uint32(b[36:]),
		synced: binary.LittleEndian.Uint64(b[40:]), kind: b[48], filterSize: b[49], hasUnfilterd: b[50] != 0, sum: sum,
	}
	return true
}

// entry is a message in a chunk. Its slices alias the chunk.
type entry struct {
	exchange, routingKey []byte
	properties, body     []byte
}

func appendEntry(b []byte, exchange, routingKey string, properties, body []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(body)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(properties)))
	b = append(b, byte(len(exchange)), byte(len(routingKey)))
	b = append(b, exchange...)
	b = append(b, routingKey...)
	b = append(b, properties...)
	return append(b, body...)
}

// decode takes the first entry off b; ok is false if b holds none, which a good checksum rules out.
func (e *entry) decode(b []byte) (rest []byte, ok bool) {
	if len(b) < entryHeaderSize {
		return nil, false
	}
	body, props := uint64(binary.LittleEndian.Uint32(b)), uint64(binary.LittleEndian.Uint32(b[4:]))
	x, k := int(b[8]), int(b[9])
	b = b[entryHeaderSize:]
	if uint64(x+k)+props+body > uint64(len(b)) {
		return nil, false
	}
	e.exchange, b = b[:x], b[x:]
	e.routingKey, b = b[:k], b[k:]
	e.properties, b = b[:props:props], b[props:]
	e.body, b = b[:body:body], b[body:]
	return b, true
}

// entrySize is the length of an encoded message.
func entrySize(exchange, routingKey string, properties, body []byte) int {
	return entryHeaderSize + len(exchange) + len(routingKey) + len(properties) + len(body)
}

// A filter is a Bloom filter with filterHashes bits a value. Its size is fixed for a stream.
const filterHashes = 3

// filterHash is FNV-1a; it must not change, for filters are on disk.
func filterHash(value string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(value) {
		h = (h ^ uint64(value[i])) * 1099511628211
	}
	return h
}

func filterAdd(filter []byte, hash uint64) {
	a, b := uint32(hash), uint32(hash>>32)|1
	bits := uint32(len(filter)) * 8
	for range filterHashes {
		filter[a%bits/8] |= 1 << (a % bits % 8)
		a += b
	}
}

func filterHas(filter []byte, hash uint64) bool {
	if len(filter) == 0 {
		return false
	}
	a, b := uint32(hash), uint32(hash>>32)|1
	bits := uint32(len(filter)) * 8
	for range filterHashes {
		if filter[a%bits/8]&(1<<(a%bits%8)) == 0 {
			return false
		}
		a += b
	}
	return true
}

// segmentName is the name of a segment's file: ascending with the offsets.
func segmentName(id, base uint64) string { return fmt.Sprintf("%d-%020d.log", id, base) }

func indexName(id, base uint64) string { return fmt.Sprintf("%d-%020d.idx", id, base) }

// parseName takes a file name apart; ok is false for names that are not ours.
func parseName(name string) (id, base uint64, index, ok bool) {
	stem, isLog := strings.CutSuffix(name, ".log")
	if !isLog {
		if stem, index = strings.CutSuffix(name, ".idx"); !index {
			return 0, 0, false, false
		}
	}
	first, second, found := strings.Cut(stem, "-")
	id, err1 := strconv.ParseUint(first, 10, 64)
	base, err2 := strconv.ParseUint(second, 10, 64)
	return id, base, index, found && err1 == nil && err2 == nil && len(second) == 20
}
