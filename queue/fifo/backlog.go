package fifo

// backlog holds the ready messages of one queue in seq order:
//
//	head (descriptors in memory) | cold (in the store only) | tail (in memory)
//
// Without a cold range everything is in head. The cold range is an interval of seqs, a count and a sum of bytes; it
// has no memory per message. It holds only messages that were never handed out: so no outstanding message lies inside
// it, a returned message always belongs into head, and whatever the store finds in the interval is ready.
// Returned messages whose payload was dropped stand in head as unloaded descriptors.
//
// When priorities come, each gets a backlog of its own.
type backlog[P any] struct {
	head, tail list[P]
	cold       coldRange
	handedOut  uint64 // every seq handed out so far is below, every ready one at or above it never was handed out
	bytes      uint64 // of all ready messages
	loaded     uint64 // of those whose payload is in memory
	unloaded   int    // items of head without a payload

	load     load
	pageFrom uint64 // where the search for returned messages to unload goes on
}

// load is a reading of the store that is in flight. Only of what was paged out when it was asked for is it certain
// that the reading finds it, hence the copy of the interval.
type load struct {
	active           bool
	from             uint64
	coldFrom, coldTo uint64 // the cold range when the load was asked for
}

// coldRange is the interval [from, to), open if from < to.
type coldRange struct {
	from, to uint64
	count    int
	bytes    uint64
}

func (c *coldRange) open() bool { return c.from < c.to }

func (c *coldRange) add(size uint32) {
	c.count++
	c.bytes += uint64(size)
}

// take counts one message less and returns the bytes it has subtracted. The counts of a recovered range are the
// store's word: they never go below zero.
func (c *coldRange) take(size uint32) uint64 {
	c.count = max(c.count-1, 0)
	n := min(c.bytes, uint64(size))
	c.bytes -= n
	return n
}

func (b *backlog[P]) len() int { return b.head.n + b.cold.count + b.tail.n }

// push appends a new message.
func (b *backlog[P]) push(it item[P]) {
	b.bytes += uint64(it.size)
	b.loaded += uint64(it.size)
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

// pop takes out the message that peek has shown.
func (b *backlog[P]) pop() item[P] {
	it := b.head.popFront()
	b.bytes -= uint64(it.size)
	b.loaded -= uint64(it.size)
	if it.seq < b.handedOut {
		it.meta |= metaRedelivered
	} else {
		b.handedOut = it.seq + 1
	}
	return it
}

// putBack returns a message to its place.
func (b *backlog[P]) putBack(it item[P]) {
	b.bytes += uint64(it.size)
	if it.loaded() {
		b.loaded += uint64(it.size)
	} else {
		b.unloaded++
	}
	b.head.insert(it)
}

// clear drops everything and tells what it was, as intervals of consecutive seqs in ascending order.
func (b *backlog[P]) clear(each func(from, to uint64)) {
	r := runs{each: each}
	for c := b.head.seek(0); ; {
		it := b.head.next(&c)
		if it == nil {
			break
		}
		r.add(it.seq, it.seq+1)
	}
	if b.cold.open() {
		r.add(b.cold.from, b.cold.to)
	}
	for c := b.tail.seek(0); ; {
		it := b.tail.next(&c)
		if it == nil {
			break
		}
		r.add(it.seq, it.seq+1)
	}
	b.head, b.tail, b.cold = list[P]{}, list[P]{}, coldRange{}
	b.bytes, b.loaded, b.unloaded = 0, 0, 0
	r.flush()
}

// runs joins adjacent intervals.
type runs struct {
	from, to uint64
	each     func(from, to uint64)
}

func (r *runs) add(from, to uint64) {
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
