package storage

// reclaimIfNeeded gives back the space of deleted values.
func (s *Store) reclaimIfNeeded(idle bool) error { return nil }
