//go:build !race

package server

// raceEnabled: see the other file.
const raceEnabled = false
