package stream

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/queue/fifo"
	"github.com/settmq/settmq/storage"
)

// Options say what a stream is.
type Options struct {
	queue.Declaration
	// Label names the stream in error texts: queue 'q' in vhost '/'.
	Label    string
	Settings queue.Settings
	// Created waits until the record of a new stream is on disk: nothing is confirmed before. Nil for a
	// stream that was there before.
	Created func() error
	// OnFault is called, without locks held, when stored messages cannot be read.
	OnFault func(*Stream, error)
}

// Stream is a live stream. All methods may be called from any goroutine.
type Stream struct {
	queue.Declaration // immutable
	engine            *Engine
	log               *segmentLog
	label             string
	onFault           func(*Stream, error)

	// Owned by the committer that works on the stream.
	created  func() error
	confirms storage.Confirms
	spare    []*storage.Message

	handed, acked atomic.Uint64 // deliveries, and those settled

	mu        sync.Mutex     // after a consumer's, before the log's
	idle      sync.Cond      // busy became false
	settings  queue.Settings // guarded by mu, as all that follows
	next      uint64         // offset of the next message that is published
	published uint64
	pending   []*chunk // not written yet; the last one is being filled
	waiting   []*storage.Message
	charge    int64
	large     bool // much came at once lately
	busy      bool // on the list of a committer, or in its hands
	deleted   bool
	consumers map[fifo.ConsumerID]*consumer
	atEnd     []*consumer // wait for the next chunk
}

// Open makes the live stream of o, with what is on disk of it. The errors are those of [storage.Open].
func (e *Engine) Open(o Options) (*Stream, error) {
	s := &Stream{
		Declaration: o.Declaration, engine: e, label: o.Label, onFault: o.OnFault,
		created: o.Created, settings: o.Settings, consumers: make(map[fifo.ConsumerID]*consumer),
	}
	s.idle.L = &s.mu
	r := recovery{fs: e.o.FS, dir: e.o.Dir, now: e.o.Now}
	l, err := r.open(o.ID, e.found[o.ID])
	if err != nil {
		return nil, err
	}
	delete(e.found, o.ID)
	s.log, s.next = l, l.next
	e.mu.Lock()
	e.streams[o.ID] = s
	e.mu.Unlock()
	return s, nil
}

// Lasts reports that a stream survives a restart, and with it what is bound to it.
func (s *Stream) Lasts() bool { return true }

// Publish appends m, whatever its delivery mode. m.Targets must count the stream: it is counted down when the message
// is on disk, or lost with a deleted stream. A stream takes every message: it returns true.
func (s *Stream) Publish(m *storage.Message, _ *queue.Wakes) bool {
	properties, filter := queue.Visible(m), "" // it is never a dead letter
	if headers := amqp.HeadersOf(properties); headers != nil {
		filter = filterValue(headers)
		if _, taken := amqp.LookupHeader(headers, offsetHeader); taken {
			properties = amqp.WithoutHeader(properties, offsetHeader)
		}
	}
	size := entrySize(m.Exchange, m.RoutingKey, properties, m.Body)
	s.mu.Lock()
	if s.deleted {
		s.mu.Unlock()
		m.Done()
		return true
	}
	s.chunkLocked(size).add(m.Exchange, m.RoutingKey, properties, m.Body, filter)
	s.next++
	s.published++
	s.charge += int64(size)
	if m.Followed {
		m.Await()
	}
	if m.Confirm != nil || m.Followed {
		s.waiting = append(s.waiting, m)
	}
	begin := !s.busy
	s.busy = true
	s.mu.Unlock()
	s.engine.o.Store.Charge(int64(size))
	if begin {
		s.engine.commits.push(s)
	}
	return true
}

// Await counts a target of m down once everything that was published before is on disk.
func (s *Stream) Await(m *storage.Message) {
	s.mu.Lock()
	if s.deleted {
		s.mu.Unlock()
		m.Done()
		return
	}
	s.waiting = append(s.waiting, m)
	begin := !s.busy
	s.busy = true
	s.mu.Unlock()
	if begin {
		s.engine.commits.push(s)
	}
}

// chunkLocked returns the chunk that takes a message of size bytes.
func (s *Stream) chunkLocked(size int) *chunk {
	if n := len(s.pending); n > 0 {
		if c := s.pending[n-1]; len(c.buf)+size <= chunkTarget {
			return c
		}
	}
	c := newChunk(s.next, filterSize(&s.settings), s.large || len(s.pending) > 0)
	if need := len(c.buf) + size; need > chunkCapacity {
		b := &block{buf: append(make([]byte, 0, need), c.buf...)}
		b.refs.Store(1)
		c.release()
		c.block = b
	}
	s.pending = append(s.pending, c)
	return c
}

// commit writes what is pending, confirms it and wakes the consumers at the end. more says that something came
// meanwhile.
func (s *Stream) commit() (more bool, err error) {
	if s.created != nil {
		if err := s.created(); err != nil {
			return false, err
		}
		s.created = nil
	}
	s.mu.Lock()
	chunks, waiting, charge := s.pending, s.waiting, s.charge
	s.pending, s.waiting, s.charge = nil, s.spare, 0
	s.spare = nil
	s.large = charge >= chunkTarget/4
	cut, largest, keepTail := segmentSize(&s.settings), s.settings.MaxLengthBytes.Or(math.MaxInt64), len(s.consumers) > 0
	s.mu.Unlock()

	written, err := s.write(chunks, cut, largest, keepTail)
	s.engine.o.Store.Charge(-charge)
	if err != nil {
		return false, err
	}
	if !written && !s.isDeleted() { // stopping on a full disk: nothing of it may be confirmed
		return false, nil
	}
	for _, m := range waiting {
		if m.Followed {
			m.Written()
		}
		s.confirms.Done(m)
	}
	s.confirms.Flush()
	clear(waiting)
	s.wakeConsumers()
	return s.goOn(waiting[:0])
}

// write makes chunks durable. On a full disk it waits; false if that is in vain.
func (s *Stream) write(chunks []*chunk, cut, largest int64, keepTail bool) (bool, error) {
	short := false
	defer func() {
		if short {
			s.engine.setShort(-1)
		}
	}()
	for len(chunks) > 0 {
		_, before := s.log.stat()
		n, err := s.log.write(chunks, cut, keepTail)
		switch {
		case errors.Is(err, errNoSpace):
			if !short {
				short = true
				s.engine.setShort(1)
			}
			if s.isDeleted() || !s.engine.awaitSpace() {
				return false, nil
			}
			continue
		case err != nil:
			return false, err
		}
		if short {
			short = false
			s.engine.setShort(-1)
		}
		for _, c := range chunks[:n] {
			c.release()
		}
		chunks = chunks[n:]
		if size, begun := s.log.stat(); begun > before || size > largest {
			if err := s.retain(); err != nil {
				return false, err
			}
		}
	}
	return true, nil
}

// goOn ends a commit: the stream is idle unless something came meanwhile.
func (s *Stream) goOn(spare []*storage.Message) (more bool, err error) {
	s.mu.Lock()
	if cap(spare) <= 1<<16 {
		s.spare = spare
	}
	more = len(s.pending)+len(s.waiting) > 0
	s.mu.Unlock()
	if !more {
		if err := s.log.mark(); err != nil {
			return false, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if more = len(s.pending)+len(s.waiting) > 0; !more {
		s.busy = false
		s.idle.Broadcast()
	}
	return more, nil
}

func (s *Stream) isDeleted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.deleted
}

// wakeConsumers lets those at the end read on.
func (s *Stream) wakeConsumers() {
	s.mu.Lock()
	list := s.atEnd
	s.atEnd = nil
	s.mu.Unlock()
	for _, c := range list {
		s.engine.reads.push(c)
	}
}

// retain removes the segments that the limits give up.
func (s *Stream) retain() error {
	s.mu.Lock()
	age, size := s.settings.MaxAge, s.settings.MaxLengthBytes
	s.mu.Unlock()
	oldest := int64(0)
	if age.Set {
		oldest = s.engine.o.Now().Add(-age.Value).UnixMilli()
	}
	n, err := s.log.retain(size.Or(math.MaxInt64), oldest)
	if n > 0 {
		s.engine.o.Log.Debug().Str("queue", s.Name).Int("count", n).Msg("segments removed")
	}
	return err
}

// Configure changes the limits and sizes. What the new limits give up is removed a moment later; segments and chunks
// begun stay as they are.
func (s *Stream) Configure(settings queue.Settings) {
	s.mu.Lock()
	s.settings = settings
	s.mu.Unlock()
	select {
	case s.engine.limits <- struct{}{}:
	default:
	}
}

// Subscribe adds a consumer, which reads from where its arguments say. confirm is called before its first delivery.
// Refusals are *amqp.Error.
func (s *Stream) Subscribe(c *queue.Consumer, confirm func(), w *queue.Wakes) error {
	if c.Prefetch == 0 {
		return amqp.PreconditionFailed("consumer prefetch count is not set for stream %s", s.label)
	}
	if c.NoAck {
		return amqp.NotImplemented("automatic acknowledgement not supported by stream %s", s.label)
	}
	sub, name, why := parseSubscription(c.Arguments, s.engine.o.Now())
	if why != "" {
		return amqp.PreconditionFailed("invalid arg '%s' for %s: %s", name, s.label, why)
	}
	offset, err := s.resolve(&sub)
	if err != nil {
		s.fault(err)
		return err
	}
	c.MaxWaiting = maxWaiting
	k := &consumer{stream: s, c: c, sub: sub, next: offset, reader: reader{log: s.log}}
	k.mu.Lock()
	defer k.mu.Unlock()
	s.mu.Lock()
	if s.deleted {
		s.mu.Unlock()
		return queue.ErrDeleted
	}
	s.consumers[c.ID] = k
	s.mu.Unlock()
	c.Queue = k
	if confirm != nil {
		confirm()
	}
	k.goOnLocked(w)
	return nil
}

// resolve turns the start of a subscription into an offset.
func (s *Stream) resolve(sub *subscription) (uint64, error) {
	first, next := s.log.bounds()
	switch sub.start {
	case startFirst:
		return first, nil
	case startLast:
		return s.log.last(), nil
	case startOffset:
		return max(sub.offset, first), nil
	case startTime:
		return s.log.at(sub.time)
	}
	return next, nil
}

func (s *Stream) fault(err error) {
	if s.onFault != nil {
		s.onFault(s, err)
	}
}

// Get refuses: a stream is only consumed.
func (s *Stream) Get(bool, <-chan struct{}) (queue.Delivery, int, bool, error) {
	return queue.Delivery{}, 0, false, amqp.NotImplemented("basic.get not supported by stream queues %s", s.label)
}

// Purge refuses: messages leave a stream by its limits only.
func (s *Stream) Purge() (int, error) {
	return 0, amqp.NotImplemented("queue.purge not supported by stream queues %s", s.label)
}

// Delete marks the stream deleted and returns its consumers. As in RabbitMQ, the conditions do not matter and the
// number of messages is 0. The files go with [Stream.Remove].
func (s *Stream) Delete(bool, bool) (ready int, consumers []*queue.Consumer, err error) {
	s.mu.Lock()
	if s.deleted {
		s.mu.Unlock()
		return 0, nil, queue.ErrDeleted
	}
	s.deleted = true
	list := s.consumers
	s.consumers = make(map[fifo.ConsumerID]*consumer)
	s.atEnd = nil
	s.mu.Unlock()
	for _, k := range list {
		k.close()
		consumers = append(consumers, k.c)
	}
	return 0, consumers, nil
}

// Remove deletes the files of a deleted stream. Call it, without locks, once the deletion is on disk.
func (s *Stream) Remove() error {
	s.mu.Lock()
	for s.busy {
		s.idle.Wait()
	}
	s.mu.Unlock()
	s.engine.forget(s)
	if err := s.log.removeAll(); err != nil {
		return fmt.Errorf("stream: %w", err)
	}
	return nil
}

// Stop has nothing to do: [Engine.Close] writes what is pending.
func (s *Stream) Stop() {}

// Info returns the counters of this moment. Ready are the messages that are kept.
func (s *Stream) Info() queue.Info {
	first, next := s.log.bounds()
	s.mu.Lock()
	i := queue.Info{Ready: int(next - first), Consumers: len(s.consumers), CanTake: len(s.consumers) > 0}
	list := make([]*consumer, 0, len(s.consumers))
	for _, k := range s.consumers {
		list = append(list, k)
	}
	s.mu.Unlock()
	for _, k := range list {
		k.mu.Lock()
		i.Unacked += int(k.held)
		k.mu.Unlock()
	}
	return i
}

// Details returns the counters of this moment, in d. Ready are the messages that are kept, as in Info, and their bytes
// those of the files.
func (s *Stream) Details(d *queue.Details) {
	i := s.Info()
	*d = queue.Details{Ready: i.Ready, Unacked: i.Unacked, Consumers: i.Consumers, CanTake: i.CanTake}
	s.mu.Lock()
	d.MessageStats.Publish = s.published
	s.mu.Unlock()
	d.MessageStats.DiskWrites = d.MessageStats.Publish
	d.MessageStats.Deliver, d.MessageStats.Ack = s.handed.Load(), s.acked.Load()
	s.log.describe(d)
	d.Stored = d.Ready
}

// Ack is not how a stream's deliveries are settled: its consumers are their own sources.
func (s *Stream) Ack([]uint64, *queue.Wakes) {}

// Reject is as Ack.
func (s *Stream) Reject([]uint64, *queue.Wakes) {}

// Requeue is as Ack.
func (s *Stream) Requeue([]uint64, bool, *queue.Wakes) {}

// Touch means nothing to a stream: it does not expire.
func (s *Stream) Touch() {}

// Unsubscribe ends a consumer.
func (s *Stream) Unsubscribe(id fifo.ConsumerID, w *queue.Wakes) {
	s.mu.Lock()
	k := s.consumers[id]
	s.mu.Unlock()
	if k != nil {
		k.Unsubscribe(id, w)
	}
}

// Unpark lets a consumer go on.
func (s *Stream) Unpark(id fifo.ConsumerID, w *queue.Wakes) {
	s.mu.Lock()
	k := s.consumers[id]
	s.mu.Unlock()
	if k != nil {
		k.Unpark(id, w)
	}
}
