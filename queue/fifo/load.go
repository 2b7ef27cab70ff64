package fifo

import (
	"cmp"
	"slices"
)

// Interval is what the store is asked for: the live messages with seqs in [From, To).
type Interval struct {
	From, To uint64
	want     want
	priority uint8
}

type want uint8

const (
	wantReady want = iota // descriptors without payload
	wantCold              // the beginning of the cold range
	wantDue               // messages of the cold range whose deadline has passed
)

// LoadedItem is a message read back from the store, for [Machine.Loaded]. What is said beside payload and size counts
// only for messages that were in the cold range: the machine knows it of all others.
type LoadedItem[P any] struct {
	Seq         uint64
	Payload     P
	Size        uint32 // body bytes
	Redelivered bool   // the store knows that it may have been handed out before a restart
	Deliveries  uint16 // failed deliveries before a restart
	Acquired    uint16 // how often it was handed out before a restart
	Priority    uint8  // as in Item; of messages of other priorities than the default one only this counts
	Group       uint16 // as in Item
}

// load is a reading of the store that is in flight. Only of what was paged out when it was asked for is it certain
// that the reading finds it, hence the copy of the interval.
type load struct {
	active           bool
	coldFrom, coldTo uint64     // the cold range when the load was asked for
	want             []Interval // ascending; not changed while the load is active
	gone             []uint64   // seqs of the cold range that have left the queue since
}

// dueIntervals is how many intervals of due messages are asked for at once.
const dueIntervals = 256

// NeedsLoad returns what should be read from the store, in ascending order, nil if nothing: due messages of the cold
// range, whatever window is; else, when the next message to hand out, or any of the first window, is not in memory,
// those. A result marks a load as in flight; until Loaded or LoadFailed there is no other, and so long the slice may be
// read without calling the machine alone. The caller reads live messages in these intervals, as many as it likes, but
// in order. It may read more, such as a small gap between two intervals in one go; what the machine did not ask for is
// ignored.
//
// The cost is O(window) while messages stand in the queue without their payload, else O(1).
func (m *Machine[P]) NeedsLoad(window int) []Interval {
	l := &m.load
	if l.active {
		return nil
	}
	l.want = l.want[:0]
	if m.timing != nil && len(m.timing.cold) > 0 {
		m.wantDue()
	}
	switch {
	case len(l.want) > 0:
	case m.groups != nil:
		m.groups.want(window, l)
		m.ready.wantHead(window, l)
		m.ready.wantCold(window, l)
		slices.SortFunc(l.want, byFrom)
	case m.levels == nil:
		m.ready.wantHead(window, l)
		m.ready.wantCold(window, l)
	default:
		m.wantLevels(window)
	}
	if len(l.want) == 0 {
		return nil
	}
	l.active, l.coldFrom, l.coldTo = true, m.ready.cold.from, m.ready.cold.to
	return l.want
}

// wantLevels asks for what is first in the order of priorities. The interval of the cold range has messages of other
// priorities in it, so that is asked for when those above it have what they need.
func (m *Machine[P]) wantLevels(window int) {
	l, above := &m.load, true
	for b := m.levels.top(); b != nil && window > 0; b = m.levels.below(int(b.priority)) {
		if b.cold.open() {
			above = len(l.want) > 0
		}
		b.wantHead(window, l)
		if b.cold.open() {
			if !above {
				b.wantCold(window, l)
			}
			break // what is below comes after the cold range
		}
		window -= b.head.n
	}
	slices.SortFunc(l.want, byFrom)
}

func byFrom(x, y Interval) int { return cmp.Compare(x.From, y.From) }

// wantDue asks for the first due seqs of the cold range.
func (m *Machine[P]) wantDue() {
	l, t, cold := &m.load, m.timing, m.ready.cold
	for len(t.cold) > 0 && len(l.want) < dueIntervals {
		from, to := max(t.cold[0].lo, cold.from), min(t.cold[0].hi, cold.to)
		t.cold.remove(0)
		switch last := len(l.want) - 1; {
		case from >= to: // no longer in the cold range
		case last >= 0 && l.want[last].To == from:
			l.want[last].To = to
		default:
			l.want = append(l.want, Interval{From: from, To: to, want: wantDue})
		}
	}
}

// wantHead asks for those of the first window messages that are not in memory.
func (b *backlog[P]) wantHead(window int, l *load) {
	if b.unloaded > 0 {
		c := b.head.seek(0)
		for range min(window, b.head.n) {
			it := b.head.next(&c)
			if it.loaded() {
				continue
			}
			if last := len(l.want) - 1; last >= 0 && l.want[last].To == it.seq && l.want[last].priority == b.priority {
				l.want[last].To++
			} else {
				l.want = append(l.want, Interval{From: it.seq, To: it.seq + 1, priority: b.priority})
			}
		}
	}
}

// wantCold asks for the beginning of the cold range if head has less than the first window messages.
func (b *backlog[P]) wantCold(window int, l *load) {
	if b.cold.open() && b.head.n < window {
		l.want = append(l.want, Interval{From: b.cold.from, To: b.cold.to, want: wantCold})
	}
}

// Loading reports whether a load is in flight.
func (m *Machine[P]) Loading() bool { return m.load.active }

// LoadFailed ends a load without a result: NeedsLoad asks for the same again. When to try is the caller's choice.
func (m *Machine[P]) LoadFailed() {
	if m.load.active {
		m.endLoad(0)
	}
}

// endLoad ends a load that has brought what lies below next.
func (m *Machine[P]) endLoad(next uint64) {
	l := &m.load
	for _, w := range l.want {
		if from := max(w.From, next); w.want == wantDue && from < w.To {
			m.time().cold.push(run{from, from, w.To})
		}
	}
	l.active, l.want, l.gone = false, l.want[:0], l.gone[:0]
}

// forget is called when a message is gone that need not have been handed out. A load may still find it in the store.
func (m *Machine[P]) forget(seq uint64) {
	if l := &m.load; l.active && l.coldFrom <= seq && seq < l.coldTo {
		l.gone = append(l.gone, seq)
	}
}

// Loaded ends a load. items are the live messages the store had below next in the intervals that NeedsLoad gave, in
// ascending order; the slice is not kept. After all intervals were read next is the end of the last. What is not, or no
// longer, wanted in memory is ignored: the queue may have changed in the meantime in any way. Due messages of the
// cold range are then there for Expire.
//
// It returns how many messages that were paged out in that interval the store did not have. They are forgotten. A
// number other than zero means that something was lost on disk.
func (m *Machine[P]) Loaded(items []LoadedItem[P], next uint64) (missing int) {
	l, b := &m.load, &m.ready
	if !l.active {
		return 0
	}
	slices.Sort(l.gone)
	// The load serves the beginning of the cold range only if that still begins where it did: messages before it may
	// have been paged out since, or everything purged. And it serves no more of it than there was.
	joins := l.want[len(l.want)-1].want == wantCold && b.cold.open() && b.cold.from == l.coldFrom
	want := l.want
	for i := range items {
		li := &items[i]
		if li.Seq >= next {
			break
		}
		for len(want) > 0 && want[0].To <= li.Seq {
			want = want[1:]
		}
		if len(want) == 0 {
			break
		}
		switch w := want[0]; {
		case li.Seq < w.From:
		case w.want == wantReady:
			m.backlogOf(w.priority).reload(li)
		case w.want == wantDue || joins:
			m.thaw(li, w.want)
		}
	}
	for _, w := range l.want {
		if w.want == wantReady {
			missing += m.forgetMissing(w.priority, w.From, min(w.To, next))
		}
	}
	if joins {
		b.cold.from = max(b.cold.from, min(next, l.coldTo))
	}
	if joins && !b.cold.open() {
		missing += b.cold.count
		m.sum.n -= b.cold.count
		m.sum.bytes -= b.cold.bytes
		b.cold = coldRange{}
		b.head.concat(&b.tail)
		m.took(b)
	}
	m.endLoad(next)
	return missing
}

// thaw takes a message out of the cold range: to the end of head, or to the due list.
func (m *Machine[P]) thaw(li *LoadedItem[P], w want) {
	b := &m.ready
	if m.levels != nil && m.levels.clamp(li.Priority) != b.priority {
		return // in the interval, but not of the range
	}
	if !b.cold.has(li.Seq) || m.elsewhere(li.Seq) {
		return
	}
	n, bytes := b.cold.take(li.Size)
	m.sum.n -= n
	m.sum.bytes -= bytes
	it := item[P]{
		payload: li.Payload, seq: li.Seq, extent: extent{size: li.Size},
		meta: newMeta(b.priority, li.Deliveries, li.Acquired, li.Group, li.Redelivered),
	}
	if w == wantCold {
		b.cold.from = li.Seq + 1
	}
	if w == wantDue || m.timing != nil && m.timing.passes(li.Seq) {
		m.addDue(it)
		return
	}
	m.sum.add(it.size, true)
	b.head.pushBack(it)
}

// passes reports whether seq, which leaves the cold range at its beginning, is due.
func (t *timing[P]) passes(seq uint64) bool {
	for len(t.cold) > 0 && t.cold[0].hi <= seq {
		t.cold.remove(0)
	}
	return len(t.cold) > 0 && t.cold[0].lo <= seq
}

// elsewhere reports whether a message that the store has in the cold range is not there: due already, on hold since
// the restart, leaving, or gone.
func (m *Machine[P]) elsewhere(seq uint64) bool {
	if m.unacked.n > 0 && m.unacked.back().seq >= seq {
		if _, ok := m.unacked.find(seq); ok {
			return true
		}
	}
	if m.timing != nil {
		if _, ok := m.timing.due.find(seq); ok {
			return true
		}
	}
	_, ok := slices.BinarySearch(m.load.gone, seq)
	return ok
}

// reload gives a descriptor its payload back.
func (b *backlog[P]) reload(li *LoadedItem[P]) {
	if b == nil || b.unloaded == 0 {
		return
	}
	c, ok := b.head.find(li.Seq)
	if !ok {
		return
	}
	it := b.head.at(c)
	if it.loaded() {
		return
	}
	it.payload = li.Payload
	it.meta &^= flagUnloaded
	b.unloaded--
	b.sum.loaded += uint64(it.size)
}

// forgetMissing removes the descriptors with seqs in [from, to), which a load should have brought and has not.
func (m *Machine[P]) forgetMissing(priority uint8, from, to uint64) (n int) {
	b := m.backlogOf(priority)
	if b == nil || b.unloaded == 0 {
		return 0
	}
	c := b.head.seek(from)
	for it := b.head.next(&c); it != nil && it.seq < to; it = b.head.next(&c) {
		if it.loaded() {
			continue
		}
		from = it.seq
		b.remove(&b.head, c.before())
		n++
		c = b.head.seek(from)
	}
	m.took(b)
	return n
}
