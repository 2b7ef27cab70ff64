package management

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// maxSocketPath is the longest path of a Unix socket that every system takes.
const maxSocketPath = 103

// ErrLongPath is returned by ListenLocal for a path that no socket can have.
var ErrLongPath = errors.New("path too long for a socket")

// ListenLocal listens on a Unix socket that only this user can open. A socket that is there already is replaced: the
// caller knows that nobody else serves it. Closing the listener removes it.
func ListenLocal(path string) (net.Listener, error) {
	// Made in a directory of its own, so that nobody gets in before it has its mode. The name is as short as
	// can be, since the path is bounded.
	dir, err := os.MkdirTemp(filepath.Dir(path), ".s")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // it is empty, or a leftover that does no harm
	made := filepath.Join(dir, "s")
	if max(len(made), len(path)) > maxSocketPath {
		return nil, fmt.Errorf("%s: %w", path, ErrLongPath)
	}
	l, err := net.Listen("unix", made)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(made, 0o600), os.Rename(made, path)); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &localListener{l, path}, nil
}

type localListener struct {
	net.Listener
	path string
}

// Close stops listening and removes the socket.
func (l *localListener) Close() error {
	err := l.Listener.Close()
	if remove := os.Remove(l.path); !errors.Is(remove, os.ErrNotExist) {
		err = errors.Join(err, remove)
	}
	return err
}
