//go:build race

package exchange

// Under the race detector sync.Pool drops objects at random, so allocations mean nothing.
func init() { raceEnabled = true }
