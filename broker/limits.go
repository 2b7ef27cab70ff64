package broker

import (
	"maps"
	"slices"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/storage"
)

// The limits that an operator can set while the broker runs; a negative one is none.
const (
	MaxConnections = "max-connections" // of a vhost or a user
	MaxQueues      = "max-queues"      // of a vhost
	MaxChannels    = "max-channels"    // of a user, over all connections

	// MaxMessageBytes, of a vhost, is how many bytes of ready messages its queues may have, but for streams, which have limits of
	// their own. Beyond it those who publish to the vhost are held back as by an alarm; RabbitMQ has no such limit.
	MaxMessageBytes = "max-message-bytes"
)

// userLimits is how RabbitMQ's refusals call the limits of a user.
const userLimits = "user-limits"

var (
	vhostLimitNames = []string{MaxConnections, MaxQueues, MaxMessageBytes}
	userLimitNames  = []string{MaxConnections, MaxChannels}
)

// limits are numbers by name; they do not change.
type limits map[string]int64

// reached reports whether one more than have would be too many, and how many are allowed.
func (l limits) reached(name string, have int) (allowed int64, yes bool) {
	n, ok := l[name]
	return n, ok && n >= 0 && int64(have) >= n
}

// parseLimits reads an object of limits. The error is an *InvalidError in RabbitMQ's words.
func parseLimits(names []string, object string, value []byte) (limits, error) {
	decoded, err := decodeJSON(value)
	if err != nil {
		return nil, bare("%s: %v", object, err)
	}
	if list, ok := decoded.([]any); ok && len(list) == 0 {
		return nil, nil // how Erlang may write an empty object
	}
	fields, ok := decoded.(map[string]any)
	if !ok {
		return nil, invalid("%s not a list %s", object, erlang(decoded))
	}
	return checkLimits(names, object, fields)
}

func checkLimits(names []string, object string, fields map[string]any) (limits, error) {
	unknown := make(map[string]any)
	var problems []string
	l := make(limits)
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		n, ok := fields[name].(int64)
		switch {
		case !slices.Contains(names, name):
			unknown[name] = fields[name]
		case !ok:
			problems = append(problems, name+" should be a number, actually was "+erlang(fields[name]))
		default:
			l[name] = n
		}
	}
	if len(unknown) > 0 {
		problems = append([]string{"Unrecognised terms " + erlangTerms(unknown) + " in " + object}, problems...)
	}
	if problems != nil {
		return nil, &InvalidError{Problems: problems, bare: object == userLimits}
	}
	return l, nil
}

// ParseVHostLimit reads the value of a limit of a vhost, a JSON number. The error is an *InvalidError.
func ParseVHostLimit(name string, value []byte) (int64, error) {
	return parseLimit(vhostLimitNames, vhostLimitsName, name, value)
}

// ParseUserLimit is ParseVHostLimit for a limit of a user.
func ParseUserLimit(name string, value []byte) (int64, error) {
	return parseLimit(userLimitNames, userLimits, name, value)
}

func parseLimit(names []string, object, name string, value []byte) (int64, error) {
	v, err := decodeJSON(value)
	if err != nil {
		return 0, bare("%s: %v", object, err)
	}
	l, err := checkLimits(names, object, map[string]any{name: v})
	return l[name], err
}

func (l limits) with(name string, n int64) limits {
	c := maps.Clone(l)
	if c == nil {
		c = make(limits)
	}
	c[name] = n
	return c
}

func (l limits) without(name string) limits {
	c := maps.Clone(l)
	delete(c, name)
	return c
}

// Limits returns the vhost's limits by name. The map is the caller's.
func (v *VHost) Limits() map[string]int64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return maps.Clone(v.limits)
}

// SetLimit sets one limit of the vhost, MaxConnections, MaxQueues or MaxMessageBytes. It holds for what is
// opened or declared from now on. It returns when it is on disk.
func (v *VHost) SetLimit(name string, n int64) error {
	if _, err := checkLimits(vhostLimitNames, vhostLimitsName, map[string]any{name: n}); err != nil {
		return err
	}
	return v.changeLimits(func(l limits) limits { return l.with(name, n) })
}

// ClearLimit removes a limit of the vhost; one that is not set is no error, as in RabbitMQ.
func (v *VHost) ClearLimit(name string) error {
	return v.changeLimits(func(l limits) limits { return l.without(name) })
}

// SetLimits replaces all limits of the vhost.
func (v *VHost) SetLimits(all map[string]int64) error {
	fields := make(map[string]any)
	for name, n := range all {
		fields[name] = n
	}
	l, err := checkLimits(vhostLimitNames, vhostLimitsName, fields)
	if err != nil {
		return err
	}
	return v.changeLimits(func(limits) limits { return l })
}

// Full reports whether publishers to the vhost must wait, for its queues have reached MaxMessageBytes.
func (v *VHost) Full() bool { return v.full.Load() }

// PublishersWait reports whether publishers to the vhost must wait: for an alarm, or since it is full.
func (v *VHost) PublishersWait() bool { return v.broker.alarms.Blocked() || v.Full() }

// WaitReason is what connection.blocked says to publishers that must wait; "" if they may go on.
func (v *VHost) WaitReason() string {
	if reason := v.broker.alarms.Reason(); reason != "" {
		return reason
	}
	if v.Full() {
		return "the vhost is full"
	}
	return ""
}

// measure finds out whether the vhost is full. It is until a tenth of what it may have is free again, so that publishers are
// not stopped and started for every message. Only the sampler calls it.
func (v *VHost) measure() {
	v.mu.RLock()
	limit, limited := v.limits[MaxMessageBytes]
	limited = limited && limit >= 0
	var have uint64
	if limited {
		for _, q := range v.queues {
			if c, ok := q.(*queue.Queue); ok {
				have += c.Info().ReadyBytes
			}
		}
	}
	v.mu.RUnlock()
	was, most := v.full.Load(), uint64(max(limit, 0))
	full := limited && (have >= most || was && have > most-most/10)
	if full == was {
		return
	}
	v.full.Store(full)
	if full {
		v.broker.log.Warn().Str("vhost", v.name).Uint64("bytes", have).Msg("the vhost is full: its publishers are held back")
		return
	}
	v.broker.log.Info().Str("vhost", v.name).Uint64("bytes", have).Msg("the vhost is not full any more")
	v.broker.alarms.release()
}

func (v *VHost) changeLimits(change func(limits) limits) error {
	var c storage.Change
	v.mu.Lock()
	v.putLimitsLocked(change(v.limits), &c)
	key, fields := "vhost.limits.cleared", []amqp.Field{textField("name", vhostLimitsName), textField("vhost", v.name)}
	for name, n := range v.limits {
		key = "vhost.limits.set"
		fields = append(fields, amqp.Field{Name: name, Value: amqp.Int64(n)})
	}
	ticket := v.applyLocked(c)
	v.broker.Event(key, fields...)
	v.mu.Unlock()
	return ticket.Wait()
}

func (v *VHost) putLimitsLocked(l limits, c *storage.Change) {
	v.limits = l
	key := metaKey(keyVHostLimits, v.name)
	if len(l) == 0 {
		c.Delete = append(c.Delete, key)
		return
	}
	c.Put = append(c.Put, storage.KV{Key: key, Value: encodeRecord(l)})
}

// checkQueueLimit compares the vhost's own limit and that of the broker.
func (v *VHost) checkQueueLimit(name string) *amqp.Error {
	allowed, reached := v.limits.reached(MaxQueues, len(v.queues))
	if most := v.broker.limits.MaxQueuesPerVHost; !reached && most > 0 && len(v.queues) >= most {
		allowed, reached = int64(most), true
	}
	if reached {
		return amqp.PreconditionFailed("cannot declare queue '%s': queue limit in vhost '%s' (%d) is reached", name, v.name, allowed)
	}
	return nil
}

// enter counts a connection, if the vhost has room for it.
func (v *VHost) enter(user string) *amqp.Error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.gone {
		return amqp.NotAllowed("vhost %s not found", v.name)
	}
	if allowed, reached := v.limits.reached(MaxConnections, v.connections); reached {
		return amqp.NotAllowed("access to vhost '%s' refused for user '%s': connection limit (%d) is reached", v.name, user, allowed)
	}
	v.connections++
	return nil
}

func (v *VHost) leave() {
	v.mu.Lock()
	v.connections--
	v.mu.Unlock()
}

// usage is what a user has open.
type usage struct{ connections, channels int }

// Limits returns the limits of a user by name. The map is the caller's.
func (u *Users) Limits(user string) map[string]int64 {
	u.mu.RLock()
	defer u.mu.RUnlock()
	return maps.Clone(u.limits[user])
}

// SetLimit sets a limit of a user, MaxConnections or MaxChannels. It holds for what is opened
// from now on.
func (u *Users) SetLimit(user, name string, n int64) error {
	if _, err := checkLimits(userLimitNames, userLimits, map[string]any{name: n}); err != nil {
		return err
	}
	return u.changeLimits(user, func(l limits) limits { return l.with(name, n) })
}

// ClearLimit removes a limit of a user; one that is not set is no error, as in RabbitMQ.
func (u *Users) ClearLimit(user, name string) error {
	return u.changeLimits(user, func(l limits) limits { return l.without(name) })
}

func (u *Users) changeLimits(user string, change func(limits) limits) error {
	if u.User(user) == nil {
		return ErrNoSuchUser
	}
	return u.apply(u.limit(user, change))
}

func (u *Users) limit(user string, change func(limits) limits) usersChange {
	return usersChange{commit: func(all *storage.Change) {
		l, key := change(u.limits[user]), metaKey(keyUserLimits, user)
		if len(l) == 0 {
			delete(u.limits, user)
			all.Delete = append(all.Delete, key)
			return
		}
		u.limits[user] = l
		all.Put = append(all.Put, storage.KV{Key: key, Value: encodeRecord(l)})
	}}
}

// enter counts a connection, if the user may open one more.
func (u *Users) enter(user string) *amqp.Error {
	u.mu.Lock()
	defer u.mu.Unlock()
	have := u.usage[user]
	if allowed, reached := u.limits[user].reached(MaxConnections, have.connections); reached {
		return amqp.NotAllowed("connection refused for user '%s': user connection limit (%d) is reached", user, allowed)
	}
	have.connections++
	u.usage[user] = have
	return nil
}

func (u *Users) leave(user string) { u.giveBack(user, usage{connections: 1}) }

// giveBack takes what was closed off what a user has open, and forgets one who has nothing.
func (u *Users) giveBack(user string, closed usage) {
	u.mu.Lock()
	defer u.mu.Unlock()
	have := u.usage[user]
	have.connections -= closed.connections
	have.channels -= closed.channels
	if have == (usage{}) {
		delete(u.usage, user)
	} else {
		u.usage[user] = have
	}
}

// OpenChannel counts a channel of the user, or refuses it. Each is given back by CloseChannels.
func (s *Session) OpenChannel() *amqp.Error {
	u, user := s.users, s.user.Name
	u.mu.Lock()
	defer u.mu.Unlock()
	have := u.usage[user]
	if allowed, reached := u.limits[user].reached(MaxChannels, have.channels); reached {
		return amqp.NotAllowed("number of channels opened for user '%s' has reached the maximum allowed user limit of %d", user, allowed)
	}
	have.channels++
	u.usage[user] = have
	return nil
}

// CloseChannels gives n channels back.
func (s *Session) CloseChannels(n int) {
	if n > 0 {
		s.users.giveBack(s.user.Name, usage{channels: n})
	}
}

// decodeLimits reads a record.
func decodeLimits(key, value []byte) (limits, error) {
	var l limits
	err := decodeRecord(key, value, &l)
	return l, err
}
