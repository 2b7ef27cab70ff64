package integration

import (
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// refusal is a request that the broker must refuse, with this code and this text.
type refusal struct {
	name string
	// do makes the request on a fresh channel of a fresh connection. What it needs before, it
	// makes itself; it reports nothing, the exception is awaited by the caller.
	do func(t *testing.T, s *scene)
	// code decides the scope as well: hard errors close the connection, soft ones the channel.
	code int
	// text is the whole reply-text; {q} {q2} {x} {x2} {vhost} {user} stand for the names. At its
	// end "…" stands for anything.
	text string
	// unless names a known difference under which the request succeeds, or fails elsewise.
	unless string
}

// scene is what a refusal works with.
type scene struct {
	conn *amqp.Connection
	ch   *amqp.Channel
	// Names nobody has declared yet; the suite removes what stands under them.
	q, q2, x, x2 string
}

func (s *scene) expand(text string) string {
	return replyText(strings.NewReplacer("{q}", s.q, "{q2}", s.q2, "{x}", s.x, "{x2}", s.x2,
		"{vhost}", sut.uri.Vhost, "{user}", sut.uri.Username).Replace(text))
}

// replyText cuts a text that does not fit in a short string, as RabbitMQ does.
func replyText(text string) string {
	if len(text) > 255 {
		return text[:252] + "..."
	}
	return text
}

// declare makes the scene's queue: durable, so that other connections may use it.
func (s *scene) declare(t *testing.T, args amqp.Table) {
	t.Helper()
	_, err := s.ch.QueueDeclare(s.q, true, false, false, false, args)
	must(t, err)
}

func (s *scene) declareExchange(t *testing.T, kind string) {
	t.Helper()
	must(t, s.ch.ExchangeDeclare(s.x, kind, false, false, false, false, nil))
}

// hard tells whether a reply code closes the connection (AMQP 0-9-1 §1.2, as RabbitMQ scopes them).
func hard(code int) bool {
	switch code {
	case amqp.ContentTooLarge, amqp.NoRoute, amqp.NoConsumers, amqp.AccessRefused, amqp.NotFound,
		amqp.ResourceLocked, amqp.PreconditionFailed:
		return false
	}
	return true
}

// refuse runs every case as a parallel subtest.
func refuse(t *testing.T, cases []refusal) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.unless != "" && differs(t, c.unless) {
				t.Skipf("known difference %q", c.unless)
			}
			c.run(t)
		})
	}
}

func (c refusal) run(t *testing.T) {
	conn := dial(t)
	s := &scene{
		conn: conn, ch: channel(t, conn),
		q: uniqueName("q"), q2: uniqueName("q2"), x: uniqueName("x"), x2: uniqueName("x2"),
	}
	t.Cleanup(func() {
		_ = conn.Close() // exclusive queues go first
		admin.do(func(ch *amqp.Channel) {
			for _, q := range []string{s.q, s.q2} {
				_, _ = ch.QueueDelete(q, false, false, false)
			}
			for _, x := range []string{s.x, s.x2} {
				_ = ch.ExchangeDelete(x, false, false)
			}
		})
	})
	closed := s.ch.NotifyClose(make(chan *amqp.Error, 1))
	c.do(t, s)
	e := await(t, "exception", closed)
	start, open := strings.CutSuffix(c.text, "…")
	if e.Code != c.code || !open && e.Reason != s.expand(c.text) || !strings.HasPrefix(e.Reason, s.expand(start)) {
		t.Errorf("refused with %d %q\nwant         %d %q", e.Code, e.Reason, c.code, s.expand(c.text))
	}
	if hard(c.code) {
		eventually(t, func() error {
			if !conn.IsClosed() {
				return errOpen
			}
			return nil
		})
		return
	}
	// Only the channel is gone: the connection, and the number, can be used again.
	next := channel(t, conn)
	if _, err := next.QueueDeclare("", false, false, true, false, nil); err != nil {
		t.Errorf("the connection is not usable after the exception: %v", err)
	}
}
