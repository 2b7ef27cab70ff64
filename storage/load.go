package storage

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/dgraph-io/badger/v4"
)

// What Open reads from Badger. The chain that tells whether something is missing: the position
// record sums over the queue records and the metadata, a queue record counts its live messages,
// every live message is covered by a record's key, and every message has a checksum. While a
// checkpoint is under way the first two need not agree, see recovery.partial.

// loadQueues builds the queues from their state records.
func (r *recovery) loadQueues() error {
	s := r.s
	d := s.state
	var count, sum uint64
	live := make(map[uint64]uint64)
	err := d.scan([]byte{keyQueue}, true, func(key, value []byte) error {
		var rec queueRecord
		p, err := unseal(key, value)
		if err == nil && len(key) != 9 {
			err = errLayout
		}
		if err == nil {
			err = rec.decode(p)
		}
		if err != nil {
			return r.giveUp(key, &CorruptError{Where: fmt.Sprintf("queue record %x", key[1:]), What: "cannot be read", Err: err})
		}
		count++
		sum += digest(key, value)
		id := binary.BigEndian.Uint64(key[1:])
		q := newQueue(s, id, rec.limit)
		q.next, q.badgerHi, q.changed = rec.next, rec.badgerHi, false
		q.recordDigest = digest(key, value)
		live[id] = rec.live
		s.queues[id] = q
		s.nextID = max(s.nextID, id+1)
		return nil
	})
	if err != nil {
		return err
	}
	if !r.partial && (count != d.pos.queues || sum != d.pos.queueSum) {
		e := &CorruptError{Where: d.dir, What: fmt.Sprintf("queue records are missing or old: %d of %d", count, d.pos.queues)}
		if err := s.damaged(e, 0); err != nil {
			return err
		}
	}
	d.pos.queues, d.pos.queueSum = count, sum
	if err := r.loadMeta(); err != nil {
		return err
	}
	if err := r.loadLive(live); err != nil {
		return err
	}
	if err := r.loadNotes(); err != nil {
		return err
	}
	if err := r.loadDeletions(); err != nil {
		return err
	}
	if err := r.loadRecords(); err != nil {
		return err
	}
	w := d.writer()
	for _, key := range r.bad {
		w.delete(key)
	}
	return w.commit()
}

// giveUp refuses or, under AcceptLoss, has an unreadable key deleted.
func (r *recovery) giveUp(key []byte, e *CorruptError) error {
	if err := r.s.damaged(e, 0); err != nil {
		return err
	}
	r.bad = append(r.bad, bytes.Clone(key))
	return nil
}

// loadMeta checks that all metadata is there; Scan reads it again.
func (r *recovery) loadMeta() error {
	d := r.s.state
	var count, sum uint64
	err := d.scan([]byte{keyMeta}, true, func(key, value []byte) error {
		if _, err := unseal(key, value); err != nil {
			return r.giveUp(key, &CorruptError{Where: fmt.Sprintf("metadata key %q", key[1:]), What: "cannot be read", Err: err})
		}
		count++
		sum += digest(key, value)
		return nil
	})
	if err != nil {
		return err
	}
	if !r.partial && (count != d.pos.metas || sum != d.pos.metaSum) {
		e := &CorruptError{Where: d.dir, What: fmt.Sprintf("metadata is missing or old: %d of %d entries", count, d.pos.metas)}
		if err := r.s.damaged(e, 0); err != nil {
			return err
		}
	}
	d.pos.metas, d.pos.metaSum = count, sum
	return nil
}

// loadLive reads the live bits. want is what the queue records count.
func (r *recovery) loadLive(want map[uint64]uint64) error {
	s := r.s
	err := s.state.scan([]byte{keyLive}, true, func(key, value []byte) error {
		if len(key) != 17 {
			return r.giveUp(key, &CorruptError{Where: fmt.Sprintf("live page %x", key), What: "has a malformed key"})
		}
		q := s.queues[binary.BigEndian.Uint64(key[1:])]
		if q == nil {
			return nil
		}
		no := binary.BigEndian.Uint64(key[9:])
		p, err := unseal(key, value)
		if err == nil && (len(p) != pageWords*8 || no > 1<<63>>pageShift) {
			err = errLayout
		}
		if err != nil {
			return r.giveUp(key, &CorruptError{Where: fmt.Sprintf("live page %d", no), What: "cannot be read", Queue: q.id, Err: err})
		}
		q.live.load(no, p, q.badgerHi)
		return nil
	})
	if err != nil || r.partial {
		return err
	}
	for id, n := range want {
		if q := s.queues[id]; q != nil && q.live.count != n {
			e := &CorruptError{Where: s.state.dir, What: fmt.Sprintf("%d messages are live, %d were", q.live.count, n), Queue: id}
			if err := s.damaged(e, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// load adds a page read from Badger: its bits below hi.
func (s *liveSet) load(no uint64, b []byte, hi uint64) {
	var words [pageWords]uint64
	n := 0
	for w := range words {
		words[w] = binary.LittleEndian.Uint64(b[w*8:]) & wordMask(no<<pageShift+uint64(w)<<6, 0, hi)
		n += bits.OnesCount64(words[w])
	}
	if n == 0 {
		s.dead = append(s.dead, no)
		return
	}
	p := s.ensure(no)
	p.live, p.count, p.stored = words, n, true
	s.count += uint64(n)
}

// loadNotes reads the notes of the messages that live.
func (r *recovery) loadNotes() error {
	return r.s.state.scan([]byte{keyNotes}, true, func(key, value []byte) error {
		if len(key) != 17 {
			return r.giveUp(key, &CorruptError{Where: fmt.Sprintf("notes %x", key), What: "have a malformed key"})
		}
		q := r.s.queues[binary.BigEndian.Uint64(key[1:])]
		if q == nil {
			return nil
		}
		no := binary.BigEndian.Uint64(key[9:])
		p, err := unseal(key, value)
		if err == nil {
			err = q.live.loadNotes(no, p)
		}
		if err != nil {
			return r.giveUp(key, &CorruptError{Where: fmt.Sprintf("notes of page %d", no), What: "cannot be read", Queue: q.id, Err: err})
		}
		return nil
	})
}

// loadDeletions notes the queues whose keys are still being deleted.
func (r *recovery) loadDeletions() error {
	return r.s.state.scan([]byte{keyDeletion}, false, func(key, _ []byte) error {
		if len(key) == 9 {
			r.s.state.drops = append(r.s.state.drops, binary.BigEndian.Uint64(key[1:]))
		}
		return nil
	})
}

// loadRecords lists every queue's records and deletes those an interrupted checkpoint left.
func (r *recovery) loadRecords() error {
	s := r.s
	w := s.state.writer()
	err := s.state.scan([]byte{keyRecord}, false, func(key, _ []byte) error {
		qid, info, err := parseRecordKey(key)
		if err != nil {
			return r.giveUp(key, &CorruptError{Where: fmt.Sprintf("record key %x", key), What: "is malformed", Err: err})
		}
		q := s.queues[qid]
		if q == nil || info.first >= q.badgerHi {
			// The journal still has these messages, or the queue is gone.
			w.delete(append([]byte{}, key...))
			return w.err
		}
		if n := len(q.records); n > 0 && q.records[n-1].last >= info.first {
			return r.giveUp(key, &CorruptError{Where: fmt.Sprintf("record key %x", key), What: "overlaps another", Queue: qid, Seq: info.first})
		}
		q.records = append(q.records, info)
		return nil
	})
	if err2 := w.commit(); err == nil {
		err = err2
	}
	return err
}

// stateBytes adds up the bodies of a queue's live messages in Badger, and checks that a record
// covers every one of them.
func (r *recovery) stateBytes(q *Queue) (n uint64, err error) {
	t := r.s.state.reader()
	defer t.close()
	total := q.live.countRange(0, q.badgerHi)
	covered := uint64(0)
	for i := range q.records {
		info := &q.records[i]
		live := q.live.countRange(info.first, info.last+1)
		covered += live
		switch {
		case live == 0:
			q.changed = true // the next checkpoint deletes it
			r.s.deadBytes.Add(int64(info.bytes))
		case r.s.opts.AcceptLoss:
			b, err := r.verifyRecord(q, info, t)
			if err != nil {
				return 0, err
			}
			n += b
		case live == uint64(info.count):
			n += info.bytes
		default:
			b, err := liveBytes(q, info, t)
			if err != nil {
				return 0, recordError(q, info, info.first, err)
			}
			n += b
		}
	}
	if covered != total {
		e := &CorruptError{Where: r.s.state.dir, What: fmt.Sprintf("records of %d messages are missing", total-covered), Queue: q.id}
		if err := r.s.damaged(e, total-covered); err != nil {
			return 0, err
		}
		lo := uint64(0)
		for _, info := range q.records {
			q.live.removeRange(lo, info.first)
			lo = info.last + 1
		}
		q.live.removeRange(lo, q.badgerHi)
		q.changed = true
	}
	return n, nil
}

// liveBytes adds up the live bodies of one record from its table.
func liveBytes(q *Queue, info *recordInfo, t *stateReader) (n uint64, err error) {
	err = t.record(q.id, info, func(v *recordView) error {
		for i := range v.count {
			if q.live.has(v.seq(i)) {
				n += v.bodySize(i)
			}
		}
		return nil
	})
	return n, err
}

// verifyRecord reads all that lives in a record and drops what cannot be read.
func (r *recovery) verifyRecord(q *Queue, info *recordInfo, t *stateReader) (n uint64, err error) {
	drop := func(lo, hi uint64, cause error) {
		if k := q.live.removeRange(lo, hi); k > 0 {
			q.changed = true
			e := recordError(q, info, lo, cause)
			r.s.lose(Loss{Where: "record", What: e.Error(), Queue: q.id, Count: k})
		}
	}
	err = t.record(q.id, info, func(v *recordView) error {
		var op messageOp
		for i := range v.count {
			seq := v.seq(i)
			if !q.live.has(seq) {
				continue
			}
			external, err := v.entry(i, &op)
			if err == nil && external != nil {
				err = t.readBody(external, make([]byte, op.bodySize))
			}
			if err != nil {
				drop(seq, seq+1, err)
				continue
			}
			n += op.bodySize
		}
		return nil
	})
	if err != nil {
		drop(info.first, info.last+1, err)
		n = 0
	}
	return n, nil
}

func recordError(q *Queue, info *recordInfo, seq uint64, err error) error {
	return &CorruptError{
		Where: fmt.Sprintf("record of messages %d to %d", info.first, info.last),
		What:  "cannot be read", Queue: q.id, Seq: seq, Err: err,
	}
}

// stateReader reads values from one snapshot of the state.
type stateReader struct {
	txn *badger.Txn
	it  *badger.Iterator
	key []byte
}

// reader opens a snapshot; close it soon, it keeps Badger from deleting files.
func (d *stateDB) reader() *stateReader {
	txn := d.db.NewTransaction(false)
	// An iterator, even unused, keeps value log files from disappearing under a lookup.
	o := badger.DefaultIteratorOptions
	o.PrefetchValues = false
	o.Prefix = []byte{keyFiller, 0}
	return &stateReader{txn: txn, it: txn.NewIterator(o)}
}

func (t *stateReader) close() {
	t.it.Close()
	t.txn.Discard()
}

// value calls fn with a key's value, valid during the call.
func (t *stateReader) value(key []byte, fn func([]byte) error) error {
	item, err := t.txn.Get(key)
	if err != nil {
		return err
	}
	return item.Value(fn)
}

// record calls fn with an opened record.
func (t *stateReader) record(qid uint64, info *recordInfo, fn func(*recordView) error) error {
	t.key = info.key(t.key[:0], qid)
	return t.value(t.key, func(value []byte) error {
		v, err := openRecord(qid, info, value)
		if err != nil {
			return err
		}
		return fn(&v)
	})
}
