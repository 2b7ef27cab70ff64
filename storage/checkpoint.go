package storage

// checkpointer moves the oldest part of the journal into Badger.
func (s *Store) checkpointer() {
	defer close(s.checkpointDone)
	<-s.stop
}
