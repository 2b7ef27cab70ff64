package broker

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/auth"
	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/storage"
)

// QueueDeclare are the properties of a queue to declare. An empty name asks for one made
// by the broker.
type QueueDeclare struct {
	Name                           string
	Durable, AutoDelete, Exclusive bool
	Arguments                      amqp.Table
}

// DeclareQueue creates a queue, or checks that the existing one is the same. It returns
// when a durable one is on disk. Checks and texts in RabbitMQ's order.
//
// Exclusive queues belong to the actor's connection and go with it, so they are never
// stored, whatever durable said.
func (v *VHost) DeclareQueue(a Actor, d QueueDeclare) (Queue, *amqp.Error) {
	if d.Name = stripNewlines(d.Name); d.Name == "" {
		kind, _ := d.Arguments.Get(argQueueType)
		switch t, known := parseQueueType(kind.Text()); {
		case namesType(kind) && !known:
			return nil, amqp.PreconditionFailed("unknown queue type '%s'", kind.Text())
		case t != ClassicQueue:
			return nil, amqp.PreconditionFailed("Cannot declare a server-named queue for type %s", t.module())
		}
		d.Name = serverName("amq.gen-")
	} else if strings.HasPrefix(d.Name, "amq.") {
		return nil, amqp.AccessRefused("queue name '%s' contains reserved prefix 'amq.*'", d.Name)
	}
	if err := a.Can(auth.Configure, QueueResource, d.Name); err != nil {
		return nil, err
	}
	if d.Exclusive {
		d.Durable = false
	}
	v.broker.churn.queuesDeclared.Add(1)
	v.mu.RLock()
	d = d.withType(v.defaultType())
	v.mu.RUnlock()
	v.matchAhead(policyTarget{kind: typeOf(d.Arguments), name: d.Name})
	v.mu.Lock()
	if q, ok := v.queues[d.Name]; ok {
		err, ticket := v.checkQueueEquivalent(a, q, d), v.last
		v.mu.Unlock()
		touch(q)
		if err == nil && q.About().Durable {
			err = wait(ticket) // whoever made it may still be waiting for the disk
		}
		return q, err
	}
	err := v.checkNewQueue(a, d)
	if err == nil {
		err = v.notGone()
	}
	if err != nil {
		v.mu.Unlock()
		return nil, err
	}
	q, ticket := v.createQueueLocked(a, d)
	v.mu.Unlock()
	return q, wait(ticket)
}

// checkNewQueue checks what only matters for a queue that does not exist yet, in RabbitMQ's order.
func (v *VHost) checkNewQueue(a Actor, d QueueDeclare) *amqp.Error {
	if err := v.checkDeadLettering(a, d); err != nil {
		return err
	}
	if err := v.checkQueueArguments(d); err != nil {
		return err
	}
	if err := v.checkQueueLimit(d.Name); err != nil {
		return err
	}
	t := typeOf(d.Arguments)
	if err := v.checkProperties(t, d); err != nil || t != StreamQueue {
		return err
	}
	return checkStreamSizes(d.Arguments)
}

func (v *VHost) createQueueLocked(a Actor, d QueueDeclare) (Queue, *storage.Ticket) {
	v.broker.churn.queuesCreated.Add(1)
	if typeOf(d.Arguments) == StreamQueue {
		var c storage.Change
		id := v.broker.store.NextID()
		v.putQueue(id, d, nil, &c)
		ticket := v.applyLocked(c)
		q := v.newStreamLocked(id, d)
		v.addQueueLocked(q, nil)
		v.queueCreated(q, a)
		return q, ticket
	}
	o := v.queueOptions(v.broker.store.NextID(), d)
	if d.Exclusive {
		o.Owner = a.ConnectionID()
	}
	w := v.newQueueWindowLocked(d)
	var c storage.Change
	if d.Durable {
		c.CreateQueues = append(c.CreateQueues, o.ID)
		v.putQueue(o.ID, d, w, &c)
	}
	ticket := v.applyLocked(c)
	if d.Durable {
		o.Store = v.broker.store.Queue(o.ID)
	}
	q := queue.New(o)
	v.addQueueLocked(q, w)
	v.queueCreated(q, a)
	return q, ticket
}

// putQueue adds the record of a durable queue, whose window may be nil, to c.
func (v *VHost) putQueue(id uint64, d QueueDeclare, w *queueWindow, c *storage.Change) {
	r := queueRecord{ID: id, AutoDelete: d.AutoDelete, Arguments: encodeArguments(d.Arguments)}
	if w != nil {
		r.WindowID = w.storeID
	}
	c.Put = append(c.Put, storage.KV{Key: metaKey(keyQueue, v.name, d.Name), Value: encodeRecord(r)})
}

// queueOptions are what a queue of this vhost is made with, except for its store.
func (v *VHost) queueOptions(id uint64, d QueueDeclare) queue.Options {
	o := queue.Options{
		Declaration: queue.Declaration{ID: id, Name: d.Name, Durable: d.Durable, AutoDelete: d.AutoDelete, Arguments: d.Arguments},
		Pager:       v.broker.pager, OnFault: v.queueFault,
		Timers: v.broker.timers, OnExpired: v.queueExpired, OnDeadLetter: v.deadLetter,
		Settings: v.settings(d),
	}
	if n, ok := d.Arguments.Get("x-max-priority"); ok {
		highest, _ := n.Int()
		o.MaxPriority = uint8(highest)
	}
	o.SingleActive = singleActive(d.Arguments)
	if typeOf(d.Arguments) == QuorumQueue {
		quorumOptions(&o)
	}
	o.GroupHeader = groupHeader(d.Arguments)
	if d.AutoDelete {
		o.OnUnused = v.queueUnused
	}
	return o
}

// checkOwner refuses an exclusive queue to every connection but its owner's.
func (v *VHost) checkOwner(a Actor, q Queue) *amqp.Error {
	have := q.About()
	if _, system := a.(System); !system && have.Exclusive() && have.Owner != a.ConnectionID() {
		return v.locked(have.Name)
	}
	return nil
}

func (v *VHost) locked(name string) *amqp.Error {
	return amqp.ResourceLocked("cannot obtain exclusive access to locked %s. It could be originally declared on another connection or the exclusive property value does not match that of the original declaration.",
		v.resource(QueueResource, name))
}

// checkQueueEquivalent: ownership first, then durable, auto_delete, then each argument that
// queues of its type know.
func (v *VHost) checkQueueEquivalent(a Actor, q Queue, d QueueDeclare) *amqp.Error {
	have := q.About()
	if have.Exclusive() != d.Exclusive {
		return v.locked(have.Name)
	}
	if err := v.checkOwner(a, q); err != nil {
		return err
	}
	what := v.resource(QueueResource, have.Name)
	if have.Durable != d.Durable {
		return inequivalentFlag("durable", what, d.Durable, have.Durable)
	}
	if have.AutoDelete != d.AutoDelete {
		return inequivalentFlag("auto_delete", what, d.AutoDelete, have.AutoDelete)
	}
	return v.checkArgumentsEquivalent(have.Name, d.Arguments, have.Arguments)
}

func inequivalentFlag(name, what string, received, current bool) *amqp.Error {
	return amqp.PreconditionFailed("inequivalent arg '%s' for %s: received '%s' but current is '%s'",
		name, what, strconv.FormatBool(received), strconv.FormatBool(current))
}

// CheckQueue is a passive declare: the queue must exist and be the actor's to use.
func (v *VHost) CheckQueue(a Actor, name string) (Queue, *amqp.Error) {
	if err := canAny(a, QueueResource, name); err != nil {
		return nil, err
	}
	v.mu.RLock()
	q, err := v.queueLocked(a, name)
	v.mu.RUnlock()
	if err == nil {
		touch(q)
	}
	return q, err
}

// UseQueue finds a queue to read from: for consume, get and purge.
func (v *VHost) UseQueue(a Actor, name string) (Queue, *amqp.Error) {
	if err := a.Can(auth.Read, QueueResource, name); err != nil {
		return nil, err
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.queueLocked(a, name)
}

// DeleteQueue removes a queue with its messages and bindings and returns the number of
// ready messages lost. An absent queue is no error.
func (v *VHost) DeleteQueue(a Actor, name string, ifUnused, ifEmpty bool) (int, *amqp.Error) {
	name = stripNewlines(name)
	if err := a.Can(auth.Configure, QueueResource, name); err != nil {
		return 0, err
	}
	v.mu.Lock()
	q := v.queues[name]
	if q == nil {
		ticket := v.last
		v.mu.Unlock()
		return 0, wait(ticket)
	}
	if err := v.checkOwner(a, q); err != nil {
		v.mu.Unlock()
		return 0, err
	}
	if err := v.checkDelete(q, ifUnused, ifEmpty); err != nil {
		v.mu.Unlock()
		return 0, err
	}
	ready, consumers, err := q.Delete(ifUnused, ifEmpty)
	if err != nil {
		v.mu.Unlock()
		switch {
		case errors.Is(err, queue.ErrNotEmpty):
			return 0, amqp.PreconditionFailed("%s not empty", v.resource(QueueResource, name))
		case errors.Is(err, queue.ErrInUse):
			return 0, amqp.PreconditionFailed("%s in use", v.resource(QueueResource, name))
		}
		return 0, nil
	}
	var c storage.Change
	v.removeQueueLocked(q, &c)
	ticket := v.applyLocked(c)
	v.mu.Unlock()
	cancelled(consumers)
	if err := wait(ticket); err != nil {
		return 0, err
	}
	v.removeFiles(q)
	return ready, nil
}

// queueUnused is told by an auto-delete queue that its last consumer left.
func (v *VHost) queueUnused(q *queue.Queue) {
	v.mu.Lock()
	_, _, err := q.Delete(true, false)
	if err != nil { // used again, or deleted by somebody else
		v.mu.Unlock()
		return
	}
	var c storage.Change
	v.removeQueueLocked(q, &c)
	v.applyLocked(c)
	v.mu.Unlock()
}

// queueExpired is told by a queue that nobody used it for the time that x-expires allows.
func (v *VHost) queueExpired(q *queue.Queue) { v.queueUnused(q) }

func (v *VHost) queueFault(q *queue.Queue, err error) {
	v.broker.log.Error().Err(err).Str("vhost", v.name).Str("queue", q.Name).
		Msg("stored messages cannot be read, the queue stops: stop the broker and run `settmq recover --accept-loss` to go on without them")
}

// ConnectionClosed deletes the exclusive queues of a connection. Their consumers are gone
// with it, or belong to the connection that is closing.
func (v *VHost) ConnectionClosed(id uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.exclusive[id]) == 0 {
		return
	}
	var c storage.Change
	for q := range v.exclusive[id] {
		if _, _, err := q.Delete(false, false); err == nil {
			v.removeQueueLocked(q, &c)
		}
	}
	v.applyLocked(c)
}

// cancelled tells consumers that their queue is gone.
func cancelled(consumers []*queue.Consumer) {
	for _, c := range consumers {
		c.Sink.Cancelled(c)
	}
}

// serverName makes a name as RabbitMQ's: a prefix and 22 characters of base64url.
func serverName(prefix string) string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return prefix + base64.RawURLEncoding.EncodeToString(b[:])
}

// ConsumerTag makes a tag for a consumer that came without one.
func ConsumerTag() string { return serverName("amq.ctag-") }
