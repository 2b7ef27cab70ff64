package stream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/settmq/settmq/storage"
	"github.com/settmq/settmq/storage/journal"
)

// recovery is how a log is opened.
type recovery struct {
	fs         journal.FS
	dir        string
	now        func() time.Time
	acceptLoss bool
	onLoss     func(storage.Loss)
}

// open recovers the log of a stream from its segments, given by the offsets they begin with. What a crash left
// unfinished at the end is cut off. Damage is a *storage.CorruptError, or, with acceptLoss, given up and reported.
func (r *recovery) open(id uint64, bases []uint64) (*segmentLog, error) {
	l := &segmentLog{fs: r.fs, dir: r.dir, id: id, now: r.now, step: firstStep}
	slices.Sort(bases)
	for i, base := range bases {
		g := &segment{log: l, base: base, name: segmentName(id, base), next: base, end: chunksFrom, sealed: true}
		ok, err := r.readHead(g, i == len(bases)-1)
		if err != nil {
			return nil, err
		}
		if ok {
			l.segs = append(l.segs, g)
		}
	}
	for i, g := range l.segs {
		last := i == len(l.segs)-1
		var err error
		switch {
		case last:
			err = r.openActive(g)
		case r.acceptLoss:
			err = r.repair(g, l.segs[i+1].base)
		default:
			err = r.openSealed(g)
		}
		if err != nil {
			return nil, err
		}
		if !last && g.next != l.segs[i+1].base {
			what := fmt.Sprintf("messages %d to %d of the stream are missing", g.next, l.segs[i+1].base-1)
			if !r.acceptLoss || g.next > l.segs[i+1].base {
				return nil, damaged(g.path(), g.end, id, what, nil)
			}
			r.lose(g, g.end, what, l.segs[i+1].base-g.next)
		}
		l.next, l.lastTime, l.size = g.next, max(l.lastTime, g.lastTime), l.size+g.end
	}
	return l, nil
}

func (r *recovery) lose(g *segment, at int64, what string, count uint64) {
	if r.onLoss != nil {
		r.onLoss(storage.Loss{Where: fmt.Sprintf("%s at byte %d", g.path(), at), What: what, Queue: g.log.id, Count: count})
	}
}

// readHead reads the head of a segment. ok is false if the file is gone: the last one may have been left
// unfinished by a crash.
func (r *recovery) readHead(g *segment, last bool) (ok bool, err error) {
	f, err := r.fs.OpenFile(g.path(), false)
	if err != nil {
		return false, fmt.Errorf("stream: %w", err)
	}
	defer f.Close()
	b := make([]byte, chunksFrom)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, damaged(g.path(), 0, g.log.id, "the head cannot be read", err)
	}
	h, ok, err := decodeHead(b[:n])
	if err != nil {
		return false, fmt.Errorf("%w: %w: %s", storage.ErrNewerFormat, err, g.path())
	}
	if ok && h.id == g.log.id && h.base == g.base {
		g.salt = h.salt
		return true, nil
	}
	if !ok && last {
		used, err := lastByte(f, chunksFrom)
		if err != nil {
			return false, damaged(g.path(), chunksFrom, g.log.id, "the segment cannot be read", err)
		}
		if used == 0 { // nothing was written behind the head, for it was not durable yet
			return false, r.remove(g)
		}
	}
	if !r.acceptLoss {
		return false, damaged(g.path(), 0, g.log.id, "the head of the segment is not valid", nil)
	}
	r.lose(g, 0, "a segment without a valid head", 0)
	return false, r.remove(g)
}

func (r *recovery) remove(g *segment) error {
	if err := errors.Join(g.log.removeFiles(g.base), r.fs.SyncDir(r.dir)); err != nil {
		return fmt.Errorf("stream: %w", err)
	}
	return nil
}

// openSealed learns what a sealed segment holds, from its index file if that is whole.
func (r *recovery) openSealed(g *segment) error {
	if ok, err := g.readSummary(); ok || err != nil {
		return err
	}
	w, err := r.walk(g)
	if err != nil {
		return err
	}
	defer w.f.Close()
	if err := w.run(false); err != nil {
		return err
	}
	if err := w.checkEnd(); err != nil {
		return err
	}
	g.log.writeIndex(g)
	g.index = nil
	return nil
}

// walk opens a segment to be walked through. The caller closes the walker's file.
func (r *recovery) walk(g *segment) (*walker, error) {
	f, err := r.fs.OpenFile(g.path(), false)
	if err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	size, err := f.Size()
	if err != nil {
		return nil, fmt.Errorf("stream: %w", errors.Join(err, f.Close()))
	}
	return &walker{g: g, f: f, size: size, link: g.salt}, nil
}

// openActive finds the end of the last segment and cuts off what a crash left behind it.
func (r *recovery) openActive(g *segment) error {
	g.sealed = false
	if r.acceptLoss {
		if err := r.repair(g, 0); err != nil {
			return err
		}
		*g = segment{log: g.log, base: g.base, name: g.name, salt: g.salt, next: g.base, end: chunksFrom}
	}
	w, err := r.walk(g)
	if err != nil {
		return err
	}
	defer w.f.Close()
	if err := w.run(true); err != nil {
		return err
	}
	if err := w.checkEnd(); err != nil {
		return err
	}
	g.log.link = w.link
	return w.cut()
}

// walker goes through the chunks of a segment.
type walker struct {
	g    *segment
	f    journal.File
	size int64
	link uint32
	free bool // the chunk before was a gap: any link will do

	// Chunks that no later header says to be durable. Their data has to be looked at.
	fresh []placedChunk
	buf   []byte
}

type placedChunk struct {
	chunkHeader
	at int64
}

// run walks to the first place without a valid chunk. With check it looks at the data of chunks that may be torn
// and goes back to the first that is.
func (w *walker) run(check bool) error {
	g := w.g
	w.link = g.salt
	var found []placedChunk
	var b [chunkHeaderSize + maxFilterSize]byte
	at := int64(chunksFrom)
	next := g.base
	for {
		n, err := w.f.ReadAt(b[:max(0, min(int64(len(b)), w.size-at))], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return damaged(g.path(), at, g.log.id, "a chunk cannot be read", err)
		}
		var h chunkHeader
		if !h.decode(b[:n], g.salt) || h.base != next || at+h.size() > w.size || h.link != w.link && !w.free {
			break
		}
		for len(w.fresh) > 0 && w.fresh[0].at < int64(h.synced) {
			w.fresh = w.fresh[1:]
		}
		if h.kind == kindGap && h.count == 0 && h.length == 0 { // a mark, not part of the log
			break
		}
		c := placedChunk{h, at}
		found, w.fresh = append(found, c), append(w.fresh, c)
		w.link, w.free = h.sum, h.kind == kindGap
		at, next = at+h.size(), h.next()
	}
	if check {
		for _, c := range w.fresh {
			ok, err := w.whole(&c)
			if err != nil {
				return err
			}
			if ok {
				continue
			}
			i := slices.IndexFunc(found, func(o placedChunk) bool { return o.at == c.at })
			found = found[:i]
			break
		}
	}
	w.link, w.free = g.salt, false
	for i := range found {
		g.add(&found[i].chunkHeader, found[i].at)
		w.link, w.free = found[i].sum, found[i].kind == kindGap
	}
	return nil
}

// whole reports whether the entries of a chunk are what was written.
func (w *walker) whole(c *placedChunk) (bool, error) {
	if c.kind == kindGap {
		return true, nil
	}
	if int64(cap(w.buf)) < int64(c.length) {
		w.buf = make([]byte, c.length)
	}
	data := w.buf[:c.length]
	if n, err := w.f.ReadAt(data, c.at+chunkHeaderSize+int64(c.filterSize)); n < len(data) {
		if err != nil && !errors.Is(err, io.EOF) {
			return false, damaged(w.g.path(), c.at, w.g.log.id, "a chunk cannot be read", err)
		}
		return false, nil
	}
	return checkData(&c.chunkHeader, data, w.g.salt), nil
}

// checkEnd looks behind the end for a header that says the end was durable once: then it is damaged, not torn.
func (w *walker) checkEnd() error {
	g := w.g
	h, at, err := w.search(g.end, func(h *chunkHeader) bool { return int64(h.synced) > g.end })
	if err != nil {
		return err
	}
	if h == nil {
		return nil
	}
	return damaged(g.path(), g.end, g.log.id, fmt.Sprintf("a chunk is missing that was durable: the one at byte %d says so", at), nil)
}

// search finds the first valid header at or behind a byte that is accepted.
func (w *walker) search(from int64, accept func(*chunkHeader) bool) (*chunkHeader, int64, error) {
	const overlap = chunkHeaderSize + maxFilterSize
	buf := make([]byte, 1<<20)
	for at := from; at < w.size; {
		n, err := w.f.ReadAt(buf[:min(int64(len(buf)), w.size-at)], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, 0, damaged(w.g.path(), at, w.g.log.id, "the segment cannot be read", err)
		}
		for i := 0; i < n; {
			k := bytes.Index(buf[i:n], chunkMagic)
			if k < 0 {
				break
			}
			i += k
			var h chunkHeader
			if h.decode(buf[i:n], w.g.salt) && accept(&h) {
				return &h, at + int64(i), nil
			}
			i++
		}
		if at+int64(n) >= w.size {
			break
		}
		at += int64(n - overlap)
	}
	return nil, 0, nil
}

// cut zeroes what lies behind the end, so that it can never be taken for a part of the log, and makes durable what lies
// before it: a killed process may have left chunks that were written and not synced, and the next segment begins behind
// them. Of an empty segment that is its head: when all older segments are given up only that knows the next offset.
func (w *walker) cut() error {
	used, err := lastByte(w.f, w.g.end)
	if err != nil {
		return damaged(w.g.path(), w.g.end, w.g.log.id, "the segment cannot be read", err)
	}
	if used == 0 && len(w.fresh) == 0 && w.g.end > chunksFrom {
		return nil
	}
	zeros := make([]byte, 64<<10)
	for at := w.g.end; at < used; {
		n := min(int64(len(zeros)), used-at)
		if _, err := w.f.WriteAt(zeros[:n], at); err != nil {
			return fmt.Errorf("stream: %w", err)
		}
		at += n
	}
	if err := w.f.Sync(); err != nil {
		return fmt.Errorf("stream: %w", err)
	}
	return nil
}

// lastByte returns one past the last byte from a place on that is not zero, 0 if all are.
func lastByte(f journal.File, from int64) (int64, error) {
	size, err := f.Size()
	if err != nil {
		return 0, err
	}
	buf := make([]byte, 256<<10)
	used := int64(0)
	for at := from; at < size; {
		n, err := f.ReadAt(buf[:min(int64(len(buf)), size-at)], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if n == 0 {
			break
		}
		if k := len(bytes.TrimRight(buf[:n], "\x00")); k > 0 {
			used = at + int64(k)
		}
		at += int64(n)
	}
	return used, nil
}

// repair reads a whole segment and writes gaps over what is damaged. nextBase is the offset that the next segment
// begins with, 0 for the active one, whose torn end is left to openActive.
func (r *recovery) repair(g *segment, nextBase uint64) error {
	w, err := r.walk(g)
	if err != nil {
		return err
	}
	defer w.f.Close()
	patched := false
	for {
		c, ok, err := w.next()
		if err != nil {
			return err
		}
		if ok {
			g.add(&c.chunkHeader, c.at)
			w.link, w.free = c.sum, c.kind == kindGap
			continue
		}
		gap, found, err := w.gap(nextBase)
		if err != nil {
			return err
		}
		if !found {
			break
		}
		r.lose(g, g.end, "damaged chunks of a stream", uint64(gap.count))
		var b [chunkHeaderSize]byte
		gap.encode(b[:], g.salt)
		if _, err := w.f.WriteAt(b[:], g.end); err != nil {
			return fmt.Errorf("stream: %w", err)
		}
		patched = true
		g.add(&gap, g.end)
		w.link, w.free = gap.sum, true
	}
	if patched {
		if err := w.f.Sync(); err != nil {
			return fmt.Errorf("stream: %w", err)
		}
	}
	if nextBase != 0 {
		g.log.writeIndex(g)
		g.index = nil
	}
	return nil
}

// next reads the chunk at the end of what was walked, with its data.
func (w *walker) next() (c placedChunk, ok bool, err error) {
	g := w.g
	var b [chunkHeaderSize + maxFilterSize]byte
	n, err := w.f.ReadAt(b[:max(0, min(int64(len(b)), w.size-g.end))], g.end)
	if err != nil && !errors.Is(err, io.EOF) {
		return c, false, damaged(g.path(), g.end, g.log.id, "a chunk cannot be read", err)
	}
	c.at = g.end
	if !c.decode(b[:n], g.salt) || c.base != g.next || c.at+c.size() > w.size || c.link != w.link && !w.free ||
		c.kind == kindGap && c.count == 0 && c.length == 0 {
		return c, false, nil
	}
	ok, err = w.whole(&c)
	return c, ok, err
}

// gap describes what is lost between the end of what was walked and the next chunk that is whole, or the end of a
// sealed segment; found is false if nothing is.
func (w *walker) gap(nextBase uint64) (h chunkHeader, found bool, err error) {
	g := w.g
	h = chunkHeader{base: g.next, time: g.lastTime, link: w.link, synced: uint64(g.end), kind: kindGap}
	next, at, err := w.search(g.end+1, func(c *chunkHeader) bool {
		return c.base > g.next && (c.kind != kindGap || c.count != 0) && (nextBase != 0 || int64(c.synced) > g.end)
	})
	switch {
	case err != nil:
		return h, false, err
	case next != nil && at >= g.end+chunkHeaderSize:
		h.count, h.length = uint32(next.base-g.next), uint32(at-g.end-chunkHeaderSize)
		return h, true, nil
	case nextBase > g.next && w.size >= g.end+chunkHeaderSize:
		h.count, h.length = uint32(nextBase-g.next), uint32(w.size-g.end-chunkHeaderSize)
		return h, true, nil
	}
	return h, false, nil
}

// listSegments sorts the files of a directory by stream. Index files without a segment are removed.
func listSegments(fsys journal.FS, dir string) (map[uint64][]uint64, error) {
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	found := make(map[uint64][]uint64)
	for _, name := range names {
		if id, base, index, ok := parseName(name); ok && !index {
			found[id] = append(found[id], base)
		}
	}
	for _, name := range names {
		if id, base, index, ok := parseName(name); ok && index && !slices.Contains(found[id], base) {
			if err := fsys.Remove(filepath.Join(dir, name)); err != nil {
				return nil, fmt.Errorf("stream: %w", err)
			}
		}
	}
	return found, nil
}

// Recover gives up what cannot be read of all streams in a directory, writes gaps in its place, and tells onLoss. No
// engine may be open on it.
func Recover(dir string, fsys journal.FS, onLoss func(storage.Loss)) error {
	if fsys == nil {
		fsys = journal.OS{}
	}
	found, err := listSegments(fsys, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	r := recovery{fs: fsys, dir: dir, now: time.Now, acceptLoss: true, onLoss: onLoss}
	for _, id := range slices.Sorted(maps.Keys(found)) {
		if _, err := r.open(id, found[id]); err != nil {
			return err
		}
	}
	return nil
}
