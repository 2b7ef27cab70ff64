package auth

import (
	"fmt"
	"regexp"
	"strings"
)

// DefaultExchange is the name under which permissions see the default exchange, whose real name is "".
// Without it a user with the pattern "" (nothing) could publish to every queue.
const DefaultExchange = "amq.default"

// Access is what somebody wants to do with an exchange or a queue.
type Access uint8

// The three kinds of access.
const (
	Configure Access = iota + 1 // declare and delete
	Write                       // publish, and be the destination of a binding
	Read                        // consume, get, purge, and be the source of a binding
)

// String is the word used in error texts: "configure", "write", "read".
func (a Access) String() string {
	switch a {
	case Configure:
		return "configure"
	case Write:
		return "write"
	case Read:
		return "read"
	}
	return "no"
}

// Permissions are the rights of one user in one vhost. The zero value grants nothing.
type Permissions struct {
	Configure, Write, Read *Pattern
}

// CompilePermissions compiles the three pattern texts. The error names the one that is wrong.
func CompilePermissions(configure, write, read string) (Permissions, error) {
	var p Permissions
	for _, f := range []struct {
		name, text string
		to         **Pattern
	}{
		{"configure", configure, &p.Configure},
		{"write", write, &p.Write},
		{"read", read, &p.Read},
	} {
		c, err := CompilePattern(f.text)
		if err != nil {
			return Permissions{}, fmt.Errorf("%s: %w", f.name, err)
		}
		*f.to = c
	}
	return p, nil
}

// Allows reports whether the access to the thing of that name is granted. The default exchange must be
// asked for as DefaultExchange.
func (p Permissions) Allows(a Access, name string) bool {
	switch a {
	case Configure:
		return p.Configure.Match(name)
	case Write:
		return p.Write.Match(name)
	case Read:
		return p.Read.Match(name)
	}
	return false
}

// AllowsAny reports whether any of the three is granted: the rule for passive declares.
func (p Permissions) AllowsAny(name string) bool {
	return p.Configure.Match(name) || p.Write.Match(name) || p.Read.Match(name)
}

// TopicPermission narrows the routing keys one user may use with one exchange of a vhost. It applies
// to topic exchanges only, and only where one exists for the exchange. The texts may hold {username},
// {vhost} and {client_id}.
type TopicPermission struct {
	Exchange    string
	Write, Read string
}

// Variables are the values for the placeholders of a topic permission. Empty ones are unknown, and
// their placeholders stay as they are: the pattern then matches only their literal text.
type Variables struct {
	Username, VHost, ClientID string
}

// TopicRules is a topic permission made ready for one connection.
type TopicRules struct {
	Write, Read *Pattern
}

// Compile fills in the variables and compiles both patterns. Values stand for themselves: a user named
// ".*" does not gain the right to everything.
func (t TopicPermission) Compile(v Variables) (TopicRules, error) {
	write, err := CompilePattern(v.expand(t.Write))
	if err != nil {
		return TopicRules{}, fmt.Errorf("write: %w", err)
	}
	read, err := CompilePattern(v.expand(t.Read))
	if err != nil {
		return TopicRules{}, fmt.Errorf("read: %w", err)
	}
	return TopicRules{Write: write, Read: read}, nil
}

// Validate reports whether the texts compile, for use when a topic permission is set.
func (t TopicPermission) Validate() error {
	_, err := t.Compile(Variables{Username: "u", VHost: "v", ClientID: "c"})
	return err
}

// Match reports whether a routing key may be used for Write (publish, bind as destination) or Read. It
// compiles on every call; who asks often keeps the result of Compile.
func (t TopicPermission) Match(a Access, routingKey string, v Variables) bool {
	r, err := t.Compile(v)
	return err == nil && r.Allows(a, routingKey)
}

// Allows reports whether a routing key may be used; Configure never applies to routing keys.
func (r TopicRules) Allows(a Access, routingKey string) bool {
	switch a {
	case Write:
		return r.Write.Match(routingKey)
	case Read:
		return r.Read.Match(routingKey)
	}
	return false
}

func (v Variables) expand(text string) string {
	if !strings.Contains(text, "{") {
		return text
	}
	// One pass over the text, so that a value is never searched for placeholders.
	var pairs []string
	for _, p := range [...][2]string{{"{username}", v.Username}, {"{vhost}", v.VHost}, {"{client_id}", v.ClientID}} {
		if p[1] != "" {
			pairs = append(pairs, p[0], regexp.QuoteMeta(p[1]))
		}
	}
	return strings.NewReplacer(pairs...).Replace(text)
}
