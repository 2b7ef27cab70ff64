//go:build unix

package server

import (
	"errors"
	"net"
	"syscall"
)

// tryWriter returns what outbox.try needs for nc, nil for what is not a plain socket. What it
// returns is for one goroutine at a time.
func tryWriter(nc net.Conn) func(b []byte) (int, error) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	var t tryWrite
	once := t.once // made here, so that a write does not allocate
	return func(b []byte) (int, error) {
		t = tryWrite{b: b}
		// Not rc.Write, which minds the deadline of an earlier write.
		err := rc.Control(once)
		t.b = nil
		return t.n, errors.Join(err, t.err)
	}
}

// tryWrite is one write without waiting.
type tryWrite struct {
	b   []byte
	n   int
	err error
}

func (t *tryWrite) once(fd uintptr) {
	n, err := syscall.Write(int(fd), t.b)
	t.n = max(n, 0)
	if err != nil && !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.EINTR) {
		t.err = err
	}
}
