package management

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/broker"
)

// propertiesKey names a binding among those of its two ends: the routing key and, if there are arguments, a hash of
// them. Callers take it from a listing.
func propertiesKey(b broker.BindingInfo) string {
	if b.RoutingKey == "" && len(b.Arguments) == 0 {
		return "~"
	}
	key := strings.ReplaceAll(url.QueryEscape(b.RoutingKey), "~", "%7E")
	if len(b.Arguments) == 0 {
		return key
	}
	sum := sha256.Sum256(b.Arguments.Sorted().Append(nil))
	return key + "~" + base64.RawURLEncoding.EncodeToString(sum[:6])
}

func destinationType(b broker.BindingInfo) string {
	if b.ToQueue {
		return "queue"
	}
	return "exchange"
}

func bindingRow(b broker.BindingInfo) object {
	return object{
		{"source", b.Source},
		{"vhost", b.VHost},
		{"destination", b.Destination},
		{"destination_type", destinationType(b)},
		{"routing_key", b.RoutingKey},
		{"arguments", b.Arguments},
		{"properties_key", propertiesKey(b)},
	}
}

var bindingColumns = map[string]func(broker.BindingInfo) any{
	"source":         func(b broker.BindingInfo) any { return b.Source },
	"vhost":          func(b broker.BindingInfo) any { return b.VHost },
	"destination":    func(b broker.BindingInfo) any { return b.Destination },
	"routing_key":    func(b broker.BindingInfo) any { return b.RoutingKey },
	"properties_key": func(b broker.BindingInfo) any { return propertiesKey(b) },
}

func bindingList(all []broker.BindingInfo) *list {
	return listOf(all, bindingColumns, bindingRow).sortedBy("vhost", "source", "destination", "routing_key", "properties_key")
}

func listBindings(r *request) (any, error) {
	var all []broker.BindingInfo
	for _, v := range r.listedVHosts() {
		all = append(all, v.ListBindings(nil, nil)...)
	}
	return bindingList(all), nil
}

func listBindingsFrom(r *request) (any, error) {
	source := r.exchange("exchange")
	return bindingList(r.vhost.ListBindings(&source, nil)), nil
}

func listBindingsTo(r *request) (any, error) {
	return bindingList(r.bindingsTo(nil, r.exchange("exchange"), false)), nil
}

// listQueueBindings lists what leads to a queue.
func listQueueBindings(r *request) (any, error) {
	return bindingList(r.bindingsTo(nil, r.param("queue"), true)), nil
}

func (r *request) bindingsTo(source *string, destination string, queue bool) (found []broker.BindingInfo) {
	for _, b := range r.vhost.ListBindings(source, &destination) {
		if b.ToQueue == queue {
			found = append(found, b)
		}
	}
	return found
}

// between are the bindings between the two ends that the path names.
func (r *request) between() ([]broker.BindingInfo, error) {
	source, s, err := r.bindingEnds()
	if err != nil {
		return nil, err
	}
	return r.bindingsTo(&source, s.Destination, s.Kind == broker.QueueResource), nil
}

func (r *request) bindingEnds() (source string, s broker.BindingSpec, err error) {
	s = broker.BindingSpec{Source: r.exchange("source"), Destination: r.param("destination")}
	switch r.param("kind") {
	case "q":
		s.Kind = broker.QueueResource
	case "e":
		s.Kind, s.Destination = broker.ExchangeResource, r.exchange("destination")
	default:
		return "", s, errNotFound
	}
	return s.Source, s, nil
}

func listBindingsBetween(r *request) (any, error) {
	found, err := r.between()
	if err != nil {
		return nil, err
	}
	return bindingList(found), nil
}

func bind(r *request) (any, error) {
	_, s, err := r.bindingEnds()
	if err != nil {
		return nil, err
	}
	o, err := r.decode()
	if err != nil {
		return nil, err
	}
	if s.RoutingKey, err = o.text("routing_key", ""); err != nil {
		return nil, err
	}
	if len(s.RoutingKey) > amqp.MaxShortString {
		return nil, badRequest("the routing key is too long")
	}
	if s.Arguments, err = o.arguments(); err != nil {
		return nil, err
	}
	if refused := r.vhost.Bind(r.actor(r.vhost), s); refused != nil {
		return nil, refused
	}
	key := propertiesKey(broker.BindingInfo{RoutingKey: s.RoutingKey, Arguments: s.Arguments})
	return &reply{status: http.StatusCreated, location: url.PathEscape(s.Destination) + "/" + url.QueryEscape(key)}, nil
}

// namedBinding is the one of the path. Its key is escaped once more than the path, as RabbitMQ has it.
func (r *request) namedBinding() (broker.BindingInfo, error) {
	found, err := r.between()
	if err != nil {
		return broker.BindingInfo{}, err
	}
	for _, b := range found {
		if key := propertiesKey(b); sameKey(key, r.param("props")) {
			return b, nil
		}
	}
	return broker.BindingInfo{}, errNotFound
}

// sameKey compares a key with what a client made of it: some escape what need not be, or a space in another way.
func sameKey(key, given string) bool {
	if key == given {
		return true
	}
	name, hash, _ := strings.Cut(key, "~")
	givenName, givenHash, _ := strings.Cut(given, "~")
	a, err1 := url.QueryUnescape(name)
	b, err2 := url.QueryUnescape(givenName)
	return err1 == nil && err2 == nil && a == b && hash == givenHash
}

func getBinding(r *request) (any, error) {
	b, err := r.namedBinding()
	if err != nil {
		return nil, err
	}
	return bindingRow(b), nil
}

func unbind(r *request) (any, error) {
	b, err := r.namedBinding()
	if err != nil {
		return nil, err
	}
	_, s, err := r.bindingEnds()
	if err != nil {
		return nil, err
	}
	s.RoutingKey, s.Arguments = b.RoutingKey, b.Arguments
	if refused := r.vhost.Unbind(r.actor(r.vhost), s); refused != nil {
		return nil, refused
	}
	return noContent, nil
}
