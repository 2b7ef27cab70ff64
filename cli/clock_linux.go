package cli

import "golang.org/x/sys/unix"

// clockIsSet reports whether something keeps the clock of this machine right.
func clockIsSet() (bool, error) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	return state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0, err
}
