package storage

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// Badger gives value log space back only after compaction has met the tombstones, and only when
// asked. Left alone, a drained backlog keeps its space for ever.

const (
	fillerSize   = 3 << 10 // below valueInline, so that it fills the memtable
	flushTimeout = 30 * time.Second
)

// reclaimIfShort is how many deleted bytes make a reclaim worth its cost when publishers are held
// for want of space.
const reclaimIfShort = 1 << 20

// reclaimBusy is the same under load, at least.
const reclaimBusy = 256 << 20

// reclaimTrigger is how many deleted bytes make a reclaim worth its cost. idle says that the last look with it was a while ago.
func (s *Store) reclaimTrigger(idle bool) uint64 {
	switch {
	case s.shortOfSpace():
		return reclaimIfShort
	case s.opts.Small:
		return 8 << 20
	case idle:
		return 64 << 20
	case s.reclaimable < reclaimBusy:
		return reclaimBusy
	}
	values := s.state.fullValueLogs()
	if values <= s.reclaimedTo {
		return math.MaxUint64 // a backlog is drained: what takes no more space can wait
	}
	// A quarter of what is stored, so that the work stays proportional to what was deleted.
	return max(reclaimBusy, values/4)
}

// reclaimIfNeeded gives back the space of deleted values. Called by the checkpointer only.
func (s *Store) reclaimIfNeeded(idle bool) error {
	if s.reclaimable < s.reclaimTrigger(idle) || s.paused("reclaims") {
		return nil
	}
	// Filler, tables, and the living half of a value log.
	if free, _, err := diskSpace(s.opts.Dir); err != nil || free < s.stateReserve()*3/2 {
		return nil
	}
	start := time.Now()
	bytes := s.reclaimable
	s.reclaimable = 0
	n, err := s.state.reclaim(s.stop)
	s.reclaims.Add(1)
	s.reclaimedTo = s.state.fullValueLogs()
	s.log.Debug().Err(err).Uint64("bytes", bytes).Int("count", n).Dur("dur", time.Since(start)).Msg("reclaimed value logs")
	if errors.Is(err, errClosing) {
		return nil
	}
	return err
}

// reclaim rewrites value log files that are at least half dead and returns how many.
func (d *stateDB) reclaim(stop <-chan struct{}) (files int, err error) {
	// Compaction takes two tables: a lone one in level 0 is left alone, by Flatten too.
	for range 2 {
		if err := d.rotate(stop); err != nil {
			return 0, err
		}
		if levels := d.db.Levels(); levels[0].NumTables > 1 || slices.ContainsFunc(levels[1:], func(l badger.LevelInfo) bool { return l.NumTables > 0 }) {
			break
		}
	}
	if err := d.db.Flatten(1); err != nil {
		return 0, fmt.Errorf("storage: reclaim: %w", err)
	}
	// Badger deletes a rewritten file without syncing the moved values first. While an iterator is
	// open it only notes the deletion: the barrier comes before the iterator is closed.
	fence := d.reader()
	defer fence.close()
	for {
		err := d.db.RunValueLogGC(0.5)
		if errors.Is(err, badger.ErrNoRewrite) || errors.Is(err, badger.ErrRejected) {
			break
		}
		if err != nil {
			return files, fmt.Errorf("storage: reclaim: %w", err)
		}
		files++
	}
	return files, d.barrier("reclaim")
}

// rotate writes filler until the memtable is flushed: only tables take part in compaction.
func (d *stateDB) rotate(stop <-chan struct{}) error {
	before, err := d.memtables()
	if err != nil {
		return err
	}
	current := before[len(before)-1]
	filler := make([]byte, fillerSize)
	for i := 1; ; i++ {
		err := d.db.Update(func(txn *badger.Txn) error { return txn.Set([]byte{keyFiller}, filler) })
		if err != nil {
			return fmt.Errorf("storage: reclaim: %w", err)
		}
		if i%128 != 0 {
			continue
		}
		now, err := d.memtables()
		if err != nil {
			return err
		}
		if now[len(now)-1] != current {
			break
		}
	}
	if err := d.db.Update(func(txn *badger.Txn) error { return txn.Delete([]byte{keyFiller}) }); err != nil {
		return fmt.Errorf("storage: reclaim: %w", err)
	}
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(flushTimeout); ; {
		if _, err := os.Lstat(current); errors.Is(err, os.ErrNotExist) {
			return nil
		}
		select {
		case <-stop:
			return errClosing
		case now := <-poll.C:
			if now.After(deadline) {
				return nil // tried again later
			}
		}
	}
}

// memtables lists the logs of Badger's memtables, oldest first; the last one is written to.
func (d *stateDB) memtables() (paths []string, err error) {
	entries, err := os.ReadDir(d.dir)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".mem") {
			paths = append(paths, filepath.Join(d.dir, e.Name()))
		}
	}
	if err == nil && len(paths) == 0 {
		err = errors.New("no memtable log")
	}
	if err != nil {
		return nil, fmt.Errorf("storage: reclaim: %w", err)
	}
	// Numbers have leading zeros up to five digits.
	slices.SortFunc(paths, func(a, b string) int {
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	})
	return paths, nil
}
