package server

import (
	"sort"
	"sync/atomic"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/broker"
	"github.com/settmq/settmq/storage"
)

// transaction is what a channel in tx mode has done since the last commit (AMQP 0-9-1
// §1.9, with RabbitMQ's reading: publishes and settlements wait for the commit, deliveries
// do not). Routing is decided when a message is published.
type transaction struct {
	publishes []txPublish
	settled   []txSettled
	bytes     int // of the publishes
}

// maxTransaction bounds what one channel may publish before it commits, in bytes: it is all
// kept in memory.
const maxTransaction = 256 << 20

type txPublish struct {
	message   *storage.Message
	route     broker.Route
	mandatory bool
}

type txSettled struct {
	list []outstanding
	how  settlement
}

func (t *transaction) publish(m *storage.Message, rt *broker.Route, mandatory bool) *amqp.Error {
	if t.bytes += len(m.Properties) + len(m.Body); t.bytes > maxTransaction {
		return amqp.ResourceError("transaction is larger than %d bytes", maxTransaction)
	}
	t.publishes = append(t.publishes, txPublish{m, rt.Clone(), mandatory})
	return nil
}

func (t *transaction) settle(list []outstanding, how settlement) {
	t.settled = append(t.settled, txSettled{list, how})
}

func (ch *channel) confirmSelect(m *amqp.ConfirmSelect) *amqp.Error {
	if ch.tx != nil {
		return amqp.PreconditionFailed("cannot switch from tx to confirm mode")
	}
	if !ch.confirm {
		ch.router.Confirming()
	}
	ch.mu.Lock()
	ch.confirm = true
	ch.mu.Unlock()
	return ch.answer(nil, m.NoWait, &amqp.ConfirmSelectOk{})
}

func (ch *channel) txSelect() *amqp.Error {
	if ch.confirm {
		return amqp.PreconditionFailed("cannot switch from confirm to tx mode")
	}
	if ch.tx == nil {
		ch.tx = &transaction{}
		ch.mu.Lock()
		ch.transactional = true
		ch.mu.Unlock()
	}
	ch.reply(&amqp.TxSelectOk{})
	return nil
}

func notTransactional() *amqp.Error {
	return amqp.PreconditionFailed("channel is not transactional")
}

// txCommit carries the transaction out: publishes in order, then settlements. commit-ok
// follows when all of it is on disk.
func (ch *channel) txCommit() *amqp.Error {
	t := ch.tx
	if t == nil {
		return notTransactional()
	}
	ch.beginTx()
	w := &ch.conn.wakes
	lasting, accepted := false, true
	var written *writeWait
	for i := range t.publishes {
		p := &t.publishes[i]
		p.route.Count(p.mandatory, len(p.message.Body))
		if p.mandatory && p.route.Unroutable() {
			ch.returnMessage(p.message)
		}
		if p.route.Stores(p.message) {
			lasting = true
			if err := ch.conn.reserve(len(p.message.Properties) + len(p.message.Body)); err != nil {
				return notStored(err)
			}
		}
		if p.route.Streams() {
			if written == nil {
				written = newWriteWait()
			}
			written.add(p.message)
		}
		if !p.route.Publish(p.message, w) {
			accepted = false
		}
	}
	for _, s := range t.settled {
		for _, o := range s.list {
			lasting = lasting || o.queue.Lasts()
		}
		ch.apply(s.list, s.how)
	}
	if lasting {
		w.Flush()
		// An empty change comes behind everything that was appended before it.
		if err := ch.conn.srv.o.Broker.Store().Apply(storage.Change{}).Wait(); err != nil {
			return notStored(err)
		}
	}
	if !accepted { // before the streams are waited for: a refused message is never confirmed
		return amqp.PreconditionFailed("partial tx completion")
	}
	if written != nil && !written.wait(ch.conn.stop) {
		return shutdownError()
	}
	ch.reply(&amqp.TxCommitOk{})
	return nil
}

// beginTx starts the next transaction.
func (ch *channel) beginTx() {
	ch.tx = &transaction{}
	ch.uncommitted.Store(0)
	ch.acksUncommitted.Store(0)
}

// txRollback forgets the publishes; what was settled is outstanding again.
func (ch *channel) txRollback() *amqp.Error {
	t := ch.tx
	if t == nil {
		return notTransactional()
	}
	ch.beginTx()
	ch.restore(t)
	ch.reply(&amqp.TxRollbackOk{})
	return nil
}

// restore makes the deliveries that an uncommitted transaction settled outstanding again.
func (ch *channel) restore(t *transaction) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	list := ch.unacked.takeAll()
	for _, s := range t.settled {
		list = append(list, s.list...)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].tag < list[j].tag })
	for _, o := range list {
		ch.unacked.push(o)
	}
}

// writeWait waits for messages that are written beside the journal. It is the storage.Confirmer of a transaction's.
type writeWait struct {
	left atomic.Int64
	done chan struct{}
}

func newWriteWait() *writeWait {
	w := &writeWait{done: make(chan struct{})}
	w.left.Store(1) // dropped by wait
	return w
}

func (w *writeWait) add(m *storage.Message) {
	w.left.Add(1)
	m.Confirm = w
}

// Confirm implements storage.Confirmer.
func (w *writeWait) Confirm(seqs []uint64, _ bool) {
	if w.left.Add(-int64(len(seqs))) == 0 {
		close(w.done)
	}
}

// wait returns when all are written; false if stop was closed first.
func (w *writeWait) wait(stop <-chan struct{}) bool {
	w.Confirm([]uint64{0}, false)
	select {
	case <-w.done:
		return true
	case <-stop:
		return false
	}
}
