package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// Names in the directory. A file that is being zero-filled is "fresh", one that waits
// for its next life "spare".
const (
	segSuffix   = ".seg"
	sparePrefix = "spare-"
	freshPrefix = "fresh-"
)

func segName(id uint64) string   { return fmt.Sprintf("%016d%s", id, segSuffix) }
func spareName() string          { return fmt.Sprintf("%s%016x", sparePrefix, newSalt()) }
func freshName(id uint64) string { return fmt.Sprintf("%s%016d", freshPrefix, id) }

func parseSegName(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, segSuffix)
	if !ok {
		return 0, false
	}
	id, err := strconv.ParseUint(digits, 10, 64)
	return id, err == nil && id > 0 && segName(id) == name
}

// segment is one file of the log.
type segment struct {
	// Immutable once the segment is in use.
	id     uint64
	path   string
	size   int64 // by its head
	mark   uint32
	seed   uint32
	a, b   head
	aOK    bool
	bOK    bool
	actual int64 // length of the file when it was opened

	used     atomic.Int64  // end of the last fragment
	firstSeq atomic.Uint64 // sequence of its first fragment; 0 until that is known

	rw   sync.RWMutex // held for reading during a read of the file
	file File         // guarded by rw
	dead bool         // guarded by rw: released, file is closed
}

// adopt takes identity and seeds from a head slot.
func (s *segment) adopt(h *head) {
	s.id, s.size = h.id, h.size
	s.mark, s.seed = uint32(h.salt), h.seed()
}

// healthy reports whether one of the two slots could be read.
func (s *segment) healthy() bool { return s.aOK || s.bOK }

// start returns the sequence and link of the segment's first fragment, as far as its
// head tells.
func (s *segment) start() (seq uint64, link uint32, known bool) {
	switch {
	case s.bOK:
		return s.b.firstSeq, s.b.link, s.b.firstSeq != 0
	case s.aOK && s.a.firstSeq != 0:
		return s.a.firstSeq, s.a.link, true
	}
	return 0, 0, false
}

// openSegment opens a file and reads its head. A damaged head is no error here: whether
// it matters depends on where the log ends.
func openSegment(fsys FS, path string, id uint64) (*segment, error) {
	f, err := fsys.OpenFile(path, false)
	if err != nil {
		return nil, err
	}
	s := &segment{id: id, path: path, file: f}
	if s.actual, err = f.Size(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	page := make([]byte, pageSize)
	n, err := readFull(f, page, 0)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("journal: %s: %w", path, err), f.Close())
	}
	page = page[:n]
	var newerA, newerB bool
	s.a, s.aOK, newerA = parseHead(page, 'A')
	if len(page) >= slotB {
		s.b, s.bOK, newerB = parseHead(page[slotB:], 'B')
	}
	if newerA || newerB {
		return nil, errors.Join(fmt.Errorf("%w: %s", ErrNewerFormat, path), f.Close())
	}
	s.aOK = s.aOK && s.a.id == id
	s.bOK = s.bOK && s.b.id == id
	if s.aOK && s.bOK && s.a.salt != s.b.salt {
		s.bOK = false
	}
	switch {
	case s.aOK:
		s.adopt(&s.a)
	case s.bOK:
		s.adopt(&s.b)
	}
	if seq, _, ok := s.start(); ok {
		s.firstSeq.Store(seq)
	}
	return s, nil
}

// readAt fills p from the file; a segment that was released meanwhile is ErrReleased.
func (s *segment) readAt(p []byte, off int64) error {
	s.rw.RLock()
	defer s.rw.RUnlock()
	if s.dead {
		return ErrReleased
	}
	n, err := readFull(s.file, p, off)
	if err == nil && n < len(p) {
		err = &CorruptError{File: s.path, Offset: off + int64(n), What: "the file ends here"}
	}
	return err
}

// retire closes the file once nobody reads it any more.
func (s *segment) retire() error {
	s.rw.Lock()
	defer s.rw.Unlock()
	if s.dead {
		return nil
	}
	s.dead = true
	return s.file.Close()
}

// readFull is ReadAt that takes the end of the file for an answer, not an error.
func readFull(f io.ReaderAt, p []byte, off int64) (int, error) {
	n, err := f.ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// listing is what a directory holds.
type listing struct {
	segments []uint64 // ascending
	spares   []string // paths
	leftover []string // paths of files whose making was interrupted
}

func list(fsys FS, dir string) (l listing, err error) {
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return l, err
	}
	sort.Strings(names)
	for _, name := range names {
		path := filepath.Join(dir, name)
		if id, ok := parseSegName(name); ok {
			l.segments = append(l.segments, id)
		} else if strings.HasPrefix(name, sparePrefix) {
			l.spares = append(l.spares, path)
		} else if strings.HasPrefix(name, freshPrefix) {
			l.leftover = append(l.leftover, path)
		}
	}
	sort.Slice(l.segments, func(i, k int) bool { return l.segments[i] < l.segments[k] })
	return l, nil
}

// removeIfThere deletes a file that may be gone already.
func removeIfThere(fsys FS, path string) error {
	if err := fsys.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (s *segment) salt() uint64 {
	if s.aOK {
		return s.a.salt
	}
	return s.b.salt
}
