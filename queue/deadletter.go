package queue

import (
	"github.com/settmq/settmq/storage"
)

// Reason is why a message left a queue without being consumed, by RabbitMQ's names.
type Reason string

// The reasons for a dead letter.
const (
	Rejected      Reason = "rejected"
	Expired       Reason = "expired"
	MaxLen        Reason = "maxlen"
	DeliveryLimit Reason = "delivery_limit"
)

// DeadLetter is a message on its way to a queue's dead-letter exchange.
type DeadLetter struct {
	Message    *storage.Message
	Reason     Reason
	Exchange   string
	RoutingKey Optional[string] // instead of the message's own keys
	// AtLeastOnce asks to be told when nobody took the message; else it is dropped then.
	AtLeastOnce bool
	// Confirm, if not nil, has to hear of Seq once the message is on disk in its new queues. Store is the one that has
	// it as Seq until then; best it is settled there in one piece with that.
	Confirm storage.Confirmer
	Store   *storage.Queue
	Seq     uint64
}

// Outcome is what became of a dead letter.
type Outcome uint8

const (
	// Settled letters need no more care: they are in queues that do not last, or were dropped.
	Settled Outcome = iota
	// Stored ones are on their way to the disk; DeadLetter.Confirm tells.
	Stored
	// Refused ones went nowhere and are tried again. Only for AtLeastOnce.
	Refused
)

const (
	// retryDeadLetters is how long refused dead letters wait, in milliseconds.
	retryDeadLetters = 1000
	// maxRefused is how many of them are tried before the others wait with them.
	maxRefused = 32
)

// deathStep is how many dead letters are taken off a queue's list at a time.
const deathStep = 64

// death is a dead letter that was not sent yet. While it is kept, the machine has it among the
// leaving messages and the store has it too; so after a crash it is back in the queue.
type death struct {
	seq    uint64
	m      *storage.Message // nil: to be read back
	reason Reason
	kept   bool
}

// deaths are a queue's dead letters, in order: those still to be sent, and those that nobody took.
type deaths struct {
	list    []death // list[head:] are still to be sent
	head    int
	refused []death
	listed  bool // in some goroutine's Wakes
}

// take moves up to len(to) dead letters out of the list.
func (d *deaths) take(to []death) int {
	n := copy(to, d.list[d.head:])
	clear(d.list[d.head : d.head+n])
	if d.head += n; d.head == len(d.list) {
		d.list, d.head = d.list[:0], 0
		if cap(d.list) > 1024 {
			d.list = nil
		}
	}
	return n
}

// keepsDead reports whether messages that die stay until they are safe elsewhere: there is
// somewhere to send them, and a store that has them.
func (q *Queue) keepsDead() bool { return q.set.DeadLetterExchange.Set && q.Store != nil }

// dieLocked takes care of a message that has left the machine, or is leaving it if kept.
func (q *Queue) dieLocked(seq uint64, m *storage.Message, reason Reason, kept bool, w *Wakes) {
	q.deadStats.died(reason, &q.set)
	if !q.set.DeadLetterExchange.Set {
		if q.keeps(m) {
			q.Store.Settle(seq)
		}
		return
	}
	q.dead.list = append(q.dead.list, death{seq, m, reason, kept})
	q.listDeadLocked(w)
}

func (q *Queue) listDeadLocked(w *Wakes) {
	if !q.dead.listed {
		q.dead.listed = true
		w.dead = append(w.dead, q)
	}
}

// sendDead sends the dead letters of the queue, in order. It is called without locks and enters
// other queues; their own dead letters are added to w.
func (q *Queue) sendDead(w *Wakes) {
	q.sending.Lock()
	defer q.sending.Unlock()
	var batch [deathStep]death
	for refused := 0; ; {
		q.mu.Lock()
		if refused >= maxRefused {
			q.dead.refused = append(q.dead.refused, q.dead.list[q.dead.head:]...)
			q.dead.list, q.dead.head = nil, 0
		}
		n := q.dead.take(batch[:])
		q.dead.listed = n > 0
		set := q.set
		deleted := q.deleted
		q.mu.Unlock()
		if n == 0 || deleted {
			return
		}
		for i := range batch[:n] {
			if !q.send(&batch[i], &set, w) {
				refused++
			}
		}
		clear(batch[:n])
	}
}

// send sends one dead letter, unless it is refused.
func (q *Queue) send(d *death, set *Settings, w *Wakes) bool {
	outcome := Settled
	m, err := d.message(q)
	if err != nil {
		q.fail(err)
		return true
	}
	if m != nil && set.DeadLetterExchange.Set {
		l := DeadLetter{
			Message: m, Reason: d.reason, Exchange: set.DeadLetterExchange.Value, RoutingKey: set.DeadLetterRoutingKey,
			AtLeastOnce: set.DeadLetterAtLeastOnce && d.kept, Seq: d.seq,
		}
		if d.kept {
			l.Confirm, l.Store = (*buried)(q), q.Store
		}
		outcome = q.OnDeadLetter(q, &l, w)
	}
	switch {
	case !d.kept || outcome == Stored:
	case outcome == Settled:
		q.buried(d.seq)
	default:
		q.mu.Lock()
		q.dead.refused = append(q.dead.refused, death{seq: d.seq, reason: d.reason, kept: true})
		q.retryAt = q.Timers.Now() + retryDeadLetters
		q.armLocked()
		q.mu.Unlock()
		return false
	}
	return true
}

// message returns the message of a dead letter, reading it back if it is not in memory; nil if it
// is gone.
func (d *death) message(q *Queue) (*storage.Message, error) {
	if d.m != nil || q.Store == nil {
		return d.m, nil
	}
	items, _, err := q.Store.Read(nil, d.seq, 1, 1)
	if err != nil {
		return nil, err
	}
	if len(items) == 0 || items[0].Seq != d.seq {
		return nil, nil
	}
	Recovered(items[0].Message)
	return items[0].Message, nil
}

// buried forgets dead letters that are safe elsewhere.
func (q *Queue) buried(seqs ...uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.deleted {
		return
	}
	for _, seq := range seqs {
		if _, ok := q.m.Ack(seq); ok {
			q.Store.Settle(seq)
			if q.set.DeadLetterAtLeastOnce {
				q.deadStats.Confirmed++
			}
		}
	}
}

// buried shows a queue to the store as the one who waits for its dead letters.
type buried Queue

// Confirm implements storage.Confirmer.
func (b *buried) Confirm(seqs []uint64, _ bool) { (*Queue)(b).buried(seqs...) }

// retryLocked makes the refused dead letters ready to be sent again.
func (q *Queue) retryLocked(w *Wakes) {
	if len(q.dead.refused) == 0 {
		return
	}
	q.dead.list = append(q.dead.list, q.dead.refused...)
	q.dead.refused, q.retryAt = nil, 0
	q.listDeadLocked(w)
}
