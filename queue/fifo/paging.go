package fifo

// PageOut drops the payloads of ready messages that do not stand among the first keep, at most max of them, and
// reports how many messages and body bytes that were. Only messages that stored approves of are dropped; it is called
// with seqs of ready messages and must not call the machine.
//
// Messages that were never handed out join the cold range, which grows at both ends and stops at the first message
// that is not stored. Returned messages, and those of other priorities, keep their descriptor; after the cold range
// has taken what it can, a call looks at no more than max of them, and the next call goes on where this one stopped:
// zero items therefore do not mean that a further call is in vain while there are such messages.
func (m *Machine[P]) PageOut(keep, max int, stored func(seq uint64) bool) (items int, bytes uint64) {
	before := m.sum.loaded
	if m.levels != nil {
		items = m.ready.growCold(m.levels.keepOfDefault(keep), max, stored)
		items += m.levels.unload(keep, max-items, stored)
	} else {
		items = m.ready.growCold(keep, max, stored)
		n, _ := m.ready.unload(keep, max-items, stored)
		items += n
		if m.groups != nil {
			n, _ = m.groups.aside.unload(keep, max-items, stored)
			items += n
		}
	}
	return items, before - m.sum.loaded
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
	if it.loaded() {
		b.sum.loaded -= uint64(it.size)
	} else {
		b.unloaded--
	}
}

// unload drops payloads of messages below handedOut behind the first keep. It looks at no more than limit and
// returns how many of these are left.
func (b *backlog[P]) unload(keep, limit int, stored func(seq uint64) bool) (n, left int) {
	if keep >= b.head.n || b.unloaded == b.head.n {
		return 0, limit
	}
	c := b.head.seekRank(keep)
	if b.head.at(c).seq < b.pageFrom {
		c = b.head.seek(b.pageFrom)
	}
	for ; limit > 0; limit-- {
		it := b.head.next(&c)
		if it == nil || it.seq >= b.handedOut {
			b.pageFrom = 0
			return n, limit - 1
		}
		b.pageFrom = it.seq + 1
		if it.loaded() && stored(it.seq) {
			it.unload()
			b.sum.loaded -= uint64(it.size)
			b.unloaded++
			n++
		}
	}
	return n, 0
}

// keepOfDefault returns how many messages of the default priority are among the first keep.
func (l *levels[P]) keepOfDefault(keep int) int {
	for b := l.top(); b != nil && b.priority > l.byDefault.priority; b = l.below(int(b.priority)) {
		keep -= b.head.n
	}
	return max(keep, 0)
}

// unload drops payloads of messages behind the first keep, looking at no more than limit.
func (l *levels[P]) unload(keep, limit int, stored func(seq uint64) bool) (n int) {
	for b := l.top(); b != nil && limit > 0; b = l.below(int(b.priority)) {
		skip := max(keep, 0)
		keep -= b.head.n + b.cold.count + b.tail.n
		if int(b.priority) > l.pageLevel {
			continue
		}
		var k int
		k, limit = b.unload(skip, limit, stored)
		n += k
		if limit <= 0 {
			l.pageLevel = int(b.priority)
			return n
		}
	}
	l.pageLevel = len(l.byPriority)
	return n
}

// ReleaseUnacked drops the payloads of outstanding, leaving and held messages that stored approves of, at most max,
// and reports how many messages and body bytes that were. Such a message that is requeued is ready but must be loaded
// before it can be handed out. A call looks at no more than max messages; the next one goes on where it stopped.
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
			it.unload()
			m.unackedLoaded--
			items++
			bytes += uint64(it.size)
		}
	}
	m.unackedBytes -= bytes
	return items, bytes
}

// InMemory returns how many messages have their payload in memory, among the ready ones and among all others. Messages
// that are due and wait for Expire are not counted.
func (m *Machine[P]) InMemory() (ready, other int) {
	ready = m.ready.loaded()
	if m.levels != nil {
		for b := m.levels.top(); b != nil; b = m.levels.below(int(b.priority)) {
			if b != &m.ready {
				ready += b.loaded()
			}
		}
	}
	if m.groups != nil {
		ready += m.groups.aside.loaded()
	}
	return ready, m.unackedLoaded
}

func (b *backlog[P]) loaded() int { return b.head.n + b.tail.n - b.unloaded }

// LoadedBytes returns the body bytes of all payloads the machine holds, ready or not.
func (m *Machine[P]) LoadedBytes() uint64 { return m.sum.loaded + m.unackedBytes }
