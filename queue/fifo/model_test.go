package fifo

import (
	"flag"
	"os"
	"slices"
	"testing"
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
	redelivered bool // said by the store
	loaded      bool
	priority    uint8
	group       uint16
	deadline    int64
	deliveries  uint16
	acquired    uint16
	state       modelState
	holder      *modelConsumer // of an outstanding one; nil for basic.get
	until       int64          // of one on hold
	due         bool           // Expire was called after the deadline, and it could not be pulled
}

type modelState int

const (
	waiting  modelState = iota // in its place
	expiring                   // ready, but nothing other than Expire or DropHead takes it
	unacked
	held
	leaving
)

type modelConsumer struct {
	Consumer
	unacked uint32
	parked  bool
	gone    bool
	refuses bool
	waits   bool // not the single active one
}

// model is the queue written for obviousness: one sorted slice of messages, one slice of consumers in service order.
type model struct {
	options          Options
	messages         []*modelMessage  // in seq order
	consumers        []*modelConsumer // subscribed, in that order
	order            []*modelConsumer // those that can take, first come first served among equals
	active           *modelConsumer   // of a queue with a single active one
	next             uint64
	handedOut        uint64
	floor            uint64 // what left the head was below
	coldFrom, coldTo uint64
	loading          bool
	loadCold         [2]uint64 // the cold range when the load was asked for
	want             []Interval
	pageFrom         uint64
	releaseFrom      uint64
}

func (m *model) cold(x *modelMessage) bool {
	return x.priority == m.options.DefaultPriority && m.coldFrom <= x.seq && x.seq < m.coldTo
}

func (m *model) in(state modelState) (list []*modelMessage) {
	for _, x := range m.messages {
		if x.state == state {
			list = append(list, x)
		}
	}
	return list
}

// ready returns the messages that wait in their places, in the order in which they go out.
func (m *model) ready() (list []*modelMessage) {
	list = m.in(waiting)
	slices.SortStableFunc(list, func(x, y *modelMessage) int { return int(y.priority) - int(x.priority) })
	return list
}

// head returns the ready messages before the cold range.
func (m *model) head() (list []*modelMessage) {
	for _, x := range m.ready() {
		if m.coldFrom < m.coldTo && (x.priority < m.options.DefaultPriority || x.priority == m.options.DefaultPriority && x.seq >= m.coldFrom) {
			break
		}
		list = append(list, x)
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
	can := !c.parked && !c.gone && !c.waits && (c.NoAck || c.Prefetch == 0 || c.unacked < c.Prefetch)
	at := slices.Index(m.order, c)
	if can && at < 0 {
		m.order = append(m.order, c)
	}
	if !can && at >= 0 {
		m.order = slices.Delete(m.order, at, at+1)
	}
}

// elect chooses the single active consumer after consumers or what they hold have changed.
func (m *model) elect() {
	if !m.options.SingleActive {
		return
	}
	var best *modelConsumer
	for _, c := range m.consumers {
		if best == nil || c.Priority > best.Priority {
			best = c
		}
	}
	replaced := false
	if a := m.active; a != nil && !a.gone {
		replaced = m.options.Preempt && best.Priority > a.Priority
		if !replaced || a.unacked > 0 {
			best = a
		} else {
			replaced = false
		}
	}
	m.active = best
	// Nobody joins the order before somebody has left it.
	for _, c := range m.consumers {
		c.waits = c != best || replaced
		if c.waits {
			m.settle(c)
		}
	}
	if best != nil {
		m.settle(best)
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

// candidate returns the first message that can go to somebody, and to whom if its group is somebody's.
func (m *model) candidate() (*modelMessage, *modelConsumer) {
	if !m.options.Groups {
		return m.first(), nil
	}
	for _, x := range m.ready() {
		free, owner := m.free(x)
		if free || owner != nil && slices.Contains(m.order, owner) {
			return x, owner
		}
	}
	return nil, nil
}

// free reports whether nobody holds messages of the group of x, and who does if anybody.
func (m *model) free(x *modelMessage) (bool, *modelConsumer) {
	free, owner := true, (*modelConsumer)(nil)
	for _, y := range m.messages {
		if x.group == 0 || y.group != x.group {
			continue
		}
		if y.state == held {
			return false, nil
		}
		if y.state == unacked {
			free, owner = false, y.holder
		}
	}
	return free, owner
}

// firstForGet returns the message that basic.get gets.
func (m *model) firstForGet() *modelMessage {
	if !m.options.Groups {
		return m.first()
	}
	for _, x := range m.ready() {
		if free, _ := m.free(x); free {
			return x
		}
	}
	return nil
}

// describe is what is said of a message that goes out.
func (x *modelMessage) describe() Delivery[*int] {
	d := Delivery[*int]{
		Seq: x.seq, Size: x.size, Priority: x.priority, Redelivered: x.redelivered || x.acquired > 0,
		Deliveries: x.deliveries, Acquired: x.acquired, Unloaded: !x.loaded,
	}
	if x.loaded {
		d.Payload = x.payload
	}
	return d
}

func (m *model) handOut(x *modelMessage, c *modelConsumer, noAck bool) Delivery[*int] {
	d := x.describe()
	d.NoAck = noAck
	if c != nil {
		d.Consumer = c.ID
	}
	m.handedOut = max(m.handedOut, x.seq+1)
	m.left(x)
	if noAck {
		m.remove(x)
		return d
	}
	x.acquired++
	x.state, x.holder = unacked, c
	if c != nil {
		c.unacked++
	}
	return d
}

// left is called when x leaves the head of its priority.
func (m *model) left(x *modelMessage) {
	if x.priority == m.options.DefaultPriority {
		m.floor = max(m.floor, x.seq+1)
	}
}

// takeOut is what Expire and DropHead do.
func (m *model) takeOut(x *modelMessage, keep bool) Delivery[*int] {
	d := x.describe()
	d.NoAck = !keep
	if keep {
		x.state = leaving
	} else {
		m.remove(x)
	}
	return d
}

func (m *model) deliver(limit uint64) (d Delivery[*int], ok bool) {
	for {
		x, owner := m.candidate()
		if x == nil || x.seq >= limit || owner == nil && len(m.order) == 0 {
			return d, false
		}
		c := owner
		if owner == nil {
			c = m.order[0]
			for _, o := range m.order {
				if o.Priority > c.Priority {
					c = o
				}
			}
		}
		if c.refuses {
			c.parked = true
			m.settle(c)
			continue
		}
		d = m.handOut(x, c, c.NoAck)
		if owner == nil {
			m.order = append(slices.DeleteFunc(m.order, func(o *modelConsumer) bool { return o == c }), c)
		}
		m.settle(c)
		return d, true
	}
}

// release takes a message from its consumer.
func (m *model) release(x *modelMessage, state modelState) {
	x.state = state
	if c := x.holder; c != nil {
		c.unacked--
		m.settle(c)
		m.elect()
	}
	x.holder = nil
	if x.due && (state == waiting || state == held) {
		x.state = expiring
	}
}

// passed reports whether the deadline of x has passed as the machine counts time.
func passed(deadline, now int64) bool { return deadline != 0 && (deadline+15)/16*16 <= now }

// expire is what happens when Expire is called until it says false: it returns what is taken out.
func (m *model) expire(now int64) (out []*modelMessage) {
	for _, x := range m.messages {
		if x.state == expiring {
			out = append(out, x)
			continue
		}
		if x.state == leaving || !passed(x.deadline, now) {
			continue
		}
		switch {
		case x.state == unacked || x.state == waiting && m.cold(x):
			x.due = true
		default:
			out = append(out, x)
		}
	}
	return out
}

func (m *model) pageOut(keep, limit int) (n int, bytes uint64) {
	drop := func(x *modelMessage) {
		n++
		if x.loaded {
			bytes += uint64(x.size)
		}
		x.loaded = false
	}
	if m.coldFrom == m.coldTo {
		for i, x := range m.ready() {
			if i < keep || x.seq < m.floor {
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
			if x.seq < m.floor || !x.stored {
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
	head, unloaded := m.head(), 0
	for _, x := range m.ready() {
		if !x.loaded && !m.cold(x) {
			unloaded++
		}
	}
	if len(head) <= keep || unloaded == len(head) {
		return n, bytes
	}
	budget := limit - n
	for i := keep; budget > 0; i++ {
		if i < len(head) && head[i].seq < m.pageFrom {
			continue
		}
		budget--
		if i >= len(head) || head[i].seq >= m.floor {
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
		if x.state >= unacked {
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

// needsLoad says what a load is to bring: due ones, or those of the head, or of the beginning of the cold range.
func (m *model) needsLoad(window int) (due, head []*modelMessage, cold bool) {
	for _, x := range m.in(waiting) {
		if x.due && m.cold(x) {
			due = append(due, x)
		}
	}
	for i, x := range m.head() {
		if i < window && !x.loaded {
			head = append(head, x)
		}
	}
	cold = m.coldFrom < m.coldTo && len(m.head()) < window
	for _, x := range head {
		cold = cold && x.priority == m.options.DefaultPriority // others are loaded first
	}
	return due, head, cold
}

// read is the store's side of a load.
func (m *model) read(limit int) (items []LoadedItem[*int], next uint64) {
	for _, w := range m.want {
		for _, x := range m.messages {
			if x.seq < w.From || x.seq >= w.To || !x.stored {
				continue
			}
			if len(items) == limit {
				return items, items[limit-1].Seq + 1
			}
			items = append(items, LoadedItem[*int]{
				Seq: x.seq, Payload: x.payload, Size: x.size, Redelivered: x.redelivered,
				Deliveries: x.deliveries, Acquired: x.acquired, Priority: x.priority,
			})
		}
		next = w.To
	}
	return items, next
}

func (m *model) loaded(items []LoadedItem[*int], next uint64) {
	m.loading = false
	joins := m.coldFrom < m.coldTo && m.loadCold[0] == m.coldFrom
	for _, w := range m.want {
		for _, li := range items {
			x := m.find(li.Seq)
			if li.Seq < w.From || li.Seq >= w.To || x == nil || x.state != waiting {
				continue
			}
			if cold := m.cold(x); w.want == wantReady && !cold || w.want == wantDue && cold || w.want == wantCold && cold && joins {
				x.loaded = true
				if cold && x.due {
					x.state = expiring
				}
			}
		}
	}
	if joins && m.want[len(m.want)-1].want == wantCold {
		if m.coldFrom = max(m.coldFrom, min(next, m.loadCold[1])); m.coldFrom >= m.coldTo {
			m.coldFrom, m.coldTo = 0, 0
		}
	}
}
