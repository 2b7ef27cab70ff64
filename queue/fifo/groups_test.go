package fifo

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// groupStore is a store and the expectations on a queue with groups whose messages are all stored.
type groupStore struct {
	m      *Machine[*int]
	live   []LoadedItem[*int]
	holds  map[uint64]Delivery[*int]
	groups map[uint64]uint16
	last   map[uint16]uint64 // the newest message of a group that was handed out
}

func (s *groupStore) read(want []Interval, limit int) (items []LoadedItem[*int], next uint64) {
	for _, w := range want {
		for _, li := range s.live {
			if w.From <= li.Seq && li.Seq < w.To {
				if len(items) == limit {
					return items, items[limit-1].Seq + 1
				}
				items = append(items, li)
			}
		}
		next = w.To
	}
	return items, next
}

func (s *groupStore) forget(seq uint64) {
	for i, li := range s.live {
		if li.Seq == seq {
			s.live = append(s.live[:i:i], s.live[i+1:]...)
			return
		}
	}
}

// deliver hands out what can move and checks that groups stay in order and with one consumer.
func (s *groupStore) deliver(n int) error {
	var d Delivery[*int]
	for ; n > 0 && s.m.Next(noLimit, admitAll{}, &d); n-- {
		g := s.groups[d.Seq]
		for seq, o := range s.holds {
			if g != 0 && s.groups[seq] == g && o.Consumer != d.Consumer {
				return fmt.Errorf("%d of group %d goes to %d while %d has %d", d.Seq, g, d.Consumer, o.Consumer, seq)
			}
		}
		if last := s.last[g]; g != 0 && d.Seq < last && !d.Redelivered {
			return fmt.Errorf("%d of group %d comes after %d", d.Seq, g, last)
		}
		if d.Payload == nil {
			return fmt.Errorf("%d has no payload", d.Seq)
		}
		s.last[g] = max(s.last[g], d.Seq)
		s.holds[d.Seq] = d
	}
	return nil
}

// settle settles about one in k of the outstanding messages.
func (s *groupStore) settle(r *rand.Rand, k int, requeue bool) {
	for seq := range s.m.NextSeq() {
		if _, ok := s.holds[seq]; !ok || r.IntN(k) > 0 {
			continue
		}
		delete(s.holds, seq)
		if requeue && r.IntN(3) == 0 {
			s.m.Requeue(seq, true)
			continue
		}
		s.m.Ack(seq)
		s.forget(seq)
	}
}

// TestGroupsWithPaging: what is passed over may leave memory like everything else, and all comes out in order.
func TestGroupsWithPaging(t *testing.T) {
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := &groupStore{
			m: New[*int](Options{Groups: true}), holds: map[uint64]Delivery[*int]{},
			groups: map[uint64]uint16{}, last: map[uint16]uint64{},
		}
		for id := range 3 {
			if err := s.m.Subscribe(Consumer{ID: ConsumerID(id + 1), Prefetch: uint32(1 + id)}); err != nil {
				t.Fatal(err)
			}
		}
		var want []Interval
		for range 600 {
			switch r.IntN(7) {
			case 0, 1:
				g := uint16(r.IntN(5))
				seq := s.m.Enqueue(Item[*int]{Payload: new(int), Size: 1, Group: g})
				s.groups[seq] = g
				s.live = append(s.live, LoadedItem[*int]{Seq: seq, Payload: new(int), Size: 1, Group: g})
			case 2:
				if err := s.deliver(r.IntN(4)); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			case 3:
				s.settle(r, 3, true)
			case 4:
				s.m.PageOut(r.IntN(5), r.IntN(50), func(uint64) bool { return true })
				s.m.ReleaseUnacked(r.IntN(3), func(uint64) bool { return true })
			case 5:
				want = append(want, s.m.NeedsLoad(r.IntN(5))...)
			case 6:
				if want != nil {
					s.m.Loaded(s.read(want, 1+r.IntN(10)))
					want = nil
				}
			}
		}
		if want != nil {
			s.m.LoadFailed()
		}
		for rounds := 0; len(s.live) > 0; rounds++ {
			if rounds > 5000 {
				t.Fatalf("seed %d: stuck, %d ready, %d unacked", seed, s.m.Ready(), s.m.Unacked())
			}
			if err := s.deliver(100); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			s.settle(r, 1, false)
			if want := s.m.NeedsLoad(1); want != nil {
				if missing := s.m.Loaded(s.read(want, 5)); missing != 0 {
					t.Fatalf("seed %d: %d missing", seed, missing)
				}
			}
		}
		if s.m.Ready() != 0 || s.m.Unacked() != 0 || s.m.LoadedBytes() != 0 {
			t.Fatalf("seed %d: %d ready, %d bytes are left", seed, s.m.Ready(), s.m.LoadedBytes())
		}
	}
}
