package storage

import "fmt"

// Badger writes through mappings of sparse files: on a full disk it dies of SIGBUS instead of
// returning an error. So it is never let near one.

// stateReserve is the free space that opening the state database, or a checkpoint, may take
// without asking again: two memtable logs of twice their size, a value log file and tables.
func (s *Store) stateReserve() int64 {
	if s.opts.Small {
		return 40 << 20
	}
	return 192 << 20
}

// cleanTrigger is how many dead bytes make a checkpoint clean up.
func (s *Store) cleanTrigger() int64 {
	if s.opts.Small {
		return 4 << 20
	}
	return 64 << 20
}

// smallDisk is the file system size below which the store uses less of it.
const smallDisk = 4 << 30

// scale lowers the defaults on a small disk. Called before defaults.
func (o *Options) scale() error {
	_, total, err := diskSpace(o.Dir)
	if err != nil {
		return fmt.Errorf("storage: size of the disk of %s: %w", o.Dir, err)
	}
	if total >= smallDisk {
		return nil
	}
	o.Small = true
	if o.JournalSegment == 0 {
		// 128 MiB give segments of 2 MiB.
		o.JournalSegment = min(max(total/64&^(4<<10-1), 256<<10), defaultSegment)
	}
	if o.JournalMax == 0 {
		o.JournalMax = 8 * o.JournalSegment
	}
	return nil
}

func (s *Store) checkSpaceForOpen() error {
	free, _, err := diskSpace(s.opts.Dir)
	if err != nil {
		return fmt.Errorf("storage: free space of %s: %w", s.opts.Dir, err)
	}
	if free < s.stateReserve() {
		return fmt.Errorf("%w: %s has %d MiB, opening needs %d MiB", ErrDiskFull, s.opts.Dir, free>>20, s.stateReserve()>>20)
	}
	return nil
}

// spaceForCheckpoint reports whether Badger may be written to.
func (s *Store) spaceForCheckpoint() bool {
	free, _, err := diskSpace(s.opts.Dir)
	ok := err == nil && free >= s.stateReserve()
	if !ok {
		s.setHeld(heldLowDisk, true)
	}
	return ok
}

// watchSpace holds publishers while there is little space, and lets them go on when there is
// somewhat more again. They are held early enough for a checkpoint to find room: only it gives
// journal segments back.
func (s *Store) watchSpace() {
	free, _, err := diskSpace(s.opts.Dir)
	if err == nil {
		if n, err2 := s.journal.Free(); err2 == nil {
			free = min(free, int64(min(n, 1<<62)))
		}
	}
	limit := max(s.opts.MinFree, s.stateReserve()+2*s.opts.JournalSegment)
	if s.held.Load()&heldLowDisk != 0 {
		limit += limit / 16
	}
	s.setHeld(heldLowDisk, err != nil || free < limit)
}

// shortOfSpace reports whether publishers are held for want of disk space.
func (s *Store) shortOfSpace() bool { return s.held.Load()&(heldLowDisk|heldNoSpace) != 0 }
