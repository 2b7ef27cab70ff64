package server

import (
	"net"
	"net/netip"
	"slices"
	"time"
)

// waitersPerHandshake bounds the accepted connections that wait for a place, as a multiple
// of MaxHandshakes. They cost a socket and a goroutine each; nothing is read from them.
const waitersPerHandshake = 4

// admission limits the connections that have not opened a vhost yet, in all and per
// address, so that strangers cannot tie up memory. Who finds no place waits for one, in
// turn, for as long as a handshake may take: a thousand honest clients that reconnect at
// once are slowed down, not refused.
type admission struct {
	limit, perIP int
	timeout      time.Duration

	handshakes map[netip.Addr]int // places taken, by address
	pending    int                // places taken
	waiting    []*waiter
}

// waiter is a connection that waits for a place.
type waiter struct {
	ip    netip.Addr
	place chan struct{} // closed when a place was taken for it
}

func newAdmission(o *Options) admission {
	return admission{limit: o.MaxHandshakes, perIP: o.MaxHandshakesPerIP, timeout: o.HandshakeTimeout, handshakes: make(map[netip.Addr]int)}
}

// take takes a place for a connection from ip, if there is one.
func (a *admission) take(ip netip.Addr) bool {
	if a.pending >= a.limit || a.handshakes[ip] >= a.perIP {
		return false
	}
	a.pending++
	a.handshakes[ip]++
	return true
}

// wait lines up for a place; nil if too many do already.
func (a *admission) wait(ip netip.Addr) *waiter {
	if len(a.waiting) >= waitersPerHandshake*a.limit {
		return nil
	}
	w := &waiter{ip: ip, place: make(chan struct{})}
	a.waiting = append(a.waiting, w)
	return w
}

// give frees a place and hands it to the first who can use it.
func (a *admission) give(ip netip.Addr) {
	a.pending--
	if a.handshakes[ip]--; a.handshakes[ip] <= 0 {
		delete(a.handshakes, ip)
	}
	for i, w := range a.waiting {
		if a.take(w.ip) {
			a.waiting = slices.Delete(a.waiting, i, i+1)
			close(w.place)
			return
		}
	}
}

// leave ends a wait; false if the place was given meanwhile.
func (a *admission) leave(w *waiter) bool {
	i := slices.Index(a.waiting, w)
	if i >= 0 {
		a.waiting = slices.Delete(a.waiting, i, i+1)
	}
	return i >= 0
}

// accept starts a connection, now or when there is a place for its handshake.
func (s *Server) accept(nc net.Conn) {
	if tc, ok := nc.(*net.TCPConn); ok {
		_ = tc.SetNoDelay(true)
		_ = tc.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 3})
	}
	ip := peerIP(nc)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		_ = nc.Close()
		return
	}
	if s.admission.take(ip) {
		s.startLocked(nc)
		return
	}
	w := s.admission.wait(ip)
	if w == nil {
		s.refuse(nc)
		return
	}
	s.running.Add(1)
	go s.acceptLater(nc, w)
}

// acceptLater starts a connection that found no place once it has one.
func (s *Server) acceptLater(nc net.Conn, w *waiter) {
	defer s.running.Done()
	timeout := time.NewTimer(s.admission.timeout)
	defer timeout.Stop()
	select {
	case <-w.place:
	case <-timeout.C:
	case <-s.quit:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.admission.leave(w):
		s.refuse(nc)
	case s.closing:
		s.admission.give(w.ip)
		_ = nc.Close()
	default:
		s.startLocked(nc)
	}
}

func (s *Server) refuse(nc net.Conn) {
	_ = nc.Close()
	if !s.closing {
		s.o.Log.Warn().Str("peer", nc.RemoteAddr().String()).Msg("connection refused: too many connections in handshake")
	}
}

// startLocked runs a connection that has a place for its handshake.
func (s *Server) startLocked(nc net.Conn) {
	c := newConn(s, nc)
	s.conns[c] = struct{}{}
	s.running.Add(1)
	go c.serve()
}
