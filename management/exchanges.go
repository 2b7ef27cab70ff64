package management

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"unicode/utf8"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/broker"
	"github.com/settmq/settmq/broker/definitions"
	"github.com/settmq/settmq/exchange"
)

// exchangeIn is an exchange with its vhost.
type exchangeIn struct {
	*broker.Exchange
	vhost *broker.VHost
}

var exchangeColumns = map[string]func(exchangeIn) any{
	"name":  func(x exchangeIn) any { return x.Name },
	"vhost": func(x exchangeIn) any { return x.vhost.Name() },
	"type":  func(x exchangeIn) any { return x.Type },
}

func (r *request) exchangeRow(x exchangeIn) object {
	o := object{
		{"arguments", x.Arguments},
		{"auto_delete", x.AutoDelete},
		{"durable", x.Durable},
		{"internal", x.Internal},
		{"name", x.Name},
		{"type", x.Type},
		{"user_who_performed_action", localUser},
		{"vhost", x.vhost.Name()},
	}
	if e := x.vhost.ExchangePolicy(x.Name); e != nil && e.Policy != nil {
		o = append(o, field{"policy", e.Policy.Name})
	}
	if r.query.Get("disable_stats") == "true" {
		return o
	}
	return append(o, r.exchangeStats(x.Exchange)...)
}

func listExchanges(r *request) (any, error) {
	var all []exchangeIn
	for _, v := range r.listedVHosts() {
		for _, x := range v.Exchanges() {
			all = append(all, exchangeIn{x, v})
		}
	}
	r.broker.Collect()
	return listOf(all, exchangeColumns, r.exchangeRow), nil
}

// namedExchange is the exchange of the path.
func (r *request) namedExchange() (exchangeIn, error) {
	if x := r.vhost.Exchange(r.exchange("exchange")); x != nil {
		return exchangeIn{x, r.vhost}, nil
	}
	return exchangeIn{}, errNotFound
}

func getExchange(r *request) (any, error) {
	x, err := r.namedExchange()
	if err != nil {
		return nil, err
	}
	r.broker.Collect()
	return append(r.exchangeRow(x), field{"incoming", []object{}}, field{"outgoing", []object{}}), nil
}

func putExchange(r *request) (any, error) {
	o, err := r.decode()
	if err != nil {
		return nil, err
	}
	d := broker.ExchangeDeclare{Name: r.exchange("exchange")}
	if d.Type, err = o.text("type", "direct"); err != nil {
		return nil, err
	}
	if !exchange.Known(d.Type) {
		return nil, badRequest("invalid exchange type '" + d.Type + "'")
	}
	if d.Durable, err = o.flag("durable", false); err != nil {
		return nil, err
	}
	if d.AutoDelete, err = o.flag("auto_delete", false); err != nil {
		return nil, err
	}
	if d.Internal, err = o.flag("internal", false); err != nil {
		return nil, err
	}
	if d.Arguments, err = o.arguments(); err != nil {
		return nil, err
	}
	if len(d.Name) > amqp.MaxShortString {
		return nil, badRequest("the name is too long")
	}
	created := r.vhost.Exchange(d.Name) == nil
	if refused := r.vhost.DeclareExchange(r.actor(r.vhost), d); refused != nil {
		return nil, refused
	}
	return put(created), nil
}

// arguments are an object, or Erlang's empty list.
func (o body) arguments() (amqp.Table, error) {
	if !o.has("arguments") || string(o["arguments"]) == "[]" {
		return nil, nil
	}
	return table("arguments", o["arguments"])
}

func table(name string, raw json.RawMessage) (amqp.Table, error) {
	t, err := definitions.Table(raw)
	if err != nil {
		return nil, badRequest(name + ": " + err.Error())
	}
	return t, nil
}

func deleteExchange(r *request) (any, error) {
	x, err := r.namedExchange()
	if err != nil {
		return nil, err
	}
	if refused := r.vhost.DeleteExchange(r.actor(r.vhost), x.Name, r.query.Get("if-unused") == "true"); refused != nil {
		return nil, refused
	}
	return noContent, nil
}

// publish puts a message in, and says whether it came to a queue.
func publish(r *request) (any, error) {
	x := r.vhost.Exchange(r.exchange("exchange"))
	if x == nil {
		return nil, &apiError{http.StatusNotFound, "not_found", "exchange_not_found"}
	}
	// A body in base64 is a third longer than what it holds.
	o, err := r.decodeLimited(int64(r.server.o.MaxMessageSize)*4/3+maxBody, "routing_key", "properties", "payload", "payload_encoding")
	if err != nil {
		return nil, err
	}
	p := broker.OwnPublish{Exchange: x.Name}
	if p.RoutingKey, err = o.text("routing_key", ""); err != nil {
		return nil, err
	}
	if len(p.RoutingKey) > amqp.MaxShortString {
		return nil, badRequest("the routing key is too long")
	}
	if p.Properties, err = propertiesOf(o["properties"]); err != nil {
		return nil, err
	}
	if p.Body, err = o.payload(); err != nil {
		return nil, err
	}
	if most := r.server.o.MaxMessageSize; len(p.Body) > most {
		return nil, closedChannel(amqp.PreconditionFailed("message size %d is larger than configured max size %d", len(p.Body), most))
	}
	routed, err := r.vhost.PublishOwn(r.Context(), r.actor(r.vhost), &p)
	if errors.Is(err, broker.ErrRefused) {
		return object{{"routed", false}}, nil
	}
	var refused *amqp.Error
	if errors.As(err, &refused) { // it comes when RabbitMQ waits for the confirm, whatever it is
		return nil, closedChannel(refused)
	}
	return object{{"routed", routed}}, err
}

// payload is the body of a message: a text, or base64 of any bytes.
func (o body) payload() ([]byte, error) {
	payload, err := o.text("payload", "")
	if err != nil {
		return nil, err
	}
	encoding, err := o.text("payload_encoding", "")
	if err != nil {
		return nil, err
	}
	switch encoding {
	case "string":
		return []byte(payload), nil
	case "base64":
		b, err := base64.StdEncoding.DecodeString(payload)
		if err != nil {
			return nil, badRequest([]any{"not_base64", payload})
		}
		return b, nil
	}
	return nil, badRequest([]any{"unsupported_encoding", encoding})
}

// encodePayload is the way back: as a text if it is one and base64 is not asked for.
func encodePayload(b []byte, base64Only bool) (payload, encoding string) {
	if !base64Only && utf8.Valid(b) {
		return string(b), "string"
	}
	return base64.StdEncoding.EncodeToString(b), "base64"
}
