package management

import (
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/go-chi/chi/v5"
)

// handler answers a request that its rule lets through.
type handler func(*request) (any, error)

// route is one way in. In a pattern, {vhost} is a vhost that must exist: handlers find it in request.vhost.
type route struct {
	method  string
	pattern string
	access  access
	handler handler
}

// routes is everything there is. HEAD is served where GET is; other methods than those listed for a path are refused
// with 405, OPTIONS is answered for all.
var routes = []route{
	{"GET", "/api/whoami", management, whoami},

	{"GET", "/health/live", anybody, healthLive},
	{"GET", "/health/ready", anybody, healthReady},
}

// newHandler builds the router from the table.
func (s *Server) newHandler() http.Handler {
	router := chi.NewRouter()
	router.NotFound(func(w http.ResponseWriter, r *http.Request) { s.fail(w, r, errNotFound) })
	for pattern, rows := range byPattern(routes) {
		router.Handle(pattern, s.resource(rows))
	}
	origins := http.NewCrossOriginProtection()
	origins.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.log.Warn().Str("peer", r.RemoteAddr).Str("origin", fmt.Sprintf("%.255s", r.Header.Get("Origin"))).Msg("request from another site refused")
		s.fail(w, r, &apiError{http.StatusForbidden, "forbidden", "cross-site request refused"})
	}))
	next := origins.Handler(router)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer s.recover(w, r)
		h := w.Header()
		h.Set("Cache-Control", "no-cache")
		h.Set("Vary", "accept, accept-encoding, origin")
		h.Set("Content-Security-Policy", "script-src 'self'; object-src 'self'")
		h.Set("X-Content-Type-Options", "nosniff")
		// One slash at the end says nothing, as in RabbitMQ.
		if u := r.URL; len(u.Path) > 1 && strings.HasSuffix(u.Path, "/") {
			if raw, ok := strings.CutSuffix(u.RawPath, "/"); ok || u.RawPath == "" {
				u.Path, u.RawPath = u.Path[:len(u.Path)-1], raw
			}
		}
		next.ServeHTTP(w, r)
	})
}

// recover answers a request whose handler panicked.
func (s *Server) recover(w http.ResponseWriter, r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(p)
	}
	s.log.Error().Interface("panic", p).Bytes("stack", debug.Stack()).Str("method", r.Method).Str("path", r.URL.EscapedPath()).Msg("request failed")
	s.fail(w, r, &apiError{http.StatusInternalServerError, "internal_server_error", "Internal Server Error"})
}

func byPattern(all []route) map[string][]route {
	m := make(map[string][]route)
	for _, r := range all {
		if slices.ContainsFunc(m[r.pattern], func(o route) bool { return o.method == r.method }) {
			panic("two routes for " + r.method + " " + r.pattern)
		}
		m[r.pattern] = append(m[r.pattern], r)
	}
	return m
}

// methods are those of a path as RabbitMQ lists them.
func methods(rows []route) []string {
	var list []string
	for _, m := range []string{"HEAD", "GET", "PUT", "DELETE", "POST"} {
		if slices.ContainsFunc(rows, func(r route) bool { return r.method == m || m == "HEAD" && r.method == "GET" }) {
			list = append(list, m)
		}
	}
	return append(list, "OPTIONS")
}

// resource serves one pattern.
func (s *Server) resource(rows []route) http.Handler {
	allowed := allow(methods(rows))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		i := slices.IndexFunc(rows, func(row route) bool { return row.method == method })
		if i < 0 {
			w.Header().Set("Allow", allowed)
			if r.Method != http.MethodOptions {
				w.WriteHeader(http.StatusMethodNotAllowed)
			}
			return
		}
		req := &request{Request: r, server: s, broker: s.broker, query: r.URL.Query(), w: w}
		value, err := s.serve(w, req, rows[i])
		s.answer(w, req, value, err)
	})
}

// serve checks who asks, and lets the handler answer.
func (s *Server) serve(w http.ResponseWriter, r *request, row route) (any, error) {
	var err error
	if r.params, err = pathParams(r.Request); err != nil {
		return nil, &apiError{status: http.StatusBadRequest}
	}
	if row.access == anybody {
		return row.handler(r)
	}
	if r.user, err = s.login(w, r.Request); err != nil {
		return nil, err
	}
	name, named := r.params["vhost"]
	if named {
		r.vhost = s.broker.VHost(name)
	}
	if err := row.access.check(r); err != nil {
		var e *apiError
		if errors.As(err, &e) {
			s.refused(r.Request, r.userName(), fmt.Sprint(e.reason))
		}
		return nil, err
	}
	s.attempts.count(true)
	if named && r.vhost == nil {
		return nil, errNotFound
	}
	return row.handler(r)
}
