package storage

import (
	"errors"
	"fmt"
)

var (
	// ErrLocked is returned by Open when another process has the directory open.
	ErrLocked = errors.New("storage: directory is in use by another process")
	// ErrNewerFormat is returned by Open when the directory was written by a newer version.
	ErrNewerFormat = errors.New("storage: directory has a newer format")
	// ErrClosed is returned once Close has been called.
	ErrClosed = errors.New("storage: store is closed")
	// ErrDiskFull is returned by Open when there is not enough free space to open safely, and by
	// Close when the last batch could not be written for want of space.
	ErrDiskFull = errors.New("storage: not enough free disk space")
	// ErrNoQueue is returned by reads of a queue that was deleted.
	ErrNoQueue = errors.New("storage: no such queue")
)

// CorruptError says that stored bytes are not what was written. Open and Read return it, wrapped
// or bare; find it with errors.As. Opening again with Options.AcceptLoss drops exactly what
// cannot be read and reports it.
type CorruptError struct {
	Where string // file, key or position
	What  string // what is wrong with it
	Queue uint64 // the queue concerned, 0 if unknown or none
	Seq   uint64 // the message concerned, meaningful only with Queue
	Err   error  // cause, may be nil
}

// Error names the place and the damage in one line.
func (e *CorruptError) Error() string {
	s := fmt.Sprintf("storage: corrupt data in %s: %s", e.Where, e.What)
	if e.Queue != 0 {
		s += fmt.Sprintf(" (queue %d, message %d)", e.Queue, e.Seq)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap gives the cause.
func (e *CorruptError) Unwrap() error { return e.Err }

// failure is the store's cause of death.
type failure struct{ err error }

// FailedError is returned by every operation after the store has died of a write or sync error.
type FailedError struct{ Err error }

// Error says what killed the store.
func (e *FailedError) Error() string { return "storage: store has failed: " + e.Err.Error() }

// Unwrap gives the error that killed the store.
func (e *FailedError) Unwrap() error { return e.Err }
