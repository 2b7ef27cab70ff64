package fifo

// Options configure a machine.
type Options struct {
	FirstSeq    uint64 // seq of the first message enqueued
	MaxPriority uint8  // 0 = a queue without priorities
	// DefaultPriority is the priority of most messages, MaxPriority at most: only of that one does a queue have a cold
	// range.
	DefaultPriority uint8
	SingleActive    bool // only one consumer at a time gets messages
	// Preempt lets a consumer of higher priority take over from the active one as soon as that holds nothing.
	Preempt bool
	// Groups makes Item.Group count. A queue with groups has no priorities.
	Groups bool
}

// Item is a message to enqueue.
type Item[P any] struct {
	Payload  P
	Size     uint32 // body bytes
	Priority uint8  // Options.MaxPriority at most; higher is lowered
	// Group serialises messages: those of one group other than 0 go to one consumer at a time, in order. It is the
	// hash of whatever the caller calls a group; two with one hash are merely serialised together.
	Group uint16
	// Deadline is when the message expires, in milliseconds of the caller's clock; 0 = never.
	Deadline int64
}

// Gone is a message that has left the queue, or is leaving.
type Gone[P any] struct {
	Payload P      // zero if it had been dropped
	Size    uint32 // body bytes
}

// Delivery is a message handed out, or taken out by Expire or DropHead. Unless NoAck is set it is outstanding until
// Ack or Requeue, or leaving until Ack.
type Delivery[P any] struct {
	Consumer    ConsumerID // 0 if nobody's
	Seq         uint64
	Payload     P
	Size        uint32 // body bytes
	Priority    uint8
	Redelivered bool   // handed out before
	NoAck       bool   // gone already
	Unloaded    bool   // the payload had been dropped; only in what Expire and DropHead take out
	Deliveries  uint16 // failed deliveries before this one, see Requeue; 65535 = that many or more
	Acquired    uint16 // how often it was handed out before this time; 65535 = that often or more
}

// Machine is one queue. P is the caller's handle of a message, usually a pointer; the machine never looks into it.
// The zero Machine is not usable; see [New].
type Machine[P any] struct {
	ready   backlog[P] // of the default priority; of a queue without priorities all
	unacked list[P]    // outstanding, on hold, and leaving
	roster  roster
	levels  *levels[P] // of a queue with priorities
	groups  *groups[P] // of a queue with groups
	timing  *timing[P] // nil until there is something to time
	load    load
	sum     totals

	firstSeq, nextSeq uint64
	handedOut         uint64 // in a queue with priorities
	held, leaving     int    // of unacked
	unackedLoaded     int    // of unacked those with payload
	unackedBytes      uint64 // their body bytes
	unackedSize       uint64 // body bytes of unacked, with payload or not
	releaseFrom       uint64 // where ReleaseUnacked goes on
}

// New returns an empty machine.
func New[P any](o Options) *Machine[P] {
	m := &Machine[P]{firstSeq: o.FirstSeq, nextSeq: o.FirstSeq, handedOut: o.FirstSeq}
	m.ready.handedOut = o.FirstSeq
	m.ready.sum = &m.sum
	if o.Groups {
		if o.MaxPriority > 0 {
			panic("fifo: groups and priorities")
		}
		m.groups = newGroups[P](&m.sum)
		m.roster.grouped = true
	}
	if o.MaxPriority > 0 {
		m.ready.priority = min(o.DefaultPriority, o.MaxPriority)
		m.levels = &levels[P]{byPriority: make([]*backlog[P], int(o.MaxPriority)+1), byDefault: &m.ready, pageLevel: int(o.MaxPriority)}
	}
	m.roster.slots = make([]slot, 1, 2)
	m.roster.single, m.roster.preempt = o.SingleActive, o.Preempt
	return m
}

// Enqueue appends a message and returns its seq: dense, ascending from Options.FirstSeq or from what Restore said.
func (m *Machine[P]) Enqueue(p Item[P]) (seq uint64) {
	seq = m.nextSeq
	m.nextSeq++
	it := item[P]{payload: p.Payload, seq: seq, extent: extent{size: p.Size}}
	b := &m.ready
	if m.groups != nil {
		it.meta = newMeta(0, 0, 0, p.Group, false)
	}
	if m.levels != nil {
		priority := m.levels.clamp(p.Priority)
		it.meta = newMeta(priority, 0, 0, 0, false)
		b = m.levels.ensure(priority, &m.sum)
	}
	b.push(it)
	if p.Deadline != 0 {
		m.setTimer(seq, it.priority(), p.Deadline)
	}
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

// top returns the backlog that is served next, nil if no level exists.
func (m *Machine[P]) top() *backlog[P] {
	if m.levels != nil {
		return m.levels.top()
	}
	return &m.ready
}

// backlogOf returns the backlog of a priority, nil if it does not exist.
func (m *Machine[P]) backlogOf(priority uint8) *backlog[P] {
	if m.levels != nil {
		return m.levels.get(priority)
	}
	if priority == asidePriority {
		return &m.groups.aside
	}
	return &m.ready
}

// took lets a backlog go that a message was taken out of, if it was the last.
func (m *Machine[P]) took(b *backlog[P]) {
	if m.levels != nil && b.head.n == 0 && !b.cold.open() {
		m.levels.drop(b)
	}
}

// putBack makes a message ready that was outstanding or on hold.
func (m *Machine[P]) putBack(it item[P]) {
	it.settle()
	if m.groups != nil && m.putAside(it) {
		return
	}
	b := &m.ready
	if m.levels != nil {
		b = m.levels.ensure(it.priority(), &m.sum)
	}
	b.putBack(it)
}

// Next hands out the first ready message to the consumer whose turn it is and describes that in d. It returns false,
// with d untouched, if nothing can move: no message is ready, the first has a seq of limit or above or is not in
// memory (see NeedsLoad), or no consumer can take one. Consumers that a refuses are parked; a is asked at most once
// for each active consumer.
func (m *Machine[P]) Next(limit uint64, a Admitter, d *Delivery[P]) bool {
	if m.groups != nil {
		return m.nextGrouped(limit, a, d)
	}
	b := m.top()
	if b == nil {
		return false
	}
	first := b.peek()
	if first == nil || first.seq >= limit {
		return false
	}
	slot := m.roster.pick(a, first.size)
	if slot == 0 {
		return false
	}
	s := &m.roster.slots[slot]
	m.handOut(b, slot, s.ID, s.NoAck, d)
	m.roster.served(slot)
	return true
}

// Get hands out the first ready message to nobody's subscription (basic.get); unless noAck it is outstanding under
// consumer 0. It returns false, with d untouched, if no message is ready, or the first has a seq of limit or above or
// is not in memory; Ready and Head tell which. In a queue with groups it is false also if all messages belong to groups
// that others have.
func (m *Machine[P]) Get(limit uint64, noAck bool, d *Delivery[P]) bool {
	if m.groups != nil {
		return m.getGrouped(limit, noAck, d)
	}
	b := m.top()
	if b == nil {
		return false
	}
	first := b.peek()
	if first == nil || first.seq >= limit {
		return false
	}
	m.handOut(b, 0, 0, noAck, d)
	return true
}

// handOut moves the first message of a backlog to the outstanding ones, or out of the queue. It ends as hand does, written
// out here: the call costs 4 of some 63 ns.
func (m *Machine[P]) handOut(b *backlog[P], slot uint32, id ConsumerID, noAck bool, d *Delivery[P]) {
	it := b.pop()
	if m.levels != nil {
		m.handedOut = max(m.handedOut, it.seq+1)
		m.took(b)
	}
	d.set(&it, id, noAck)
	if noAck {
		m.gone()
		return
	}
	it.slot = slot
	it.raise(acquiredShift)
	m.hold(it)
}

// hand describes a message that was taken out of its list to be handed out, and keeps it unless noAck is set.
func (m *Machine[P]) hand(it item[P], slot uint32, id ConsumerID, noAck bool, d *Delivery[P]) {
	d.set(&it, id, noAck)
	if noAck {
		m.gone()
		return
	}
	it.slot = slot
	it.raise(acquiredShift)
	m.hold(it)
}

// set describes a message that is taken out. It writes every field, one by one: a composite literal is built aside
// and copied.
func (d *Delivery[P]) set(it *item[P], consumer ConsumerID, gone bool) {
	d.Consumer = consumer
	d.Seq = it.seq
	d.Payload = it.payload
	d.Size = it.size
	d.Priority = it.priority()
	d.Redelivered = it.redelivered()
	d.NoAck = gone
	d.Unloaded = !it.loaded()
	d.Deliveries = it.failed()
	d.Acquired = it.acquired()
}

// hold puts a message among those that are neither ready nor gone.
func (m *Machine[P]) hold(it item[P]) {
	m.unacked.insert(it)
	m.unackedSize += uint64(it.size)
	if it.loaded() {
		m.unackedLoaded++
		m.unackedBytes += uint64(it.size)
	}
}

// Ack forgets an outstanding message, be it acknowledged or rejected without requeue, or one that is leaving, and
// returns it. The credit goes back to its consumer. False if seq is neither.
func (m *Machine[P]) Ack(seq uint64) (Gone[P], bool) {
	c, ok := m.unacked.find(seq)
	if !ok || m.unacked.at(c).is(flagHeld) {
		return Gone[P]{}, false
	}
	it := m.takeUnacked(c)
	if it.is(flagLeaving) {
		m.leaving--
	}
	m.forget(seq)
	m.gone()
	return it.describe(), true
}

// takeUnacked takes a message out of unacked and returns its credit.
func (m *Machine[P]) takeUnacked(c cursor) item[P] {
	it := m.unacked.remove(c)
	m.unackedSize -= uint64(it.size)
	if it.loaded() {
		m.unackedLoaded--
		m.unackedBytes -= uint64(it.size)
	}
	m.roster.credit(it.slot)
	if m.groups != nil {
		m.settled(&it)
	}
	return it
}

// DropHead takes out the first ready message, to shorten the queue: of the highest priority, and past its deadline if
// Expire has not yet pulled it. If keep is set the message is leaving until Ack, else it is gone. It returns false, with
// d untouched, if no message is ready or the first is in the cold range: then, if Ready is not 0, it works after a
// load; see NeedsLoad.
func (m *Machine[P]) DropHead(keep bool, d *Delivery[P]) bool {
	if m.takeDue(keep, d) {
		return true
	}
	b := m.top()
	if m.groups != nil {
		b = m.groups.first(b)
	}
	if b == nil || b.head.n == 0 {
		return false
	}
	it := b.pop()
	m.took(b)
	m.leave(it, keep, d)
	return true
}

// leave describes a message that was taken out without being handed out and keeps it among the leaving ones, or not.
func (m *Machine[P]) leave(it item[P], keep bool, d *Delivery[P]) {
	d.set(&it, 0, !keep)
	if !keep {
		m.forget(it.seq)
		m.gone()
		return
	}
	it.meta |= flagLeaving
	m.leaving++
	m.hold(it)
}

// Purge forgets all messages that are ready or on hold and returns how many there were. each is called with what they
// were, as intervals [from, to) of consecutive seqs, in ascending order in a queue without priorities, deadlines and
// holds; a cold range is one interval, in which there may be seqs that were gone before. No interval has
// an outstanding or leaving message in it. each must not call the machine. A load in flight stays in flight and brings
// nothing.
func (m *Machine[P]) Purge(each func(from, to uint64)) (n int) {
	n = m.sum.n + m.held
	cold := m.ready.cold
	r := runs{each: each}
	m.ready.clear(&r, &m.unacked, cold)
	if m.levels != nil {
		for b := m.levels.top(); b != nil; b = m.levels.top() {
			b.clear(&r, &m.unacked, cold)
			m.levels.drop(b)
		}
	}
	if m.groups != nil {
		m.groups.aside.clear(&r, &m.unacked, cold)
	}
	m.sum = totals{}
	m.purgeTiming(&r, cold)
	r.flush()
	return n
}

// Head describes the message to hand out next: its seq (in a cold range: the lowest it can have) and whether it is in
// memory. ok is false if none is ready.
func (m *Machine[P]) Head() (seq uint64, loaded, ok bool) {
	b := m.top()
	if b == nil {
		return 0, false, false
	}
	if m.groups != nil {
		b = m.groups.first(b)
	}
	if it := b.head.front(); it != nil {
		return it.seq, it.loaded(), true
	}
	return b.cold.from, false, b.cold.open()
}

// Unseen returns a seq from which on no message was handed out, or passed over because of its group: that of the next
// one that Next looks at, if there is any. In a queue with groups this may be far beyond Head.
func (m *Machine[P]) Unseen() uint64 {
	b := &m.ready
	if it := b.head.front(); it != nil {
		return max(b.handedOut, it.seq)
	}
	return max(b.handedOut, b.cold.from)
}

// Ready returns the number of ready messages, in memory or not, those that are due and wait for Expire included.
func (m *Machine[P]) Ready() int { return m.sum.n }

// ReadyBytes returns the body bytes of the ready messages, in memory or not.
func (m *Machine[P]) ReadyBytes() uint64 { return m.sum.bytes }

// UnackedBytes returns the body bytes of the outstanding messages and of those on hold or leaving, in memory or not.
func (m *Machine[P]) UnackedBytes() uint64 { return m.unackedSize }

// Unacked returns the number of outstanding messages.
func (m *Machine[P]) Unacked() int { return m.unacked.n - m.held - m.leaving }

// Held returns the number of messages on hold.
func (m *Machine[P]) Held() int { return m.held }

// Leaving returns the number of messages that were taken out and wait for Ack.
func (m *Machine[P]) Leaving() int { return m.leaving }

// FirstUnacked returns the lowest seq that is outstanding, on hold or leaving; false if none is.
func (m *Machine[P]) FirstUnacked() (seq uint64, ok bool) {
	it := m.unacked.front()
	if it == nil {
		return 0, false
	}
	return it.seq, true
}

// CanTake reports whether a consumer is there that takes the next message at once.
func (m *Machine[P]) CanTake() bool { return len(m.roster.levels) > 0 }

// Consumers returns the number of subscribed consumers.
func (m *Machine[P]) Consumers() int { return len(m.roster.byID) }

// HasExclusive reports whether an exclusive consumer is subscribed.
func (m *Machine[P]) HasExclusive() bool { return m.roster.exclusive }

// Active returns the consumer that gets messages in a queue with a single active consumer, 0 if none is subscribed.
func (m *Machine[P]) Active() ConsumerID { return m.roster.slots[m.roster.activeSlot].ID }

// NextSeq returns the seq that the next message will get.
func (m *Machine[P]) NextSeq() uint64 { return m.nextSeq }

// HandedOut returns the bound below which all seqs lie that were ever handed out since New or Restore, or dropped from
// the head of a queue without priorities.
func (m *Machine[P]) HandedOut() uint64 {
	if m.levels != nil {
		return m.handedOut
	}
	return m.ready.handedOut
}
