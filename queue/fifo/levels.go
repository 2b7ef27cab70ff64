package fifo

import "math/bits"

// maxSpareLevels is how many emptied backlogs a queue with priorities keeps, so that levels which run empty and fill
// again do not allocate.
const maxSpareLevels = 8

// levels are the backlogs of a queue with priorities. Only levels with ready messages exist. Only that of the default
// priority has a cold range.
type levels[P any] struct {
	byPriority []*backlog[P]
	byDefault  *backlog[P] // of the default priority, whether or not it exists
	used       [4]uint64   // bitmap of the levels that exist
	spare      []*backlog[P]
	pageLevel  int // where the search for messages to unload goes on
}

// top returns the backlog of the highest priority, nil if there is none.
func (l *levels[P]) top() *backlog[P] { return l.below(len(l.byPriority)) }

// below returns the backlog of the highest priority below p, nil if there is none.
func (l *levels[P]) below(p int) *backlog[P] {
	for w := (p - 1) >> 6; w >= 0; w-- {
		word := l.used[w]
		if shift := p - w<<6; shift < 64 {
			word &= 1<<shift - 1
		}
		if word != 0 {
			return l.byPriority[w<<6+bits.Len64(word)-1]
		}
	}
	return nil
}

// clamp lowers a priority to the highest there is.
func (l *levels[P]) clamp(p uint8) uint8 { return min(p, uint8(len(l.byPriority)-1)) }

// get returns the backlog of a priority, nil if it does not exist.
func (l *levels[P]) get(p uint8) *backlog[P] { return l.byPriority[p] }

// ensure returns the backlog of a priority, which exists then.
func (l *levels[P]) ensure(p uint8, sum *totals) *backlog[P] {
	b := l.byPriority[p]
	if b != nil {
		return b
	}
	if n := len(l.spare); p == l.byDefault.priority {
		b = l.byDefault
	} else if n > 0 {
		b = l.spare[n-1]
		l.spare = l.spare[:n-1]
	} else {
		// Nothing is above handedOut: no message may join a cold range.
		b = &backlog[P]{handedOut: ^uint64(0), sum: sum}
	}
	b.priority = p
	l.byPriority[p] = b
	l.used[p>>6] |= 1 << (p & 63)
	return b
}

// drop lets an empty backlog go.
func (l *levels[P]) drop(b *backlog[P]) {
	l.byPriority[b.priority] = nil
	l.used[b.priority>>6] &^= 1 << (b.priority & 63)
	b.pageFrom = 0
	if b != l.byDefault && len(l.spare) < maxSpareLevels {
		l.spare = append(l.spare, b)
	}
}
