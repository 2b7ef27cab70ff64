package definitions

import (
	"slices"
	"strings"

	"github.com/settmq/settmq/auth"
)

// sections are the lists of a file that we read, and how one element of each is read.
var sections = map[string]func(*object){
	"users":             (*object).readUser,
	"vhosts":            (*object).readVHost,
	"permissions":       (*object).readPermission,
	"topic_permissions": (*object).readTopicPermission,
	"exchanges":         (*object).readExchange,
	"queues":            (*object).readQueue,
	"bindings":          (*object).readBinding,
	"policies":          (*object).readPolicy,
	"parameters":        (*object).readParameter,
	"global_parameters": (*object).readGlobalParameter,
}

func (o *object) readUser() {
	u := User{Limits: o.limits("limits")}
	u.Name = o.name("name")
	u.Tags = o.tags("tags")
	o.p.once(o, "users", u.Name)
	at := len(o.p.defs.Users)
	o.p.defs.Users = append(o.p.defs.Users, u)
	// The algorithm of old files follows from the version, which may stand behind the users.
	o.p.late = append(o.p.late, func() { o.readPassword(&o.p.defs.Users[at]) })
}

// readPassword takes the hash, or hashes a password in clear. Neither, or an empty hash, is a user
// that no password lets in; its algorithm may be null.
func (o *object) readPassword(u *User) {
	algorithm, hash := o.text("hashing_algorithm", ""), o.text("password_hash", "")
	switch {
	case hash != "":
		if algorithm == "" {
			algorithm = defaultAlgorithm(o.p.defs.Version)
		}
		if strings.HasSuffix(strings.ToLower(algorithm), "bcrypt") {
			algorithm = auth.Bcrypt
		}
		raw, err := auth.DecodeHash(algorithm, hash)
		if err != nil {
			o.problem("password_hash", "%v", err)
			return
		}
		u.PasswordHash, u.Algorithm = raw, algorithm
	case o.text("password", "") != "":
		raw, err := auth.HashPassword(o.text("password", ""))
		if err != nil {
			o.problem("password", "%v", err)
			return
		}
		u.PasswordHash, u.Algorithm = raw, auth.SHA256
	}
}

// defaultAlgorithm is the one RabbitMQ used before it wrote it down, which it does since 3.6.1.
func defaultAlgorithm(version string) string {
	for _, old := range []string{"1.", "2.", "3.0.", "3.1.", "3.2.", "3.3.", "3.4.", "3.5."} {
		if strings.HasPrefix(version, old) {
			return auth.MD5
		}
	}
	return auth.SHA256
}

func (o *object) readVHost() {
	v := o.vhostFields()
	v.Name = o.name("name")
	o.p.once(o, "vhosts", v.Name)
	o.p.defs.VHosts = append(o.p.defs.VHosts, v)
}

// vhostFields reads what describes a vhost; newer files have it in an object of its own.
func (o *object) vhostFields() VHost {
	v := VHost{Limits: o.limits("limits"), Tracing: o.flag("tracing", false)}
	from := []*object{o}
	if o.has("metadata") && !isEmptyList(o.fields["metadata"]) {
		if inner, ok := o.p.object(o.at("metadata"), o.fields["metadata"]); ok {
			from = append(from, inner)
		}
	}
	for _, o := range from {
		v.Description = o.text("description", v.Description)
		if o.has("tags") {
			v.Tags = o.tags("tags")
		}
		// "undefined" is Erlang's null.
		if t := o.text("default_queue_type", ""); t != "" && t != "undefined" {
			v.DefaultQueueType = t
		}
	}
	return v
}

func (o *object) readPermission() {
	p := Permission{User: o.name("user"), VHost: o.vhost()}
	for _, f := range []struct {
		key string
		to  **auth.Pattern
	}{{"configure", &p.Configure}, {"write", &p.Write}, {"read", &p.Read}} {
		c, err := auth.CompilePattern(o.text(f.key, ""))
		if err != nil {
			o.problem(f.key, "%v", err)
		}
		*f.to = c
	}
	o.p.once(o, "permissions", p.VHost, p.User)
	o.p.defs.Permissions = append(o.p.defs.Permissions, p)
}

func (o *object) readTopicPermission() {
	t := TopicPermission{User: o.name("user"), VHost: o.vhost()}
	t.Exchange = o.shortText("exchange")
	t.Write, t.Read = o.text("write", ""), o.text("read", "")
	if err := t.Validate(); err != nil {
		o.p.problem(o.path, "%v", err)
	}
	o.p.once(o, "topic_permissions", t.VHost, t.User, t.Exchange)
	o.p.defs.TopicPermissions = append(o.p.defs.TopicPermissions, t)
}

func (o *object) readExchange() {
	e := Exchange{
		VHost: o.vhost(), Name: o.name("name"), Type: o.name("type"),
		Durable: o.flag("durable", true), AutoDelete: o.flag("auto_delete", false), Internal: o.flag("internal", false),
		Arguments: o.arguments(),
	}
	o.p.once(o, "exchanges", e.VHost, e.Name)
	o.p.defs.Exchanges = append(o.p.defs.Exchanges, e)
}

func (o *object) readQueue() {
	q := Queue{
		VHost: o.vhost(), Name: o.name("name"), Type: o.shortText("type"),
		Durable: o.flag("durable", true), AutoDelete: o.flag("auto_delete", false),
		Arguments: o.arguments(),
	}
	o.p.once(o, "queues", q.VHost, q.Name)
	o.p.defs.Queues = append(o.p.defs.Queues, q)
}

func (o *object) readBinding() {
	b := Binding{
		VHost: o.vhost(), Source: o.name("source"), Destination: o.name("destination"),
		RoutingKey: o.shortText("routing_key"), Arguments: o.arguments(),
	}
	switch kind := o.text("destination_type", "queue"); kind {
	case "queue":
	case "exchange":
		b.ToExchange = true
	default:
		o.problem("destination_type", "%q is neither queue nor exchange", kind)
	}
	o.p.defs.Bindings = append(o.p.defs.Bindings, b)
}

var applyTo = []string{"all", "queues", "exchanges", "classic_queues", "quorum_queues", "streams"}

func (o *object) readPolicy() {
	p := Policy{
		VHost: o.vhost(), Name: o.name("name"), Pattern: o.text("pattern", ""),
		ApplyTo: o.text("apply-to", "all"), Priority: o.number("priority", 0), Definition: o.value("definition"),
	}
	if _, err := auth.CompilePattern(p.Pattern); err != nil {
		o.problem("pattern", "%v", err)
	}
	if !slices.Contains(applyTo, p.ApplyTo) {
		o.problem("apply-to", "%q is not one of %s", p.ApplyTo, strings.Join(applyTo, ", "))
	}
	if p.Definition != nil && p.Definition[0] != '{' {
		o.problem("definition", "an object is needed")
	}
	o.p.once(o, "policies", p.VHost, p.Name)
	o.p.defs.Policies = append(o.p.defs.Policies, p)
}

func (o *object) readParameter() {
	p := Parameter{VHost: o.vhost(), Component: o.name("component"), Name: o.name("name"), Value: o.value("value")}
	o.p.once(o, "parameters", p.VHost, p.Component, p.Name)
	o.p.defs.Parameters = append(o.p.defs.Parameters, p)
}

func (o *object) readGlobalParameter() {
	p := GlobalParameter{Name: o.name("name"), Value: o.value("value")}
	o.p.once(o, "global_parameters", p.Name)
	o.p.defs.GlobalParameters = append(o.p.defs.GlobalParameters, p)
}
