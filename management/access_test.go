package management

import (
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Who may make a request: the users of TestEveryRouteHasItsRule that are let through.
const (
	everybody    = "nobody plain manager insider maker inside-maker monitor admin"
	managers     = "manager insider maker inside-maker monitor admin"
	monitors     = "monitor admin"
	admins       = "admin"
	insiders     = "insider inside-maker admin"
	watchers     = "insider inside-maker monitor admin"
	makers       = "inside-maker admin"
	globalMakers = "maker inside-maker admin"
)

// rules is who may do what; the test fails for a route without a row.
var rules = map[string]string{
	"GET /metrics":                                                            monitors,
	"GET /metrics/per-object":                                                 monitors,
	"GET /metrics/detailed":                                                   monitors,
	"GET /metrics/memory-breakdown":                                           monitors,
	"GET /api/overview":                                                       managers,
	"GET /api/cluster-name":                                                   managers,
	"PUT /api/cluster-name":                                                   admins,
	"GET /api/nodes":                                                          monitors,
	"GET /api/nodes/{node}":                                                   monitors,
	"PUT /api/nodes/{node}/limits":                                            admins,
	"GET /api/nodes/{node}/memory":                                            monitors,
	"GET /api/nodes/{node}/memory/relative":                                   monitors,
	"GET /api/extensions":                                                     managers,
	"GET /api/feature-flags":                                                  managers,
	"PUT /api/feature-flags/{name}/enable":                                    admins,
	"GET /api/deprecated-features":                                            managers,
	"GET /api/deprecated-features/used":                                       managers,
	"GET /api/version":                                                        everybody,
	"GET /api/whoami":                                                         managers,
	"GET /api/auth/hash_password/{password}":                                  admins,
	"GET /api/auth/attempts/{node}":                                           monitors,
	"DELETE /api/auth/attempts/{node}":                                        admins,
	"GET /api/auth/attempts/{node}/source":                                    monitors,
	"DELETE /api/auth/attempts/{node}/source":                                 admins,
	"DELETE /api/reset":                                                       admins,
	"DELETE /api/reset/{node}":                                                admins,
	"POST /api/rebalance/queues":                                              admins,
	"GET /api/definitions":                                                    admins,
	"POST /api/definitions":                                                   admins,
	"GET /api/all-configuration":                                              admins,
	"POST /api/all-configuration":                                             admins,
	"GET /api/definitions/{vhost}":                                            admins,
	"POST /api/definitions/{vhost}":                                           admins,
	"GET /api/shovels":                                                        monitors,
	"GET /api/shovels/{vhost}":                                                monitors,
	"GET /api/federation-links":                                               monitors,
	"GET /api/federation-links/{vhost}":                                       monitors,
	"GET /api/vhosts":                                                         managers,
	"GET /api/vhosts/{vhost}":                                                 admins,
	"PUT /api/vhosts/{vhost}":                                                 admins,
	"DELETE /api/vhosts/{vhost}":                                              admins,
	"POST /api/vhosts/{vhost}/start/{node}":                                   admins,
	"POST /api/vhosts/{vhost}/deletion/protection":                            admins,
	"DELETE /api/vhosts/{vhost}/deletion/protection":                          admins,
	"GET /api/vhosts/{vhost}/permissions":                                     admins,
	"GET /api/vhosts/{vhost}/topic-permissions":                               admins,
	"GET /api/vhost-limits":                                                   managers,
	"GET /api/vhost-limits/{vhost}":                                           watchers,
	"PUT /api/vhost-limits/{vhost}/{name}":                                    admins,
	"DELETE /api/vhost-limits/{vhost}/{name}":                                 admins,
	"GET /api/users":                                                          admins,
	"GET /api/users/without-permissions":                                      admins,
	"POST /api/users/bulk-delete":                                             admins,
	"GET /api/users/{user}":                                                   admins,
	"PUT /api/users/{user}":                                                   admins,
	"DELETE /api/users/{user}":                                                admins,
	"GET /api/users/{user}/permissions":                                       admins,
	"GET /api/users/{user}/topic-permissions":                                 admins,
	"GET /api/users/{user}/queues":                                            managers,
	"GET /api/user-limits":                                                    admins,
	"GET /api/user-limits/{user}":                                             monitors,
	"PUT /api/user-limits/{user}/{name}":                                      admins,
	"DELETE /api/user-limits/{user}/{name}":                                   admins,
	"GET /api/permissions":                                                    admins,
	"GET /api/permissions/{vhost}/{user}":                                     admins,
	"PUT /api/permissions/{vhost}/{user}":                                     admins,
	"DELETE /api/permissions/{vhost}/{user}":                                  admins,
	"GET /api/topic-permissions":                                              admins,
	"GET /api/topic-permissions/{vhost}/{user}":                               admins,
	"PUT /api/topic-permissions/{vhost}/{user}":                               admins,
	"DELETE /api/topic-permissions/{vhost}/{user}":                            admins,
	"GET /api/topic-permissions/{vhost}/{user}/{exchange}":                    admins,
	"DELETE /api/topic-permissions/{vhost}/{user}/{exchange}":                 admins,
	"GET /api/policies":                                                       managers,
	"GET /api/policies/{vhost}":                                               insiders,
	"GET /api/policies/{vhost}/{name}":                                        makers,
	"PUT /api/policies/{vhost}/{name}":                                        makers,
	"DELETE /api/policies/{vhost}/{name}":                                     makers,
	"GET /api/operator-policies":                                              managers,
	"GET /api/operator-policies/{vhost}":                                      insiders,
	"GET /api/operator-policies/{vhost}/{name}":                               admins,
	"PUT /api/operator-policies/{vhost}/{name}":                               admins,
	"DELETE /api/operator-policies/{vhost}/{name}":                            admins,
	"GET /api/parameters":                                                     globalMakers,
	"GET /api/parameters/{component}":                                         globalMakers,
	"GET /api/parameters/{component}/{vhost}":                                 makers,
	"GET /api/parameters/{component}/{vhost}/{name}":                          makers,
	"PUT /api/parameters/{component}/{vhost}/{name}":                          makers,
	"DELETE /api/parameters/{component}/{vhost}/{name}":                       makers,
	"GET /api/global-parameters":                                              globalMakers,
	"GET /api/global-parameters/{name}":                                       globalMakers,
	"PUT /api/global-parameters/{name}":                                       globalMakers,
	"DELETE /api/global-parameters/{name}":                                    globalMakers,
	"GET /api/exchanges":                                                      managers,
	"GET /api/exchanges/{vhost}":                                              insiders,
	"GET /api/exchanges/{vhost}/{exchange}":                                   insiders,
	"PUT /api/exchanges/{vhost}/{exchange}":                                   insiders,
	"DELETE /api/exchanges/{vhost}/{exchange}":                                insiders,
	"POST /api/exchanges/{vhost}/{exchange}/publish":                          insiders,
	"GET /api/exchanges/{vhost}/{exchange}/bindings/source":                   insiders,
	"GET /api/exchanges/{vhost}/{exchange}/bindings/destination":              insiders,
	"GET /api/queues":                                                         managers,
	"GET /api/queues/detailed":                                                managers,
	"GET /api/queues/{vhost}":                                                 insiders,
	"GET /api/queues/{vhost}/{queue}":                                         insiders,
	"PUT /api/queues/{vhost}/{queue}":                                         insiders,
	"DELETE /api/queues/{vhost}/{queue}":                                      insiders,
	"GET /api/queues/{vhost}/{queue}/bindings":                                insiders,
	"DELETE /api/queues/{vhost}/{queue}/contents":                             insiders,
	"POST /api/queues/{vhost}/{queue}/get":                                    insiders,
	"POST /api/queues/{vhost}/{queue}/actions":                                admins,
	"GET /api/bindings":                                                       managers,
	"GET /api/bindings/{vhost}":                                               insiders,
	"GET /api/bindings/{vhost}/e/{source}/{kind}/{destination}":               insiders,
	"POST /api/bindings/{vhost}/e/{source}/{kind}/{destination}":              insiders,
	"GET /api/bindings/{vhost}/e/{source}/{kind}/{destination}/{props}":       insiders,
	"DELETE /api/bindings/{vhost}/e/{source}/{kind}/{destination}/{props}":    insiders,
	"GET /api/connections":                                                    managers,
	"GET /api/connections/username/{user}":                                    monitors,
	"DELETE /api/connections/username/{user}":                                 admins,
	"GET /api/connections/{connection}":                                       managers,
	"DELETE /api/connections/{connection}":                                    managers,
	"GET /api/connections/{connection}/channels":                              managers,
	"GET /api/vhosts/{vhost}/connections":                                     insiders,
	"GET /api/channels":                                                       managers,
	"GET /api/channels/{channel}":                                             managers,
	"GET /api/vhosts/{vhost}/channels":                                        insiders,
	"GET /api/consumers":                                                      managers,
	"GET /api/consumers/{vhost}":                                              watchers,
	"GET /api/health/checks/alarms":                                           managers,
	"GET /api/health/checks/local-alarms":                                     managers,
	"GET /api/health/checks/certificate-expiration/{within}/{unit}":           managers,
	"GET /api/health/checks/port-listener/{port}":                             managers,
	"GET /api/health/checks/protocol-listener/{protocol}":                     managers,
	"GET /api/health/checks/virtual-hosts":                                    managers,
	"GET /api/health/checks/node-is-quorum-critical":                          managers,
	"GET /api/health/checks/metadata-store/initialized":                       managers,
	"GET /api/health/checks/metadata-store/initialized/with-data":             managers,
	"GET /api/health/checks/quorum-queues-without-elected-leaders/all-vhosts": managers,
	"GET /api/health/checks/quorum-queues-without-elected-leaders/all-vhosts/pattern/{pattern}": managers,
	"GET /api/health/checks/quorum-queues-without-elected-leaders/vhost/{in}":                   managers,
	"GET /api/health/checks/quorum-queues-without-elected-leaders/vhost/{in}/pattern/{pattern}": managers,
	"GET /api/health/checks/is-in-service":                                                      everybody,
	"GET /api/health/checks/ready-to-serve-clients":                                             everybody,
	"GET /api/health/checks/below-node-connection-limit":                                        everybody,
	"GET /api/healthchecks/node":                                                                managers,
	"GET /api/healthchecks/node/{node}":                                                         managers,
	"GET /api/aliveness-test/{vhost}":                                                           insiders,
	"GET /health/live":                                                                          everybody,
	"GET /health/ready":                                                                         everybody,
}

var parameter = regexp.MustCompile(`\{[a-z]+\}`)

func TestEveryRouteHasItsRule(t *testing.T) {
	a := newAPI(t)
	a.vhost("in")
	a.user("plain", "", "in")
	a.user("manager", "management")
	a.user("insider", "management", "in")
	a.user("maker", "policymaker")
	a.user("inside-maker", "policymaker", "in")
	a.user("monitor", "monitoring")
	a.user("admin", "administrator", "in")
	node := a.node()
	seen := make(map[string]bool)
	for _, r := range routes {
		name := r.method + " " + r.pattern
		seen[name] = true
		who, ok := rules[name]
		if !ok {
			t.Errorf("%s: who may is not written down", name)
			continue
		}
		if a.broker == nil && strings.HasPrefix(r.pattern, "/health/") {
			continue // ours alone
		}
		path := parameter.ReplaceAllStringFunc(r.pattern, func(p string) string {
			switch p {
			case "{vhost}":
				return "in"
			case "{node}":
				return node
			case "{kind}":
				return "q"
			}
			return "x"
		})
		for _, user := range strings.Fields(everybody) {
			login := user
			if user == "nobody" {
				login = ""
			}
			status, answer := a.as(login, r.method, path, "")
			// Without a right on the thing itself the broker refuses, which is not the rule's doing.
			refused := status == http.StatusUnauthorized && !strings.Contains(answer, "Access refused.") ||
				status == http.StatusNotFound && answer == `{"error":"not_found","reason":"Not Found"}`
			if want := !slices.Contains(strings.Fields(who), user); refused != want {
				t.Errorf("%s as %s: %d %s; refused is %v, want %v", name, user, status, answer, refused, want)
			}
		}
		if name == "DELETE /api/vhosts/{vhost}" {
			a.put("/api/vhosts/in", "")
			for _, user := range []string{"plain", "insider", "inside-maker", "admin"} {
				a.put("/api/permissions/in/"+user, `{"configure":".*","write":".*","read":".*"}`)
			}
		}
	}
	for name := range rules {
		if !seen[name] {
			t.Errorf("%s is written down and there is no such route", name)
		}
	}
}

// What is not in the manual is not there for its readers.
func TestEveryRouteIsInTheManual(t *testing.T) {
	b, err := os.ReadFile("../docs/http-api.md")
	if err != nil {
		t.Fatal(err)
	}
	manual := string(b)
	for _, r := range routes {
		path := strings.TrimPrefix(r.pattern, "/api")
		if strings.HasPrefix(path, "/health/checks/") {
			path = "/health/checks/..."
		}
		if !strings.Contains(manual, "`"+path+"`") {
			t.Errorf("docs/http-api.md does not have %s", path)
		}
	}
}
