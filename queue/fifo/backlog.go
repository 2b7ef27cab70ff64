package fifo

// backlog holds ready messages in seq order: those of one queue, or of one priority.
//
//	head (descriptors in memory) | cold (in the store only) | tail (in memory)
//
// Without a cold range everything is in head. The cold range is an interval of seqs, a count and a sum of bytes; it
// has no memory per message. It takes only messages that were never handed out: so a returned message belongs into
// head, and what the store finds of this priority in the interval is ready, unless it is outstanding as a message on
// hold after a restart or one that leaves. Messages whose payload was dropped stand in head as unloaded descriptors.
type backlog[P any] struct {
	head, tail list[P]
	cold       coldRange
	handedOut  uint64 // every seq handed out so far is below, every loaded ready one at or above it never was
	unloaded   int    // items of head and tail without a payload
	pageFrom   uint64 // where the search for returned messages to unload goes on
	priority   uint8
	sum        *totals
}

// totals are the counts over all backlogs of a queue.
type totals struct {
	n      int    // ready messages
	bytes  uint64 // their body bytes
	loaded uint64 // those whose payload is in memory
}

func (t *totals) add(size uint32, loaded bool) {
	t.n++
	t.bytes += uint64(size)
	if loaded {
		t.loaded += uint64(size)
	}
}

func (t *totals) remove(size uint32, loaded bool) {
	t.n--
	t.bytes -= uint64(size)
	if loaded {
		t.loaded -= uint64(size)
	}
}

// coldRange is the interval [from, to), open if from < to.
type coldRange struct {
	from, to uint64
	count    int
	bytes    uint64
}

func (c *coldRange) open() bool { return c.from < c.to }

func (c *coldRange) has(seq uint64) bool { return c.from <= seq && seq < c.to }

func (c *coldRange) add(size uint32) {
	c.count++
	c.bytes += uint64(size)
}

// take counts one message less and returns what it has subtracted. The counts of a recovered range are the store's
// word: they never go below zero.
func (c *coldRange) take(size uint32) (n int, bytes uint64) {
	n = min(c.count, 1)
	c.count -= n
	bytes = min(c.bytes, uint64(size))
	c.bytes -= bytes
	return n, bytes
}

// push appends a new message.
func (b *backlog[P]) push(it item[P]) {
	b.sum.add(it.size, true)
	if b.cold.open() {
		b.tail.pushBack(it)
	} else {
		b.head.pushBack(it)
	}
}

// peek returns the message to hand out next, nil if none is ready or its payload is not in memory.
func (b *backlog[P]) peek() *item[P] {
	if it := b.head.front(); it != nil && it.loaded() {
		return it
	}
	return nil
}

// pop takes out the first message of head.
func (b *backlog[P]) pop() item[P] {
	it := b.head.popFront()
	b.sum.remove(it.size, it.loaded())
	if !it.loaded() {
		b.unloaded--
	}
	if it.seq >= b.handedOut {
		b.handedOut = it.seq + 1
	}
	return it
}

// remove takes a message out of head or tail.
func (b *backlog[P]) remove(l *list[P], c cursor) item[P] {
	it := l.remove(c)
	b.took(&it)
	return it
}

func (b *backlog[P]) took(it *item[P]) {
	b.sum.remove(it.size, it.loaded())
	if !it.loaded() {
		b.unloaded--
	}
}

// putBack returns a message to its place.
func (b *backlog[P]) putBack(it item[P]) {
	if b.cold.has(it.seq) {
		// It was on hold since the restart: the store has it, and what is to be known of it.
		b.sum.add(it.size, false)
		b.cold.add(it.size)
		return
	}
	b.sum.add(it.size, it.loaded())
	if !it.loaded() {
		b.unloaded++
	}
	if b.cold.open() && it.seq >= b.cold.to {
		b.tail.insert(it)
	} else {
		b.head.insert(it)
	}
}

// clear drops everything and tells what it was, in ascending order; seqs of the cold range that are in except are left
// out. What other backlogs have in told, the interval of the cold range, is told with that. The totals are the caller's
// to clear.
func (b *backlog[P]) clear(r *runs, except *list[P], told coldRange) {
	addAll(r, &b.head, told)
	if b.cold.open() {
		from := b.cold.from
		for c := except.seek(from); ; {
			it := except.next(&c)
			if it == nil || it.seq >= b.cold.to {
				break
			}
			r.add(from, it.seq)
			from = it.seq + 1
		}
		r.add(from, b.cold.to)
	}
	addAll(r, &b.tail, told)
	b.head, b.tail, b.cold, b.unloaded = list[P]{}, list[P]{}, coldRange{}, 0
}

// addAll adds the seqs of all items of a list that are not in told.
func addAll[P any](r *runs, l *list[P], told coldRange) {
	for c := l.seek(0); ; {
		it := l.next(&c)
		if it == nil {
			return
		}
		if !told.has(it.seq) {
			r.add(it.seq, it.seq+1)
		}
	}
}

// runs joins adjacent intervals.
type runs struct {
	from, to uint64
	each     func(from, to uint64)
}

func (r *runs) add(from, to uint64) {
	if from >= to {
		return
	}
	if r.to != from {
		r.flush()
		r.from = from
	}
	r.to = to
}

func (r *runs) flush() {
	if r.from < r.to {
		r.each(r.from, r.to)
	}
	r.from, r.to = 0, 0
}
