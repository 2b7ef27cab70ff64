package management

import (
	"net/http"
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
	"GET /api/whoami":   managers,
	"GET /health/live":  everybody,
	"GET /health/ready": everybody,
}

var parameter = regexp.MustCompile(`\{[a-z]+\}`)

func TestEveryRouteHasItsRule(t *testing.T) {
	a := newTestAPI(t)
	if _, err := a.broker.CreateVHost("in"); err != nil {
		t.Fatal(err)
	}
	a.user("plain", nil, "in")
	a.user("manager", []string{"management"})
	a.user("insider", []string{"management"}, "in")
	a.user("maker", []string{"policymaker"})
	a.user("inside-maker", []string{"policymaker"}, "in")
	a.user("monitor", []string{"monitoring"})
	a.user("admin", []string{"administrator"}, "in")
	seen := make(map[string]bool)
	for _, r := range routes {
		name := r.method + " " + r.pattern
		seen[name] = true
		who, ok := rules[name]
		if !ok {
			t.Errorf("%s: who may is not written down", name)
			continue
		}
		path := parameter.ReplaceAllStringFunc(r.pattern, func(p string) string {
			if p == "{vhost}" {
				return "in"
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
			refused := status == http.StatusUnauthorized && !strings.Contains(answer, "Access refused.")
			if want := !slices.Contains(strings.Fields(who), user); refused != want {
				t.Errorf("%s as %s: %d %s; refused is %v, want %v", name, user, status, answer, refused, want)
			}
		}
	}
	for name := range rules {
		if !seen[name] {
			t.Errorf("%s is written down and there is no such route", name)
		}
	}
}
