package broker

import (
	"context"
	"errors"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/auth"
	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/storage"
)

// OwnPublish is a message that comes by another door than a channel: an HTTP request.
type OwnPublish struct {
	Exchange, RoutingKey string // of at most 255 bytes
	Properties           amqp.Properties
	Body                 []byte
}

var (
	// ErrPublishersBlocked is returned by PublishOwn while an alarm holds publishers back, or the vhost is full.
	ErrPublishersBlocked = errors.New("publishers are blocked: the broker is low on resources, or the vhost is full")
	// ErrRefused is returned by PublishOwn if a queue did not take the message.
	ErrRefused = errors.New("the message was refused by a queue")
)

// PublishOwn publishes a message in the name of a, with the checks of a channel in the same order, and returns when
// it is where it belongs (on disk, if it lasts) or ctx is done. It reports whether there was a queue for it. p's body must not change
// afterwards. A refusal is an *amqp.Error.
func (v *VHost) PublishOwn(ctx context.Context, a Actor, p *OwnPublish) (routed bool, err error) {
	if v.PublishersWait() {
		return false, ErrPublishersBlocked
	}
	if refused := a.Can(auth.Write, ExchangeResource, p.Exchange); refused != nil {
		return false, refused
	}
	v.broker.Intercept(&p.Properties)
	r := v.ownRouters.Get().(*Router)
	defer v.ownRouters.Put(r)
	rt, refused := r.Route([]byte(p.Exchange), []byte(p.RoutingKey), &p.Properties)
	if refused == nil || refused.Code == amqp.ReplyPreconditionFailed {
		if refused := CheckExpiration(&p.Properties); refused != nil {
			return false, refused
		}
	}
	if refused == nil {
		refused = rt.CheckSender(a, &p.Properties)
	}
	if refused != nil {
		return false, refused
	}
	m := &storage.Message{
		Exchange: rt.Exchange, RoutingKey: rt.RoutingKey, Properties: p.Properties.Append(nil), Body: p.Body,
		Transient: !p.Properties.Has(amqp.PropDeliveryMode) || p.Properties.DeliveryMode != amqp.Persistent,
	}
	if p.Properties.Has(amqp.PropHeaders) {
		_, m.Blind = amqp.LookupHeader(p.Properties.Headers, queue.BlindHeader)
	}
	if v.Tracing() {
		v.TracePublish(Tap{User: actorName(a)}, m, rt)
	}
	routed = !rt.Unroutable()
	v.countOwn(rt, len(p.Body))
	var w queue.Wakes
	if !rt.Stores(m) {
		accepted := rt.Publish(m, &w)
		w.Flush()
		return routed, refusedUnless(accepted)
	}
	if err := v.broker.store.Reserve(len(m.Properties) + len(m.Body)); err != nil {
		return false, err
	}
	done := make(ownConfirm, 1)
	m.Confirm, m.ConfirmSeq = done, 1
	w.Share()
	accepted := rt.Publish(m, &w)
	w.Flush()
	if accepted {
		select {
		case <-done:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
	return routed, refusedUnless(accepted)
}

func refusedUnless(accepted bool) error {
	if accepted {
		return nil
	}
	return ErrRefused
}

// ownConfirm is the storage.Confirmer of one message.
type ownConfirm chan struct{}

// Confirm implements storage.Confirmer.
func (c ownConfirm) Confirm([]uint64, bool) { c <- struct{}{} }

// CheckExpiration refuses an expiration that is no decimal number of milliseconds, or of more than ten years, as
// RabbitMQ words it.
func CheckExpiration(p *amqp.Properties) *amqp.Error {
	if !p.Has(amqp.PropExpiration) {
		return nil
	}
	if _, why := amqp.ParseExpiration(p.Expiration); why != "" {
		return amqp.PreconditionFailed("invalid expiration '%s': %s", p.Expiration, why)
	}
	return nil
}

// CheckSender looks at what depends on the user: topic permissions for every routing key, and the user-id.
func (rt *Route) CheckSender(a Actor, p *amqp.Properties) *amqp.Error {
	if rt.Topic {
		if err := a.CanTopic(auth.Write, rt.Exchange, rt.RoutingKey); err != nil {
			return err
		}
		for _, key := range rt.ExtraKeys {
			if err := a.CanTopic(auth.Write, rt.Exchange, key); err != nil {
				return err
			}
		}
	}
	if !p.Has(amqp.PropUserID) {
		return nil
	}
	s, ok := a.(interface{ User() *auth.User })
	if ok && string(p.UserID) != s.User().Name && !s.User().HasTag("impersonator") {
		return amqp.PreconditionFailed("user_id property set to '%s' but authenticated user was '%s'", p.UserID, s.User().Name)
	}
	return nil
}
