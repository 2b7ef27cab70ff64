// Package fifo is the queue as a pure state machine.
//
// It decides which message goes to which consumer, and which payloads can be spared when memory is short. It does not
// know sockets, storage, goroutines, locks or the time of day: callers push messages in with Enqueue, pull deliveries
// out with Next and Get, settle them with Ack and Requeue, and carry payloads to and from the store. Equal calls give
// equal results, so a queue can be replayed from a log, checked against a model, and replicated. A [Machine] has no
// lock: one goroutine at a time may call it, and nothing that is passed to it may call it back.
//
// # Messages
//
// A message is a payload (a handle that is never looked into), a size in body bytes, and a seq: dense, ascending, given
// by Enqueue and never used again. The seq is the position in the queue, and the name under which everything else
// happens.
//
//	       Enqueue
//	          v            Next, Get
//	Purge <- ready -----------------------> outstanding -> Ack
//	          ^    no-ack: gone at once        |
//	          +-------------- Requeue ---------+
//
// Ready messages go out in the order of their seqs. A requeued one stands at its original position again, so it goes
// out before everything that never was handed out. It is redelivered then: Delivery.Redelivered is set for every
// message that was handed out before, by this machine or, as the store says, before a restart.
//
// Ready counts and ReadyBytes include messages that are not in memory. Outstanding messages belong to a consumer, or to
// nobody (consumer 0) if they were taken by Get.
//
// # Consumers
//
// A consumer can take a message if it is subscribed, not parked, and has credit: it holds fewer messages than its
// prefetch, or its prefetch is 0, or it takes without acknowledgement. Consumers that can are the only ones in the service order:
//
//   - The highest priority that has such a consumer is served.
//   - Among equals the one that waited longest is served, and goes to the end of the order.
//   - A consumer that could not take a message and now can joins at the end, whatever the reason.
//
// So consumers of unequal speed all get as much as they settle, and blocked ones cost nothing, however many there are.
//
// The machine knows nothing of outboxes and of limits that span consumers. It asks the [Admitter] right before a
// delivery; a refused consumer is parked, and stays out of the order until Unpark tells that asking is worthwhile. A
// caller that has to unpark more often than needed loses only time; one that forgets to starves the consumer.
//
// An unsubscribed consumer gets nothing more. What it holds stays outstanding until it is settled or requeued: to
// return what a closing channel holds, requeue each seq. An exclusive consumer is alone: see [ErrExclusive].
//
// # Paging
//
// Payloads of messages that the store has can be dropped. Ready messages, in seq order, are then
//
//	head | cold | tail
//
// where head and tail are in memory and the cold range is not: it is an interval of seqs with a count and a sum of
// bytes, whatever its length. Ten million waiting messages need memory for the head window only.
//
//   - PageOut moves messages behind the head window into the cold range; ReleaseUnacked drops payloads of outstanding
//     messages, which keep their descriptor of 24 bytes and, once requeued, are ready but not in memory.
//   - Next and Get stop at a message that is not in memory. NeedsLoad says, ahead of time, from which seq on the store
//     should be read; Loaded brings what was read. One load is in flight at a time. Everything else may happen
//     meanwhile: the load is matched with the state at its end.
//   - Restore begins a life with everything cold.
//
// The store must keep a message readable from the moment it answers true for it (the stored argument of PageOut and
// ReleaseUnacked) until the message is acknowledged, purged, or delivered without acknowledgement. A message that
// cannot be stored is never dropped, and stops the growth of the cold range until it is consumed.
//
// # Invariants
//
//   - A message is in exactly one of head, cold range, tail, and outstanding; seqs ascend in each, and from one to the
//     next of the first three.
//   - The tail has messages only while there is a cold range.
//   - Everything outstanding lies below HandedOut. The cold range and the tail lie at or above it: no outstanding
//     message is inside the cold range, and what the store finds there is ready.
//   - A consumer is in the service order if and only if it can take a message.
//   - Counts and byte sums are exact, except that those of a restored cold range are the caller's until it is read.
//
// # Cost
//
// Enqueue, Next, Get, and Ack in any order cost 50 to 100 ns and allocate nothing in steady state. With many messages
// Ack and Requeue are a binary search and a move within a block of 64 messages, so that 100 000 requeued in random
// order take some 30 ms. Consumers are picked in O(1); leaving and joining the order is a binary search among the
// priorities in use. No call copies a whole queue, and an emptied queue keeps less than 2 KiB besides its
// consumers.
package fifo
