package main

import (
	"io"
)

const getUsage = `
Usage: settmq get [flags] queue

Prints one message of the queue. Without --ack the message stays in the queue and will be marked as
redelivered. Exit code 5: there is none.`

// runGet takes one message from a queue. args are those behind "get".
func runGet(args []string, _ io.Reader, stdout, stderr io.Writer) int {
	c := newCommand("get", getUsage, stdout, stderr).withURL()
	ack := c.flags.Bool("ack", false, "take the message out of the queue")
	asJSON := c.flags.Bool("json", false, "print the whole message as a line of JSON")
	operands, code, done := c.parse(args)
	if done {
		return code
	}
	if len(operands) != 1 || operands[0] == "" {
		return c.usage("needs the name of one queue")
	}
	conn, ch, err := c.connect()
	if err != nil {
		return c.fail(err)
	}
	defer closeConn(conn)
	m, ok, err := ch.Get(operands[0], false)
	if err != nil {
		return c.fail(err)
	}
	if !ok {
		c.note("queue %q is empty", operands[0])
		return exitEmpty
	}
	// Print first: a message that could not be shown goes back to the queue.
	if err := newPrinter(stdout, *asJSON).print(&m); err != nil {
		_ = m.Nack(false, true)
		return c.fail(err)
	}
	if *ack {
		err = m.Ack(false)
	} else {
		err = m.Nack(false, true)
	}
	// Closing the channel is answered after the acknowledgement before it has been carried out.
	if err == nil {
		err = ch.Close()
	}
	if err != nil {
		return c.fail(err)
	}
	return exitOK
}
