// The scenarios of integration/clients/README.md through RabbitMQ's Go client, as its users write them.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"clients/checks"
	amqp "github.com/rabbitmq/amqp091-go"
)

func main() {
	checks.Run(
		checks.Check{Name: "recovery", Needs: "AMQP_CTL", Run: recovery},
		check("confirms", confirms),
		check("returns", returns),
		check("prefetch", prefetch),
		check("retry", retry),
		check("rpc", rpc),
		checks.Check{Name: "blocked", Needs: "AMQP_CTL", Run: func() error { return checks.WithChannel(blocked) }},
		checks.Check{Name: "tls", Needs: "AMQPS_URL", Run: secure},
		check("cancel", cancel),
		check("bodies", bodies),
		check("headers", headers),
	)
}

// check gives f a connection of its own and a channel.
func check(name string, f func(*amqp.Connection, *amqp.Channel) error) checks.Check {
	return checks.Check{Name: name, Run: func() error { return checks.WithChannel(f) }}
}

func persistent(body string) amqp.Publishing {
	return amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte(body)}
}

// publish waits for the confirm.
func publish(ch *amqp.Channel, exchange, key string, p amqp.Publishing) error {
	ctx, stop := context.WithTimeout(context.Background(), checks.Patience)
	defer stop()
	c, err := ch.PublishWithDeferredConfirm(exchange, key, false, false, p)
	if err != nil {
		return err
	}
	if ok, err := c.WaitContext(ctx); err != nil || !ok {
		return fmt.Errorf("not confirmed: %w", errors.Join(err, amqp.ErrClosed))
	}
	return nil
}

func exclusive(ch *amqp.Channel) (string, error) {
	q, err := ch.QueueDeclare("", false, false, true, false, nil)
	return q.Name, err
}

// session is what a loop around Dial makes anew.
type session struct {
	conn       *amqp.Connection
	ch         *amqp.Channel
	deliveries <-chan amqp.Delivery
}

func dial(queue, exchange string) (*session, error) {
	conn, err := amqp.Dial(checks.URL)
	if err != nil {
		return nil, err
	}
	s := &session{conn: conn}
	if err := s.declare(queue, exchange); err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

func (s *session) declare(queue, exchange string) (err error) {
	if s.ch, err = s.conn.Channel(); err != nil {
		return err
	}
	if err := s.ch.ExchangeDeclare(exchange, "topic", true, false, false, false, nil); err != nil {
		return err
	}
	if _, err := s.ch.QueueDeclare(queue, true, false, false, false, nil); err != nil {
		return err
	}
	if err := s.ch.QueueBind(queue, "a.#", exchange, false, nil); err != nil {
		return err
	}
	// Of a dead connection it is free at once.
	if _, err := s.ch.QueueDeclare(checks.Name("recovery-mine"), false, false, true, false, nil); err != nil {
		return err
	}
	if err := s.ch.Qos(10, 0, false); err != nil {
		return err
	}
	if s.deliveries, err = s.ch.Consume(queue, "", false, false, false, false, nil); err != nil {
		return err
	}
	return s.ch.Confirm(false)
}

func recovery() error {
	queue, exchange := checks.Name("recovery"), checks.Name("recovery-x")
	var s *session
	redial := func() error {
		return checks.Eventually(func() (err error) { s, err = dial(queue, exchange); return err })
	}
	if err := redial(); err != nil {
		return err
	}
	published, got := map[string]int{}, map[string]bool{}
	for i := range 300 {
		if i == 100 || i == 200 {
			if err := errors.Join(checks.Broker("kill"), checks.Broker("start")); err != nil {
				return err
			}
		}
		body := strconv.Itoa(i)
		if err := checks.Eventually(func() error {
			published[body]++
			err := publish(s.ch, exchange, "a.b", persistent(body))
			if err != nil {
				return errors.Join(err, redial())
			}
			return nil
		}); err != nil {
			return err
		}
	}
	for len(got) < len(published) {
		d, err := checks.Next(s.deliveries)
		if err != nil {
			if err := redial(); err != nil {
				return err
			}
			continue
		}
		if body := string(d.Body); got[body] && !d.Redelivered && published[body] == 1 {
			return fmt.Errorf("message %s came twice and is not flagged", body)
		}
		got[string(d.Body)] = true
		_ = d.Ack(false) // or it comes again
	}
	if _, err := s.ch.QueueDelete(queue, false, false, false); err != nil {
		return err
	}
	return errors.Join(s.ch.ExchangeDelete(exchange, false, false), s.conn.Close())
}

func confirms(_ *amqp.Connection, ch *amqp.Channel) error {
	q, err := ch.QueueDeclare(checks.Name("confirms"), true, false, false, false, nil)
	if err != nil {
		return err
	}
	if err := ch.Confirm(false); err != nil {
		return err
	}
	var all []*amqp.DeferredConfirmation
	for i := range 1000 {
		c, err := ch.PublishWithDeferredConfirm("", q.Name, false, false, persistent(strconv.Itoa(i)))
		if err != nil {
			return err
		}
		all = append(all, c)
	}
	for _, c := range all {
		if !c.Wait() {
			return errors.New("nacked")
		}
	}
	n, err := ch.QueueDelete(q.Name, false, false, false)
	return errors.Join(err, checks.Equal(n, 1000))
}

func returns(_ *amqp.Connection, ch *amqp.Channel) error {
	returned, confirmed := ch.NotifyReturn(make(chan amqp.Return, 1)), ch.NotifyPublish(make(chan amqp.Confirmation, 2))
	q, err := exclusive(ch)
	if err := errors.Join(err, ch.Confirm(false)); err != nil {
		return err
	}
	if err := ch.Publish("", checks.Name("nobody"), true, false, persistent("lost")); err != nil {
		return err
	}
	c, err := checks.Next(confirmed)
	if err != nil {
		return err
	}
	select { // it has come before the confirm
	case r := <-returned:
		if err := checks.Equal([]any{r.ReplyCode, r.ReplyText, string(r.Body)}, []any{uint16(312), "NO_ROUTE", "lost"}); err != nil {
			return err
		}
	default:
		return errors.New("confirmed and not returned")
	}
	if err := ch.Publish("", q, true, false, persistent("found")); err != nil {
		return err
	}
	d, err := checks.Next(confirmed)
	return errors.Join(err, checks.Equal([]bool{c.Ack, d.Ack}, []bool{true, true}), checks.Equal(len(returned), 0))
}

func prefetch(_ *amqp.Connection, ch *amqp.Channel) error {
	q, err := exclusive(ch)
	if err := errors.Join(err, ch.Confirm(false)); err != nil {
		return err
	}
	for i := range 10 {
		if err := publish(ch, "", q, persistent(strconv.Itoa(i))); err != nil {
			return err
		}
	}
	if err := ch.Qos(5, 0, false); err != nil {
		return err
	}
	deliveries, err := ch.Consume(q, "", false, false, false, false, nil)
	if err != nil {
		return err
	}
	var got []amqp.Delivery
	come := func(count int) error {
		for len(got) < count {
			d, err := checks.Next(deliveries)
			if err != nil {
				return err
			}
			if err := checks.Equal(string(d.Body), strconv.Itoa(len(got))); err != nil {
				return err
			}
			got = append(got, d)
		}
		// What came beyond it would be here before this answer.
		_, err := ch.QueueDeclarePassive(q, false, false, true, false, nil)
		return errors.Join(err, checks.Equal(len(deliveries), 0))
	}
	if err := come(5); err != nil {
		return err
	}
	if err := got[0].Ack(false); err != nil {
		return err
	}
	if err := come(6); err != nil {
		return err
	}
	return errors.Join(got[5].Ack(true), come(10))
}

func retry(_ *amqp.Connection, ch *amqp.Channel) error {
	work, wait := checks.Name("work"), checks.Name("wait")
	_, err := ch.QueueDeclare(work, false, false, true, false, amqp.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": wait})
	if err != nil {
		return err
	}
	_, err = ch.QueueDeclare(wait, false, false, true, false, amqp.Table{
		"x-message-ttl": 50, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": work,
	})
	if err != nil {
		return err
	}
	deliveries, err := ch.Consume(work, "", false, false, false, false, nil)
	if err != nil {
		return err
	}
	if err := ch.Publish("", work, false, false, persistent("job")); err != nil {
		return err
	}
	for try := range int64(4) {
		d, err := checks.Next(deliveries)
		if err != nil {
			return err
		}
		count := int64(0)
		deaths, _ := d.Headers["x-death"].([]any)
		for _, death := range deaths {
			if t := death.(amqp.Table); t["queue"] == work && t["reason"] == "rejected" {
				count = t["count"].(int64)
			}
		}
		if err := errors.Join(checks.Equal(count, try), d.Reject(false)); err != nil {
			return err
		}
	}
	return nil
}

func rpc(conn *amqp.Connection, client *amqp.Channel) error {
	server, err := conn.Channel()
	if err != nil {
		return err
	}
	q, err := server.QueueDeclare(checks.Name("rpc"), false, false, true, false, nil)
	if err != nil {
		return err
	}
	requests, err := server.Consume(q.Name, "", true, false, false, false, nil)
	if err != nil {
		return err
	}
	go func() {
		for d := range requests {
			n, _ := strconv.Atoi(string(d.Body))
			_ = server.Publish("", d.ReplyTo, false, false, amqp.Publishing{CorrelationId: d.CorrelationId, Body: []byte(strconv.Itoa(2 * n))})
		}
	}()
	replies, err := client.Consume("amq.rabbitmq.reply-to", "", true, false, false, false, nil)
	if err != nil {
		return err
	}
	for i := range 20 {
		n := strconv.Itoa(i)
		if err := client.Publish("", q.Name, false, false, amqp.Publishing{CorrelationId: n, ReplyTo: "amq.rabbitmq.reply-to", Body: []byte(n)}); err != nil {
			return err
		}
	}
	got, want := map[string]string{}, map[string]string{}
	for i := range 20 {
		d, err := checks.Next(replies)
		if err != nil {
			return err
		}
		got[d.CorrelationId], want[strconv.Itoa(i)] = string(d.Body), strconv.Itoa(2*i)
	}
	return checks.Equal(got, want)
}

func blocked(conn *amqp.Connection, ch *amqp.Channel) error {
	notices := conn.NotifyBlocked(make(chan amqp.Blocking, 10))
	q, err := ch.QueueDeclare(checks.Name("blocked"), true, false, false, false, nil)
	if err := errors.Join(err, ch.Confirm(false), publish(ch, "", q.Name, persistent("before")), checks.Broker("block")); err != nil {
		return err
	}
	defer checks.Broker("unblock")                                                             //nolint:errcheck // if anything fails
	first, err := ch.PublishWithDeferredConfirm("", q.Name, false, false, persistent("first")) // by which a broker may notice
	if err != nil {
		return err
	}
	n, err := checks.Next(notices)
	if err := errors.Join(err, checks.Equal(n, amqp.Blocking{Active: true, Reason: "low on memory"})); err != nil {
		return err
	}
	held, err := ch.PublishWithDeferredConfirm("", q.Name, false, false, persistent("held"))
	if err != nil {
		return err
	}
	other, err := amqp.Dial(checks.URL)
	if err != nil {
		return err
	}
	defer other.Close()
	consumer, err := other.Channel()
	if err != nil {
		return err
	}
	deliveries, err := consumer.Consume(q.Name, "", true, false, false, false, nil)
	if err != nil {
		return err
	}
	for i, want := range []string{"before", "first", "held"} {
		d, err := checks.Next(deliveries)
		if err := errors.Join(err, checks.Equal(string(d.Body), want)); err != nil {
			return err
		}
		if i > 0 {
			continue
		}
		if err := errors.Join(checks.Equal(held.Acked(), false), checks.Broker("unblock")); err != nil {
			return err
		}
		n, err := checks.Next(notices)
		if err := errors.Join(err, checks.Equal(n.Active, false)); err != nil {
			return err
		}
	}
	_, err = ch.QueueDelete(q.Name, false, false, false)
	return errors.Join(err, checks.Equal([]bool{first.Wait(), held.Wait()}, []bool{true, true}))
}

func secure() error {
	file := func(name string) string { return filepath.Join(os.Getenv("BROKER_TLS"), name+".pem") }
	ca, err := os.ReadFile(file("ca"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	dial := func(certificate string) (*amqp.Connection, error) {
		c := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
		if certificate != "" {
			pair, err := tls.LoadX509KeyPair(file(certificate), file(certificate+"-key"))
			if err != nil {
				return nil, err
			}
			c.Certificates = []tls.Certificate{pair}
		}
		return amqp.DialTLS(os.Getenv("AMQPS_URL"), c)
	}
	conn, err := dial("client")
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	q, err := exclusive(ch)
	if err := errors.Join(err, ch.Confirm(false), publish(ch, "", q, persistent("safe"))); err != nil {
		return err
	}
	d, _, err := ch.Get(q, true)
	if err := errors.Join(err, checks.Equal(string(d.Body), "safe")); err != nil {
		return err
	}
	for _, certificate := range []string{"other", ""} {
		if _, err := dial(certificate); err == nil {
			return fmt.Errorf("connected with %q", certificate)
		}
	}
	return nil
}

func cancel(conn *amqp.Connection, ch *amqp.Channel) error {
	q, err := ch.QueueDeclare(checks.Name("gone"), true, false, false, false, nil)
	if err != nil {
		return err
	}
	cancelled := ch.NotifyCancel(make(chan string, 1))
	if _, err := ch.Consume(q.Name, "tag", false, false, false, false, nil); err != nil {
		return err
	}
	other, err := conn.Channel()
	if err != nil {
		return err
	}
	if _, err := other.QueueDelete(q.Name, false, false, false); err != nil {
		return err
	}
	tag, err := checks.Next(cancelled)
	return errors.Join(err, checks.Equal(tag, "tag"))
}

func bodies(_ *amqp.Connection, ch *amqp.Channel) error {
	q, err := exclusive(ch)
	if err := errors.Join(err, ch.Confirm(false)); err != nil {
		return err
	}
	for _, size := range []int{0, 1, 131072 - 8, 131072 - 7, 131072, 4 << 20} {
		body := make([]byte, size)
		rand.Read(body)
		if err := publish(ch, "", q, amqp.Publishing{Body: body}); err != nil {
			return err
		}
		d, _, err := ch.Get(q, true)
		if err := errors.Join(err, checks.Equal(len(d.Body), size), checks.Equal(bytes.Equal(d.Body, body), true)); err != nil {
			return err
		}
	}
	return nil
}

func headers(_ *amqp.Connection, ch *amqp.Channel) error {
	q, err := exclusive(ch)
	if err := errors.Join(err, ch.Confirm(false)); err != nil {
		return err
	}
	uri, err := amqp.ParseURI(checks.URL)
	if err != nil {
		return err
	}
	sent := amqp.Publishing{
		Headers: amqp.Table{
			"true": true, "false": false, "int8": int8(-8), "uint8": byte(200), "int16": int16(-300), "int32": int32(-70000), "int64": int64(-1) << 62,
			"float": float32(0.5), "double": 1.25, "decimal": amqp.Decimal{Scale: 2, Value: 12345}, "text": "grün 🐇", "empty": "", "null": nil,
			"bytes": []byte{0, 255}, "time": time.Unix(1700000000, 0), "table": amqp.Table{"in": amqp.Table{"deeper": int32(1)}},
			"list": []any{int32(1), "two", []any{int64(3)}, amqp.Table{"four": int32(4)}},
		},
		ContentType: "text/plain", ContentEncoding: "utf-8", DeliveryMode: 2, Priority: 9, CorrelationId: "c", ReplyTo: "r", Expiration: "100000",
		MessageId: "m", Timestamp: time.Unix(1700000000, 0), Type: "t", UserId: uri.Username, AppId: "a", Body: []byte("x"),
	}
	if err := publish(ch, "", q, sent); err != nil {
		return err
	}
	d, _, err := ch.Get(q, true)
	if err != nil {
		return err
	}
	for key, want := range sent.Headers {
		if err := checks.Equal(d.Headers[key], want); err != nil {
			return fmt.Errorf("header %s: %w", key, err)
		}
	}
	return errors.Join(checks.Equal(len(d.Headers), len(sent.Headers)), checks.Equal(
		[]any{d.ContentType, d.ContentEncoding, d.DeliveryMode, d.Priority, d.CorrelationId, d.ReplyTo, d.Expiration, d.MessageId, d.Timestamp, d.Type, d.UserId, d.AppId},
		[]any{sent.ContentType, sent.ContentEncoding, sent.DeliveryMode, sent.Priority, sent.CorrelationId, sent.ReplyTo, sent.Expiration, sent.MessageId, sent.Timestamp, sent.Type, sent.UserId, sent.AppId},
	))
}
