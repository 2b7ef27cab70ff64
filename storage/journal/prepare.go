package journal

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
)

const (
	// fillChunk is zero-filled and synced at a time, so that filling a segment does not
	// hold up the committer's sync for longer than this takes.
	fillChunk = 4 << 20
	fillWrite = 1 << 20
)

var zeros [fillWrite]byte

// keeper is the background goroutine: it makes segments ready before they are needed
// and takes released ones out of the log. It holds no lock while it touches the disk.
func (j *Journal) keeper() {
	defer close(j.keeperDone)
	j.mu.Lock()
	defer j.mu.Unlock()
	for {
		switch {
		case len(j.retired) > 0:
			batch, failed := j.retired, j.err
			j.retired = nil
			j.mu.Unlock()
			err := j.recycle(batch, failed)
			j.mu.Lock()
			if err != nil {
				j.failLocked(err)
			}
		case j.closing:
			return
		case j.wantReady > len(j.ready) && j.err == nil:
			id, size := j.nextSegmentLocked()
			j.mu.Unlock()
			s, err := j.prepare(id, size, 0, 0)
			j.mu.Lock()
			j.preparedLocked(s, err)
		default:
			j.idle = true
			j.cond.Broadcast()
			j.cond.Wait()
			j.idle = false
		}
	}
}

// nextSegmentLocked chooses id and size of the segment to prepare. Sizes double from
// firstSegment up to Options.SegmentSize: a broker that stores little uses little disk.
func (j *Journal) nextSegmentLocked() (id uint64, size int64) {
	last := j.segments[len(j.segments)-1]
	if n := len(j.ready); n > 0 {
		last = j.ready[n-1]
	}
	return last.id + 1, min(j.opts.SegmentSize, max(2*last.size, firstSegment))
}

func (j *Journal) preparedLocked(s *segment, err error) {
	switch {
	case err == nil:
		j.ready = append(j.ready, s)
	case errors.Is(err, ErrNoSpace):
		// Told to the Append that waits, if one does; the next one tries again.
		j.noSpace = err
		j.wantReady = 0
	default:
		j.failLocked(err)
	}
	j.cond.Broadcast()
}

// waitReady blocks until n segments are ready.
func (j *Journal) waitReady(n int) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.noSpace = nil
	j.hurry.Store(true)
	defer j.hurry.Store(false)
	for len(j.ready) < n {
		switch {
		case j.err != nil:
			return j.err
		case j.closing:
			return ErrClosed
		case j.noSpace != nil:
			return j.noSpace
		}
		j.wantReady = max(j.wantReady, n)
		j.cond.Broadcast()
		j.cond.Wait()
	}
	return nil
}

// prepare makes a segment that can be written to: named, durable, without a record. A
// spare of the right size is taken if there is one, otherwise a file is reserved
// and filled with zeros; once an Append waits, filling stops where the file system has
// reserved the blocks (the first writes into the rest are slower, that is all).
// firstSeq and link are given only when they are known. A file that has the name already
// is replaced.
func (j *Journal) prepare(id uint64, size int64, firstSeq uint64, link uint32) (s *segment, err error) {
	var f File
	var temp string
	defer func() {
		if err == nil {
			return
		}
		if f != nil {
			err = errors.Join(err, f.Close(), removeIfThere(j.opts.FS, temp))
		}
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			err = fmt.Errorf("%w: %w", ErrNoSpace, err)
		}
	}()
	if temp = j.takeSpare(size); temp != "" {
		if f, err = j.opts.FS.OpenFile(temp, false); err != nil {
			return nil, err
		}
	} else {
		temp = filepath.Join(j.opts.Dir, freshName(id))
		if f, err = j.opts.FS.OpenFile(temp, true); err != nil {
			return nil, err
		}
		if err = j.fill(f, size); err != nil {
			return nil, err
		}
	}
	s = &segment{path: filepath.Join(j.opts.Dir, segName(id)), file: f, actual: size, aOK: true}
	s.a = head{id: id, size: size, salt: newSalt(), firstSeq: firstSeq, link: link}
	s.adopt(&s.a)
	s.firstSeq.Store(firstSeq)
	s.used.Store(pageSize)
	page := make([]byte, pageSize)
	s.a.put(page, 'A')
	if err = f.WritevAt([][]byte{page}, 0); err != nil {
		return nil, err
	}
	// Content first, then the name: a file called *.seg always has a durable head.
	if err = f.Sync(); err != nil {
		return nil, err
	}
	if err = j.opts.FS.Rename(temp, s.path); err != nil {
		return nil, err
	}
	temp = s.path
	if err = j.opts.FS.SyncDir(j.opts.Dir); err != nil {
		return nil, err
	}
	return s, nil
}

// fill reserves size bytes and writes zeros over them.
func (j *Journal) fill(f File, size int64) error {
	reserved := true
	if err := f.Allocate(size); errors.Is(err, errors.ErrUnsupported) {
		reserved = false
	} else if err != nil {
		return err
	}
	for off := int64(0); off < size; {
		end := min(off+fillChunk, size)
		for off < end {
			if reserved && (j.hurry.Load() || j.stopFill.Load()) {
				return nil
			}
			n := min(end-off, fillWrite)
			if _, err := f.WriteAt(zeros[:n], off); err != nil {
				return err
			}
			off += n
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
	return nil
}

// recycle takes released segments out of the log, oldest first: to the spares while
// there is room, else off the disk. Behind a failure, also an earlier one, files are only
// closed: the log must not lose a segment while an older one is still in it.
func (j *Journal) recycle(batch []*segment, failed error) error {
	err := failed
	for _, s := range batch {
		err = errors.Join(err, s.retire())
		if err == nil {
			err = j.takeOut(s)
		}
	}
	if err != nil {
		return err
	}
	return j.opts.FS.SyncDir(j.opts.Dir)
}

// takeOut makes a closed segment a spare or removes it.
func (j *Journal) takeOut(s *segment) error {
	j.mu.Lock()
	keep := s.actual == j.opts.SegmentSize && len(j.spares) < j.opts.Spares
	j.mu.Unlock()
	if !keep {
		return j.opts.FS.Remove(s.path)
	}
	spare := filepath.Join(j.opts.Dir, spareName())
	if err := j.opts.FS.Rename(s.path, spare); err != nil {
		return err
	}
	j.mu.Lock()
	j.spares = append(j.spares, spare)
	j.mu.Unlock()
	return nil
}

func (j *Journal) takeSpare(size int64) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	if size != j.opts.SegmentSize || len(j.spares) == 0 {
		return ""
	}
	spare := j.spares[len(j.spares)-1]
	j.spares = j.spares[:len(j.spares)-1]
	return spare
}

// newSalt is never the same twice, and neither half is zero.
func newSalt() uint64 {
	for {
		var b [8]byte
		rand.Read(b[:]) // never fails
		salt := binary.LittleEndian.Uint64(b[:])
		if uint32(salt) != 0 && salt>>32 != 0 {
			return salt
		}
	}
}
