package management

import (
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/settmq/settmq/broker"
)

// handler answers a request that its rule lets through.
type handler func(*request) (any, error)

// route is one way in. In a pattern, {vhost} is a vhost that must exist: handlers find it in request.vhost.
type route struct {
	method  string
	pattern string
	access  access
	handler handler
	// anyVHost says that the vhost need not exist: request.vhost is nil then.
	anyVHost bool
}

// routes is everything there is. HEAD is served where GET is; other methods than those listed for a path are refused
// with 405, OPTIONS is answered for all.
var routes = []route{
	{"GET", "/api/overview", management, overview, false},
	{"GET", "/api/cluster-name", management, getClusterName, false},
	{"PUT", "/api/cluster-name", administrator, putClusterName, false},
	{"GET", "/api/nodes", monitoring, listNodes, false},
	{"GET", "/api/nodes/{node}", monitoring, getNode, false},
	{"PUT", "/api/nodes/{node}/limits", administrator, putNodeLimits, false},
	{"GET", "/api/nodes/{node}/memory", monitoring, nodeMemory, false},
	{"GET", "/api/nodes/{node}/memory/relative", monitoring, nodeMemoryShares, false},
	{"GET", "/api/extensions", management, extensions, false},
	{"GET", "/api/feature-flags", management, featureFlags, false},
	{"PUT", "/api/feature-flags/{name}/enable", administrator, enableFeatureFlag, false},
	{"GET", "/api/deprecated-features", management, deprecatedFeatures, false},
	{"GET", "/api/deprecated-features/used", management, usedDeprecatedFeatures, false},
	{"GET", "/api/version", anybody, version, false},
	{"GET", "/api/whoami", management, whoami, false},
	{"GET", "/api/auth/hash_password/{password}", administrator, hashPassword, false},
	{"GET", "/api/auth/attempts/{node}", monitoring, loginAttempts, false},
	{"DELETE", "/api/auth/attempts/{node}", administrator, forgetLoginAttempts, false},
	{"GET", "/api/auth/attempts/{node}/source", monitoring, loginAttemptsBySource, false},
	{"DELETE", "/api/auth/attempts/{node}/source", administrator, forgetLoginAttempts, false},
	{"DELETE", "/api/reset", administrator, resetStatistics, false},
	{"DELETE", "/api/reset/{node}", administrator, resetStatistics, false},
	{"POST", "/api/rebalance/queues", administrator, rebalance, false},

	{"GET", "/api/definitions", administrator, getDefinitions, false},
	{"POST", "/api/definitions", administrator, postDefinitions, false},
	{"GET", "/api/all-configuration", administrator, getDefinitions, false},
	{"POST", "/api/all-configuration", administrator, postDefinitions, false},
	{"GET", "/api/definitions/{vhost}", administrator, getVHostDefinitions, true},
	{"POST", "/api/definitions/{vhost}", administrator, postVHostDefinitions, false},

	{"GET", "/api/shovels", monitoring, nothing, false},
	{"GET", "/api/shovels/{vhost}", monitoring, nothing, false},
	{"GET", "/api/federation-links", monitoring, nothing, false},
	{"GET", "/api/federation-links/{vhost}", monitoring, nothing, false},

	{"GET", "/api/vhosts", management, listVHosts, false},
	{"GET", "/api/vhosts/{vhost}", administrator, getVHost, false},
	{"PUT", "/api/vhosts/{vhost}", administrator, putVHost, true},
	{"DELETE", "/api/vhosts/{vhost}", administrator, deleteVHost, false},
	{"POST", "/api/vhosts/{vhost}/start/{node}", administrator, startVHost, false},
	{"POST", "/api/vhosts/{vhost}/deletion/protection", administrator, protectVHost, false},
	{"DELETE", "/api/vhosts/{vhost}/deletion/protection", administrator, unprotectVHost, false},
	{"GET", "/api/vhosts/{vhost}/permissions", administrator, listVHostPermissions, false},
	{"GET", "/api/vhosts/{vhost}/topic-permissions", administrator, listVHostTopicPermissions, false},
	{"GET", "/api/vhost-limits", management, listVHostLimits, false},
	{"GET", "/api/vhost-limits/{vhost}", monitorsVHost, listVHostLimits, false},
	{"PUT", "/api/vhost-limits/{vhost}/{name}", administrator, putVHostLimit, false},
	{"DELETE", "/api/vhost-limits/{vhost}/{name}", administrator, deleteVHostLimit, false},

	{"GET", "/api/users", administrator, listUsers, false},
	{"GET", "/api/users/without-permissions", administrator, listUsersWithout, false},
	{"POST", "/api/users/bulk-delete", administrator, deleteUsers, false},
	{"GET", "/api/users/{user}", administrator, getUser, false},
	{"PUT", "/api/users/{user}", administrator, putUser, false},
	{"DELETE", "/api/users/{user}", administrator, deleteUser, false},
	{"GET", "/api/users/{user}/permissions", administrator, listUserPermissions, false},
	{"GET", "/api/users/{user}/topic-permissions", administrator, listUserTopicPermissions, false},
	{"GET", "/api/users/{user}/queues", management, listQueuesOfUser, false},
	{"GET", "/api/user-limits", administrator, listUserLimits, false},
	{"GET", "/api/user-limits/{user}", monitoring, listLimitsOfUser, false},
	{"PUT", "/api/user-limits/{user}/{name}", administrator, putUserLimit, false},
	{"DELETE", "/api/user-limits/{user}/{name}", administrator, deleteUserLimit, false},
	{"GET", "/api/permissions", administrator, listPermissions, false},
	{"GET", "/api/permissions/{vhost}/{user}", administrator, getPermission, false},
	{"PUT", "/api/permissions/{vhost}/{user}", administrator, putPermission, true},
	{"DELETE", "/api/permissions/{vhost}/{user}", administrator, deletePermission, false},
	{"GET", "/api/topic-permissions", administrator, listTopicPermissions, false},
	{"GET", "/api/topic-permissions/{vhost}/{user}", administrator, getTopicPermission, false},
	{"PUT", "/api/topic-permissions/{vhost}/{user}", administrator, putTopicPermission, true},
	{"DELETE", "/api/topic-permissions/{vhost}/{user}", administrator, deleteTopicPermission, false},
	{"GET", "/api/topic-permissions/{vhost}/{user}/{exchange}", administrator, getTopicPermission, false},
	{"DELETE", "/api/topic-permissions/{vhost}/{user}/{exchange}", administrator, deleteTopicPermission, false},

	{"GET", "/api/policies", management, listPolicies(broker.UserPolicy), false},
	{"GET", "/api/policies/{vhost}", inVHost, listPolicies(broker.UserPolicy), false},
	{"GET", "/api/policies/{vhost}/{name}", policymaker, getPolicy(broker.UserPolicy), false},
	{"PUT", "/api/policies/{vhost}/{name}", policymaker, putPolicy(broker.UserPolicy), false},
	{"DELETE", "/api/policies/{vhost}/{name}", policymaker, deletePolicy(broker.UserPolicy), false},
	{"GET", "/api/operator-policies", management, listPolicies(broker.OperatorPolicy), false},
	{"GET", "/api/operator-policies/{vhost}", inVHost, listPolicies(broker.OperatorPolicy), false},
	{"GET", "/api/operator-policies/{vhost}/{name}", administrator, getPolicy(broker.OperatorPolicy), false},
	{"PUT", "/api/operator-policies/{vhost}/{name}", administrator, putPolicy(broker.OperatorPolicy), false},
	{"DELETE", "/api/operator-policies/{vhost}/{name}", administrator, deletePolicy(broker.OperatorPolicy), false},
	{"GET", "/api/parameters", policymaker, listParameters, false},
	{"GET", "/api/parameters/{component}", policymaker, listParameters, false},
	{"GET", "/api/parameters/{component}/{vhost}", policymaker, listParameters, false},
	{"GET", "/api/parameters/{component}/{vhost}/{name}", policymaker, getParameter, false},
	{"PUT", "/api/parameters/{component}/{vhost}/{name}", policymaker, putParameter, false},
	{"DELETE", "/api/parameters/{component}/{vhost}/{name}", policymaker, deleteParameter, false},
	{"GET", "/api/global-parameters", globalParameters, listGlobals, false},
	{"GET", "/api/global-parameters/{name}", globalParameters, getGlobal, false},
	{"PUT", "/api/global-parameters/{name}", globalParameters, putGlobal, false},
	{"DELETE", "/api/global-parameters/{name}", globalParameters, deleteGlobal, false},

	{"GET", "/api/exchanges", management, listExchanges, false},
	{"GET", "/api/exchanges/{vhost}", inVHost, listExchanges, false},
	{"GET", "/api/exchanges/{vhost}/{exchange}", inVHost, getExchange, false},
	{"PUT", "/api/exchanges/{vhost}/{exchange}", inVHost, putExchange, false},
	{"DELETE", "/api/exchanges/{vhost}/{exchange}", inVHost, deleteExchange, false},
	{"POST", "/api/exchanges/{vhost}/{exchange}/publish", inVHost, publish, false},
	{"GET", "/api/exchanges/{vhost}/{exchange}/bindings/source", inVHost, listBindingsFrom, false},
	{"GET", "/api/exchanges/{vhost}/{exchange}/bindings/destination", inVHost, listBindingsTo, false},

	{"GET", "/api/queues", management, listQueues, false},
	{"GET", "/api/queues/detailed", management, listQueues, false},
	{"GET", "/api/queues/{vhost}", inVHost, listQueues, false},
	{"GET", "/api/queues/{vhost}/{queue}", inVHost, getQueue, false},
	{"PUT", "/api/queues/{vhost}/{queue}", inVHost, putQueue, false},
	{"DELETE", "/api/queues/{vhost}/{queue}", inVHost, deleteQueue, false},
	{"GET", "/api/queues/{vhost}/{queue}/bindings", inVHost, listQueueBindings, false},
	{"DELETE", "/api/queues/{vhost}/{queue}/contents", inVHost, purgeQueue, false},
	{"POST", "/api/queues/{vhost}/{queue}/get", inVHost, getMessages, false},
	{"POST", "/api/queues/{vhost}/{queue}/actions", administrator, actOnQueue, false},

	{"GET", "/api/bindings", management, listBindings, false},
	{"GET", "/api/bindings/{vhost}", inVHost, listBindings, false},
	{"GET", "/api/bindings/{vhost}/e/{source}/{kind}/{destination}", inVHost, listBindingsBetween, false},
	{"POST", "/api/bindings/{vhost}/e/{source}/{kind}/{destination}", inVHost, bind, false},
	{"GET", "/api/bindings/{vhost}/e/{source}/{kind}/{destination}/{props}", inVHost, getBinding, false},
	{"DELETE", "/api/bindings/{vhost}/e/{source}/{kind}/{destination}/{props}", inVHost, unbind, false},

	{"GET", "/api/connections", management, listConnections, false},
	{"GET", "/api/connections/username/{user}", owner, listConnectionsOf, false},
	{"DELETE", "/api/connections/username/{user}", owner, closeConnectionsOf, false},
	{"GET", "/api/connections/{connection}", owner, getConnection, false},
	{"DELETE", "/api/connections/{connection}", owner, closeConnection, false},
	{"GET", "/api/connections/{connection}/channels", owner, listChannelsOfConnection, false},
	{"GET", "/api/vhosts/{vhost}/connections", inVHost, listConnections, false},
	{"GET", "/api/channels", management, listChannels, false},
	{"GET", "/api/channels/{channel}", owner, getChannel, false},
	{"GET", "/api/vhosts/{vhost}/channels", inVHost, listChannels, false},
	{"GET", "/api/consumers", management, listConsumers, false},
	{"GET", "/api/consumers/{vhost}", monitorsVHost, listConsumers, false},

	{"GET", "/api/health/checks/alarms", management, checkAlarms("There are alarms in effect in the cluster"), false},
	{"GET", "/api/health/checks/local-alarms", management, checkAlarms("There are alarms in effect on the node"), false},
	{"GET", "/api/health/checks/certificate-expiration/{within}/{unit}", management, checkCertificates, false},
	{"GET", "/api/health/checks/port-listener/{port}", management, checkPort, false},
	{"GET", "/api/health/checks/protocol-listener/{protocol}", management, checkProtocol, false},
	{"GET", "/api/health/checks/virtual-hosts", management, checkOK, false},
	{"GET", "/api/health/checks/node-is-quorum-critical", management, checkQuorum, false},
	{"GET", "/api/health/checks/metadata-store/initialized", management, checkOK, false},
	{"GET", "/api/health/checks/metadata-store/initialized/with-data", management, checkOK, false},
	{"GET", "/api/health/checks/quorum-queues-without-elected-leaders/all-vhosts", management, checkOK, false},
	{"GET", "/api/health/checks/quorum-queues-without-elected-leaders/all-vhosts/pattern/{pattern}", management, checkOK, false},
	{"GET", "/api/health/checks/quorum-queues-without-elected-leaders/vhost/{in}", management, checkOK, false},
	{"GET", "/api/health/checks/quorum-queues-without-elected-leaders/vhost/{in}/pattern/{pattern}", management, checkOK, false},
	{"GET", "/api/health/checks/is-in-service", anybody, checkService, false},
	{"GET", "/api/health/checks/ready-to-serve-clients", anybody, checkService, false},
	{"GET", "/api/health/checks/below-node-connection-limit", anybody, checkConnectionLimit, false},
	{"GET", "/api/healthchecks/node", management, checkOK, false},
	{"GET", "/api/healthchecks/node/{node}", management, checkNode, false},
	{"GET", "/api/aliveness-test/{vhost}", inVHost, checkOK, false},

	{"GET", "/metrics", monitoring, metrics, false},
	{"GET", "/metrics/per-object", monitoring, metrics, false},
	{"GET", "/metrics/detailed", monitoring, metrics, false},
	{"GET", "/metrics/memory-breakdown", monitoring, metrics, false},

	{"GET", "/health/live", anybody, healthLive, false},
	{"GET", "/health/ready", anybody, healthReady, false},
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

// routeOf is the pattern of the route that a request took: paths have passwords in them.
func routeOf(r *http.Request) string {
	if c := chi.RouteContext(r.Context()); c != nil {
		return c.RoutePattern()
	}
	return ""
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
	s.log.Error().Interface("panic", p).Bytes("stack", debug.Stack()).Str("method", r.Method).Str("route", routeOf(r)).Msg("request failed")
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
	s.broker.Users().CountLogin("http", true)
	switch {
	case !named || r.vhost != nil || row.anyVHost:
	case r.Method == http.MethodPut || r.Method == http.MethodPost:
		return nil, errNoVHost
	default:
		return nil, errNotFound
	}
	if err := r.checkWindows(); err != nil {
		return nil, err
	}
	return row.handler(r)
}
