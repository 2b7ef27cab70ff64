package fifo

import (
	"cmp"
	"errors"
	"slices"
)

// ErrExclusive is returned by [Machine.Subscribe] when an exclusive consumer is subscribed, or when an exclusive one
// finds others.
var ErrExclusive = errors.New("fifo: queue in exclusive use")

// ConsumerID names a consumer of one queue. Zero stands for basic.get and is no consumer's.
type ConsumerID uint64

// Consumer is a subscription.
type Consumer struct {
	ID        ConsumerID
	Prefetch  uint32 // how many unacknowledged messages it may hold; 0 = any number
	NoAck     bool   // deliveries are gone at once; Prefetch does not apply
	Exclusive bool   // refuses others
	Priority  int32  // higher ones are served first while they can take messages
}

// Admitter is asked right before each delivery.
type Admitter interface {
	// Admit reports whether consumer c can take a message of size body bytes now: whether its outbox has room and
	// its channel's limit allows. True is followed by the delivery. A refused consumer is parked until Unpark.
	// Admit must not call the machine.
	Admit(c ConsumerID, size uint32) bool
}

// slot is a consumer's place in the roster. It outlives the subscription while messages are outstanding under it.
type slot struct {
	Consumer
	unacked    uint32
	parked     bool
	active     bool   // in its level's ring
	gone       bool   // unsubscribed
	joined     bool   // in roster.joined
	waiting    bool   // not the single active consumer, or about to be replaced as that
	since      uint64 // when it subscribed, as a count
	prev, next uint32 // neighbours in the ring of active consumers
}

// canTake reports whether the consumer belongs into the ring of its level.
func (s *slot) canTake() bool {
	return !s.parked && !s.gone && !s.waiting && (s.NoAck || s.Prefetch == 0 || s.unacked < s.Prefetch)
}

// level is the ring of the active consumers of one priority, in service order.
type level struct {
	priority int32
	head     uint32 // slot to serve next
}

// roster knows the consumers and whose turn it is. Only consumers that can take a message are in a ring and only
// levels with such consumers exist, so blocked consumers cost nothing when one is picked.
type roster struct {
	slots     []slot // slots[0] is basic.get's
	free      []uint32
	byID      map[ConsumerID]uint32 // subscribed ones
	levels    []level               // ascending, so the level to serve is the last
	exclusive bool

	// Of a queue with message groups: consumers that joined the service order of late.
	grouped bool
	joined  []uint32

	// Of a queue with a single active consumer.
	single, preempt bool
	activeSlot      uint32 // 0 = none
	subscribed      uint64 // how many there ever were
}

func (r *roster) subscribe(c Consumer) error {
	if c.ID == 0 {
		panic("fifo: consumer id 0")
	}
	if _, ok := r.byID[c.ID]; ok {
		panic("fifo: consumer id in use")
	}
	if r.exclusive || c.Exclusive && len(r.byID) > 0 {
		return ErrExclusive
	}
	if r.byID == nil {
		r.byID = make(map[ConsumerID]uint32)
	}
	var i uint32
	if n := len(r.free); n > 0 {
		i = r.free[n-1]
		r.free = r.free[:n-1]
	} else {
		i = uint32(len(r.slots))
		r.slots = append(r.slots, slot{})
	}
	r.subscribed++
	r.slots[i] = slot{Consumer: c, waiting: r.single, since: r.subscribed}
	r.byID[c.ID] = i
	r.exclusive = c.Exclusive
	if r.single {
		r.elect()
	}
	r.update(i)
	return nil
}

func (r *roster) unsubscribe(id ConsumerID) {
	i, ok := r.byID[id]
	if !ok {
		return
	}
	delete(r.byID, id)
	s := &r.slots[i]
	s.gone = true
	if s.Exclusive {
		r.exclusive = false
	}
	r.update(i)
	if r.single {
		if i == r.activeSlot {
			r.activeSlot = 0
		}
		r.elect()
	}
	r.reclaim(i)
}

// elect sees to it that one consumer is active: the present one, if there is one and no other may replace it, else
// that of the highest priority, and among equals the one that subscribed first. One that is to be replaced gets
// nothing more, and stays active until it holds nothing.
func (r *roster) elect() {
	best := uint32(0)
	for i := range r.slots {
		s := &r.slots[i]
		if s.ID == 0 || s.gone {
			continue
		}
		if b := &r.slots[best]; best == 0 || s.Priority > b.Priority || s.Priority == b.Priority && s.since < b.since {
			best = uint32(i)
		}
	}
	if now := r.activeSlot; now != 0 {
		s := &r.slots[now]
		replace := r.preempt && r.slots[best].Priority > s.Priority
		if !replace || s.unacked > 0 {
			s.waiting = replace
			r.update(now)
			return
		}
		s.waiting = true
		r.update(now)
	}
	if r.activeSlot = best; best != 0 {
		r.slots[best].waiting = false
		r.update(best)
	}
}

// reclaim frees the slot of an unsubscribed consumer that holds nothing any more.
func (r *roster) reclaim(i uint32) {
	if s := &r.slots[i]; !s.gone || s.unacked > 0 {
		return
	}
	r.slots[i] = slot{}
	if r.free = append(r.free, i); len(r.free) == len(r.slots)-1 {
		r.slots, r.free, r.byID = make([]slot, 1, 2), nil, nil
	}
}

// update puts the consumer at the end of its ring or takes it out, as its state demands.
func (r *roster) update(i uint32) {
	s := &r.slots[i]
	switch can := s.canTake(); {
	case can && !s.active:
		r.join(i)
	case !can && s.active:
		r.leave(i)
	}
}

func (r *roster) findLevel(priority int32) (int, bool) {
	if n := len(r.levels); n > 0 && r.levels[n-1].priority == priority {
		return n - 1, true
	}
	return slices.BinarySearchFunc(r.levels, priority, func(l level, p int32) int { return cmp.Compare(l.priority, p) })
}

// join puts the consumer at the end of its level's service order.
func (r *roster) join(i uint32) {
	s := &r.slots[i]
	s.active = true
	if r.grouped && !s.joined {
		s.joined = true
		r.joined = append(r.joined, i)
	}
	k, ok := r.findLevel(s.Priority)
	if !ok {
		s.prev, s.next = i, i
		r.levels = slices.Insert(r.levels, k, level{s.Priority, i})
		return
	}
	next := r.levels[k].head
	prev := r.slots[next].prev
	s.prev, s.next = prev, next
	r.slots[prev].next, r.slots[next].prev = i, i
}

// leave takes the consumer out of its level's service order.
func (r *roster) leave(i uint32) {
	s := &r.slots[i]
	s.active = false
	k, _ := r.findLevel(s.Priority)
	if s.next == i {
		r.levels = slices.Delete(r.levels, k, k+1)
		return
	}
	r.slots[s.prev].next, r.slots[s.next].prev = s.next, s.prev
	if r.levels[k].head == i {
		r.levels[k].head = s.next
	}
}

// pick returns the slot of the consumer to serve, 0 if there is none, and parks those that a refuses on the way.
func (r *roster) pick(a Admitter, size uint32) uint32 {
	for len(r.levels) > 0 {
		i := r.levels[len(r.levels)-1].head
		if a.Admit(r.slots[i].ID, size) {
			return i
		}
		r.refused(i)
	}
	return 0
}

// refused parks a consumer in the service order.
func (r *roster) refused(i uint32) {
	r.slots[i].parked = true
	r.leave(i)
}

// servedOutOfTurn counts a message for a consumer that may not have been the one to serve; it keeps its place.
func (r *roster) servedOutOfTurn(i uint32) {
	if s := &r.slots[i]; !s.NoAck {
		s.unacked++
		if !s.canTake() {
			r.leave(i)
		}
	}
}

// served puts the consumer just picked behind its equals, or out of the ring if its credit is used up.
func (r *roster) served(i uint32) {
	s := &r.slots[i]
	if !s.NoAck {
		s.unacked++
		if !s.canTake() {
			r.leave(i)
			return
		}
	}
	r.levels[len(r.levels)-1].head = s.next
}

// credit returns the credit of one settled or requeued message.
func (r *roster) credit(i uint32) {
	if i == 0 {
		return // basic.get has no limit
	}
	s := &r.slots[i]
	s.unacked--
	switch {
	case s.gone:
		r.reclaim(i)
	case s.waiting && i == r.activeSlot && s.unacked == 0:
		r.elect()
	case !s.active:
		r.update(i)
	}
}

func (r *roster) setPrefetch(id ConsumerID, n uint32) {
	if i, ok := r.byID[id]; ok {
		r.slots[i].Prefetch = n
		r.update(i)
	}
}

func (r *roster) setParked(id ConsumerID, parked bool) {
	if i, ok := r.byID[id]; ok {
		r.slots[i].parked = parked
		r.update(i)
	}
}
