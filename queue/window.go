package queue

import (
	"math"
	"sync"
	"sync/atomic"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/storage"
)

// ttlHeader is the header of a message that says for how many milliseconds its key is remembered.
const ttlHeader = "x-cache-ttl"

// windowStep is how many keys are forgotten under one hold of a window's lock, beyond one for one.
const windowStep = 64

// WindowLimits say how many keys a window remembers and how long, in milliseconds; a TTL of 0 is for as long as there is
// room, a Size of 0 lets everything pass.
type WindowLimits struct {
	Size, TTL int64
	// ByMessageID knows a message without DeduplicationHeader by its message-id.
	ByMessageID bool
}

// Window remembers the keys of messages, the newest ones, so that none comes twice. Some 120 bytes of memory each.
//
// The key of a message that is stored is stored too, in the same batch as the message, so that both survive a crash or
// neither; keys of others last as long as the process. All methods may be called from any goroutine, but nothing may come
// between the question whether a key is known and its being remembered.
type Window struct {
	store  *storage.Queue // nil: nothing lasts
	now    func() int64
	limits atomic.Pointer[WindowLimits]

	mu      sync.Mutex     // before those of the store
	at      map[Key]uint64 // place in entries, counted from base
	entries []windowEntry  // oldest first; those without a place in at are forgotten
	base    uint64
	next    uint64 // seq in the store
	peak    int    // most keys since at was made
}

type windowEntry struct {
	key   Key
	seq   uint64
	until int64 // when it is forgotten
}

// NewWindow makes a window, with what s recovered unless that is nil. now is the clock, in milliseconds since 1970.
func NewWindow(s *storage.Queue, now func() int64, l WindowLimits) *Window {
	w := &Window{store: s, now: now, at: make(map[Key]uint64)}
	w.SetLimits(l)
	if s == nil {
		return w
	}
	w.next = s.State().NextSeq
	for _, n := range s.Notes() {
		until := n.Note.Deadline
		if until == 0 {
			until = math.MaxInt64
		}
		w.add(windowEntry{n.Note.Key, n.Seq, until})
	}
	return w
}

// SetLimits changes the limits. Keys that are remembered keep their times.
func (w *Window) SetLimits(l WindowLimits) { w.limits.Store(&l) }

// Lasts reports whether the window stores keys.
func (w *Window) Lasts() bool { return w.store != nil }

// Forgetful is the opposite of Lasts.
func (w *Window) Forgetful() bool { return w.store == nil }

// Key returns what the window knows a message with these properties by; false if it lets every such message pass.
func (w *Window) Key(properties []byte) (Key, bool) {
	l := w.limits.Load()
	if l.Size <= 0 {
		return Key{}, false
	}
	return KeyOf(properties, l.ByMessageID)
}

// Knows reports whether a key is remembered.
func (w *Window) Knows(k Key) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	place, ok := w.at[k]
	if !ok {
		return false
	}
	if e := &w.entries[place-w.base]; e.until <= w.now() {
		w.forget(e)
		return false
	}
	return true
}

// Remember remembers the key of m, which it did not know, for as long as the message or else the window says. If store is
// set, the window lasts, m is Followed and its targets count the window.
func (w *Window) Remember(k Key, m *storage.Message, store bool) {
	ttl := w.limits.Load().TTL
	if v, ok := amqp.LookupHeader(amqp.HeadersOf(m.Properties), ttlHeader); ok {
		if own, ok := v.Int(); ok {
			ttl = own
			if own <= 0 { // a duplicate is welcome at once
				if store {
					m.Done()
				}
				return
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	n := storage.Note{Key: k}
	until := int64(math.MaxInt64)
	if ttl > 0 {
		until = w.now() + min(ttl, amqp.MaxExpiration)
		n.Deadline = until
	}
	if store {
		w.store.AppendNoted(w.next, &storage.Message{Follows: m}, n)
	}
	w.add(windowEntry{k, w.next, until})
	w.next++
	w.trim(windowStep)
}

// Release ends the hold of m, whose key the window may have stored. The window lasts.
func (w *Window) Release(m *storage.Message) { w.store.Release(m) }

// Await counts a target of m down once all keys that are remembered are on disk. The window lasts.
func (w *Window) Await(m *storage.Message) { w.store.Await(m) }

func (w *Window) add(e windowEntry) {
	if len(w.entries) == cap(w.entries) && len(w.at) < len(w.entries)/2 {
		w.tidy()
	}
	w.at[e.key] = w.base + uint64(len(w.entries))
	w.entries = append(w.entries, e)
	w.peak = max(w.peak, len(w.at))
}

// tidy takes out what is forgotten, from between what is not.
func (w *Window) tidy() {
	kept := w.entries[:0]
	for i, e := range w.entries {
		if place, ok := w.at[e.key]; ok && place == w.base+uint64(i) {
			w.at[e.key] = w.base + uint64(len(kept))
			kept = append(kept, e)
		}
	}
	w.entries = kept
}

func (w *Window) forget(e *windowEntry) {
	delete(w.at, e.key)
	if w.store != nil {
		w.store.Settle(e.seq) // unknown if it was not stored
	}
}

// trim forgets up to n keys that are too old or too many, and reports whether there are more of them.
func (w *Window) trim(n int) (more bool) {
	now, size := w.now(), int(w.limits.Load().Size)
	for len(w.entries) > 0 {
		e := &w.entries[0]
		if place, ok := w.at[e.key]; ok && place == w.base {
			if e.until > now && len(w.at) <= size {
				break
			}
			if n--; n < 0 {
				return true
			}
			w.forget(e)
		}
		w.entries = w.entries[1:]
		w.base++
	}
	if len(w.at) == 0 && w.peak > keptKeys {
		w.at, w.entries, w.peak = make(map[Key]uint64), nil, 0
	}
	return false
}

// Sweep forgets what is too old. A window that is in use does so by itself.
func (w *Window) Sweep() {
	for more := true; more; {
		w.mu.Lock()
		more = w.trim(windowStep)
		w.mu.Unlock()
	}
}

// Len returns how many keys are remembered; some may be too old.
func (w *Window) Len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.at)
}
