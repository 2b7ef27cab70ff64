package exchange

import (
	"math"
	"slices"

	"github.com/settmq/settmq/amqp"
)

// headers compares the binding's arguments with the message's headers.
//
// The argument x-match says how: "all" (also when absent) wants every condition to hold,
// "any" one of them; both skip arguments whose names start with "x-", while "all-with-x"
// and "any-with-x" skip x-match alone. A condition with a void value holds if the header
// is present, any other if the header has an equal value (amqp.Value.Equal: integers of
// any width are equal if their numbers are, a longstr equals a binary of the same bytes,
// other types only themselves; a timestamp too, where RabbitMQ 4 takes the one in a binding
// for an integer and finds the one in a message never equal). Without conditions "all" matches every message and "any"
// none.
//
// # Index
//
// Bindings with the same conditions share one headersRule. A rule is filed under facts: an
// "all" rule under whichever of its conditions had the fewest rules so far, an "any" rule
// under each of its conditions. A message looks up the facts of its own headers and tries
// only the rules filed there, so ten thousand bindings that tell themselves apart by one
// header cost no more than a few.
type headers struct {
	rules   map[string]*headersRule // by identity
	facts   table[string, []*headersRule]
	always  bag // rules without conditions that match every message
	never   bag // rules without conditions that match none
	numbers numbers
}

// headersMode is the meaning of x-match.
type headersMode struct {
	any   bool
	withX bool
}

// headersRule is a set of conditions and the destinations bound with it.
type headersRule struct {
	dests bag
	id    string
	conds amqp.Table // sorted by name
	any   bool
	filed []string // the facts it is filed under
	// number tells rules filed under several facts apart during one Route; notFiledTwice
	// if there is one fact only.
	number int32
}

const notFiledTwice = -1

// scanHeaders is the number of headers up to which a condition looks for its header one
// by one; a message with more has them sorted once.
const scanHeaders = 16

func (x *headers) Needs() Needs { return MessageHeaders }

func (x *headers) Empty() bool {
	return len(x.rules) == 0 && x.always.empty() && x.never.empty()
}

func (x *headers) Bind(_ string, args amqp.Table, d Destination) {
	mode, conds := conditions(args)
	if len(conds) == 0 {
		x.unconditional(mode).add(d)
		return
	}
	id := identity(mode, conds)
	r := x.rules[id]
	if r == nil {
		r = &headersRule{id: id, conds: conds, any: mode.any, number: notFiledTwice}
		if x.rules == nil {
			x.rules = make(map[string]*headersRule)
		}
		x.rules[id] = r
		x.file(r)
	}
	r.dests.add(d)
}

func (x *headers) Unbind(_ string, args amqp.Table, d Destination) {
	mode, conds := conditions(args)
	if len(conds) == 0 {
		x.unconditional(mode).remove(d)
		return
	}
	r := x.rules[identity(mode, conds)]
	if r == nil || !r.dests.remove(d) || !r.dests.empty() {
		return
	}
	delete(x.rules, r.id)
	if len(x.rules) == 0 {
		x.rules = nil
	}
	x.unfile(r)
}

func (x *headers) unconditional(mode headersMode) *bag {
	if mode.any {
		return &x.never
	}
	return &x.always
}

func (x *headers) file(r *headersRule) {
	if r.any {
		for i := range r.conds {
			r.filed = append(r.filed, string(appendFact(nil, &r.conds[i])))
		}
		slices.Sort(r.filed)
		r.filed = slices.Compact(r.filed)
	} else {
		r.filed = []string{x.rarest(r.conds)}
	}
	if len(r.filed) > 1 {
		r.number = x.numbers.take()
	}
	for _, fact := range r.filed {
		rules, _ := x.facts.get(fact)
		x.facts.set(fact, append(rules, r))
	}
}

// rarest picks the fact of conds under which the fewest rules are filed.
func (x *headers) rarest(conds amqp.Table) string {
	best, least := "", math.MaxInt
	for i := range conds {
		fact := appendFact(nil, &conds[i])
		rules, _ := x.facts.get(string(fact))
		if len(rules) < least {
			best, least = string(fact), len(rules)
		}
	}
	return best
}

func (x *headers) unfile(r *headersRule) {
	for _, fact := range r.filed {
		rules, _ := x.facts.get(fact)
		if i := slices.Index(rules, r); i >= 0 {
			rules = slices.Delete(rules, i, i+1)
		}
		if len(rules) == 0 {
			x.facts.delete(fact)
		} else {
			x.facts.set(fact, rules)
		}
	}
	if r.number != notFiledTwice {
		x.numbers.giveBack(r.number)
	}
}

func (x *headers) Route(dst []Destination, m *Message) []Destination {
	dst, _ = x.route(dst, m.Headers)
	return dst
}

// route also returns the number of conditions it compared.
func (x *headers) route(dst []Destination, h amqp.Table) ([]Destination, int) {
	dst = x.always.appendTo(dst)
	if len(x.rules) == 0 || len(h) == 0 {
		return dst, 0
	}
	s := headersScratchPool.Get().(*headersScratch)
	s.begin(h)
	var seen *visited
	steps := 0
	for i := range h {
		if s.find(h[i].Name) != &h[i] {
			continue // a repeated name: the first one counts
		}
		s.fact = appendPresence(s.fact[:0], h[i].Name)
		present, _ := x.facts.get(string(s.fact))
		var equal []*headersRule
		if fact, ok := appendEquality(s.fact[:0], &h[i]); ok {
			s.fact = fact
			equal, _ = x.facts.get(string(s.fact))
		}
		for _, rules := range [2][]*headersRule{present, equal} {
			for _, r := range rules {
				if r.number != notFiledTwice {
					if seen == nil {
						seen = newVisited(x.numbers.bound())
					}
					if !seen.first(r.number) {
						continue
					}
				}
				ok, n := r.match(s)
				steps += n
				if ok {
					dst = r.dests.appendTo(dst)
				}
			}
		}
	}
	if seen != nil {
		seen.release()
	}
	s.end()
	return dst, steps
}

// match also returns the number of conditions it compared.
func (r *headersRule) match(s *headersScratch) (bool, int) {
	for i := range r.conds {
		if holds(&r.conds[i], s) == r.any {
			return r.any, i + 1
		}
	}
	return !r.any, len(r.conds)
}
