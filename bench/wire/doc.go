// Package wire is the client side of AMQP 0-9-1 for a load generator that must cost less
// than the broker it measures.
//
// What it does not do is the point: there is no goroutine of its own, no channel, no
// heartbeat, no reconnection, no TLS, and no copy of a message. Publishes are encoded
// once, before the clock runs, and written many at a time (Batch); deliveries and
// confirms are taken out of the read buffer one by one (Conn.Next) after a single read
// filled it. Sockets in blocking mode were tried instead of Go's poller and cost as much or more: the
// runtime watches threads that wait in the kernel, and hands their work over each time.
//
// A Conn may be written by one goroutine and read by another; Close may be called from any.
// Open, Call and Server are for the time before that, while one goroutine owns it.
// Content is only followed on one channel of a connection at a time; that is enough for
// a generator, which opens more connections instead.
package wire
