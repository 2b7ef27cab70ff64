package journal

import (
	"errors"
	"fmt"
	"io"
)

// ReadAt fills p with the bytes from off on of the record at pos, which must be a position
// that Append, Replay or ReplaySegment gave. It crosses fragments and segments. Headers on
// the way are verified, the bytes themselves are NOT: their checksum covers whole
// fragments, so a caller that reads a part checks it with a sum of its own. A range beyond
// the record's end is io.ErrUnexpectedEOF; a header that does not fit a *CorruptError; a
// released segment ErrReleased. Any goroutine.
func (j *Journal) ReadAt(pos Position, off uint64, p []byte) error {
	s, err := j.lookup(pos.Segment)
	if err != nil {
		return err
	}
	at := int64(pos.Offset)
	var f fragment
	for first := true; ; first = false {
		seq, link := f.seq+1, f.ownLink
		if f, err = s.header(at); err != nil {
			return err
		}
		head := f.kind == kindFull || f.kind == kindFirst
		if first && !head || !first && head || !first && (f.seq != seq || f.link != link) {
			return &CorruptError{File: s.path, Offset: at, What: "not the record that was asked for"}
		}
		switch f.kind {
		case kindMark, kindGap:
			return &CorruptError{File: s.path, Offset: at, What: "the record ends early"}
		case kindSeal:
			if s, err = j.following(s.id, false); err != nil {
				return err
			}
			at = pageSize
			continue
		}
		if off < uint64(f.length) {
			n := min(uint64(len(p)), uint64(f.length)-off)
			if err := s.readAt(p[:n], at+fragHeader+int64(off)); err != nil {
				return err
			}
			p, off = p[n:], off+n
		}
		if len(p) == 0 {
			return nil
		}
		if f.kind == kindFull || f.kind == kindLast {
			return fmt.Errorf("journal: read beyond the record at %v: %w", pos, io.ErrUnexpectedEOF)
		}
		off -= uint64(f.length)
		at += f.span()
	}
}

// header reads and checks the fragment header at an offset.
func (s *segment) header(at int64) (f fragment, err error) {
	var b [fragHeader]byte
	if at < pageSize || at%8 != 0 || at+fragHeader > s.size {
		return f, &CorruptError{File: s.path, Offset: at, What: "no record can be here"}
	}
	if err := s.readAt(b[:], at); err != nil {
		var c *CorruptError
		if errors.Is(err, ErrReleased) || errors.As(err, &c) {
			return f, err
		}
		return f, &CorruptError{File: s.path, Offset: at, What: "cannot be read", Err: err}
	}
	if !f.parse(b[:], s) || at+f.span() > s.size {
		return f, &CorruptError{File: s.path, Offset: at, What: "no valid record header"}
	}
	return f, nil
}
