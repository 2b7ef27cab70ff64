package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// formatVersion is raised only when older programs must not open the directory any more.
const formatVersion = 1

const formatPrefix = "settmq storage format "

// checkFormat reads the format file, or writes it in a directory that holds nothing yet.
func checkFormat(dir string) error {
	path := filepath.Join(dir, "format")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		for _, name := range []string{"journal", "state"} {
			if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
				return &CorruptError{Where: path, What: "is missing beside data"}
			}
		}
		return writeFormat(dir, path)
	}
	if err != nil {
		return fmt.Errorf("storage: %w", err)
	}
	text, ok := strings.CutPrefix(strings.TrimSpace(string(b)), formatPrefix)
	version, err := strconv.Atoi(text)
	if !ok || err != nil || version < 1 {
		return &CorruptError{Where: path, What: "does not name a format"}
	}
	if version > formatVersion {
		return fmt.Errorf("%w: %s says %d, this program knows %d", ErrNewerFormat, path, version, formatVersion)
	}
	return nil
}

func writeFormat(dir, path string) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, []byte(formatPrefix+strconv.Itoa(formatVersion)+"\n"), 0o640); err != nil {
		return fmt.Errorf("storage: %w", err)
	}
	if err := errors.Join(syncFile(tmp), os.Rename(tmp, path), syncDir(dir)); err != nil {
		return fmt.Errorf("storage: %w", err)
	}
	return nil
}
