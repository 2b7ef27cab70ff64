package cli

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/settmq/settmq/cli/api"
)

// peekCommand looks at messages and leaves no trace: neither their order nor their redelivered flag change.
func (a *App) peekCommand() *cobra.Command {
	var vhost string
	var count, cut int
	var asJSON bool
	cmd := apiCommand("peek NAME", "Look at messages of a queue without taking them", operands(1, 1, "the name of one queue"), func(r *request) error {
		if count < 1 || cut < 0 {
			return Usagef("--count must be at least 1, --truncate at least 0")
		}
		body := map[string]any{"ackmode": "peek", "count": count, "encoding": "auto"}
		if cut > 0 {
			body["truncate"] = cut
		}
		var messages []json.RawMessage
		if err := r.api.Do(r.ctx, http.MethodPost, api.Path("queues", vhost, r.args[0], "get"), body, &messages); err != nil {
			return missing(err, "queue", r.args[0], vhost)
		}
		if len(messages) == 0 {
			note(r.cmd, "queue %q is empty", r.args[0])
			return Told(ExitEmpty)
		}
		return a.printPeeked(messages, asJSON)
	})
	cmd.GroupID = GroupMessages
	cmd.Long = lines("Prints the first messages of a queue, and leaves them as they are: in their places, and not redelivered when they",
		"are delivered. settmq get marks them. Exit code 5: there are none.")
	vhostFlag(cmd, &vhost)
	cmd.Flags().IntVar(&count, "count", 1, "look at `n` messages at most")
	cmd.Flags().IntVar(&cut, "truncate", 0, "show `n` bytes of each body (default: all)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print whole messages as lines of JSON, as the API has them")
	return cmd
}

func (a *App) printPeeked(messages []json.RawMessage, asJSON bool) error {
	w := bufio.NewWriter(a.Stdout)
	for _, raw := range messages {
		if asJSON {
			_, _ = w.Write(append(raw, '\n')) // bufio keeps the first error for Flush
			continue
		}
		var m struct {
			Payload  string `json:"payload"`
			Encoding string `json:"payload_encoding"`
		}
		if err := json.Unmarshal(raw, &m); err != nil {
			return err
		}
		body := []byte(m.Payload)
		if m.Encoding == "base64" {
			var err error
			if body, err = base64.StdEncoding.DecodeString(m.Payload); err != nil {
				return err
			}
		}
		if isCharDevice(a.Stdout) {
			body = []byte(printable(body))
		}
		_, _ = w.Write(append(body, '\n'))
	}
	return w.Flush()
}
