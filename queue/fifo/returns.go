package fifo

// Counts are what is known of the past of a message, and its size.
type Counts struct {
	Size       uint32 // body bytes
	Deliveries uint16 // failed deliveries: returns with failed set
	Acquired   uint16 // times handed out
	Due        bool   // past its deadline: returned, it expires
	Group      uint16 // as in Item
}

// Outstanding returns the counts of an outstanding message, the present delivery among Acquired. A caller with a
// delivery limit or a delay asks before it chooses between Requeue, Hold, and Bury or Ack. False if seq is not
// outstanding.
func (m *Machine[P]) Outstanding(seq uint64) (Counts, bool) {
	c, ok := m.findOutstanding(seq)
	if !ok {
		return Counts{}, false
	}
	it := m.unacked.at(c)
	return Counts{it.size, it.failed(), it.acquired(), it.is(flagDue), it.group()}, true
}

func (m *Machine[P]) findOutstanding(seq uint64) (cursor, bool) {
	c, ok := m.unacked.find(seq)
	return c, ok && !m.unacked.at(c).is(flagHeld|flagLeaving)
}

// Requeue makes an outstanding message ready again, at its original position in its priority and marked as
// redelivered; failed adds one to its failed deliveries. The credit goes back to its consumer. A message that is past
// its deadline goes nowhere but to Expire. False if seq is not outstanding.
func (m *Machine[P]) Requeue(seq uint64, failed bool) bool {
	it, ok := m.takeBack(seq, failed)
	if ok {
		if it.is(flagDue) {
			m.addDue(it)
		} else {
			m.putBack(it)
		}
	}
	return ok
}

func (m *Machine[P]) takeBack(seq uint64, failed bool) (it item[P], ok bool) {
	c, ok := m.findOutstanding(seq)
	if !ok {
		return it, false
	}
	it = m.takeUnacked(c)
	it.slot = 0
	if failed {
		it.raise(failedShift)
	}
	return it, true
}

// Hold takes an outstanding message back as Requeue does, but it is ready only after Release was called with a time
// of until or later (milliseconds of the caller's clock). Until then it is neither ready nor outstanding; it can
// expire. False if seq is not outstanding.
func (m *Machine[P]) Hold(seq uint64, failed bool, until int64) bool {
	it, ok := m.takeBack(seq, failed)
	switch {
	case !ok:
		return false
	case it.is(flagDue):
		m.addDue(it)
	default:
		m.setHeld(it, until)
	}
	return true
}

func (m *Machine[P]) setHeld(it item[P], until int64) {
	it.meta |= flagHeld
	m.held++
	if m.groups != nil {
		m.groups.holds(&it)
	}
	m.hold(it)
	t := m.time()
	t.holds.add(timerKey(until, 0), it.seq)
	m.sweep()
}

// Release makes messages ready whose time on hold has passed at now, at their original positions, at most max, and
// returns how many that were.
func (m *Machine[P]) Release(now int64, max int) (n int) {
	if m.timing == nil {
		return 0
	}
	holds := &m.timing.holds
	for n < max {
		r := holds.due(now)
		if r == nil {
			break
		}
		c := m.unacked.seek(r.lo)
		it := m.unacked.next(&c)
		if it == nil || it.seq >= r.hi {
			holds.advance(r.hi)
			continue
		}
		seq := it.seq
		if it.is(flagHeld) {
			m.putBack(m.takeHeld(seq))
			n++
		}
		holds.advance(seq + 1)
	}
	return n
}

func (m *Machine[P]) takeHeld(seq uint64) item[P] {
	c, _ := m.unacked.find(seq)
	m.held--
	return m.takeUnacked(c)
}

// Bury takes an outstanding message out of the queue but keeps it until Ack: it is leaving, as a message that is
// dead-lettered and must not be forgotten before its new queue has it. The credit goes back to its consumer. False if
// seq is not outstanding.
func (m *Machine[P]) Bury(seq uint64) (Gone[P], bool) {
	it, ok := m.takeBack(seq, false)
	if ok {
		it.meta |= flagLeaving
		m.leaving++
		m.hold(it)
	}
	return it.describe(), ok
}
