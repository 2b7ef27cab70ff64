package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"
	"sort"
	"sync"

	"github.com/settmq/settmq/storage/journal"
)

// indexStep is how many bytes of a segment lie at least between two entries of its index.
const indexStep = 64 << 10

// indexEntry says where a chunk begins.
type indexEntry struct {
	offset uint64
	time   int64
	at     int64
}

// segment is one file of a log. Its exported state is guarded by the log's mutex; base, id and name never
// change.
type segment struct {
	log  *segmentLog
	base uint64
	name string
	salt uint32

	// Guarded by segmentLog.mu. What is sealed does not change any more.
	next      uint64 // offset behind the last message
	end       int64  // where its durable chunks end
	firstTime int64  // of the first chunk
	lastTime  int64
	lastChunk uint64 // base of the last chunk
	chunks    uint32
	sealed    bool
	index     []indexEntry // of the active segment; a sealed one's is in its file

	file struct {
		sync.Mutex
		f    journal.File
		refs int
		gone bool // removed: close with the last reference
	}
}

// acquire opens the file for reading, or shares it.
func (g *segment) acquire() (journal.File, error) {
	g.file.Lock()
	defer g.file.Unlock()
	if g.file.f == nil {
		f, err := g.log.fs.OpenFile(g.path(), false)
		if err != nil {
			return nil, err
		}
		g.file.f = f
	}
	g.file.refs++
	return g.file.f, nil
}

// release gives back what acquire gave.
func (g *segment) release() {
	g.file.Lock()
	defer g.file.Unlock()
	if g.file.refs--; g.file.refs == 0 {
		_ = g.file.f.Close() // only read
		g.file.f = nil
	}
}

func (g *segment) path() string { return filepath.Join(g.log.dir, g.name) }

// add notes a chunk that is durable, or was found at recovery.
func (g *segment) add(h *chunkHeader, at int64) {
	if h.kind == kindData {
		if g.chunks == 0 {
			g.firstTime = h.time
		}
		g.chunks++
		g.lastTime, g.lastChunk = h.time, h.base
		if n := len(g.index); n == 0 || at-g.index[n-1].at >= indexStep {
			g.index = append(g.index, indexEntry{h.base, h.time, at})
		}
	}
	g.next = h.next()
	g.end = at + h.size()
}

// The index file of a sealed segment: a summary, then the entries, each part with its own checksum. It
// is not synced, for it can be made anew.
const (
	summarySize    = 64
	indexEntrySize = 24
)

var indexMagic = []byte("SettSidx")

func (g *segment) encodeIndex() []byte {
	b := make([]byte, summarySize, summarySize+len(g.index)*indexEntrySize)
	copy(b, indexMagic)
	binary.LittleEndian.PutUint32(b[8:], g.salt)
	binary.LittleEndian.PutUint64(b[12:], g.next)
	binary.LittleEndian.PutUint64(b[20:], uint64(g.end))
	binary.LittleEndian.PutUint64(b[28:], uint64(g.firstTime))
	binary.LittleEndian.PutUint64(b[36:], uint64(g.lastTime))
	binary.LittleEndian.PutUint64(b[44:], g.lastChunk)
	binary.LittleEndian.PutUint32(b[52:], g.chunks)
	for _, e := range g.index {
		b = binary.LittleEndian.AppendUint64(b, e.offset)
		b = binary.LittleEndian.AppendUint64(b, uint64(e.time))
		b = binary.LittleEndian.AppendUint64(b, uint64(e.at))
	}
	binary.LittleEndian.PutUint32(b[56:], crc32.Checksum(b[summarySize:], castagnoli))
	binary.LittleEndian.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	return b
}

// readSummary takes the facts about a sealed segment from its index file; false if that is not there or not
// whole.
func (g *segment) readSummary() (bool, error) {
	b, err := g.log.readIndexFile(g.base, summarySize)
	if b == nil || err != nil {
		return false, err
	}
	if string(b[:8]) != string(indexMagic) || binary.LittleEndian.Uint32(b[60:]) != crc32.Checksum(b[:60], castagnoli) ||
		binary.LittleEndian.Uint32(b[8:]) != g.salt {
		return false, nil
	}
	g.next = binary.LittleEndian.Uint64(b[12:])
	g.end = int64(binary.LittleEndian.Uint64(b[20:]))
	g.firstTime = int64(binary.LittleEndian.Uint64(b[28:]))
	g.lastTime = int64(binary.LittleEndian.Uint64(b[36:]))
	g.lastChunk = binary.LittleEndian.Uint64(b[44:])
	g.chunks = binary.LittleEndian.Uint32(b[52:])
	return true, nil
}

// loadIndex returns the index of a sealed segment: from its file, or from the headers of its chunks.
func (g *segment) loadIndex() ([]indexEntry, error) {
	b, err := g.log.readIndexFile(g.base, 0)
	if err != nil {
		return nil, err
	}
	if len(b) >= summarySize && binary.LittleEndian.Uint32(b[60:]) == crc32.Checksum(b[:60], castagnoli) &&
		binary.LittleEndian.Uint32(b[8:]) == g.salt && (len(b)-summarySize)%indexEntrySize == 0 &&
		binary.LittleEndian.Uint32(b[56:]) == crc32.Checksum(b[summarySize:], castagnoli) {
		var index []indexEntry
		for e := b[summarySize:]; len(e) > 0; e = e[indexEntrySize:] {
			index = append(index, indexEntry{
				binary.LittleEndian.Uint64(e), int64(binary.LittleEndian.Uint64(e[8:])), int64(binary.LittleEndian.Uint64(e[16:])),
			})
		}
		return index, nil
	}
	f, err := g.acquire()
	if err != nil {
		return nil, err
	}
	defer g.release()
	fresh := &segment{log: g.log, base: g.base, name: g.name, salt: g.salt, next: g.base, end: chunksFrom}
	if err := fresh.walk(f, g.end); err != nil {
		return nil, err
	}
	return fresh.index, nil
}

// walk reads the headers of the chunks up to a byte that is known to end one.
func (g *segment) walk(f journal.File, to int64) error {
	var b [chunkHeaderSize + maxFilterSize]byte
	for at := int64(chunksFrom); at < to; {
		n, err := f.ReadAt(b[:min(int64(len(b)), to-at)], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return damaged(g.path(), at, g.log.id, "a chunk cannot be read", err)
		}
		var h chunkHeader
		if !h.decode(b[:n], g.salt) || h.base < g.next {
			return damaged(g.path(), at, g.log.id, "no chunk where one has to be", nil)
		}
		g.add(&h, at)
		at = g.end
	}
	return nil
}

// readIndexFile reads limit bytes of an index file, or all of it; nil if it is missing or shorter.
func (l *segmentLog) readIndexFile(base uint64, limit int64) ([]byte, error) {
	f, err := l.fs.OpenFile(filepath.Join(l.dir, indexName(l.id, base)), false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	if limit == 0 {
		limit = size
	}
	if size < limit || size < summarySize {
		return nil, nil
	}
	b := make([]byte, limit)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, nil // it can be made anew
	}
	return b, nil
}

// before returns the byte from which a search for a chunk has to start: the last entry of which less is true,
// or the first chunk.
func before(index []indexEntry, less func(indexEntry) bool) int64 {
	i := sort.Search(len(index), func(i int) bool { return !less(index[i]) })
	if i == 0 {
		return chunksFrom
	}
	return index[i-1].at
}
