// Package testbroker runs a real settmq process for tests.
//
// Black-box tests need a broker that they may stop, kill and start again on the same port
// and the same data directory. This package builds ./cmd/settmq once per test process, writes
// a configuration for a temporary directory and a free port, starts the child and waits until
// it answers an AMQP protocol header:
//
//	func TestMain(m *testing.M) { testbroker.Main(m) }
//
//	b := testbroker.Start(t, testbroker.Options{})
//	conn, err := amqp.Dial(b.URL())
//	...
//	b.Kill()            // SIGKILL, as a crash
//	took, err := b.Restart()
//
// Start is for tests: it fails the test and cleans up by itself. Launch is for programs.
// The child never outlives the process that started it, however that one ends (on Linux).
//
// Environment:
//
//	AMQP_URL            tests that only need some broker use that one instead (see External)
//	SETTMQ_BINARY       a settmq that is already built: nothing is compiled
//	SETTMQ_BUILD_FLAGS  flags for go build, separated by spaces, for instance "-race"
//
// The package knows nothing about AMQP beyond the eight bytes of the protocol header, and
// nothing about what a test wants to prove.
package testbroker
