// Package journal is an append-only log of records in preallocated files.
//
// It owns the order of records, their integrity, and the statement "everything up to here
// is durable". It refuses to know what a record means, when to sync, or who waits for it:
// its caller, the store's committer, appends one record per batch, calls Sync, and answers
// those who waited.
//
//	Open ── Replay ──┬─ Append … Append ── Sync ─┬── Close
//	                 └────────── Release ────────┘
//
// # Who may call what
//
// Append belongs to one goroutine at a time; so does Replay, before it. Sync may run
// beside an Append and covers what was appended before it began. ReadAt, ReplaySegment,
// Segments and Release may be called from any goroutine. The journal has one goroutine of
// its own, the keeper, which prepares and recycles files; Close waits for it.
//
// # Segments
//
// The log is cut into files, <id>.seg with ascending ids. A segment is reserved on disk
// and filled with zeros before it is used, because overwriting written blocks needs no
// change to the file system's own journal: an fdatasync costs about half. It never runs
// out of space either: a full disk is met only when a segment is made, and then Append has
// written nothing and returns ErrNoSpace. Released segments become spare-* and later new
// segments, without being filled again.
//
// The first segment of a new log is 4 MiB, each further one twice as large, up to
// Options.SegmentSize: opening an empty directory takes milliseconds, and a broker that
// stores little uses little disk. The next segment is prepared when a quarter of the
// active one is used. Should an Append need it earlier, zero-filling stops there and the
// segment is handed over reserved but partly unwritten: a few slower syncs instead of a
// stall. At most one prepared segment and Options.Spares spares are on disk beside the
// log.
//
// An Append is one pwritev of whole pages. The page in which the log ends is kept in
// memory and written again by the next Append, with zeros behind the last record, so that
// the kernel never reads a recycled page from disk to change a part of it. Buffers under
// 32 KiB are copied together, larger ones go to the kernel by reference.
//
// # Records and fragments
//
// A record is stored in fragments of at most 1 MiB; a fragment never crosses a segment, a
// record may. The layout is in format.go. A fragment is valid at its place only if
//
//   - its header and payload match their CRC32C, which start from the segment's id
//     and random salt: bytes of another file or of an earlier life of this one never match, and
//     nobody who only chooses record contents can forge one;
//   - it carries the sequence number that follows its predecessor's;
//   - it carries its predecessor's header checksum (link), and its predecessor's epoch, a
//     random number per Open, unless it is the first of its epoch. So a fragment that was
//     written behind a torn one, and left on disk when recovery cut the log there, cannot
//     come back when new records happen to end where it begins.
//
// A record counts only if all its fragments are valid.
//
// # Torn or corrupt
//
// A crash leaves any subset of the sectors that were written since the last Sync. So the
// end of the log may hold records with holes, and whole records behind a hole: they were
// never confirmed and must be dropped in silence. Damage to something that was durable
// must not be. Position alone cannot tell the two apart, and the place of the last sync is
// not stored anywhere; instead every fragment says which sequence was durable when it was
// written (synced).
//
// Where the chain ends with x the next sequence, the rest of that segment and all later
// ones are searched for valid headers, at every place a header can be. If one of them says
// that x was durable, x is missing although it was on disk: *CorruptError. If none does, x
// was not covered by any sync that a surviving fragment knows of, and the log ends before
// it.
//
// Both directions hold. A crash alone never looks like corruption: a header says "x was
// durable" only if it was written after a Sync that covered x returned, and then x cannot
// be torn. Corruption is taken for a torn end only if no later header survived that knows
// of the sync: that is, in what the last Sync made durable and nothing was appended
// behind. To close that too, each Sync that succeeded writes a mark behind the log: a
// header without payload that says "all before me is durable", overwritten by the next
// Append. It is not synced itself, costs a write to a page that is about to be written
// anyway, and survives a killed process; after a power cut it is there if the kernel wrote
// it back, which it does within seconds when idle, and Close syncs it. What remains: after
// a power cut during load, damage to the very last durable records that is independent of
// the cut is not told from a torn write.
//
// A segment's file has its full length, and its head is durable, before the first record;
// so a missing file, a head of which both copies are damaged, or a file shorter than its
// head says are corruption wherever the log needs them.
//
// Recovery obeys the same rules, so that a crash during it changes nothing: what it found
// is synced before Replay returns, and segments behind the end are removed only after the
// mark that cuts them off is durable. Release keeps a segment until the first record of
// the next is durable.
//
// With Options.AcceptLoss Replay goes on: a gap fragment is written over the damage, so
// that the log is whole again and later runs need no permission, and each loss is
// reported.
//
// # Failures
//
// The first failed write or sync is final: every later Append, Sync and Release returns
// it, because after a failed fdatasync the kernel may have dropped the pages and call the
// next one a success. Only reopening, which reads what is on disk, ends this state.
// ErrNoSpace is no failure.
package journal
