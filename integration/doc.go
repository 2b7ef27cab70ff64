// Package integration is the black-box suite: what an AMQP 0-9-1 client sees of the broker.
//
// Every expectation in it has been proved against RabbitMQ, reply code and reply text
// included, because programs match on them. The suite therefore runs on any broker:
//
//	go test ./integration/                                  builds and starts ./cmd/settmq
//	AMQP_URL=amqp://guest:guest@localhost:5672/ go test ./integration/
//
// With AMQP_URL set the tests that must stop or kill the broker are skipped, unless AMQP_CTL
// names a program that does it: it is run with the argument "start", "stop" or "kill" and
// returns when that has happened. SETTMQ_BINARY and SETTMQ_BUILD_FLAGS (package testbroker)
// choose the SettMQ under test.
//
// There is one file per part of the protocol. A test opens its own connections, gives its
// queues and exchanges names nobody else has, and removes them, so tests run in parallel and
// the suite may run twice at once on the same broker.
//
// # Two clients
//
// Most tests use amqp091-go, as an application would. What a client library hides, such as the
// order of a basic.return and the confirm after it, the bytes of a header table, or a reply
// that must not come, is seen with wireConn, a client of a few hundred lines that owns its
// codec: an error in SettMQ's codec cannot cancel itself out.
//
// # Proving that nothing happens
//
// No test sleeps. "Nothing was delivered" is asked of the broker: what a queue did not hand out
// is counted in its ready messages, a basic.get takes its turn behind the publishes of its
// channel, and on the raw connection the next frame must be the answer to a later method.
//
// # Known differences
//
// SettMQ differs from some versions of RabbitMQ on purpose. The list with the reasons is the
// table in differences_test.go, rendered in README.md; a test asks it what to expect from
// the broker at hand, which is recognised by its server-properties.
//
// # Folders
//
// clients/python and clients/node hold the tutorial programs for pika and amqplib, run by
// clients/run.
package integration
