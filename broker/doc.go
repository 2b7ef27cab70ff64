// Package broker is the message broker without a wire: vhosts with their exchanges, queues
// and bindings, users and their rights, the way from a publish to its queues, and the
// alarms that hold publishers back.
//
// It owns the topology and what must last of it, and words every refusal as RabbitMQ does,
// so that AMQP channels, a definitions import and a program that embeds the broker are
// refused alike. It refuses to know sockets, frames, channels and delivery tags: who asks
// comes as an [Actor], who consumes as a queue.Sink.
//
// # Durability
//
// Operations on durable things return when the change is on disk. They change memory and
// hand the change to the store's journal under the vhost's lock, so that the journal has
// them in the order in which they happened, and wait for the disk after the unlock.
//
// # Locks
//
// A vhost's lock comes before its queues' locks; the users' lock is a leaf. Nothing is held
// across a disk or a socket.
package broker
