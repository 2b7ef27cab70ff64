//go:build !unix

package management

// fileDescriptors is not known here.
func fileDescriptors() (open, limit uint64) { return 0, 0 }

// contextSwitches are not known here.
func contextSwitches() uint64 { return 0 }
