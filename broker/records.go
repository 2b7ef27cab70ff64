package broker

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/settmq/settmq/amqp"
)

// Metadata keys start with one of these letters; the names behind it are each preceded by
// their length, so that no name can run into the next (or into another object's keys).
const (
	keyVHost           = 'v' // name
	keyExchange        = 'x' // vhost, name
	keyQueue           = 'q' // vhost, name
	keyBinding         = 'b' // vhost, source, destination kind, destination, routing key, arguments or their SHA-256
	keyUser            = 'u' // name
	keyPermission      = 'p' // user, vhost
	keyTopicPermission = 't' // user, vhost, exchange
	keyPolicy          = 'y' // vhost, name
	keyOperatorPolicy  = 'o' // vhost, name
	keyParameter       = 'r' // vhost, component, name
	keyGlobalParameter = 'g' // name
	keyVHostLimits     = 'l' // vhost
	keyUserLimits      = 'n' // user
	keySetting         = 's' // name: the broker's own facts
)

// recordVersion is the first byte of every metadata value. Readers accept all versions up
// to it; fields unknown to an older reader are kept out of its way by JSON.
const recordVersion = 1

func metaKey(kind byte, names ...string) []byte {
	k := []byte{kind}
	for _, n := range names {
		k = binary.AppendUvarint(k, uint64(len(n)))
		k = append(k, n...)
	}
	return k
}

// metaNames splits what metaKey joined, which must be want names.
func metaNames(key []byte, want int) ([]string, error) {
	var names []string
	for b := key[1:]; len(b) > 0; {
		n, w := binary.Uvarint(b)
		if w <= 0 || n > uint64(len(b)-w) {
			return nil, fmt.Errorf("metadata key %q is damaged", key)
		}
		names = append(names, string(b[w:w+int(n)]))
		b = b[w+int(n):]
	}
	if len(names) != want {
		return nil, fmt.Errorf("metadata key %q has %d names, want %d", key, len(names), want)
	}
	return names, nil
}

func encodeRecord(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("metadata record %T: %v", v, err)) // plain structs of ours
	}
	return append([]byte{recordVersion}, b...)
}

func decodeRecord(key, value []byte, v any) error {
	if len(value) == 0 || value[0] == 0 || value[0] > recordVersion {
		return fmt.Errorf("metadata record %q has an unknown version", key)
	}
	if err := json.Unmarshal(value[1:], v); err != nil {
		return fmt.Errorf("metadata record %q: %w", key, err)
	}
	return nil
}

type exchangeRecord struct {
	Type       string `json:"type"`
	AutoDelete bool   `json:"auto_delete,omitempty"`
	Internal   bool   `json:"internal,omitempty"`
	Arguments  []byte `json:"arguments,omitempty"` // an encoded field table
	StoreID    uint64 `json:"store,omitempty"`     // where a recent history or delayed exchange keeps its messages, or one that deduplicates its keys
}

type queueRecord struct {
	ID         uint64 `json:"id"`
	AutoDelete bool   `json:"auto_delete,omitempty"`
	Arguments  []byte `json:"arguments,omitempty"`
	WindowID   uint64 `json:"window,omitempty"` // the store of the keys that it remembers
}

type bindingRecord struct {
	Arguments []byte `json:"arguments,omitempty"` // if they are too long for the key
}

func encodeArguments(t amqp.Table) []byte {
	if len(t) == 0 {
		return nil
	}
	return t.Append(nil)
}

func decodeArguments(b []byte) (amqp.Table, error) {
	if len(b) == 0 {
		return nil, nil
	}
	t, _, err := amqp.ParseTable(b)
	return t, err
}
