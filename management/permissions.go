package management

import (
	"slices"

	"github.com/settmq/settmq/auth"
	"github.com/settmq/settmq/broker"
)

func permissionRow(p broker.Permission) object {
	return object{
		{"user", p.User},
		{"vhost", p.VHost},
		{"configure", p.Configure.String()},
		{"write", p.Write.String()},
		{"read", p.Read.String()},
	}
}

func topicPermissionRow(p broker.TopicPermission) object {
	return object{{"user", p.User}, {"vhost", p.VHost}, {"exchange", p.Exchange}, {"write", p.Write}, {"read", p.Read}}
}

func (r *request) permissionsOf(which func(user, vhost string) bool) *list {
	return listOf(r.broker.Users().Permissions(which), nil, permissionRow).sortedBy("vhost", "user").unpaged()
}

func (r *request) topicPermissionsOf(which func(user, vhost string) bool) *list {
	return listOf(r.broker.Users().TopicPermissions(which), nil, topicPermissionRow).sortedBy("vhost", "user").unpaged()
}

func listPermissions(r *request) (any, error)      { return r.permissionsOf(nil), nil }
func listTopicPermissions(r *request) (any, error) { return r.topicPermissionsOf(nil), nil }

func listVHostPermissions(r *request) (any, error) {
	return r.permissionsOf(func(_, vhost string) bool { return vhost == r.vhost.Name() }), nil
}

func listVHostTopicPermissions(r *request) (any, error) {
	return r.topicPermissionsOf(func(_, vhost string) bool { return vhost == r.vhost.Name() }), nil
}

func listUserPermissions(r *request) (any, error) {
	u, err := r.namedUser()
	if err != nil {
		return nil, err
	}
	return r.permissionsOf(func(user, _ string) bool { return user == u.Name }), nil
}

func listUserTopicPermissions(r *request) (any, error) {
	u, err := r.namedUser()
	if err != nil {
		return nil, err
	}
	return r.topicPermissionsOf(func(user, _ string) bool { return user == u.Name }), nil
}

// here picks what belongs to the user and the vhost of the path.
func (r *request) here(user, vhost string) bool {
	return user == r.param("user") && vhost == r.vhost.Name()
}

func getPermission(r *request) (any, error) {
	if p := r.broker.Users().Permissions(r.here); len(p) > 0 {
		return permissionRow(p[0]), nil
	}
	return nil, errNotFound
}

// grantee is the vhost and the user of the path, to give a right to.
func (r *request) grantee() (user, vhost string, err error) {
	user, vhost = r.param("user"), r.param("vhost")
	if r.broker.VHost(vhost) == nil || r.broker.Users().User(user) == nil {
		return "", "", badRequest("vhost_or_user_not_found")
	}
	return user, vhost, nil
}

func putPermission(r *request) (any, error) {
	user, vhost, err := r.grantee()
	if err != nil {
		return nil, err
	}
	o, err := r.decode("configure", "write", "read")
	if err != nil {
		return nil, err
	}
	patterns, err := o.patterns("configure", "write", "read")
	if err != nil {
		return nil, err
	}
	created := !r.broker.Users().MayEnter(user, vhost)
	return put(created), r.broker.Users().Grant(user, vhost, auth.Permissions{Configure: patterns[0], Write: patterns[1], Read: patterns[2]})
}

// patterns compiles the regular expressions under keys.
func (o body) patterns(keys ...string) ([]*auth.Pattern, error) {
	list := make([]*auth.Pattern, len(keys))
	for i, key := range keys {
		text, err := o.text(key, "")
		if err != nil {
			return nil, err
		}
		if list[i], err = auth.CompilePattern(text); err != nil {
			return nil, badRequest([]any{"invalid_regexp", text, err.Error()})
		}
	}
	return list, nil
}

func deletePermission(r *request) (any, error) {
	if len(r.broker.Users().Permissions(r.here)) == 0 {
		return nil, errNotFound
	}
	return noContent, r.broker.Users().Revoke(r.param("user"), r.vhost.Name())
}

// getTopicPermission lists the topic permissions that the path names: of all exchanges, or of one.
func getTopicPermission(r *request) (any, error) {
	list := r.broker.Users().TopicPermissions(r.here)
	if len(list) == 0 {
		return nil, errNotFound
	}
	if _, one := r.params["exchange"]; one {
		list = slices.DeleteFunc(list, func(p broker.TopicPermission) bool { return p.Exchange != r.exchange("exchange") })
	}
	return listOf(list, nil, topicPermissionRow).sortedBy("exchange").unpaged(), nil
}

func putTopicPermission(r *request) (any, error) {
	user, vhost, err := r.grantee()
	if err != nil {
		return nil, err
	}
	o, err := r.decode("exchange", "write", "read")
	if err != nil {
		return nil, err
	}
	exchange, err := o.text("exchange", "")
	if err != nil {
		return nil, err
	}
	patterns, err := o.patterns("write", "read")
	if err != nil {
		return nil, err
	}
	if exchange == auth.DefaultExchange {
		exchange = ""
	}
	if v := r.broker.VHost(vhost); v != nil && v.Exchange(exchange) == nil {
		return nil, badRequest([]any{"no_such_exchange", exchange})
	}
	t := auth.TopicPermission{Exchange: exchange, Write: patterns[0].String(), Read: patterns[1].String()}
	if err := t.Validate(); err != nil {
		return nil, badRequest(err.Error())
	}
	created := true
	for _, p := range r.broker.Users().TopicPermissions(func(u, v string) bool { return u == user && v == vhost }) {
		created = created && p.Exchange != exchange
	}
	return put(created), r.broker.Users().GrantTopic(user, vhost, t)
}

func deleteTopicPermission(r *request) (any, error) {
	if len(r.broker.Users().TopicPermissions(r.here)) == 0 {
		return nil, errNotFound
	}
	var one *string
	if _, named := r.params["exchange"]; named {
		name := r.exchange("exchange")
		one = &name
	}
	return noContent, r.broker.Users().RevokeTopic(r.param("user"), r.vhost.Name(), one)
}
