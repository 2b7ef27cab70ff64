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
	var readyBytes, loadedBytes, otherBytes uint64
	var loadedReady, loadedOther int
	exclusive := false
	for _, x := range m.messages {
		if x.state <= expiring {
			readyBytes += uint64(x.size)
		} else {
			otherBytes += uint64(x.size)
		}
		switch {
		case !x.loaded || x.state == expiring:
		case x.state < expiring:
			loadedReady++
		default:
			loadedOther++
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
	p.same("UnackedBytes", f.UnackedBytes(), otherBytes)
	ready, other := f.InMemory()
	p.same("InMemory", fmt.Sprint(ready, other), fmt.Sprint(loadedReady, loadedOther))
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
		p.same("counts", counts, Counts{x.size, x.deliveries, x.acquired, x.due, x.group})
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
			p.model.left(list[0])
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
