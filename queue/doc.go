// Package queue is the live queue: the pure machine of queue/fifo behind one mutex, with
// its storage on one side and its consumers' connections on the other.
//
// A [Queue] owns the order of its messages and who holds which of them. It refuses to know
// exchanges, permissions, frames and delivery tags: publishers hand it messages, a
// connection's channel is a [Sink] that turns deliveries into frames, and the vhost hears
// through [Options.OnUnused] when an auto-delete queue lost its last consumer.
//
// # Locks
//
// Every exported method takes the queue's mutex; none is called with it held. Under it the
// queue calls the machine, the store's append and settle (which never touch the disk) and
// the sink's Admit and Deliver (which take the channel's and the outbox's lock and never
// block). The order is queue → channel → outbox and queue → store. Whatever may enter
// another queue or the topology (cancel notices, auto-delete) runs after the unlock.
//
// # Deliveries
//
// Deliveries are pulled: whoever makes one possible (a publish, an ack, a consumer, room in
// an outbox, a page read back) pumps the machine until nothing can move. There is no
// goroutine per queue. Connections that got frames are collected in a [Wakes] and woken by
// the caller once it has done its whole burst.
//
// # Paging
//
// Bodies of stored messages may be dropped from memory ([Queue.PageOut]); the machine says
// when the head of the queue needs them again and a [Pager] reads them without any lock.
//
// # What the durable delivery limit is for
//
// A message must never reach a client twice with redelivered=false, also across a power
// cut. The store keeps a watermark on disk; the queue hands out a durable queue's messages
// only below it and asks for a higher one, well ahead, while it delivers. After an unclean
// start everything below the watermark is flagged redelivered.
package queue
