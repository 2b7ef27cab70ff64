package storage

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"
)

// Deletion in Badger. Nothing here is needed for correctness: live bits decide what lives, keys are
// only removed so that their space can be used again. Never by DropPrefix, which makes concurrent
// writes fail and has lost data.

const (
	// sweepBodies is how many bodies a checkpoint looks at to find dead ones, unless space is short.
	sweepBodies = 8192
	// dropBatch is how many keys of a deleted queue are removed at a time.
	dropBatch = 2000
)

// findDeadBodies goes on where the last checkpoint stopped looking for bodies nobody lives to read.
func (c *checkpoint) findDeadBodies() error {
	d := c.d
	seen := 0
	all := c.s.shortOfSpace()
	if all {
		d.sweepFrom = nil
	}
	wrapped, err := d.sweep(func(key, value []byte) (bool, error) {
		if seen++; seen > sweepBodies && !all {
			return false, nil
		}
		p, err := unseal(key, value)
		alive := false
		var size uint64
		if err == nil {
			size, err = decodeTargets(p, func(t target) bool {
				alive = c.lives(t)
				return !alive
			})
		}
		if err == nil && len(key) != 1+bodyIDSize {
			err = errLayout
		}
		if err != nil {
			return false, &CorruptError{Where: fmt.Sprintf("body targets %x", key[1:]), What: "cannot be read", Err: err}
		}
		if !alive {
			c.deadBodies[bodyID(key[1:])] = true
			c.s.reclaimable += size
		}
		return true, nil
	})
	if wrapped {
		d.sweepFrom = nil
	}
	return err
}

// sweep calls fn for body target keys from the last stop on until fn returns false. It reports
// whether it got to the end.
func (d *stateDB) sweep(fn func(key, value []byte) (bool, error)) (end bool, err error) {
	end = true
	err = d.db.View(func(txn *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		o.Prefix = []byte{keyBodyRefs}
		o.PrefetchValues = false
		it := txn.NewIterator(o)
		defer it.Close()
		from := d.sweepFrom
		if from == nil {
			from = o.Prefix
		}
		for it.Seek(from); it.Valid(); it.Next() {
			key := it.Item().KeyCopy(nil)
			more := true
			err := it.Item().Value(func(v []byte) (err error) {
				more, err = fn(key, v)
				return err
			})
			if err != nil {
				return err
			}
			if !more {
				d.sweepFrom, end = key, false
				return nil
			}
		}
		return nil
	})
	return end, err
}

// clean deletes what was found dead, after the checkpoint is durable.
func (c *checkpoint) clean() error {
	for _, k := range c.queues {
		for i := range k.dead {
			c.w.delete(k.dead[i].key(nil, k.q.id))
			c.s.reclaimable += k.dead[i].bytes
		}
	}
	for id := range c.deadBodies {
		if err := c.d.deletePrefix(c.w, id.key(nil, 0)[:1+bodyIDSize]); err != nil {
			return err
		}
		c.w.delete(id.refsKey())
	}
	if err := c.w.commit(); err != nil {
		return err
	}
	for _, q := range c.deleted {
		for i := range q.records {
			c.s.reclaimable += q.records[i].bytes
		}
		q.mu.Lock()
		q.live, q.records = liveSet{}, nil
		q.mu.Unlock()
	}
	c.s.deadBytes.Add(-c.deadSeen) // what died meanwhile is the next checkpoint's
	return c.d.dropQueues(c.w)
}

// dropQueues removes all keys of the deleted queues, then their jobs.
func (d *stateDB) dropQueues(w *stateWriter) error {
	for _, qid := range d.drops {
		for _, table := range []byte{keyRecord, keyLive, keyNotes} {
			if err := d.deletePrefix(w, queueKey(table, qid)); err != nil {
				return err
			}
		}
		w.delete(queueKey(keyDeletion, qid))
		if err := w.commit(); err != nil {
			return err
		}
	}
	d.drops = nil
	return nil
}

// deletePrefix deletes all keys with a prefix, a batch at a time so that no iterator stays open
// for long.
func (d *stateDB) deletePrefix(w *stateWriter, prefix []byte) error {
	stop := errors.New("batch is full")
	for {
		n := 0
		err := d.scan(prefix, false, func(key, _ []byte) error {
			if n++; n > dropBatch {
				return stop
			}
			w.delete(bytes.Clone(key))
			return w.err
		})
		if err != nil && !errors.Is(err, stop) {
			return err
		}
		if err2 := w.commit(); err2 != nil || err == nil {
			return err2
		}
	}
}

// rawDigest returns the digest of an entry as it is in Badger.
func (d *stateDB) rawDigest(key []byte) (sum uint64, exists bool, err error) {
	exists, err = d.view(key, func(v []byte) error {
		sum = digest(key, v)
		return nil
	})
	return sum, exists, err
}
