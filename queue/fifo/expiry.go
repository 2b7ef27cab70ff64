package fifo

// timing is what a queue has that knows deadlines or holds.
type timing[P any] struct {
	expiry timers
	holds  timers
	due    list[P] // ready messages whose deadline has passed, until Expire pulls them
	cold   runHeap // seqs of the cold range whose deadline has passed; the key is the lowest
}

// stageStep is how many seqs of a due run are looked at in one step.
const stageStep = 256

func (m *Machine[P]) time() *timing[P] {
	if m.timing == nil {
		m.timing = new(timing[P])
	}
	return m.timing
}

func (m *Machine[P]) setTimer(seq uint64, priority uint8, deadline int64) {
	m.time().expiry.add(timerKey(deadline, priority), seq)
	m.sweep()
}

// Overdue gives a message of a priority, enqueued without one, a deadline that has passed: if it is ready the next
// Expire takes it out, if it is outstanding it is due as soon as it is returned. Seqs that are gone are ignored.
func (m *Machine[P]) Overdue(seq uint64, priority uint8) {
	if m.levels != nil {
		priority = m.levels.clamp(priority)
	} else {
		priority = m.ready.priority
	}
	m.setTimer(seq, priority, 1)
}

// Expire takes out one ready message, or one on hold, whose deadline has passed at now, from any position. It
// returns false, with d untouched, if there is none; so a caller repeats it until then, and after that neither Next
// nor Get hands out a message that is due, until the time or the queue changes. If keep is set the message is leaving
// until Ack, else it is gone.
//
// Deadlines are exact to 16 ms: a message is due when the next multiple of 16 has passed. Outstanding messages do not
// expire, but one that is returned after its deadline is due. Messages in the cold range are due only after a load;
// see NeedsLoad.
func (m *Machine[P]) Expire(now int64, keep bool, d *Delivery[P]) bool {
	for {
		if m.takeDue(keep, d) {
			return true
		}
		if m.timing == nil {
			return false
		}
		r := m.timing.expiry.due(now)
		if r == nil {
			return false
		}
		m.stage(*r)
	}
}

// takeDue takes out a message of the due list.
func (m *Machine[P]) takeDue(keep bool, d *Delivery[P]) bool {
	if m.timing == nil || m.timing.due.n == 0 {
		return false
	}
	it := m.timing.due.popFront()
	m.sum.remove(it.size, it.loaded())
	m.leave(it, keep, d)
	return true
}

// addDue puts a message that is in no list into the due list.
func (m *Machine[P]) addDue(it item[P]) {
	it.settle()
	m.sum.add(it.size, it.loaded())
	m.time().due.insert(it)
}

// stage moves the first messages of the first due run to where they belong: ready ones and those on hold to the due
// list, seqs in the cold range to the list of those to load. Outstanding ones are flagged.
func (m *Machine[P]) stage(r run) {
	t := m.timing
	lo, hi := r.lo, min(r.hi, r.lo+stageStep)
	b := m.backlogOf(uint8(r.key))
	if b != nil && b.cold.open() && lo < b.cold.to {
		if lo >= b.cold.from {
			hi = min(r.hi, b.cold.to)
			t.cold.push(run{lo, lo, hi})
		} else {
			hi = min(hi, b.cold.from)
		}
	}
	c := m.unacked.seek(lo)
	for it := m.unacked.next(&c); it != nil && it.seq < hi; it = m.unacked.next(&c) {
		if !it.is(flagHeld) {
			it.meta |= flagDue
			continue
		}
		seq := it.seq
		m.addDue(m.takeHeld(seq))
		c = m.unacked.seek(seq)
	}
	if b != nil {
		m.stageReady(b, &b.head, lo, hi)
		m.stageReady(b, &b.tail, lo, hi)
		if m.groups != nil {
			m.stageReady(&m.groups.aside, &m.groups.aside.head, lo, hi)
		}
		m.took(b)
	}
	t.expiry.advance(hi)
}

func (m *Machine[P]) stageReady(b *backlog[P], l *list[P], lo, hi uint64) {
	for {
		c := l.seek(lo)
		look := c
		if it := l.next(&look); it == nil || it.seq >= hi {
			return
		}
		m.addDue(b.remove(l, look.before()))
	}
}

// NextDeadline returns when Expire or Release have something to do, in milliseconds of the caller's clock: 0 if
// Expire has at once. It may be earlier than the first message that is due, never later. ok is false if nothing is
// timed.
func (m *Machine[P]) NextDeadline() (at int64, ok bool) {
	t := m.timing
	if t == nil {
		return 0, false
	}
	if t.due.n > 0 {
		return 0, true
	}
	at, ok = t.expiry.first()
	if hold, some := t.holds.first(); some && (!ok || hold < at) {
		return hold, true
	}
	return at, ok
}

// gone is called when a message has left the queue.
func (m *Machine[P]) gone() {
	if m.timing != nil {
		m.sweep()
	}
}

// sweep removes runs without messages if there are many: what remains is bounded by the messages in the queue and not
// by how many pass through it in the time they may live.
func (m *Machine[P]) sweep() {
	t := m.timing
	live := m.sum.n + m.unacked.n
	if live == 0 {
		t.expiry.reset()
		t.holds.reset()
		return
	}
	if t.expiry.len() > 2*live+sweepSlack {
		t.expiry.sweep(m.hasTimed)
	}
	if t.holds.len() > 2*m.unacked.n+sweepSlack {
		t.holds.sweep(m.hasHeld)
	}
}

// hasTimed reports whether a message of a run of deadlines is in the queue, ready or not.
func (m *Machine[P]) hasTimed(r run) bool {
	if hasSeq(&m.unacked, r) {
		return true
	}
	if m.groups != nil && hasSeq(&m.groups.aside.head, r) {
		return true
	}
	b := m.backlogOf(uint8(r.key))
	return b != nil && (b.cold.open() && r.lo < b.cold.to && r.hi > b.cold.from || hasSeq(&b.head, r) || hasSeq(&b.tail, r))
}

// hasHeld reports whether a message of a run of holds may be on hold.
func (m *Machine[P]) hasHeld(r run) bool { return hasSeq(&m.unacked, r) }

func hasSeq[P any](l *list[P], r run) bool {
	c := l.seek(r.lo)
	it := l.next(&c)
	return it != nil && it.seq < r.hi
}

// purgeTiming drops the messages on hold and the due ones, and all runs that have no message any more. The due ones
// in the interval that was the cold range are told already.
func (m *Machine[P]) purgeTiming(r *runs, cold coldRange) {
	t := m.timing
	if t == nil {
		return
	}
	for c := t.due.seek(0); ; {
		it := t.due.next(&c)
		if it == nil {
			break
		}
		if !cold.has(it.seq) {
			r.add(it.seq, it.seq+1)
		}
	}
	for c := m.unacked.seek(0); m.held > 0; {
		it := m.unacked.next(&c)
		if it == nil {
			break
		}
		if seq := it.seq; it.is(flagHeld) {
			r.add(seq, seq+1)
			m.takeHeld(seq)
			c = m.unacked.seek(seq)
		}
	}
	t.due, t.holds, t.cold = list[P]{}, timers{}, nil
	t.expiry.close()
	t.expiry.heap.keep(m.hasTimed)
}
