package main

import (
	"fmt"
	"slices"
	"sync"
)

// MessageID names a published message: the publishing channel and the publish's number on
// it, from 1, which is also its number in the confirms.
type MessageID struct{ Channel, Seq uint32 }

func (id MessageID) String() string { return fmt.Sprintf("%d.%d", id.Channel, id.Seq) }

// Kind is a way to break the contract.
type Kind string

// The kinds of violations. A run without any has kept the contract.
const (
	Lost        Kind = "lost"        // confirmed, never acked by us, and not in the queue
	Duplicate   Kind = "duplicate"   // delivered again with redelivered=false
	Disorder    Kind = "order"       // a first delivery overtook another of its channel
	Corrupt     Kind = "corrupt"     // body or properties are not what was published
	Ghost       Kind = "ghost"       // never published to that queue
	Changed     Kind = "changed"     // an offset of a stream has another message than before
	Resurrected Kind = "resurrected" // acked, and back without a crash between
	Survivor    Kind = "survivor"    // a transient message that outlived the broker
	Returned    Kind = "returned"    // a mandatory message came back although its queues exist
	Topology    Kind = "topology"    // a queue, exchange or binding is gone
	Refused     Kind = "refused"     // the broker closed a channel of a client that did nothing wrong
	Stuck       Kind = "stuck"       // nothing moves
	Died        Kind = "died"        // the broker ended without being killed, or did not start
	Slow        Kind = "slow"        // a start took longer than allowed
)

// Violation is one breach of the contract.
type Violation struct {
	Kind   Kind   `json:"kind"`
	Life   int    `json:"life"`
	Queue  string `json:"queue,omitempty"`
	ID     string `json:"id,omitempty"`
	Detail string `json:"detail,omitempty"`
}

func (v Violation) String() string {
	s := fmt.Sprintf("%s in life %d", v.Kind, v.Life)
	if v.Queue != "" {
		s += ": queue " + v.Queue
	}
	if v.ID != "" {
		s += ": message " + v.ID
	}
	if v.Detail != "" {
		s += ": " + v.Detail
	}
	return s
}

// keptViolations bounds the list; the counts go on.
const keptViolations = 20

// Route is where a publisher can send to: every message goes to all of its queues.
type Route struct {
	Exchange, Key string
	Queues        []int // indexes of Checker's queues
}

// Checker holds what the clients know and judges what they see against the contract:
//
//   - every confirmed persistent message that was not acked is in its queues after a crash;
//   - no message is delivered a second time with redelivered=false;
//   - first deliveries keep the order of their publishing channel, as seen by one consumer;
//   - an acked message may only come back after a crash.
//
// Time is a number of lives: a life ends with the death of the broker, at which every client
// has recorded all that it got before NextLife is called. Its methods may be called from
// any goroutine.
type Checker struct {
	queues []string
	routes []Route
	// VolatileLives tells that the end of a life takes transient messages with it. Set
	// before use.
	VolatileLives bool

	mu         sync.Mutex
	life       int
	dying      bool // connections are being cut one after the other
	channels   []published
	ledgers    []ledger
	order      map[orderKey]uint32 // last first-delivery seen; streams end with their life
	violations []Violation
	counts     map[Kind]int
	stats      Stats
}

// Stats counts what happened. All of it is from the clients' point of view.
type Stats struct {
	Published    int `json:"published"`
	Confirmed    int `json:"confirmed"`
	Nacked       int `json:"nacked"` // refused by the broker
	Deliveries   int `json:"deliveries"`
	Redelivered  int `json:"redelivered"`   // deliveries flagged so
	FirstFlagged int `json:"first_flagged"` // flagged although we had not seen it before
	AckedBack    int `json:"acked_back"`    // acked in an earlier life and delivered again, flagged
	Settled      int `json:"settled"`       // acked or dropped, each once per queue
}

// published is what one publishing channel sent. Sequence numbers index it, from 1.
type published struct {
	life  uint16
	route []uint8
	state []uint8
}

const (
	isTransient uint8 = 1 << iota
	isConfirmed
)

// ledger is what is known about the messages of one queue, by channel and sequence number.
type ledger struct {
	entries  [][]entry
	owed     int // confirmed, persistent, not settled
	awaiting int // published, not settled, of this life
}

type entry struct {
	flags       uint8
	lastLife    uint16 // of the last delivery
	settledLife uint16
}

const (
	wasDelivered uint8 = 1 << iota
	wasUnflagged       // delivered with redelivered=false
	wasSettled
)

type orderKey struct {
	queue   int
	channel uint32
	stream  uint64
}

// NewChecker returns a checker in life 1.
func NewChecker(queues []string, routes []Route) *Checker {
	return &Checker{
		queues: queues, routes: routes, life: 1,
		channels: make([]published, 1), // channel 0 is not used
		ledgers:  make([]ledger, len(queues)),
		order:    map[orderKey]uint32{},
		counts:   map[Kind]int{},
	}
}

// OpenChannel returns the number of a new publishing channel of this life.
func (c *Checker) OpenChannel() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.channels = append(c.channels, published{
		life: uint16(c.life), route: make([]uint8, 1), state: make([]uint8, 1),
	})
	return uint32(len(c.channels) - 1)
}

// Published notes the next message of a channel; it is called before the message is sent.
func (c *Checker) Published(channel uint32, route int, transient bool) MessageID {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := &c.channels[channel]
	state := uint8(0)
	if transient {
		state = isTransient
	}
	p.route = append(p.route, uint8(route))
	p.state = append(p.state, state)
	c.stats.Published++
	for _, q := range c.routes[route].Queues {
		c.ledgers[q].awaiting++
	}
	return MessageID{channel, uint32(len(p.route) - 1)}
}

// Confirmed notes the broker's answer to a publish.
func (c *Checker) Confirmed(id MessageID, ack bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.find(id)
	if p == nil || p.state[id.Seq]&isConfirmed != 0 {
		c.violateLocked(Violation{Kind: Ghost, ID: id.String(), Detail: "confirmed, but not outstanding"})
		return
	}
	if !ack {
		c.stats.Nacked++
		return
	}
	c.stats.Confirmed++
	p.state[id.Seq] |= isConfirmed
	if p.state[id.Seq]&isTransient != 0 {
		return
	}
	for _, q := range c.routes[p.route[id.Seq]].Queues {
		if c.entryLocked(q, id).flags&wasSettled == 0 {
			c.ledgers[q].owed++
		}
	}
}

// Delivered judges a delivery. stream is the consuming channel, unique in the run.
func (c *Checker) Delivered(queue int, id MessageID, stream uint64, redelivered bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.Deliveries++
	if redelivered {
		c.stats.Redelivered++
	}
	violate := func(k Kind, format string, args ...any) {
		c.violateLocked(Violation{Kind: k, Queue: c.queues[queue], ID: id.String(), Detail: fmt.Sprintf(format, args...)})
	}
	p := c.find(id)
	if p == nil || !slices.Contains(c.routes[p.route[id.Seq]].Queues, queue) {
		violate(Ghost, "never published there")
		return
	}
	e := c.entryLocked(queue, id)
	seen := e.flags&wasDelivered != 0
	switch {
	case !redelivered && e.flags&wasUnflagged != 0:
		violate(Duplicate, "second delivery without redelivered, the one before was in life %d", e.lastLife)
	case !redelivered && seen && int(e.lastLife) < c.life:
		violate(Duplicate, "delivered without redelivered, though seen in life %d", e.lastLife)
	case redelivered && !seen:
		c.stats.FirstFlagged++
	}
	if e.flags&wasSettled != 0 {
		if int(e.settledLife) == c.life && !c.dying {
			violate(Resurrected, "acked in this life")
		} else {
			c.stats.AckedBack++
		}
	}
	if c.VolatileLives && p.state[id.Seq]&isTransient != 0 && int(p.life) < c.life {
		violate(Survivor, "published in life %d", p.life)
	}
	if !redelivered {
		key := orderKey{queue, id.Channel, stream}
		if last := c.order[key]; id.Seq < last {
			violate(Disorder, "after %d.%d on the same consumer", id.Channel, last)
		} else {
			c.order[key] = id.Seq
		}
		e.flags |= wasUnflagged
	}
	e.flags |= wasDelivered
	e.lastLife = uint16(c.life)
}

// Settling notes that a delivery is about to be acked (or rejected without requeue): from
// here on the broker may forget the message.
func (c *Checker) Settling(queue int, id MessageID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.find(id)
	if p == nil {
		return // a ghost, reported when delivered
	}
	e := c.entryLocked(queue, id)
	e.settledLife = uint16(c.life)
	if e.flags&wasSettled != 0 {
		return
	}
	e.flags |= wasSettled
	c.stats.Settled++
	if int(p.life) == c.life {
		c.ledgers[queue].awaiting--
	}
	if p.state[id.Seq]&(isConfirmed|isTransient) == isConfirmed {
		c.ledgers[queue].owed--
	}
}

// Dying is called before connections are cut: an ack may go down with its connection, and the
// message come up on another one that lives a little longer.
func (c *Checker) Dying() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dying = true
}

// NextLife begins the next life; every client of the last one has stopped.
func (c *Checker) NextLife() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.life++
	c.dying = false
	clear(c.order)
	for i := range c.ledgers {
		c.ledgers[i].awaiting = 0
	}
	return c.life
}

// Owed is how many messages the queue must hold at least.
func (c *Checker) Owed(queue int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ledgers[queue].owed
}

// Backlog is about how many messages wait in all queues.
func (c *Checker) Backlog() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for i := range c.ledgers {
		n += max(c.ledgers[i].owed, c.ledgers[i].awaiting)
	}
	return n
}

// Drained is called when every queue has been emptied by us: what is owed still is lost. The
// messages are reported once.
func (c *Checker) Drained() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for q := range c.ledgers {
		if c.ledgers[q].owed == 0 {
			continue
		}
		for ch := range c.channels {
			p := &c.channels[ch]
			for seq := range p.state {
				id := MessageID{uint32(ch), uint32(seq)}
				if p.state[seq]&(isConfirmed|isTransient) != isConfirmed || !slices.Contains(c.routes[p.route[seq]].Queues, q) {
					continue
				}
				e := c.entryLocked(q, id)
				if e.flags&wasSettled != 0 {
					continue
				}
				detail := fmt.Sprintf("published and confirmed in life %d, never delivered", p.life)
				if e.flags&wasDelivered != 0 {
					detail = fmt.Sprintf("published and confirmed in life %d, delivered last in life %d, never acked", p.life, e.lastLife)
				}
				c.violateLocked(Violation{Kind: Lost, Queue: c.queues[q], ID: id.String(), Detail: detail})
				e.flags |= wasSettled
				c.ledgers[q].owed--
			}
		}
	}
}

// Violate notes a breach that only the caller can see.
func (c *Checker) Violate(v Violation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.violateLocked(v)
}

func (c *Checker) violateLocked(v Violation) {
	v.Life = c.life
	c.counts[v.Kind]++
	if len(c.violations) < keptViolations {
		c.violations = append(c.violations, v)
	}
}

// Result returns the statistics, the number of violations by kind, and the first of them.
func (c *Checker) Result() (Stats, map[Kind]int, []Violation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	counts := make(map[Kind]int, len(c.counts))
	for k, n := range c.counts {
		counts[k] = n
	}
	return c.stats, counts, slices.Clone(c.violations)
}

// find returns the channel that published id, nil if none did.
func (c *Checker) find(id MessageID) *published {
	if id.Channel == 0 || int(id.Channel) >= len(c.channels) {
		return nil
	}
	p := &c.channels[id.Channel]
	if id.Seq == 0 || int(id.Seq) >= len(p.route) {
		return nil
	}
	return p
}

// entryLocked returns the entry of a message that was published.
func (c *Checker) entryLocked(queue int, id MessageID) *entry {
	l := &c.ledgers[queue]
	for len(l.entries) <= int(id.Channel) {
		l.entries = append(l.entries, nil)
	}
	of := l.entries[id.Channel]
	if need := int(id.Seq) + 1; len(of) < need {
		of = append(of, make([]entry, need-len(of))...)
		l.entries[id.Channel] = of
	}
	return &of[id.Seq]
}
