package fifo

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// checkList reports a broken invariant of a list.
func checkList[P comparable](l *list[P]) error {
	var zero item[P]
	n, last, blocks := 0, uint64(0), 0
	for bi := range l.blocks[:l.start] {
		if l.blocks[bi].items != nil {
			return fmt.Errorf("block %d before the start is not zero", bi)
		}
	}
	for bi := l.start; bi < len(l.blocks); bi++ {
		b := &l.blocks[bi]
		blocks++
		if b.len() == 0 && l.n > 0 {
			return fmt.Errorf("block %d is empty", bi)
		}
		if b.len() > 0 && b.first != b.items[b.lo].seq {
			return fmt.Errorf("block %d: first is %d, want %d", bi, b.first, b.items[b.lo].seq)
		}
		for i, it := range b.items {
			if i < b.lo || i >= b.hi {
				if it != zero {
					return fmt.Errorf("block %d holds on to item %d outside [%d,%d)", bi, i, b.lo, b.hi)
				}
				continue
			}
			if n > 0 && it.seq <= last {
				return fmt.Errorf("%d follows %d", it.seq, last)
			}
			last = it.seq
			n++
		}
	}
	for _, it := range l.spare {
		if it != zero {
			return fmt.Errorf("the spare block holds on to an item")
		}
	}
	switch {
	case n != l.n:
		return fmt.Errorf("%d items, want %d", n, l.n)
	case blocks > 1 && slices.ContainsFunc(l.blocks[l.start:], func(b block[P]) bool { return len(b.items) != blockCap }):
		return fmt.Errorf("small block among several")
	case n == 0 && (blocks > 1 || l.spare != nil || blocks == 1 && len(l.blocks[l.start].items) > blockIdle):
		return fmt.Errorf("empty, but keeps %d blocks", blocks)
	}
	return nil
}

func seqs[P any](l *list[P]) (s []uint64) {
	for c := l.seek(0); ; {
		it := l.next(&c)
		if it == nil {
			return s
		}
		s = append(s, it.seq)
	}
}

// TestListAgreesWithSlice drives a list and a sorted slice through the same random calls.
func TestListAgreesWithSlice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l list[*int]
		var want []uint64
		next := uint64(1000)
		draw := func(name string, lo, hi int) int { return rapid.IntRange(lo, hi).Draw(t, name) }
		insert := func(seq uint64) {
			if at, found := slices.BinarySearch(want, seq); !found {
				want = slices.Insert(want, at, seq)
				l.insert(item[*int]{payload: new(int), seq: seq})
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				if err := checkList(&l); err != nil {
					t.Fatal(err)
				}
				if got := seqs(&l); !slices.Equal(got, want) {
					t.Fatalf("got  %v\nwant %v", got, want)
				}
				if len(want) > 0 && (l.front().seq != want[0] || l.back().seq != want[len(want)-1]) {
					t.Fatalf("ends are %d and %d", l.front().seq, l.back().seq)
				}
				seq := uint64(draw("seq", 0, int(next)))
				at, found := slices.BinarySearch(want, seq)
				if c, ok := l.find(seq); ok != found || ok && l.at(c).seq != seq {
					t.Fatalf("find %d: %v", seq, ok)
				}
				if got := l.rank(seq); got != at {
					t.Fatalf("rank of %d is %d, want %d", seq, got, at)
				}
				c := l.seek(seq)
				if it := l.next(&c); (it == nil) != (at == len(want)) || it != nil && it.seq != want[at] {
					t.Fatalf("seek %d: %v", seq, it)
				}
				c = l.seekRank(at)
				if it := l.next(&c); (it == nil) != (at == len(want)) || it != nil && it.seq != want[at] {
					t.Fatalf("seek rank %d: %v", at, it)
				}
			},
			"push": func(*rapid.T) {
				for range draw("n", 1, 200) {
					next += uint64(draw("gap", 1, 2))
					want = append(want, next)
					l.pushBack(item[*int]{payload: new(int), seq: next})
				}
			},
			"insert": func(*rapid.T) {
				for range draw("n", 1, 50) {
					insert(uint64(draw("seq", 0, int(next))))
				}
			},
			"insert run": func(*rapid.T) {
				from, n, down := draw("seq", 0, int(next)), draw("n", 1, 150), rapid.Bool().Draw(t, "down")
				for i := range n {
					if down {
						i = n - 1 - i
					}
					if seq := uint64(from + i); seq < next {
						insert(seq)
					}
				}
			},
			"pop": func(t *rapid.T) {
				front := rapid.Bool().Draw(t, "front")
				for range draw("n", 1, 200) {
					if len(want) == 0 {
						return
					}
					if front {
						if it := l.popFront(); it.seq != want[0] {
							t.Fatalf("popped %d, want %d", it.seq, want[0])
						}
						want = slices.Clone(want[1:])
					} else {
						last := len(want) - 1
						if it := l.popBack(); it.seq != want[last] {
							t.Fatalf("popped %d, want %d", it.seq, want[last])
						}
						want = want[:last]
					}
				}
			},
			"remove": func(t *rapid.T) {
				first, step := draw("first", 0, len(want)), draw("step", 0, 3)
				for range draw("n", 1, 150) {
					if first >= len(want) {
						return
					}
					c, _ := l.find(want[first])
					if it := l.remove(c); it.seq != want[first] {
						t.Fatalf("removed %d, want %d", it.seq, want[first])
					}
					want = slices.Delete(want, first, first+1)
					first += step
				}
			},
			"cut and concat": func(t *rapid.T) {
				if len(want) == 0 {
					return
				}
				k := draw("k", 0, len(want)-1)
				rest := l.cut(k)
				for _, x := range []*list[*int]{&l, &rest} {
					if err := checkList(x); err != nil {
						t.Fatal(err)
					}
				}
				if !slices.Equal(seqs(&l), want[:k]) || !slices.Equal(seqs(&rest), want[k:]) {
					t.Fatalf("cut at %d: %v | %v", k, seqs(&l), seqs(&rest))
				}
				for range draw("consumed", 0, k) {
					l.popFront()
					want = slices.Clone(want[1:])
				}
				for range draw("paged", 0, 70) {
					if rest.n == 0 {
						break
					}
					seq := rest.popFront().seq
					at, _ := slices.BinarySearch(want, seq)
					want = slices.Delete(want, at, at+1)
				}
				l.concat(&rest)
				if err := checkList(&rest); err != nil || rest.n != 0 {
					t.Fatal("donor: ", err)
				}
			},
		})
	})
}
