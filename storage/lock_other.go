//go:build !unix

package storage

// dirLock is Badger's own here: it opens its directory only once.
type dirLock struct{}

func lockDir(string) (*dirLock, error) { return &dirLock{}, nil }

func (*dirLock) release() error { return nil }
