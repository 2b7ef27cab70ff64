package broker

import (
	"slices"

	"github.com/settmq/settmq/storage"
)

// VHostMetadata describes a vhost.
type VHostMetadata struct {
	Description string   `json:"description,omitempty"`
	Tags        []string `json:"tags,omitempty"`
	// DefaultQueueType is that of queues that are declared without one: classic, quorum or
	// stream. With "" it is the broker's.
	DefaultQueueType string `json:"default_queue_type,omitempty"`
	// ProtectedFromDeletion keeps the vhost from being deleted until it is switched off.
	ProtectedFromDeletion bool `json:"protected_from_deletion,omitempty"`
}

// Metadata returns what describes the vhost.
func (v *VHost) Metadata() VHostMetadata {
	v.mu.RLock()
	defer v.mu.RUnlock()
	m := v.metadata
	m.Tags = slices.Clone(m.Tags)
	return m
}

// SetMetadata replaces what describes the vhost; queues that exist keep their types. It returns
// when that is on disk. The error is an *InvalidError for a queue type that there is not.
func (v *VHost) SetMetadata(m VHostMetadata) error {
	if err := m.check(); err != nil {
		return err
	}
	var c storage.Change
	v.mu.Lock()
	v.putMetadataLocked(m, &c)
	ticket := v.applyLocked(c)
	v.mu.Unlock()
	return ticket.Wait()
}

func (m VHostMetadata) check() error {
	if _, ok := parseQueueType(m.DefaultQueueType); !ok && m.DefaultQueueType != "" {
		return bare("unsupported queue type '%s'", m.DefaultQueueType)
	}
	return nil
}

func (v *VHost) putMetadataLocked(m VHostMetadata, c *storage.Change) {
	v.metadata = m
	c.Put = append(c.Put, storage.KV{Key: metaKey(keyVHost, v.name), Value: encodeRecord(m)})
}

// defaultType is the type of queues that name none. The vhost is locked.
func (v *VHost) defaultType() QueueType {
	if t, ok := parseQueueType(v.metadata.DefaultQueueType); ok {
		return t
	}
	return v.broker.defaultType
}

// DefaultQueueType is the type of queues that name none, in vhosts that say nothing.
func (b *Broker) DefaultQueueType() QueueType { return b.defaultType }
