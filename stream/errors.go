package stream

import (
	"errors"
	"fmt"

	"github.com/settmq/settmq/storage"
)

// errNoSpace reports that a chunk found no room on the disk. Nothing of it counts, and it may be written again.
var errNoSpace = errors.New("stream: no space left")

// damaged is the report of bytes that were durable once and are not what was written.
func damaged(file string, at int64, id uint64, what string, err error) error {
	return &storage.CorruptError{Where: fmt.Sprintf("%s at byte %d", file, at), What: what, Queue: id, Err: err}
}
