package storage

// Stats are counters and gauges of a store.
type Stats struct {
	Queues      int
	Batches     uint64 // journal records written since Open
	Checkpoints uint64
	Reclaims    uint64
	Unwritten   int64 // bytes appended and not yet synced
	// JournalBytes and StateBytes are what the journal and Badger occupy.
	JournalBytes int64
	StateBytes   int64
	// Held says that publishers wait in Reserve for another reason than the commit budget, LowSpace
	// that the reason is the disk.
	Held     bool
	LowSpace bool
}

// Stats returns the store's figures. After Close they are those that need no files.
func (s *Store) Stats() Stats {
	held := s.held.Load()
	st := Stats{
		Batches:     s.batches.Load(),
		Checkpoints: s.checkpoints.Load(),
		Reclaims:    s.reclaims.Load(),
		Unwritten:   s.unwritten.Load(),
		Held:        held != 0,
		LowSpace:    held&(heldNoSpace|heldLowDisk) != 0,
	}
	s.mu.Lock()
	st.Queues = len(s.queues)
	s.mu.Unlock()
	s.readGate.RLock()
	defer s.readGate.RUnlock()
	if !s.filesClosed {
		for _, seg := range s.journal.Segments() {
			st.JournalBytes += seg.Size
		}
		st.StateBytes = int64(s.state.occupied(func(string) bool { return true }))
	}
	return st
}
