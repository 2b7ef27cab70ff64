package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	valueLogHeader = 20 // key id, 0 without encryption, and 12 bytes that do not matter then
	// valueLogParked is the size given to a damaged value log. Badger rewrites files of which half
	// is dead; rewriting one that cannot be read to its end would lose what stands behind the
	// damage, and of this size half can never be dead.
	valueLogParked = 512 << 20
)

// protectValueLog keeps Badger from cutting the newest value log at the first damaged entry,
// which would lose everything behind it: it puts an empty file after it, since Badger only looks
// at the last one. What is damaged is found by our own checksums when it is read. A tail torn by
// a power cut looks the same and is kept too; nothing refers to it.
func protectValueLog(path string) error {
	if valueLogEmpty(path) {
		return nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("storage: %w", err)
	}
	if !valueLogWhole(data) && len(data) < valueLogParked {
		if err := parkValueLog(path); err != nil {
			return fmt.Errorf("storage: %w", err)
		}
	}
	return coverValueLog(path)
}

func valueLogEmpty(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Size() <= valueLogHeader
}

func parkValueLog(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(valueLogParked), f.Sync(), f.Close())
}

// coverValueLog puts an empty value log after the newest one, which Badger then does not read when it opens. After an
// orderly end there is no need to: without this every start would read up to 64 MiB twice.
func coverValueLog(path string) error {
	var head [valueLogHeader]byte
	if err := readHead(path, head[:]); err != nil {
		return fmt.Errorf("storage: %w", err)
	}
	var number uint32
	if _, err := fmt.Sscanf(filepath.Base(path), "%d.vlog", &number); err != nil {
		return nil // not a name Badger would use
	}
	next := filepath.Join(filepath.Dir(path), fmt.Sprintf("%06d.vlog", number+1))
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return fmt.Errorf("storage: %w", err)
	}
	clear(head[:8])
	_, err = f.Write(head[:])
	if err = errors.Join(err, f.Sync(), f.Close(), syncDir(filepath.Dir(path))); err != nil {
		return fmt.Errorf("storage: %w", err)
	}
	return nil
}

func readHead(path string, b []byte) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.ReadFull(f, b)
	return err
}

// fullValueLogs is what all value logs occupy but the one that is written to.
func (d *stateDB) fullValueLogs() uint64 {
	newest := filepath.Base(newestValueLog(d.dir))
	return d.occupied(func(name string) bool { return strings.HasSuffix(name, ".vlog") && name != newest })
}

// newestValueLog returns the path of the last one in dir; "" if there is none.
func newestValueLog(dir string) string {
	names, _ := filepath.Glob(filepath.Join(dir, "*.vlog"))
	if len(names) == 0 {
		return ""
	}
	return slices.Max(names) // numbers have leading zeros
}

// valueLogWhole reports whether a value log is valid entries and then zeros.
//
//	entry  meta u8 | user meta u8 | key size, value size, expiry uvarints | key | value | crc32c u32
func valueLogWhole(data []byte) bool {
	for at := valueLogHeader; at < len(data); {
		n, ok := valueLogEntry(data[at:])
		if !ok {
			return len(bytes.TrimLeft(data[at:], "\x00")) == 0
		}
		at += n
	}
	return true
}

func valueLogEntry(b []byte) (size int, ok bool) {
	c := cursor{b: b}
	c.take(2)
	key, value := c.uvarint(), c.uvarint()
	c.uvarint()
	if c.err != nil || key == 0 || key > 1<<16 || value > uint64(len(b)) {
		return 0, false
	}
	c.take(key + value)
	n := len(b) - len(c.b)
	sum := c.take(4)
	if c.err != nil || crc32.Checksum(b[:n], castagnoli) != binary.BigEndian.Uint32(sum) {
		return 0, false
	}
	return n + 4, true
}
