package journal

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sort"
)

// Recovery says what Replay found.
type Recovery struct {
	Records uint64   // records handed to the callback
	End     Position // where the log goes on
	Clean   bool     // the mark of a finished Sync stood at the end
	Torn    bool     // something unfinished was dropped there
	Lost    []Loss   // given up by AcceptLoss
}

// Recovery returns what Replay found; zero before it.
func (j *Journal) Recovery() Recovery {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.recovery
}

// Replay reads the log from the start of segment from on (0 is the oldest) and calls fn
// for every whole record that starts there, in order; the record is valid during the call.
// Older segments are dropped. It finds the end of the log, makes durable what
// is before it, and must have succeeded before the first Append. It is called once.
//
// A record torn by a crash ends the log. Damage that a crash cannot explain is a
// *CorruptError, unless Options.AcceptLoss is set. An error of fn ends the walk and is
// returned. fn may call ReadAt, nothing else.
func (j *Journal) Replay(from uint64, fn func(pos Position, record []byte) error) error {
	j.wmu.Lock()
	again := j.replays
	j.replays = true
	j.wmu.Unlock()
	if again {
		return errors.New("journal: Replay was called before")
	}
	r := &replay{j: j, fn: fn}
	j.mu.Lock()
	r.segs = append(r.segs, j.segments...)
	j.mu.Unlock()
	if err := r.begin(from); err != nil {
		return err
	}
	if err := r.walk(); err != nil {
		return err
	}
	return r.finish()
}

// replay is one walk over the whole log.
type replay struct {
	j    *Journal
	fn   func(Position, []byte) error
	segs []*segment // what is there, ascending; the walk is at segs[i]
	i    int
	w    walker
	a    assembler

	end     boundary // behind the last whole record
	visited []*segment
	synced  uint64 // highest sequence the accepted fragments prove durable
	info    Recovery
}

// boundary is a place between two records. Without a segment it stands for the start of
// segment id, which must be made.
type boundary struct {
	seg  *segment
	id   uint64
	at   int64
	seq  uint64
	link uint32
}

// begin finds the first segment.
func (r *replay) begin(from uint64) error {
	r.i = 0
	if from > 0 {
		r.i = sort.Search(len(r.segs), func(i int) bool { return r.segs[i].id >= from })
	}
	switch {
	case r.i < len(r.segs) && (from == 0 || r.segs[r.i].id == from):
		if r.segs[r.i].healthy() {
			r.enter()
			return nil
		}
		return r.lostSegment(r.segs[r.i].id, "both copies of the segment's head are damaged")
	case from > 0:
		return r.lostSegment(from, "the segment is missing")
	}
	r.end = boundary{id: 1, seq: 1}
	return nil
}

func (r *replay) enter() {
	s := r.segs[r.i]
	r.w.enter(s)
	r.visited = append(r.visited, s)
	s.used.Store(pageSize)
	s.firstSeq.Store(r.w.seq) // 0 if not known yet
	if !r.a.open {
		r.end = boundary{seg: s, id: s.id, at: pageSize, seq: r.w.seq, link: r.w.link}
	}
}

func (r *replay) walk() error {
	for r.w.seg != nil {
		f, payload, what, err := r.w.next()
		if err != nil {
			return err
		}
		if what == "" && f.kind == kindMark {
			r.synced = max(r.synced, f.synced)
			r.info.Clean = true
			r.info.Torn = r.a.open
			return nil
		}
		var record []byte
		var done bool
		pos := Position{r.w.seg.id, uint32(r.w.at)}
		if what == "" {
			var ok bool
			if record, done, ok = r.a.add(&f, pos, payload); !ok {
				what = "fragments out of order"
			}
		}
		if what != "" {
			if over, err := r.damaged(what); over || err != nil {
				return err
			}
			continue
		}
		if r.w.at == pageSize {
			r.w.seg.firstSeq.Store(f.seq)
		}
		r.w.accept(&f)
		r.w.seg.used.Store(r.w.at)
		if f.kind != kindGap {
			r.synced = max(r.synced, f.synced)
		}
		if done {
			r.info.Records++
			if err := r.fn(r.a.pos, record); err != nil {
				return err
			}
		}
		if !r.a.open {
			r.end = boundary{seg: r.w.seg, id: r.w.seg.id, at: r.w.at, seq: r.w.seq, link: r.w.link}
		}
		if err := r.cross(&f); err != nil {
			return err
		}
	}
	return nil
}

// cross goes on to the next segment behind a seal or a gap that ends its segment.
func (r *replay) cross(f *fragment) error {
	skip := f.kind == kindGap && f.flags&flagToEnd != 0
	if f.kind != kindSeal && !skip {
		return nil
	}
	id := r.segs[r.i].id + 1
	next := r.i + 1
	for skip && next < len(r.segs) && !r.segs[next].healthy() {
		next++
	}
	if next < len(r.segs) && (skip || r.segs[next].id == id) {
		r.i = next
		if r.segs[next].healthy() {
			r.enter()
			return nil
		}
		// The head was durable before the seal was written.
		return r.lostSegment(id, "both copies of the segment's head are damaged")
	}
	if skip {
		r.w.seg = nil
		r.end = boundary{id: id, at: pageSize, seq: f.seq + 1}
		return nil
	}
	r.i = next
	return r.lostSegment(id, "the segment is missing")
}

// damaged decides what the place at which the chain ends is: the torn end of the log,
// or corruption. See "Torn or corrupt" in the package comment.
func (r *replay) damaged(what string) (over bool, err error) {
	s, at := r.w.seg, r.w.at
	lossy := r.j.opts.AcceptLoss
	short := s.actual < s.size
	ev, err := search(r.segs[r.i:], at+fragHeader, r.w.seq, func(ev *evidence) bool {
		proved := !r.w.seqOK || short || ev.synced >= r.w.seq
		return ev.any && proved && (!lossy || ev.off != 0)
	})
	if err != nil {
		return true, err
	}
	switch {
	case !r.w.seqOK:
		what += "; this segment's first record was durable"
	case ev.synced >= r.w.seq:
		what += fmt.Sprintf("; fragment %d was durable, as a later one says", r.w.seq)
	case short:
		what = fmt.Sprintf("the file has %d of its %d bytes", s.actual, s.size)
	default:
		r.info.Torn = r.a.open || ev.any || what != "no valid record header"
		return true, nil
	}
	if !lossy {
		return true, &CorruptError{File: s.path, Offset: at, What: what}
	}
	return r.giveUp(&ev, what)
}

// giveUp puts a gap over the damage so that the log is whole again around it.
func (r *replay) giveUp(ev *evidence, what string) (over bool, err error) {
	s, at := r.w.seg, r.w.at
	loss := Loss{File: s.path, From: Position{s.id, uint32(at)}, What: what}
	if r.a.open {
		loss.From = r.a.pos
	}
	f := fragment{kind: kindGap, seq: max(r.w.seq, 1), link: r.w.link, epoch: r.w.epoch}
	if ev.off != 0 && ev.seq > f.seq {
		f.length, f.synced = uint32(ev.off-at-fragHeader), ev.seq
		loss.To = Position{s.id, uint32(ev.off)}
	} else {
		f.length, f.flags = uint32(s.size-at-fragHeader), flagToEnd
		for _, next := range r.segs[r.i+1:] {
			if next.healthy() {
				loss.To = Position{next.id, pageSize}
				break
			}
		}
	}
	if ev.any || loss.To != (Position{}) && !r.w.seqOK {
		if err := writeHeader(s, at, &f); err != nil {
			return true, err
		}
		r.w.turn(s)
		r.report(loss)
		return false, nil
	}
	// Nothing follows: the log ends here.
	r.report(loss)
	return true, nil
}

func writeHeader(s *segment, at int64, f *fragment) error {
	var b [fragHeader]byte
	f.put(b[:], s)
	if _, err := s.file.WriteAt(b[:], at); err != nil {
		return err
	}
	return s.file.Sync()
}

func (r *replay) report(l Loss) {
	r.info.Lost = append(r.info.Lost, l)
	if r.j.opts.OnLoss != nil {
		r.j.opts.OnLoss(l)
	}
}

// lostSegment deals with a segment that must be there and is not, or whose head is
// gone. Accepted, it is replaced by the smallest segment there can be, holding only a gap.
func (r *replay) lostSegment(id uint64, what string) error {
	path := filepath.Join(r.j.opts.Dir, segName(id))
	if !r.j.opts.AcceptLoss {
		return &CorruptError{File: path, What: what}
	}
	loss := Loss{File: path, From: Position{id, 0}, What: what}
	if r.a.open {
		loss.From = r.a.pos
	}
	r.a.open = false
	if r.i < len(r.segs) && r.segs[r.i].id == id {
		if err := r.segs[r.i].retire(); err != nil {
			return err
		}
		r.j.forget(r.segs[r.i])
		r.segs = append(r.segs[:r.i], r.segs[r.i+1:]...)
	}
	seq := max(r.w.seq, 1)
	s, err := r.j.prepare(id, minSegment, seq, r.w.link)
	if err != nil {
		return err
	}
	for _, next := range r.segs[r.i:] {
		if next.healthy() {
			loss.To = Position{next.id, pageSize}
			break
		}
	}
	f := fragment{kind: kindGap, flags: flagToEnd, seq: seq, link: r.w.link, length: uint32(s.size - pageSize - fragHeader)}
	if err := writeHeader(s, pageSize, &f); err != nil {
		return errors.Join(err, s.retire())
	}
	r.j.remember(s)
	r.report(loss)
	r.segs = append(r.segs[:r.i], append([]*segment{s}, r.segs[r.i:]...)...)
	r.w.seqOK = false
	r.enter()
	return nil
}

// finish cuts the log behind its last whole record, makes that durable, and then removes
// what is not part of it.
func (r *replay) finish() error {
	j := r.j
	var keep, drop []*segment
	for _, s := range r.visited {
		if s.id <= r.end.id {
			keep = append(keep, s)
		}
	}
	for i := len(r.segs) - 1; i >= 0; i-- { // newest first, so that a crash leaves no hole
		if s := r.segs[i]; !slices.Contains(keep, s) {
			drop = append(drop, s)
		}
	}
	if r.end.seg == nil {
		s, err := j.prepare(r.end.id, min(j.opts.SegmentSize, firstSegment), r.end.seq, r.end.link)
		if err != nil {
			return err
		}
		// A file of that name, if there was one, has just been replaced.
		for _, old := range drop {
			if old.id == s.id {
				if err := old.retire(); err != nil {
					return errors.Join(err, s.retire())
				}
			}
		}
		drop = slices.DeleteFunc(drop, func(old *segment) bool { return old.id == s.id })
		keep = append(keep, s)
		r.end.seg, r.end.at = s, pageSize
	}
	if err := r.activate(keep); err != nil {
		return err
	}
	if err := j.Sync(); err != nil {
		return err
	}
	if len(drop) == 0 && r.end.at > pageSize {
		return nil
	}
	// The pieces of a torn record, and the seal behind them, may still stand after the
	// end. If the mark that cuts them off were lost with the segments
	// they lead to, the log would look damaged. So the mark must be durable first. So must
	// the head of an empty segment, which says only now with which sequence it begins: it
	// may be where a later Replay starts.
	if err := j.syncMark(); err != nil || len(drop) == 0 {
		return err
	}
	if err := j.recycle(drop, nil); err != nil {
		return j.fail(err)
	}
	return nil
}

// activate hands the end of the log to the writer.
func (r *replay) activate(keep []*segment) error {
	j, s, at := r.j, r.end.seg, r.end.at
	if s.actual < s.size {
		if err := s.file.Allocate(s.size); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
		s.actual = s.size
	}
	seq := max(r.end.seq, 1)
	tail := make([]byte, at-(at-1)&^(pageSize-1), pageSize)
	if at == pageSize {
		clear(tail)
		s.a = head{id: s.id, size: s.size, salt: s.salt(), firstSeq: seq, link: r.end.link}
		s.b = s.a
		s.b.synced = r.synced
		s.aOK, s.bOK = true, true
		s.a.put(tail, 'A')
		s.b.put(tail[slotB:], 'B')
		s.firstSeq.Store(seq)
	} else if err := s.readAt(tail, at-int64(len(tail))); err != nil {
		return err
	}
	if at%pageSize == 0 && at != pageSize {
		tail = tail[:0]
	}
	j.wmu.Lock()
	j.active, j.off, j.seq, j.link, j.tail = s, at, seq, r.end.link, tail
	j.ended = true
	for i, k := range keep {
		last := seq - 1
		if i+1 < len(keep) {
			last = keep[i+1].firstSeq.Load() - 1
		}
		if last > r.synced || k == s {
			j.dirty = append(j.dirty, k)
		}
	}
	s.used.Store(at)
	j.wmu.Unlock()
	r.info.End = Position{s.id, uint32(at)}
	j.mu.Lock()
	j.segments = keep
	j.synced = min(r.synced, seq-1)
	j.recovery = r.info
	j.mu.Unlock()
	return nil
}
