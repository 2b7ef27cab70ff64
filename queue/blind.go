package queue

import (
	"bytes"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/storage"
)

// BlindHeader is the header with routing keys that consumers do not see. A message keeps it, for it may be routed again: as a
// dead letter, or when its delay is over.
const BlindHeader = "BCC"

// Visible returns the encoded properties of a message as clients see them.
func Visible(m *storage.Message) []byte {
	if !m.Blind {
		return m.Properties
	}
	return amqp.WithoutHeader(m.Properties, BlindHeader)
}

// blindField is how the header's name is encoded. What has these bytes elsewhere is taken for blind, too, which costs a look
// with every delivery and changes nothing.
var blindField = []byte("\x03" + BlindHeader)

// Recovered completes a message that was read from the store, before anybody else has it.
func Recovered(m *storage.Message) { m.Blind = bytes.Contains(m.Properties, blindField) }
