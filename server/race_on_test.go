//go:build race

package server

// raceEnabled: the race detector allocates, and makes pools forget.
const raceEnabled = true
