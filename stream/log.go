package stream

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path/filepath"
	"sort"
	"sync"
	"syscall"
	"time"

	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/storage/journal"
)

const (
	// firstStep and largestStep are how much of a segment is allocated at once: little in a stream that holds
	// little, more with every step.
	firstStep   = 256 << 10
	largestStep = 16 << 20
)

// segmentLog is the log of one stream on disk: segments of chunks, of which only the last, the active one, is
// written. Writing belongs to one goroutine at a time; everything else may be called from any.
type segmentLog struct {
	fs  journal.FS
	dir string
	id  uint64
	now func() time.Time

	// Owned by whoever writes.
	out       journal.File // of the active segment; nil until the first write
	allocated int64
	step      int64
	link      uint32 // sum of the last chunk's header
	lastTime  int64
	headers   []chunkHeader
	buffers   [][]byte

	removing sync.Mutex // held while segments are removed

	mu    sync.Mutex // the last lock of all
	segs  []*segment
	next  uint64 // offset of the next message
	size  int64  // of all segments
	begun int
	tail  tail
}

// active returns the segment that is written, nil before the first message.
func (l *segmentLog) active() *segment {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.segs) == 0 {
		return nil
	}
	return l.segs[len(l.segs)-1]
}

// bounds returns the first offset that is kept and the one behind the last.
func (l *segmentLog) bounds() (first, next uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.boundsLocked()
}

func (l *segmentLog) boundsLocked() (first, next uint64) {
	if len(l.segs) == 0 {
		return l.next, l.next
	}
	return l.segs[0].base, l.next
}

// stat returns the bytes of all segments and the number of segments begun since the log was opened.
func (l *segmentLog) stat() (size int64, begun int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.size, l.begun
}

// describe fills in what the files tell.
func (l *segmentLog) describe(d *queue.Details) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d.Segments = len(l.segs)
	d.ReadyBytes = uint64(l.size)
	if len(l.segs) > 0 {
		d.FirstTimestamp = l.segs[0].firstTime
	}
}

// inMemory returns the chunk that holds an offset, retained for the caller, if it is one of the newest.
func (l *segmentLog) inMemory(offset uint64) *chunk {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tail.find(offset)
}

// write makes as many of the chunks durable as the active segment takes, at least one, and returns their
// number. errNoSpace leaves everything as it was; any other error is the end of the log.
func (l *segmentLog) write(chunks []*chunk, segmentSize int64, keepTail bool) (n int, err error) {
	g, err := l.forWriting(int64(chunks[0].size()), segmentSize)
	if err != nil {
		return 0, err
	}
	at := g.end
	l.headers, l.buffers = l.headers[:0], l.buffers[:0]
	link, now := l.link, max(l.now().UnixMilli(), l.lastTime)
	for _, c := range chunks {
		if n > 0 && at+int64(c.size()) > segmentSize {
			break
		}
		h := chunkHeader{
			base: c.base, time: now, count: c.count, link: link, synced: uint64(g.end), hasUnfilterd: c.unfiltered,
		}
		b := c.seal(&h, g.salt)
		link = h.sum
		l.headers, l.buffers = append(l.headers, h), append(l.buffers, b)
		at += h.size()
		n++
	}
	if err := l.allocate(at, segmentSize); err != nil {
		return 0, err
	}
	if err := l.out.WritevAt(l.buffers, g.end); err != nil {
		if errors.Is(err, syscall.ENOSPC) {
			return 0, errNoSpace
		}
		return 0, fmt.Errorf("stream: %w", err)
	}
	if err := l.out.Sync(); err != nil {
		return 0, fmt.Errorf("stream: %w", err)
	}
	l.link, l.lastTime = link, now
	l.mu.Lock()
	for i := range l.headers {
		g.add(&l.headers[i], g.end)
		l.size += l.headers[i].size()
	}
	l.next = g.next
	if keepTail {
		l.tail.add(chunks[:n])
	} else {
		l.tail.drop()
	}
	l.mu.Unlock()
	return n, nil
}

// mark notes behind the log that everything before is durable, so that damage to the end is told from a torn
// write. The next chunk overwrites it. It is not synced: it costs no time, and after a kill it is there.
func (l *segmentLog) mark() error {
	g := l.active()
	if g == nil || l.out == nil || g.end+chunkHeaderSize > l.allocated {
		return nil
	}
	h := chunkHeader{base: g.next, time: l.lastTime, link: l.link, synced: uint64(g.end), kind: kindGap}
	var b [chunkHeaderSize]byte
	h.encode(b[:], g.salt)
	if _, err := l.out.WriteAt(b[:], g.end); err != nil && !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("stream: %w", err)
	}
	return nil
}

// forWriting returns the segment for a chunk of n bytes, with its file open.
func (l *segmentLog) forWriting(n, segmentSize int64) (*segment, error) {
	g := l.active()
	if g == nil {
		return l.begin(segmentSize)
	}
	if g.end > chunksFrom && g.end+n > segmentSize {
		return l.roll(g, segmentSize)
	}
	if l.out == nil {
		f, err := l.fs.OpenFile(g.path(), false)
		if err != nil {
			return nil, fmt.Errorf("stream: %w", err)
		}
		if l.allocated, err = f.Size(); err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("stream: %w", err)
		}
		l.out, l.step = f, firstStep
	}
	return g, nil
}

// roll ends the active segment and begins the next.
func (l *segmentLog) roll(g *segment, segmentSize int64) (*segment, error) {
	old := l.out
	fresh, err := l.begin(segmentSize)
	if err != nil {
		return nil, err
	}
	l.writeIndex(g)
	l.mu.Lock()
	g.sealed, g.index = true, nil
	l.mu.Unlock()
	if old != nil {
		if err := old.Close(); err != nil {
			return nil, fmt.Errorf("stream: %w", err)
		}
	}
	return fresh, nil
}

// begin makes a segment. Its head is durable before anything is written behind it.
func (l *segmentLog) begin(segmentSize int64) (*segment, error) {
	l.mu.Lock()
	base := l.next
	l.mu.Unlock()
	g := &segment{log: l, base: base, name: segmentName(l.id, base), next: base, end: chunksFrom}
	var salt [4]byte
	_, _ = rand.Read(salt[:]) // never fails
	g.salt = binary.LittleEndian.Uint32(salt[:])

	f, err := l.fs.OpenFile(g.path(), true)
	if errors.Is(err, fs.ErrExist) { // begun before, and given up for want of space
		if err := l.fs.Remove(g.path()); err != nil {
			return nil, fmt.Errorf("stream: %w", err)
		}
		f, err = l.fs.OpenFile(g.path(), true)
	}
	if err != nil {
		return nil, noSpaceOr(err)
	}
	err = f.Allocate(chunksFrom)
	if err == nil || errors.Is(err, errors.ErrUnsupported) {
		_, err = f.WriteAt(segmentHead{salt: g.salt, id: l.id, base: base}.encode(), 0)
	}
	if err != nil {
		_ = f.Close()
		return nil, noSpaceOr(err)
	}
	err = f.Sync()
	if err == nil {
		err = l.fs.SyncDir(l.dir)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("stream: %w", err)
	}
	l.out, l.allocated, l.step, l.link = f, chunksFrom, min(firstStep, segmentSize), g.salt
	l.mu.Lock()
	l.segs = append(l.segs, g)
	l.begun++
	l.size += g.end
	l.mu.Unlock()
	return g, nil
}

func noSpaceOr(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return errNoSpace
	}
	return fmt.Errorf("stream: %w", err)
}

// allocate reserves the active segment up to a byte, and some more ahead.
func (l *segmentLog) allocate(need, segmentSize int64) error {
	if need <= l.allocated {
		return nil
	}
	want := l.allocated + l.step
	if need <= segmentSize {
		want = min(want, segmentSize)
	}
	want = max(want, need)
	for {
		err := l.out.Allocate(want)
		switch {
		case err == nil || errors.Is(err, errors.ErrUnsupported):
			l.allocated = want
			l.step = min(2*l.step, largestStep)
			return nil
		case errors.Is(err, syscall.ENOSPC) && want > need:
			want = need
		default:
			return noSpaceOr(err)
		}
	}
}

// writeIndex writes the index file of a segment that ends. Without it the index is made anew, so a failure does
// not matter.
func (l *segmentLog) writeIndex(g *segment) {
	path := filepath.Join(l.dir, indexName(l.id, g.base))
	_ = l.fs.Remove(path) // mostly there is none
	f, err := l.fs.OpenFile(path, true)
	if err != nil {
		return
	}
	_, err = f.WriteAt(g.encodeIndex(), 0)
	if err = errors.Join(err, f.Close()); err != nil {
		_ = l.fs.Remove(path)
	}
}

// retain removes whole segments from the front while the log is larger than maxBytes, or its oldest segment ended
// before the time oldest (in ms). The active segment stays.
func (l *segmentLog) retain(maxBytes, oldest int64) (removed int, err error) {
	l.removing.Lock()
	defer l.removing.Unlock()
	for {
		l.mu.Lock()
		if len(l.segs) < 2 {
			l.mu.Unlock()
			return removed, nil
		}
		g := l.segs[0]
		if l.size <= maxBytes && g.lastTime >= oldest {
			l.mu.Unlock()
			return removed, nil
		}
		l.segs = l.segs[1:]
		l.size -= g.end
		l.mu.Unlock()
		removed++
		// One after the other: a crash must not leave a hole.
		if err := errors.Join(l.removeFiles(g.base), l.fs.SyncDir(l.dir)); err != nil {
			return removed, fmt.Errorf("stream: %w", err)
		}
	}
}

func (l *segmentLog) removeFiles(base uint64) error {
	for _, name := range [...]string{segmentName(l.id, base), indexName(l.id, base)} {
		if err := l.fs.Remove(filepath.Join(l.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// removeAll deletes the files of the log. Nobody writes any more; readers keep what they have open.
func (l *segmentLog) removeAll() error {
	l.removing.Lock()
	defer l.removing.Unlock()
	l.mu.Lock()
	segs := l.segs
	l.segs, l.size = nil, 0
	l.tail.drop()
	l.mu.Unlock()
	var errs []error
	for _, g := range segs {
		errs = append(errs, l.removeFiles(g.base))
	}
	return errors.Join(append(errs, l.close())...)
}

// close closes the file that is written.
func (l *segmentLog) close() error {
	if l.out == nil {
		return nil
	}
	err := l.out.Close()
	l.out = nil
	return err
}

// last returns the offset of the first message of the last chunk, or the next offset in an empty log.
func (l *segmentLog) last() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := len(l.segs) - 1; i >= 0; i-- {
		if l.segs[i].chunks > 0 {
			return l.segs[i].lastChunk
		}
	}
	return l.next
}

// place finds the segment that holds an offset, or the first one behind it, and a byte in it at or before which
// the offset's chunk begins. The offset must be below next. The segment is nil if there is none any more.
func (l *segmentLog) place(offset uint64) (g *segment, at int64, err error) {
	l.mu.Lock()
	i := sort.Search(len(l.segs), func(i int) bool { return l.segs[i].next > offset })
	if i == len(l.segs) {
		l.mu.Unlock()
		return nil, 0, nil
	}
	g = l.segs[i]
	index, sealed := g.index, g.sealed
	l.mu.Unlock()
	if offset <= g.base {
		return g, chunksFrom, nil
	}
	if sealed {
		if index, err = g.loadIndex(); err != nil {
			return nil, 0, err
		}
	}
	return g, before(index, func(e indexEntry) bool { return e.offset <= offset }), nil
}

// at returns the offset of the first chunk that was written at a time (in ms) or later, or the next offset.
func (l *segmentLog) at(time int64) (uint64, error) {
	l.mu.Lock()
	i := sort.Search(len(l.segs), func(i int) bool { return l.segs[i].chunks == 0 || l.segs[i].lastTime >= time })
	if i == len(l.segs) || l.segs[i].chunks == 0 {
		defer l.mu.Unlock()
		return l.next, nil
	}
	g := l.segs[i]
	index, sealed, end := g.index, g.sealed, g.end
	l.mu.Unlock()
	f, err := g.acquire()
	if errors.Is(err, fs.ErrNotExist) { // removed meanwhile
		first, _ := l.bounds()
		return first, nil
	}
	if err != nil {
		return 0, fmt.Errorf("stream: %w", err)
	}
	defer g.release()
	if sealed {
		if index, err = g.loadIndex(); err != nil {
			return 0, err
		}
	}
	var b [chunkHeaderSize + maxFilterSize]byte
	for at := before(index, func(e indexEntry) bool { return e.time < time }); at < end; {
		n, _ := f.ReadAt(b[:min(int64(len(b)), end-at)], at)
		var h chunkHeader
		if !h.decode(b[:n], g.salt) {
			return 0, damaged(g.path(), at, l.id, "no chunk where one has to be", nil)
		}
		if h.kind == kindData && h.time >= time {
			return h.base, nil
		}
		at += h.size()
	}
	_, next := l.bounds()
	return next, nil
}

// reader is one reader's place in the files.
type reader struct {
	log *segmentLog
	seg *segment // nil: to be found by offset
	f   journal.File
	pos int64
}

func (r *reader) close() {
	if r.seg != nil {
		r.seg.release()
		r.seg, r.f = nil, nil
	}
}

// read fills buf with whole or begun chunks, from the one that holds the offset on or a few before it, and returns
// what was read; nothing if the offset is not written yet. It may begin behind an offset that is not kept.
func (r *reader) read(offset uint64, buf []byte) ([]byte, error) {
	l := r.log
	for {
		if r.seg == nil {
			g, at, err := l.place(offset)
			if g == nil || err != nil {
				return nil, err
			}
			f, err := g.acquire()
			if errors.Is(err, fs.ErrNotExist) && l.removed(g) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("stream: %w", err)
			}
			r.seg, r.f, r.pos = g, f, at
		}
		l.mu.Lock()
		end, sealed := r.seg.end, r.seg.sealed
		l.mu.Unlock()
		if r.pos < end {
			b := buf[:min(int64(len(buf)), end-r.pos)]
			if n, err := r.f.ReadAt(b, r.pos); n < len(b) {
				return nil, damaged(r.seg.path(), r.pos+int64(n), l.id, "chunks cannot be read", err)
			}
			return b, nil
		}
		if !sealed {
			return nil, nil
		}
		offset = max(offset, r.seg.next)
		r.close()
	}
}

// whole returns the length of the whole chunks in what was read; if that is 0, how many bytes the first one needs, as
// far as that can be told.
func (r *reader) whole(data []byte) (n int, need int64) {
	var h chunkHeader
	for h.decode(data[n:], r.seg.salt) {
		if need = h.size(); need > int64(len(data)-n) {
			break
		}
		n += int(need)
	}
	return n, need
}

func (r *reader) damaged(what string) error {
	if r.seg == nil {
		return damaged("memory", 0, r.log.id, what, nil)
	}
	return damaged(r.seg.path(), r.pos, r.log.id, what, nil)
}

// removed reports whether a segment is not part of the log any more.
func (l *segmentLog) removed(g *segment) bool {
	first, _ := l.bounds()
	return g.base < first
}

// checkData reports whether the entries of a chunk are what was written.
func checkData(h *chunkHeader, data []byte, salt uint32) bool {
	return crc32.Update(salt, castagnoli, data) == h.dataSum
}
