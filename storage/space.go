package storage

import "fmt"

// Badger writes through mappings of sparse files: on a full disk it dies of SIGBUS instead of
// returning an error. So it is never let near one.

// stateReserve is the free space that Badger may take for itself whatever it is asked to write: a
// memtable's log, its table, and some more.
func (s *Store) stateReserve() int64 {
	if s.opts.Small {
		return 16 << 20
	}
	return 64 << 20
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
	if o.CommitBudget == 0 {
		o.CommitBudget = min(max(total/32, 1<<20), defaultBudget)
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

// spaceForCheckpoint returns up to which segment, at most upTo, a checkpoint may go: everything in
// the segments may be alive and need as much room in Badger before they are given back.
func (s *Store) spaceForCheckpoint(upTo uint64) (limited uint64, ok bool) {
	free, _, err := diskSpace(s.opts.Dir)
	oldest := s.oldest.Load()
	spare := free - s.stateReserve()
	if upTo > oldest {
		spare -= s.largest.Load() // it may reach far beyond its first segment
	}
	if err != nil || spare < 0 {
		s.setHeld(heldLowDisk, true)
		return oldest, false
	}
	limited = min(upTo, oldest+uint64(spare/s.opts.JournalSegment))
	// Publishers must leave that much alone meanwhile.
	s.allotted.Store(int64(limited-oldest) * s.opts.JournalSegment)
	return limited, true
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
	free -= s.allotted.Load()
	// What was reserved already is still to be written, and segments are prepared ahead.
	limit := max(s.opts.MinFree, s.stateReserve()+s.opts.CommitBudget+6*s.opts.JournalSegment)
	if s.held.Load()&heldLowDisk != 0 {
		limit += limit / 16
	}
	s.setHeld(heldLowDisk, err != nil || free < limit)
}

// shortOfSpace reports whether publishers are held for want of disk space.
func (s *Store) shortOfSpace() bool { return s.held.Load()&(heldLowDisk|heldNoSpace|heldLog) != 0 }
