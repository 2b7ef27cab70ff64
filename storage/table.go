package storage

import (
	"fmt"
	"os"
	"runtime/debug"

	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/table"
)

// checkTable verifies all checksums of one of Badger's tables. Badger itself either does not look,
// and then serves wrong bytes, or dies of a panic in a goroutine of its own.
func checkTable(path string) (err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	// The table code casts offsets to pointers.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("unreadable: %.200v", r)
		}
	}()
	t, err := table.OpenInMemoryTable(data, 1, &table.Options{
		ChkMode:     options.OnBlockRead,
		Compression: options.None,
	})
	if err != nil {
		return err
	}
	return t.VerifyChecksum()
}
