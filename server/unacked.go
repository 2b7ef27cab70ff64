package server

import "github.com/settmq/settmq/queue"

// outstanding is a delivery that the client has not settled.
type outstanding struct {
	tag      uint64
	seq      uint64
	queue    queue.Source    // nil: settled, but still in the middle of the list
	consumer *queue.Consumer // nil: fetched with basic.get
}

// unacked is the list of a channel's outstanding deliveries, in the order of their tags.
// Tags rise by one a delivery but deliveries without acknowledgement leave gaps. Looking up
// is a binary search; the usual ack, of the oldest, is found at once.
type unacked struct {
	items     []outstanding // items[head:] is the list
	head      int
	live      int // entries that are not settled
	consumers int // of these, delivered to consumers
}

func (u *unacked) push(o outstanding) {
	if u.head > 0 && len(u.items) == cap(u.items) && u.head >= len(u.items)/2 {
		n := copy(u.items, u.items[u.head:])
		clear(u.items[n:])
		u.items, u.head = u.items[:n], 0
	}
	u.items = append(u.items, o)
	u.live++
	if o.consumer != nil {
		u.consumers++
	}
}

// find returns the index of the live entry with this tag, or -1.
func (u *unacked) find(tag uint64) int {
	lo, hi := u.head, len(u.items)
	if lo < hi && u.items[lo].tag == tag {
		return u.liveAt(lo)
	}
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if u.items[mid].tag < tag {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(u.items) && u.items[lo].tag == tag {
		return u.liveAt(lo)
	}
	return -1
}

func (u *unacked) liveAt(i int) int {
	if u.items[i].queue == nil {
		return -1
	}
	return i
}

// take removes the entry at index i.
func (u *unacked) take(i int) outstanding {
	o := u.items[i]
	u.items[i].queue = nil
	u.live--
	if o.consumer != nil {
		u.consumers--
	}
	for u.head < len(u.items) && u.items[u.head].queue == nil {
		u.head++
	}
	u.shrink()
	return o
}

// shrink forgets settled entries once they are most of the list, and the array after a burst.
func (u *unacked) shrink() {
	switch {
	case u.live == 0:
		u.head = 0
		if cap(u.items) > 1024 {
			u.items = nil
		} else {
			u.items = u.items[:0]
		}
	case len(u.items)-u.head > 64 && u.live < (len(u.items)-u.head)/4:
		n := 0
		for _, o := range u.items[u.head:] {
			if o.queue != nil {
				u.items[n] = o
				n++
			}
		}
		clear(u.items[n:])
		u.items, u.head = u.items[:n], 0
	}
}

// takeThrough removes the entries up to and including index i (or all, with i ==
// len(items)-1) and appends them to dst, oldest first.
func (u *unacked) takeThrough(i int, dst []outstanding) []outstanding {
	for j := u.head; j <= i; j++ {
		o := u.items[j]
		if o.queue == nil {
			continue
		}
		dst = append(dst, o)
		u.items[j].queue = nil
		u.live--
		if o.consumer != nil {
			u.consumers--
		}
	}
	u.head = i + 1
	u.shrink()
	return dst
}

// takeAll removes every entry, oldest first.
func (u *unacked) takeAll() []outstanding {
	return u.takeThrough(len(u.items)-1, nil)
}

// disown returns what a consumer holds. The entries stay, so that their tags may still be settled,
// but settling them has no effect.
func (u *unacked) disown(c *queue.Consumer) (seqs []uint64) {
	for i := u.head; i < len(u.items); i++ {
		if o := &u.items[i]; o.queue != nil && o.consumer == c {
			seqs = append(seqs, o.seq)
			o.queue, o.consumer = queue.Lost, nil
			u.consumers--
		}
	}
	return seqs
}
