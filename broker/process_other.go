//go:build !unix

package broker

func fileLimit() uint64 { return 0 }

// ContextSwitches are not known here.
func ContextSwitches() uint64 { return 0 }
