package journal

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
)

const (
	defaultSegment = 64 << 20
	defaultSpares  = 2
	// firstSegment is the size of the first segment of a new log; see the package
	// comment.
	firstSegment = 4 << 20
)

// Options say where the log is and how it is cut.
type Options struct {
	// FS is the file system; nil is OS{}.
	FS FS
	// Dir holds the segments and nothing else. It is made if it does not exist. The
	// caller makes sure that only one Journal works in it.
	Dir string
	// SegmentSize is the size of a full-grown segment in bytes, rounded up to a multiple
	// of 4096; 0 is 64 MiB, the least is 8 KiB, the most 1 GiB. It may change between
	// runs.
	SegmentSize int64
	// Spares is how many released segments are kept for reuse; 0 is 2, negative none.
	Spares int
	// AcceptLoss makes Replay go on behind corruption instead of refusing. The damaged
	// stretch is marked on disk as given up, so that later runs do without the option.
	AcceptLoss bool
	// OnLoss is called by Replay for everything AcceptLoss gives up; may be nil.
	OnLoss func(Loss)
}

// Position is where a record starts: its first fragment. Positions of later records
// are greater (segment first, then offset).
type Position struct {
	Segment uint64
	Offset  uint32
}

// Less orders positions as the log does.
func (p Position) Less(q Position) bool {
	return p.Segment < q.Segment || p.Segment == q.Segment && p.Offset < q.Offset
}

func (p Position) String() string { return fmt.Sprintf("%d:%d", p.Segment, p.Offset) }

// SegmentInfo describes one segment of the log.
type SegmentInfo struct {
	ID   uint64
	Size int64 // bytes on disk
	Used int64 // bytes up to the end of its last fragment
}

// Journal is an open log. Append and Replay belong to one goroutine at a time; Sync may
// run beside an Append; everything else may be called from any goroutine.
type Journal struct {
	opts Options // immutable

	keeperDone chan struct{} // closed when the keeper has ended
	hurry      atomic.Bool   // an Append waits for a segment
	stopFill   atomic.Bool   // Close waits for the keeper
	closed     atomic.Bool   // Close was called

	syncMu sync.Mutex // one Sync at a time; before wmu

	// wmu guards the writing end. After syncMu, before mu.
	wmu     sync.Mutex
	active  *segment
	off     int64      // where the next fragment goes
	seq     uint64     // its sequence
	link    uint32     // and its link
	epoch   uint32     // of this Open
	flags   uint8      // flagEpoch until the first fragment is written
	tail    []byte     // what the page at off holds before off
	dirty   []*segment // written to since the last Sync
	run     run        // scratch of Append
	ended   bool       // Replay is done
	replays bool       // Replay was started

	mu        sync.Mutex
	cond      *sync.Cond // on mu: keeper and those who wait for it
	err       error      // first failure; sticky
	synced    uint64     // highest sequence known to be durable
	segments  []*segment // the log, ascending; the last one is active
	ready     []*segment // prepared, ids go on from the active one's
	wantReady int
	noSpace   error      // why the last preparation failed
	spares    []string   // paths
	retired   []*segment // on their way out
	idle      bool       // the keeper has nothing to do
	closing   bool
	recovery  Recovery
}

// Open opens the log in o.Dir, or begins one. It reads only the heads of the segments;
// Replay must follow before anything else.
func Open(o Options) (*Journal, error) {
	if o.FS == nil {
		o.FS = OS{}
	}
	if o.SegmentSize == 0 {
		o.SegmentSize = defaultSegment
	}
	if o.SegmentSize < minSegment || o.SegmentSize > maxSegment {
		return nil, fmt.Errorf("journal: segment size %d is not within %d and %d", o.SegmentSize, minSegment, maxSegment)
	}
	o.SegmentSize = (o.SegmentSize + pageSize - 1) &^ (pageSize - 1)
	if o.Spares == 0 {
		o.Spares = defaultSpares
	}
	j := &Journal{opts: o, keeperDone: make(chan struct{}), flags: flagEpoch}
	j.cond = sync.NewCond(&j.mu)
	j.epoch = uint32(newSalt())
	if err := j.load(); err != nil {
		return nil, errors.Join(err, j.closeFiles())
	}
	go j.keeper()
	return j, nil
}

// load finds the segments and clears away what an interrupted run left.
func (j *Journal) load() error {
	o := &j.opts
	if err := o.FS.MkdirAll(o.Dir); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	l, err := list(o.FS, o.Dir)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if len(l.segments) == 0 {
		// The directory may be new: its own name must last. Who may not read the parent
		// has not made it either.
		if err := o.FS.SyncDir(filepath.Dir(o.Dir)); err != nil && !errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("journal: %w", err)
		}
	}
	for _, path := range l.leftover {
		if err := o.FS.Remove(path); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
	}
	for _, path := range l.spares {
		if err := j.loadSpare(path); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
	}
	// A killed process may have named a segment and not come to make that last; what follows goes into it.
	if err := o.FS.SyncDir(o.Dir); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	for _, id := range l.segments {
		s, err := openSegment(o.FS, filepath.Join(o.Dir, segName(id)), id)
		if err != nil {
			return err
		}
		j.segments = append(j.segments, s)
	}
	return nil
}

// loadSpare keeps a spare of today's size and removes any other.
func (j *Journal) loadSpare(path string) error {
	f, err := j.opts.FS.OpenFile(path, false)
	if err != nil {
		return err
	}
	size, err := f.Size()
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if size == j.opts.SegmentSize && len(j.spares) < j.opts.Spares {
		j.spares = append(j.spares, path)
		return nil
	}
	return j.opts.FS.Remove(path)
}

// failLocked records the first failure; mu is held.
func (j *Journal) failLocked(err error) {
	if j.err == nil {
		j.err = err
	}
	j.cond.Broadcast()
}

func (j *Journal) fail(err error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.failLocked(err)
	return j.err
}

// Err returns the failure that ended this journal, or nil. It is what every later
// Append and Sync returns.
func (j *Journal) Err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err
}

// usable returns why nothing may be written, or nil.
func (j *Journal) usable() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closing {
		return ErrClosed
	}
	return j.err
}

// Segments lists the log's segments, oldest first.
func (j *Journal) Segments() []SegmentInfo {
	j.mu.Lock()
	defer j.mu.Unlock()
	infos := make([]SegmentInfo, len(j.segments))
	for i, s := range j.segments {
		infos[i] = SegmentInfo{ID: s.id, Size: s.size, Used: s.used.Load()}
	}
	return infos
}

// Active returns the id of the segment that is being written to, 0 before Replay in a
// new log.
func (j *Journal) Active() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.segments) == 0 {
		return 0
	}
	return j.segments[len(j.segments)-1].id
}

// Free returns the bytes that are still free on the log's disk.
func (j *Journal) Free() (uint64, error) { return j.opts.FS.Free(j.opts.Dir) }

// Release says that segments with id < upTo are not needed any more. They are reused
// or deleted by the keeper some time later; reads from them fail with ErrReleased from
// now on. The active segment is never released, nor one whose successor does not
// yet begin with a durable record: it stays until a later Release.
func (j *Journal) Release(upTo uint64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return j.err
	}
	if j.closing {
		return ErrClosed
	}
	n := 0
	for i := 1; i < len(j.segments); i++ {
		if first := j.segments[i].firstSeq.Load(); j.segments[i-1].id >= upTo || first == 0 || first > j.synced {
			break
		}
		n = i
	}
	if n > 0 {
		j.retired = append(j.retired, j.segments[:n]...)
		j.segments = append([]*segment(nil), j.segments[n:]...)
		j.cond.Broadcast()
	}
	return nil
}

// lookup finds a segment of the log.
func (j *Journal) lookup(id uint64) (*segment, error) {
	return j.find(id, func(s *segment) bool { return s.id == id })
}

// following finds the segment behind id; with skip ids may be missing in between, as
// they are behind an accepted loss.
func (j *Journal) following(id uint64, skip bool) (*segment, error) {
	return j.find(id+1, func(s *segment) bool { return s.id == id+1 || skip && s.id > id })
}

func (j *Journal) find(id uint64, match func(*segment) bool) (*segment, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closing {
		return nil, ErrClosed
	}
	if i := slices.IndexFunc(j.segments, match); i >= 0 {
		return j.segments[i], nil
	}
	return nil, fmt.Errorf("%w: %d", ErrReleased, id)
}

// forget and remember keep the list right while Replay swaps a lost segment.
func (j *Journal) forget(s *segment) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.segments = slices.DeleteFunc(slices.Clone(j.segments), func(t *segment) bool { return s == t })
}

func (j *Journal) remember(s *segment) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.segments = append(slices.Clone(j.segments), s)
	slices.SortFunc(j.segments, func(a, b *segment) int { return cmp.Compare(a.id, b.id) })
}

// Close syncs what was appended, leaves a durable mark behind it and closes the files.
// After a failure it only closes them, and returns the failure.
func (j *Journal) Close() error {
	if j.closed.Swap(true) {
		return ErrClosed
	}
	var err error
	j.wmu.Lock()
	ended := j.ended
	j.wmu.Unlock()
	if ended {
		if err = j.Sync(); err == nil {
			err = j.syncMark()
		}
	}
	j.mu.Lock()
	j.closing = true
	j.stopFill.Store(true)
	j.cond.Broadcast()
	j.mu.Unlock()
	<-j.keeperDone
	return errors.Join(err, j.closeFiles())
}

func (j *Journal) closeFiles() error {
	j.wmu.Lock()
	defer j.wmu.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	var errs []error
	for _, s := range append(append(j.segments, j.ready...), j.retired...) {
		errs = append(errs, s.retire())
	}
	return errors.Join(errs...)
}
