// Package fifo is the queue as a pure state machine.
//
// It decides which message goes to which consumer. It does not know sockets, storage, goroutines, locks or the time
// of day: callers push messages in with Enqueue, pull deliveries out with Next, and bring and take away payloads
// when memory is short. Equal calls give equal results, so a queue can be replayed, checked against a model, and
// replicated.
package fifo
