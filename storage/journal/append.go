package journal

import "hash/crc32"

const (
	// copyBelow is the size under which a buffer is copied into the scratch instead of
	// being handed to the kernel by reference.
	copyBelow = 32 << 10
	// flushAt bounds what is gathered for one write of a very large record.
	flushAt = 8 << 20
	// keepScratch bounds the scratch kept between calls.
	keepScratch = 4 << 20
)

// run gathers one write: whole pages, starting with what the first page holds already.
type run struct {
	base    int64    // offset in the file, a multiple of pageSize
	n       int64    // bytes gathered
	scratch []byte   // small pieces
	open    int      // start of the piece in scratch that is not in vec yet
	vec     [][]byte // finished pieces
	pieces  [][]byte // payload of the fragment in the making
}

func (r *run) reset(base int64) {
	if cap(r.scratch) > keepScratch {
		r.scratch = nil
	}
	clear(r.vec)
	clear(r.pieces)
	r.base, r.n, r.open = base, 0, 0
	r.scratch, r.vec, r.pieces = r.scratch[:0], r.vec[:0], r.pieces[:0]
}

// forget drops the references to the caller's buffers.
func (r *run) forget() {
	clear(r.vec)
	clear(r.pieces[:cap(r.pieces)])
}

func (r *run) add(b []byte) {
	r.n += int64(len(b))
	if len(b) < copyBelow {
		r.scratch = append(r.scratch, b...)
		return
	}
	r.cut()
	r.vec = append(r.vec, b)
}

// reserve returns n bytes to be filled in at once.
func (r *run) reserve(n int) []byte {
	r.n += int64(n)
	at := len(r.scratch)
	r.scratch = append(r.scratch, zeros[:n]...)
	return r.scratch[at:]
}

// cut finishes the piece in the scratch. Should the scratch move later, the piece stays
// valid.
func (r *run) cut() {
	if r.open < len(r.scratch) {
		r.vec = append(r.vec, r.scratch[r.open:len(r.scratch):len(r.scratch)])
		r.open = len(r.scratch)
	}
}

// last appends the last n bytes gathered to dst.
func (r *run) last(dst []byte, n int64) []byte {
	skip := r.n - n
	for _, b := range r.vec {
		if skip >= int64(len(b)) {
			skip -= int64(len(b))
			continue
		}
		dst = append(dst, b[skip:]...)
		skip = 0
	}
	return dst
}

// Append writes one record behind the log and returns where it starts. The buffers are the
// record's pieces in order; they are not changed, and not used after the call. A record
// may be of any size, even empty; it is stored in fragments of up to 1 MiB and may go on
// in the next segment. Nothing is durable before the next Sync. One goroutine at a time.
//
// ErrNoSpace means that nothing was written and the journal is as before. Any other
// error is final.
func (j *Journal) Append(buffers [][]byte) (Position, error) {
	j.wmu.Lock()
	defer j.wmu.Unlock()
	if err := j.usable(); err != nil {
		return Position{}, err
	}
	if !j.ended {
		return Position{}, ErrNotReplayed
	}
	var left int64
	for _, b := range buffers {
		left += int64(len(b))
	}
	if err := j.reserveLocked(left); err != nil {
		return Position{}, err
	}
	src := source{rest: buffers}
	j.startRun()
	var pos Position
	for first := true; first || left > 0; {
		n, ok := place(j.off, j.active.size, left)
		if !ok {
			if err := j.sealLocked(); err != nil {
				return Position{}, j.fail(err)
			}
			continue
		}
		if first {
			pos = Position{j.active.id, uint32(j.off)}
		}
		left -= n
		j.fragmentLocked(&src, n, kindOf(first, left == 0))
		first = false
		if j.run.n >= flushAt && left > 0 {
			if err := j.flushLocked(); err != nil {
				return Position{}, j.fail(err)
			}
			j.startRun()
		}
	}
	if err := j.flushLocked(); err != nil {
		return Position{}, j.fail(err)
	}
	j.run.forget()
	j.lookAheadLocked()
	return pos, nil
}

func kindOf(first, last bool) uint8 {
	switch {
	case first && last:
		return kindFull
	case first:
		return kindFirst
	case last:
		return kindLast
	}
	return kindMiddle
}

// source hands out a record's bytes piece by piece.
type source struct {
	rest [][]byte
	used int // of rest[0]
}

func (s *source) take(dst [][]byte, n int64) [][]byte {
	for n > 0 {
		b := s.rest[0][s.used:]
		if int64(len(b)) > n {
			b = b[:n]
			s.used += len(b)
		} else {
			s.rest, s.used = s.rest[1:], 0
		}
		if len(b) > 0 {
			dst = append(dst, b)
			n -= int64(len(b))
		}
	}
	return dst
}

// reserveLocked makes sure that all segments the record needs are ready, so that it is
// written whole or not at all.
func (j *Journal) reserveLocked(left int64) error {
	for {
		j.mu.Lock()
		need := 0
		size, off, rest := j.active.size, j.off, left
		for {
			n, ok := place(off, size, rest)
			if !ok {
				if need++; need > len(j.ready) {
					break
				}
				size, off = j.ready[need-1].size, pageSize
				continue
			}
			off += align8(fragHeader + n)
			if rest -= n; rest == 0 {
				break
			}
		}
		enough := need <= len(j.ready)
		j.mu.Unlock()
		if enough {
			return nil
		}
		if err := j.waitReady(need); err != nil {
			return err
		}
	}
}

func (j *Journal) startRun() {
	j.run.reset(j.off - int64(len(j.tail)))
	j.run.add(j.tail)
}

// nextFragment fills in what every fragment has.
func (j *Journal) nextFragment(kind uint8) fragment {
	j.mu.Lock()
	synced := j.synced
	j.mu.Unlock()
	return fragment{kind: kind, flags: j.flags, epoch: j.epoch, seq: j.seq, synced: synced, link: j.link}
}

func (j *Journal) fragmentLocked(src *source, n int64, kind uint8) {
	f := j.nextFragment(kind)
	j.run.pieces = src.take(j.run.pieces[:0], n)
	f.length, f.sum = uint32(n), j.active.seed
	for _, b := range j.run.pieces {
		f.sum = crc32.Update(f.sum, castagnoli, b)
	}
	f.put(j.run.reserve(fragHeader), j.active)
	for _, b := range j.run.pieces {
		j.run.add(b)
	}
	j.run.reserve(int(f.span() - fragHeader - n))
	j.advance(&f)
}

func (j *Journal) advance(f *fragment) {
	j.off += f.span()
	j.seq++
	j.link = f.ownLink
	j.flags = 0
}

// sealLocked ends the active segment and turns to the next one, which must be ready.
func (j *Journal) sealLocked() error {
	f := j.nextFragment(kindSeal)
	f.put(j.run.reserve(fragHeader), j.active)
	j.advance(&f)
	if err := j.flushLocked(); err != nil {
		return err
	}
	j.mu.Lock()
	next := j.ready[0]
	j.ready = j.ready[1:]
	j.wantReady = 0
	j.segments = append(j.segments, next)
	synced := j.synced
	j.mu.Unlock()
	next.firstSeq.Store(j.seq)
	next.b = head{id: next.id, size: next.size, salt: next.a.salt, firstSeq: j.seq, synced: synced, link: j.link}
	next.bOK = true
	j.active, j.off = next, pageSize
	j.tail = j.tail[:pageSize]
	clear(j.tail)
	next.a.put(j.tail, 'A')
	next.b.put(j.tail[slotB:], 'B')
	j.startRun()
	return nil
}

// flushLocked writes what was gathered, padded with zeros to a whole page. Whole pages
// spare the kernel from reading a recycled segment, and the zeros end the log for a reader.
func (j *Journal) flushLocked() error {
	end := j.run.n
	j.run.reserve(int(-end & (pageSize - 1)))
	j.run.cut()
	if err := j.active.file.WritevAt(j.run.vec, j.run.base); err != nil {
		return err
	}
	pad := j.run.n - end
	j.tail = j.tail[:0]
	if pad > 0 {
		j.tail = j.run.last(j.tail, pageSize)
		j.tail = j.tail[:pageSize-pad]
	}
	j.active.used.Store(j.off)
	if len(j.dirty) == 0 || j.dirty[len(j.dirty)-1] != j.active {
		j.dirty = append(j.dirty, j.active)
	}
	return nil
}

// lookAheadLocked has the next segment prepared once a quarter of the active is used.
func (j *Journal) lookAheadLocked() {
	if j.off < j.active.size/4 {
		return
	}
	j.mu.Lock()
	if j.wantReady == 0 && len(j.ready) == 0 && j.noSpace == nil {
		j.wantReady = 1
		j.cond.Broadcast()
	}
	j.mu.Unlock()
}

// Sync makes everything appended before the call durable. It may run while another
// goroutine appends: records appended meanwhile are not covered. Calls queue up behind
// one another. The first error is final: a second fdatasync would lie.
func (j *Journal) Sync() error {
	j.syncMu.Lock()
	defer j.syncMu.Unlock()
	j.wmu.Lock()
	if err := j.usable(); err != nil {
		j.wmu.Unlock()
		return err
	}
	dirty, upTo := j.dirty, j.seq-1
	j.dirty = nil
	j.wmu.Unlock()
	if len(dirty) == 0 {
		return nil
	}
	for _, s := range dirty {
		if err := s.file.Sync(); err != nil {
			return j.fail(err)
		}
	}
	j.wmu.Lock()
	defer j.wmu.Unlock()
	j.mu.Lock()
	j.synced = upTo
	j.mu.Unlock()
	if err := j.markLocked(); err != nil {
		return j.fail(err)
	}
	return nil
}

// markLocked writes a mark behind the last record, without syncing it. The next Append
// overwrites it.
func (j *Journal) markLocked() error {
	f := j.nextFragment(kindMark)
	j.startRun()
	f.put(j.run.reserve(fragHeader), j.active)
	j.run.reserve(int(-j.run.n & (pageSize - 1)))
	j.run.cut()
	return j.active.file.WritevAt(j.run.vec, j.run.base)
}

// syncMark makes the mark durable.
func (j *Journal) syncMark() error {
	j.wmu.Lock()
	defer j.wmu.Unlock()
	if err := j.active.file.Sync(); err != nil {
		return j.fail(err)
	}
	return nil
}
