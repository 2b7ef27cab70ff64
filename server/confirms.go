package server

import (
	"math/bits"
	"slices"

	"github.com/settmq/settmq/amqp"
)

// confirms tracks which publishes of a channel in confirm mode are still owed a
// basic.ack, and words the acks that may go out: one with multiple=true for everything below
// the first that is still open, single ones for those confirmed out of order.
type confirms struct {
	last uint64 // newest seq given out; the first is 1
	low  uint64 // every seq below is confirmed; at least 1 once a seq was given out

	// done has a bit for every seq from base on, set once it is confirmed. base is a
	// multiple of 64 and at most low.
	done []uint64
	base uint64

	fresh     int      // confirmed in order since the last encode
	high      uint64   // the newest of these
	singles   []uint64 // confirmed out of order since then
	confirmed uint64   // in all, without those refused
	nacks     []uint64 // refused since then
}

// next gives the next publish its seq.
func (c *confirms) next() uint64 {
	c.last++
	if c.low == 0 {
		c.low = 1
	}
	return c.last
}

// settle notes that seq is confirmed (or refused). Settling twice is harmless.
func (c *confirms) settle(seq uint64, ok bool) {
	if seq < c.low || seq > c.last || c.isDone(seq) {
		return
	}
	if ok {
		c.confirmed++
	} else {
		c.nacks = append(c.nacks, seq)
	}
	if seq != c.low {
		c.mark(seq)
		if ok {
			c.singles = append(c.singles, seq)
		}
		return
	}
	c.low++
	if ok {
		c.fresh++
		c.high = seq
	}
	c.skipDone()
}

func (c *confirms) isDone(seq uint64) bool {
	i := (seq - c.base) / 64
	return seq >= c.base && i < uint64(len(c.done)) && c.done[i]&(1<<(seq%64)) != 0
}

func (c *confirms) mark(seq uint64) {
	if len(c.done) == 0 {
		c.base = c.low &^ 63
	}
	i := (seq - c.base) / 64
	for uint64(len(c.done)) <= i {
		c.done = append(c.done, 0)
	}
	c.done[i] |= 1 << (seq % 64)
}

// skipDone moves low over what was confirmed out of order before.
func (c *confirms) skipDone() {
	for len(c.done) > 0 {
		i := (c.low - c.base) / 64
		if i > 0 {
			n := min(i, uint64(len(c.done)))
			c.done = append(c.done[:0], c.done[n:]...)
			c.base += n * 64
			continue
		}
		run := bits.TrailingZeros64(^(c.done[0] >> (c.low % 64)))
		run = min(run, 64-int(c.low%64))
		if run == 0 {
			return
		}
		c.low += uint64(run)
	}
}

// pending reports whether encode would append anything.
func (c *confirms) pending() bool { return c.fresh > 0 || len(c.singles) > 0 || len(c.nacks) > 0 }

// encode appends the acks and nacks that are due on the channel.
func (c *confirms) encode(b []byte, channel uint16) []byte {
	for _, seq := range c.nacks {
		b = amqp.AppendNack(b, channel, seq, false, false)
	}
	if c.fresh > 0 {
		// A nack may have closed a gap, so that one ack in order covers singles.
		multiple := c.fresh > 1 || slices.ContainsFunc(c.singles, func(seq uint64) bool { return seq < c.high })
		b = amqp.AppendAck(b, channel, c.high, multiple)
	}
	for _, seq := range c.singles {
		if c.fresh == 0 || seq > c.high {
			b = amqp.AppendAck(b, channel, seq, false)
		}
	}
	c.fresh, c.singles, c.nacks = 0, c.singles[:0], c.nacks[:0]
	return b
}
