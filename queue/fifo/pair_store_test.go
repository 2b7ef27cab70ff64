package fifo

import (
	"fmt"
	"slices"
)

func (p *pair) store() {
	upTo := p.model.next - min(p.model.next, uint64(p.int("behind", 0, 50)))
	for _, x := range p.model.messages {
		x.stored = x.stored || x.persistent && x.seq < upTo
	}
}

func (p *pair) stored(seq uint64) bool { return p.model.find(seq).stored }

func (p *pair) page() {
	if p.model.options.Groups {
		return
	}
	keep, limit := p.int("keep", 0, 40), p.int("max", 0, 200)
	if p.model.options.MaxPriority > 0 {
		p.unloadLevels(keep, limit)
		return
	}
	wantN, wantBytes := p.model.pageOut(keep, limit)
	n, bytes := p.fifo.PageOut(keep, limit, p.stored)
	p.same("PageOut", fmt.Sprint(n, bytes), fmt.Sprint(wantN, wantBytes))
}

func (p *pair) unload() {
	if p.model.options.Groups {
		return
	}
	limit := p.int("max", 0, 50)
	wantN, wantBytes := p.model.releaseUnacked(limit)
	n, bytes := p.fifo.ReleaseUnacked(limit, p.stored)
	p.same("ReleaseUnacked", fmt.Sprint(n, bytes), fmt.Sprint(wantN, wantBytes))
}

// unloadLevels pages out in a queue with priorities. Which messages a call looks at is the machine's choice; in the
// end it has looked at all.
func (p *pair) unloadLevels(keep, limit int) {
	order, m := p.model.ready(), &p.model
	var dropped []*modelMessage
	n, bytes := p.fifo.PageOut(keep, limit, func(seq uint64) bool {
		x := p.model.find(seq)
		if at := slices.Index(order, x); at < keep && (x.priority != m.options.DefaultPriority || x.seq < m.coldTo) {
			p.t.Fatalf("asks for %d, at %d", seq, at)
		}
		if x.stored {
			dropped = append(dropped, x)
		}
		return x.stored
	})
	for _, x := range dropped {
		if x.loaded {
			bytes -= uint64(x.size)
		}
		x.loaded = false
	}
	p.adoptCold()
	if n != len(dropped) || n > limit || bytes != 0 {
		p.t.Fatalf("says %d messages, %d bytes too much; dropped %d", n, bytes, len(dropped))
	}
	if limit < 190 {
		return
	}
	for range 2 {
		p.fifo.PageOut(keep, 1<<30, func(seq uint64) bool {
			x := p.model.find(seq)
			if x.stored {
				x.loaded = false
			}
			return x.stored
		})
	}
	p.adoptCold()
	for i, x := range order {
		if x.priority == m.options.DefaultPriority && x.seq >= m.floor {
			continue // of the cold range, which stops at what is not stored
		}
		if i >= keep && x.loaded && x.stored {
			p.t.Fatalf("%d is not paged out", x.seq)
		}
	}
}

// adoptCold takes the cold range from the machine, if all in it may be there.
func (p *pair) adoptCold() {
	m, cold := &p.model, p.fifo.ready.cold
	m.coldFrom, m.coldTo = 0, 0
	if cold.open() {
		m.coldFrom, m.coldTo = cold.from, cold.to
	}
	count := 0
	for _, x := range m.in(waiting) {
		if !m.cold(x) {
			continue
		}
		if count++; x.loaded || x.seq < m.floor {
			p.t.Fatalf("%d is in the cold range, loaded %t", x.seq, x.loaded)
		}
	}
	p.same("cold messages", cold.count, count)
}

// load does one of the three steps of a load: ask, read, hand over.
func (p *pair) load() {
	if !p.model.loading {
		p.askLoad(p.int("window", 0, 60))
		return
	}
	if p.fifo.NeedsLoad(1000) != nil {
		p.t.Fatal("second load in flight")
	}
	switch {
	case !p.read:
		p.pending, p.readTo = p.model.read(p.int("items", 1, 100))
		p.read = true
	case p.int("fails", 0, 9) == 0:
		p.fifo.LoadFailed()
		p.model.loading, p.read = false, false
	default:
		p.same("missing", p.fifo.Loaded(p.pending, p.readTo), 0)
		p.model.loaded(p.pending, p.readTo)
		p.read = false
	}
}

func (p *pair) askLoad(window int) bool {
	m := &p.model
	due, head, cold := m.needsLoad(window)
	m.loadCold = [2]uint64{m.coldFrom, m.coldTo}
	m.want = slices.Clone(p.fifo.NeedsLoad(window))
	m.loading = m.want != nil
	wants := func(x *modelMessage, kind want) bool {
		return slices.ContainsFunc(m.want, func(w Interval) bool { return w.want == kind && w.From <= x.seq && x.seq < w.To })
	}
	switch {
	case m.loading && m.want[0].want == wantDue: // also for what is gone by now
		for _, x := range due {
			if !wants(x, wantDue) && len(m.want) < dueIntervals {
				p.t.Fatalf("does not ask for %d, which is due", x.seq)
			}
		}
	case len(due) > 0:
		p.t.Fatalf("asks for %v and not for %d, which is due", m.want, due[0].seq)
	default:
		n := 0
		for _, w := range m.want {
			if w.want == wantReady {
				n += int(w.To - w.From)
			}
		}
		for _, x := range head {
			if !wants(x, wantReady) {
				p.t.Fatalf("asks for %v and not for %d", m.want, x.seq)
			}
		}
		p.same("wanted of the head", n, len(head))
		if last := len(m.want) - 1; cold {
			p.same("wanted of the cold range", m.want[last], Interval{From: m.coldFrom, To: m.coldTo, want: wantCold})
		} else if last >= 0 {
			p.same("kind", m.want[last].want, wantReady)
		}
	}
	return m.loading
}

// deadline draws a time near now, mostly none in some runs.
func (p *pair) deadline() int64 {
	if p.int("timed", 0, 2) == 0 {
		return 0
	}
	return max(p.now+int64(p.int("ttl", -20, 200)), 1)
}

func (p *pair) restore() {
	m := &p.model
	from := uint64(p.int("first", 0, 5))
	m.options = Options{FirstSeq: from, SingleActive: p.int("single", 0, 3) == 0, Preempt: p.bool("preempt")}
	if p.int("priorities", 0, 2) == 0 {
		m.options.MaxPriority = []uint8{1, 5, 255}[p.int("max", 0, 2)]
		m.options.DefaultPriority = uint8(p.int("default", 0, int(min(m.options.MaxPriority, 4))))
	}
	// What is set aside changes what is paged out, which the model does not follow.
	m.options.Groups = m.options.MaxPriority == 0 && p.int("groups", 0, 2) == 0
	p.now = 1000
	p.fifo = New[*int](m.options)
	m.next, m.handedOut, m.floor = from, from, from
	if m.options.Groups || p.bool("fresh") {
		return
	}
	n, bytes, cold := p.int("stored", 0, 200), uint64(0), 0
	for i := range n {
		if m.next = from + uint64(i); p.int("hole", 0, 9) == 0 {
			continue
		}
		x := &modelMessage{
			seq: m.next, size: uint32(i), payload: new(int), persistent: true, stored: true, redelivered: i < n/3,
			priority: p.priority(), deadline: p.deadline(),
		}
		if x.redelivered {
			x.acquired = uint16(p.int("acquired", 0, 3))
			x.deliveries = x.acquired / 2
		}
		if p.int("held", 0, 9) == 0 {
			x.state, x.until = held, p.now+int64(p.int("until", 0, 100))
		} else if x.priority == m.options.DefaultPriority {
			bytes += uint64(i)
			cold++
		}
		m.messages = append(m.messages, x)
	}
	m.next = from + uint64(n)
	m.handedOut, m.floor = m.next, m.next
	if cold > 0 {
		m.coldFrom, m.coldTo, m.handedOut, m.floor = from, m.next, from, from
	}
	p.fifo.Restore(m.next, from, cold, bytes)
	for _, x := range m.messages {
		if x.priority == m.options.DefaultPriority && x.state != held {
			p.fifo.RestoreTimer(x.seq, x.deadline)
			continue
		}
		p.fifo.RestoreItem(RestoredItem{
			Seq: x.seq, Size: x.size, Priority: x.priority, Redelivered: x.redelivered, Deadline: x.deadline,
			Deliveries: x.deliveries, Acquired: x.acquired, NotBefore: x.until,
		})
	}
}

// priority draws that of a message, mostly the default one.
func (p *pair) priority() uint8 {
	if p.bool("default priority") {
		return p.model.options.DefaultPriority
	}
	return uint8(p.int("priority", 0, int(p.model.options.MaxPriority)))
}

func (p *pair) enqueue() {
	n := p.int("enqueue", 1, 4)
	if n == 4 {
		n = 150
	}
	kind := p.int("persistent", 0, 5)
	uniform, deadline := p.bool("uniform"), p.deadline()
	for i := range n {
		if !uniform {
			deadline = p.deadline()
		}
		x := &modelMessage{
			seq: p.model.next, size: uint32(p.model.next % 7), payload: new(int), loaded: true, deadline: deadline,
			priority: p.priority(),
		}
		if m := &p.model; m.options.Groups {
			x.group = uint16(p.int("group", 0, 4))
		}
		x.persistent = kind > 0 && (kind > 1 || i%20 > 0)
		if m := &p.model; m.options.MaxPriority > 0 && x.priority == m.options.MaxPriority && m.options.MaxPriority < 255 {
			x.priority += uint8(p.int("above", 0, 1))
		}
		item := Item[*int]{Payload: x.payload, Size: x.size, Priority: x.priority, Group: x.group, Deadline: x.deadline}
		x.priority = min(x.priority, p.model.options.MaxPriority)
		p.same("seq", p.fifo.Enqueue(item), x.seq)
		p.model.messages = append(p.model.messages, x)
		p.model.next++
	}
}
