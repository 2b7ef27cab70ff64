package management

import (
	"errors"
	"math"
	"net/http"
	"slices"
	"strconv"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/broker"
	"github.com/settmq/settmq/queue"
)

// What becomes of the messages of a get, by RabbitMQ's names. peek is ours: nothing happens to them, not even that a
// later delivery says that they were delivered before.
const (
	ackRequeue    = "ack_requeue_true"
	ack           = "ack_requeue_false"
	rejectRequeue = "reject_requeue_true"
	reject        = "reject_requeue_false"
	peek          = "peek"
)

// maxGet and maxGetBytes bound the messages of one answer, and their bodies.
const (
	maxGet      = 10_000
	maxGetBytes = 32 << 20
)

// getMessages fetches messages and settles them as the body says, all at once when they have been fetched.
func getMessages(r *request) (any, error) {
	name := r.param("queue")
	if r.vhost.Queue(name) == nil {
		return nil, &apiError{http.StatusNotFound, "not_found", "queue_not_found"}
	}
	o, err := r.decode("ackmode", "count", "encoding")
	if err != nil {
		return nil, err
	}
	want, err := parseGet(o)
	if err != nil {
		return nil, err
	}
	q, refused := r.vhost.UseQueue(r.actor(r.vhost), name)
	if refused == nil {
		refused = r.vhost.CheckGet(q)
	}
	if refused != nil {
		return nil, byChannel(refused)
	}
	if want.mode == peek {
		return r.peek(q, want)
	}
	return r.fetch(q, want)
}

// wanted is what a get asks for.
type wanted struct {
	mode     string
	count    int
	base64   bool
	truncate int64 // bytes of a body that are shown
}

func parseGet(o body) (w wanted, err error) {
	if w.mode, err = o.text("ackmode", ""); err != nil {
		return w, err
	}
	if !slices.Contains([]string{ackRequeue, ack, rejectRequeue, reject, peek}, w.mode) {
		return w, badRequest("Invalid ackmode value: " + w.mode + ". Valid values are: ack_requeue_true, ack_requeue_false, reject_requeue_true, reject_requeue_false")
	}
	count, err := o.number("count", 0)
	if err != nil {
		return w, err
	}
	if w.count = maxGet; count >= 0 && count < maxGet { // a negative one is as many as there are
		w.count = int(count)
	}
	encoding, err := o.text("encoding", "")
	switch {
	case err != nil:
		return w, err
	case encoding != "auto" && encoding != "base64":
		return w, badRequest("Unsupported encoding. Please use auto or base64.")
	}
	w.base64 = encoding == "base64"
	w.truncate, err = o.number("truncate", math.MaxInt64)
	return w, err
}

// peeker is a queue whose messages can be looked at without being fetched.
type peeker interface {
	Peek(max int, stop <-chan struct{}) ([]queue.Delivery, error)
}

func (r *request) peek(q broker.Queue, want wanted) (any, error) {
	p, ok := q.(peeker)
	if !ok {
		return nil, byChannel(amqp.NotImplemented("basic.get not supported by stream queues queue '%s' in vhost '%s'", q.About().Name, r.vhost.Name()))
	}
	list, err := p.Peek(want.count, r.Context().Done())
	if err != nil {
		return nil, queueError(err)
	}
	ready := q.Info().Ready
	items, bytes := []object{}, 0
	for i := range list {
		if bytes += len(list[i].Message.Body); i > 0 && bytes > maxGetBytes {
			break
		}
		items = append(items, messageRow(&list[i], max(0, ready-i-1), want))
	}
	return items, nil
}

func (r *request) fetch(q broker.Queue, want wanted) (any, error) {
	var (
		seqs  []uint64
		items = []object{}
		bytes int
		w     queue.Wakes
	)
	// Whatever happens, nothing stays outstanding: nobody could settle it.
	settle := func(mode string) {
		switch mode {
		case ackRequeue, rejectRequeue:
			q.Requeue(seqs, mode == rejectRequeue, &w)
		case ack:
			q.Ack(seqs, &w)
		case reject:
			q.Reject(seqs, &w)
		}
		w.Flush()
	}
	for len(seqs) < want.count && bytes < maxGetBytes {
		d, left, ok, err := q.Get(false, r.Context().Done())
		if err != nil {
			settle(ackRequeue)
			return nil, queueError(err)
		}
		if !ok {
			break
		}
		seqs = append(seqs, d.Seq)
		bytes += len(d.Message.Body)
		items = append(items, messageRow(&d, left, want))
	}
	settle(want.mode)
	return items, nil
}

// queueError words what a queue cannot do.
func queueError(err error) error {
	switch {
	case errors.Is(err, queue.ErrDeleted):
		return &apiError{http.StatusNotFound, "not_found", "queue_not_found"}
	case errors.Is(err, queue.ErrStopped):
		return &apiError{status: http.StatusServiceUnavailable} // the client is gone
	}
	return byChannel(err)
}

// messageRow shows a message, and how many were ready behind it.
func messageRow(d *queue.Delivery, left int, want wanted) object {
	m := d.Message
	shown := m.Body[:min(int64(len(m.Body)), max(0, want.truncate))]
	payload, encoding := encodePayload(shown, want.base64)
	properties := any([]any{}) // Erlang's empty list
	if t := broker.PropertiesTable(queue.Visible(m)); len(t) > 0 {
		properties = t
	}
	return object{
		{"payload_bytes", len(m.Body)},
		{"redelivered", d.Redelivered},
		{"exchange", m.Exchange},
		{"routing_key", m.RoutingKey},
		{"message_count", left},
		{"properties", properties},
		{"payload", payload},
		{"payload_encoding", encoding},
	}
}

// closedChannel words the error that a channel was closed with.
func closedChannel(err *amqp.Error) error {
	return badRequest(strconv.Itoa(int(err.Code)) + " " + err.Text)
}

// byChannel words what RabbitMQ's API gets from the channel that it opens to publish and to get: the text of
// channel.close.
func byChannel(err error) error {
	var protocol *amqp.Error
	if !errors.As(err, &protocol) {
		return err
	}
	switch protocol.Code {
	case amqp.ReplyNotFound:
		return &apiError{http.StatusNotFound, "not_found", protocol.Text}
	case amqp.ReplyAccessRefused:
		return notAuthorised(protocol.Text)
	case amqp.ReplyInternalError:
		return protocol
	}
	return closedChannel(protocol)
}
