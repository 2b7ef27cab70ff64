//go:build !linux

package storage

import (
	"math"
	"os"
)

// datasync makes a file's contents durable.
func datasync(f *os.File) error { return f.Sync() }

// freeSpace is not known here.
func freeSpace(string) (int64, error) { return math.MaxInt64, nil }

// diskSize is not known here.
func diskSize(string) (uint64, error) { return math.MaxInt64, nil }
