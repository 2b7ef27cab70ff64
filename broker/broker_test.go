package broker

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/auth"
	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/storage/journal/faultfs"
)

var localhost = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}

func TestFirstRunHappensOnce(t *testing.T) {
	dir := t.TempDir()
	o := testOptions(t, dir, nil)
	b := open(t, o)
	if _, err := b.Users().Authenticate("guest", "guest", localhost); err != nil {
		t.Errorf("first user: %v", err)
	}
	if _, err := b.Enter("guest", "/"); err != nil {
		t.Errorf("first vhost: %v", err)
	}
	if err := b.Users().Delete("guest"); err != nil {
		t.Fatal(err)
	}
	closeBroker(t, b)
	o.First.VHost, o.First.User = "other", "admin"
	b = open(t, o)
	for _, name := range []string{"guest", "admin"} {
		if b.Users().User(name) != nil {
			t.Errorf("user %s is there after a restart", name)
		}
	}
	if b.VHost("other") != nil || b.VHost("/") == nil {
		t.Error("the vhosts are not those of the first run")
	}
	// Not even without any vhost left.
	delete(b.vhosts, "/")
	if ran, err := b.ranBefore(); !ran || err != nil {
		t.Errorf("ran before: %t, %v", ran, err)
	}
	b.vhosts["/"] = newVHost(b, "/")
	closeBroker(t, b)
}

// TestFirstRunIsAllOrNothing: with a password that cannot be, there is no vhost either, so
// that the next start tries again.
func TestFirstRunIsAllOrNothing(t *testing.T) {
	o := testOptions(t, t.TempDir(), nil)
	good := o.First
	o.First.Configure = "("
	if b, err := Open(o); err == nil {
		closeBroker(t, b)
		t.Fatal("opened with a pattern that does not compile")
	}
	o.First = good
	b := open(t, o)
	defer closeBroker(t, b)
	if _, err := b.Enter("guest", "/"); err != nil {
		t.Errorf("second try: %v", err)
	}
}

func TestUsersAndRightsPersist(t *testing.T) {
	o := testOptions(t, t.TempDir(), nil)
	b := open(t, o)
	u := b.Users()
	if _, err := b.CreateVHost("v"); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		u.Put(hashed(t, "ann", "secret")), u.Put(hashed(t, "bob", "old")), u.Put(hashed(t, "bob", "new")), u.Put(hashed(t, "gone", "x")),
		u.Grant("ann", "/", permissions(t, "", "^out", "^in")), u.Grant("ann", "v", permissions(t, ".*", ".*", ".*")),
		u.Grant("bob", "/", permissions(t, ".*", ".*", ".*")), u.Revoke("bob", "/"), u.Revoke("bob", "never"),
		u.GrantTopic("ann", "/", auth.TopicPermission{Exchange: "t", Write: "^{username}-", Read: ".*"}),
		u.Grant("gone", "/", permissions(t, ".*", ".*", ".*")), u.GrantTopic("gone", "/", auth.TopicPermission{Exchange: "t", Write: "a", Read: "a"}),
		u.Delete("gone"), u.Delete("never"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := u.Grant("nobody", "/", permissions(t, "", "", "")); err != ErrNoSuchUser {
		t.Errorf("grant to nobody: %v", err)
	}
	if err := u.GrantTopic("nobody", "/", auth.TopicPermission{}); err != ErrNoSuchUser {
		t.Errorf("topic grant to nobody: %v", err)
	}
	check := func(when string) {
		t.Helper()
		u := b.Users()
		for _, tt := range []struct {
			user, password string
			ok             bool
		}{{"ann", "secret", true}, {"ann", "", false}, {"ann", "Secret", false}, {"bob", "new", true}, {"bob", "old", false}, {"gone", "x", false}} {
			if _, err := u.Authenticate(tt.user, tt.password, localhost); (err == nil) != tt.ok {
				t.Errorf("%s: login of %s with %q: %v", when, tt.user, tt.password, err)
			}
		}
		for _, tt := range []struct {
			user, vhost string
			r           auth.Access
			name        string
			ok          bool
		}{
			{"ann", "/", auth.Write, "out1", true},
			{"ann", "/", auth.Write, "in1", false},
			{"ann", "/", auth.Configure, "out1", false},
			{"ann", "/", auth.Read, "in1", true},
			{"ann", "v", auth.Configure, "any", true},
			{"bob", "/", auth.Read, "in1", false},
			{"gone", "/", auth.Read, "in1", false},
			{"ann", "absent", auth.Read, "in1", false},
		} {
			if err := u.Can(tt.user, tt.vhost, tt.r, QueueResource, tt.name); (err == nil) != tt.ok {
				t.Errorf("%s: %s %s of %s in %s: %v", when, tt.user, tt.r, tt.name, tt.vhost, err)
			}
		}
		if err := u.CanTopic("ann", "/", auth.Write, "t", "ann-x"); err != nil {
			t.Errorf("%s: topic: %v", when, err)
		}
		refused(t, u.CanTopic("ann", "/", auth.Write, "t", "bob-x"), 403, "ACCESS_REFUSED - write access to topic 'bob-x' in exchange 't' in vhost '/' refused for user 'ann'")
		if hasTopicRules(u, "gone", "/", "t") || !hasTopicRules(u, "ann", "/", "t") || u.MayEnter("bob", "/") || u.MayEnter("gone", "/") || !u.MayEnter("ann", "v") {
			t.Errorf("%s: rights differ", when)
		}
	}
	check("before the restart")
	closeBroker(t, b)
	b = open(t, o)
	check("after the restart")
	// A name that is used again starts without the rights of its former bearer.
	if err := b.Users().Put(hashed(t, "gone", "y")); err != nil {
		t.Fatal(err)
	}
	if b.Users().MayEnter("gone", "/") || hasTopicRules(b.Users(), "gone", "/", "t") {
		t.Error("rights outlived their user")
	}
	closeBroker(t, b)
}

func TestLoopbackUsers(t *testing.T) {
	b := newBroker(t, func(o *Options) { o.LoopbackUsers = []string{"guest"} })
	far := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}
	if _, err := b.Users().Authenticate("guest", "guest", far); err == nil {
		t.Error("guest may log in from afar")
	}
	if _, err := b.Users().AuthenticateName("guest", far); err == nil {
		t.Error("guest may log in from afar with a certificate")
	}
	if _, err := b.Users().Authenticate("guest", "guest", &net.TCPAddr{IP: net.ParseIP("::ffff:127.0.0.1")}); err != nil {
		t.Errorf("guest from a mapped loopback address: %v", err)
	}
	if _, err := b.Users().Authenticate("nobody", "guest", localhost); err == nil || strings.Contains(err.Error(), "guest") {
		t.Errorf("unknown user: %v", err)
	}
}

// TestSessionForgetsDecisionsWhenRightsChange: what a session remembers is gone with the
// next change, whoever it is about.
func TestSessionForgetsDecisionsWhenRightsChange(t *testing.T) {
	b := newBroker(t)
	u := b.Users()
	s := u.NewSession(u.User("guest"), "/", 1)
	for range 2 {
		must(t, s.Can(auth.Write, ExchangeResource, ""))
	}
	if err := u.Grant("guest", "/", permissions(t, ".*", "^only$", ".*")); err != nil {
		t.Fatal(err)
	}
	refused(t, s.Can(auth.Write, ExchangeResource, ""), 403, "ACCESS_REFUSED - write access to exchange 'amq.default' in vhost '/' refused for user 'guest'")
	must(t, s.Can(auth.Write, ExchangeResource, "only"))
	if err := u.Delete("guest"); err != nil {
		t.Fatal(err)
	}
	refused(t, s.Can(auth.Write, ExchangeResource, "only"), 403, "")
	for i := range 3 * maxDecisions {
		_ = s.Can(auth.Read, QueueResource, fmt.Sprint(i))
	}
	if len(s.allowed) > maxDecisions {
		t.Errorf("%d decisions are remembered", len(s.allowed))
	}
}

func TestLimits(t *testing.T) {
	b := newBroker(t, func(o *Options) {
		o.Limits = Limits{MaxVHosts: 2, MaxQueuesPerVHost: 2, MaxExchangesPerVHost: len(defaultExchanges) + 1, MaxBindings: 2}
	})
	v := b.VHost("/")
	if _, err := b.CreateVHost("second"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.CreateVHost("third"); err == nil || b.VHost("third") != nil {
		t.Errorf("third vhost of two: %v", err)
	}
	if _, err := b.CreateVHost("second"); err != nil {
		t.Errorf("a vhost that is there: %v", err)
	}
	declareQueue(t, v, "a", true)
	declareQueue(t, v, "b", false)
	declareQueue(t, v, "a", true)
	_, err := v.DeclareQueue(actor{id: 1}, QueueDeclare{Name: "c"})
	refused(t, err, 406, "PRECONDITION_FAILED - cannot declare queue 'c': queue limit in vhost '/' (2) is reached")
	if _, err := v.DeleteQueue(actor{id: 1}, "b", false, false); err != nil {
		t.Fatal(err)
	}
	declareQueue(t, v, "c", false)
	declareExchange(t, v, "x", "direct")
	declareExchange(t, v, "x", "direct")
	refused(t, v.DeclareExchange(actor{id: 1}, ExchangeDeclare{Name: "y", Type: "direct"}), 406, "")
	for range 2 { // binding twice is once
		bind(t, v, "x", "a", "1", QueueResource)
		bind(t, v, "x", "a", "2", QueueResource)
	}
	refused(t, v.Bind(actor{id: 1}, BindingSpec{Source: "x", Destination: "a", Kind: QueueResource, RoutingKey: "3"}), 406, "")
	must(t, v.Unbind(actor{id: 1}, BindingSpec{Source: "x", Destination: "a", Kind: QueueResource, RoutingKey: "1"}))
	bind(t, v, "x", "a", "3", QueueResource)
}

// TestBindingWithHugeArgumentsOutlivesACheckpoint: the longest arguments that a frame can
// carry are no obstacle for the state database.
func TestBindingWithHugeArgumentsOutlivesACheckpoint(t *testing.T) {
	o := testOptions(t, t.TempDir(), nil)
	o.Storage.OnFailure = func(err error) { t.Errorf("the store failed: %v", err) }
	b := open(t, o)
	v := b.VHost("/")
	declareQueue(t, v, "q", true)
	long := amqp.String(strings.Repeat("x", 120<<10))
	for i := range 40 { // several journals' worth: checkpoints must have happened
		bind(t, v, "amq.headers", "q", fmt.Sprint(i), QueueResource, field("long", long), field("n", amqp.Int32(int32(i))))
	}
	must(t, v.Unbind(actor{id: 1}, BindingSpec{
		Source: "amq.headers", Destination: "q", Kind: QueueResource, RoutingKey: "0",
		Arguments: amqp.Table{field("n", amqp.Int32(0)), field("long", long)}, // sorted otherwise
	}))
	closeBroker(t, b)
	b = open(t, o)
	defer closeBroker(t, b)
	n := 0
	b.VHost("/").Bindings(func(bd *Binding) {
		n++
		if have, _ := bd.Arguments.Get("long"); !have.Equal(long) {
			t.Errorf("binding %s came back without its arguments", bd.RoutingKey)
		}
	})
	if n != 39 {
		t.Errorf("%d bindings came back", n)
	}
	r := b.VHost("/").NewRouter()
	if got := routed(t, r, "amq.headers", "", field("long", long), field("n", amqp.Int32(3))); !slices.Equal(got, []string{"q"}) {
		t.Errorf("routed to %v", got)
	}
}

// TestRepeatedDeclareWaitsForTheFirst: whoever finds a thing made must not be told so before
// it is on disk, although another connection is the one that made it.
func TestRepeatedDeclareWaitsForTheFirst(t *testing.T) {
	a := actor{id: 1}
	declare := func(v *VHost) *amqp.Error {
		_, err := v.DeclareQueue(a, QueueDeclare{Name: "q", Durable: true})
		return err
	}
	spec := BindingSpec{Source: "amq.direct", Destination: "kept", Kind: QueueResource, RoutingKey: "k"}
	for _, tt := range []struct {
		name    string
		prepare func(t *testing.T, v *VHost)
		op      func(v *VHost) *amqp.Error
	}{
		{"declare queue", nil, declare},
		{"delete queue", func(t *testing.T, v *VHost) { must(t, declare(v)) }, func(v *VHost) *amqp.Error {
			_, err := v.DeleteQueue(a, "q", false, false)
			return err
		}},
		{"declare exchange", nil, func(v *VHost) *amqp.Error {
			return v.DeclareExchange(a, ExchangeDeclare{Name: "x", Type: "fanout", Durable: true})
		}},
		{"delete exchange", func(t *testing.T, v *VHost) { declareExchange(t, v, "x", "fanout") }, func(v *VHost) *amqp.Error {
			return v.DeleteExchange(a, "x", false)
		}},
		{"bind", nil, func(v *VHost) *amqp.Error { return v.Bind(a, spec) }},
		{"unbind", func(t *testing.T, v *VHost) { must(t, v.Bind(a, spec)) }, func(v *VHost) *amqp.Error { return v.Unbind(a, spec) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				disk := &slowDisk{FS: faultfs.New(1)}
				b := open(t, testOptions(t, dir, disk))
				defer closeBroker(t, b)
				v := b.VHost("/")
				declareQueue(t, v, "kept", true)
				if tt.prepare != nil {
					tt.prepare(t, v)
				}
				disk.close()
				defer disk.open()
				results := make(chan *amqp.Error, 2)
				for range 2 {
					go func() { results <- tt.op(v) }()
					synctest.Wait() // it waits for the disk, or has come to its end
					if len(results) > 0 {
						t.Fatalf("somebody was told %v while nothing reached the disk", <-results)
					}
				}
				disk.open()
				must(t, <-results)
				must(t, <-results)
				disk.close()
			})
		})
	}
}

func TestExclusiveQueuesGoWithTheirConnection(t *testing.T) {
	b := newBroker(t)
	v := b.VHost("/")
	owner, other := actor{id: 1}, actor{id: 2}
	q, err := v.DeclareQueue(owner, QueueDeclare{Name: "mine", Exclusive: true, Durable: true})
	must(t, err)
	if q.Lasts() || q.About().Durable {
		t.Error("an exclusive queue is stored")
	}
	const locked = "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'mine' in vhost '/'. It could be originally declared on another connection or the exclusive property value does not match that of the original declaration."
	for name, op := range map[string]func() *amqp.Error{
		"declare": func() *amqp.Error {
			_, err := v.DeclareQueue(other, QueueDeclare{Name: "mine", Exclusive: true})
			return err
		},
		"declare, not exclusive": func() *amqp.Error { _, err := v.DeclareQueue(owner, QueueDeclare{Name: "mine"}); return err },
		"passive":                func() *amqp.Error { _, err := v.CheckQueue(other, "mine"); return err },
		"use":                    func() *amqp.Error { _, err := v.UseQueue(other, "mine"); return err },
		"delete":                 func() *amqp.Error { _, err := v.DeleteQueue(other, "mine", false, false); return err },
		"bind": func() *amqp.Error {
			return v.Bind(other, BindingSpec{Source: "amq.fanout", Destination: "mine", Kind: QueueResource})
		},
	} {
		t.Run(name, func(t *testing.T) { refused(t, op(), 405, locked) })
	}
	must(t, v.DeclareExchange(owner, ExchangeDeclare{Name: "auto", Type: "fanout", AutoDelete: true, Durable: true}))
	bind(t, v, "auto", "mine", "", QueueResource)
	v.ConnectionClosed(2)
	if _, err := v.CheckQueue(owner, "mine"); err != nil {
		t.Errorf("gone with somebody else's connection: %v", err)
	}
	v.ConnectionClosed(1)
	v.ConnectionClosed(1)
	_, err = v.CheckQueue(owner, "mine")
	refused(t, err, 404, "NOT_FOUND - no queue 'mine' in vhost '/'")
	refused(t, v.CheckExchange(owner, "auto"), 404, "NOT_FOUND - no exchange 'auto' in vhost '/'")
}

// TestDeletedQueueTellsItsConsumers: also of another connection.
func TestDeletedQueueTellsItsConsumers(t *testing.T) {
	v := newBroker(t).VHost("/")
	q := declareQueue(t, v, "q", false)
	s := &noSink{}
	for range 3 {
		if err := q.Subscribe(&queue.Consumer{ID: v.broker.NextConsumerID(), Queue: q, Sink: s}, nil, &queue.Wakes{}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := v.DeleteQueue(actor{id: 2}, "q", true, false)
	refused(t, err, 406, "PRECONDITION_FAILED - queue 'q' in vhost '/' in use")
	if n := s.cancelled.Load(); n != 0 {
		t.Errorf("%d consumers were cancelled by a refused delete", n)
	}
	_, err = v.DeleteQueue(actor{id: 2}, "q", false, false)
	must(t, err)
	if n := s.cancelled.Load(); n != 3 {
		t.Errorf("%d of 3 consumers were told", n)
	}
}

func TestMetaKeysDoNotRunIntoEachOther(t *testing.T) {
	seen := make(map[string][]string)
	names := []string{"", "a", "aa", "\x00", "\x01a", strings.Repeat("x", 300)}
	for _, x := range names {
		for _, y := range names {
			k := metaKey(keyQueue, x, y)
			if have, dup := seen[string(k)]; dup {
				t.Errorf("%q and %q have one key", have, []string{x, y})
			}
			seen[string(k)] = []string{x, y}
			got, err := metaNames(k, 2)
			if err != nil || !slices.Equal(got, []string{x, y}) {
				t.Errorf("%q came back as %q, %v", []string{x, y}, got, err)
			}
			for cut := 1; cut < len(k); cut++ {
				if got, err := metaNames(k[:cut], 2); err == nil {
					t.Errorf("a key cut at %d gave %q", cut, got)
				}
			}
		}
	}
	if err := decodeRecord(nil, []byte{recordVersion + 1, '{', '}'}, new(queueRecord)); err == nil {
		t.Error("a record of a later version was read")
	}
	if !bytes.Equal(encodeArguments(nil), nil) {
		t.Error("no arguments are something")
	}
}

// hasTopicRules reports whether a topic permission applies to the user on the exchange.
func hasTopicRules(u *Users, user, vhost, exchange string) bool {
	u.mu.RLock()
	defer u.mu.RUnlock()
	return slices.ContainsFunc(u.topics[grant{user, vhost}], func(t topicRule) bool { return t.Exchange == exchange })
}
