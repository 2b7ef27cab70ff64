package storage

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
