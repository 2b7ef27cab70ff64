package broker

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/auth"
	"github.com/settmq/settmq/storage"
)

// Users are the accounts of the broker and their rights. Users, permissions and topic
// permissions never change in place: a change puts a new value in the map, so what a
// caller got stays valid. All methods may be called from any goroutine; changes are on
// disk when they return.
type Users struct {
	store *storage.Store
	// loopback lists the users that may log in from this machine only.
	loopback []string
	// tell tells of changes to whoever listens to events.
	tell func(event string, fields ...amqp.Field)

	mu          sync.RWMutex
	users       map[string]*auth.User
	permissions map[grant]auth.Permissions
	topics      map[grant][]topicRule
	limits      map[string]limits
	usage       map[string]usage // of those who have anything open

	logins  logins
	guesses guesses

	// epoch rises with every change; whoever remembers a decision forgets it then.
	epoch atomic.Uint64
}

// topicRule is a topic permission of a grant, compiled once: it is asked for every publish.
type topicRule struct {
	auth.TopicPermission
	rules auth.TopicRules // the zero value, which allows no key, if the patterns do not compile
}

func newTopicRule(g grant, t auth.TopicPermission) topicRule {
	rules, _ := t.Compile(auth.Variables{Username: g.user, VHost: g.vhost})
	return topicRule{t, rules}
}

// grant names the user and the vhost of a permission.
type grant struct{ user, vhost string }

func newUsers(store *storage.Store, loopback []string, maxFailedLogins int) *Users {
	return &Users{
		store: store, loopback: loopback, guesses: guesses{max: maxFailedLogins, now: time.Now},
		users:       make(map[string]*auth.User),
		permissions: make(map[grant]auth.Permissions),
		topics:      make(map[grant][]topicRule),
		limits:      make(map[string]limits),
		usage:       make(map[string]usage),
	}
}

// load reads everything from the store.
func (u *Users) load() error {
	err := u.store.Scan([]byte{keyUser}, func(k, v []byte) error {
		usr, err := auth.UnmarshalUser(v)
		if err == nil {
			u.users[usr.Name] = usr
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("users: %w", err)
	}
	err = u.store.Scan([]byte{keyPermission}, func(k, v []byte) error {
		names, err := metaNames(k, 2)
		if err != nil {
			return err
		}
		p, err := auth.UnmarshalPermissions(v)
		u.permissions[grant{names[0], names[1]}] = p
		return err
	})
	if err != nil {
		return fmt.Errorf("permissions: %w", err)
	}
	err = u.store.Scan([]byte{keyTopicPermission}, func(k, v []byte) error {
		names, err := metaNames(k, 3)
		if err != nil {
			return err
		}
		t, err := auth.UnmarshalTopicPermission(v)
		g := grant{names[0], names[1]}
		u.topics[g] = append(u.topics[g], newTopicRule(g, t))
		return err
	})
	if err != nil {
		return fmt.Errorf("topic permissions: %w", err)
	}
	err = u.store.Scan([]byte{keyUserLimits}, func(k, v []byte) error {
		names, err := metaNames(k, 1)
		if err != nil {
			return err
		}
		u.limits[names[0]], err = decodeLimits(k, v)
		return err
	})
	if err != nil {
		return fmt.Errorf("limits of users: %w", err)
	}
	return nil
}

// Epoch returns a number that rises with every change of users or rights.
func (u *Users) Epoch() uint64 { return u.epoch.Load() }

// User returns the account of that name, or nil.
func (u *Users) User(name string) *auth.User {
	u.mu.RLock()
	defer u.mu.RUnlock()
	return u.users[name]
}

// Authenticate checks a name and a password for a login from peer. The reason of a refusal
// is for the log: the client must not learn it. After too many wrong passwords for a user from
// one address ([Limits].MaxFailedLogins) none is looked at for up to a minute.
func (u *Users) Authenticate(name, password string, peer net.Addr) (*auth.User, error) {
	if u.guesses.tooMany(peer, name) {
		return nil, fmt.Errorf("user '%s' - too many failed logins from this address, none is tried for up to %v", name, guessPeriod)
	}
	usr := u.User(name)
	ok := usr != nil && usr.Verify(password)
	if usr == nil {
		auth.VerifyNone(password)
	}
	u.guesses.note(peer, name, !ok)
	if !ok {
		return nil, fmt.Errorf("user '%s' - invalid credentials", name)
	}
	return usr, u.checkPeer(name, peer)
}

// AuthenticateName is Authenticate for a user that a client certificate vouches for.
func (u *Users) AuthenticateName(name string, peer net.Addr) (*auth.User, error) {
	usr := u.User(name)
	if usr == nil {
		return nil, fmt.Errorf("user '%s' - invalid credentials", name)
	}
	return usr, u.checkPeer(name, peer)
}

func (u *Users) checkPeer(name string, peer net.Addr) error {
	if slices.Contains(u.loopback, name) && !auth.IsLoopback(peer) {
		return fmt.Errorf("user '%s' can only connect via localhost", name)
	}
	return nil
}

// MayEnter reports whether the user has any permissions in the vhost.
func (u *Users) MayEnter(user, vhost string) bool {
	u.mu.RLock()
	defer u.mu.RUnlock()
	_, ok := u.permissions[grant{user, vhost}]
	return ok && u.users[user] != nil
}

// Can decides one access and words the refusal. The default exchange goes by
// [auth.DefaultExchange].
func (u *Users) Can(user, vhost string, r auth.Access, kind Resource, name string) *amqp.Error {
	if kind == ExchangeResource && name == "" {
		name = auth.DefaultExchange
	}
	u.mu.RLock()
	p, ok := u.permissions[grant{user, vhost}]
	u.mu.RUnlock()
	if ok && p.Allows(r, name) {
		return nil
	}
	return amqp.AccessRefused("%s access to %s '%s' in vhost '%s' refused for user '%s'", r, kind, name, vhost, user)
}

// CanTopic decides the use of a routing key on a topic exchange. Without a topic
// permission for the exchange every key is allowed.
func (u *Users) CanTopic(user, vhost string, r auth.Access, exchange, routingKey string) *amqp.Error {
	u.mu.RLock()
	topics := u.topics[grant{user, vhost}]
	u.mu.RUnlock()
	for _, t := range topics {
		if t.Exchange == exchange && !t.rules.Allows(r, routingKey) {
			return amqp.AccessRefused("%s access to topic '%s' in exchange '%s' in vhost '%s' refused for user '%s'", r, routingKey, exchange, vhost, user)
		}
	}
	return nil
}

// Put creates or replaces a user.
func (u *Users) Put(usr *auth.User) error {
	before := u.User(usr.Name)
	err := u.apply(u.put(usr))
	name := textField("name", usr.Name)
	switch {
	case err != nil:
	case before == nil:
		u.tell("user.created", name)
	default:
		if !bytes.Equal(before.PasswordHash, usr.PasswordHash) {
			u.tell("user.password.changed", name)
		}
		if !slices.Equal(before.Tags, usr.Tags) {
			tags := make([]amqp.Value, len(usr.Tags))
			for i, t := range usr.Tags {
				tags[i] = amqp.String(t)
			}
			u.tell("user.tags.set", name, amqp.Field{Name: "tags", Value: amqp.ArrayValue(tags...)})
		}
	}
	return err
}

// Delete removes a user with its permissions; an unknown one is no error.
func (u *Users) Delete(name string) error {
	known := u.User(name) != nil
	err := u.apply(u.remove(name))
	if known && err == nil {
		u.tell("user.deleted", textField("name", name))
	}
	return err
}

// ErrNoSuchUser is returned by Grant and GrantTopic: rights that wait for a user to be made
// would be a surprise.
var ErrNoSuchUser = errors.New("no such user")

// Grant sets the permissions of a user in a vhost.
func (u *Users) Grant(user, vhost string, p auth.Permissions) error {
	if u.User(user) == nil {
		return ErrNoSuchUser
	}
	err := u.apply(u.grant(user, vhost, p))
	if err == nil {
		u.tell("permission.created", textField("user", user), textField("vhost", vhost), textField("configure", p.Configure.String()),
			textField("write", p.Write.String()), textField("read", p.Read.String()))
	}
	return err
}

// Revoke takes a user's permissions in a vhost away.
func (u *Users) Revoke(user, vhost string) error {
	g := grant{user, vhost}
	err := u.apply(usersChange{
		Change: storage.Change{Delete: [][]byte{metaKey(keyPermission, user, vhost)}},
		commit: func(*storage.Change) { delete(u.permissions, g) },
	})
	if err == nil {
		u.tell("permission.deleted", textField("user", user), textField("vhost", vhost))
	}
	return err
}

// GrantTopic sets the topic permission of a user for one exchange of a vhost.
func (u *Users) GrantTopic(user, vhost string, t auth.TopicPermission) error {
	if u.User(user) == nil {
		return ErrNoSuchUser
	}
	err := u.apply(u.grantTopic(user, vhost, t))
	if err == nil {
		u.tell("topic.permission.created", textField("user", user), textField("vhost", vhost), textField("exchange", t.Exchange))
	}
	return err
}

// usersChange is a change of the store and of the maps, made under the lock together. What
// it takes from the store may depend on the maps: commit adds that.
type usersChange struct {
	storage.Change
	commit func(*storage.Change)
}

// apply makes changes at once; they take effect on live connections with the next thing
// these do, and are on disk when apply returns.
func (u *Users) apply(changes ...usersChange) error {
	return u.begin(changes, storage.Change{}).Wait()
}

// begin is apply without the wait, together with a change of other things.
func (u *Users) begin(changes []usersChange, all storage.Change) *storage.Ticket {
	u.mu.Lock()
	for _, c := range changes {
		c.commit(&all)
		all.Put = append(all.Put, c.Put...)
		all.Delete = append(all.Delete, c.Change.Delete...)
	}
	ticket := u.store.Apply(all)
	u.mu.Unlock()
	u.epoch.Add(1)
	return ticket
}

func (u *Users) put(usr *auth.User) usersChange {
	return usersChange{
		Change: storage.Change{Put: []storage.KV{{Key: metaKey(keyUser, usr.Name), Value: usr.Marshal()}}},
		commit: func(*storage.Change) { u.users[usr.Name] = usr },
	}
}

func (u *Users) remove(name string) usersChange {
	return usersChange{commit: func(all *storage.Change) {
		all.Delete = append(all.Delete, metaKey(keyUser, name))
		delete(u.users, name)
		if _, limited := u.limits[name]; limited {
			all.Delete = append(all.Delete, metaKey(keyUserLimits, name))
			delete(u.limits, name)
		}
		for g := range u.permissions {
			if g.user == name {
				all.Delete = append(all.Delete, metaKey(keyPermission, g.user, g.vhost))
				delete(u.permissions, g)
			}
		}
		for g, topics := range u.topics {
			if g.user != name {
				continue
			}
			for _, t := range topics {
				all.Delete = append(all.Delete, metaKey(keyTopicPermission, g.user, g.vhost, t.Exchange))
			}
			delete(u.topics, g)
		}
	}}
}

func (u *Users) grant(user, vhost string, p auth.Permissions) usersChange {
	return usersChange{
		Change: storage.Change{Put: []storage.KV{{Key: metaKey(keyPermission, user, vhost), Value: p.Marshal()}}},
		commit: func(*storage.Change) { u.permissions[grant{user, vhost}] = p },
	}
}

func (u *Users) grantTopic(user, vhost string, t auth.TopicPermission) usersChange {
	g := grant{user, vhost}
	return usersChange{
		Change: storage.Change{Put: []storage.KV{{Key: metaKey(keyTopicPermission, user, vhost, t.Exchange), Value: t.Marshal()}}},
		commit: func(*storage.Change) {
			rest := slices.DeleteFunc(slices.Clone(u.topics[g]), func(o topicRule) bool { return o.Exchange == t.Exchange })
			u.topics[g] = append(rest, newTopicRule(g, t))
		},
	}
}

// Session is a logged-in user in a vhost: the [Actor] of a connection. It remembers what
// it was allowed until rights change, and belongs to one goroutine.
type Session struct {
	users      *Users
	user       *auth.User
	vhost      string
	connection uint64

	epoch   uint64
	allowed map[decision]struct{}
}

type decision struct {
	right auth.Access
	kind  Resource
	name  string
}

// maxDecisions bounds what a session remembers.
const maxDecisions = 256

// NewSession returns the actor of a connection.
func (u *Users) NewSession(user *auth.User, vhost string, connection uint64) *Session {
	return &Session{users: u, user: user, vhost: vhost, connection: connection, allowed: make(map[decision]struct{})}
}

// User returns the account that logged in.
func (s *Session) User() *auth.User { return s.user }

// Epoch rises with every change of rights.
func (s *Session) Epoch() uint64 { return s.users.Epoch() }

// ConnectionID implements Actor.
func (s *Session) ConnectionID() uint64 { return s.connection }

// Can implements Actor.
func (s *Session) Can(r auth.Access, kind Resource, name string) *amqp.Error {
	if e := s.users.Epoch(); e != s.epoch || len(s.allowed) >= maxDecisions {
		clear(s.allowed)
		s.epoch = e
	}
	d := decision{r, kind, name}
	if _, ok := s.allowed[d]; ok {
		return nil
	}
	if err := s.users.Can(s.user.Name, s.vhost, r, kind, name); err != nil {
		return err
	}
	s.allowed[d] = struct{}{}
	return nil
}

// CanTopic implements Actor.
func (s *Session) CanTopic(r auth.Access, exchange, routingKey string) *amqp.Error {
	return s.users.CanTopic(s.user.Name, s.vhost, r, exchange, routingKey)
}
