// Package metrics shows the broker's numbers to Prometheus, under RabbitMQ's names and labels, so that its dashboards
// and alerts work, and under settmq_* what only this broker has.
//
// It owns names, labels and the form of a scrape. It counts nothing: a scrape takes a snapshot of what package broker
// has counted anyway, and builds the families of it once.
//
// # Endpoints
//
//	/metrics                     sums over all queues, channels and connections: small, whatever their number
//	/metrics/per-object          a series for each of them
//	/metrics/detailed?family=…   the families that are asked for, named rabbitmq_detailed_*, of all vhosts or of those
//	                             given with vhost=…
//	/metrics/memory-breakdown    what the memory of the process goes to
//
// Nobody has to log in, as with RabbitMQ: who can reach the listener can read. So it listens on this machine only,
// unless it is told otherwise.
package metrics
