// Package exchange decides where a message goes.
//
// A Router is the routing table of one exchange: bindings are put in with Bind, taken
// out with Unbind, and Route appends the destination of every binding that matches a
// message. There are four kinds, as AMQP 0-9-1 has them:
//
//	direct   the routing key equals the binding key, byte for byte
//	fanout   every binding matches
//	topic    words separated by '.', '*' is exactly one word, '#' is zero or more
//	headers  the binding's arguments are compared with the message's headers
//
// and those of RabbitMQ and its plugins, which pick one binding for a message:
//
//	x-consistent-hash  by the routing key, a header or a property; a change of the bindings
//	                   moves as few keys as can be
//	x-modulus-hash     by the routing key
//	x-random           by chance
//	x-local-random     by chance; takes queues only
//
// x-recent-history routes as fanout does; remembering the messages is the caller's.
//
// # What the package refuses to know
//
// It has no permissions, no durability, no virtual host, no storage and no lock; names and
// random numbers are given to it (Environment). A destination is whatever pointer the caller binds (a queue or another exchange)
// and is only ever compared with ==. Walking from exchange to exchange, alternate
// exchanges, CC and BCC, and putting a message at most once into a queue are the
// caller's. The default exchange needs no Router: the caller looks the queue up by name.
//
// # Who may call what
//
// Bind and Unbind need the caller's write lock, Route, Needs and Empty its read
// lock: any number of goroutines may route at the same time, since a Router keeps no
// scratch space of its own. Nothing here blocks.
//
// # What it costs
//
//	direct   one map lookup
//	fanout   one copy of the list of destinations
//	topic    one map lookup or a short scan per word of the routing key and per branch
//	         that is still in the race; other bindings cost nothing, however many
//	headers  one map lookup per header and comparisons only for the bindings that share
//	         the rarest of their conditions with the message
//	x-…hash  a few nanoseconds per binding; results by routing key can be remembered (Needs)
//
// Binding keys, binding arguments, routing keys and headers come from the network and
// are taken to be hostile. A topic pattern full of '#' costs at most words of the key ×
// nodes of the trie (see topic.go); headers cost at most bindings × conditions × the
// logarithm of the number of headers. Route allocates nothing unless dst has to grow.
// Unbinding gives memory back: empty trie nodes are pruned and maps are rebuilt when they
// have become much too large for what is left.
package exchange
