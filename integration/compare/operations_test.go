package compare

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func converse(where address, seed uint64) []string {
	k := &talk{rand: rand.New(rand.NewPCG(seed, 1)), broker: where, prefix: fmt.Sprintf("cmp%d-", seed)}
	if err := k.connect(); err != nil {
		return []string{err.Error()}
	}
	k.clean()
	for _, name := range exchangeNames {
		k.declareExchangeNamed(name)
	}
	for _, name := range queueNames {
		k.declareQueueNamed(name)
	}
	for range 4 {
		k.bind()
	}
	for i := 0; i < *steps && !k.over; i++ {
		k.step()
	}
	if !k.over {
		k.observe()
		k.drain()
	}
	k.clean()
	_ = k.conn.Close()
	return k.said
}

func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

var (
	queueNames    = []string{"a", "b", "c", "d"}
	exchangeNames = []string{"x", "y", "z"}
	keys          = []string{"a", "b", "", "k", "k.l", "k.l.m", "c"}
	patterns      = []string{"a", "k", "#", "*", "k.*", "k.#", "#.m", "*.*", "", "k.l"}
)

func (k *talk) queue() string { return k.prefix + pick(k.rand, queueNames...) }
func (k *talk) exchange() string {
	switch k.rand.IntN(8) {
	case 0:
		return ""
	case 1:
		if k.rand.IntN(4) == 0 {
			return k.prefix + "missing"
		}
	}
	return k.prefix + pick(k.rand, exchangeNames...)
}

func (k *talk) key() string {
	if k.rand.IntN(3) == 0 {
		return k.queue()
	}
	return pick(k.rand, keys...)
}

func (k *talk) step() {
	type step struct {
		weight int
		do     func()
	}
	steps := []step{
		{4, k.declareQueue},
		{3, k.declareExchange},
		{8, k.bind},
		{2, k.unbind},
		{3, k.bindExchange},
		{30, k.publish},
		{12, k.get},
		{8, k.settleOne},
		{5, k.consume},
		{2, k.cancel},
		{2, k.purge},
		{1, k.deleteQueue},
		{1, k.deleteExchange},
		{2, k.qos},
		{1, k.recover},
		{3, k.txStep},
		{3, k.passive},
		{1, k.reopen},
		{6, k.observe},
		{2, k.declareBadly},
	}
	if k.broker.management != "" {
		steps = append(steps, step{12, k.policy})
	}
	total := 0
	for _, s := range steps {
		total += s.weight
	}
	n := k.rand.IntN(total)
	for _, s := range steps {
		if n -= s.weight; n < 0 {
			s.do()
			return
		}
	}
}

func (k *talk) queueArguments() amqp.Table {
	t := amqp.Table{}
	r := k.rand
	if k.quorum {
		t["x-queue-type"] = "quorum"
	}
	some := func(n int, key string, values ...any) {
		if r.IntN(n) == 0 {
			t[key] = pick(r, values...)
		}
	}
	some(6, "x-message-ttl", int32(0), int64(100000), int16(30000))
	some(5, "x-max-length", int32(0), int32(1), int32(2), int64(5))
	if !k.quorum { // where RabbitMQ counts headers too
		some(8, "x-max-length-bytes", int32(0), int32(10), int64(20))
	}
	if k.quorum {
		some(6, "x-overflow", "drop-head")
	} else {
		some(4, "x-overflow", "drop-head", "reject-publish", "reject-publish-dlx")
	}
	some(2, "x-dead-letter-exchange", "", k.exchange(), k.prefix+"x")
	if _, ok := t["x-dead-letter-exchange"]; ok {
		some(2, "x-dead-letter-routing-key", k.key(), k.queue())
	}
	some(8, "x-single-active-consumer", true, false)
	if k.quorum {
		some(3, "x-delivery-limit", int32(1), int32(2), int32(-1))
		return t
	}
	some(6, "x-max-priority", int32(3), byte(5), int32(255))
	some(12, "x-expires", int32(600000))
	some(12, "x-queue-mode", "lazy", "default")
	some(10, "x-foo", "bar", int32(1))
	some(6, "x-queue-type", "classic")
	return t
}

func (k *talk) declareQueue() { k.declareQueueNamed(pick(k.rand, queueNames...)) }

func (k *talk) declareQueueNamed(name string) {
	k.quorum = name == "d" && *quorum
	defer func() { k.quorum = false }()
	name = k.prefix + name
	durable, exclusive, autoDelete := k.rand.IntN(8) > 0, k.rand.IntN(12) == 0, k.rand.IntN(12) == 0
	args := k.queueArguments()
	q, err := k.ch.QueueDeclare(name, durable, autoDelete, exclusive, false, args)
	k.answer(fmt.Sprintf("declare queue %s durable=%v exclusive=%v auto-delete=%v %v → %d %d", name, durable, exclusive, autoDelete, args, q.Messages, q.Consumers), err)
}

func (k *talk) declareBadly() {
	name := k.prefix + pick(k.rand, "bad", "worse")
	bad := []amqp.Table{
		{"x-message-ttl": "5"},
		{"x-message-ttl": int32(-1)},
		{"x-expires": int32(0)},
		{"x-expires": int64(315360000001)},
		{"x-max-length": int32(-3)},
		{"x-max-length": true},
		{"x-max-priority": int32(256)},
		{"x-max-priority": int32(-1)},
		{"x-max-priority": "x"},
		{"x-overflow": "x"},
		{"x-overflow": int32(3)},
		{"x-dead-letter-exchange": int32(3)},
		{"x-dead-letter-routing-key": "k"},
		{"x-dead-letter-routing-key": int32(1), "x-dead-letter-exchange": ""},
		{"x-single-active-consumer": "yes"},
		{"x-queue-type": "lazy"},
		{"x-queue-version": int32(1)},
		{"x-queue-version": int32(2)},
		{"x-queue-mode": int32(3)},
		{"x-queue-leader-locator": "nowhere"},
		{"x-queue-leader-locator": "balanced"},
		{"x-max-age": "1h"},
		{"x-queue-type": "quorum", "x-max-priority": int32(3)},
		{"x-queue-type": "quorum", "x-max-age": "1h"},
		{"x-queue-type": "stream", "x-message-ttl": int32(1)},
		{"x-queue-type": "stream", "x-max-age": "1w"},
		{"x-queue-type": "stream", "x-max-age": int32(3)},
		{"x-queue-type": "stream", "x-max-length": int32(3)},
		{"x-queue-type": "quorum", "x-quorum-initial-group-size": int32(0)},
		{"x-queue-type": "quorum", "x-dead-letter-strategy": "never"},
		{"x-queue-type": "quorum", "x-overflow": "reject-publish-dlx"},
		{"x-queue-type": "quorum", "x-queue-mode": "lazy"},
		{"x-queue-type": "stream", "x-single-active-consumer": true},
		{"x-queue-type": "stream", "x-stream-max-segment-size-bytes": int64(1 << 40)},
		{"x-queue-type": "stream", "x-stream-filter-size-bytes": int32(1)},
		{"x-queue-type": "stream", "x-initial-cluster-size": int32(0)},
		{"x-queue-type": "stream", "x-initial-cluster-size": "1"},
		{"x-queue-type": "quorum", "x-max-in-memory-length": int32(3)},
		{"x-queue-type": "quorum", "x-max-in-memory-length": "3"},
		{"x-queue-type": "quorum", "x-consumer-timeout": int32(-1)},
		{"x-queue-type": "quorum", "x-consumer-disconnected-timeout": "1"},
		{"x-queue-type": "quorum", "x-consumer-disconnected-timeout": int32(100)},
	}
	args := pick(k.rand, bad...)
	durable, exclusive, autoDelete := k.rand.IntN(4) > 0, k.rand.IntN(8) == 0, k.rand.IntN(8) == 0
	if k.rand.IntN(20) == 0 {
		name = ""
	}
	q, err := k.ch.QueueDeclare(name, durable, autoDelete, exclusive, false, args)
	k.answer(fmt.Sprintf("declare badly %s durable=%v exclusive=%v auto-delete=%v %v → %d %d", name, durable, exclusive, autoDelete, args, q.Messages, q.Consumers), err)
	if err == nil {
		_, err = k.ch.QueueDelete(q.Name, false, false, false)
		k.answer("delete it", err)
	}
}

func (k *talk) declareExchange() { k.declareExchangeNamed(pick(k.rand, exchangeNames...)) }

func (k *talk) declareExchangeNamed(name string) {
	name = k.prefix + name
	kind := pick(k.rand, "direct", "fanout", "topic", "headers", "direct", "fanout", "topic", "x-unknown")
	durable, autoDelete, internal := k.rand.IntN(2) > 0, k.rand.IntN(8) == 0, k.rand.IntN(12) == 0
	args := amqp.Table{}
	if k.rand.IntN(4) == 0 {
		args["alternate-exchange"] = pick[any](k.rand, k.prefix+"x", k.prefix+"y", "amq.fanout", "", int32(4))
	}
	if k.rand.IntN(10) == 0 {
		args["x-foo"] = "bar"
	}
	err := k.ch.ExchangeDeclare(name, kind, durable, autoDelete, internal, false, args)
	k.answer(fmt.Sprintf("declare exchange %s %s durable=%v auto-delete=%v internal=%v %v", name, kind, durable, autoDelete, internal, args), err)
}

func (k *talk) bindingArguments() amqp.Table {
	t := amqp.Table{}
	if k.rand.IntN(2) == 0 {
		t["x-match"] = pick[any](k.rand, "all", "any", "all-with-x", "any-with-x", "all", "any", "some", int32(1))
	}
	for range k.rand.IntN(3) {
		t[pick(k.rand, "h", "i", "x-h")] = k.value()
	}
	return t
}

func (k *talk) value() any {
	return pick[any](k.rand, int32(1), int64(1), int16(2), "1", "one", true, false, nil, 1.0, float32(1), []byte("one"), amqp.Table{"t": "u"}, byte(1))
}

func (k *talk) bind() {
	q, key, x, args := k.queue(), pick(k.rand, patterns...), k.exchange(), k.bindingArguments()
	k.answer(fmt.Sprintf("bind %s %q %s %v", q, key, x, args), k.ch.QueueBind(q, key, x, false, args))
}

func (k *talk) unbind() {
	q, key, x, args := k.queue(), pick(k.rand, patterns...), k.exchange(), k.bindingArguments()
	k.answer(fmt.Sprintf("unbind %s %q %s %v", q, key, x, args), k.ch.QueueUnbind(q, key, x, args))
}

func (k *talk) bindExchange() {
	// What lasts longer than the conversation is left alone.
	d, key, x, args := pick(k.rand, k.prefix+"missing", "", k.prefix+"x", k.prefix+"y", k.prefix+"z"), pick(k.rand, patterns...), k.exchange(), k.bindingArguments()
	if k.rand.IntN(4) == 0 {
		k.answer(fmt.Sprintf("unbind exchange %s %q %s %v", d, key, x, args), k.ch.ExchangeUnbind(d, key, x, false, args))
		return
	}
	k.answer(fmt.Sprintf("bind exchange %s %q %s %v", d, key, x, args), k.ch.ExchangeBind(d, key, x, false, args))
}

func (k *talk) message() amqp.Publishing {
	k.bodies++
	r := k.rand
	p := amqp.Publishing{Body: []byte(fmt.Sprintf("m%d", k.bodies)), Headers: amqp.Table{}}
	if r.IntN(6) == 0 {
		p.Body = append(p.Body, bytes.Repeat([]byte("."), r.IntN(30))...)
	}
	for range r.IntN(3) {
		p.Headers[pick(r, "h", "i", "x-h")] = k.value()
	}
	if r.IntN(8) == 0 {
		p.Headers["CC"] = pick[any](r, []any{k.key(), k.key()}, []any{k.queue()}, []any{}, "k", []any{int32(1), k.queue()})
	}
	if r.IntN(8) == 0 {
		p.Headers["BCC"] = pick[any](r, []any{k.key(), k.key()}, []any{k.queue()}, []any{k.key(), k.key()}, []any{k.queue()}, int32(1))
	}
	if r.IntN(3) == 0 {
		p.DeliveryMode = pick[uint8](r, 1, 2, 2, 0)
	}
	if r.IntN(4) == 0 {
		p.Priority = pick[uint8](r, 0, 1, 2, 3, 9, 255)
	}
	if r.IntN(12) == 0 {
		p.Expiration = pick(r, "60000", "100000", "x", "-1", " 1", "1.5", "315360000001")
	}
	if r.IntN(8) == 0 {
		p.MessageId, p.CorrelationId, p.ReplyTo, p.Type, p.AppId = "id", "corr", "reply", "type", "app"
		p.ContentType, p.ContentEncoding, p.Timestamp = "text/plain", "utf-8", time.Unix(1700000000, 0)
	}
	if r.IntN(25) == 0 {
		p.UserId = pick(r, "guest", "other")
	}
	return p
}

func (k *talk) publish() {
	n := 1 + k.rand.IntN(3)
	for range n {
		x, key, mandatory := k.exchange(), k.key(), k.rand.IntN(3) == 0
		if k.rand.IntN(2) == 0 {
			x, key = "", k.queue()
		}
		p := k.message()
		what := fmt.Sprintf("publish %q %q mandatory=%v %s", x, key, mandatory, describe(&p))
		err := k.ch.Publish(x, key, mandatory, false, p)
		if err == nil && k.confirm {
			select {
			case c, ok := <-k.confirms:
				if ok {
					what += fmt.Sprintf(" confirmed=%v", c.Ack)
				}
			case <-time.After(5 * time.Second):
				what += " never confirmed"
			}
		}
		k.fence()
		k.answer(what, err)
		k.returned()
	}
	time.Sleep(settle / 2)
}

func (k *talk) fence() { _ = k.ch.Flow(true) }

func (k *talk) returned() {
	for {
		select {
		case r, ok := <-k.returns:
			if !ok {
				return
			}
			k.say("returned %d %s %q %q %s", r.ReplyCode, r.ReplyText, r.Exchange, r.RoutingKey, r.Body)
		default:
			return
		}
	}
}

func (k *talk) get() {
	q, noAck := k.queue(), k.rand.IntN(2) == 0
	d, ok, err := k.ch.Get(q, noAck)
	what := fmt.Sprintf("get %s no-ack=%v", q, noAck)
	if ok && err == nil {
		what += fmt.Sprintf(" → tag %d left %d %s", d.DeliveryTag, d.MessageCount, k.delivered(&d))
		if !noAck {
			k.unacked = append(k.unacked, d.DeliveryTag)
		}
	}
	k.answer(what, err)
}

func (k *talk) settleOne() {
	tag, multiple := uint64(0), k.rand.IntN(4) == 0
	if len(k.unacked) > 0 {
		i := k.rand.IntN(len(k.unacked))
		tag = k.unacked[i]
		if multiple {
			k.unacked = k.unacked[i+1:]
		} else {
			k.unacked = append(k.unacked[:i:i], k.unacked[i+1:]...)
		}
	} else if k.rand.IntN(3) > 0 {
		return
	}
	if k.rand.IntN(40) == 0 {
		tag += 1000
	}
	var err error
	what := ""
	requeue := k.rand.IntN(2) == 0
	switch k.rand.IntN(3) {
	case 0:
		what, err = "ack", k.ch.Ack(tag, multiple)
	case 1:
		what, err = fmt.Sprintf("nack requeue=%v", requeue), k.ch.Nack(tag, multiple, requeue)
	case 2:
		what, err = fmt.Sprintf("reject requeue=%v", requeue), k.ch.Reject(tag, requeue)
	}
	k.fence()
	time.Sleep(settle)
	k.answer(fmt.Sprintf("%s tag %d multiple=%v", what, tag, multiple), err)
}

func (k *talk) consume() {
	q, tag := k.queue(), pick(k.rand, "t1", "t2", "t3", "")
	if k.rand.IntN(3) > 0 && len(k.consumers) > 0 {
		return
	}
	noAck, exclusive := k.rand.IntN(3) == 0, k.rand.IntN(6) == 0
	if k.global {
		noAck = false // in RabbitMQ the limit holds back those that it does not count, too
	}
	args := amqp.Table{}
	if k.rand.IntN(8) == 0 {
		args["x-priority"] = pick[any](k.rand, int32(1), int32(-1), "high")
	}
	if tag == "" {
		tag = "t4"
	}
	if _, ok := k.consumers[tag]; ok {
		return // the client would be confused
	}
	c, err := k.ch.Consume(q, tag, noAck, exclusive, false, false, args)
	if err == nil {
		k.consumers[tag] = c
	}
	k.answer(fmt.Sprintf("consume %s %s no-ack=%v exclusive=%v %v", q, tag, noAck, exclusive, args), err)
	k.observe()
}

func (k *talk) cancel() {
	tag := pick(k.rand, "t1", "t2", "t3", "t4")
	if c, ok := k.consumers[tag]; ok {
		k.deliveries(tag, c)
		delete(k.consumers, tag)
	}
	k.answer("cancel "+tag, k.ch.Cancel(tag, false))
}

func (k *talk) purge() {
	q := k.queue()
	n, err := k.ch.QueuePurge(q, false)
	k.answer(fmt.Sprintf("purge %s → %d", q, n), err)
}

func (k *talk) deleteQueue() {
	q, ifUnused, ifEmpty := k.queue(), k.rand.IntN(3) == 0, k.rand.IntN(3) == 0
	n, err := k.ch.QueueDelete(q, ifUnused, ifEmpty, false)
	k.answer(fmt.Sprintf("delete queue %s if-unused=%v if-empty=%v → %d", q, ifUnused, ifEmpty, n), err)
	time.Sleep(settle)
}

func (k *talk) deleteExchange() {
	x, ifUnused := k.exchange(), k.rand.IntN(2) == 0
	k.answer(fmt.Sprintf("delete exchange %s if-unused=%v", x, ifUnused), k.ch.ExchangeDelete(x, ifUnused, false))
}

func (k *talk) qos() {
	n, global := k.rand.IntN(4), k.rand.IntN(3) == 0
	if len(k.unacked) > 0 {
		global = false // RabbitMQ counts what was got before and never forgets it
	}
	k.global = k.global || global
	k.answer(fmt.Sprintf("qos %d global=%v", n, global), k.ch.Qos(n, 0, global))
	k.observe()
}

func (k *talk) recover() {
	k.unacked = nil
	k.answer("recover", k.ch.Recover(true))
	k.observe()
}

func (k *talk) txStep() {
	if k.confirm && k.rand.IntN(6) > 0 {
		return
	}
	var err error
	what := ""
	switch k.rand.IntN(3) {
	case 0:
		what, err = "tx.select", k.ch.Tx()
	case 1:
		what, err = "tx.commit", k.ch.TxCommit()
	case 2:
		what, err = "tx.rollback", k.ch.TxRollback()
	}
	time.Sleep(settle)
	k.answer(what, err)
	k.returned()
}

func (k *talk) passive() {
	if k.rand.IntN(3) == 0 {
		x := k.exchange()
		k.answer("passive exchange "+x, k.ch.ExchangeDeclarePassive(x, "direct", false, false, false, false, nil))
		return
	}
	q := k.queue()
	got, err := k.ch.QueueDeclarePassive(q, false, false, false, false, nil)
	k.answer(fmt.Sprintf("passive queue %s → %d %d", q, got.Messages, got.Consumers), err)
}

func (k *talk) reopen() {
	k.observe()
	if k.rand.IntN(2) == 0 {
		k.answer("close channel", k.ch.Close())
	} else {
		k.answer("close connection", k.conn.Close())
	}
	time.Sleep(settle)
}

func (k *talk) observe() {
	time.Sleep(settle)
	for _, tag := range []string{"t1", "t2", "t3", "t4"} {
		if c, ok := k.consumers[tag]; ok {
			k.deliveries(tag, c)
		}
	}
	k.returned()
	probe, err := k.conn.Channel()
	if err != nil {
		k.answer("observe", err)
		return
	}
	for _, q := range queueNames {
		got, err := probe.QueueDeclarePassive(k.prefix+q, false, false, false, false, nil)
		if err != nil {
			k.say("queue %s: %v", q, err)
			if k.conn.IsClosed() {
				k.heal()
				return
			}
			if probe, err = k.conn.Channel(); err != nil {
				return
			}
			continue
		}
		if q == "d" && *quorum {
			got.Consumers = 0 // RabbitMQ counts who has got messages
		}
		k.say("queue %s holds %d, has %d", q, got.Messages, got.Consumers)
	}
	_ = probe.Close()
	k.heal()
}

func (k *talk) drain() {
	_ = k.ch.Close()
	if k.conn.IsClosed() || k.channel() != nil {
		return
	}
	time.Sleep(settle)
	for _, q := range queueNames {
		for range 200 {
			d, ok, err := k.ch.Get(k.prefix+q, true)
			if err != nil {
				k.say("drain %s: %v", q, err)
				k.heal()
				break
			}
			if !ok {
				break
			}
			k.say("drained %s %s", q, k.delivered(&d))
		}
	}
}
