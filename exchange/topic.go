package exchange

import (
	"slices"
	"strings"

	"github.com/settmq/settmq/amqp"
)

// edgeLimit is the number of literal words below a node that are compared one by one
// before the node gets a map.
const edgeLimit = 8

// topic is a trie of the binding keys, one word per edge. '*' and '#' have edges of their
// own, so a message visits only the branches that agree with its key so far.
//
// # Words
//
// A key is split at every '.'; empty words are words ("a." has two, "." has two), but the
// empty key has none. '*' and '#' are wildcards only as a whole word; "a*" is a literal.
//
// # Why '#' stays cheap
//
// A node reached without passing a '#' is reached at one position of the key only. A '#'
// node, once entered at a position, matches there and at all later ones, so entering it
// again later adds nothing. The walk goes through positions in ascending order and
// below one '#' every node has a fixed distance from it, so the first time a nested '#'
// is entered is at its lowest position: every '#' is expanded at most once per message,
// and every (node, position) pair is seen at most once. The cost is at most nodes ×
// (words+1), the usual bound of a matcher that remembers such pairs, with one stamp for each
// nested '#' instead of a table of pairs. Without that, "#.#.#.#.x" would be combinatorial.
type topic struct {
	root     topicNode
	bindings int
	nested   numbers // for '#' nodes below another '#'
}

// notNested marks nodes which the walk can enter only once.
const notNested = -1

type topicNode struct {
	dests bag
	edges []topicEdge                // literal words while they are few
	many  *table[string, *topicNode] // literal words once they are many; edges is nil then
	star  *topicNode
	hash  *topicNode
	// number of this '#' node among the nested ones of the topic, or notNested.
	number int32
}

type topicEdge struct {
	word string // part of a binding key: no copy
	node *topicNode
}

func (x *topic) Needs() Needs { return EveryKey }

func (x *topic) Empty() bool { return x.bindings == 0 }

func (x *topic) Bind(key string, _ amqp.Table, d Destination) {
	n, belowHash := &x.root, false
	for at := firstWord(key); at <= len(key); {
		word, next := wordAt(key, at)
		switch word {
		case "#":
			if n.hash == nil {
				n.hash = &topicNode{number: notNested}
				if belowHash {
					n.hash.number = x.nested.take()
				}
			}
			n, belowHash = n.hash, true
		case "*":
			if n.star == nil {
				n.star = &topicNode{number: notNested}
			}
			n = n.star
		default:
			child := n.child(word)
			if child == nil {
				child = &topicNode{number: notNested}
				n.addChild(word, child)
			}
			n = child
		}
		at = next
	}
	n.dests.add(d)
	x.bindings++
}

func (x *topic) Unbind(key string, _ amqp.Table, d Destination) {
	if x.unbind(&x.root, key, firstWord(key), d) {
		x.bindings--
	}
}

// unbind removes the binding below n and prunes what it leaves empty.
func (x *topic) unbind(n *topicNode, key string, at int, d Destination) bool {
	if at > len(key) {
		return n.dests.remove(d)
	}
	word, next := wordAt(key, at)
	var child *topicNode
	switch word {
	case "#":
		child = n.hash
	case "*":
		child = n.star
	default:
		child = n.child(word)
	}
	if child == nil || !x.unbind(child, key, next, d) {
		return false
	}
	if !child.dests.empty() || !child.leaf() {
		return true
	}
	switch word {
	case "#":
		if child.number != notNested {
			x.nested.giveBack(child.number)
		}
		n.hash = nil
	case "*":
		n.star = nil
	default:
		n.removeChild(word)
	}
	return true
}

func (x *topic) Route(dst []Destination, m *Message) []Destination {
	dst, _ = x.route(dst, m.RoutingKey)
	return dst
}

// route also returns the number of (node, position) pairs it looked at.
func (x *topic) route(dst []Destination, key string) ([]Destination, int) {
	w := topicWalk{topic: x, key: key, dst: dst}
	w.visit(&x.root, firstWord(key))
	if w.seen != nil {
		w.seen.release()
	}
	return w.dst, w.steps
}

// topicWalk is one message on its way through the trie. It lives on the stack.
type topicWalk struct {
	topic *topic
	key   string
	dst   []Destination
	seen  *visited // nested '#' nodes entered; nil until there is one
	steps int
}

// visit handles a node which the words before at lead to.
func (w *topicWalk) visit(n *topicNode, at int) {
	if at > len(w.key) {
		w.dst = n.dests.appendTo(w.dst)
	}
	w.descend(n, at)
}

// descend follows the edges of n that agree with the word at at, and returns the position
// of the word after it.
func (w *topicWalk) descend(n *topicNode, at int) (next int) {
	w.steps++
	if n.hash != nil {
		w.enterHash(n.hash, at)
	}
	if at > len(w.key) {
		return at
	}
	word, next := wordAt(w.key, at)
	if child := n.child(word); child != nil {
		w.visit(child, next)
	}
	if n.star != nil {
		w.visit(n.star, next)
	}
	return next
}

// enterHash handles a '#' node which the words before at lead to: it matches whatever
// comes, and its children may go on from any later position.
func (w *topicWalk) enterHash(n *topicNode, at int) {
	if n.number != notNested {
		if w.seen == nil {
			w.seen = newVisited(w.topic.nested.bound())
		}
		if !w.seen.first(n.number) {
			return // entered before, hence at a lower position
		}
	}
	w.dst = n.dests.appendTo(w.dst)
	if n.leaf() {
		w.steps++
		return
	}
	for at <= len(w.key) {
		at = w.descend(n, at)
	}
	w.descend(n, at)
}

// leaf reports whether nothing hangs below n.
func (n *topicNode) leaf() bool {
	return len(n.edges) == 0 && n.many == nil && n.star == nil && n.hash == nil
}

// child returns the node behind a literal word, or nil.
func (n *topicNode) child(word string) *topicNode {
	if n.many != nil {
		c, _ := n.many.get(word)
		return c
	}
	for i := range n.edges {
		if n.edges[i].word == word {
			return n.edges[i].node
		}
	}
	return nil
}

func (n *topicNode) addChild(word string, c *topicNode) {
	switch {
	case n.many != nil:
		n.many.set(word, c)
	case len(n.edges) < edgeLimit:
		n.edges = append(n.edges, topicEdge{word, c})
	default:
		n.many = &table[string, *topicNode]{}
		for _, e := range n.edges {
			n.many.set(e.word, e.node)
		}
		n.many.set(word, c)
		n.edges = nil
	}
}

func (n *topicNode) removeChild(word string) {
	if n.many == nil {
		n.edges = slices.DeleteFunc(n.edges, func(e topicEdge) bool { return e.word == word })
		if len(n.edges) == 0 {
			n.edges = nil
		}
		return
	}
	n.many.delete(word)
	if n.many.len() > edgeLimit/2 {
		return
	}
	n.edges = make([]topicEdge, 0, n.many.len())
	for word, c := range n.many.m {
		n.edges = append(n.edges, topicEdge{word, c})
	}
	n.many = nil
}

// Positions in a key are byte offsets of the starts of words. The position after the last
// word is greater than len(key): that tells "a." (an empty word is left) from "a" (none).

// firstWord is the position at which a key starts. The empty key has no words.
func firstWord(key string) int {
	if key == "" {
		return 1
	}
	return 0
}

// wordAt returns the word at a position <= len(key) and the position of the next one.
func wordAt(key string, at int) (word string, next int) {
	i := strings.IndexByte(key[at:], '.')
	if i < 0 {
		return key[at:], len(key) + 1
	}
	return key[at : at+i], at + i + 1
}
