package queue

import (
	"strconv"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/storage"
)

// group returns the group of a message, 0 for none: a hash of the header that GroupHeader names, which is a string or
// an integer. An integer is the same group as its decimal text; an empty string and values of other kinds are no group.
//
// It is the same after a restart, so nothing of it has to be stored.
func (q *Queue) group(m *storage.Message) uint16 {
	if q.GroupHeader == "" {
		return 0
	}
	v, ok := amqp.LookupHeader(amqp.HeadersOf(m.Properties), q.GroupHeader)
	if !ok {
		return 0
	}
	if n, ok := v.Int(); ok {
		var b [20]byte
		return slot(strconv.AppendInt(b[:0], n, 10))
	}
	if key := v.Text(); v.Kind() == amqp.KindString && key != "" {
		return slot(key)
	}
	return 0
}

// slot is FNV-1a, folded into 1…65535.
func slot[K string | []byte](key K) uint16 {
	h := uint64(0xcbf29ce484222325)
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * 0x100000001b3
	}
	return uint16(h%(1<<16-1)) + 1
}
