package management

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/settmq/settmq/auth"
	"github.com/settmq/settmq/broker"
)

// access is the rule that says who may make a request. Every user needs one of the management tags for any of them,
// except for anybody.
type access uint8

const (
	anybody          access = iota // without a password
	management                     // any tag
	monitoring                     // monitoring, administrator
	administrator                  // administrator
	inVHost                        // may enter the vhost of the path; administrator
	monitorsVHost                  // the same, and monitoring
	policymaker                    // policymaker who may enter the vhost; administrator
	globalParameters               // policymaker, administrator
	owner                          // any tag; the handler asks request.mayTouch
)

func hasTag(u *auth.User, tags ...string) bool {
	return u == nil || slices.ContainsFunc(tags, u.HasTag) // nil came over the socket
}

func isAdministrator(u *auth.User) bool { return hasTag(u, "administrator") }
func isMonitor(u *auth.User) bool       { return hasTag(u, "administrator", "monitoring") }
func isPolicymaker(u *auth.User) bool   { return hasTag(u, "administrator", "policymaker") }
func isManager(u *auth.User) bool {
	return hasTag(u, "administrator", "monitoring", "policymaker", "management")
}

// check applies the rule. vhost is that of the path, nil if it names none or one that there is not.
func (a access) check(r *request) error {
	allowed, why := true, ""
	inside := r.vhost == nil || r.mayEnter(r.vhost)
	switch a {
	case monitoring:
		allowed, why = isMonitor(r.user), "Not monitor user"
	case administrator:
		allowed, why = isAdministrator(r.user), "Not administrator user"
	case inVHost:
		inside = inside || isAdministrator(r.user)
	case monitorsVHost:
		inside = inside || isMonitor(r.user)
	case policymaker:
		inside = inside || isAdministrator(r.user)
		allowed, why = isPolicymaker(r.user), "User not authorised to access object"
	case globalParameters:
		allowed, why = isPolicymaker(r.user), "User not authorised to access object"
	}
	switch {
	case !allowed:
		return notAuthorised(why)
	case !inside && (a == inVHost || a == monitorsVHost || a == policymaker):
		return &apiError{http.StatusNotFound, "not_found", "Not Found"} // whoever may not enter learns nothing
	}
	return nil
}

// mayEnter reports whether the user has permissions in the vhost.
func (r *request) mayEnter(v *broker.VHost) bool {
	return r.user == nil || r.broker.Users().MayEnter(r.user.Name, v.Name())
}

// mayTouch refuses what belongs to somebody else, such as a connection: monitors see everybody's,
// administrators close them too.
func (r *request) mayTouch(user string) error {
	if r.userName() == user || isAdministrator(r.user) || r.Method != http.MethodDelete && isMonitor(r.user) {
		return nil
	}
	return notAuthorised("User not authorised to access object")
}

// loginVHosts are the vhosts that the user may enter, by name.
func (r *request) loginVHosts() []*broker.VHost {
	return slices.DeleteFunc(r.broker.VHosts(), func(v *broker.VHost) bool { return !r.mayEnter(v) })
}

// visibleVHosts are the vhosts that the user may know of: all of them for monitors.
func (r *request) visibleVHosts() []*broker.VHost {
	if isMonitor(r.user) {
		return r.broker.VHosts()
	}
	return r.loginVHosts()
}

// listedVHosts are those whose things a list shows: the one of the path, or all that are visible to an administrator and
// all that others may enter.
func (r *request) listedVHosts() []*broker.VHost {
	switch {
	case r.vhost != nil:
		return []*broker.VHost{r.vhost}
	case isAdministrator(r.user):
		return r.broker.VHosts()
	}
	return r.loginVHosts()
}

// login finds out who asks. The error is the answer.
func (s *Server) login(w http.ResponseWriter, r *http.Request) (*auth.User, error) {
	if r.Context().Value(localKey{}) != nil {
		return nil, nil
	}
	name, password, ok := r.BasicAuth()
	if !ok {
		w.Header().Set("WWW-Authenticate", `Basic realm="RabbitMQ Management"`)
		return nil, &apiError{status: http.StatusUnauthorized}
	}
	user, err := s.broker.Users().Authenticate(name, password, peer(r.RemoteAddr))
	if err != nil {
		s.refused(r, name, err.Error())
		if user != nil {
			return nil, notAuthorised("User can only log in via localhost")
		}
		return nil, &apiError{http.StatusUnauthorized, "not_authorized", "Not_Authorized"}
	}
	if !isManager(user) {
		s.refused(r, name, "no management user")
		return nil, notAuthorised("Not management user")
	}
	return user, nil
}

// refused notes a request that was not let in.
func (s *Server) refused(r *http.Request, user, why string) {
	s.broker.Users().CountLogin("http", false)
	s.log.Warn().Str("peer", r.RemoteAddr).Str("user", fmt.Sprintf("%.255s", user)).Str("reason", why).Msg("HTTP access denied")
}

// peer is a remote address as package net gives it to others.
type peer string

// Network implements net.Addr.
func (peer) Network() string { return "tcp" }

// String implements net.Addr.
func (p peer) String() string { return string(p) }
