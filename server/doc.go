// Package server speaks AMQP 0-9-1: listeners, TLS, connections, channels, confirms,
// prefetch, heartbeats.
//
// It owns what is between a socket and the broker: the handshake, the order of frames, the
// state of channels, delivery tags, and which error closes what. It refuses to decide where
// a message goes, who may do what, and what is on disk: package broker does.
//
// # Goroutines and ownership
//
// A connection has two goroutines, the second from when it is needed first. The reader parses what the socket gives in bursts and
// carries it out, channel after channel in the order of the frames; all handlers run on it.
// The writer empties the connection's outbox with one write for whatever is there. A few frames
// for one connection are written by whoever appended them, if the socket takes them without
// waiting: a change of goroutines costs more than such a write. Fields are grouped by owner: "reader" means that only the reader touches them; everything that
// deliveries and confirms need, which come from other goroutines, is under the channel's
// mutex. The order of locks is queue → channel → outbox.
//
// # States of a connection
//
//	protocol header → start-ok → tune-ok → open → running → closing → gone
//
// Before running, only the next expected method is legal, on channel 0, in frames of at
// most the initial frame_max, and within the handshake timeout. Closing means that
// connection.close was sent: everything but close and close-ok is thrown away.
//
// # Back-pressure
//
// A consumer's connection takes deliveries until its outbox is full; then its consumers
// are parked in their queues until the writer has made room. A publisher's reader waits for
// the store's commit budget, and for alarms to clear, with no lock held: its client is
// slowed down by TCP.
package server
