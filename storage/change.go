package storage

import (
	"bytes"
	"maps"
	"slices"
	"strings"
)

// KV is one metadata entry. Keys and values are opaque to the store and ordered bytewise.
type KV struct{ Key, Value []byte }

// Change is a set of metadata changes that becomes durable as a whole or not at all. Deletions
// come after puts; queues are deleted after they are created.
type Change struct {
	Put    []KV
	Delete [][]byte

	// CreateQueues makes queues under ids from NextID; an id that exists is left alone.
	CreateQueues []uint64
	// DeleteQueues deletes queues with all their messages. Confirms still owed by their
	// messages are given.
	DeleteQueues []uint64
}

// Ticket is the receipt of a Change.
type Ticket struct {
	done  chan struct{}
	err   error // written before done is closed
	empty bool  // of a change that only waits
}

// Wait blocks until the change is durable, or returns why it never will be.
func (t *Ticket) Wait() error {
	<-t.done
	return t.err
}

func (t *Ticket) resolve(err error) {
	t.err = err
	close(t.done)
}

// overlayEntry is a metadata value not yet checkpointed.
type overlayEntry struct {
	value   []byte
	deleted bool
	stamp   uint64 // Apply that set it
}

const (
	// limitBlock is what delivery limits are rounded up to: a crash flags at most this many
	// messages more than were handed out, and a queue writes its limit once per that many.
	limitBlock = 16384
	// idBlock is how many ids are reserved at a time.
	idBlock = 1024
)

// Apply makes a change visible to Scan and Queue at once and durable soon; wait for the Ticket
// before telling anybody. It never blocks on the disk and may be called under the caller's
// locks, Wait may not. In the journal the change precedes every message appended after Apply
// returned. Byte slices are copied.
//
// An empty change is durable when every message that was appended before is.
func (s *Store) Apply(c Change) *Ticket {
	t := &Ticket{done: make(chan struct{})}
	t.empty = len(c.Put)+len(c.Delete)+len(c.CreateQueues)+len(c.DeleteQueues) == 0
	s.mu.Lock()
	if err := s.aliveLocked(); err != nil {
		s.mu.Unlock()
		t.resolve(err)
		return t
	}
	s.stamp++
	for _, kv := range c.Put {
		s.metaBuf = appendPut(s.metaBuf, kv.Key, kv.Value)
		s.overlay[string(kv.Key)] = overlayEntry{value: bytes.Clone(kv.Value), stamp: s.stamp}
	}
	for _, k := range c.Delete {
		s.metaBuf = appendDelete(s.metaBuf, k)
		s.overlay[string(k)] = overlayEntry{deleted: true, stamp: s.stamp}
	}
	for _, id := range c.CreateQueues {
		if s.queues[id] != nil {
			continue
		}
		s.metaBuf = appendCreate(s.metaBuf, id, limitBlock)
		s.queues[id] = newQueue(s, id, limitBlock)
		s.nextID = max(s.nextID, id+1)
	}
	var gone []*Queue
	for _, id := range c.DeleteQueues {
		if q := s.queues[id]; q != nil {
			s.metaBuf = appendDrop(s.metaBuf, id)
			delete(s.queues, id)
			s.deleted = append(s.deleted, q)
			gone = append(gone, q)
		}
	}
	s.tickets = append(s.tickets, t)
	s.urgent = true
	s.mu.Unlock()
	s.wakeCommitter()
	for _, q := range gone {
		q.markDeleted()
	}
	return t
}

// Scan calls fn for every metadata entry whose key starts with prefix, in key order. It sees
// every change applied before the call, durable or not; of changes applied meanwhile it may see
// some. Slices are valid during the call of fn. An error of fn ends the scan and is returned.
func (s *Store) Scan(prefix []byte, fn func(k, v []byte) error) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	pending := make(map[string]overlayEntry)
	for k, e := range s.overlay {
		if strings.HasPrefix(k, string(prefix)) {
			pending[k] = e
		}
	}
	s.mu.Unlock()
	keys := slices.Sorted(maps.Keys(pending))
	// Entries move from the overlay to Badger before they leave the overlay, so what is in
	// neither does not exist.
	err := s.state.scanMeta(prefix, func(k, v []byte) error {
		for len(keys) > 0 && keys[0] < string(k) {
			if e := pending[keys[0]]; !e.deleted {
				if err := fn([]byte(keys[0]), e.value); err != nil {
					return err
				}
			}
			keys = keys[1:]
		}
		if len(keys) > 0 && keys[0] == string(k) {
			e := pending[keys[0]]
			keys = keys[1:]
			if e.deleted {
				return nil
			}
			v = e.value
		}
		return fn(k, v)
	})
	if err != nil {
		return err
	}
	for _, k := range keys {
		if e := pending[k]; !e.deleted {
			if err := fn([]byte(k), e.value); err != nil {
				return err
			}
		}
	}
	return nil
}

// NextID returns an id that was never returned before, also not before a restart, for queues or
// whatever else needs one. Ids start at 1 and may have gaps.
func (s *Store) NextID() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.nextID
	s.nextID++
	if id >= s.reservedIDs {
		// Whatever makes the id durable comes later in the journal than this.
		s.reservedIDs = id + idBlock
		s.metaBuf = appendIDs(s.metaBuf, s.reservedIDs)
	}
	return id
}

// Queue returns the handle of a queue, nil if there is none of that id. Callers keep it.
func (s *Store) Queue(id uint64) *Queue {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queues[id]
}
