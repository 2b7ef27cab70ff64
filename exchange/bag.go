package exchange

import "slices"

// scanLimit is the number of destinations that are searched one by one; longer bags keep
// an index, so that unbinding 50 000 queues from one exchange is not quadratic.
const scanLimit = 16

// bag holds the destinations of the bindings that match under the same condition. A
// destination may be in it several times (bindings that differ only in arguments which
// routing ignores) but is listed once. Nearly all bags of a large exchange hold exactly
// one destination, so that one lives in the bag itself and costs no allocation. The zero
// bag is empty.
type bag struct {
	first Destination // nil: the bag is empty
	more  *bagMore    // nil: at most one destination, bound once
}

// bagMore is the part of a bag beyond its first destination.
type bagMore struct {
	list  []Destination              // all but the first, each once, in no particular order
	pos   table[Destination, int]    // index in list; empty while list is short
	extra table[Destination, uint32] // further bindings of a destination that is listed
}

func (b *bag) empty() bool { return b.first == nil }

// appendTo appends every destination once.
func (b *bag) appendTo(dst []Destination) []Destination {
	if b.first == nil {
		return dst
	}
	dst = append(dst, b.first)
	if b.more != nil {
		dst = append(dst, b.more.list...)
	}
	return dst
}

func (b *bag) add(d Destination) {
	if d == nil {
		panic("exchange: binding to a nil destination")
	}
	if b.first == nil {
		b.first = d
		return
	}
	if b.more == nil {
		b.more = &bagMore{}
	}
	if d == b.first || b.more.find(d) >= 0 {
		n, _ := b.more.extra.get(d)
		b.more.extra.set(d, n+1)
		return
	}
	b.more.push(d)
}

// remove takes one binding of d out and reports whether there was one.
func (b *bag) remove(d Destination) bool {
	if b.first == nil {
		return false
	}
	if b.more == nil {
		if d != b.first {
			return false
		}
		b.first = nil
		return true
	}
	if !b.removeFromMany(d) {
		return false
	}
	if len(b.more.list) == 0 && b.more.extra.len() == 0 {
		b.more = nil
	}
	return true
}

func (b *bag) removeFromMany(d Destination) bool {
	m := b.more
	if n, ok := m.extra.get(d); ok {
		if n == 1 {
			m.extra.delete(d)
		} else {
			m.extra.set(d, n-1)
		}
		return true
	}
	if d == b.first {
		b.first = nil
		if last := len(m.list) - 1; last >= 0 {
			b.first = m.list[last]
			m.removeAt(last)
		}
		return true
	}
	i := m.find(d)
	if i < 0 {
		return false
	}
	m.removeAt(i)
	return true
}

// find returns the index of d in the list, or -1.
func (m *bagMore) find(d Destination) int {
	if m.pos.len() == 0 {
		return slices.Index(m.list, d)
	}
	if i, ok := m.pos.get(d); ok {
		return i
	}
	return -1
}

func (m *bagMore) push(d Destination) {
	m.list = append(m.list, d)
	switch {
	case m.pos.len() > 0:
		m.pos.set(d, len(m.list)-1)
	case len(m.list) > scanLimit:
		for i, d := range m.list {
			m.pos.set(d, i)
		}
	}
}

// removeAt moves the last destination to place i.
func (m *bagMore) removeAt(i int) {
	gone, last := m.list[i], len(m.list)-1
	m.list[i] = m.list[last]
	m.list[last] = nil
	m.list = m.list[:last]
	if m.pos.len() > 0 {
		if i < last {
			m.pos.set(m.list[i], i)
		}
		m.pos.delete(gone)
	}
	if cap(m.list) > scanLimit && len(m.list) < cap(m.list)/4 {
		m.list = slices.Clone(m.list)
	}
	if len(m.list) <= scanLimit/2 {
		m.pos = table[Destination, int]{}
	}
}
