// Package cli is the command line of SettMQ, but for the broker itself.
//
// It talks to a broker as any client does, over AMQP (pub, get, sub) and the management API, and never opens
// the broker's data. Every command says what went wrong in one line on standard error and ends with one of the
// exit codes below; results alone go to standard output.
//
// Root makes the tree of commands, Execute runs a command line. cmd/settmq adds what needs the broker's code:
// serve, recover, config, version.
package cli
