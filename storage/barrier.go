package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// barrier returns once everything written to Badger before is durable. DB.Sync does not do that:
// after a rotation of the memtable it syncs only the new log. So every file Badger may have
// written to is synced through a descriptor of our own, which also covers what was written
// through Badger's mappings. Called by Open and the checkpointer only.
func (d *stateDB) barrier(step string) error {
	// What was in a memtable's log when the listing was made can have moved to a table since;
	// the second pass sees that table.
	for range 2 {
		if err := d.syncFiles(); err != nil {
			return fmt.Errorf("storage: state barrier: %w", err)
		}
	}
	if err := syncDir(d.dir); err != nil {
		return fmt.Errorf("storage: state barrier: %w", err)
	}
	if d.s.opts.afterBarrier != nil {
		d.s.opts.afterBarrier(step)
	}
	return nil
}

func (d *stateDB) syncFiles() error {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return err
	}
	var names []string
	newest := "" // value log written to now
	for _, e := range entries {
		name := e.Name()
		switch filepath.Ext(name) {
		case ".vlog":
			newest = max(newest, name)
		case ".mem", ".sst":
		default:
			if name != "MANIFEST" && name != "KEYREGISTRY" {
				continue
			}
		}
		names = append(names, name)
	}
	for name := range d.sealed {
		if !slices.Contains(names, name) {
			delete(d.sealed, name)
		}
	}
	for _, name := range names {
		if d.sealed[name] {
			continue
		}
		err := syncFile(filepath.Join(d.dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		// Tables never change, nor does a value log once there is a newer one. The log before
		// the newest may still have been written to after the listing, so it is synced once more.
		if strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".vlog") && d.before(name, newest) {
			d.sealed[name] = true
		}
	}
	return nil
}

// before reports whether a value log is older than the one before the newest.
func (d *stateDB) before(name, newest string) bool {
	var a, b uint32
	if _, err := fmt.Sscanf(name, "%d.vlog", &a); err != nil {
		return false
	}
	if _, err := fmt.Sscanf(newest, "%d.vlog", &b); err != nil {
		return false
	}
	return a+1 < b
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(datasync(f), f.Close())
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
