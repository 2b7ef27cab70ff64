package storage

import (
	"math/bits"
	"sync"
)

// location is where a message lies in the journal, in 8 bytes, so that a message waiting there
// costs as little memory as possible. 0 is no location.
//
//	1 bit   shared: other queues refer to the same message operation
//	15 bits segment id, modulo 2^15; the oldest live segment resolves it
//	26 bits offset of the record in its segment
//	22 bits offset of the message operation in the record
type location uint64

const (
	opBits      = 22
	offsetBits  = 26
	segmentBits = 15

	maxOpOffset    = 1<<opBits - 1
	maxSegmentSize = 1 << offsetBits
	maxSegments    = 1 << segmentBits // live at one time

	sharedLocation location = 1 << 63
)

// makeLocation packs a place. The bounds are invariants: batches end before maxOpOffset and
// segments are at most maxSegmentSize.
func makeLocation(p position, op uint32, shared bool) location {
	if op == 0 || op > maxOpOffset || p.Offset >= maxSegmentSize {
		panic("storage: position out of bounds")
	}
	l := location(p.Segment&(maxSegments-1))<<(offsetBits+opBits) | location(p.Offset)<<opBits | location(op)
	if shared {
		l |= sharedLocation
	}
	return l
}

// position unpacks a location; oldest is a segment id not above that of any live location.
func (l location) position(oldest uint64) (p position, op uint32) {
	return position{
		Segment: l.segment(oldest),
		Offset:  uint32(l>>opBits) & (maxSegmentSize - 1),
	}, uint32(l) & maxOpOffset
}

func (l location) segment(oldest uint64) uint64 {
	low := uint64(l>>(offsetBits+opBits)) & (maxSegments - 1)
	return oldest + (low-oldest)&(maxSegments-1)
}

func (l location) shared() bool { return l&sharedLocation != 0 }

// places are the locations of a page's messages, word by word. Messages that follow one another are mostly in one record
// near each other, which takes a third of the memory.
type places struct {
	near [pageWords]*nearPlaces
	far  [pageWords]*[64]location // of the words for which near will not do
}

// nearPlaces are locations that differ in their last bits only.
type nearPlaces struct {
	base location // the lowest
	set  uint64   // which messages have a location
	ops  [64]uint16
}

var (
	nearPool = sync.Pool{New: func() any { return new(nearPlaces) }}
	farPool  = sync.Pool{New: func() any { return new([64]location) }}
)

// put notes a location, which is not 0, of message i of word w.
func (p *places) put(w, i int, l location) {
	if far := p.far[w]; far != nil {
		far[i] = l
		return
	}
	n := p.near[w]
	if n == nil {
		n = nearPool.Get().(*nearPlaces)
		n.base = l
		p.near[w] = n
	}
	// All but the last bits are those of a record, so that a location in another one is too far away.
	if d := l - n.base; d <= 1<<16-1 && (l^n.base)>>opBits == 0 {
		n.ops[i] = uint16(d)
		n.set |= 1 << i
		return
	}
	far := farPool.Get().(*[64]location)
	for set := n.set; set != 0; set &= set - 1 {
		b := bits.TrailingZeros64(set)
		far[b] = n.base + location(n.ops[b])
	}
	far[i] = l
	p.free(w)
	p.far[w] = far
}

// get returns the location of message i of word w, 0 if it has none. A nil receiver has none.
func (p *places) get(w, i int) location {
	switch {
	case p == nil:
		return 0
	case p.far[w] != nil:
		return p.far[w][i]
	}
	if n := p.near[w]; n != nil && n.set&(1<<i) != 0 {
		return n.base + location(n.ops[i])
	}
	return 0
}

// free forgets the locations of a word.
func (p *places) free(w int) {
	if n := p.near[w]; n != nil {
		n.set = 0
		p.near[w] = nil
		nearPool.Put(n)
	}
	if far := p.far[w]; far != nil {
		*far = [64]location{}
		p.far[w] = nil
		farPool.Put(far)
	}
}

// freeAll forgets all.
func (p *places) freeAll() {
	for w := range pageWords {
		p.free(w)
	}
}
