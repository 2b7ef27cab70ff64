package auth

import (
	"net"
	"net/netip"
	"slices"
	"strings"
)

// User is an account. The name is unique in the broker; tags mean something to the management side only.
type User struct {
	Name string
	// PasswordHash is the raw hash: 4 bytes of salt and the digest, or bcrypt's text. Empty: no password
	// ever matches.
	PasswordHash []byte
	// Algorithm names how PasswordHash was made; "" means SHA256.
	Algorithm string
	Tags      []string
}

// HasTag reports whether the user carries a tag such as "administrator".
func (u *User) HasTag(tag string) bool { return slices.Contains(u.Tags, tag) }

// ParsePlain takes the response of SASL mechanism PLAIN apart. Only the form NUL user NUL password
// with exactly these two NULs is accepted: a client that asks to act for another user (a non-empty
// authzid) is refused, as RabbitMQ does (RFC 4616 would allow it).
func ParsePlain(response []byte) (user, password string, ok bool) {
	if len(response) == 0 || response[0] != 0 {
		return "", "", false
	}
	user, password, ok = strings.Cut(string(response[1:]), "\x00")
	if !ok || strings.Contains(password, "\x00") {
		return "", "", false
	}
	return user, password, true
}

// IsLoopback reports whether a peer's address belongs to this machine's loopback, for users that may
// log in locally only. It must be given the peer's address as the socket has it, never the listener's
// and never one that a PROXY header claims. IPv4-mapped IPv6 addresses are unmapped first; anything
// that is not an IP address of a TCP socket is not local.
func IsLoopback(peer net.Addr) bool {
	addr, ok := PeerAddr(peer)
	return ok && addr.IsLoopback()
}

// PeerAddr returns the IP address of a TCP socket's peer, IPv4-mapped ones unmapped; false for any other peer.
func PeerAddr(peer net.Addr) (netip.Addr, bool) {
	switch a := peer.(type) {
	case nil:
		return netip.Addr{}, false
	case *net.TCPAddr:
		if a == nil {
			return netip.Addr{}, false
		}
		addr := a.AddrPort().Addr().Unmap()
		return addr, addr.IsValid()
	default:
		if !strings.HasPrefix(peer.Network(), "tcp") {
			return netip.Addr{}, false
		}
		ap, err := netip.ParseAddrPort(peer.String())
		return ap.Addr().Unmap(), err == nil
	}
}
