package broker

import (
	"fmt"
	"sync"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/exchange"
	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/storage"
)

// history is what an exchange of type x-recent-history remembers: the last messages that were
// published to it, for whoever is bound later. The persistent ones of a durable exchange are
// stored as those of a queue are, and a confirm waits for that too.
type history struct {
	limit int
	store *storage.Queue // nil if the exchange is not durable

	mu    sync.Mutex // a leaf
	kept  []remembered
	bytes int
	next  uint64 // seq in the store
}

type remembered struct {
	seq uint64
	m   *storage.Message
}

// maxHistory bounds the bytes that one exchange remembers; older messages go first.
const maxHistory = 64 << 20

func newHistory(args amqp.Table, s *storage.Queue) *history {
	return &history{limit: exchange.HistoryLength(args), store: s}
}

// load brings the history back after a restart.
func (h *history) load() error {
	s := h.store.State()
	h.next = s.NextSeq
	for from := s.FirstSeq; from < s.NextSeq; {
		items, next, err := h.store.Read(nil, from, h.limit, maxHistory)
		if err != nil {
			return err
		}
		if next == from {
			return fmt.Errorf("messages from %d on are missing", from)
		}
		for _, it := range items {
			queue.Recovered(it.Message)
			h.add(remembered{it.Seq, it.Message})
		}
		from = next
	}
	return nil
}

// keeps reports whether m goes to the disk.
func (h *history) keeps(m *storage.Message) bool { return h.store != nil && !m.Transient }

// record remembers m. If it keeps it, m.Targets must already count that.
func (h *history) record(m *storage.Message) {
	if v, ok := amqp.LookupHeader(amqp.HeadersOf(m.Properties), "x-recent-history-no-store"); ok {
		if no, _ := v.Bool(); no {
			if h.keeps(m) {
				m.Done()
			}
			return
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	seq := h.next
	h.next++
	if h.keeps(m) {
		h.store.Append(seq, m)
	}
	h.add(remembered{seq, m})
}

// add appends r and forgets what is too old then.
func (h *history) add(r remembered) {
	h.kept = append(h.kept, r)
	h.bytes += historySize(r.m)
	for len(h.kept) > h.limit || h.bytes > maxHistory && len(h.kept) > 1 {
		old := h.kept[0]
		h.kept[0] = remembered{}
		h.kept = h.kept[1:]
		h.bytes -= historySize(old.m)
		if h.keeps(old.m) {
			h.store.Settle(old.seq)
		}
	}
}

func historySize(m *storage.Message) int {
	const overhead = 128
	return overhead + len(m.Properties) + len(m.Body)
}

// messages returns what is remembered, oldest first.
func (h *history) messages() []*storage.Message {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := make([]*storage.Message, len(h.kept))
	for i, r := range h.kept {
		list[i] = r.m
	}
	return list
}

// replay sends the history of a recent history exchange to what was just bound to it: to a
// queue, or through an exchange. It is called without locks: what is published meanwhile may
// come first.
func (v *VHost) replay(messages []*storage.Message, to exchange.Destination) {
	var w queue.Wakes
	for _, old := range messages {
		m := &storage.Message{Exchange: old.Exchange, RoutingKey: old.RoutingKey, Properties: old.Properties, Body: old.Body, Transient: old.Transient, Blind: old.Blind}
		v.routeTo(to, m).Publish(m, &w)
	}
	w.Flush()
}

// routeTo is the route of a message of the broker's own that starts at a queue or an exchange.
func (v *VHost) routeTo(to exchange.Destination, m *storage.Message) *Route {
	if q, ok := to.(Queue); ok {
		rt := &Route{Queues: []Queue{q}}
		rt.countStores()
		return rt
	}
	var p amqp.Properties
	if err := amqp.ParseProperties(m.Properties, &p); err != nil {
		return &Route{} // they were checked when it was published
	}
	var keys []string
	if p.Has(amqp.PropHeaders) {
		keys, _ = senderSelected(&p)
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	r := v.ownRouters.Get().(*Router)
	defer v.ownRouters.Put(r)
	rt := r.evaluateLocked(to.(*Exchange), m.RoutingKey, keys, &p).Clone()
	return &rt
}
