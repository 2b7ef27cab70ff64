package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// windowSize is what a walker reads at once; it holds the largest fragment.
const windowSize = 2 << 20

// window is a moving view of one segment's file.
type window struct {
	seg *segment
	buf []byte
	off int64 // of buf in the file
}

func (w *window) turn(s *segment) {
	w.seg, w.buf = s, w.buf[:0]
}

// view returns up to n bytes at off, fewer only at the end of the file. They are valid
// until the next call.
func (w *window) view(off int64, n int) ([]byte, error) {
	if off < w.off || off+int64(n) > w.off+int64(len(w.buf)) {
		if err := w.load(off, n); err != nil {
			return nil, err
		}
	}
	b := w.buf[min(off-w.off, int64(len(w.buf))):]
	return b[:min(n, len(b))], nil
}

func (w *window) load(off int64, n int) error {
	want := max(0, min(windowSize, w.seg.size-off))
	if int64(cap(w.buf)) < want {
		w.buf = make([]byte, want)
	}
	s := w.seg
	s.rw.RLock()
	defer s.rw.RUnlock()
	w.buf, w.off = w.buf[:want], off
	if s.dead {
		w.buf = w.buf[:0]
		return ErrReleased
	}
	got, err := readFull(s.file, w.buf, off)
	w.buf = w.buf[:got]
	if err != nil {
		return &CorruptError{File: s.path, Offset: off + int64(got), What: "cannot be read", Err: err}
	}
	return nil
}

// walker follows the chain of fragments.
type walker struct {
	window
	at     int64
	seq    uint64 // expected
	link   uint32
	epoch  uint32
	seqOK  bool // seq is known
	linkOK bool // link and epoch are known
}

// enter goes to the start of a segment. What is known of the chain is kept; what is not
// is taken from the segment's head.
func (w *walker) enter(s *segment) {
	w.turn(s)
	w.at = pageSize
	if !w.seqOK {
		w.seq, w.link, w.seqOK = s.start()
		w.linkOK = false
	}
}

// next reads the fragment at w.at. If there is none that continues the chain, what says
// why. The payload is valid until the next call.
func (w *walker) next() (f fragment, payload []byte, what string, err error) {
	b, err := w.view(w.at, fragHeader)
	if err != nil {
		return f, nil, "", err
	}
	switch {
	case !f.parse(b, w.seg):
		return f, nil, "no valid record header", nil
	case w.seqOK && f.seq != w.seq:
		return f, nil, fmt.Sprintf("fragment %d where %d belongs", f.seq, w.seq), nil
	case w.linkOK && f.link != w.link:
		return f, nil, "the fragment continues another history", nil
	case f.kind == kindMark:
		return f, nil, "", nil
	case w.linkOK && f.epoch != w.epoch && f.flags&flagEpoch == 0 && f.kind != kindGap:
		return f, nil, "the fragment is of another run", nil
	case w.at+f.span() > w.limit(&f):
		return f, nil, "the fragment reaches beyond its segment", nil
	}
	if f.kind == kindGap {
		return f, nil, "", nil
	}
	b, err = w.view(w.at, int(fragHeader+f.length))
	if err != nil {
		return f, nil, "", err
	}
	if len(b) < int(fragHeader+f.length) {
		return f, nil, "the file ends within a fragment", nil
	}
	payload = b[fragHeader:]
	if f.kind != kindSeal && crc32.Update(w.seg.seed, castagnoli, payload) != f.sum {
		return f, nil, "checksum of the payload", nil
	}
	return f, payload, "", nil
}

// limit is where a fragment must end: what does not end a segment leaves room for one
// more header.
func (w *walker) limit(f *fragment) int64 {
	if f.kind == kindSeal || f.kind == kindGap && f.flags&flagToEnd != 0 {
		return w.seg.size
	}
	return w.seg.size - fragHeader
}

// accept moves behind f.
func (w *walker) accept(f *fragment) {
	w.at += f.span()
	w.seq, w.link, w.epoch = f.seq+1, f.ownLink, f.epoch
	w.seqOK, w.linkOK = true, true
	if f.kind == kindGap {
		w.seq, w.seqOK, w.linkOK = f.synced, f.synced != 0, false
	}
}

// assembler joins fragments to records.
type assembler struct {
	pos  Position
	open bool // between first and last
	buf  []byte
}

// add takes a fragment and returns the record it completes. Pieces without their first,
// as at the start of a segment or behind a gap, are passed over. Not ok: the kinds
// contradict one another.
func (a *assembler) add(f *fragment, pos Position, payload []byte) (record []byte, done, ok bool) {
	switch f.kind {
	case kindFull:
		if a.open {
			return nil, false, false
		}
		a.pos = pos
		return payload, true, true
	case kindFirst:
		if a.open {
			return nil, false, false
		}
		a.pos, a.open = pos, true
		a.buf = append(a.buf[:0], payload...)
	case kindMiddle, kindLast:
		if !a.open {
			return nil, false, true
		}
		a.buf = append(a.buf, payload...)
		if f.kind == kindLast {
			a.open = false
			record = a.buf
			if cap(a.buf) > flushAt {
				a.buf = nil
			}
			return record, true, true
		}
	case kindGap:
		a.open = false
	}
	return nil, false, true
}

// ReplaySegment calls fn for every record that starts in a segment, oldest first; the
// record is valid during the call. Of the active segment it sees what was appended
// before the call. Damage is a *CorruptError. Any goroutine, after Replay; no lock is
// held while fn runs. An error of fn ends the walk and is returned.
func (j *Journal) ReplaySegment(id uint64, fn func(pos Position, record []byte) error) error {
	if err := j.replayed(); err != nil {
		return err
	}
	s, err := j.lookup(id)
	if err != nil {
		return err
	}
	var w walker
	var a assembler
	if seq := s.firstSeq.Load(); seq != 0 {
		w.seq, w.seqOK = seq, true
	}
	w.enter(s)
	end, last := s.used.Load(), j.Active() == s.id
	for {
		if w.at >= end && last || w.seg.id != id && !a.open {
			return nil
		}
		f, payload, what, err := w.next()
		if err != nil {
			return err
		}
		if what != "" || f.kind == kindMark {
			return &CorruptError{File: w.seg.path, Offset: w.at, What: what}
		}
		pos := Position{w.seg.id, uint32(w.at)}
		w.accept(&f)
		record, done, ok := a.add(&f, pos, payload)
		if !ok {
			return &CorruptError{File: w.seg.path, Offset: int64(pos.Offset), What: "fragments out of order"}
		}
		if done && a.pos.Segment == id {
			if err := fn(a.pos, record); err != nil {
				return err
			}
		}
		if toEnd := f.kind == kindGap && f.flags&flagToEnd != 0; f.kind == kindSeal || toEnd {
			if s, err = j.following(w.seg.id, toEnd); err != nil {
				return err
			}
			w.enter(s)
			end, last = s.used.Load(), j.Active() == s.id
		}
	}
}

func (j *Journal) replayed() error {
	j.wmu.Lock()
	defer j.wmu.Unlock()
	if !j.ended {
		return ErrNotReplayed
	}
	return nil
}

// evidence is what a search behind a damaged place has found.
type evidence struct {
	synced uint64 // highest sequence proved to have been durable
	any    bool   // something valid was found
	off    int64  // first valid header in the same segment, 0 if none
	seq    uint64 // its sequence
}

// search looks for valid fragment headers in the segments from off in the first one on,
// at every place where one could be. enough ends it early.
func search(segs []*segment, off int64, seq uint64, enough func(*evidence) bool) (ev evidence, err error) {
	var w window
	for i, s := range segs {
		if !s.healthy() {
			continue
		}
		w.turn(s)
		if i > 0 {
			off = pageSize
			if s.bOK {
				ev.any = true
				ev.synced = max(ev.synced, s.b.synced)
			}
		}
		for ; off+fragHeader <= s.size; off += 8 {
			if enough(&ev) {
				return ev, nil
			}
			var b []byte
			if off, b, err = w.find(off); err != nil || b == nil {
				break
			}
			var f fragment
			if !f.parse(b, s) {
				continue
			}
			ev.any = true
			ev.synced = max(ev.synced, f.evidence())
			if i == 0 && ev.off == 0 && f.seq > seq {
				ev.off, ev.seq = off, f.seq
			}
		}
		if err != nil && !errors.Is(err, ErrReleased) {
			return ev, err
		}
	}
	return ev, nil
}

// find returns the next offset from off on, in steps of 8, at which the segment's mark
// stands, and the header there; nil at the end.
func (w *window) find(off int64) (int64, []byte, error) {
	for off+fragHeader <= w.seg.size {
		b, err := w.view(off, fragHeader)
		if err != nil || len(b) < fragHeader {
			return off, nil, err
		}
		b = w.buf[off-w.off:]
		for i := 0; i+fragHeader <= len(b); i += 8 {
			if binary.LittleEndian.Uint32(b[i:]) == w.seg.mark {
				return off + int64(i), b[i : i+fragHeader], nil
			}
		}
		off += int64(len(b)-fragHeader)&^7 + 8
	}
	return off, nil, nil
}
