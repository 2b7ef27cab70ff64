package main

import (
	"maps"
	"math/rand/v2"
	"testing"
)

// A history is played to the checker; the violations it finds are compared by kind. Queue 0
// gets route 0, queues 0 and 1 get route 1.
func TestCheckerFindsWhatIsWrong(t *testing.T) {
	type history func(c *Checker, ch uint32)
	publish := func(c *Checker, ch uint32, n int) (ids []MessageID) {
		for range n {
			id := c.Published(ch, 0, false)
			c.Confirmed(id, true)
			ids = append(ids, id)
		}
		return ids
	}
	ack := func(c *Checker, id MessageID, stream uint64, redelivered bool) {
		c.Delivered(0, id, stream, redelivered)
		c.Settling(0, id)
	}
	cases := []struct {
		name string
		play history
		want map[Kind]int
	}{
		{"all is well", func(c *Checker, ch uint32) {
			ids := publish(c, ch, 3)
			ack(c, ids[0], 1, false)
			c.Delivered(0, ids[1], 1, false)
			c.NextLife()
			ack(c, ids[1], 2, true)
			ack(c, ids[2], 2, false)
			c.Drained()
		}, nil},
		{"lost before it was delivered", func(c *Checker, ch uint32) {
			ids := publish(c, ch, 3)
			ack(c, ids[0], 1, false)
			ack(c, ids[2], 1, false)
			c.NextLife()
			c.Drained()
		}, map[Kind]int{Lost: 1}},
		{"lost after it was delivered", func(c *Checker, ch uint32) {
			ids := publish(c, ch, 1)
			c.Delivered(0, ids[0], 1, false)
			c.NextLife()
			c.Drained()
		}, map[Kind]int{Lost: 1}},
		{"lost in one queue of two", func(c *Checker, ch uint32) {
			id := c.Published(ch, 1, false)
			c.Confirmed(id, true)
			ack(c, id, 1, false)
			c.Drained()
		}, map[Kind]int{Lost: 1}},
		{"unconfirmed may be lost", func(c *Checker, ch uint32) {
			c.Published(ch, 0, false)
			c.Confirmed(c.Published(ch, 0, false), false)
			c.NextLife()
			c.Drained()
		}, nil},
		{"confirmed after it was acked", func(c *Checker, ch uint32) {
			id := c.Published(ch, 0, false)
			ack(c, id, 1, false)
			c.Confirmed(id, true)
			c.Drained()
		}, nil},
		{"transient may be lost, not survive", func(c *Checker, ch uint32) {
			a, b := c.Published(ch, 0, true), c.Published(ch, 0, true)
			c.Confirmed(a, true)
			c.Confirmed(b, true)
			c.NextLife()
			ack(c, b, 1, true)
			c.Drained()
		}, map[Kind]int{Survivor: 1}},
		{"second delivery without the flag", func(c *Checker, ch uint32) {
			ids := publish(c, ch, 1)
			c.Delivered(0, ids[0], 1, false)
			c.Delivered(0, ids[0], 2, false)
			c.Settling(0, ids[0])
		}, map[Kind]int{Duplicate: 1}},
		{"flagged first, not flagged after a crash", func(c *Checker, ch uint32) {
			ids := publish(c, ch, 1)
			c.Delivered(0, ids[0], 1, true)
			c.NextLife()
			ack(c, ids[0], 2, false)
		}, map[Kind]int{Duplicate: 1}},
		{"two consumers record one message in the other order", func(c *Checker, ch uint32) {
			ids := publish(c, ch, 1)
			c.Delivered(0, ids[0], 2, true)
			c.Delivered(0, ids[0], 1, false)
			c.Settling(0, ids[0])
		}, nil},
		{"acked comes back after a crash, flagged", func(c *Checker, ch uint32) {
			ids := publish(c, ch, 1)
			ack(c, ids[0], 1, false)
			c.NextLife()
			ack(c, ids[0], 2, true)
			c.Drained()
		}, nil},
		{"acked comes back after a crash, not flagged", func(c *Checker, ch uint32) {
			ids := publish(c, ch, 1)
			ack(c, ids[0], 1, false)
			c.NextLife()
			ack(c, ids[0], 2, false)
		}, map[Kind]int{Duplicate: 1}},
		{"acked comes back without a crash", func(c *Checker, ch uint32) {
			ids := publish(c, ch, 1)
			ack(c, ids[0], 1, false)
			ack(c, ids[0], 2, true)
		}, map[Kind]int{Resurrected: 1}},
		{"overtaken", func(c *Checker, ch uint32) {
			ids := publish(c, ch, 3)
			ack(c, ids[0], 1, false)
			ack(c, ids[2], 1, false)
			ack(c, ids[1], 1, false)
		}, map[Kind]int{Disorder: 1}},
		{"order is each consumer's own", func(c *Checker, ch uint32) {
			ids := publish(c, ch, 3)
			ack(c, ids[2], 2, false)
			ack(c, ids[0], 1, false)
			ack(c, ids[1], 1, false)
		}, nil},
		{"order is each publishing channel's own", func(c *Checker, ch uint32) {
			ids := publish(c, ch, 2)
			other := publish(c, c.OpenChannel(), 1)
			ack(c, ids[1], 1, false)
			ack(c, other[0], 1, false)
		}, nil},
		{"redelivered ones have no order", func(c *Checker, ch uint32) {
			ids := publish(c, ch, 2)
			c.Delivered(0, ids[0], 1, false)
			ack(c, ids[1], 1, false)
			ack(c, ids[0], 1, true)
		}, nil},
		{"never published", func(c *Checker, ch uint32) {
			c.Delivered(0, MessageID{ch, 7}, 1, false)
			c.Delivered(0, MessageID{99, 1}, 1, false)
			c.Delivered(0, MessageID{}, 1, false)
		}, map[Kind]int{Ghost: 3}},
		{"published to another queue", func(c *Checker, ch uint32) {
			ids := publish(c, ch, 1)
			c.Delivered(1, ids[0], 1, false)
			ack(c, ids[0], 1, false)
		}, map[Kind]int{Ghost: 1}},
		{"confirmed twice, or never published", func(c *Checker, ch uint32) {
			ids := publish(c, ch, 1)
			c.Confirmed(ids[0], true)
			c.Confirmed(MessageID{ch, 2}, true)
		}, map[Kind]int{Ghost: 2}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			c := NewChecker([]string{"a", "b"}, []Route{{Queues: []int{0}}, {Queues: []int{0, 1}}})
			c.VolatileLives = true
			tc.play(c, c.OpenChannel())
			_, counts, list := c.Result()
			if tc.want == nil {
				tc.want = map[Kind]int{}
			}
			if !maps.Equal(counts, tc.want) {
				t.Errorf("violations %v, want %v: %v", counts, tc.want, list)
			}
		})
	}
}

func TestOwedFollowsConfirmsAndAcks(t *testing.T) {
	c := NewChecker([]string{"a", "b"}, []Route{{Queues: []int{0}}, {Queues: []int{0, 1}}})
	ch := c.OpenChannel()
	first, second := c.Published(ch, 0, false), c.Published(ch, 1, false)
	expect := func(a, b int) {
		t.Helper()
		if got := [2]int{c.Owed(0), c.Owed(1)}; got != [2]int{a, b} {
			t.Errorf("owed %v, want %d and %d", got, a, b)
		}
	}
	expect(0, 0)
	c.Confirmed(first, true)
	c.Confirmed(second, true)
	expect(2, 1)
	c.Delivered(0, second, 1, false)
	expect(2, 1)
	c.Settling(0, second)
	c.Settling(0, second)
	expect(1, 1)
}

func TestBodiesTellDamage(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	for range 2000 {
		id := MessageID{1 + rng.Uint32N(1000), 1 + rng.Uint32N(1000)}
		size := bodySize(rng)
		body := appendBody(nil, id, size, rng.IntN(maxBody))
		if len(body) != size {
			t.Fatalf("%d bytes, want %d", len(body), size)
		}
		typ := seal(body)
		if got, err := open(id.String(), typ, body); err != nil || got != id {
			t.Fatalf("opened %v, %v, want %v", got, err, id)
		}
		if size == 0 {
			continue
		}
		body[rng.IntN(size)] ^= 1 << rng.IntN(8)
		if _, err := open(id.String(), typ, body); err == nil {
			t.Fatalf("a flipped bit in %d bytes was not noticed", size)
		}
		if _, err := open(id.String(), typ, body[:size-1]); err == nil {
			t.Fatalf("a missing byte of %d was not noticed", size)
		}
	}
	// Bodies swapped between two messages, seals and all.
	a := appendBody(nil, MessageID{1, 1}, 100, 0)
	if _, err := open("1.2", seal(a), a); err == nil {
		t.Error("another message's body was not noticed")
	}
}
