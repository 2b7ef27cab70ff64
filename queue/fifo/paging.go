package fifo

// LoadedItem is a message read back from the store, for [Machine.Loaded].
type LoadedItem[P any] struct {
	Seq         uint64
	Payload     P
	Size        uint32 // body bytes
	Redelivered bool   // the store knows that it may have been handed out before a restart
}

// PageOut drops the payloads of ready messages that do not stand among the first keep, at most max of them, and
// reports how many messages and body bytes that were. Only messages that stored approves of are dropped; it is called
// with seqs of ready messages and must not call the machine.
//
// Messages that were never handed out join the cold range, which grows at both ends and stops at the first message
// that is not stored. Returned messages keep their descriptor; after the cold range has taken what it can, a call
// looks at no more than max of them, and the next call goes on where this one stopped: zero items therefore do not
// mean that a further call is in vain while there are returned messages.
func (m *Machine[P]) PageOut(keep, max int, stored func(seq uint64) bool) (items int, bytes uint64) {
	b := &m.ready
	before := b.loaded
	items = b.growCold(keep, max, stored)
	items += b.unloadReturned(keep, max-items, stored)
	return items, before - b.loaded
}

// growCold moves up to limit messages into the cold range.
func (b *backlog[P]) growCold(keep, limit int, stored func(seq uint64) bool) (n int) {
	if !b.cold.open() {
		k := max(keep, b.head.rank(b.handedOut))
		if limit <= 0 || k >= b.head.n {
			return 0
		}
		seq := b.head.at(b.head.seekRank(k)).seq
		if !stored(seq) {
			return 0
		}
		b.tail = b.head.cut(k)
		b.cold.from, b.cold.to = seq, seq+1
		b.chill(b.tail.popFront())
		n++
	}
	for ; n < limit && b.head.n > keep; n++ {
		it := b.head.back()
		if it.seq < b.handedOut || !stored(it.seq) {
			break
		}
		b.cold.from = it.seq
		b.chill(b.head.popBack())
	}
	for ; n < limit; n++ {
		it := b.tail.front()
		if it == nil || !stored(it.seq) {
			break
		}
		b.cold.to = it.seq + 1
		b.chill(b.tail.popFront())
	}
	return n
}

func (b *backlog[P]) chill(it item[P]) {
	b.cold.add(it.size)
	b.loaded -= uint64(it.size)
}

// unloadReturned drops payloads of returned messages behind the first keep, looking at no more than limit.
func (b *backlog[P]) unloadReturned(keep, limit int, stored func(seq uint64) bool) (n int) {
	if keep >= b.head.n || b.unloaded == b.head.n {
		return 0
	}
	c := b.head.seekRank(keep)
	if b.head.at(c).seq < b.pageFrom {
		c = b.head.seek(b.pageFrom)
	}
	for ; limit > 0; limit-- {
		it := b.head.next(&c)
		if it == nil || it.seq >= b.handedOut {
			b.pageFrom = 0
			break
		}
		b.pageFrom = it.seq + 1
		if it.loaded() && stored(it.seq) {
			it.unload(b.load.active)
			b.loaded -= uint64(it.size)
			b.unloaded++
			n++
		}
	}
	return n
}

// ReleaseUnacked drops the payloads of outstanding messages that stored approves of, at most max, and reports how
// many messages and body bytes that were. Such a message that is requeued is ready but must be loaded before it can
// be handed out. A call looks at no more than max messages; the next one goes on where it stopped.
func (m *Machine[P]) ReleaseUnacked(max int, stored func(seq uint64) bool) (items int, bytes uint64) {
	c := m.unacked.seek(m.releaseFrom)
	for ; max > 0 && m.unackedLoaded > 0; max-- {
		it := m.unacked.next(&c)
		if it == nil {
			m.releaseFrom = 0
			break
		}
		m.releaseFrom = it.seq + 1
		if it.loaded() && stored(it.seq) {
			it.unload(m.ready.load.active)
			m.unackedLoaded--
			items++
			bytes += uint64(it.size)
		}
	}
	m.unackedBytes -= bytes
	return items, bytes
}

// LoadedBytes returns the body bytes of all payloads the machine holds, ready and outstanding.
func (m *Machine[P]) LoadedBytes() uint64 { return m.ready.loaded + m.unackedBytes }

// NeedsLoad reports whether the store should be read, and from which seq on: when the next message to hand out, or
// any of the first window, is not in memory. A true result marks a load as in flight; until Loaded or LoadFailed
// there is no other. The caller reads live messages from that seq on, outstanding ones included, as many as it likes.
// The cost is O(window) while requeued messages stand in the queue without their payload, else O(1).
func (m *Machine[P]) NeedsLoad(window int) (from uint64, ok bool) {
	b := &m.ready
	if b.load.active {
		return 0, false
	}
	from, ok = b.firstMissing(max(window, 1))
	if ok {
		b.load = load{active: true, from: from, coldFrom: b.cold.from, coldTo: b.cold.to}
	}
	return from, ok
}

func (b *backlog[P]) firstMissing(window int) (uint64, bool) {
	if b.unloaded > 0 {
		c := b.head.seek(0)
		for range min(window, b.head.n) {
			if it := b.head.next(&c); !it.loaded() {
				return it.seq, true
			}
		}
	}
	if b.cold.open() && b.head.n < window {
		return b.cold.from, true
	}
	return 0, false
}

// LoadFailed ends a load without a result: NeedsLoad asks for the same again. When to try is the caller's choice.
func (m *Machine[P]) LoadFailed() { m.ready.load = load{} }

// Loaded ends a load. items are the live messages the store had in [from, next), from being the result of NeedsLoad,
// in ascending order; the slice is not kept. What is not, or no longer, wanted in memory is ignored: the queue may
// have changed in the meantime in any way.
//
// It returns how many messages that were paged out in that interval the store did not have. They are forgotten. A
// number other than zero means that something was lost on disk.
func (m *Machine[P]) Loaded(items []LoadedItem[P], next uint64) (missing int) {
	b := &m.ready
	if !b.load.active {
		return 0
	}
	// The load serves the cold range only if that still begins where it did: messages before it may have been paged
	// out since, or everything purged. And it serves no more of it than there was.
	joins := b.cold.open() && b.cold.from == b.load.coldFrom && b.load.from <= b.cold.from
	end := min(next, b.load.coldTo)
	for i := range items {
		li := &items[i]
		if li.Seq >= next {
			break
		}
		if joins && b.cold.from <= li.Seq && li.Seq < end {
			b.thaw(li)
		} else if b.unloaded > 0 {
			b.reload(li)
		}
	}
	missing = b.forgetMissing(next)
	b.load = load{}
	if !joins {
		return missing
	}
	b.cold.from = max(b.cold.from, end)
	if !b.cold.open() {
		missing += b.cold.count
		b.bytes -= b.cold.bytes
		b.cold = coldRange{}
		b.head.concat(&b.tail)
	}
	return missing
}

// thaw moves a message from the beginning of the cold range to the end of head.
func (b *backlog[P]) thaw(li *LoadedItem[P]) {
	it := item[P]{payload: li.Payload, seq: li.Seq, size: li.Size}
	if li.Redelivered {
		it.meta = metaRedelivered
	}
	b.head.pushBack(it)
	b.cold.from = li.Seq + 1
	b.bytes += uint64(li.Size) - b.cold.take(li.Size)
	b.loaded += uint64(li.Size)
}

// reload gives a returned message its payload back.
func (b *backlog[P]) reload(li *LoadedItem[P]) {
	c, ok := b.head.find(li.Seq)
	if !ok {
		return
	}
	it := b.head.at(c)
	if it.loaded() {
		return
	}
	it.payload = li.Payload
	it.meta &^= metaUnloaded | metaLate
	b.unloaded--
	b.loaded += uint64(it.size)
}

// forgetMissing removes the returned messages that the load should have brought and has not.
func (b *backlog[P]) forgetMissing(next uint64) (n int) {
	if b.unloaded == 0 {
		return 0
	}
	c := b.head.seek(b.load.from)
	for it := b.head.next(&c); it != nil && it.seq < next; it = b.head.next(&c) {
		if it.loaded() {
			continue
		}
		if it.meta&metaLate != 0 {
			it.meta &^= metaLate // the next load must bring it
			continue
		}
		seq := it.seq
		lost, _ := b.head.find(seq)
		b.bytes -= uint64(b.head.remove(lost).size)
		b.unloaded--
		n++
		c = b.head.seek(seq)
	}
	return n
}

// Restore makes the whole backlog cold after a restart: count messages of together bytes body bytes in
// [coldFrom, next), and next is the seq of the next message enqueued. It is called once, before anything else.
func (m *Machine[P]) Restore(next uint64, coldFrom uint64, count int, bytes uint64) {
	if m.nextSeq != m.firstSeq || coldFrom > next || count < 0 {
		panic("fifo: Restore of a machine in use or with a backlog that cannot be")
	}
	m.nextSeq = next
	b := &m.ready
	b.handedOut = next
	if count > 0 {
		b.handedOut = coldFrom
		b.cold = coldRange{from: coldFrom, to: next, count: count, bytes: bytes}
		b.bytes = bytes
	}
}
