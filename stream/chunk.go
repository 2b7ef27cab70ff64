package stream

import (
	"hash/crc32"
	"sync"
	"sync/atomic"
)

const (
	// chunkTarget is how large a chunk gets; a larger message has one to itself. A reader checks and
	// holds chunks as a whole, so they are small.
	chunkTarget = 64 << 10
	// chunkCapacity is what a chunk's buffer holds without growing.
	chunkCapacity = chunkTarget + 4<<10
	// smallChunk is what it begins with in a stream that gets little at a time.
	smallChunk = 2 << 10
	// windowSize is how much a reader reads at once.
	windowSize = 512 << 10
)

// block is a buffer that several may read. It goes back to its pool with the last of them.
type block struct {
	buf  []byte
	refs atomic.Int32
	pool *sync.Pool  // nil: left to the garbage collector
	kept atomic.Bool // somebody keeps a part of it longer: not for the pool
}

func newPool(size int) *sync.Pool {
	p := new(sync.Pool)
	p.New = func() any { return &block{buf: make([]byte, 0, size), pool: p} }
	return p
}

var (
	chunkBlocks  = newPool(chunkCapacity)
	windowBlocks = newPool(windowSize)
)

func newBlock(p *sync.Pool) *block {
	b := p.Get().(*block)
	b.refs.Store(1)
	return b
}

func (b *block) retain() { b.refs.Add(1) }

func (b *block) release() {
	if b.refs.Add(-1) == 0 && b.pool != nil && !b.kept.Load() {
		b.buf = b.buf[:0]
		b.pool.Put(b)
	}
}

// chunk is a chunk in memory: first it gathers messages, then it is written, then it may stay for readers at the
// end of the log.
type chunk struct {
	*block            // room for header and filter, then entries
	filterSize int    // room for the filter
	base       uint64 // offset of the first message
	count      uint32
	filtered   bool // the filter has values
	unfiltered bool // there are messages without filter value
	from       int  // where the header begins, once sealed
	salt       uint32
}

// newChunk begins a chunk; large if it is expected to be filled.
func newChunk(base uint64, filterSize int, large bool) *chunk {
	c := &chunk{base: base, filterSize: filterSize}
	if large {
		c.block = newBlock(chunkBlocks)
	} else {
		c.block = &block{buf: make([]byte, 0, smallChunk)}
		c.refs.Store(1)
	}
	c.buf = c.buf[:chunkHeaderSize+filterSize]
	clear(c.buf)
	return c
}

// add appends a message.
func (c *chunk) add(exchange, routingKey string, properties, body []byte, filter string) {
	c.buf = appendEntry(c.buf, exchange, routingKey, properties, body)
	c.count++
	if filter == "" {
		c.unfiltered = true
		return
	}
	c.filtered = true
	filterAdd(c.buf[chunkHeaderSize:chunkHeaderSize+c.filterSize], filterHash(filter))
}

// size is the length in the file.
func (c *chunk) size() int {
	if c.filtered {
		return len(c.buf)
	}
	return len(c.buf) - c.filterSize
}

// seal fills in the header and returns the bytes for the file. It may be called again.
func (c *chunk) seal(h *chunkHeader, salt uint32) []byte {
	data := c.buf[chunkHeaderSize+c.filterSize:]
	h.length = uint32(len(data))
	h.dataSum = crc32.Update(salt, castagnoli, data)
	c.from, c.salt = 0, salt
	if c.filtered {
		h.filterSize = uint8(c.filterSize)
	} else {
		c.from = c.filterSize
	}
	b := c.buf[c.from:]
	h.encode(b, salt)
	return b
}

// bytes is the sealed chunk as it is in the file.
func (c *chunk) bytes() []byte { return c.buf[c.from:] }

// tail holds the newest chunks in memory for readers at the end of the log. It is guarded by the log's mutex.
type tail struct {
	chunks []*chunk
	size   int
}

// maxTail bounds the bytes of one stream's tail; it has one chunk at least.
const maxTail = 1 << 20

// add takes over written chunks.
func (t *tail) add(chunks []*chunk) {
	for _, c := range chunks {
		c.retain()
		t.chunks = append(t.chunks, c)
		t.size += len(c.buf)
	}
	for t.size > maxTail && len(t.chunks) > 1 {
		t.size -= len(t.chunks[0].buf)
		t.chunks[0].release()
		t.chunks[0] = nil
		t.chunks = t.chunks[1:]
	}
}

func (t *tail) drop() {
	for _, c := range t.chunks {
		c.release()
	}
	t.chunks, t.size = nil, 0
}

// find returns the chunk that holds an offset, retained for the caller; nil if it is not in memory.
func (t *tail) find(offset uint64) *chunk {
	if len(t.chunks) == 0 || offset < t.chunks[0].base {
		return nil
	}
	for _, c := range t.chunks {
		if offset < c.base+uint64(c.count) {
			c.retain()
			return c
		}
	}
	return nil
}
