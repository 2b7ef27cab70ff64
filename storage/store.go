package storage

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/settmq/settmq/storage/journal"
)

// position is a place in the journal.
type position = journal.Position

// Options configure a store. The zero value of every field but Dir means its default.
type Options struct {
	// Dir holds everything; it is created if need be.
	Dir string
	// JournalSegment is the size of a journal segment in bytes, at most and by default 64 MiB.
	JournalSegment int64
	// JournalMax is the size past which the journal's oldest part is moved to Badger, by default
	// 512 MiB. Publishers are held when the journal reaches twice that.
	JournalMax int64
	// CommitBudget bounds the bytes of messages appended and not yet synced, by default 16 MiB.
	// Reserve holds publishers above it.
	CommitBudget int64
	// MinFree is the free disk space below which publishers are held, by default 64 MiB; it is
	// raised to what a checkpoint may need. What is there already can still be consumed.
	MinFree int64
	// Small makes the state database use less memory and disk space. It is set, and the journal's
	// defaults are lowered, on disks of less than 4 GiB.
	Small bool
	// FS is the journal's file system, nil for the real one. It is a seam for tests: the state
	// database is always on the real one.
	FS journal.FS
	// AcceptLoss opens a damaged directory: what cannot be read is dropped and told to OnLoss.
	AcceptLoss bool
	// OnLoss is told everything AcceptLoss drops, before Open returns.
	OnLoss func(Loss)
	// OnFailure is called once, from its own goroutine, when the first write or sync has failed.
	// Nothing is confirmed any more; the process should exit.
	OnFailure func(error)
	// OnSpace is called when the store starts (true) and stops (false) holding publishers for want
	// of disk space, from a goroutine of the store. It must not block.
	OnSpace func(low bool)
	// Log gets the store's life cycle.
	Log zerolog.Logger
	// SyncDelay is slept before every sync of the journal: an injected slow disk.
	SyncDelay time.Duration

	// Seams of this package's tests.
	afterBarrier func(step string)      // what was written to Badger so far is durable
	journalDir   string                 // instead of Dir/journal
	overdue      func() bool            // instead of closeTime having passed
	paused       func(what string) bool // the checkpointer leaves "checkpoints" or "reclaims"
}

// Loss is something that AcceptLoss gave up.
type Loss struct {
	Where string // file, key or position
	What  string // what is lost, and why
	Queue uint64 // the queue concerned, 0 if none
	Count uint64 // messages lost, if known
}

const (
	defaultSegment = 64 << 20
	defaultMax     = 512 << 20
	defaultBudget  = 16 << 20
	defaultMinFree = 64 << 20
)

func (o *Options) defaults() error {
	if o.JournalSegment == 0 {
		o.JournalSegment = defaultSegment
	}
	if o.JournalMax == 0 {
		o.JournalMax = defaultMax
	}
	if o.CommitBudget == 0 {
		o.CommitBudget = defaultBudget
	}
	if o.MinFree == 0 {
		o.MinFree = defaultMinFree
	}
	switch {
	case o.JournalSegment < 16<<10 || o.JournalSegment > maxSegmentSize:
		return fmt.Errorf("storage: journal segment of %d bytes is not between 16 KiB and 64 MiB", o.JournalSegment)
	case o.JournalMax < 2*o.JournalSegment:
		return fmt.Errorf("storage: journal of %d bytes is less than two segments of %d", o.JournalMax, o.JournalSegment)
	case o.JournalMax/o.JournalSegment > maxSegments/8:
		return fmt.Errorf("storage: journal of %d bytes has more than %d segments of %d", o.JournalMax, maxSegments/8, o.JournalSegment)
	case o.CommitBudget < 0 || o.MinFree < 0:
		return errors.New("storage: negative size")
	}
	return nil
}

// Store is an open directory. All methods may be called from any goroutine.
type Store struct {
	// Immutable after Open.
	opts      Options
	log       zerolog.Logger
	lock      *dirLock
	journal   *journal.Journal
	state     *stateDB
	committer *committer
	recovered RecoveryStats
	losses    int // given up by Open

	wake           chan struct{} // to the committer, capacity 1
	checkpointWake chan struct{} // to the checkpointer, capacity 1
	checkpointNow  chan chan error
	stop           chan struct{} // closed by Close
	spaceFreed     chan struct{} // to the committer waiting for disk space, capacity 1
	committerDone  chan struct{}
	checkpointDone chan struct{}

	mu          sync.Mutex // after Queue.mu
	queues      map[uint64]*Queue
	deleted     []*Queue // deletions not yet checkpointed
	dirty       []*Queue // queues with something pending
	urgent      bool     // somebody waits for what is pending
	metaBuf     []byte   // encoded changes not yet in a batch
	tickets     []*Ticket
	overlay     map[string]overlayEntry
	stamp       uint64 // of the last Apply
	nextID      uint64
	reservedIDs uint64
	closed      bool
	dead        *failure

	synced struct { // what the last sync covered
		mu      sync.Mutex
		cond    sync.Cond
		stamp   uint64
		segment uint64 // where the last synced batch starts
		over    bool   // nothing will be synced any more
	}

	gate struct { // where publishers wait
		mu   sync.Mutex
		cond sync.Cond
	}
	held      atomic.Uint32 // reasons to hold publishers, bits below
	unwritten atomic.Int64  // bytes appended and not yet synced

	// readGate is held for reading while journal positions are used and for writing, briefly, after
	// positions were withdrawn and before their segments are recycled. Readers do disk I/O under it.
	readGate    sync.RWMutex
	filesClosed bool          // guarded by readGate
	oldest      atomic.Uint64 // oldest segment that may hold anything live

	batches, checkpoints, reclaims atomic.Uint64
	measures                       measures
	allotted                       atomic.Int64 // bytes a running checkpoint may take of the disk
	largest                        atomic.Int64 // size of the largest message written or recovered
	deadBytes                      atomic.Int64 // estimate of what settled in Badger since the last clean-up
	reclaimable                    uint64       // deleted from Badger since the last reclaim; owned by the checkpointer
	reclaimedTo                    uint64       // bytes of full value logs after it, or when the store was opened; owned by the checkpointer
}

const (
	heldDead    = 1 << iota // failed or closed
	heldNoSpace             // a batch found no space
	heldLowDisk             // less than MinFree
	heldJournal             // the checkpointer cannot keep up
	heldLog                 // a log beside the journal found no space
)

// Open locks and opens a directory, creating it if need be, and recovers what is in it. It returns
// ErrLocked, ErrNewerFormat, ErrDiskFull or a *CorruptError, possibly wrapped, if that is why it
// failed. Metadata is read with Scan, queues by their ids with Queue.
func Open(o Options) (*Store, error) {
	if o.Dir == "" {
		return nil, errors.New("storage: no directory given")
	}
	if err := os.MkdirAll(o.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("storage: %w", err)
	}
	if err := errors.Join(o.scale(), o.defaults()); err != nil {
		return nil, err
	}
	s := &Store{
		opts:           o,
		log:            o.Log.With().Str("component", "storage").Logger(),
		wake:           make(chan struct{}, 1),
		checkpointWake: make(chan struct{}, 1),
		checkpointNow:  make(chan chan error),
		stop:           make(chan struct{}),
		spaceFreed:     make(chan struct{}, 1),
		committerDone:  make(chan struct{}),
		checkpointDone: make(chan struct{}),
		queues:         make(map[uint64]*Queue),
		overlay:        make(map[string]overlayEntry),
		nextID:         1,
		reservedIDs:    1,
	}
	s.synced.cond.L = &s.synced.mu
	s.gate.cond.L = &s.gate.mu
	s.committer = &committer{s: s}
	if err := s.open(); err != nil {
		_ = s.closeFiles() // nothing is owed to a store that did not open
		return nil, err
	}
	go s.committer.run()
	go s.checkpointer()
	return s, nil
}

func (s *Store) open() (err error) {
	if s.lock, err = lockDir(s.opts.Dir); err != nil {
		return err
	}
	if err := checkFormat(s.opts.Dir); err != nil {
		return err
	}
	if err := s.checkSpaceForOpen(); err != nil {
		return err
	}
	if s.state, err = openState(s, filepath.Join(s.opts.Dir, "state")); err != nil {
		return err
	}
	s.journal, err = journal.Open(journal.Options{
		FS:          s.opts.FS,
		Dir:         cmp.Or(s.opts.journalDir, filepath.Join(s.opts.Dir, "journal")),
		SegmentSize: s.opts.JournalSegment,
		AcceptLoss:  s.opts.AcceptLoss,
		OnLoss:      s.journalLoss,
	})
	if err != nil {
		return s.journalError(err)
	}
	return s.recover()
}

// Close commits and syncs everything pending, moves what little lives in the journal to Badger,
// writes the exact delivery limits and closes the directory. Nobody may append or settle any more.
// After a failure it returns that failure.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.closed = true
	s.mu.Unlock()
	s.setHeld(heldDead, true)
	close(s.stop)
	s.wakeCommitter()
	<-s.committerDone
	s.synced.mu.Lock()
	s.synced.over = true
	s.synced.cond.Broadcast()
	s.synced.mu.Unlock()
	<-s.checkpointDone
	err := s.failure()
	if err == nil {
		err = s.checkpointOnClose()
	}
	if err == nil {
		err = s.writeCleanMark()
	}
	return errors.Join(err, s.closeFiles())
}

func (s *Store) closeFiles() error {
	s.readGate.Lock()
	s.filesClosed = true
	s.readGate.Unlock()
	var errs []error
	if s.journal != nil {
		errs = append(errs, s.journal.Close())
	}
	if s.state != nil {
		errs = append(errs, s.state.close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.release())
	}
	return errors.Join(errs...)
}

// writeCleanMark ends an orderly life: it lowers every delivery limit to what was handed out.
func (s *Store) writeCleanMark() error {
	w := &s.committer.w
	w.reset()
	msgEnd := w.offset()
	s.mu.Lock()
	for _, q := range s.queues {
		q.mu.Lock()
		if exact := min(q.delivered.Load(), q.limit.Load()); exact != q.limit.Load() {
			w.limit(opExact, q.id, exact)
		}
		q.mu.Unlock()
	}
	s.mu.Unlock()
	if _, err := s.journal.Append(w.finish(msgEnd, w.offset(), flagClean)); err != nil {
		return fmt.Errorf("storage: closing: %w", err)
	}
	if err := s.journal.Sync(); err != nil {
		return fmt.Errorf("storage: closing: %w", err)
	}
	return nil
}

// Reserve is called by a publisher, with no lock held, before it appends n bytes. It blocks while
// the commit budget is used up or there is no disk space, and returns an error once the store is
// closed or has failed. The only place where a publisher waits for the disk.
func (s *Store) Reserve(n int) error {
	if s.held.Load() == 0 && s.roomFor(n) {
		return nil
	}
	s.measures.stalls.Add(1)
	start := time.Now()
	defer func() { s.measures.stalled.Add(int64(time.Since(start))) }()
	s.gate.mu.Lock()
	defer s.gate.mu.Unlock()
	for {
		held := s.held.Load()
		if held&heldDead != 0 {
			return s.goneError()
		}
		if held == 0 && s.roomFor(n) {
			return nil
		}
		s.gate.cond.Wait()
	}
}

func (s *Store) roomFor(n int) bool {
	u := s.unwritten.Load()
	// A message larger than the budget passes alone.
	return u <= 0 || u+int64(n) <= s.opts.CommitBudget
}

// release gives budget back and lets publishers look again.
func (s *Store) release(n int64) {
	if n == 0 {
		return
	}
	s.unwritten.Add(-n)
	s.gate.mu.Lock()
	s.gate.cond.Broadcast()
	s.gate.mu.Unlock()
}

// setHeld sets or clears a reason to hold publishers.
func (s *Store) setHeld(bit uint32, on bool) {
	const space = heldNoSpace | heldLowDisk | heldLog
	for {
		old := s.held.Load()
		now := old &^ bit
		if on {
			now |= bit
		}
		if old == now {
			return
		}
		if !s.held.CompareAndSwap(old, now) {
			continue
		}
		s.gate.mu.Lock()
		s.gate.cond.Broadcast()
		s.gate.mu.Unlock()
		if was, is := old&space != 0, now&space != 0; was != is {
			s.log.Warn().Bool("low", is).Msg("disk space for the store")
			if s.opts.OnSpace != nil {
				s.opts.OnSpace(is)
			}
		}
		return
	}
}

// fail ends the store: nothing is confirmed after the first write or sync error.
func (s *Store) fail(err error) {
	s.mu.Lock()
	if s.dead != nil {
		s.mu.Unlock()
		return
	}
	s.dead = &failure{err}
	tickets := s.tickets
	s.tickets = nil
	s.mu.Unlock()
	s.log.Error().Err(err).Msg("store failed")
	s.setHeld(heldDead, true)
	s.synced.mu.Lock()
	s.synced.over = true
	s.synced.cond.Broadcast()
	s.synced.mu.Unlock()
	s.wakeCommitter()
	for _, t := range tickets {
		t.resolve(&FailedError{err})
	}
	if s.opts.OnFailure != nil {
		go s.opts.OnFailure(err)
	}
}

// failure returns the store's cause of death, nil while it lives.
func (s *Store) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead == nil {
		return nil
	}
	return &FailedError{s.dead.err}
}

func (s *Store) goneError() error {
	if err := s.failure(); err != nil {
		return err
	}
	return ErrClosed
}

func (s *Store) aliveLocked() error {
	switch {
	case s.dead != nil:
		return &FailedError{s.dead.err}
	case s.closed:
		return ErrClosed
	}
	return nil
}

// enqueueDirty puts a queue on the committer's list. The queue's lock is held.
func (s *Store) enqueueDirty(q *Queue, add, urgent bool) {
	s.mu.Lock()
	if add {
		s.dirty = append(s.dirty, q)
	}
	wake := urgent && !s.urgent || add && len(s.dirty) == 1
	s.urgent = s.urgent || urgent
	s.mu.Unlock()
	if wake {
		s.wakeCommitter()
	}
}

func (s *Store) wakeCommitter() { signal(s.wake) }

// signal makes sure that the receiver looks once more.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// workWaiting tells the committer what it woke for. left says that it has queues in hand.
func (s *Store) workWaiting(left bool) (work, urgent, closing bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead != nil {
		return false, false, true
	}
	urgent = s.urgent || left || len(s.tickets) > 0
	return urgent || len(s.dirty) > 0 || len(s.metaBuf) > 0, urgent, s.closed
}

// idleAndClosed reports whether the store is closed and no queue has anything to write: what is still early then
// follows messages that will not be written any more.
func (s *Store) idleAndClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed && len(s.dirty) == 0
}

// afterSync publishes how far the journal is durable.
func (s *Store) afterSync(pos position, stamp uint64) {
	s.synced.mu.Lock()
	rolled := s.synced.segment != pos.Segment
	s.synced.segment = pos.Segment
	s.synced.stamp = stamp
	s.synced.cond.Broadcast()
	s.synced.mu.Unlock()
	if rolled {
		s.watchSpace()
		signal(s.checkpointWake)
	}
}

// awaitSpace waits until space may have been freed or d has passed; false: the store is closing.
func (s *Store) awaitSpace(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-s.stop:
		return false
	case <-s.spaceFreed:
	case <-t.C:
	}
	return true
}

func isNoSpace(err error) bool { return errors.Is(err, journal.ErrNoSpace) }

// journalLoss passes on what the journal gave up.
func (s *Store) journalLoss(l journal.Loss) {
	s.lose(Loss{Where: l.File, What: fmt.Sprintf("journal from %v to %v: %s", l.From, l.To, l.What)})
}

// journalError turns the journal's report of damage into this package's.
func (s *Store) journalError(err error) error {
	var c *journal.CorruptError
	if errors.As(err, &c) {
		return &CorruptError{Where: fmt.Sprintf("%s at byte %d", c.File, c.Offset), What: c.What, Err: c.Err}
	}
	if errors.Is(err, journal.ErrNewerFormat) {
		return fmt.Errorf("%w: %w", ErrNewerFormat, err)
	}
	return fmt.Errorf("storage: %w", err)
}
