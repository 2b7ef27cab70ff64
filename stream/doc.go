// Package stream is the queue that forgets nothing when it is read: an append-only log behind x-queue-type=stream.
//
// A [Stream] gives every message an offset, dense and for ever, and any number of consumers read it, each from where
// it likes and at its own pace. Messages leave by age or size, whole segments at a time, never because somebody read
// them. The package refuses to know exchanges, permissions, frames and delivery tags, as package queue does, whose
// [queue.Source] and [queue.Sink] it shares; and it knows no vhosts: an [Engine] has all streams of a broker.
//
// # What it promises
//
//   - A confirm is given after the message was written and synced (storage.Message.Done). Every message is stored,
//     whatever its delivery mode.
//   - Offsets never change. What was confirmed is there after a crash, under its offset, until the limits give it up.
//   - Bytes read are the bytes written, or the consumer is cancelled and the place reported.
//   - The first failed write or sync is the last: it ends the broker's store (Store.Fail) and nothing more is confirmed.
//   - A full disk holds publishers; it is no error.
//
// # Files
//
// Streams have their own files beside the journal: what stays for days must not pass through a log that is recycled in
// seconds, and is read by other rules. docs/decisions says more.
//
//	<dir>/<id>-<first offset>.log    a segment: a head, then chunks
//	<dir>/<id>-<first offset>.idx    where its chunks begin, written when it ends; it can be made anew
//
// Messages are written in chunks of about 64 KiB, or of whatever was pending when the disk was ready. A chunk has the
// offset of its first message, a time, a Bloom filter of the values in x-stream-filter-value, and CRC32C sums that start
// from the segment's random salt. The last segment is the active one. It is allocated in steps, so that a full disk is
// met when a step is taken and not in a write. The layout is in format.go.
//
// # Torn or corrupt
//
// A crash may leave any part of what was written since the last sync. Every header says how far its segment was durable
// when it was written (synced), and a mark of 64 bytes, itself not synced, says it behind the last chunk when nothing
// follows. At the first chunk that is not valid, or whose data is not although no header says it was durable, the log
// ends; if a header behind that place says that the place was durable, it is corrupt: the broker refuses to start until
// `settmq recover --accept-loss` has put a gap in its place. Data that a header vouches for is checked when it is read.
//
// # Goroutines
//
// Publish appends to the chunk in memory, under the stream's lock, and puts an idle stream on the committers' list. One
// of four committers takes everything pending, writes it with one call, syncs, confirms, and goes on to the next stream;
// what gathers meanwhile is the next batch. As many reader goroutines as processors serve all consumers: one that needs
// the files is put on their list, read for 512 KiB at a time, and after eight of these others have their turn. Deliveries
// are pumped by whoever makes them possible, as in package queue. Consumers at the end of the log wait in a list and are
// served from the newest chunks, which stay in memory while there are consumers. A keeper looks at the age of segments.
//
// # Memory
//
// A stream holds an index of its active segment (an entry for every 64 KiB) and a few numbers for every other. A consumer
// that waits for credit keeps what it has read, 64 of them at most; others read it again. Nothing grows with the log.
//
// # Locks
//
// consumer → stream → log, and consumer → channel → outbox. None is held across disk I/O.
package stream
