package fifo

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue {
		_ = f.Value.Set("2000") // they are short; -rapid.checks=N still has the last word
	}
	os.Exit(m.Run())
}

// modelMessage is a message that is not gone.
type modelMessage struct {
	seq         uint64
	size        uint32
	payload     *int
	persistent  bool // may be stored
	stored      bool
	handedOut   bool
	redelivered bool // said by the store
	unacked     bool
	holder      *modelConsumer // nil for basic.get
	loaded      bool
}

type modelConsumer struct {
	Consumer
	unacked uint32
	parked  bool
	gone    bool
	refuses bool
}

// model is the queue written for obviousness: one sorted slice of messages, one slice of consumers in service order.
type model struct {
	messages         []*modelMessage
	consumers        []*modelConsumer // subscribed
	order            []*modelConsumer // those that can take, first come first served among equals
	next             uint64
	handedOut        uint64
	coldFrom, coldTo uint64
	loading          bool
	loadFrom         uint64
	loadCold         [2]uint64 // the cold range when the load was asked for
	pageFrom         uint64
	releaseFrom      uint64
}

func (m *model) cold(x *modelMessage) bool { return m.coldFrom <= x.seq && x.seq < m.coldTo }

func (m *model) ready() (list []*modelMessage) {
	for _, x := range m.messages {
		if !x.unacked {
			list = append(list, x)
		}
	}
	return list
}

// head returns the ready messages before the cold range.
func (m *model) head() (list []*modelMessage) {
	for _, x := range m.ready() {
		if m.coldFrom == m.coldTo || x.seq < m.coldFrom {
			list = append(list, x)
		}
	}
	return list
}

func (m *model) find(seq uint64) *modelMessage {
	for _, x := range m.messages {
		if x.seq == seq {
			return x
		}
	}
	return nil
}

func (m *model) remove(x *modelMessage) {
	m.messages = slices.DeleteFunc(m.messages, func(y *modelMessage) bool { return x == y })
}

func (m *model) consumer(id ConsumerID) *modelConsumer {
	for _, c := range m.consumers {
		if c.ID == id {
			return c
		}
	}
	return nil
}

// settle puts the service order right after the state of c changed.
func (m *model) settle(c *modelConsumer) {
	can := !c.parked && !c.gone && (c.NoAck || c.Prefetch == 0 || c.unacked < c.Prefetch)
	at := slices.Index(m.order, c)
	if can && at < 0 {
		m.order = append(m.order, c)
	}
	if !can && at >= 0 {
		m.order = slices.Delete(m.order, at, at+1)
	}
}

func (m *model) Admit(id ConsumerID, _ uint32) bool { return !m.consumer(id).refuses }

// first returns the message to hand out if it is in memory.
func (m *model) first() *modelMessage {
	if h := m.head(); len(h) > 0 && h[0].loaded {
		return h[0]
	}
	return nil
}

func (m *model) handOut(c *modelConsumer, noAck bool) Delivery[*int] {
	x := m.first()
	d := Delivery[*int]{Seq: x.seq, Payload: x.payload, Size: x.size, Redelivered: x.handedOut || x.redelivered, NoAck: noAck}
	if c != nil {
		d.Consumer = c.ID
	}
	x.handedOut = true
	m.handedOut = max(m.handedOut, x.seq+1)
	if noAck {
		m.remove(x)
		return d
	}
	x.unacked, x.holder = true, c
	if c != nil {
		c.unacked++
	}
	return d
}

func (m *model) deliver(limit uint64) (d Delivery[*int], ok bool) {
	x := m.first()
	if x == nil || x.seq >= limit {
		return d, false
	}
	for len(m.order) > 0 {
		c := m.order[0]
		for _, o := range m.order {
			if o.Priority > c.Priority {
				c = o
			}
		}
		if !c.refuses {
			d = m.handOut(c, c.NoAck)
			m.order = append(slices.DeleteFunc(m.order, func(o *modelConsumer) bool { return o == c }), c)
			m.settle(c)
			return d, true
		}
		c.parked = true
		m.settle(c)
	}
	return d, false
}

func (m *model) release(x *modelMessage) {
	x.unacked = false
	if x.holder != nil {
		x.holder.unacked--
		m.settle(x.holder)
	}
	x.holder = nil
}

func (m *model) pageOut(keep, limit int) (n int, bytes uint64) {
	drop := func(x *modelMessage) {
		x.loaded = false
		n++
		bytes += uint64(x.size)
	}
	if m.coldFrom == m.coldTo {
		for i, x := range m.ready() {
			if i < keep || x.handedOut {
				continue
			}
			if x.stored && limit > 0 {
				m.coldFrom, m.coldTo = x.seq, x.seq+1
				drop(x)
			}
			break
		}
	}
	if m.coldFrom < m.coldTo {
		for h := m.head(); len(h) > keep && n < limit; h = m.head() {
			x := h[len(h)-1]
			if x.handedOut || !x.stored {
				break
			}
			m.coldFrom = x.seq
			drop(x)
		}
		for _, x := range m.ready() {
			if x.seq < m.coldTo {
				continue
			}
			if n >= limit || !x.stored {
				break
			}
			m.coldTo = x.seq + 1
			drop(x)
		}
	}
	head, some := m.head(), false
	for _, x := range head {
		some = some || x.loaded
	}
	if len(head) <= keep || !some {
		return n, bytes
	}
	budget := limit - n
	for i := keep; budget > 0; i++ {
		if i < len(head) && head[i].seq < m.pageFrom {
			continue
		}
		budget--
		if i >= len(head) || head[i].seq >= m.handedOut {
			m.pageFrom = 0
			break
		}
		m.pageFrom = head[i].seq + 1
		if head[i].loaded && head[i].stored {
			drop(head[i])
		}
	}
	return n, bytes
}

func (m *model) releaseUnacked(limit int) (n int, bytes uint64) {
	var held []*modelMessage
	loaded := 0
	for _, x := range m.messages {
		if x.unacked {
			held = append(held, x)
			if x.loaded {
				loaded++
			}
		}
	}
	for i := 0; limit > 0 && loaded > 0; i++ {
		if i < len(held) && held[i].seq < m.releaseFrom {
			continue
		}
		limit--
		if i >= len(held) {
			m.releaseFrom = 0
			break
		}
		m.releaseFrom = held[i].seq + 1
		if held[i].loaded && held[i].stored {
			held[i].loaded = false
			loaded--
			n++
			bytes += uint64(held[i].size)
		}
	}
	return n, bytes
}

func (m *model) needsLoad(window int) (uint64, bool) {
	if m.loading {
		return 0, false
	}
	m.loadCold = [2]uint64{m.coldFrom, m.coldTo}
	head := m.head()
	for i, x := range head {
		if i < max(window, 1) && !x.loaded {
			m.loading, m.loadFrom = true, x.seq
			return x.seq, true
		}
	}
	if m.coldFrom < m.coldTo && len(head) < max(window, 1) {
		m.loading, m.loadFrom = true, m.coldFrom
		return m.coldFrom, true
	}
	return 0, false
}

// read is the store's side of a load.
func (m *model) read(limit int) (items []LoadedItem[*int], next uint64) {
	for _, x := range m.messages {
		if x.seq < m.loadFrom || !x.stored {
			continue
		}
		if len(items) == limit {
			return items, items[limit-1].Seq + 1
		}
		items = append(items, LoadedItem[*int]{Seq: x.seq, Payload: x.payload, Size: x.size, Redelivered: x.redelivered})
	}
	return items, m.next
}

func (m *model) loaded(items []LoadedItem[*int], next uint64) {
	m.loading = false
	joins := m.coldFrom < m.coldTo && m.loadFrom <= m.coldFrom && m.loadCold[0] == m.coldFrom
	end := min(next, m.loadCold[1])
	for _, li := range items {
		if x := m.find(li.Seq); x != nil && !x.unacked && (!m.cold(x) || joins && x.seq < end) {
			x.loaded = true
		}
	}
	if joins && m.coldFrom < end {
		m.coldFrom = end
		if m.coldFrom >= m.coldTo {
			m.coldFrom, m.coldTo = 0, 0
		}
	}
}

// pair is a machine and its model, driven together.
type pair struct {
	t       *rapid.T
	fifo    *Machine[*int]
	model   model
	pending []LoadedItem[*int] // read, not yet handed over
	read    bool
	readTo  uint64
	lastID  ConsumerID
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
	var unacked, consumers int
	var readyBytes, loadedBytes uint64
	exclusive := false
	for _, x := range m.messages {
		if x.unacked {
			unacked++
		} else {
			readyBytes += uint64(x.size)
		}
		if x.loaded {
			loadedBytes += uint64(x.size)
		}
	}
	for _, c := range m.consumers {
		consumers++
		exclusive = exclusive || c.Exclusive
	}
	ready := m.ready()
	p.same("Ready", f.Ready(), len(ready))
	p.same("Unacked", f.Unacked(), unacked)
	p.same("ReadyBytes", f.ReadyBytes(), readyBytes)
	p.same("LoadedBytes", f.LoadedBytes(), loadedBytes)
	p.same("Consumers", f.Consumers(), consumers)
	p.same("HasExclusive", f.HasExclusive(), exclusive)
	p.same("NextSeq", f.NextSeq(), m.next)
	p.same("HandedOut", f.HandedOut(), m.handedOut)
	seq, loaded, ok := f.Head()
	wantSeq, wantLoaded, wantOK := m.coldFrom, false, m.coldFrom < m.coldTo
	if h := m.head(); len(h) > 0 {
		wantSeq, wantLoaded, wantOK = h[0].seq, h[0].loaded, true
	}
	p.same("Head", fmt.Sprint(seq, loaded, ok), fmt.Sprint(wantSeq, wantLoaded, wantOK))
	if err := checkList(&f.ready.head); err != nil {
		p.t.Fatal("head: ", err)
	}
	if err := checkList(&f.ready.tail); err != nil {
		p.t.Fatal("tail: ", err)
	}
	if err := checkList(&f.unacked); err != nil {
		p.t.Fatal("unacked: ", err)
	}
}

func (p *pair) int(name string, lo, hi int) int { return rapid.IntRange(lo, hi).Draw(p.t, name) }

func (p *pair) bool(name string) bool { return rapid.Bool().Draw(p.t, name) }

// anyConsumer draws an id that is mostly subscribed.
func (p *pair) anyConsumer() ConsumerID { return ConsumerID(p.int("consumer", 1, int(p.lastID)+1)) }

func (p *pair) restore() {
	m := &p.model
	from := uint64(p.int("first", 0, 5))
	p.fifo = New[*int](Options{FirstSeq: from})
	m.next, m.handedOut = from, from
	if p.bool("fresh") {
		return
	}
	n, bytes := p.int("stored", 0, 200), uint64(0)
	for i := range n {
		if m.next = from + uint64(i); p.int("hole", 0, 9) > 0 {
			x := &modelMessage{seq: m.next, size: uint32(i), payload: new(int), persistent: true, stored: true, redelivered: i < n/3}
			m.messages = append(m.messages, x)
			bytes += uint64(i)
		}
	}
	m.next = from + uint64(n)
	m.handedOut = m.next
	if len(m.messages) > 0 {
		m.coldFrom, m.coldTo, m.handedOut = from, m.next, from
	}
	p.fifo.Restore(m.next, from, len(m.messages), bytes)
}

func (p *pair) enqueue() {
	n := p.int("enqueue", 1, 4)
	if n == 4 {
		n = 150
	}
	kind := p.int("persistent", 0, 5)
	for i := range n {
		x := &modelMessage{seq: p.model.next, size: uint32(p.model.next % 7), payload: new(int), loaded: true}
		x.persistent = kind > 0 && (kind > 1 || i%20 > 0)
		p.same("seq", p.fifo.Enqueue(Item[*int]{x.payload, x.size}), x.seq)
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
	c := &modelConsumer{Consumer: Consumer{
		ID:        p.lastID + 1,
		Prefetch:  uint32(p.int("prefetch", 0, 4)),
		NoAck:     p.int("no-ack", 0, 3) == 0,
		Exclusive: p.int("exclusive", 0, 9) == 0,
		Priority:  int32(p.int("priority", -1, 2)),
	}}
	p.lastID++
	var want error
	for _, o := range p.model.consumers {
		if o.Exclusive || c.Exclusive {
			want = ErrExclusive
		}
	}
	p.same("Subscribe", p.fifo.Subscribe(c.Consumer), want)
	if want == nil {
		p.model.consumers = append(p.model.consumers, c)
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
	first := p.model.first()
	ok := first != nil && first.seq < limit
	if ok {
		want = p.model.handOut(nil, noAck)
	}
	p.same("Get", p.fifo.Get(limit, noAck, &d), ok)
	p.same("delivery", d, want)
}

// settle acknowledges or requeues some messages, mostly outstanding ones.
func (p *pair) settle() {
	requeue := p.bool("requeue")
	first := p.int("first", 0, int(p.model.next))
	step := p.int("step", 1, 3)
	for i := range p.int("settle", 1, 80) {
		seq := uint64(first + i*step)
		if p.bool("down") {
			seq = uint64(max(first-i*step, 0))
		}
		x := p.model.find(seq)
		ok := x != nil && x.unacked
		if ok {
			p.model.release(x)
		}
		if requeue {
			p.same("Requeue", p.fifo.Requeue(seq), ok)
			continue
		}
		var want Item[*int]
		if ok {
			want.Size = x.size
			if x.loaded {
				want.Payload = x.payload
			}
			p.model.remove(x)
		}
		got, gotOK := p.fifo.Ack(seq)
		p.same("Ack", gotOK, ok)
		p.same("acked", got, want)
	}
}

func (p *pair) purge() {
	m := &p.model
	want := m.ready()
	var got []uint64
	inCold := 0
	count := func(seq uint64) {
		if x := m.find(seq); x == nil || x.unacked {
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
	if !slices.Equal(got, seqs) {
		p.t.Fatalf("purged %v, want %v", got, seqs)
	}
	m.coldFrom, m.coldTo = 0, 0
}

func (p *pair) page() {
	keep, limit := p.int("keep", 0, 40), p.int("max", 0, 200)
	wantN, wantBytes := p.model.pageOut(keep, limit)
	n, bytes := p.fifo.PageOut(keep, limit, p.stored)
	p.same("PageOut", fmt.Sprint(n, bytes), fmt.Sprint(wantN, wantBytes))
}

func (p *pair) unload() {
	limit := p.int("max", 0, 50)
	wantN, wantBytes := p.model.releaseUnacked(limit)
	n, bytes := p.fifo.ReleaseUnacked(limit, p.stored)
	p.same("ReleaseUnacked", fmt.Sprint(n, bytes), fmt.Sprint(wantN, wantBytes))
}

// load does one of the three steps of a load: ask, read, hand over.
func (p *pair) load() {
	if !p.model.loading {
		window := p.int("window", 0, 60)
		from, ok := p.fifo.NeedsLoad(window)
		wantFrom, wantOK := p.model.needsLoad(window)
		p.same("NeedsLoad", fmt.Sprint(from, ok), fmt.Sprint(wantFrom, wantOK))
		return
	}
	if _, ok := p.fifo.NeedsLoad(1000); ok {
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
		"purge":     step(p.purge),
		"page":      step(p.page),
		"unload":    step(p.unload),
		"load":      step(p.load),
		"load2":     step(p.load),
		"load3":     step(p.load),
	})
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
		for _, x := range m.messages {
			if x.unacked && !f.Requeue(x.seq) {
				t.Fatalf("%d is not outstanding", x.seq)
			}
			x.unacked = false
		}
		if m.loading {
			f.LoadFailed()
		}
		for len(m.messages) > 0 {
			var d Delivery[*int]
			for f.Get(m.next, true, &d) {
				if len(m.messages) == 0 || d.Seq != m.messages[0].seq || d.Payload != m.messages[0].payload {
					t.Fatalf("got %d, want %v", d.Seq, m.messages)
				}
				m.messages = m.messages[1:]
			}
			var ok bool
			if m.loadFrom, ok = f.NeedsLoad(1); ok {
				f.Loaded(m.read(10))
			} else if len(m.messages) > 0 {
				t.Fatalf("stuck before %d", m.messages[0].seq)
			}
		}
		if f.Ready() != 0 || f.Unacked() != 0 || f.LoadedBytes() != 0 || f.ReadyBytes() != 0 {
			t.Fatalf("left over: %+v", f)
		}
	})
}
