package fifo

const (
	blockCap  = 64 // items of a full-sized block
	blockMin  = 8  // items of the first block of a short list
	blockIdle = 32 // largest block an empty list keeps
)

// list is a sequence of items in ascending seq order: a directory of sorted blocks, that is, a B+ tree of two levels.
//
// Pushing and popping at the ends is O(1); finding is a binary search in the directory and, where the seqs of a
// block are dense, one probe in the block; inserting and removing in the middle moves at most half a block plus,
// once in about 32 calls, the directory behind it. No operation copies the whole list, so a list of a million items
// costs no pause when it grows, and memory goes back as blocks run empty.
//
// Every block in the directory has items, except that an empty list may keep one small block to start with.
// Slots outside [lo, hi) of a block are zero, so that dropped payloads are not kept alive.
type list[P any] struct {
	blocks []block[P] // blocks[:start] are zero
	start  int
	n      int
	spare  []item[P] // one emptied block of full size, nil in an empty list
}

type block[P any] struct {
	items  []item[P]
	lo, hi int
	first  uint64 // items[lo].seq, kept here so that a search stays in the directory
}

func (b *block[P]) len() int { return b.hi - b.lo }

// front returns the first item, nil if there is none. The pointer dies at the next change of the list.
func (l *list[P]) front() *item[P] {
	if l.n == 0 {
		return nil
	}
	b := &l.blocks[l.start]
	return &b.items[b.lo]
}

// back returns the last item of a list that has one.
func (l *list[P]) back() *item[P] {
	b := &l.blocks[len(l.blocks)-1]
	return &b.items[b.hi-1]
}

// pushBack appends an item whose seq is above all others.
func (l *list[P]) pushBack(it item[P]) {
	if last := len(l.blocks) - 1; last >= l.start {
		if b := &l.blocks[last]; b.hi < len(b.items) {
			if b.lo == b.hi {
				b.first = it.seq
			}
			b.items[b.hi] = it
			b.hi++
			l.n++
			return
		}
	}
	l.roomAtBack()
	l.pushBack(it)
}

// roomAtBack makes the last block one that has a free slot behind its items.
func (l *list[P]) roomAtBack() {
	last := len(l.blocks) - 1
	if last == l.start {
		b := &l.blocks[last]
		if b.lo >= len(b.items)/2 {
			b.slideDown()
			return
		}
		if len(b.items) < blockCap {
			b.grow()
			return
		}
	}
	size := blockCap
	if last < l.start {
		size = blockMin
	}
	l.insertBlock(len(l.blocks), block[P]{items: l.newItems(size)})
}

// slideDown moves the items to the beginning of the block.
func (b *block[P]) slideDown() {
	n := copy(b.items, b.items[b.lo:b.hi])
	clear(b.items[max(n, b.lo):b.hi])
	b.lo, b.hi = 0, n
}

// grow doubles the capacity of a block that is not yet of full size.
func (b *block[P]) grow() {
	items := make([]item[P], 2*len(b.items))
	n := copy(items, b.items[b.lo:b.hi])
	b.items, b.lo, b.hi = items, 0, n
}

func (l *list[P]) newItems(size int) []item[P] {
	if size == blockCap && l.spare != nil {
		items := l.spare
		l.spare = nil
		return items
	}
	return make([]item[P], size)
}

// popFront removes and returns the first item of a list that has one.
func (l *list[P]) popFront() item[P] {
	b := &l.blocks[l.start]
	p := &b.items[b.lo]
	it := *p
	*p = item[P]{}
	b.lo++
	l.n--
	if b.lo < b.hi {
		b.first = b.items[b.lo].seq
	} else {
		l.dropBlock(l.start)
	}
	return it
}

// popBack removes and returns the last item of a list that has one.
func (l *list[P]) popBack() item[P] {
	last := len(l.blocks) - 1
	b := &l.blocks[last]
	b.hi--
	it := b.items[b.hi]
	b.items[b.hi] = item[P]{}
	l.n--
	if b.lo == b.hi {
		l.dropBlock(last)
	}
	return it
}

// cursor is a place in a list; it dies at the next change of the list's shape.
type cursor struct{ block, index int }

// before returns the place of the item that next has returned last.
func (c cursor) before() cursor { return cursor{c.block, c.index - 1} }

// blockFor returns the block that holds seq if any does: the last one that starts at or below it, else the first.
func (l *list[P]) blockFor(seq uint64) int {
	lo, hi := l.start, len(l.blocks)
	if hi-lo == 1 || seq < l.blocks[lo+1].first {
		return lo // also the common case: acknowledged from the front
	}
	for lo+1 < hi {
		if mid := int(uint(lo+hi) >> 1); l.blocks[mid].first <= seq {
			lo = mid
		} else {
			hi = mid
		}
	}
	return lo
}

// search returns the index of the first item with a seq of at least seq, hi if there is none.
func (b *block[P]) search(seq uint64) int {
	if seq <= b.first {
		return b.lo
	}
	lo, hi := b.lo, b.hi
	// Seqs are distinct, so the item stands no further behind the first than its seq is above the first's; where
	// nothing is missing in between it stands exactly there.
	if d := seq - b.first; d < uint64(hi-lo) {
		guess := lo + int(d)
		if b.items[guess].seq == seq {
			return guess
		}
		hi = guess
	}
	for lo < hi {
		if mid := int(uint(lo+hi) >> 1); b.items[mid].seq < seq {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// find returns where seq stands.
func (l *list[P]) find(seq uint64) (cursor, bool) {
	if l.n == 0 {
		return cursor{}, false
	}
	bi := l.blockFor(seq)
	b := &l.blocks[bi]
	i := b.search(seq)
	return cursor{bi, i}, i < b.hi && b.items[i].seq == seq
}

// seek returns the place of the first item with a seq of at least seq.
func (l *list[P]) seek(seq uint64) cursor {
	if l.n == 0 {
		return cursor{}
	}
	bi := l.blockFor(seq)
	return cursor{bi, l.blocks[bi].search(seq)}
}

// seekRank returns the place of the item that k others stand before.
func (l *list[P]) seekRank(k int) cursor {
	for bi := l.start; bi < len(l.blocks); bi++ {
		b := &l.blocks[bi]
		if k < b.len() {
			return cursor{bi, b.lo + k}
		}
		k -= b.len()
	}
	return cursor{len(l.blocks), 0}
}

// rank returns how many items have a seq below seq.
func (l *list[P]) rank(seq uint64) int {
	n := 0
	for bi := l.start; bi < len(l.blocks); bi++ {
		b := &l.blocks[bi]
		if b.len() == 0 || b.first >= seq {
			break
		}
		if b.items[b.hi-1].seq < seq {
			n += b.len()
			continue
		}
		return n + b.search(seq) - b.lo
	}
	return n
}

// next returns the item at *c, nil behind the last, and moves *c on.
func (l *list[P]) next(c *cursor) *item[P] {
	for c.block < len(l.blocks) {
		if b := &l.blocks[c.block]; c.index < b.hi {
			it := &b.items[c.index]
			c.index++
			return it
		}
		c.block++
		if c.block < len(l.blocks) {
			c.index = l.blocks[c.block].lo
		}
	}
	return nil
}

func (l *list[P]) at(c cursor) *item[P] { return &l.blocks[c.block].items[c.index] }

// insert puts an item where its seq belongs; no item of that seq may be in the list.
func (l *list[P]) insert(it item[P]) {
	if l.n == 0 || it.seq > l.back().seq {
		l.pushBack(it)
		return
	}
	bi := l.blockFor(it.seq)
	b := &l.blocks[bi]
	i := b.search(it.seq)
	if b.len() == len(b.items) {
		bi, i = l.makeRoom(bi, i)
		b = &l.blocks[bi]
	}
	b.place(i, it)
	l.n++
}

// place puts an item at index i of a block that has a free slot, moving the shorter side if there is a choice.
func (b *block[P]) place(i int, it item[P]) {
	if b.hi < len(b.items) && (b.lo == 0 || b.hi-i <= i-b.lo) {
		copy(b.items[i+1:], b.items[i:b.hi])
		b.hi++
	} else {
		copy(b.items[b.lo-1:], b.items[b.lo:i])
		b.lo--
		i--
	}
	b.items[i] = it
	b.first = b.items[b.lo].seq
}

// makeRoom finds or makes a block with a free slot for an item that belongs at index i of the full block bi.
// Runs that come in ascending or descending order fill their blocks; only an insertion in the middle splits one.
func (l *list[P]) makeRoom(bi, i int) (int, int) {
	b := &l.blocks[bi]
	switch {
	case len(b.items) < blockCap:
		i -= b.lo
		b.grow()
		return bi, i
	case i == b.lo:
		return l.insertBlock(bi, block[P]{items: l.newItems(blockCap), lo: blockCap, hi: blockCap}), blockCap
	case i == b.hi:
		// The caller has seen that the list does not end here.
		if next := &l.blocks[bi+1]; next.lo > 0 {
			return bi + 1, next.lo
		}
		return l.insertBlock(bi+1, block[P]{items: l.newItems(blockCap)}), 0
	}
	mid := b.lo + blockCap/2
	upper := block[P]{items: l.newItems(blockCap), first: b.items[mid].seq}
	upper.hi = copy(upper.items, b.items[mid:b.hi])
	clear(b.items[mid:b.hi])
	b.hi = mid
	bi = l.insertBlock(bi+1, upper)
	if i <= mid {
		return bi - 1, i
	}
	return bi, i - mid
}

// remove takes out and returns the item at c.
func (l *list[P]) remove(c cursor) item[P] {
	b := &l.blocks[c.block]
	it := b.items[c.index]
	if before, behind := c.index-b.lo, b.hi-1-c.index; before <= behind {
		copy(b.items[b.lo+1:], b.items[b.lo:c.index])
		b.items[b.lo] = item[P]{}
		b.lo++
	} else {
		copy(b.items[c.index:], b.items[c.index+1:b.hi])
		b.hi--
		b.items[b.hi] = item[P]{}
	}
	l.n--
	if b.lo == b.hi {
		l.dropBlock(c.block)
		return it
	}
	b.first = b.items[b.lo].seq
	if b.len() <= blockCap/4 && c.block > l.start {
		l.merge(c.block)
	}
	return it
}

// merge joins block bi with a neighbour if both are sparse, so that a few items that stay long do not each hold a
// block. The first block is left alone until then: it is about to run empty.
func (l *list[P]) merge(bi int) {
	if next := bi + 1; next < len(l.blocks) && l.blocks[bi].len()+l.blocks[next].len() <= blockCap/2 {
		l.join(bi)
	} else if l.blocks[bi-1].len()+l.blocks[bi].len() <= blockCap/2 {
		l.join(bi - 1)
	}
}

// join moves the items of block bi+1 into block bi. Only the sole block of a list can be smaller than full size, so
// there is room.
func (l *list[P]) join(bi int) {
	b, next := &l.blocks[bi], &l.blocks[bi+1]
	if b.hi+next.len() > len(b.items) {
		b.slideDown()
	}
	b.hi += copy(b.items[b.hi:], next.items[next.lo:next.hi])
	clear(next.items[next.lo:next.hi])
	l.dropBlock(bi + 1)
}

// insertBlock puts b before block bi of the directory and returns its index.
func (l *list[P]) insertBlock(bi int, b block[P]) int {
	if live := len(l.blocks) - l.start; len(l.blocks) == cap(l.blocks) && l.start >= live {
		copy(l.blocks, l.blocks[l.start:])
		clear(l.blocks[live:])
		l.blocks = l.blocks[:live]
		bi -= l.start
		l.start = 0
	}
	if bi == l.start && bi > 0 {
		l.start--
		l.blocks[l.start] = b
		return l.start
	}
	l.blocks = append(l.blocks, block[P]{})
	copy(l.blocks[bi+1:], l.blocks[bi:])
	l.blocks[bi] = b
	return bi
}

// dropBlock takes the empty block bi out of the directory.
func (l *list[P]) dropBlock(bi int) {
	if l.n == 0 {
		l.rest(l.blocks[bi].items)
		return
	}
	if items := l.blocks[bi].items; len(items) == blockCap {
		l.spare = items
	}
	if bi == l.start {
		l.blocks[bi] = block[P]{}
		l.start++
	} else {
		copy(l.blocks[bi:], l.blocks[bi+1:])
		l.blocks[len(l.blocks)-1] = block[P]{}
		l.blocks = l.blocks[:len(l.blocks)-1]
	}
	if live := len(l.blocks) - l.start; cap(l.blocks) > blockCap && live < cap(l.blocks)/8 {
		l.blocks = append(make([]block[P], 0, cap(l.blocks)/4), l.blocks[l.start:]...)
		l.start = 0
	}
}

// rest gives back what a list that has just become empty does not need: thousands of queues stand idle.
func (l *list[P]) rest(items []item[P]) {
	l.spare = nil
	if len(items) > blockIdle {
		*l = list[P]{}
		return
	}
	l.blocks[len(l.blocks)-1] = block[P]{}
	l.blocks = append(l.blocks[:0], block[P]{items: items})
	l.start = 0
}

// cut takes the items behind the first k out and returns them as a list; there must be some.
func (l *list[P]) cut(k int) list[P] {
	c := l.seekRank(k)
	b := &l.blocks[c.block]
	var rest list[P]
	rest.n = l.n - k
	if c.index > b.lo {
		half := block[P]{items: make([]item[P], blockCap), first: b.items[c.index].seq}
		half.hi = copy(half.items, b.items[c.index:b.hi])
		clear(b.items[c.index:b.hi])
		b.hi = c.index
		rest.blocks = append(rest.blocks, half)
		c.block++
	}
	rest.blocks = append(rest.blocks, l.blocks[c.block:]...)
	clear(l.blocks[c.block:])
	l.blocks = l.blocks[:c.block]
	l.n = k
	if k == 0 {
		*l = list[P]{}
	}
	return rest
}

// concat moves all items of t, which come behind those of l, to the end of l.
func (l *list[P]) concat(t *list[P]) {
	if l.n == 0 {
		*l = *t
	} else if t.n > 0 {
		// Only a list of one block may have a small one.
		if b := &l.blocks[len(l.blocks)-1]; len(b.items) < blockCap {
			b.resize()
		}
		if b := &t.blocks[t.start]; len(b.items) < blockCap {
			b.resize()
		}
		l.blocks = append(l.blocks, t.blocks[t.start:]...)
		l.n += t.n
	}
	*t = list[P]{}
}

// resize gives a small block full size.
func (b *block[P]) resize() {
	for len(b.items) < blockCap {
		b.grow()
	}
}
