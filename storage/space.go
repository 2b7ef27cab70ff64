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

func (s *Store) checkSpaceForOpen() error {
	free, err := freeSpace(s.opts.Dir)
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
	free, err := freeSpace(s.opts.Dir)
	ok := err == nil && free >= s.stateReserve()
	if !ok {
		s.setHeld(heldLowDisk, true)
	}
	return ok
}

// watchSpace holds publishers while there is less than MinFree, and lets them go on when there is
// a little more than that.
func (s *Store) watchSpace() {
	free, err := freeSpace(s.opts.Dir)
	if err == nil {
		if n, err2 := s.journal.Free(); err2 == nil {
			free = min(free, int64(min(n, 1<<62)))
		}
	}
	low := s.held.Load()&heldLowDisk != 0
	limit := max(s.opts.MinFree, s.stateReserve()/2)
	if low {
		limit = max(limit+limit/8, s.stateReserve())
	}
	s.setHeld(heldLowDisk, err != nil || free < limit)
}
