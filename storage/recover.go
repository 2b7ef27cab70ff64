package storage

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/settmq/settmq/storage/journal"
)

// RecoveryStats says what Open found.
type RecoveryStats struct {
	Clean    bool // the store had been closed in order
	Queues   int
	Messages uint64 // live
	Batches  uint64 // replayed from the journal
	Bytes    uint64 // their encoded size
	Took     time.Duration
}

// Recovered returns what Open found.
func (s *Store) Recovered() RecoveryStats { return s.recovered }

// recovery is the state of Open while it reads the directory.
type recovery struct {
	s       *Store
	pos     position // of the batch being replayed
	partial bool     // a checkpoint was interrupted: sums need not agree
	sizes   map[*Queue]map[uint64]*wordSizes
	bad     [][]byte // keys given up
	last    struct { // queue used last, and sizes of it
		id   uint64
		q    *Queue
		word uint64
		w    *wordSizes
	}
}

// wordSizes are the sizes of the bodies of 64 messages.
type wordSizes [64]uint32

// recover rebuilds the state: what the last checkpoint left in Badger, then everything the
// journal says since. Both may overlap: replaying an operation again changes nothing.
func (s *Store) recover() error {
	start := time.Now()
	r := &recovery{s: s, sizes: make(map[*Queue]map[uint64]*wordSizes)}
	if err := s.state.barrier("open"); err != nil {
		return err
	}
	if err := r.loadState(); err != nil {
		return err
	}
	if err := r.replay(); err != nil {
		return err
	}
	if err := r.finish(); err != nil {
		return err
	}
	st := &s.recovered
	st.Queues = len(s.queues)
	for _, q := range s.queues {
		st.Messages += q.live.count
	}
	st.Took = time.Since(start)
	s.log.Info().Int("queues", st.Queues).Uint64("count", st.Messages).Uint64("bytes", st.Bytes).
		Bool("clean", st.Clean).Dur("dur", st.Took).Msg("recovered")
	return nil
}

// lose reports something given up under AcceptLoss.
func (s *Store) lose(l Loss) {
	s.losses++
	s.log.Error().Str("where", l.Where).Uint64("queue", l.Queue).Uint64("count", l.Count).Msg("given up: " + l.What)
	if s.opts.OnLoss != nil {
		s.opts.OnLoss(l)
	}
}

// damaged refuses or, under AcceptLoss, reports and goes on.
func (s *Store) damaged(e *CorruptError, count uint64) error {
	if !s.opts.AcceptLoss {
		return e
	}
	s.lose(Loss{Where: e.Where, What: e.Error(), Queue: e.Queue, Count: count})
	return nil
}

// replay reads the journal from the checkpoint on.
func (r *recovery) replay() error {
	s := r.s
	from := s.state.pos.segment
	if from > 0 {
		segs := s.journal.Segments()
		if len(segs) == 0 || segs[0].ID > from || segs[len(segs)-1].ID < from {
			e := &CorruptError{Where: "journal", What: fmt.Sprintf("segment %d, where replay starts, is missing", from)}
			if err := s.damaged(e, 0); err != nil {
				return err
			}
			from = 0
		}
	}
	err := s.journal.Replay(from, func(pos journal.Position, record []byte) error {
		if pos.Offset >= maxSegmentSize {
			return r.corrupt(pos, errRange)
		}
		r.pos = pos
		h, err := replayBatch(record, r)
		if err != nil {
			return r.corrupt(pos, err)
		}
		s.recovered.Batches++
		s.recovered.Bytes += uint64(len(record))
		s.recovered.Clean = h.flags&flagClean != 0
		return nil
	})
	if err != nil {
		return s.journalError(err)
	}
	segs := s.journal.Segments()
	oldest := s.journal.Active()
	if len(segs) > 0 {
		oldest = segs[0].ID
	}
	s.oldest.Store(max(oldest, from))
	s.synced.segment = s.journal.Active()
	return nil
}

// corrupt wraps a batch that decodes to nonsense although the journal vouches for its bytes.
func (r *recovery) corrupt(pos position, err error) error {
	return &CorruptError{Where: "journal batch " + pos.String(), What: "cannot be decoded", Err: err}
}

// queue returns a queue, nil for one that was deleted since.
func (r *recovery) queue(id uint64) *Queue {
	if r.last.q == nil || r.last.id != id {
		r.last.id, r.last.q, r.last.w = id, r.s.queues[id], nil
	}
	return r.last.q
}

func (r *recovery) replayMessage(at uint32, qid, seq, size uint64, transient, shared bool) error {
	q := r.queue(qid)
	if q == nil {
		return nil
	}
	if seq >= 1<<63 {
		return errRange
	}
	q.next = max(q.next, seq+1)
	if transient || seq < q.badgerHi {
		return nil // gone, or what Badger says about it is newer
	}
	r.s.largest.Store(max(r.s.largest.Load(), int64(size)))
	q.live.add(seq, false)
	q.live.setLocation(seq, makeLocation(r.pos, at, shared))
	r.sizesOf(q, seq>>6)[seq&63] = uint32(size)
	return nil
}

// sizesOf returns the sizes in a word of the queue used last.
func (r *recovery) sizesOf(q *Queue, word uint64) *wordSizes {
	if r.last.w != nil && r.last.word == word {
		return r.last.w
	}
	words := r.sizes[q]
	if words == nil {
		words = make(map[uint64]*wordSizes)
		r.sizes[q] = words
	}
	w := words[word]
	if w == nil {
		w = new(wordSizes)
		words[word] = w
	}
	r.last.word, r.last.w = word, w
	return w
}

func (r *recovery) replaySettle(qid, lo, hi uint64) error {
	q := r.queue(qid)
	if q == nil {
		return nil
	}
	q.changed = true
	if hi == lo+1 {
		q.live.remove(lo)
	} else {
		q.live.removeRange(lo, hi)
	}
	return nil
}

func (r *recovery) replayLimit(qid, upTo uint64, exact bool) error {
	if q := r.queue(qid); q != nil {
		q.changed = true
		if exact || upTo > q.limit.Load() {
			q.limit.Store(upTo)
		}
	}
	return nil
}

func (r *recovery) replayNote(qid, seq uint64, n *Note) error {
	if q := r.queue(qid); q != nil && q.live.setNote(seq, n) {
		q.changed = true
	}
	return nil
}

func (r *recovery) replayPut(k, v []byte) error {
	r.s.overlay[string(k)] = overlayEntry{value: append([]byte{}, v...)}
	return nil
}

func (r *recovery) replayDelete(k []byte) error {
	r.s.overlay[string(k)] = overlayEntry{deleted: true}
	return nil
}

func (r *recovery) replayCreate(qid, limit uint64) error {
	s := r.s
	r.last.q = nil
	if s.queues[qid] == nil {
		s.queues[qid] = newQueue(s, qid, limit)
	}
	s.nextID = max(s.nextID, qid+1)
	return nil
}

func (r *recovery) replayDrop(qid uint64) error {
	s := r.s
	r.last.q = nil
	if q := s.queues[qid]; q != nil {
		q.deleted = true
		delete(s.queues, qid)
		s.deleted = append(s.deleted, q)
	}
	return nil
}

func (r *recovery) replayIDs(upTo uint64) error {
	r.s.reservedIDs = max(r.s.reservedIDs, upTo)
	return nil
}

// finish derives the rest of the state and checks that every live message is where it should be.
func (r *recovery) finish() error {
	s := r.s
	s.nextID = max(s.nextID, s.reservedIDs)
	s.reservedIDs = s.nextID
	// What earlier runs deleted is not known: it is looked for if space is short.
	s.reclaimable = reclaimIfShort
	s.reclaimedTo = s.state.fullValueLogs()
	for _, q := range s.queues {
		q.taken = q.next
		q.requested.Store(q.limit.Load())
		q.written = q.limit.Load()
		q.redeliveredBelow = min(q.limit.Load(), q.next)
		q.delivered.Store(q.redeliveredBelow)
		n, err := r.stateBytes(q)
		if err != nil {
			return err
		}
		q.recoveredBytes = n + r.journalBytes(q)
		q.averageRecorded()
	}
	r.sizes = nil
	return nil
}

// journalBytes adds up the bodies of a queue's live messages in the journal.
func (r *recovery) journalBytes(q *Queue) (n uint64) {
	words := r.sizes[q]
	if words == nil {
		return 0
	}
	q.live.each(q.badgerHi, func(seq uint64, _ location) bool {
		if w := words[seq>>6]; w != nil {
			n += uint64(w[seq&63])
		}
		return true
	})
	return n
}

// loadState reads what the last checkpoint left.
func (r *recovery) loadState() error {
	s := r.s
	d := s.state
	p, err := d.get([]byte{keyPosition})
	if err != nil {
		return err
	}
	if p != nil {
		if err := d.pos.decode(p); err != nil {
			return &CorruptError{Where: "checkpoint position", What: "cannot be decoded", Err: err}
		}
	}
	begun, err := d.get([]byte{keyBegun})
	if err != nil {
		return err
	}
	if len(begun) == 8 && binary.LittleEndian.Uint64(begun) > d.pos.number {
		r.partial = true
		d.pos.number = binary.LittleEndian.Uint64(begun)
	}
	s.nextID = max(s.nextID, d.pos.ids)
	s.reservedIDs = s.nextID
	return r.loadQueues()
}
