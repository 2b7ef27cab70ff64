//go:build unix

package wire

import (
	"net"
	"os"
	"syscall"
)

// blockingStream is a socket in blocking mode: a read that waits is one system call.
type blockingStream struct {
	*os.File
	fd int
}

func newStream(tcp *net.TCPConn) (stream, error) {
	f, err := tcp.File() // a duplicate
	_ = tcp.Close()
	if err != nil {
		return nil, err
	}
	return &blockingStream{File: f, fd: int(f.Fd())}, nil // Fd sets blocking mode
}

func (s *blockingStream) Shutdown() error { return syscall.Shutdown(s.fd, syscall.SHUT_RDWR) }
