package fifo

// Options configure a machine.
type Options struct {
	FirstSeq uint64 // seq of the first message enqueued
}

// Item is a message to enqueue, or one that is gone.
type Item[P any] struct {
	Payload P      // zero in a message that is gone and whose payload had been dropped
	Size    uint32 // body bytes
}

// Delivery is a message handed out. Unless NoAck is set it is outstanding until Ack or Requeue.
type Delivery[P any] struct {
	Consumer    ConsumerID // 0 for basic.get
	Seq         uint64
	Payload     P
	Size        uint32 // body bytes
	Redelivered bool   // handed out before
	NoAck       bool   // gone already
}

// Machine is one queue. P is the caller's handle of a message, usually a pointer; the machine never looks into it.
// The zero Machine is not usable; see [New].
type Machine[P any] struct {
	ready   backlog[P]
	unacked list[P]
	roster  roster

	firstSeq, nextSeq uint64
	unackedLoaded     int    // outstanding messages with payload
	unackedBytes      uint64 // their body bytes
	releaseFrom       uint64 // where ReleaseUnacked goes on
}

// New returns an empty machine.
func New[P any](o Options) *Machine[P] {
	m := &Machine[P]{firstSeq: o.FirstSeq, nextSeq: o.FirstSeq}
	m.ready.handedOut = o.FirstSeq
	m.roster.slots = make([]slot, 1, 2)
	return m
}

// Enqueue appends a message and returns its seq: dense, ascending from Options.FirstSeq or from what Restore said.
func (m *Machine[P]) Enqueue(p Item[P]) (seq uint64) {
	seq = m.nextSeq
	m.nextSeq++
	m.ready.push(item[P]{payload: p.Payload, seq: seq, size: p.Size})
	return seq
}

// Subscribe adds a consumer at the end of the service order of its priority. It fails only with [ErrExclusive].
// An id of zero or one that is subscribed is a bug of the caller and panics.
func (m *Machine[P]) Subscribe(c Consumer) error { return m.roster.subscribe(c) }

// Unsubscribe ends a consumer (basic.cancel). What it holds stays outstanding and is settled or requeued as ever.
// Unknown ids are ignored.
func (m *Machine[P]) Unsubscribe(id ConsumerID) { m.roster.unsubscribe(id) }

// SetPrefetch changes how many messages a subscribed consumer may hold, 0 meaning any number. If it holds more it
// gets none until it holds less. Unknown ids are ignored.
func (m *Machine[P]) SetPrefetch(id ConsumerID, n uint32) { m.roster.setPrefetch(id, n) }

// Park stops deliveries to a consumer until Unpark, as a refusal by the Admitter does. Unknown ids are ignored.
func (m *Machine[P]) Park(id ConsumerID) { m.roster.setParked(id, true) }

// Unpark lets a parked consumer take messages again; it joins at the end of the service order. Unknown ids and
// consumers that are not parked are left alone: the news that an outbox has drained may come late.
func (m *Machine[P]) Unpark(id ConsumerID) { m.roster.setParked(id, false) }

// Next hands out the first ready message to the consumer whose turn it is and describes that in d. It returns false,
// with d untouched, if nothing can move: no message is ready, the first has a seq of limit or above or is not in
// memory (see NeedsLoad), or no consumer can take one. Consumers that a refuses are parked; a is asked at most once
// for each active consumer.
func (m *Machine[P]) Next(limit uint64, a Admitter, d *Delivery[P]) bool {
	first := m.ready.peek()
	if first == nil || first.seq >= limit {
		return false
	}
	slot := m.roster.pick(a, first.size)
	if slot == 0 {
		return false
	}
	s := &m.roster.slots[slot]
	m.handOut(slot, s.ID, s.NoAck, d)
	m.roster.served(slot)
	return true
}

// Get hands out the first ready message to nobody's subscription (basic.get); unless noAck it is outstanding under
// consumer 0. It returns false, with d untouched, if no message is ready, or the first has a seq of limit or above or
// is not in memory; Ready and Head tell which.
func (m *Machine[P]) Get(limit uint64, noAck bool, d *Delivery[P]) bool {
	first := m.ready.peek()
	if first == nil || first.seq >= limit {
		return false
	}
	m.handOut(0, 0, noAck, d)
	return true
}

// handOut moves the first ready message to the outstanding ones, or out of the queue.
func (m *Machine[P]) handOut(slot uint32, id ConsumerID, noAck bool, d *Delivery[P]) {
	it := m.ready.pop()
	*d = Delivery[P]{
		Consumer:    id,
		Seq:         it.seq,
		Payload:     it.payload,
		Size:        it.size,
		Redelivered: it.meta&metaRedelivered != 0,
		NoAck:       noAck,
	}
	if noAck {
		return
	}
	it.meta = it.meta&metaFlags | slot<<metaSlotShift
	m.unacked.insert(it)
	m.unackedLoaded++
	m.unackedBytes += uint64(it.size)
}

// takeUnacked removes an outstanding message and returns its credit.
func (m *Machine[P]) takeUnacked(seq uint64) (it item[P], ok bool) {
	c, ok := m.unacked.find(seq)
	if !ok {
		return it, false
	}
	it = m.unacked.remove(c)
	if it.loaded() {
		m.unackedLoaded--
		m.unackedBytes -= uint64(it.size)
	}
	m.roster.credit(it.slot())
	return it, true
}

// Ack forgets an outstanding message, be it acknowledged or rejected without requeue, and returns it. The credit goes
// back to its consumer. False if seq is not outstanding.
func (m *Machine[P]) Ack(seq uint64) (Item[P], bool) {
	it, ok := m.takeUnacked(seq)
	return Item[P]{Payload: it.payload, Size: it.size}, ok
}

// Requeue makes an outstanding message ready again, at its original position and marked as redelivered. The credit
// goes back to its consumer. False if seq is not outstanding.
func (m *Machine[P]) Requeue(seq uint64) bool {
	it, ok := m.takeUnacked(seq)
	if ok {
		it.meta &= metaFlags
		m.ready.putBack(it)
	}
	return ok
}

// Purge forgets all ready messages and returns how many there were. each is called with what they were, as intervals
// [from, to) of consecutive seqs in ascending order; a cold range is one interval, in which a restored queue may have
// seqs that were gone before. No interval has an outstanding message in it. each must not call the machine. A load in
// flight stays in flight and brings nothing.
func (m *Machine[P]) Purge(each func(from, to uint64)) (n int) {
	n = m.ready.len()
	m.ready.clear(each)
	return n
}

// Head describes the message to hand out next: its seq (in a cold range: the lowest it can have) and whether it is in
// memory. ok is false if none is ready.
func (m *Machine[P]) Head() (seq uint64, loaded, ok bool) {
	if it := m.ready.head.front(); it != nil {
		return it.seq, it.loaded(), true
	}
	return m.ready.cold.from, false, m.ready.cold.open()
}

// Ready returns the number of ready messages, in memory or not.
func (m *Machine[P]) Ready() int { return m.ready.len() }

// ReadyBytes returns the body bytes of the ready messages, in memory or not.
func (m *Machine[P]) ReadyBytes() uint64 { return m.ready.bytes }

// Unacked returns the number of outstanding messages.
func (m *Machine[P]) Unacked() int { return m.unacked.n }

// Consumers returns the number of subscribed consumers.
func (m *Machine[P]) Consumers() int { return len(m.roster.byID) }

// HasExclusive reports whether an exclusive consumer is subscribed.
func (m *Machine[P]) HasExclusive() bool { return m.roster.exclusive }

// NextSeq returns the seq that the next message will get.
func (m *Machine[P]) NextSeq() uint64 { return m.nextSeq }

// HandedOut returns the bound below which all seqs lie that were ever handed out since New or Restore.
func (m *Machine[P]) HandedOut() uint64 { return m.ready.handedOut }
