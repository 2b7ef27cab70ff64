// Package fifo is the queue as a pure state machine.
//
// It decides which message goes to which consumer, which messages expire, and which payloads can be spared when memory
// is short. It does not know sockets, storage, goroutines, locks or the time of day: callers push messages in with
// Enqueue, pull deliveries out with Next and Get and expired messages with Expire, settle them with Ack and Requeue, and
// carry payloads to and from the store. Equal calls give equal results, so a queue can be replayed from a log, checked
// against a model, and replicated. A [Machine] has no lock: one goroutine at a time may call it, and nothing that is
// passed to it may call it back.
//
// # Messages
//
// A message is a payload (a handle that is never looked into), a size in body bytes, and a seq: dense, ascending, given
// by Enqueue and never used again. The seq is the position in the queue, and the name under which everything else
// happens. What else a message may have (a priority, a deadline, a group) is in [Item].
//
//	       Enqueue
//	          v            Next, Get
//	Purge <- ready -----------------------> outstanding -> Ack
//	          |  ^   no-ack: gone at once      |   |  |
//	          |  +----------- Requeue ---------+   |  | Bury
//	          |  +- Release - on hold <-- Hold ----+  |
//	          |                  |                    v
//	          +------------------+----------------> leaving -> Ack
//	           Expire, DropHead: gone at once, or
//
// Ready messages go out in the order of their seqs, those of higher priority first. A requeued one stands at its
// original position again, in its priority, so it goes out before everything that never was handed out; there is no
// separate order of returns, as RabbitMQ's quorum queues have one. It is redelivered then: Delivery.Redelivered is set
// for every message that was handed out before, by this machine or, as the store says, before a restart.
//
// Ready counts and ReadyBytes include messages that are not in memory. Outstanding messages belong to a consumer, or to
// nobody (consumer 0) if they were taken by Get. Unacked, Held and Leaving count the other three states.
//
// A leaving message is one that the caller has taken charge of, such as a dead letter that must not be forgotten before
// its new queue has it. It never comes back; all that is left is Ack.
//
// # Returns
//
// A message knows how often it was handed out and how many of its deliveries failed, which is what the caller says of a
// return. One with a delivery limit looks at Outstanding first and chooses: Requeue, Hold until a later time (delayed
// retry), Bury, or Ack. In a queue without limits Requeue is the one call. A message on hold is not ready; at its time
// Release puts it back at its original position.
//
// # Deadlines and length
//
// Time is whatever int64 milliseconds the caller uses, only greater than 0; deadlines count in steps of 16 ms, rounded
// up. After Expire(now) has said false, no message due at now is handed out until something is returned or loaded;
// callers therefore pull Expire before they pull Next, and when the time of NextDeadline has come. A deadline that has
// passed when the message is enqueued (1, say) lets it be handed out or else expire at once, which is a time to live of 0.
//
// Expiry does not care about positions: a short deadline behind long ones is as exact as at the head, and so is that of
// a message on hold. Outstanding and leaving messages do not expire; returned after its deadline a message is due at
// once. It is the caller who compares Ready and ReadyBytes with a limit and calls DropHead, and who may change the limit.
//
// What Expire, DropHead, Ack and Bury hand back has no payload if that had been dropped (Unloaded); the caller who needs
// it reads it from the store, before Ack. Only messages of the cold range must be loaded before they are found.
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
// With Options.SingleActive only one consumer is served, however long it is blocked: the first that subscribed. When it
// unsubscribes the one of the highest priority follows, the longest subscribed among equals. With Options.Preempt a
// consumer of higher priority takes over before that: the active one gets nothing more, and when it holds nothing the
// other is active. Active tells; it changes in Subscribe, Unsubscribe, and whatever settles a message.
//
// # Groups
//
// With Options.Groups the messages of one group go to one consumer at a time, in order. While a consumer has outstanding
// messages of a group, the next ones go to it as soon as it can take them, also out of turn, and to nobody else; when it
// has none the group is free for the consumer whose turn it is. A returned message goes out before later ones of its
// group, and one on hold stops its group. Other groups, and messages without one, go on meanwhile: the first message that
// somebody can take is next. Messages without acknowledgement leave their group free.
//
// What is passed over leaves the head and is kept aside, in its group's queue, so that it is looked at once and not at
// every delivery. At most 8192 messages are aside; then the queue stands until one of them moves.
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
//   - PageOut moves messages behind the head window into the cold range; ReleaseUnacked drops payloads of messages that
//     are not ready. These keep their descriptor of 32 bytes and, once requeued, are ready but not in memory.
//   - Next and Get stop at a message that is not in memory. NeedsLoad says, ahead of time, what the store should be
//     asked for; Loaded brings what was read. One load is in flight at a time. Everything else may happen meanwhile:
//     the load is matched with the state at its end.
//   - Messages of the cold range whose deadline has passed are asked for before anything else, and come to Expire.
//   - Restore begins a life with everything cold, RestoreTimer adds deadlines, RestoreItem what is on hold.
//
// In a queue with priorities only messages of Options.DefaultPriority join the cold range. The others keep their
// descriptors, in one head for each priority in use, and RestoreItem brings each. Their seqs may lie in the interval of
// the cold range; the store tells the priority of what it finds there, and a load leaves those of others alone.
//
// The store must keep a message readable from the moment it answers true for it (the stored argument of PageOut and
// ReleaseUnacked) until the message is acknowledged, purged, or taken out with NoAck set; from then on a load that is asked
// for later must not find it. A message that cannot be stored is never dropped, and stops the growth of the cold range
// until it is consumed. Of messages in the cold range it is the store that knows counts and flags, see [LoadedItem].
//
// # Invariants
//
//   - A message is in exactly one of head, cold range, tail, aside, due list, and the list of those that are
//     outstanding, on hold or leaving; seqs ascend in each, and from one to the next of the first three.
//   - What is aside of a group comes before all else that is ready of it. Every group that can move with its first
//     message aside is listed; one that waits for its consumer is in that consumer's list.
//   - The tail has messages only while there is a cold range.
//   - Everything outstanding lies below HandedOut. Without priorities the cold range and the tail lie at or above it: no
//     outstanding message is inside the cold range, and what the store finds there is ready, except what is due, leaving,
//     or on hold since the restart. With priorities all of that holds of the default one by itself.
//   - A message with a deadline is in exactly one run of the timers, or known to be due: in the due list, flagged while
//     outstanding, or waiting to be loaded.
//   - Runs are at most twice as many as messages, and a few: those of messages that are gone are swept away.
//   - A consumer is in the service order if and only if it can take a message.
//   - Counts and byte sums are exact, except that those of a restored cold range are the caller's until it is read.
//
// # Cost
//
// Enqueue, Next, Get, and Ack in any order cost 50 to 100 ns and allocate nothing in steady state. With many messages
// Ack and Requeue are a binary search and a move within a block of 64 messages, so that 100 000 requeued in random
// order take some 30 ms. Consumers are picked in O(1); leaving and joining the order is a binary search among the
// priorities in use; finding the next single active consumer looks at all. The highest priority of messages is found in
// O(1). A deadline costs a run of 24 bytes and O(log n), and nothing if the message before had the same: a uniform time
// to live needs a run for each 16 ms. No call copies a whole queue, and an emptied queue keeps less than 2 KiB besides
// its consumers, one with priorities or deadlines 16 KiB.
package fifo
