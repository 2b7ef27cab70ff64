package fifo

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// pair is a machine and its model, driven together.
type pair struct {
	t       *rapid.T
	fifo    *Machine[*int]
	model   model
	pending []LoadedItem[*int] // read, not yet handed over
	read    bool
	readTo  uint64
	lastID  ConsumerID
	now     int64
}

func (p *pair) same(what string, got, want any) {
	p.t.Helper()
	if got != want {
		p.t.Fatalf("%s: machine says %v, model says %v", what, got, want)
	}
}

func (p *pair) check() {
	p.t.Helper()
	f, m := p.fifo, &p.model
	var readyBytes, loadedBytes uint64
	exclusive := false
	for _, x := range m.messages {
		if x.state <= expiring {
			readyBytes += uint64(x.size)
		}
		if x.loaded {
			loadedBytes += uint64(x.size)
		}
	}
	for _, c := range m.consumers {
		exclusive = exclusive || c.Exclusive
	}
	p.same("Ready", f.Ready(), len(m.ready())+len(m.in(expiring)))
	p.same("Unacked", f.Unacked(), len(m.in(unacked)))
	p.same("Held", f.Held(), len(m.in(held)))
	p.same("Leaving", f.Leaving(), len(m.in(leaving)))
	p.same("ReadyBytes", f.ReadyBytes(), readyBytes)
	p.same("LoadedBytes", f.LoadedBytes(), loadedBytes)
	p.same("Consumers", f.Consumers(), len(m.consumers))
	p.same("HasExclusive", f.HasExclusive(), exclusive)
	p.same("NextSeq", f.NextSeq(), m.next)
	if m.options.MaxPriority > 0 {
		p.same("HandedOut", f.HandedOut(), m.handedOut)
	} else if !m.options.Groups {
		p.same("HandedOut", f.HandedOut(), m.floor)
	}
	var active ConsumerID
	if m.active != nil {
		active = m.active.ID
	}
	p.same("Active", f.Active(), active)
	p.checkTime()
	seq, loaded, ok := f.Head()
	wantSeq, wantLoaded, wantOK := m.coldFrom, false, m.coldFrom < m.coldTo
	if h := m.head(); len(h) > 0 {
		wantSeq, wantLoaded, wantOK = h[0].seq, h[0].loaded, true
	}
	p.same("Head", fmt.Sprint(seq, loaded, ok), fmt.Sprint(wantSeq, wantLoaded, wantOK))
	lists := map[string]*list[*int]{"head": &f.ready.head, "tail": &f.ready.tail, "unacked": &f.unacked}
	if f.timing != nil {
		lists["due"] = &f.timing.due
	}
	for i := 0; f.levels != nil && i < len(f.levels.byPriority); i++ {
		if b := f.levels.byPriority[i]; b != nil {
			lists[fmt.Sprint("level ", i)] = &b.head
		}
	}
	if f.groups != nil {
		lists["aside"] = &f.groups.aside.head
	}
	for name, l := range lists {
		if err := checkList(l); err != nil {
			p.t.Fatal(name, ": ", err)
		}
	}
}

// checkTime: the next deadline is never late, and timers are bounded by the messages.
func (p *pair) checkTime() {
	p.t.Helper()
	f, m := p.fifo, &p.model
	at, ok := f.NextDeadline()
	for _, x := range m.messages {
		want := (x.deadline + 15) / 16 * 16
		switch {
		case x.state == expiring:
			want = 0
		case x.state == held && (x.deadline == 0 || x.until < x.deadline):
			want = (x.until + 15) / 16 * 16
		case x.deadline == 0 || x.due || x.state == leaving || x.state == unacked && want <= p.now:
			continue
		}
		if !ok || at > want {
			p.t.Fatalf("next deadline is %d %v, but %d has to do at %d", at, ok, x.seq, want)
		}
	}
	if t := f.timing; t != nil {
		if n, live := t.expiry.len(), len(m.messages); n > 4*live+4*sweepSlack {
			p.t.Fatalf("%d runs for %d messages", n, live)
		}
	}
}

func (p *pair) int(name string, lo, hi int) int { return rapid.IntRange(lo, hi).Draw(p.t, name) }

func (p *pair) bool(name string) bool { return rapid.Bool().Draw(p.t, name) }

// anyConsumer draws an id that is mostly subscribed.
func (p *pair) anyConsumer() ConsumerID { return ConsumerID(p.int("consumer", 1, int(p.lastID)+1)) }

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
			priority: uint8(p.int("priority", 0, int(m.options.MaxPriority))), deadline: p.deadline(),
		}
		if x.redelivered {
			x.acquired = uint16(p.int("acquired", 0, 3))
			x.deliveries = x.acquired / 2
		}
		if p.int("held", 0, 9) == 0 {
			x.state, x.until = held, p.now+int64(p.int("until", 0, 100))
		} else if m.options.MaxPriority == 0 {
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
		if m.options.MaxPriority == 0 && x.state != held {
			p.fifo.RestoreTimer(x.seq, x.deadline)
			continue
		}
		p.fifo.RestoreItem(RestoredItem{
			Seq: x.seq, Size: x.size, Priority: x.priority, Redelivered: x.redelivered, Deadline: x.deadline,
			Deliveries: x.deliveries, Acquired: x.acquired, NotBefore: x.until,
		})
	}
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
			priority: uint8(p.int("priority", 0, int(p.model.options.MaxPriority)+1)),
		}
		if m := &p.model; m.options.Groups {
			x.group = uint16(p.int("group", 0, 4))
		}
		x.persistent = kind > 0 && (kind > 1 || i%20 > 0)
		item := Item[*int]{Payload: x.payload, Size: x.size, Priority: x.priority, Group: x.group, Deadline: x.deadline}
		x.priority = min(x.priority, p.model.options.MaxPriority)
		p.same("seq", p.fifo.Enqueue(item), x.seq)
		p.model.messages = append(p.model.messages, x)
		p.model.next++
	}
}

func (p *pair) store() {
	upTo := p.model.next - min(p.model.next, uint64(p.int("behind", 0, 50)))
	for _, x := range p.model.messages {
		x.stored = x.stored || x.persistent && x.seq < upTo
	}
}

func (p *pair) stored(seq uint64) bool { return p.model.find(seq).stored }

func (p *pair) subscribe() {
	p.add(&modelConsumer{Consumer: Consumer{
		Prefetch:  uint32(p.int("prefetch", 0, 4)),
		NoAck:     p.int("no-ack", 0, 3) == 0,
		Exclusive: p.int("exclusive", 0, 9) == 0,
		Priority:  int32(p.int("priority", -1, 2)),
	}})
}

func (p *pair) add(c *modelConsumer) {
	p.lastID++
	c.ID = p.lastID
	var want error
	for _, o := range p.model.consumers {
		if o.Exclusive || c.Exclusive {
			want = ErrExclusive
		}
	}
	p.same("Subscribe", p.fifo.Subscribe(c.Consumer), want)
	if want == nil {
		p.model.consumers = append(p.model.consumers, c)
		c.waits = p.model.options.SingleActive
		p.model.elect()
		p.model.settle(c)
	}
}

func (p *pair) change() {
	id := p.anyConsumer()
	c := p.model.consumer(id)
	op := p.int("change", 0, 4)
	switch op {
	case 0:
		p.fifo.Unsubscribe(id)
	case 1:
		n := uint32(p.int("prefetch", 0, 6))
		p.fifo.SetPrefetch(id, n)
		if c != nil {
			c.Prefetch = n
		}
	case 2:
		p.fifo.Park(id)
	case 3:
		p.fifo.Unpark(id)
	}
	if c == nil {
		return
	}
	switch op {
	case 0:
		c.gone = true
		p.model.consumers = slices.DeleteFunc(p.model.consumers, func(o *modelConsumer) bool { return o == c })
	case 2:
		c.parked = true
	case 3:
		c.parked = false
	case 4:
		c.refuses = !c.refuses
	}
	p.model.settle(c)
	p.model.elect()
}

func (p *pair) pump() {
	limit := p.model.next
	if p.bool("limited") {
		limit -= min(limit, uint64(p.int("limit", 0, 20)))
	}
	for range p.int("deliveries", 1, 100) {
		var d Delivery[*int]
		want, wantOK := p.model.deliver(limit)
		// The model has already parked those that refuse; the answer to the machine does not depend on that.
		p.same("Next", p.fifo.Next(limit, &p.model, &d), wantOK)
		p.same("delivery", d, want)
		if !wantOK {
			break
		}
	}
}

func (p *pair) get() {
	noAck := p.bool("no-ack")
	limit := p.model.next - min(p.model.next, uint64(p.int("limit", 0, 3)))
	var d, want Delivery[*int]
	first := p.model.firstForGet()
	ok := first != nil && first.seq < limit
	if ok {
		want = p.model.handOut(first, nil, noAck)
	}
	p.same("Get", p.fifo.Get(limit, noAck, &d), ok)
	p.same("delivery", d, want)
}

// settle acknowledges or returns some messages, mostly outstanding ones.
func (p *pair) settle() {
	how := p.int("how", 0, 4)
	failed, until := p.bool("failed"), p.now+int64(p.int("until", 0, 100))
	first := p.int("first", 0, int(p.model.next))
	step := p.int("step", 1, 3)
	for i := range p.int("settle", 1, 80) {
		seq := uint64(first + i*step)
		if p.bool("down") {
			seq = uint64(max(first-i*step, 0))
		}
		p.settleOne(how, seq, failed, until)
	}
}

func (p *pair) settleOne(how int, seq uint64, failed bool, until int64) {
	m, x := &p.model, p.model.find(seq)
	ok := x != nil && x.state == unacked
	counts, known := p.fifo.Outstanding(seq)
	p.same("Outstanding", known, ok)
	var want Gone[*int]
	if x != nil {
		want.Size = x.size
		if x.loaded {
			want.Payload = x.payload
		}
	}
	if ok {
		p.same("counts", counts, Counts{x.deliveries, x.acquired, x.due})
	}
	if ok && failed && (how == 0 || how == 1) {
		x.deliveries++
	}
	switch how {
	case 0:
		p.same("Requeue", p.fifo.Requeue(seq, failed), ok)
		if ok {
			m.release(x, waiting)
		}
	case 1:
		p.same("Hold", p.fifo.Hold(seq, failed, until), ok)
		if ok {
			x.until = until
			m.release(x, held)
		}
	case 2:
		got, gotOK := p.fifo.Bury(seq)
		p.same("Bury", gotOK, ok)
		if ok {
			p.same("buried", got, want)
			m.release(x, leaving)
		}
	default:
		ok = ok || x != nil && x.state == leaving
		got, gotOK := p.fifo.Ack(seq)
		p.same("Ack", gotOK, ok)
		if ok {
			p.same("acked", got, want)
			m.remove(x)
			m.release(x, leaving)
		}
	}
}

// pass lets time pass and does what is to be done then.
func (p *pair) pass() {
	p.now += int64(p.int("ms", 0, 100))
	if p.bool("release") {
		limit := p.int("max", 0, 50)
		var want []*modelMessage
		for _, x := range p.model.in(held) {
			if (x.until+15)/16*16 <= p.now {
				want = append(want, x)
			}
		}
		if len(want) > limit {
			limit = len(want)
		}
		p.same("Release", p.fifo.Release(p.now, limit), len(want))
		for _, x := range want {
			x.state = waiting
		}
	}
	p.expire()
}

func (p *pair) expire() {
	keep := p.bool("keep")
	want := p.model.expire(p.now)
	for range len(want) {
		var d Delivery[*int]
		if !p.fifo.Expire(p.now, keep, &d) {
			break
		}
		at := slices.IndexFunc(want, func(x *modelMessage) bool { return x.seq == d.Seq })
		if at < 0 {
			p.t.Fatalf("%d expired, which is not due or already was", d.Seq)
		}
		p.same("expired", d, p.model.takeOut(want[at], keep))
		want = slices.Delete(want, at, at+1)
	}
	if len(want) > 0 {
		p.t.Fatalf("%d does not expire", want[0].seq)
	}
	if d := (Delivery[*int]{}); p.fifo.Expire(p.now, keep, &d) {
		p.t.Fatalf("%d expires twice", d.Seq)
	}
}

func (p *pair) drop() {
	keep := p.bool("keep")
	for range p.int("drop", 1, 10) {
		list := append(p.model.in(expiring), p.model.head()...)
		var d Delivery[*int]
		ok := p.fifo.DropHead(keep, &d)
		p.same("DropHead", ok, len(list) > 0)
		if !ok {
			return
		}
		if list[0].state == waiting {
			p.model.floor = max(p.model.floor, list[0].seq+1)
		}
		p.same("dropped", d, p.model.takeOut(list[0], keep))
	}
}

func (p *pair) purge() {
	m := &p.model
	var want []*modelMessage
	for _, x := range m.messages {
		if x.state <= expiring || x.state == held {
			want = append(want, x)
		}
	}
	var got []uint64
	inCold := 0
	count := func(seq uint64) {
		if x := m.find(seq); x == nil || x.state == unacked || x.state == leaving {
			if seq < m.coldFrom || seq >= m.coldTo || x != nil {
				p.t.Fatalf("purged %d, which is not ready", seq)
			}
			inCold++ // a hole in a restored range
			return
		}
		got = append(got, seq)
	}
	n := p.fifo.Purge(func(from, to uint64) {
		for ; from < to; from++ {
			count(from)
		}
	})
	p.same("Purge", n, len(want))
	var seqs []uint64
	for _, x := range want {
		seqs = append(seqs, x.seq)
		m.remove(x)
	}
	slices.Sort(got)
	if !slices.Equal(got, seqs) {
		p.t.Fatalf("purged %v, want %v", got, seqs)
	}
	m.coldFrom, m.coldTo = 0, 0
}

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
	order := p.model.ready()
	var dropped []*modelMessage
	n, bytes := p.fifo.PageOut(keep, limit, func(seq uint64) bool {
		x := p.model.find(seq)
		if at := slices.Index(order, x); !x.loaded || at < keep {
			p.t.Fatalf("asks for %d, at %d, loaded %t", seq, at, x.loaded)
		}
		if x.stored {
			dropped = append(dropped, x)
		}
		return x.stored
	})
	for _, x := range dropped {
		x.loaded = false
		bytes -= uint64(x.size)
	}
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
	for i, x := range order {
		if i >= keep && x.loaded && x.stored {
			p.t.Fatalf("%d is not paged out", x.seq)
		}
	}
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

func (p *pair) run(t *rapid.T) {
	p.t = t
	p.restore()
	step := func(f func()) func(*rapid.T) { return func(*rapid.T) { f() } }
	t.Repeat(map[string]func(*rapid.T){
		"":          func(*rapid.T) { p.check() },
		"enqueue":   step(p.enqueue),
		"store":     step(p.store),
		"subscribe": step(p.subscribe),
		"change":    step(p.change),
		"pump":      step(p.pump),
		"pump2":     step(p.pump),
		"get":       step(p.get),
		"settle":    step(p.settle),
		"settle2":   step(p.settle),
		"pass":      step(p.pass),
		"drop":      step(p.drop),
		"purge":     step(p.purge),
		"page":      step(p.page),
		"unload":    step(p.unload),
		"load":      step(p.load),
		"load2":     step(p.load),
		"load3":     step(p.load),
	})
}

// TestGroupsAgreeWithModel is the same for what matters with groups: some busy consumers, and returns.
func TestGroupsAgreeWithModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := &pair{t: t, now: 1000}
		p.model.options = Options{Groups: true}
		p.fifo = New[*int](p.model.options)
		for range p.int("consumers", 2, 5) {
			p.add(&modelConsumer{Consumer: Consumer{Prefetch: uint32(p.int("prefetch", 1, 3)), Priority: int32(p.int("priority", 0, 1))}})
		}
		step := func(f func()) func(*rapid.T) { return func(*rapid.T) { f() } }
		t.Repeat(map[string]func(*rapid.T){
			"":        func(*rapid.T) { p.check() },
			"enqueue": step(p.enqueue),
			"change":  step(p.change),
			"pump":    step(p.pump),
			"pump2":   step(p.pump),
			"settle":  step(p.settleFew),
			"settle2": step(p.settleFew),
			"settle3": step(p.settleFew),
			"get":     step(p.get),
			"pass":    step(p.pass),
			"drop":    step(p.drop),
		})
	})
}

// settleFew acknowledges or returns some of the outstanding messages.
func (p *pair) settleFew() {
	for range p.int("settle", 1, 3) {
		if list := p.model.in(unacked); len(list) > 0 {
			x := list[p.int("which", 0, len(list)-1)]
			p.settleOne([]int{0, 0, 0, 1, 2, 3, 3, 3}[p.int("how", 0, 7)], x.seq, p.bool("failed"), p.now+20)
		}
	}
}

// TestMachineAgreesWithModel drives a machine and the slow model through the same random calls.
func TestMachineAgreesWithModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { new(pair).run(t) })
}

// TestEverythingComesOutOnce lets random things happen and then drains the queue: every message that was not settled
// comes out, each once, in order.
func TestEverythingComesOutOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := new(pair)
		p.run(t)
		f, m := p.fifo, &p.model
		f.Release(1<<40, 1<<30)
		for _, x := range slices.Clone(m.messages) {
			switch x.state {
			case unacked:
				p.settleOne(0, x.seq, false, 0)
			case leaving:
				p.settleOne(4, x.seq, false, 0)
			case held:
				x.state = waiting
			}
		}
		if m.loading {
			f.LoadFailed()
		}
		for len(m.messages) > 0 {
			p.expire()
			for _, x := range m.in(leaving) {
				p.settleOne(4, x.seq, false, 0)
			}
			var d Delivery[*int]
			for f.Get(m.next, true, &d) {
				if want := m.ready(); len(want) == 0 || d.Seq != want[0].seq || d.Payload != want[0].payload {
					t.Fatalf("got %d, want %v", d.Seq, m.messages)
				}
				m.remove(m.find(d.Seq))
			}
			if p.askLoad(1) {
				items, next := m.read(10)
				f.Loaded(items, next)
				m.loaded(items, next)
			} else if len(m.messages) > 0 {
				t.Fatalf("stuck before %d", m.messages[0].seq)
			}
		}
		if f.Ready() != 0 || f.Unacked() != 0 || f.LoadedBytes() != 0 || f.ReadyBytes() != 0 || f.Held() != 0 || f.Leaving() != 0 {
			t.Fatalf("left over: %+v", f)
		}
	})
}
