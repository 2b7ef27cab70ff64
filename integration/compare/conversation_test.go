package compare

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// settle is how long a broker is given to do what it does behind its answers: to dead-letter, expire, deliver.
const settle = 100 * time.Millisecond

// knownDifference is what a side says last if the other may go on in another way.
const knownDifference = "from here on they differ for a known reason"

// talk is one side of a conversation. Both sides draw the same random numbers as long as the brokers say the same.
type talk struct {
	rand   *rand.Rand
	broker address
	prefix string
	said   []string

	conn      *amqp.Connection
	ch        *amqp.Channel
	confirms  chan amqp.Confirmation
	returns   chan amqp.Return
	closed    chan *amqp.Error
	confirm   bool
	unacked   []uint64
	consumers map[string]<-chan amqp.Delivery
	bodies    int
	over      bool // from here on they differ for a known reason
	quorum    bool // the next queue is to be one
	global    bool // the channel has a limit for all its consumers
}

func (k *talk) connect() (err error) {
	if k.conn, err = amqp.DialConfig(k.broker.amqp, amqp.Config{Heartbeat: 30 * time.Second}); err != nil {
		return err
	}
	return k.channel()
}

func (k *talk) channel() (err error) {
	if k.ch, err = k.conn.Channel(); err != nil {
		return err
	}
	k.returns = k.ch.NotifyReturn(make(chan amqp.Return, 1000))
	k.closed = k.ch.NotifyClose(make(chan *amqp.Error, 1))
	cancels := k.ch.NotifyCancel(make(chan string, 100))
	go func() {
		for range cancels { //nolint:revive // the client blocks else
		}
	}()
	k.confirm, k.unacked, k.global = false, nil, false
	k.consumers = map[string]<-chan amqp.Delivery{}
	if k.rand.IntN(4) > 0 {
		if err := k.ch.Confirm(false); err != nil {
			return err
		}
		k.confirms = k.ch.NotifyPublish(make(chan amqp.Confirmation, 1000))
		k.confirm = true
	}
	return nil
}

var masks = []struct {
	re *regexp.Regexp
	by string
}{
	{regexp.MustCompile(`amq\.gen-[\w-]{22}`), "amq.gen-*"},
	{regexp.MustCompile(`inequivalent arg '\S+' for queue 'd'.*`), "inequivalent"}, // another one is named first
	{regexp.MustCompile(`amq\.ctag-[\w-]{22}`), "amq.ctag-*"},
}

func (k *talk) say(format string, args ...any) {
	if k.over {
		return
	}
	s := strings.ReplaceAll(fmt.Sprintf(format, args...), k.prefix, "")
	for _, m := range masks {
		s = m.re.ReplaceAllString(s, m.by)
	}
	k.said = append(k.said, s)
}

// answer says how an operation went and heals what it broke.
func (k *talk) answer(what string, err error) {
	var e *amqp.Error
	switch {
	case err == nil:
		k.say("%s: ok", what)
	case errors.As(err, &e):
		// Later errors say only that it is closed; the first says why.
		k.say("%s: %d %s", what, e.Code, e.Reason)
	default:
		k.say("%s: %v", what, err)
	}
	k.heal()
}

func (k *talk) heal() {
	var err error
	switch {
	case k.conn.IsClosed():
		k.say("connection closed")
		err = k.connect()
	case k.ch == nil:
		err = k.channel()
	case k.ch.IsClosed():
		select {
		case e := <-k.closed:
			if e != nil {
				k.say("channel closed: %d %s", e.Code, e.Reason)
			}
		case <-time.After(time.Second):
		}
		if err = k.channel(); err != nil { // the connection went with it
			k.say("connection closed")
			err = k.connect()
		}
	}
	if err != nil {
		panic(err)
	}
}

// key is a routing key, or the name of a queue.
// declareBadly declares with arguments that some type refuses.
// fence returns when the broker has read all that was sent.
// render writes a value with its type, fields by name, times of deaths not.
// deliveries says what a consumer has got.
func (k *talk) deliveries(tag string, c <-chan amqp.Delivery) {
	for {
		select {
		case d, ok := <-c:
			if !ok {
				k.say("consumer %s has ended", tag)
				delete(k.consumers, tag)
				return
			}
			k.unacked = append(k.unacked, d.DeliveryTag)
			k.say("%s got tag %d %s", tag, d.DeliveryTag, k.delivered(&d))
		case <-time.After(settle / 4): // the client hands them on one by one
			return
		}
	}
}

// observe says what consumers have got and what queues hold.
// drain takes everything out of the queues.
func (k *talk) clean() {
	if k.broker.management != "" {
		k.clearPolicies()
	}
	ch, err := k.conn.Channel()
	if err != nil {
		return
	}
	for _, q := range append(queueNames, "bad", "worse") {
		_, _ = ch.QueueDelete(k.prefix+q, false, false, false)
	}
	for _, x := range exchangeNames {
		_ = ch.ExchangeDelete(k.prefix+x, false, false)
	}
	for range 2 {
		_ = ch.Close()
	}
}
