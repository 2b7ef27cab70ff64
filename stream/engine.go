package stream

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/storage/journal"
)

// Store is what streams share with the broker's store: one budget for what is not on disk yet, one gate at which
// publishers wait, one death.
type Store interface {
	// Charge adds to the bytes that wait for the disk; n < 0 takes them back.
	Charge(n int64)
	// HoldForSpace holds publishers while a stream finds no room on the disk.
	HoldForSpace(on bool)
	// Fail ends the store after a failed write or sync.
	Fail(err error)
}

// EngineOptions configure an engine.
type EngineOptions struct {
	// Dir holds the streams' files; it is created if need be.
	Dir string
	// FS is the file system, nil for the real one.
	FS    journal.FS
	Store Store
	Log   zerolog.Logger
	// Now is the clock, nil for the real one.
	Now func() time.Time
}

const (
	// committers bounds how many streams are synced at once.
	committers = 4
	// retentionInterval is how often the age of segments is looked at, beside whenever one is ended.
	retentionInterval = 30 * time.Second
	// spaceRetry is how often a chunk that found no disk space is tried again.
	spaceRetry = time.Second
	// maxResting bounds the buffers of consumers that wait for credit in the middle of one.
	maxResting = 64
)

// Engine owns the files of all streams and the goroutines that write and read them.
type Engine struct {
	o     EngineOptions
	found map[uint64][]uint64 // segments of streams not opened yet

	commits workList[*Stream]
	reads   workList[*consumer]
	stop    chan struct{}
	limits  chan struct{} // to the keeper, capacity 1: limits have changed
	running sync.WaitGroup
	resting atomic.Int32 // blocks of consumers that wait

	mu      sync.Mutex
	streams map[uint64]*Stream
	dead    bool
	short   int // streams that wait for disk space
}

// OpenEngine lists what is in the directory. Open the streams, then call Start.
func OpenEngine(o EngineOptions) (*Engine, error) {
	if o.FS == nil {
		o.FS = journal.OS{}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Log = o.Log.With().Str("component", "stream").Logger()
	e := &Engine{o: o, stop: make(chan struct{}), limits: make(chan struct{}, 1), streams: make(map[uint64]*Stream)}
	e.commits.init()
	e.reads.init()
	if err := errors.Join(o.FS.MkdirAll(o.Dir), o.FS.SyncDir(filepath.Dir(o.Dir))); err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	found, err := listSegments(o.FS, o.Dir)
	if err != nil {
		return nil, err
	}
	// A killed process may have made a segment whose name does not last yet; what follows goes into it.
	if err := o.FS.SyncDir(o.Dir); err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	e.found = found
	return e, nil
}

// Start removes the files of streams that were deleted, and begins to write and read.
func (e *Engine) Start() error {
	for id, bases := range e.found {
		l := &segmentLog{fs: e.o.FS, dir: e.o.Dir, id: id}
		for _, base := range bases {
			l.segs = append(l.segs, &segment{log: l, base: base})
		}
		if err := l.removeAll(); err != nil {
			return fmt.Errorf("stream: %w", err)
		}
		e.o.Log.Info().Uint64("id", id).Msg("removed what a deleted stream left behind")
	}
	e.found = nil
	for range committers {
		e.running.Go(e.committer)
	}
	for range min(max(runtime.GOMAXPROCS(0), 2), 8) {
		e.running.Go(e.reader)
	}
	e.running.Go(e.keeper)
	return nil
}

// Close writes what is pending, stops all goroutines and closes the files. Publishers and consumers must be gone.
func (e *Engine) Close() error {
	close(e.stop)
	e.commits.close()
	e.reads.close()
	e.running.Wait()
	var errs []error
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.streams {
		errs = append(errs, s.log.close())
	}
	return errors.Join(errs...)
}

// committer writes what streams have pending, one stream after the other.
func (e *Engine) committer() {
	for {
		s, ok := e.commits.pop()
		if !ok {
			return
		}
		more, err := s.commit()
		if err != nil {
			e.fail(err)
			return
		}
		if more {
			e.commits.push(s)
		}
	}
}

// fail is the end of everything: after a failed sync nobody knows what is on disk.
func (e *Engine) fail(err error) {
	e.mu.Lock()
	first := !e.dead
	e.dead = true
	e.mu.Unlock()
	if first {
		e.commits.drop()
		e.o.Store.Fail(err)
	}
}

// reader reads for consumers, one after the other.
func (e *Engine) reader() {
	for {
		c, ok := e.reads.pop()
		if !ok {
			return
		}
		if c.work() {
			e.reads.push(c)
		}
	}
}

// keeper removes segments that have become too old.
func (e *Engine) keeper() {
	tick := time.NewTicker(retentionInterval)
	defer tick.Stop()
	for {
		select {
		case <-e.stop:
			return
		case <-tick.C:
		case <-e.limits:
		}
		e.Retain()
	}
}

// Retain applies the limits of all streams now.
func (e *Engine) Retain() {
	e.mu.Lock()
	list := make([]*Stream, 0, len(e.streams))
	for _, s := range e.streams {
		list = append(list, s)
	}
	e.mu.Unlock()
	for _, s := range list {
		if err := s.retain(); err != nil {
			e.fail(err)
			return
		}
	}
}

// awaitSpace holds publishers and waits until there may be room; false: the engine is stopping.
func (e *Engine) awaitSpace() bool {
	t := time.NewTimer(spaceRetry)
	defer t.Stop()
	select {
	case <-e.stop:
		return false
	case <-t.C:
		return true
	}
}

// setShort counts the streams that wait for space.
func (e *Engine) setShort(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.short += n
	e.o.Store.HoldForSpace(e.short > 0)
}

func (e *Engine) forget(s *Stream) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.streams, s.ID)
}

// workList is a queue of things to do that several goroutines share.
type workList[T any] struct {
	mu     sync.Mutex
	ready  sync.Cond
	items  []T
	head   int
	closed bool
}

func (w *workList[T]) init() { w.ready.L = &w.mu }

func (w *workList[T]) push(v T) {
	w.mu.Lock()
	if w.head > 0 && len(w.items) == cap(w.items) {
		n := copy(w.items, w.items[w.head:])
		clear(w.items[n:])
		w.items, w.head = w.items[:n], 0
	}
	w.items = append(w.items, v)
	w.mu.Unlock()
	w.ready.Signal()
}

// pop waits for the next item; false once the list is closed and empty.
func (w *workList[T]) pop() (v T, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.head == len(w.items) && !w.closed {
		w.ready.Wait()
	}
	if w.head == len(w.items) {
		return v, false
	}
	var zero T
	v, w.items[w.head] = w.items[w.head], zero
	if w.head++; w.head == len(w.items) {
		w.items, w.head = w.items[:0], 0
	}
	return v, true
}

// close lets pop return false when nothing is left.
func (w *workList[T]) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.ready.Broadcast()
}

// drop forgets everything and closes the list.
func (w *workList[T]) drop() {
	w.mu.Lock()
	clear(w.items)
	w.items, w.head = nil, 0
	w.mu.Unlock()
	w.close()
}

const (
	defaultSegment = 128 << 20
	// smallestSegment is what smaller sizes asked for come to: a file for every chunk helps nobody.
	smallestSegment = 64 << 10
	// defaultFilter is the size of a chunk's filter, as RabbitMQ's.
	defaultFilter = 16
)

// segmentSize is where segments are cut. A stream with a small limit gets small ones, for only whole ones are removed.
func segmentSize(s *queue.Settings) int64 {
	size := int64(defaultSegment)
	switch {
	case s.MaxSegmentBytes.Value > 0:
		size = s.MaxSegmentBytes.Value
	case s.MaxLengthBytes.Set:
		size = min(size, max(s.MaxLengthBytes.Value/8, 1<<20))
	}
	return max(size, smallestSegment)
}

func filterSize(s *queue.Settings) int {
	return int(min(max(cmp.Or(s.FilterBytes.Value, defaultFilter), 1), maxFilterSize))
}
