package fifo

import "slices"

// groupWindow is how many messages of blocked groups may be passed over. Then the queue stands until one of them moves.
const groupWindow = 8192

// groups pass over messages whose group is with another consumer. What is passed over leaves head for aside, once,
// and waits there: the queue of its group knows its seq. So no message is looked at twice, however long the backlog.
type groups[P any] struct {
	aside   backlog[P]
	byID    map[uint16]*group // those that have a message somewhere else than in head or behind it
	spare   []*group
	moving  runHeap    // groups with messages aside, by their first: all that can move and some that cannot any more
	waiting [][]uint16 // by slot: groups with messages aside that wait until this consumer can take
	stuck   uint64     // message aside that is next, but not in memory; valid while there is one
}

type group struct {
	id          uint16
	listed      bool     // in moving, once
	waitsFor    uint32   // the slot in whose list of waiting groups it is, 0 = none
	owner       uint32   // the slot that has outstanding messages of it, 0 = nobody's
	outstanding int      // how many, basic.get's too
	held        int      // messages on hold
	queue       []uint64 // seqs aside, ascending; some may be gone
}

// asidePriority marks what belongs to aside in a load: a queue with groups has no priorities.
const asidePriority = 1

func newGroups[P any](sum *totals) *groups[P] {
	g := &groups[P]{byID: make(map[uint16]*group)}
	g.aside = backlog[P]{handedOut: ^uint64(0), priority: asidePriority, sum: sum}
	return g
}

// get returns a group, which exists then.
func (gs *groups[P]) get(id uint16) *group {
	g := gs.byID[id]
	if g != nil {
		return g
	}
	if n := len(gs.spare); n > 0 {
		g = gs.spare[n-1]
		gs.spare = gs.spare[:n-1]
		*g = group{queue: g.queue[:0]}
	} else {
		g = new(group)
	}
	g.id = id
	gs.byID[id] = g
	return g
}

// tidy forgets the seqs at the front of the queue of a group that are gone, and the group if nothing is left of it.
// Else it is alive.
func (gs *groups[P]) tidy(g *group) (alive bool) {
	for len(g.queue) > 0 {
		if _, ok := gs.aside.head.find(g.queue[0]); ok {
			return true
		}
		g.queue = g.queue[1:]
	}
	if g.outstanding > 0 || g.held > 0 || g.listed {
		return true
	}
	delete(gs.byID, g.id)
	if len(gs.spare) < 64 && cap(g.queue) <= 64 {
		gs.spare = append(gs.spare, g)
	}
	return false
}

// canMove reports whether messages of a group can go to somebody now.
func (m *Machine[P]) canMove(g *group) bool {
	return g.held == 0 && (g.outstanding == 0 || g.owner != 0 && m.roster.slots[g.owner].active)
}

// reconsider is called when a group may have begun to move, or has another first message aside.
func (m *Machine[P]) reconsider(g *group) {
	gs := m.groups
	if g.listed || !gs.tidy(g) || len(g.queue) == 0 {
		return
	}
	switch {
	case m.canMove(g):
		g.listed = true
		gs.moving.push(run{key: g.queue[0], lo: uint64(g.id)})
	case g.held == 0 && g.owner != 0 && g.waitsFor != g.owner:
		g.waitsFor = g.owner
		for len(gs.waiting) <= int(g.owner) {
			gs.waiting = append(gs.waiting, nil)
		}
		gs.waiting[g.owner] = append(gs.waiting[g.owner], g.id)
	}
}

// rejoined reconsiders the groups of consumers that can take again.
func (m *Machine[P]) rejoined() {
	r, gs := &m.roster, m.groups
	for _, i := range r.joined {
		if int(i) < len(r.slots) {
			r.slots[i].joined = false
		}
		if int(i) >= len(gs.waiting) {
			continue
		}
		ids := gs.waiting[i]
		gs.waiting[i] = ids[:0]
		for _, id := range ids {
			if g := gs.byID[id]; g != nil && g.waitsFor == i {
				g.waitsFor = 0
				m.reconsider(g)
			}
		}
	}
	r.joined = r.joined[:0]
}

// firstAside returns the group of the first message aside that can move, nil if there is none.
func (m *Machine[P]) firstAside() *group {
	gs := m.groups
	for len(gs.moving) > 0 {
		e := gs.moving[0]
		g := gs.byID[uint16(e.lo)]
		if gs.tidy(g); len(g.queue) > 0 && g.queue[0] == e.key && m.canMove(g) {
			return g
		}
		m.unlist(g, 0)
	}
	return nil
}

// unlist takes a group out of moving, where it stands at index i, and reconsiders it.
func (m *Machine[P]) unlist(g *group, i int) {
	m.groups.moving.remove(i)
	g.listed = false
	m.reconsider(g)
}

// nextOfGroups finds the first ready message that can move, and sets those before it aside. g is its group, nil if it
// has none; aside tells where it stands.
func (m *Machine[P]) nextOfGroups() (it *item[P], g *group, aside bool) {
	gs, b := m.groups, &m.ready
	m.rejoined()
	for {
		first, ga := b.head.front(), m.firstAside()
		if first == nil || ga != nil && ga.queue[0] < first.seq {
			break
		}
		id := first.group()
		if id == 0 {
			return first, nil, false
		}
		if g = gs.byID[id]; g == nil || !gs.tidy(g) {
			return first, nil, false
		}
		if len(g.queue) == 0 && m.canMove(g) {
			return first, g, false
		}
		if gs.aside.head.n >= groupWindow {
			break
		}
		gs.setAside(g, b.pop())
		if len(g.queue) == 1 {
			m.reconsider(g)
		}
	}
	g = m.firstAside()
	if g == nil {
		return nil, nil, false
	}
	c, _ := gs.aside.head.find(g.queue[0])
	it = gs.aside.head.at(c)
	gs.stuck = it.seq
	return it, g, true
}

// setAside puts a message into the queue of its group.
func (gs *groups[P]) setAside(g *group, it item[P]) {
	at, _ := slices.BinarySearch(g.queue, it.seq)
	g.queue = slices.Insert(g.queue, at, it.seq)
	gs.aside.putBack(it)
}

// nextGrouped is Next for a queue with groups.
func (m *Machine[P]) nextGrouped(limit uint64, a Admitter, d *Delivery[P]) bool {
	r := &m.roster
	for {
		it, g, aside := m.nextOfGroups()
		if it == nil || it.seq >= limit || !it.loaded() {
			return false
		}
		owned := g != nil && g.outstanding > 0
		var slot uint32
		if owned {
			if slot = g.owner; !a.Admit(r.slots[slot].ID, it.size) {
				r.refused(slot)
				continue
			}
		} else if slot = r.pick(a, it.size); slot == 0 {
			return false
		}
		var out item[P]
		if aside {
			out = m.takeAside(it.seq)
			g.queue = g.queue[1:]
		} else {
			out = m.ready.pop()
		}
		s := &r.slots[slot]
		m.handGrouped(out, slot, s.ID, s.NoAck, d)
		if owned {
			r.servedOutOfTurn(slot)
		} else {
			r.served(slot)
		}
		if aside {
			m.unlist(g, 0)
		}
		return true
	}
}

// getGrouped is Get for a queue with groups: the first message of a group of which nothing is outstanding or on hold.
// It looks at groupWindow messages at most.
func (m *Machine[P]) getGrouped(limit uint64, noAck bool, d *Delivery[P]) bool {
	gs, b := m.groups, &m.ready
	ca, ch := gs.aside.head.seek(0), b.head.seek(0)
	aside, head := gs.aside.head.next(&ca), b.head.next(&ch)
	for range groupWindow {
		it, fromAside := head, false
		if aside != nil && (head == nil || aside.seq < head.seq) {
			it, fromAside = aside, true
		}
		if it == nil || it.seq >= limit {
			return false
		}
		if g := gs.byID[it.group()]; g == nil || it.group() == 0 || g.outstanding == 0 && g.held == 0 {
			if !it.loaded() {
				gs.stuck = it.seq
				return false
			}
			if fromAside {
				m.handGrouped(m.takeAside(it.seq), 0, 0, noAck, d)
				return true
			}
			out := b.remove(&b.head, ch.before())
			b.handedOut = max(b.handedOut, out.seq+1)
			m.handGrouped(out, 0, 0, noAck, d)
			return true
		}
		if fromAside {
			aside = gs.aside.head.next(&ca)
		} else {
			head = b.head.next(&ch)
		}
	}
	return false
}

// handGrouped hands out a message and notes who has its group.
func (m *Machine[P]) handGrouped(it item[P], slot uint32, id ConsumerID, noAck bool, d *Delivery[P]) {
	if it.group() != 0 && !noAck {
		g := m.groups.get(it.group())
		g.owner = slot
		g.outstanding++
	}
	m.hand(it, slot, id, noAck, d)
}

// first returns aside or b, whichever has the first message.
func (gs *groups[P]) first(b *backlog[P]) *backlog[P] {
	if x, y := gs.aside.head.front(), b.head.front(); x != nil && (y == nil || x.seq < y.seq) {
		return &gs.aside
	}
	return b
}

func (m *Machine[P]) takeAside(seq uint64) item[P] {
	l := &m.groups.aside.head
	c, _ := l.find(seq)
	return m.groups.aside.remove(l, c)
}

// settled is called when an outstanding message of a group, or one on hold, leaves that state.
func (m *Machine[P]) settled(it *item[P]) {
	g := m.groups.byID[it.group()]
	switch {
	case g == nil || it.is(flagLeaving):
		return
	case it.is(flagHeld):
		g.held--
	default:
		if g.outstanding--; g.outstanding == 0 {
			g.owner = 0
		}
	}
	if g.held == 0 && (g.outstanding == 0 || it.is(flagHeld)) {
		m.reconsider(g)
	}
}

// putAside takes a returned message if later ones of its group are aside.
func (m *Machine[P]) putAside(it item[P]) bool {
	g := m.groups.byID[it.group()]
	if g == nil || !m.groups.tidy(g) || len(g.queue) == 0 {
		return false
	}
	m.groups.setAside(g, it)
	if g.queue[0] == it.seq && g.listed {
		at := slices.IndexFunc(m.groups.moving, func(r run) bool { return uint16(r.lo) == g.id })
		m.unlist(g, at)
	} else {
		m.reconsider(g)
	}
	return true
}

// holds counts a message that is put on hold: the group stands until it is released.
func (gs *groups[P]) holds(it *item[P]) {
	if id := it.group(); id != 0 {
		gs.get(id).held++
	}
}

// want asks for messages aside that are not in memory: the first ones, and the one that would be next.
func (gs *groups[P]) want(window int, l *load) {
	gs.aside.wantHead(window, l)
	has := func(w Interval) bool { return w.From <= gs.stuck && gs.stuck < w.To }
	c, ok := gs.aside.head.find(gs.stuck)
	if ok && window > 0 && !gs.aside.head.at(c).loaded() && !slices.ContainsFunc(l.want, has) {
		l.want = append(l.want, Interval{From: gs.stuck, To: gs.stuck + 1, priority: asidePriority})
	}
}
