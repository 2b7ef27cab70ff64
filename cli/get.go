package cli

import (
	"github.com/spf13/cobra"
)

// getCommand takes one message from a queue.
func (a *App) getCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "get queue",
		GroupID: GroupMessages,
		Short:   "Fetch one message of a queue",
		Long: lines("Prints one message of the queue. Without --ack the message stays in the queue and will be marked as",
			"redelivered; settmq peek looks without a trace. Exit code 5: there is none."),
		Args: operands(1, 1, "the name of one queue"),
	}
	c := newAMQPClient(cmd)
	ack := cmd.Flags().Bool("ack", false, "take the message out of the queue")
	asJSON := cmd.Flags().Bool("json", false, "print the whole message as a line of JSON")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		conn, ch, err := c.connect()
		if err != nil {
			return err
		}
		defer closeConn(conn)
		m, ok, err := ch.Get(args[0], false)
		if err != nil {
			return err
		}
		if !ok {
			c.note("queue %q is empty", args[0])
			return Told(ExitEmpty)
		}
		// Print first: a message that could not be shown goes back to the queue.
		if err := newPrinter(a.Stdout, *asJSON).print(&m); err != nil {
			_ = m.Nack(false, true)
			return err
		}
		if *ack {
			err = m.Ack(false)
		} else {
			err = m.Nack(false, true)
		}
		if err != nil {
			return err
		}
		// Answered after the acknowledgement before it has been carried out.
		return ch.Close()
	}
	return cmd
}
