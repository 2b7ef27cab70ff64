package broker

import (
	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/storage"
)

// Queue is a queue of any kind: what the vhost, the routes and the channels need of it. The kinds
// differ in what they do with a message, not in how they are declared, bound, listed and deleted.
// Implementations are pointers; all methods may be called from any goroutine.
type Queue interface {
	queue.Source

	// Publish appends m; false if the queue refuses it. If the queue stores m, m.Targets must
	// already count it.
	Publish(m *storage.Message, w *queue.Wakes) bool
	// Await counts a target of m, which the queue would store, down once everything that was published to the queue
	// before is on disk.
	Await(m *storage.Message)
	// Configure changes what arguments and policies say together. It may be called with the
	// vhost's lock held.
	Configure(s queue.Settings)
	// Touch notes that the queue was used, which puts off its expiry.
	Touch()
	// Subscribe adds a consumer and sets its source. confirm is called before its first delivery.
	Subscribe(c *queue.Consumer, confirm func(), w *queue.Wakes) error
	// Get takes the next ready message, with the number of those left; ok is false if there is none.
	Get(noAck bool, stop <-chan struct{}) (d queue.Delivery, left int, ok bool, err error)
	// Purge drops the ready messages and returns their number.
	Purge() (int, error)
	// Delete marks the queue deleted, unless a condition forbids it, and returns the number of
	// ready messages and the consumers that went with it.
	Delete(ifUnused, ifEmpty bool) (ready int, consumers []*queue.Consumer, err error)
	// Stop prepares a clean shutdown. Nothing is delivered afterwards.
	Stop()
	// Info returns the counters of this moment that are had at once, Details all of them.
	Info() queue.Info
	Details(d *queue.Details)
}

var _ Queue = (*queue.Queue)(nil)
