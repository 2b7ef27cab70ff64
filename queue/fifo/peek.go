package fifo

// Peek calls each with the ready messages in the order in which they would be handed out, up to max of them, and
// changes nothing. It stops at the first that is not in memory, and reports how many it has shown and whether it showed
// all that it could be asked for: max, or every ready message. each must not call the machine, and must not keep d.
//
// In a queue with groups the order is that of the messages; who holds a group is not looked at.
func (m *Machine[P]) Peek(max int, each func(d *Delivery[P])) (shown int, complete bool) {
	var d Delivery[P]
	show := func(it *item[P]) bool {
		if shown == max || !it.loaded() {
			return false
		}
		d = Delivery[P]{
			Seq: it.seq, Payload: it.payload, Size: it.size, Priority: it.priority(), Redelivered: it.meta.redelivered(),
			Deliveries: it.meta.failed(), Acquired: it.meta.acquired(),
		}
		each(&d)
		shown++
		return true
	}
	switch {
	case m.groups != nil:
		showMerged(&m.ready, &m.groups.aside, show)
	case m.levels != nil:
		for b := m.levels.top(); b != nil && showAll(b, show); b = m.levels.below(int(b.priority)) {
		}
	default:
		showAll(&m.ready, show)
	}
	return shown, shown == max || shown == m.sum.n
}

// showAll shows a backlog until show or the memory says no.
func showAll[P any](b *backlog[P], show func(*item[P]) bool) bool {
	for c := b.head.seek(0); ; {
		it := b.head.next(&c)
		if it == nil {
			return !b.cold.open()
		}
		if !show(it) {
			return false
		}
	}
}

// showMerged shows two backlogs in the order of their messages.
func showMerged[P any](a, b *backlog[P], show func(*item[P]) bool) {
	ca, cb := a.head.seek(0), b.head.seek(0)
	x, y := a.head.next(&ca), b.head.next(&cb)
	for x != nil || y != nil {
		switch {
		case y == nil || x != nil && x.seq < y.seq:
			if !show(x) {
				return
			}
			x = a.head.next(&ca)
		case x == nil && a.cold.open() && y.seq > a.cold.from:
			return
		default:
			if !show(y) {
				return
			}
			y = b.head.next(&cb)
		}
	}
}
