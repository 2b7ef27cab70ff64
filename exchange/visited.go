package exchange

import "sync"

// visited is a set of small integers for the length of one Route. Numbers are stamped
// with the epoch in which they were seen, so starting afresh costs nothing even if the
// router has given out 100 000 numbers.
type visited struct {
	stamps []uint32
	epoch  uint32
}

var visitedPool = sync.Pool{New: func() any { return new(visited) }}

// newVisited returns an empty set for the numbers 0 to n-1.
func newVisited(n int) *visited {
	v := visitedPool.Get().(*visited)
	if len(v.stamps) < n {
		v.stamps = make([]uint32, n+n/2)
		v.epoch = 0
	}
	v.epoch++
	if v.epoch == 0 { // wrapped: stamps of four thousand million routes ago would count
		clear(v.stamps)
		v.epoch = 1
	}
	return v
}

func (v *visited) release() { visitedPool.Put(v) }

// first adds i and reports whether it was not in the set before.
func (v *visited) first(i int32) bool {
	if v.stamps[i] == v.epoch {
		return false
	}
	v.stamps[i] = v.epoch
	return true
}

// numbers hands out the smallest numbers it can: those given back come first.
type numbers struct {
	free []int32
	next int32
}

// bound is larger than every number in use.
func (n *numbers) bound() int { return int(n.next) }

func (n *numbers) take() int32 {
	if last := len(n.free) - 1; last >= 0 {
		i := n.free[last]
		n.free = n.free[:last]
		return i
	}
	n.next++
	return n.next - 1
}

func (n *numbers) giveBack(i int32) {
	n.free = append(n.free, i)
	if len(n.free) == int(n.next) { // none in use
		*n = numbers{}
	}
}
