//go:build race

package journal_test

// stride thins out exhaustive tests that have no concurrency in them.
const stride = 16
