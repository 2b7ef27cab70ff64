package broker

import (
	"testing"

	"github.com/settmq/settmq/amqp"
)

// TestInterceptorsOfOwnPublishes: messages that do not come by AMQP are intercepted too, before they are routed.
func TestInterceptorsOfOwnPublishes(t *testing.T) {
	b := newBroker(t, func(o *Options) { o.Node, o.Interceptors.RoutingNode.Enabled = "here", true })
	v := b.VHost("/")
	if _, err := v.DeclareQueue(System{}, QueueDeclare{Name: "q"}); err != nil {
		t.Fatal(err)
	}
	match := amqp.Table{{Name: "x-match", Value: amqp.String("all-with-x")}, {Name: "x-routed-by", Value: amqp.String("here")}}
	if err := v.Bind(System{}, BindingSpec{Source: "amq.headers", Destination: "q", Kind: QueueResource, Arguments: match}); err != nil {
		t.Fatal(err)
	}
	if routed, err := v.PublishOwn(t.Context(), System{}, &OwnPublish{Exchange: "amq.headers"}); !routed || err != nil {
		t.Errorf("routed %t, %v", routed, err)
	}
}
