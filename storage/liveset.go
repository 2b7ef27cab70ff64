package storage

import (
	"math/bits"
	"sort"
	"sync"
)

// A live set says which messages of a queue live, one bit each, and where those that are in the
// journal lie. Pages exist only where something lives, so holes and long dead stretches cost
// nothing. Guarded by its queue's lock.
type liveSet struct {
	pages []*page // ascending by no, none empty
	hint  int     // index of the page used last
	count uint64
	dead  []uint64 // numbers of pages that are in Badger and became empty since the last checkpoint

	deadNotes []uint64 // the same of pages whose notes are in Badger
}

const (
	pageShift = 10
	pageSeqs  = 1 << pageShift
	pageWords = pageSeqs / 64
)

// page holds the sequence numbers [no<<pageShift, (no+1)<<pageShift).
type page struct {
	no        uint64
	live      [pageWords]uint64
	places    *places            // nil: none of the messages is in the journal
	transient *[pageWords]uint64 // messages that do not outlive a restart; nil: none
	notes     *pageNotes         // nil: none
	count     int
	dirty     bool // changed since it was written to Badger
	stored    bool // Badger has a page of this number
}

var (
	pagePool   = sync.Pool{New: func() any { return new(page) }}
	placesPool = sync.Pool{New: func() any { return new(places) }}
)

// find returns the page of number no, or nil.
func (s *liveSet) find(no uint64) *page {
	if s.hint < len(s.pages) && s.pages[s.hint].no == no {
		return s.pages[s.hint]
	}
	if i := s.search(no); i < len(s.pages) && s.pages[i].no == no {
		s.hint = i
		return s.pages[i]
	}
	return nil
}

// search returns the index of the first page whose number is at least no.
func (s *liveSet) search(no uint64) int {
	if n := len(s.pages); n == 0 || s.pages[n-1].no < no {
		return n
	} else if s.pages[n-1].no == no {
		return n - 1
	}
	return sort.Search(len(s.pages), func(i int) bool { return s.pages[i].no >= no })
}

// ensure returns the page of number no, making it if need be.
func (s *liveSet) ensure(no uint64) *page {
	if p := s.find(no); p != nil {
		return p
	}
	p := pagePool.Get().(*page)
	p.no = no
	i := s.search(no)
	s.pages = append(s.pages, nil)
	copy(s.pages[i+1:], s.pages[i:])
	s.pages[i] = p
	s.hint = i
	return p
}

// drop removes an empty page.
func (s *liveSet) drop(p *page) {
	if p.stored {
		s.dead = append(s.dead, p.no)
	}
	if p.notes != nil && p.notes.stored {
		s.deadNotes = append(s.deadNotes, p.no)
	}
	i := s.search(p.no)
	if i == 0 {
		s.pages[0] = nil
		s.pages = s.pages[1:]
		if s.hint > 0 {
			s.hint--
		}
	} else {
		copy(s.pages[i:], s.pages[i+1:])
		s.pages[len(s.pages)-1] = nil
		s.pages = s.pages[:len(s.pages)-1]
	}
	if len(s.pages) == 0 {
		s.pages = nil // the backing array moved forward; start a new one
	}
	p.freePlaces()
	*p = page{}
	pagePool.Put(p)
}

func (p *page) freePlaces() {
	if p.places != nil {
		p.places.freeAll()
		placesPool.Put(p.places)
		p.places = nil
	}
}

func split(seq uint64) (no uint64, w int, bit uint64) {
	return seq >> pageShift, int(seq>>6) & (pageWords - 1), 1 << (seq & 63)
}

// add makes seq live. It reports whether it was not before.
func (s *liveSet) add(seq uint64, transient bool) bool {
	no, w, bit := split(seq)
	p := s.ensure(no)
	if p.live[w]&bit != 0 {
		return false
	}
	p.live[w] |= bit
	p.count++
	p.dirty = true
	s.count++
	if transient {
		if p.transient == nil {
			p.transient = new([pageWords]uint64)
		}
		p.transient[w] |= bit
	}
	return true
}

// has reports whether seq lives.
func (s *liveSet) has(seq uint64) bool {
	no, w, bit := split(seq)
	p := s.find(no)
	return p != nil && p.live[w]&bit != 0
}

// remove ends the life of seq. It reports whether it lived.
func (s *liveSet) remove(seq uint64) bool {
	no, w, bit := split(seq)
	p := s.find(no)
	if p == nil || p.live[w]&bit == 0 {
		return false
	}
	s.clear(p, w, bit)
	return true
}

// clear ends the lives of the given bits, all of them set.
func (s *liveSet) clear(p *page, w int, mask uint64) {
	n := bits.OnesCount64(mask)
	p.live[w] &^= mask
	if p.transient != nil {
		p.transient[w] &^= mask
	}
	p.count -= n
	p.dirty = true
	s.count -= uint64(n)
	if p.live[w] == 0 && p.places != nil {
		p.places.free(w)
	}
	if p.count == 0 {
		s.drop(p)
	}
}

// removeRange ends all lives in [lo, hi) and returns how many there were.
func (s *liveSet) removeRange(lo, hi uint64) (n uint64) {
	if lo >= hi {
		return 0
	}
	before := s.count
	i := s.search(lo >> pageShift)
	for i < len(s.pages) {
		p := s.pages[i]
		start := p.no << pageShift
		if start >= hi {
			break
		}
		kept := true
		for w := range p.live {
			mask := p.live[w] & wordMask(start+uint64(w)<<6, lo, hi)
			if mask == 0 {
				continue
			}
			kept = p.count > bits.OnesCount64(mask)
			s.clear(p, w, mask)
			if !kept {
				break
			}
		}
		if kept {
			i++
		}
	}
	return before - s.count
}

// wordMask returns the bits of the word that starts at sequence number start which are in [lo, hi).
func wordMask(start, lo, hi uint64) uint64 {
	m := ^uint64(0)
	if lo > start {
		if lo-start >= 64 {
			return 0
		}
		m <<= lo - start
	}
	if hi < start+64 {
		if hi <= start {
			return 0
		}
		m &= 1<<(hi-start) - 1
	}
	return m
}

// setLocation notes where a live message lies; a dead one is left dead.
func (s *liveSet) setLocation(seq uint64, l location) {
	no, w, bit := split(seq)
	p := s.find(no)
	if p == nil || p.live[w]&bit == 0 {
		return
	}
	if p.places == nil {
		p.places = placesPool.Get().(*places)
	}
	p.places.put(w, int(seq&63), l)
}

// location returns where a message lies in the journal, 0 if it does not.
func (s *liveSet) location(seq uint64) location {
	no, w, _ := split(seq)
	p := s.find(no)
	if p == nil {
		return 0
	}
	return p.places.get(w, int(seq&63))
}

// first returns the first live sequence number that is at least from.
func (s *liveSet) first(from uint64) (uint64, bool) {
	var out uint64
	found := false
	s.each(from, func(seq uint64, _ location) bool {
		out, found = seq, true
		return false
	})
	return out, found
}

// each calls fn for every live message from `from` on, in order, until fn returns false. fn must
// not change the set.
func (s *liveSet) each(from uint64, fn func(seq uint64, l location) bool) {
	for i := s.search(from >> pageShift); i < len(s.pages); i++ {
		p := s.pages[i]
		start := p.no << pageShift
		w := 0
		if from > start {
			w = int(from-start) >> 6
		}
		for ; w < pageWords; w++ {
			base := start + uint64(w)<<6
			word := p.live[w]
			if from > base {
				word &= ^uint64(0) << (from - base)
			}
			for ; word != 0; word &= word - 1 {
				b := bits.TrailingZeros64(word)
				if !fn(base+uint64(b), p.places.get(w, b)) {
					return
				}
			}
		}
	}
}

// countRange returns how many messages live in [lo, hi).
func (s *liveSet) countRange(lo, hi uint64) (n uint64) {
	for i := s.search(lo >> pageShift); i < len(s.pages); i++ {
		p := s.pages[i]
		start := p.no << pageShift
		if start >= hi {
			break
		}
		if lo <= start && hi-start >= pageSeqs {
			n += uint64(p.count)
			continue
		}
		for w := range p.live {
			n += uint64(bits.OnesCount64(p.live[w] & wordMask(start+uint64(w)<<6, lo, hi)))
		}
	}
	return n
}

// forgetLocations frees the locations of everything below hi.
func (s *liveSet) forgetLocations(lo, hi uint64) {
	for i := s.search(lo >> pageShift); i < len(s.pages); i++ {
		p := s.pages[i]
		start := p.no << pageShift
		if start >= hi {
			return
		}
		if start+pageSeqs <= hi {
			p.freePlaces()
			continue
		}
		for w := 0; p.places != nil && start+uint64(w+1)<<6 <= hi; w++ {
			p.places.free(w)
		}
	}
}
