//go:build !unix

package wire

import "net"

type pollStream struct{ *net.TCPConn }

func newStream(tcp *net.TCPConn) (stream, error) { return pollStream{tcp}, nil }

func (s pollStream) Shutdown() error { return s.CloseRead() }
