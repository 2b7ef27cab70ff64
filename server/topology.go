package server

import (
	"strings"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/broker"
)

// The methods of classes exchange and queue. The broker checks and words; a channel knows
// which queue an empty name stands for and whether an answer is wanted.

func (ch *channel) answer(err *amqp.Error, noWait bool, ok amqp.Method) *amqp.Error {
	if err == nil && !noWait {
		ch.reply(ok)
	}
	return err
}

func (ch *channel) exchangeDeclare(m *amqp.ExchangeDeclare) *amqp.Error {
	v, s := ch.conn.vhost, ch.conn.session
	var err *amqp.Error
	if m.Passive {
		err = v.CheckExchange(s, m.Exchange)
	} else {
		err = v.DeclareExchange(s, broker.ExchangeDeclare{
			Name: m.Exchange, Type: m.Type, Durable: m.Durable, AutoDelete: m.AutoDelete, Internal: m.Internal, Arguments: m.Arguments,
		})
	}
	return ch.answer(err, m.NoWait, &amqp.ExchangeDeclareOk{})
}

func (ch *channel) exchangeDelete(m *amqp.ExchangeDelete) *amqp.Error {
	return ch.answer(ch.conn.vhost.DeleteExchange(ch.conn.session, m.Exchange, m.IfUnused), m.NoWait, &amqp.ExchangeDeleteOk{})
}

func (ch *channel) exchangeBind(m *amqp.ExchangeBind) *amqp.Error {
	err := ch.conn.vhost.Bind(ch.conn.session, broker.BindingSpec{
		Source: m.Source, Destination: m.Destination, Kind: broker.ExchangeResource, RoutingKey: m.RoutingKey, Arguments: m.Arguments,
	})
	return ch.answer(err, m.NoWait, &amqp.ExchangeBindOk{})
}

func (ch *channel) exchangeUnbind(m *amqp.ExchangeUnbind) *amqp.Error {
	err := ch.conn.vhost.Unbind(ch.conn.session, broker.BindingSpec{
		Source: m.Source, Destination: m.Destination, Kind: broker.ExchangeResource, RoutingKey: m.RoutingKey, Arguments: m.Arguments,
	})
	return ch.answer(err, m.NoWait, &amqp.ExchangeUnbindOk{})
}

func (ch *channel) queueDeclare(m *amqp.QueueDeclare) *amqp.Error {
	v, s := ch.conn.vhost, ch.conn.session
	if strings.HasPrefix(m.Queue, broker.ReplyTo) {
		return ch.declareReplyTo(m)
	}
	var (
		q   broker.Queue
		err *amqp.Error
	)
	if m.Passive {
		q, err = v.CheckQueue(s, m.Queue)
	} else {
		q, err = v.DeclareQueue(s, broker.QueueDeclare{
			Name: m.Queue, Durable: m.Durable, AutoDelete: m.AutoDelete, Exclusive: m.Exclusive, Arguments: m.Arguments,
		})
	}
	if err != nil {
		return err
	}
	ch.lastQueue = q.About().Name
	if m.NoWait {
		return nil
	}
	info := q.Info()
	ch.reply(&amqp.QueueDeclareOk{Queue: ch.lastQueue, MessageCount: uint32(info.Ready), ConsumerCount: uint32(info.Consumers)})
	return nil
}

// queueName resolves the empty name: the queue last declared on this channel.
func (ch *channel) queueName(name string) (string, *amqp.Error) {
	if name != "" {
		return name, nil
	}
	if ch.lastQueue == "" {
		return "", amqp.NotFound("no previously declared queue")
	}
	return ch.lastQueue, nil
}

// queueToRead finds the queue that a method of this channel reads from.
func (ch *channel) queueToRead(name string) (broker.Queue, *amqp.Error) {
	name, err := ch.queueName(name)
	if err != nil {
		return nil, err
	}
	return ch.conn.vhost.UseQueue(ch.conn.session, name)
}

// queueBinding resolves the names of bind and unbind: with neither queue nor routing key,
// the key is the queue's name too.
func (ch *channel) queueBinding(q, exchange, key string, args amqp.Table) (broker.BindingSpec, *amqp.Error) {
	name, err := ch.queueName(q)
	if err != nil {
		return broker.BindingSpec{}, err
	}
	if q == "" && key == "" {
		key = name
	}
	return broker.BindingSpec{Source: exchange, Destination: name, Kind: broker.QueueResource, RoutingKey: key, Arguments: args}, nil
}

func (ch *channel) queueBind(m *amqp.QueueBind) *amqp.Error {
	s, err := ch.queueBinding(m.Queue, m.Exchange, m.RoutingKey, m.Arguments)
	if err == nil {
		err = ch.conn.vhost.Bind(ch.conn.session, s)
	}
	return ch.answer(err, m.NoWait, &amqp.QueueBindOk{})
}

func (ch *channel) queueUnbind(m *amqp.QueueUnbind) *amqp.Error {
	s, err := ch.queueBinding(m.Queue, m.Exchange, m.RoutingKey, m.Arguments)
	if err == nil {
		err = ch.conn.vhost.Unbind(ch.conn.session, s)
	}
	return ch.answer(err, false, &amqp.QueueUnbindOk{})
}

func (ch *channel) queuePurge(m *amqp.QueuePurge) *amqp.Error {
	if ch.conn.vhost.HasReplyAddress(m.Queue) { // holds nothing, ever
		return ch.answer(nil, m.NoWait, &amqp.QueuePurgeOk{})
	}
	q, err := ch.queueToRead(m.Queue)
	if err != nil {
		return err
	}
	n, purgeErr := q.Purge()
	if purgeErr != nil {
		return ch.queueError(purgeErr, q.About().Name)
	}
	return ch.answer(nil, m.NoWait, &amqp.QueuePurgeOk{MessageCount: uint32(n)})
}

func (ch *channel) queueDelete(m *amqp.QueueDelete) *amqp.Error {
	name, err := ch.queueName(m.Queue)
	if err != nil {
		return err
	}
	n, err := ch.conn.vhost.DeleteQueue(ch.conn.session, name, m.IfUnused, m.IfEmpty)
	return ch.answer(err, m.NoWait, &amqp.QueueDeleteOk{MessageCount: uint32(n)})
}
