//go:build !linux

package testbroker

import (
	"errors"
	"syscall"
)

func sysProcAttr() *syscall.SysProcAttr { return nil }

// Memory is what the kernel says about the child's resident memory, in bytes.
type Memory struct {
	RSS  uint64 // now
	Peak uint64 // highest since the start or the last ResetPeak
}

// Memory is measured on Linux only.
func (b *Broker) Memory() (Memory, error) { return Memory{}, errors.ErrUnsupported }

// ResetPeak is supported on Linux only.
func (b *Broker) ResetPeak() error { return errors.ErrUnsupported }

// OpenFiles is counted on Linux only.
func (b *Broker) OpenFiles() (int, error) { return 0, errors.ErrUnsupported }
