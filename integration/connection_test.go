package integration

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func TestServerProperties(t *testing.T) {
	t.Parallel()
	conn := dial(t)
	if conn.Major != 0 || conn.Minor != 9 {
		t.Errorf("protocol %d-%d", conn.Major, conn.Minor)
	}
	for _, key := range []string{"product", "version", "platform", "information", "copyright", "cluster_name"} {
		if s, ok := conn.Properties[key].(string); !ok || s == "" {
			t.Errorf("%s is %#v", key, conn.Properties[key])
		}
	}
	capabilities, _ := conn.Properties["capabilities"].(amqp.Table)
	for _, name := range []string{
		"publisher_confirms", "exchange_exchange_bindings", "basic.nack", "consumer_cancel_notify", "connection.blocked",
		"consumer_priorities", "authentication_failure_close", "per_consumer_qos", "direct_reply_to",
	} {
		if capabilities[name] != true {
			t.Errorf("capability %s is %#v", name, capabilities[name])
		}
	}
}

func TestStartOffersMechanismsAndLocale(t *testing.T) {
	t.Parallel()
	c := wireTCP(t)
	c.write([]byte("AMQP\x00\x00\x09\x01"))
	r := c.expect(0, connectionStart)
	if major, minor := r.octet(), r.octet(); major != 0 || minor != 9 {
		t.Fatalf("version %d-%d", major, minor)
	}
	r.longstr() // server-properties
	mechanisms := strings.Fields(r.longstr())
	offered := map[string]bool{}
	for _, m := range mechanisms {
		offered[m] = true
	}
	if !offered["PLAIN"] || !offered["AMQPLAIN"] {
		t.Errorf("mechanisms %q", mechanisms)
	}
	if locales := r.longstr(); locales != "en_US" {
		t.Errorf("locales %q", locales)
	}
}

func TestTuneProposal(t *testing.T) {
	t.Parallel()
	c := wireTCP(t)
	c.login(allCapabilities)
	r := c.expect(0, connectionTune)
	if channelMax, frameMax, heartbeat := r.short(), r.long(), r.short(); channelMax != 2047 || frameMax != 131072 || heartbeat != 60 {
		t.Fatalf("proposes channel_max %d, frame_max %d, heartbeat %d", channelMax, frameMax, heartbeat)
	}
}

func TestAMQPLAIN(t *testing.T) {
	t.Parallel()
	conn := dialConfig(t, sut.url, amqp.Config{SASL: []amqp.Authentication{
		&amqp.AMQPlainAuth{Username: sut.uri.Username, Password: sut.uri.Password},
	}})
	channel(t, conn)
}

func TestBadCredentials(t *testing.T) {
	t.Parallel()
	for name, auth := range map[string]amqp.Authentication{
		"wrong password": &amqp.PlainAuth{Username: sut.uri.Username, Password: "wrong"},
		"unknown user":   &amqp.PlainAuth{Username: "nobody", Password: sut.uri.Password},
		"empty password": &amqp.PlainAuth{Username: sut.uri.Username, Password: ""},
		"amqplain":       &amqp.AMQPlainAuth{Username: sut.uri.Username, Password: "wrong"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := wireTCP(t)
			c.write([]byte("AMQP\x00\x00\x09\x01"))
			c.expect(0, connectionStart)
			properties := args{}.name("capabilities").octet('F').table(args{}.name("authentication_failure_close").octet('t').octet(1))
			c.send(0, connectionStartOk, args{}.table(properties).shortstr(auth.Mechanism()).longstr(auth.Response()).shortstr("en_US"))
			c.wantClose(0, 403, "ACCESS_REFUSED - Login was refused using authentication mechanism "+auth.Mechanism()+
				". For details see the broker logfile.")
			c.wantEOF()
		})
	}
}

func TestBadCredentialsWithoutTheCapability(t *testing.T) {
	t.Parallel()
	c := wireTCP(t)
	c.write([]byte("AMQP\x00\x00\x09\x01"))
	c.expect(0, connectionStart)
	c.send(0, connectionStartOk, args{}.emptyTable().shortstr("PLAIN").longstr("\x00nobody\x00nothing").shortstr("en_US"))
	c.wantEOF()
}

func TestUnknownVhost(t *testing.T) {
	t.Parallel()
	c := wireTCP(t)
	c.login(allCapabilities)
	tune := c.expect(0, connectionTune)
	c.send(0, connectionTuneOk, args{}.short(tune.short()).long(tune.long()).short(0))
	c.send(0, connectionOpen, args{}.shortstr("no-such-vhost").shortstr("").octet(0))
	c.wantClose(0, 530, "NOT_ALLOWED - vhost no-such-vhost not found")
	c.wantEOF()
}

func TestChannelMaxIsEnforced(t *testing.T) {
	t.Parallel()
	c := wireTCP(t)
	c.handshake(wireOptions{channelMax: 3})
	for _, n := range []uint16{1, 2, 3} {
		c.openChannel(n)
	}
	c.send(4, channelOpen, args{}.shortstr(""))
	c.wantClose(0, 530, "NOT_ALLOWED - number of channels opened (3) has reached the negotiated channel_max (3)")
	c.wantEOF()
}

func TestSmallestFrameMax(t *testing.T) {
	t.Parallel()
	smallest := uint32(4096)
	if differs(t, "frame-max-minimum") {
		smallest = 8192
	}
	c := wireTCP(t)
	c.handshake(wireOptions{frameMax: smallest})
	c.openChannel(1)
	q := c.declare(1)
	body := strings.Repeat("x", 3*int(smallest))
	c.publish(1, publishArgs("", q, false, false), nil, body)
	c.consume(1, q, "c", true)
	if d := c.deliver(1); string(d.body) != body {
		t.Fatal("the body has changed")
	}
}

func TestTuneOkOutsideOfTheLimitsIsRefused(t *testing.T) {
	t.Parallel()
	for name, tuneOk := range map[string]args{
		"frame_max over the proposal":   args{}.short(2047).long(131073).short(0),
		"frame_max without limit":       args{}.short(2047).long(0).short(0),
		"frame_max too small":           args{}.short(2047).long(4095).short(0),
		"channel_max over the proposal": args{}.short(2048).long(131072).short(0),
		"channel_max without limit":     args{}.short(0).long(131072).short(0),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := wireTCP(t)
			c.login(allCapabilities)
			c.expect(0, connectionTune)
			c.send(0, connectionTuneOk, tuneOk)
			c.send(0, connectionOpen, args{}.shortstr(sut.uri.Vhost).shortstr("").octet(0))
			if strings.HasSuffix(name, "without limit") && !differs(t, "tune-zero") {
				c.expect(0, connectionOpenOk)
				return
			}
			if differs(t, "tune-refusal") {
				c.wantEOF()
				return
			}
			r := c.expect(0, connectionClose)
			if code, text := r.short(), r.shortstr(); code != 530 || !strings.Contains(text, "negotiated") {
				t.Fatalf("refused with %d %q", code, text)
			}
			c.send(0, connectionCloseOk, nil)
			c.wantEOF()
		})
	}
}

func TestUnknownProtocolHeader(t *testing.T) {
	t.Parallel()
	for name, header := range map[string]string{
		"AMQP 0-8": "AMQP\x01\x01\x08\x00", "AMQP 9-9": "AMQP\x09\x09\x00\x00", "HTTP": "GET / HTTP/1.1\r\n\r\n", "TLS": "\x16\x03\x01\x02\x00\x01\x00\x01",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := wireTCP(t)
			c.write([]byte(header))
			must(t, c.nc.SetReadDeadline(time.Now().Add(patience)))
			got := make([]byte, 8)
			if _, err := io.ReadFull(c.r, got); err != nil {
				t.Fatal(err)
			}
			want := "AMQP\x00\x00\x09\x01"
			if differs(t, "protocol-header") {
				want = "AMQP\x03\x01\x00\x00"
			}
			if string(got) != want {
				t.Fatalf("answered with %q, want %q", got, want)
			}
			if _, err := c.r.ReadByte(); err == nil || isTimeout(err) {
				t.Fatalf("the connection is not closed: %v", err)
			}
		})
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

func TestConnectionCloseIsAnswered(t *testing.T) {
	t.Parallel()
	c := wireDial(t)
	q := c.declare(1)
	c.consume(1, q, "c", false)
	c.send(0, connectionClose, args{}.short(200).shortstr("bye").short(0).short(0))
	c.expect(0, connectionCloseOk)
	awaitRelease(t, q)
}

// awaitRelease checks that an exclusive queue went with its connection, which has been closed.
func awaitRelease(t *testing.T, queue string) {
	t.Helper()
	conn := dial(t)
	check := func() error {
		_, err := channel(t, conn).QueueDeclarePassive(queue, false, false, true, false, nil)
		switch {
		case err == nil:
			return fmt.Errorf("the exclusive queue %q is there after its connection", queue)
		case amqpError(t, err).Code != amqp.NotFound:
			return err
		}
		return nil
	}
	if differs(t, "exclusive-release") {
		eventually(t, check)
		return
	}
	must(t, check())
}

func TestConnectionExceptionIgnoresEverythingUntilCloseOk(t *testing.T) {
	t.Parallel()
	c := wireDial(t)
	q := c.declare(1)
	c.send(1, basicQos, args{}.long(1).short(1).bits(false))
	r := c.expect(0, connectionClose)
	if code, text, class, method := r.short(), r.shortstr(), r.short(), r.short(); code != 540 || class != 60 || method != 10 {
		t.Fatalf("closed with %d %q by %d.%d", code, text, class, method)
	}
	c.publish(1, publishArgs("", q, false, false), nil, "ignored")
	c.openChannelUnanswered(2)
	c.send(0, connectionCloseOk, nil)
	c.wantEOF()
}

// openChannelUnanswered sends channel.open only.
func (c *wireConn) openChannelUnanswered(n uint16) {
	c.t.Helper()
	c.send(n, channelOpen, args{}.shortstr(""))
}

func TestHeartbeatsAreSent(t *testing.T) {
	t.Parallel()
	c := wireTCP(t)
	c.login(allCapabilities)
	tune := c.expect(0, connectionTune)
	c.send(0, connectionTuneOk, args{}.short(tune.short()).long(tune.long()).short(1)) // the client's value holds
	c.send(0, connectionOpen, args{}.shortstr(sut.uri.Vhost).shortstr("").octet(0))
	c.expect(0, connectionOpenOk)
	must(t, c.nc.SetReadDeadline(time.Now().Add(5*time.Second)))
	frame := make([]byte, 8)
	if _, err := io.ReadFull(c.r, frame); err != nil {
		t.Fatal(err)
	}
	if string(frame) != "\x08\x00\x00\x00\x00\x00\x00\xce" {
		t.Fatalf("got % x, want a heartbeat", frame)
	}
	// The client sends none: it is taken for dead after two intervals.
	start := time.Now()
	_, err := io.Copy(io.Discard, c.r)
	if isTimeout(err) {
		t.Fatalf("a silent client is still connected after %v", time.Since(start))
	}
}

func TestHostileBytesBeforeLoginHarmOnlyTheirConnection(t *testing.T) {
	t.Parallel()
	unknownMethod := appendFrame(nil, frameMethod, 0, []byte{0, 99, 0, 99})
	for name, bytes := range map[string][]byte{
		"unknown method":   unknownMethod,
		"method before":    appendMethod(nil, 1, queueDelete, args{}.short(0).shortstr("q").bits(false, false, false)),
		"announced length": {1, 0, 0, 0xff, 0xff, 0xff, 0xff, 0},
		"empty method":     appendFrame(nil, frameMethod, 0, nil),
		"truncated":        appendMethod(nil, 0, connectionStartOk, args{}.long(1<<31)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := wireTCP(t)
			c.write([]byte("AMQP\x00\x00\x09\x01"))
			c.expect(0, connectionStart)
			c.write(bytes)
			for { // a close frame may come before the end
				if _, err := c.read(); err != nil {
					if isTimeout(err) {
						t.Fatal("the connection stays open")
					}
					break
				}
			}
			open(t) // the broker lives
		})
	}
}
