//go:build !unix

package metrics

func fileLimit() uint64 { return 0 }
