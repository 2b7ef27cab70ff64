package broker

import (
	"cmp"
	"maps"
	"slices"

	"github.com/settmq/settmq/auth"
	"github.com/settmq/settmq/storage"
)

// Permission is what a user may do in a vhost.
type Permission struct {
	User, VHost string
	auth.Permissions
}

// TopicPermission is with which routing keys a user may use an exchange of a vhost.
type TopicPermission struct {
	User, VHost string
	auth.TopicPermission
}

// All returns the accounts, by name.
func (u *Users) All() []*auth.User {
	u.mu.RLock()
	defer u.mu.RUnlock()
	return slices.SortedFunc(maps.Values(u.users), func(a, b *auth.User) int { return cmp.Compare(a.Name, b.Name) })
}

// Permissions returns the permissions that which wants, by user and vhost; nil wants all.
func (u *Users) Permissions(which func(user, vhost string) bool) []Permission {
	u.mu.RLock()
	defer u.mu.RUnlock()
	var list []Permission
	for g, p := range u.permissions {
		if which == nil || which(g.user, g.vhost) {
			list = append(list, Permission{g.user, g.vhost, p})
		}
	}
	slices.SortFunc(list, func(a, b Permission) int {
		return cmp.Or(cmp.Compare(a.User, b.User), cmp.Compare(a.VHost, b.VHost))
	})
	return list
}

// TopicPermissions returns the topic permissions that which wants, by user, vhost and exchange; nil wants all.
func (u *Users) TopicPermissions(which func(user, vhost string) bool) []TopicPermission {
	u.mu.RLock()
	defer u.mu.RUnlock()
	var list []TopicPermission
	for g, rules := range u.topics {
		if which != nil && !which(g.user, g.vhost) {
			continue
		}
		for _, r := range rules {
			list = append(list, TopicPermission{g.user, g.vhost, r.TopicPermission})
		}
	}
	slices.SortFunc(list, func(a, b TopicPermission) int {
		return cmp.Or(cmp.Compare(a.User, b.User), cmp.Compare(a.VHost, b.VHost), cmp.Compare(a.Exchange, b.Exchange))
	})
	return list
}

// RevokeTopic takes the topic permissions of a user in a vhost away: that for one exchange or, for nil, all of them.
func (u *Users) RevokeTopic(user, vhost string, exchange *string) error {
	g := grant{user, vhost}
	err := u.apply(usersChange{commit: func(all *storage.Change) {
		u.topics[g] = slices.DeleteFunc(slices.Clone(u.topics[g]), func(t topicRule) bool {
			gone := exchange == nil || t.Exchange == *exchange
			if gone {
				all.Delete = append(all.Delete, metaKey(keyTopicPermission, user, vhost, t.Exchange))
			}
			return gone
		})
		if len(u.topics[g]) == 0 {
			delete(u.topics, g)
		}
	}})
	if err == nil {
		u.tell("topic.permission.deleted", textField("user", user), textField("vhost", vhost))
	}
	return err
}

// AllLimits returns the limits of every user that has any, by the user's name.
func (u *Users) AllLimits() map[string]map[string]int64 {
	u.mu.RLock()
	defer u.mu.RUnlock()
	all := make(map[string]map[string]int64)
	for name, l := range u.limits {
		all[name] = maps.Clone(l)
	}
	return all
}
