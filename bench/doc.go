// Command bench loads an AMQP 0-9-1 broker and measures what it does and what it costs.
//
//	bench list                           the scenarios
//	bench run -url URL [scenario ...]    run them, a table on stderr, JSON on stdout
//	bench compare -a URL -b URL [...]    two brokers in turn, medians and ratios in Markdown
//	bench report RESULTS ...             what compare -save kept, as the published tables
//	bench probe [-dir DIR]               how fast the disk syncs
//
// A scenario is chosen by name, by the part before the slash, or by a shell pattern, and
// -set changes its fields. README.md tells the method; wire is the client.
//
// # Inside
//
// A run owns an environment (env: broker, process id, durations), a scenario and the
// connections. Publishers and consumers are one goroutine each, on a connection of their own, which
// count in atomics once per read or write and keep their own histograms; the histograms
// are merged when the goroutines have ended. A meter brackets a phase: it reads the broker's /proc before
// and after. The first error of any goroutine ends the run, and becomes Result.Error.
package main
