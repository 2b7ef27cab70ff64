package fifo

// Restore makes the backlog cold after a restart: count messages of together bytes body bytes in [coldFrom, next),
// and next is the seq of the next message enqueued. It is called once, before anything else. Messages that
// RestoreItem brings are not counted: those on hold and, in a queue with priorities, of others than the default one.
func (m *Machine[P]) Restore(next uint64, coldFrom uint64, count int, bytes uint64) {
	if m.nextSeq != m.firstSeq || coldFrom > next || count < 0 {
		panic("fifo: Restore of a machine in use or with a backlog that cannot be")
	}
	m.nextSeq = next
	b := &m.ready
	b.handedOut = next
	if count > 0 {
		b.handedOut = coldFrom
		b.cold = coldRange{from: coldFrom, to: next, count: count, bytes: bytes}
		m.sum.n, m.sum.bytes = count, bytes
		if m.levels != nil {
			m.levels.ensure(b.priority, &m.sum)
		}
	}
	m.handedOut = b.handedOut
}

// RestoredItem is what the store knows of a message without reading it, for [Machine.RestoreItem].
type RestoredItem struct {
	Seq         uint64
	Size        uint32 // body bytes
	Priority    uint8
	Redelivered bool // may have been handed out before
	Deliveries  uint16
	Acquired    uint16
	Group       uint16
	Deadline    int64 // as in Item; 0 = none
	NotBefore   int64 // on hold until then; 0 = ready
}

// RestoreItem adds a message that is not in memory but has its descriptor there, after Restore and before anything
// else, in ascending order of seqs below NextSeq. Of the default priority, or without priorities, only messages on hold,
// and ready ones below the cold range, need this; any other belongs in the cold range.
func (m *Machine[P]) RestoreItem(r RestoredItem) {
	if m.levels == nil {
		r.Priority = 0
	} else {
		r.Priority = m.levels.clamp(r.Priority)
	}
	it := item[P]{
		seq: r.Seq, extent: extent{size: r.Size},
		meta: newMeta(r.Priority, r.Deliveries, r.Acquired, r.Group, r.Redelivered) | flagUnloaded,
	}
	switch {
	case r.Seq >= m.nextSeq, r.NotBefore == 0 && r.Priority == m.ready.priority && m.ready.cold.open() && r.Seq >= m.ready.cold.from:
		panic("fifo: RestoreItem of a message that cannot be")
	case r.NotBefore != 0:
		m.setHeld(it, r.NotBefore)
	default:
		m.putBack(it)
	}
	if r.Deadline != 0 {
		m.setTimer(r.Seq, r.Priority, r.Deadline)
	}
}

// RestoreTimer sets the deadline of a message in the restored cold range, after Restore, in ascending order of seqs.
func (m *Machine[P]) RestoreTimer(seq uint64, deadline int64) {
	if deadline != 0 {
		m.setTimer(seq, m.ready.priority, deadline)
	}
}
