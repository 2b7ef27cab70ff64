package storage

import (
	"errors"
	"time"
)

// The checkpointer decides when to checkpoint and reclaim, and watches the disk.

const (
	// spaceInterval is how often free space is looked at.
	spaceInterval = time.Second
	// idleClean is how long dead bytes may stay in Badger when nothing else asks for a checkpoint.
	idleClean = 30 * time.Second
	// closeTime is how long Close may checkpoint.
	closeTime = 500 * time.Millisecond
)

// checkpointer runs until the store is closed or has failed.
func (s *Store) checkpointer() {
	defer close(s.checkpointDone)
	ticker := time.NewTicker(spaceInterval)
	defer ticker.Stop()
	lastClean := time.Now()
	// Deletions that the last run did not finish.
	if err := s.state.dropQueues(s.state.writer()); err != nil {
		s.fail(err)
		return
	}
	// What was given up must be gone for good, so that the next Open does not meet it.
	if s.losses > 0 {
		if err := s.checkpointTo(s.lastSynced()); err != nil {
			s.fail(err)
			return
		}
	}
	for {
		var reply chan error
		idle := false
		select {
		case <-s.stop:
			return
		case reply = <-s.checkpointNow:
		case <-s.checkpointWake:
		case now := <-ticker.C:
			if idle = now.Sub(lastClean) > idleClean; idle {
				lastClean = now
			}
		}
		s.watchSpace() // also whenever a segment was begun
		err := s.failure()
		if err == nil && !s.paused("checkpoints") {
			err = s.checkpointWhileNeeded(reply != nil, idle)
		}
		if err == nil {
			err = s.reclaimIfNeeded(idle)
		}
		if reply != nil {
			reply <- err
		}
		if err != nil {
			if !errors.Is(err, errClosing) {
				s.fail(err)
			}
			return
		}
	}
}

// checkpointWhileNeeded brings the journal below its maximum. forced makes it take everything but
// the active segment.
func (s *Store) checkpointWhileNeeded(forced, idle bool) error {
	for first := true; ; first = false {
		upTo, need := s.checkpointTarget()
		if first && forced {
			upTo, need = s.lastSynced(), true
		}
		if first && !need {
			dead := s.deadBytes.Load()
			something := dead > 0 || s.anyDeleted()
			need = dead >= s.cleanTrigger() || idle && something
			if last := s.lastSynced(); s.shortOfSpace() && (something || last > upTo) {
				upTo, need = last, true // whatever it frees
			}
		}
		if !need {
			return nil
		}
		upTo, ok := s.spaceForCheckpoint(upTo)
		if !ok {
			return nil
		}
		err := s.checkpointTo(upTo)
		s.allotted.Store(0)
		if err == nil {
			// Not only when nothing is to be moved any more: under load that may be too late, for
			// reclaiming takes some free space itself.
			err = s.reclaimIfNeeded(idle)
		}
		if err != nil {
			return err
		}
		s.journalSize()
		s.watchSpace()
		select {
		case <-s.stop:
			return nil
		default:
		}
	}
}

// checkpointTarget says up to which segment the journal should be given back.
func (s *Store) checkpointTarget() (upTo uint64, need bool) {
	oldest := s.oldest.Load()
	if s.journalSize() <= s.opts.JournalMax {
		return oldest, false
	}
	last := s.lastSynced()
	n := last - oldest
	if n == 0 {
		return oldest, false
	}
	return oldest + max(1, n/4), true
}

// journalSize returns the journal's bytes on disk, and holds publishers when the checkpointer
// cannot keep up with them.
func (s *Store) journalSize() (n int64) {
	for _, seg := range s.journal.Segments() {
		n += seg.Size
	}
	// A checkpoint must be able to help: a record larger than the journal's maximum ends up here too.
	s.setHeld(heldJournal, n > 2*s.opts.JournalMax && s.lastSynced() > s.oldest.Load())
	return n
}

// lastSynced is the segment in which the last synced batch starts: everything in older segments is
// synced and known to the queues.
func (s *Store) lastSynced() uint64 {
	s.synced.mu.Lock()
	defer s.synced.mu.Unlock()
	return s.synced.segment
}

// checkpointOnClose spares the next Open to replay a journal in which hardly anything is alive. A
// backlog stays there: replaying it takes less time than moving it. What turns out to take longer
// than closeTime is given up: the journal still has everything. Called when nobody commits any more.
func (s *Store) checkpointOnClose() error {
	last := s.lastSynced()
	var replay int64
	for _, seg := range s.journal.Segments() {
		if seg.ID < last {
			replay += seg.Size
		}
	}
	if replay < s.opts.JournalSegment/2 || s.waitingBytes(last) > s.opts.JournalSegment {
		return nil
	}
	if upTo, ok := s.spaceForCheckpoint(last); !ok || upTo < last {
		return nil
	}
	overdue := s.opts.overdue
	if overdue == nil {
		until := time.Now().Add(closeTime)
		overdue = func() bool { return time.Now().After(until) }
	}
	if err := s.checkpointUnless(last, overdue); !errors.Is(err, errClosing) {
		return err
	}
	s.log.Debug().Dur("dur", closeTime).Msg("checkpoint given up")
	return nil
}

// waitingBytes is an upper bound of what a checkpoint of the segments below upTo would move.
func (s *Store) waitingBytes(upTo uint64) (n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	oldest := s.oldest.Load()
	for _, q := range s.queues {
		q.mu.Lock()
		q.live.each(q.badgerHi, func(_ uint64, l location) bool {
			n += s.largest.Load()
			return n <= s.opts.JournalSegment && l.segment(oldest) < upTo
		})
		q.mu.Unlock()
	}
	return n
}

func (s *Store) anyDeleted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.deleted) > 0
}

func (s *Store) paused(what string) bool { return s.opts.paused != nil && s.opts.paused(what) }

// checkpointNowAndWait is for tests: it checkpoints everything but the active segment.
func (s *Store) checkpointNowAndWait() error {
	reply := make(chan error, 1)
	select {
	case s.checkpointNow <- reply:
		return <-reply
	case <-s.checkpointDone:
		return s.goneError()
	}
}
