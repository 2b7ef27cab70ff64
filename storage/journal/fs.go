package journal

import (
	"errors"
	"fmt"
	"io"
)

// FS is the file system as the journal needs it. OS is the real one; package faultfs
// has one in memory that fails, tears and forgets on command. Names are paths; the
// journal only ever uses names inside Options.Dir. Implementations are safe for use by
// several goroutines.
type FS interface {
	// OpenFile opens a file for reading and writing. With create it is made, and must
	// not exist before (fs.ErrExist); without, it must exist (fs.ErrNotExist).
	OpenFile(name string, create bool) (File, error)
	// Rename gives a file a new name, replacing what had it.
	Rename(from, to string) error
	// Remove deletes a file.
	Remove(name string) error
	// ReadDir lists the names (not paths) in a directory, in any order.
	ReadDir(dir string) ([]string, error)
	// MkdirAll makes a directory and its parents; one that exists is no error.
	MkdirAll(dir string) error
	// SyncDir makes creations, renames and removals in a directory durable.
	SyncDir(dir string) error
	// Free returns the bytes an unprivileged process may still allocate in the file
	// system that holds dir.
	Free(dir string) (uint64, error)
}

// File is one open file. ReadAt may be called while another goroutine writes.
type File interface {
	io.ReaderAt
	io.WriterAt
	// WritevAt writes the buffers one after the other from offset off on, if possible
	// with one call to the kernel. Anything short of everything is an error.
	WritevAt(buffers [][]byte, off int64) error
	// Sync makes the contents durable (fdatasync where there is one). After an error
	// nothing may be assumed about writes since the last good Sync, not even that a
	// second Sync would try them again.
	Sync() error
	// Allocate makes the file size bytes long and reserves all of them, so that writes
	// below size cannot run out of space. The new part reads as zeros. When the file
	// system can give the length but no reservation the error wraps
	// errors.ErrUnsupported, and only writing every byte reserves it.
	Allocate(size int64) error
	// Size returns the length in bytes.
	Size() (int64, error)
	Close() error
}

var (
	// ErrNoSpace reports that a new segment found no room on the disk. Nothing of the
	// record was written and the same Append may be tried again later.
	ErrNoSpace = errors.New("journal: no space left for a new segment")
	// ErrClosed is returned by every call after Close.
	ErrClosed = errors.New("journal: closed")
	// ErrNotReplayed is returned by calls that need the end of the log before Replay
	// has found it.
	ErrNotReplayed = errors.New("journal: Replay must come first")
	// ErrReleased reports a read from a segment that is not part of the log: it was
	// released, or never existed.
	ErrReleased = errors.New("journal: no such segment")
	// ErrNewerFormat reports a segment written by a later version of this package.
	ErrNewerFormat = errors.New("journal: written by a newer version")
)

// CorruptError reports bytes that were durable once and are damaged now. It is never
// used for the torn end that a crash leaves.
type CorruptError struct {
	File   string // path of the segment
	Offset int64  // where in it, in bytes
	What   string // what is wrong there
	Err    error  // the failed read, if one is behind it
}

func (e *CorruptError) Error() string {
	s := fmt.Sprintf("journal: %s is damaged at byte %d: %s", e.File, e.Offset, e.What)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the I/O error behind the damage, or nil.
func (e *CorruptError) Unwrap() error { return e.Err }

// Loss is one stretch of the log that AcceptLoss gave up.
type Loss struct {
	File string   // path of the segment where it begins
	From Position // first byte that is lost
	To   Position // where valid records go on; zero when nothing follows
	What string   // what was found at From
}
