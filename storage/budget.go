package storage

import (
	"errors"
	"os"
	"path/filepath"
)

// TryReserve is Reserve for a caller that has something to do before it waits: true if the
// publisher may append n bytes now.
func (s *Store) TryReserve(n int) bool { return s.held.Load() == 0 && s.roomFor(n) }

// Charge adds n to the bytes that wait for the disk, for a log beside the journal; n < 0 takes them back.
func (s *Store) Charge(n int64) {
	if n >= 0 {
		s.unwritten.Add(n)
	} else {
		s.release(-n)
	}
}

// HoldForSpace holds publishers, as [Store.Reserve] does, while a log beside the journal finds no room on the disk.
func (s *Store) HoldForSpace(on bool) { s.setHeld(heldLog, on) }

// Fail ends the store because a log beside the journal could not be written or synced.
func (s *Store) Fail(err error) { s.fail(err) }

// RefusePublishers makes Reserve return ErrClosed from now on, also to those who wait in it: the
// broker is stopping. Everything appended before is still stored.
func (s *Store) RefusePublishers() { s.setHeld(heldDead, true) }

// FreeSpace returns the bytes that are free on the file system of the directory.
func (s *Store) FreeSpace() (uint64, error) {
	free, _, err := diskSpace(s.opts.Dir)
	return uint64(max(free, 0)), err
}

// DiskSize returns the size of the file system that holds dir, or its nearest parent that
// exists.
func DiskSize(dir string) (uint64, error) {
	for {
		_, total, err := diskSpace(dir)
		if !errors.Is(err, os.ErrNotExist) || filepath.Dir(dir) == dir {
			return uint64(max(total, 0)), err
		}
		dir = filepath.Dir(dir)
	}
}
