package broker

import (
	"errors"
	"testing"

	"github.com/settmq/settmq/auth"
)

func TestDeletedVHostTakesEverythingAlong(t *testing.T) {
	o := testOptions(t, t.TempDir(), nil)
	b := open(t, o)
	v, err := b.CreateVHost("v")
	if err != nil {
		t.Fatal(err)
	}
	declareQueue(t, v, "q", true)
	declareExchange(t, v, "x", "fanout")
	if refused := v.Bind(System{}, BindingSpec{Source: "x", Destination: "q", Kind: QueueResource}); refused != nil {
		t.Fatal(refused)
	}
	p, err := ParsePolicy(UserPolicy, "p", []byte(`{"pattern": "", "definition": {"max-length": 1}}`))
	if err == nil {
		_, err = v.SetPolicy(UserPolicy, p)
	}
	all, err2 := auth.CompilePermissions(".*", ".*", ".*")
	if err = errors.Join(err, err2, v.SetLimit(MaxQueues, 7), b.Users().Grant("guest", "v", all),
		b.Users().GrantTopic("guest", "v", auth.TopicPermission{Exchange: "x", Write: "a", Read: "b"})); err != nil {
		t.Fatal(err)
	}
	q := v.Queue("q")

	protected := v.Metadata()
	protected.ProtectedFromDeletion = true
	if err := v.SetMetadata(protected); err != nil {
		t.Fatal(err)
	}
	if err := b.DeleteVHost("v"); !errors.Is(err, ErrProtected) {
		t.Errorf("a protected vhost was deleted: %v", err)
	}
	if err := v.SetMetadata(VHostMetadata{}); err != nil {
		t.Fatal(err)
	}
	if err := b.DeleteVHost("v"); err != nil {
		t.Fatal(err)
	}
	if err := b.DeleteVHost("v"); !errors.Is(err, ErrNoSuch) {
		t.Errorf("deleted twice: %v", err)
	}
	if _, _, _, err := q.Get(true, nil); err == nil {
		t.Error("its queue can be used still")
	}
	// Whoever has the vhost still can do nothing in it.
	if _, refused := v.DeclareQueue(System{}, QueueDeclare{Name: "new", Durable: true}); refused == nil {
		t.Error("a queue was declared in it")
	}
	if refused := v.DeclareExchange(System{}, ExchangeDeclare{Name: "new", Type: "fanout", Durable: true}); refused == nil {
		t.Error("an exchange was declared in it")
	}
	if _, refused := b.Enter("guest", "v"); refused == nil {
		t.Error("a connection entered it")
	}
	closeBroker(t, b)
	b = open(t, o)
	defer closeBroker(t, b)
	if b.VHost("v") != nil || b.Users().MayEnter("guest", "v") || len(b.Users().TopicPermissions(nil)) > 0 {
		t.Error("something came back with a restart")
	}
	// And a new vhost of the name starts with nothing.
	if v, err = b.CreateVHost("v"); err != nil {
		t.Fatal(err)
	}
	if len(v.Queues()) > 0 || len(v.Policies(UserPolicy)) > 0 || len(v.Limits()) > 0 || len(v.Exchanges()) != len(defaultExchanges) {
		t.Error("a new vhost has something of the old one")
	}
}
