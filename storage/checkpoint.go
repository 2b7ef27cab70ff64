package storage

import (
	"cmp"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"maps"
	"math/bits"
	"slices"
	"time"
)

// A checkpoint moves what is still alive in the oldest segments of the journal into Badger, so
// that the segments can be used again. Messages are found through the queues' live sets, not by
// reading the journal: when nothing lives there, nothing is read.
//
// The order of the steps is what makes a crash between, or within, any two of them harmless. A
// barrier stands between them because Badger's files reach the disk in any order.
//
//  1. number of the checkpoint: sums need not agree from here on
//  2. records, bodies, live pages. Records from badgerHi on are ignored and deleted by recovery,
//     live bits from badgerHi on are ignored, cleared bits say what the journal says too or what
//     was not promised yet.
//  3. queue records with the new badgerHi, metadata, deletion jobs. Replay ignores messages below
//     badgerHi; everything else in it is repeated without effect.
//  4. position: replay starts at the first segment that stays; sums agree again
//  5. memory: positions are withdrawn, readers leave, segments are recycled
//  6. deletion of what was dead before step 2 looked. It needs no barrier: what comes back after
//     a crash is deleted again.
type checkpoint struct {
	s       *Store
	d       *stateDB
	w       *stateWriter
	overdue func() bool // it is given up then
	number  uint64
	upTo    uint64 // segments below are given back
	oldest  uint64

	queues  []*queueCheckpoint // ascending by id
	deleted []*Queue
	metas   map[string]overlayEntry
	stamp   uint64
	ids     uint64

	window  journalWindow
	builder recordBuilder
	refs    []readRef
	shared  map[location]*sharedBody

	deadBodies map[bodyID]bool
	deadSeen   int64  // Store.deadBytes before anything was looked at
	moved      uint64 // messages
}

// queueCheckpoint is what a checkpoint does for one queue.
type queueCheckpoint struct {
	q       *Queue
	hi      uint64       // new badgerHi
	records []recordInfo // new ones
	dead    []recordInfo // to be deleted
	write   bool         // state is a new queue record
	state   queueRecord
}

// sharedBody is a body that more than one queue wants.
type sharedBody struct {
	targets []target
	written bool
}

var errClosing = errors.New("storage: closing")

// checkpointTo runs a checkpoint that gives back the segments below upTo. Called by the
// checkpointer only, or after it.
func (s *Store) checkpointTo(upTo uint64) error {
	return s.checkpointUnless(upTo, func() bool { return false })
}

// checkpointUnless gives up with errClosing once overdue says so. Nothing but closing the store
// may follow then.
func (s *Store) checkpointUnless(upTo uint64, overdue func() bool) error {
	c := &checkpoint{s: s, d: s.state, w: s.state.writer(), overdue: overdue, upTo: upTo, oldest: s.oldest.Load(), deadBodies: make(map[bodyID]bool), deadSeen: s.deadBytes.Load()}
	c.window.reset(s)
	defer c.w.discard()
	start := time.Now()
	for _, step := range []func() error{
		c.begin, c.snapshot, c.findDead, c.moveMessages, c.writeLive,
		c.writeState, c.writePosition, c.publish, c.clean,
	} {
		if overdue() {
			return errClosing
		}
		if err := step(); err != nil {
			return err
		}
	}
	s.checkpoints.Add(1)
	s.log.Debug().Uint64("count", c.moved).Dur("dur", time.Since(start)).Msg("checkpoint")
	return nil
}

// commitAndBarrier ends a step.
func (c *checkpoint) commitAndBarrier(step string) error {
	if err := c.w.commit(); err != nil {
		return err
	}
	return c.d.barrier(step)
}

func (c *checkpoint) begin() error {
	c.number = c.d.pos.number + 1
	c.w.seal([]byte{keyBegun}, binary.LittleEndian.AppendUint64(nil, c.number))
	return c.commitAndBarrier("begun")
}

// snapshot takes the set of queues and the metadata at one moment, and waits until the journal has
// made that moment durable: Badger must never know of half a change.
func (c *checkpoint) snapshot() error {
	s := c.s
	s.mu.Lock()
	c.stamp = s.stamp
	c.ids = s.reservedIDs
	c.deleted = slices.Clone(s.deleted)
	c.metas = make(map[string]overlayEntry, len(s.overlay))
	for k, e := range s.overlay {
		c.metas[k] = e
	}
	for _, q := range s.queues {
		c.queues = append(c.queues, &queueCheckpoint{q: q})
	}
	s.mu.Unlock()
	slices.SortFunc(c.queues, func(a, b *queueCheckpoint) int { return cmp.Compare(a.q.id, b.q.id) })
	s.synced.mu.Lock()
	defer s.synced.mu.Unlock()
	for s.synced.stamp < c.stamp {
		if s.synced.over {
			return errClosing
		}
		s.synced.cond.Wait()
	}
	return nil
}

// lives reports whether a target is alive in the snapshot.
func (c *checkpoint) lives(t target) bool {
	i, ok := slices.BinarySearchFunc(c.queues, t.qid, func(k *queueCheckpoint, id uint64) int { return cmp.Compare(k.q.id, id) })
	if !ok {
		return false
	}
	q := c.queues[i].q
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.live.has(t.seq)
}

// findDead notes records and bodies whose messages are all dead. It runs before the live pages are
// written, so that once those are durable nothing can bring the messages back.
func (c *checkpoint) findDead() error {
	for _, k := range c.queues {
		q := k.q
		q.mu.Lock()
		look := (q.changed || q.died) && len(q.records) > 0
		q.died = false
		q.mu.Unlock()
		if look {
			k.findDead()
		}
	}
	return c.findDeadBodies()
}

// findDead looks at the records in stretches, so as not to hold the queue's lock for long. Only
// the checkpointer changes the list.
func (k *queueCheckpoint) findDead() {
	const stretch = 256
	q := k.q
	kept := make([]recordInfo, 0, len(q.records))
	for lo := 0; lo < len(q.records); lo += stretch {
		q.mu.Lock()
		for _, info := range q.records[lo:min(lo+stretch, len(q.records))] {
			if q.live.anyIn(info.first, info.last+1) {
				kept = append(kept, info)
			} else {
				k.dead = append(k.dead, info)
			}
		}
		q.mu.Unlock()
	}
	if len(k.dead) > 0 {
		q.mu.Lock()
		q.records = kept
		q.mu.Unlock()
	}
}

// moveMessages writes the live messages of the segments below upTo as records.
func (c *checkpoint) moveMessages() error {
	if err := c.findShared(); err != nil {
		return err
	}
	for _, k := range c.queues {
		if err := c.moveQueue(k); err != nil {
			return err
		}
	}
	return nil
}

// collect notes up to readChunk live messages of q from `from` on that lie below upTo. Called
// without locks.
func (c *checkpoint) collect(q *Queue, from uint64) (next uint64, more bool) {
	c.refs = c.refs[:0]
	next = from
	q.mu.Lock()
	defer q.mu.Unlock()
	q.live.each(max(from, q.badgerHi), func(seq uint64, l location) bool {
		if l == 0 || l.segment(c.oldest) >= c.upTo {
			return false
		}
		if len(c.refs) == readChunk {
			more = true
			return false
		}
		c.refs = append(c.refs, readRef{seq: seq, loc: l})
		next = seq + 1
		return true
	})
	return next, more
}

// findShared lists the live targets of every message that was published to several queues.
func (c *checkpoint) findShared() error {
	c.shared = make(map[location]*sharedBody)
	for _, k := range c.queues {
		for from, more := uint64(0), true; more; {
			from, more = c.collect(k.q, from)
			for _, ref := range c.refs {
				if !ref.loc.shared() {
					continue
				}
				b := c.shared[ref.loc]
				if b == nil {
					b = new(sharedBody)
					c.shared[ref.loc] = b
				}
				b.targets = append(b.targets, target{k.q.id, ref.seq})
			}
		}
	}
	return nil
}

func (c *checkpoint) moveQueue(k *queueCheckpoint) error {
	c.builder.reset(k.q.id)
	for from, more := uint64(0), true; more; {
		if c.overdue() {
			return errClosing
		}
		from, more = c.collect(k.q, from)
		for i := range c.refs {
			if err := c.moveMessage(k, &c.refs[i]); err != nil {
				return err
			}
			k.hi = c.refs[i].seq + 1
			c.moved++
		}
	}
	c.flushRecord(k)
	return c.w.err
}

func (c *checkpoint) flushRecord(k *queueCheckpoint) {
	if !c.builder.empty() {
		k.records = append(k.records, c.builder.write(c.w))
	}
}

func (c *checkpoint) moveMessage(k *queueCheckpoint, ref *readRef) error {
	pos, at := ref.loc.position(c.oldest)
	corrupt := func(err error) error {
		return &CorruptError{
			Where: "journal batch " + pos.String(), What: "cannot be read for a checkpoint",
			Queue: k.q.id, Seq: ref.seq, Err: err,
		}
	}
	var op messageOp
	if err := c.window.fields(pos, at, &op); err != nil {
		return corrupt(err)
	}
	share := c.shared[ref.loc]
	var external *bodyID
	if op.bodySize > maxRecordBody || op.bodySize >= minSharedBody && share != nil && len(share.targets) > 1 {
		id := makeBodyID(pos, at)
		external = &id
		if share == nil {
			share = &sharedBody{targets: []target{{k.q.id, ref.seq}}}
		}
		if !share.written {
			share.written = true
			if err := c.moveBody(pos, at, &op, external, share.targets); err != nil {
				return corrupt(err)
			}
		}
	} else if _, err := c.window.message(pos, at, &op); err != nil {
		return corrupt(err)
	}
	n := len(op.exchange) + len(op.routingKey) + len(op.properties)
	if external == nil {
		n += len(op.body)
	}
	if !c.builder.fits(ref.seq, n) {
		c.flushRecord(k)
	}
	c.builder.add(ref.seq, &op, external)
	return c.w.err
}

// moveBody copies a body piece by piece and checks the message's checksum on the way, before
// anything refers to the copy.
func (c *checkpoint) moveBody(pos position, at uint32, op *messageOp, id *bodyID, targets []target) error {
	// An interrupted checkpoint may have left this very body. Its readers may be dead now, or alive
	// and beyond their queue's badgerHi already, so that only they know of it.
	delete(c.deadBodies, *id)
	old, err := c.d.get(id.refsKey())
	if err != nil {
		return err
	}
	if old != nil {
		targets = slices.Clone(targets)
		_, err := decodeTargets(old, func(t target) bool {
			if !slices.Contains(targets, t) {
				targets = append(targets, t)
			}
			return true
		})
		if err != nil {
			return err
		}
	}
	head := make([]byte, op.bodyAt)
	if err := c.s.journal.ReadAt(pos, uint64(at), head); err != nil {
		return err
	}
	sum := crc32.Checksum(head[5:], castagnoli)
	want := op.sum
	size := op.bodySize
	base := uint64(at) + op.bodyAt
	err = c.w.writeBody(id, size, func(off uint64, p []byte) error {
		err := c.s.journal.ReadAt(pos, base+off, p)
		sum = crc32.Update(sum, castagnoli, p)
		return err
	})
	if err == nil && sum != want {
		err = errChecksum
	}
	if err == nil {
		c.w.seal(id.refsKey(), encodeTargets(size, targets))
		err = c.w.err
	}
	return err
}

// livePage is a page to be written; empty ones are deleted.
type livePage struct {
	no    uint64
	words [pageWords]uint64
}

// writeLive writes the live pages that changed and captures each queue's state record with them.
func (c *checkpoint) writeLive() error {
	var pages []livePage
	var notes []notePage
	for _, k := range c.queues {
		q := k.q
		q.mu.Lock()
		k.hi = max(k.hi, q.badgerHi)
		if !q.changed && k.hi == q.badgerHi && len(k.records) == 0 {
			q.mu.Unlock()
			continue
		}
		pages = q.live.checkpoint(pages[:0], k.hi)
		notes = q.live.checkpointNotes(notes[:0], k.hi)
		k.write = true
		k.state = queueRecord{
			next: q.next, badgerHi: k.hi, limit: q.limit.Load(),
			live: q.live.durableBelow(k.hi),
		}
		q.changed = false
		q.mu.Unlock()
		for i := range pages {
			p := &pages[i]
			mem := c.w.alloc(17 + 1 + pageWords*8 + 4)
			key := append(append(mem[:0:17], keyLive), queueKey(0, q.id)[1:]...)
			key = binary.BigEndian.AppendUint64(key, p.no)
			if p.words == [pageWords]uint64{} {
				c.w.delete(key)
				continue
			}
			payload := make([]byte, 0, pageWords*8)
			for _, word := range p.words {
				payload = binary.LittleEndian.AppendUint64(payload, word)
			}
			c.w.set(key, seal(mem[17:17], key, payload))
		}
		for i := range notes {
			c.writeNotes(q, &notes[i])
		}
	}
	return c.commitAndBarrier("data")
}

// checkpoint appends the pages that differ from what Badger has, as they are below hi and without
// messages that do not outlive a restart, and takes them for written.
func (s *liveSet) checkpoint(out []livePage, hi uint64) []livePage {
	for _, no := range s.dead {
		if p := s.find(no); p != nil {
			p.stored, p.dirty = true, true
			continue
		}
		out = append(out, livePage{no: no})
	}
	s.dead = s.dead[:0]
	for _, p := range s.pages {
		start := p.no << pageShift
		if start >= hi {
			break
		}
		if !p.dirty {
			continue
		}
		lp := livePage{no: p.no}
		for w := range p.live {
			lp.words[w] = p.durable(w) & wordMask(start+uint64(w)<<6, 0, hi)
		}
		empty := lp.words == [pageWords]uint64{}
		if !empty || p.stored {
			out = append(out, lp)
		}
		p.stored = !empty
		// A page that is not wholly below hi has bits still to come.
		p.dirty = start+pageSeqs > hi
	}
	return out
}

// durable returns the bits of a word that outlive a restart.
func (p *page) durable(w int) uint64 {
	if p.transient == nil {
		return p.live[w]
	}
	return p.live[w] &^ p.transient[w]
}

// durableBelow counts the messages below hi that outlive a restart.
func (s *liveSet) durableBelow(hi uint64) (n uint64) {
	for _, p := range s.pages {
		start := p.no << pageShift
		if start >= hi {
			break
		}
		if p.transient == nil && hi-start >= pageSeqs {
			n += uint64(p.count)
			continue
		}
		for w := range p.live {
			n += uint64(bits.OnesCount64(p.durable(w) & wordMask(start+uint64(w)<<6, 0, hi)))
		}
	}
	return n
}

// anyIn reports whether anything lives in [lo, hi).
func (s *liveSet) anyIn(lo, hi uint64) bool {
	first, ok := s.first(lo)
	return ok && first < hi
}

// writeState writes queue records, metadata and deletion jobs.
func (c *checkpoint) writeState() error {
	d := c.d
	for _, k := range c.queues {
		if !k.write {
			continue
		}
		key := queueKey(keyQueue, k.q.id)
		value := seal(nil, key, k.state.encode())
		c.w.set(key, value)
		d.forgetQueue(k.q)
		k.q.recordDigest = digest(key, value)
		d.pos.queues++
		d.pos.queueSum += k.q.recordDigest
	}
	for _, q := range c.deleted {
		if q.recordDigest == 0 && len(q.records) == 0 {
			continue // nothing of it ever reached Badger
		}
		c.w.seal(queueKey(keyDeletion, q.id), nil)
		c.w.delete(queueKey(keyQueue, q.id))
		d.forgetQueue(q)
		d.drops = append(d.drops, q.id)
	}
	for _, k := range slices.Sorted(maps.Keys(c.metas)) {
		if err := c.writeMeta(k, c.metas[k]); err != nil {
			return err
		}
	}
	return c.commitAndBarrier("state")
}

// forgetQueue takes a queue's record out of the sums.
func (d *stateDB) forgetQueue(q *Queue) {
	if q.recordDigest != 0 {
		d.pos.queues--
		d.pos.queueSum -= q.recordDigest
		q.recordDigest = 0
	}
}

func (c *checkpoint) writeMeta(k string, e overlayEntry) error {
	d := c.d
	key := metaKey([]byte(k))
	old, exists, err := d.rawDigest(key)
	if err != nil {
		return err
	}
	if exists {
		d.pos.metas--
		d.pos.metaSum -= old
	}
	switch {
	case !e.deleted:
		value := seal(nil, key, e.value)
		d.pos.metas++
		d.pos.metaSum += digest(key, value)
		c.w.set(key, value)
	case exists:
		c.w.delete(key)
	}
	return c.w.err
}

func (c *checkpoint) writePosition() error {
	pos := &c.d.pos
	pos.number, pos.segment, pos.ids = c.number, c.upTo, max(pos.ids, c.ids)
	c.w.seal([]byte{keyPosition}, pos.encode())
	return c.commitAndBarrier("position")
}

// publish makes memory agree and gives the segments back.
func (c *checkpoint) publish() error {
	s := c.s
	for _, k := range c.queues {
		q := k.q
		q.mu.Lock()
		died := uint64(0)
		for i := range k.records {
			died += uint64(k.records[i].count)
		}
		if k.hi > q.badgerHi {
			died -= min(died, q.live.countRange(q.badgerHi, k.hi))
			q.live.forgetLocations(q.badgerHi, k.hi)
			q.badgerHi = k.hi
		}
		q.records = append(q.records, k.records...)
		q.averageRecorded()
		if died > 0 { // while they were moved: Settle took them for messages of the journal
			s.addDead(died * q.average)
		}
		q.mu.Unlock()
	}
	s.mu.Lock()
	for k, e := range c.metas {
		if s.overlay[k].stamp == e.stamp {
			delete(s.overlay, k)
		}
	}
	s.deleted = slices.DeleteFunc(s.deleted, func(q *Queue) bool { return slices.Contains(c.deleted, q) })
	s.mu.Unlock()
	// Readers that looked positions up before are done once the gate was closed.
	s.readGate.Lock()
	s.oldest.Store(c.upTo)
	s.readGate.Unlock()
	if err := s.journal.Release(c.upTo); err != nil {
		return err
	}
	signal(s.spaceFreed)
	return nil
}

// averageRecorded estimates what a settled message frees in Badger.
func (q *Queue) averageRecorded() {
	var bytes, count uint64
	for i := range q.records {
		bytes += q.records[i].bytes
		count += uint64(q.records[i].count)
	}
	q.average = 0
	if count > 0 {
		q.average = bytes / count
	}
}
