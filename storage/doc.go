// Package storage keeps what must last: the messages of durable queues and the broker's metadata.
//
// # What it owns
//
// One directory: a commit log (storage/journal) that everything is written to first, and a Badger
// database that holds what survived long enough to be moved out of the log by a checkpoint. The
// package knows messages as four opaque byte fields, queues as numbers and metadata as ordered
// keys. It refuses to know AMQP, routing, consumers, prefetch and the time of day.
//
// # What it promises
//
//   - A confirm is given after the message was written and synced for every durable queue it was
//     appended to, or was settled there first. Nothing else gives a confirm.
//   - A [Ticket] is done after its change is synced, all of it or nothing.
//   - A settled message may come back after a crash if the settlement was not synced yet; it then
//     carries Redelivered, because nothing is handed out for the first time at or above
//     [Queue.DeliverLimit], and everything recovered below that durable limit is flagged.
//   - Bytes read are the bytes written, or the answer is a [CorruptError]. Everything on the disk
//     has its own checksum: Badger does not protect its values.
//   - The first write or sync error is the last: the store is dead, confirms nothing more, and says
//     so once through Options.OnFailure. After a failed fsync the page cache lies.
//   - A full disk blocks publishers in [Store.Reserve]. It is not an error.
//
// # The life of a message
//
//	Append ──▶ pending ──▶ in a batch ──▶ written ──▶ synced: confirmed
//	              │            │             │           │
//	           Settle       Settle         Settle      checkpoint ──▶ packed record in Badger
//	              ▼            ▼             ▼                              │
//	          cancelled:   a settlement goes with a later batch  ◀──────────┘ Settle
//	          never written,
//	          confirmed at once
//
// Per queue one bit says whether a message lives (liveset.go); everything else follows from the
// bit. Sequence numbers are given by the caller, strictly increasing per queue, with holes.
//
// A message may have a [Note]: a few numbers of its queue's owner (when it expires, its priority,
// how often it was returned) that are found again after a restart without reading bodies. The first
// note lasts as surely as the message; a later one as a settlement does, so the one before may be
// found after a crash. In memory and in Badger the notes of 1024 neighbours are one byte string
// (note.go).
//
// # Goroutines
//
// The committer takes everything pending, writes it as one record, syncs, and tells those who
// wait; what gathers meanwhile is the next batch, so there is no linger timer. The checkpointer
// moves the oldest part of the journal into Badger when the journal has grown past
// Options.JournalMax, and deletes what died. Both are started by [Open] and waited for by
// [Store.Close].
//
// # Locks
//
// Caller's queue lock, then Queue.mu, then Store.mu. None is held across disk I/O. readGate is
// held for reading, without any other lock, while a reader uses journal positions; the
// checkpointer passes through it before it lets segments be recycled.
package storage
