package auth

import (
	"errors"
	"strings"
	"testing"
)

func TestEachAccessHasItsOwnPattern(t *testing.T) {
	p, err := CompilePermissions("^c", "^w", "^r")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"c1", "w1", "r1", "x1"} {
		for _, a := range []Access{Configure, Write, Read, 0, 9} {
			want := name[0] == a.String()[0] && a >= Configure && a <= Read
			if got := p.Allows(a, name); got != want {
				t.Errorf("%s %s: %t, want %t", a, name, got, want)
			}
		}
		if got := p.AllowsAny(name); got != (name != "x1") {
			t.Errorf("any %s: %t", name, got)
		}
	}
}

func TestZeroPermissionsGrantNothing(t *testing.T) {
	var p Permissions
	for _, a := range []Access{Configure, Write, Read} {
		if p.Allows(a, "") || p.Allows(a, "a") {
			t.Errorf("%s granted", a)
		}
	}
	if p.AllowsAny("") {
		t.Error("any granted")
	}
}

// The user whose write pattern is "" must not be able to publish through the default exchange.
func TestEmptyPatternDoesNotGrantTheDefaultExchange(t *testing.T) {
	p, _ := CompilePermissions("", "", "")
	if p.Allows(Write, DefaultExchange) {
		t.Error("granted")
	}
}

func TestCompilePermissionsNamesTheBadOne(t *testing.T) {
	for i, want := range []string{"configure", "write", "read"} {
		text := []string{".*", ".*", ".*"}
		text[i] = "("
		_, err := CompilePermissions(text[0], text[1], text[2])
		if !errors.Is(err, ErrBadPattern) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("error %v, want one about %s", err, want)
		}
	}
}

func TestTopicPermissionFillsInVariables(t *testing.T) {
	tp := TopicPermission{Exchange: "amq.topic", Write: "^{username}\\.{vhost}\\.", Read: "^{client_id}$"}
	v := Variables{Username: "bob", VHost: "shop", ClientID: "c.1"}
	for _, tc := range []struct {
		a    Access
		key  string
		want bool
	}{
		{Write, "bob.shop.x", true},
		{Write, "eve.shop.x", false},
		{Write, "{username}.{vhost}.", false},
		{Read, "c.1", true},
		{Read, "cx1", false}, // the dot of the client id stands for itself
		{Configure, "bob.shop.x", false},
	} {
		if got := tp.Match(tc.a, tc.key, v); got != tc.want {
			t.Errorf("%s %q: %t, want %t", tc.a, tc.key, got, tc.want)
		}
	}
}

func TestVariablesCannotWidenAPattern(t *testing.T) {
	tp := TopicPermission{Write: "^{username}$", Read: "^{username}-{vhost}$"}
	for _, name := range []string{".*", "a|b", "x$|^", "(", "[", "\\", "{vhost}"} {
		v := Variables{Username: name, VHost: "v"}
		if !tp.Match(Write, name, v) {
			t.Errorf("user %q may not use its own name", name)
		}
		if tp.Match(Write, "other", v) || tp.Match(Write, "a", v) || tp.Match(Write, "v", v) {
			t.Errorf("user %q may use another name", name)
		}
	}
	if tp.Match(Read, "v-v", Variables{Username: "{vhost}", VHost: "v"}) {
		t.Error("a value was searched for placeholders")
	}
}

func TestUnknownVariableMatchesOnlyItsText(t *testing.T) {
	tp := TopicPermission{Write: "^{client_id}\\."}
	v := Variables{Username: "bob", VHost: "/"}
	if tp.Match(Write, ".x", v) || tp.Match(Write, "bob.x", v) {
		t.Error("an unknown client id matches as if it were empty")
	}
}

func TestTopicPermissionValidate(t *testing.T) {
	if err := (TopicPermission{Write: ".*", Read: "^{username}(?!x)"}).Validate(); err != nil {
		t.Error(err)
	}
	for _, tp := range []TopicPermission{{Write: "("}, {Read: "[{username}"}} {
		if err := tp.Validate(); !errors.Is(err, ErrBadPattern) {
			t.Errorf("%+v: error %v", tp, err)
		}
		if tp.Match(Write, "", Variables{}) && tp.Match(Read, "", Variables{}) {
			t.Errorf("%+v grants", tp)
		}
	}
}
