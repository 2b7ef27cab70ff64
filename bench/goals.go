package main

import "slices"

// goal is a line of the published table: a figure of a scenario and what we want it to be.
// The figures of peers in it were taken on another machine of the same size; they stand
// in where a peer was not measured beside us.
type goal struct {
	row      string // as the table words it
	scenario string
	phase    string
	figure   string // name of a column

	factor float64 // of the best peer's figure: at least it, or at most if less is better; 0: limit counts
	limit  float64 // the figure itself, or its ratio to that of the scenario in than
	than   string  // a scenario of our own to compare with

	peer     string // who was the best peer on the other machine
	peerDone float64
}

// goals returns the lines in the order of the table.
func goals() []goal {
	const lavin, rabbit, garage = "LavinMQ", "RabbitMQ", "GarageMQ"
	return []goal{
		{row: "transient, auto-ack, 16 B", scenario: "transient/16B", phase: steady, figure: "deliver/s", factor: 2, peer: lavin, peerDone: 979_000},
		{row: "transient, auto-ack, 1 KiB", scenario: "transient/1KiB", phase: steady, figure: "deliver/s", factor: 2.5, peer: lavin, peerDone: 236_000},
		{row: "16 B, 4 queues, each with producer and consumer", scenario: "transient/16B-4", phase: steady, figure: "deliver/s", limit: 1, than: "transient/16B", peer: lavin, peerDone: 913_000},
		{row: "1 KiB, 4 queues, each with producer and consumer", scenario: "transient/1KiB-4", phase: steady, figure: "deliver/s", limit: 1, than: "transient/1KiB", peer: lavin, peerDone: 226_000},
		{row: "transient, manual ack each, prefetch 200", scenario: "transient/ack-200", phase: steady, figure: "deliver/s", factor: 2, peer: lavin, peerDone: 220_000},
		{row: "persistent, confirm window 1000, ack each", scenario: "persistent/confirm-1000", phase: steady, figure: "confirm/s", factor: 1.5, peer: lavin, peerDone: 121_000},
		{row: "the same over 100 queues", scenario: "persistent/100-queues", phase: steady, figure: "confirm/s", limit: 0.9, than: "persistent/confirm-1000"},
		{row: "the same, no consumer", scenario: "persistent/no-consumer", phase: steady, figure: "confirm/s", factor: 1.5, peer: lavin, peerDone: 170_000},
		{row: "confirm window 1: p50", scenario: "persistent/confirm-1", phase: steady, figure: "confirm p50 µs", peer: lavin, peerDone: 281},
		{row: "confirm window 1: p99", scenario: "persistent/confirm-1", phase: steady, figure: "confirm p99 µs", peer: lavin, peerDone: 807},
		{row: "confirm window 1: p50 as fdatasyncs", scenario: "persistent/confirm-1", phase: steady, figure: "confirm p50 in syncs", limit: 1.2, peer: lavin, peerDone: 281.0 / 192},
		{row: "syncs 5 ms slower, window 100", scenario: "persistent/slow-sync", phase: steady, figure: "confirm/s", limit: 15_000},
		{row: "fan-out to 50 queues", scenario: "fanout/50", phase: steady, figure: "deliver/s", factor: 2.5, peer: lavin, peerDone: 358_000},
		{row: "topic, 10 000 bindings", scenario: "topic/10000", phase: steady, figure: "deliver/s", factor: 10, peer: rabbit, peerDone: 15_300},
		{row: "topic: making the bindings, s", scenario: "topic/10000", phase: "bind", figure: "seconds", limit: 2.4},
		{row: "5 000/s transient: delivery p50", scenario: "latency/transient", phase: steady, figure: "end-to-end p50 µs", factor: 0.8, peer: lavin, peerDone: 63},
		{row: "5 000/s transient: delivery p99", scenario: "latency/transient", phase: steady, figure: "end-to-end p99 µs", factor: 0.8, peer: lavin, peerDone: 528},
		{row: "5 000/s persistent: confirm p50", scenario: "latency/confirmed", phase: steady, figure: "confirm p50 µs", factor: 0.8, peer: lavin, peerDone: 545},
		{row: "5 000/s persistent: confirm p99", scenario: "latency/confirmed", phase: steady, figure: "confirm p99 µs", factor: 0.8, peer: lavin, peerDone: 2640},
		{row: "backlog of 1 M: fill", scenario: "backlog/1M", phase: "fill", figure: "confirm/s", factor: 1.3, peer: lavin, peerDone: 189_000},
		{row: "backlog of 1 M: RSS, MiB", scenario: "backlog/1M", phase: "fill", figure: "RSS MiB", limit: 64, peer: lavin, peerDone: 32},
		{row: "backlog of 1 M: first delivery after a start, s", scenario: "backlog/1M", phase: "drain", figure: "first delivery s", limit: 0.1, peer: lavin, peerDone: 0.08},
		{row: "backlog of 1 M: drain", scenario: "backlog/1M", phase: "drain", figure: "deliver/s", factor: 1.3, peer: lavin, peerDone: 427_000},
		{row: "10 M waiting: memory for each, B", scenario: "backlog/10M", phase: "fill", figure: "RSS B/unit", limit: 1, peer: lavin, peerDone: 0.25},
		{row: "1 MiB, transient", scenario: "large/transient", phase: steady, figure: "deliver/s", factor: 1.25, peer: rabbit, peerDone: 1289},
		{row: "1 MiB, persistent, synced", scenario: "large/persistent", phase: steady, figure: "confirm/s", factor: 1.8, peer: rabbit, peerDone: 330},
		{row: "idle connection with a channel, B", scenario: "idle/1000", phase: "idle", figure: "RSS B/unit", limit: 20 << 10, peer: garage, peerDone: 48 << 10},
		{row: "connection and channel, opened and closed", scenario: "churn/connections", phase: "connection and channel", figure: "op/s", factor: 1.3, peer: lavin, peerDone: 5440},
		{row: "declare 10 000 durable queues", scenario: "declare/10000", phase: "declare", figure: "op/s", limit: 3000, peer: garage, peerDone: 1760},
		{row: "declare 10 000 durable queues: memory for each, B", scenario: "declare/10000", phase: "declare", figure: "RSS B/unit", limit: 6 << 10, peer: garage, peerDone: 14 << 10},
		{row: "stream: publish", scenario: "stream/publish", phase: steady, figure: "confirm/s", factor: 1.3, peer: lavin, peerDone: 187_000},
		{row: "stream: read", scenario: "stream/read", phase: "drain", figure: "deliver/s", factor: 1.2, peer: lavin, peerDone: 811_000},
		{row: "stream: both at once", scenario: "stream/both", phase: steady, figure: "deliver/s", factor: 3, peer: lavin, peerDone: 39_000},
		{row: "start to accepting, s", scenario: "start", phase: "start", figure: "start s", factor: 1, peer: lavin, peerDone: 0.06},
		{row: "idle RSS, MiB", scenario: "start", phase: "start", figure: "RSS MiB", factor: 1, peer: lavin, peerDone: 14.8},
		{row: "binary, MiB", scenario: "start", phase: "start", figure: "binary MiB", factor: 1, peer: lavin, peerDone: 19},
		{row: "amqp091-go, persistent with confirms and acks", scenario: "client/confirmed", phase: steady, figure: "deliver/s", factor: 1.2, peer: lavin, peerDone: 56_900},
	}
}

func columnNamed(name string) column {
	return columns[slices.IndexFunc(columns, func(c column) bool { return c.name == name })]
}
