package server

import (
	"testing"
	"testing/synctest"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/auth"
)

func (r *rig) user(name, configure, write, read string) {
	r.t.Helper()
	hash, err := auth.HashPassword(name)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.b.Users().Put(&auth.User{Name: name, PasswordHash: hash, Algorithm: auth.SHA256}); err != nil {
		r.t.Fatal(err)
	}
	r.grant(name, configure, write, read)
}

func (r *rig) grant(name, configure, write, read string) {
	r.t.Helper()
	p, err := auth.CompilePermissions(configure, write, read)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.b.Users().Grant(name, "/", p); err != nil {
		r.t.Fatal(err)
	}
}

// TestRevokedRightsBindLiveConnections: every check sees the change at once, also that of a
// publisher whose last publish was allowed.
func TestRevokedRightsBindLiveConnections(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.user("ann", ".*", ".*", ".*")
		p := r.openAs("ann")
		p.declare("q")
		p.publish(1, "", "q", "allowed")
		p.publish(1, "", "q", "allowed")
		synctest.Wait()
		r.grant("ann", ".*", "^amq.direct$", ".*")
		p.publish(1, "", "q", "refused")
		p.channelCloseExpected(1, 403, "ACCESS_REFUSED - write access to exchange 'amq.default' in vhost '/' refused for user 'ann'")
		p.channel(1)
		p.publish(1, "amq.direct", "q", "unroutable")
		p.send(1, &amqp.BasicGet{Queue: "q", NoAck: true})
		if m, body := expectContent[*amqp.BasicGetOk](p, 1); string(body) != "allowed" || m.MessageCount != 1 {
			t.Errorf("%q, %d left", body, m.MessageCount)
		}
		if err := r.b.Users().Revoke("ann", "/"); err != nil {
			t.Fatal(err)
		}
		p.send(1, &amqp.BasicGet{Queue: "q"})
		p.channelCloseExpected(1, 403, "ACCESS_REFUSED - read access to queue 'q' in vhost '/' refused for user 'ann'")
	})
}

func TestUpdateSecretCancelsConsumersWithoutTheRightToRead(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.user("ann", ".*", ".*", ".*")
		p, publisher := r.openAs("ann"), r.open()
		p.declare("kept")
		p.declare("lost")
		p.consume("kept", true)
		p.consume("lost", true)
		call[*amqp.ConnectionUpdateSecretOk](p, 0, &amqp.ConnectionUpdateSecret{NewSecret: []byte("new"), Reason: "test"})
		p.silent("nothing is cancelled while all is allowed")
		r.grant("ann", ".*", ".*", "^kept$")
		p.send(0, &amqp.ConnectionUpdateSecret{NewSecret: []byte("new"), Reason: "test"})
		if m := expect[*amqp.BasicCancel](p, 1); m.ConsumerTag != "lost" {
			t.Errorf("cancelled %q", m.ConsumerTag)
		}
		expect[*amqp.ConnectionUpdateSecretOk](p, 0)
		publisher.publish(1, "", "lost", "stays")
		publisher.publish(1, "", "kept", "goes")
		if m, body := expectContent[*amqp.BasicDeliver](p, 1); m.ConsumerTag != "kept" || string(body) != "goes" {
			t.Errorf("delivery to %q of %q", m.ConsumerTag, body)
		}
		if m := call[*amqp.QueueDeclareOk](publisher, 1, &amqp.QueueDeclare{Queue: "lost", Passive: true}); m.MessageCount != 1 || m.ConsumerCount != 0 {
			t.Errorf("the queue has %d messages and %d consumers", m.MessageCount, m.ConsumerCount)
		}
	})
}

func TestTopicPermissions(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.user("ann", ".*", ".*", ".*")
		p := r.openAs("ann")
		p.publish(1, "amq.topic", "bob.x", "no rule yet")
		p.silent("allowed")
		if err := r.b.Users().GrantTopic("ann", "/", auth.TopicPermission{Exchange: "amq.topic", Write: "^{username}[.]", Read: ".*"}); err != nil {
			t.Fatal(err)
		}
		p.publish(1, "amq.topic", "ann.x", "allowed")
		p.publish(1, "amq.direct", "bob.x", "another exchange")
		p.silent("allowed")
		p.publish(1, "amq.topic", "bob.x", "refused")
		p.channelCloseExpected(1, 403, "ACCESS_REFUSED - write access to topic 'bob.x' in exchange 'amq.topic' in vhost '/' refused for user 'ann'")
	})
}

func TestLogins(t *testing.T) {
	amqplain := func(login, password string) *amqp.ConnectionStartOk {
		table := amqp.Table{{Name: "LOGIN", Value: amqp.String(login)}, {Name: "PASSWORD", Value: amqp.String(password)}}
		return &amqp.ConnectionStartOk{ClientProperties: clientProperties, Mechanism: "AMQPLAIN", Response: table.Append(nil)[4:], Locale: "en_US"}
	}
	with := func(m *amqp.ConnectionStartOk, mechanism, response string) *amqp.ConnectionStartOk {
		m.Mechanism, m.Response = mechanism, []byte(response)
		return m
	}
	bare := plain("guest", "wrong")
	bare.ClientProperties = nil
	for _, tt := range []struct {
		name string
		m    *amqp.ConnectionStartOk
		want string // "tune", "close" or "drop"
	}{
		{"PLAIN", plain("guest", "guest"), "tune"},
		{"AMQPLAIN", amqplain("guest", "guest"), "tune"},
		{"wrong password", plain("guest", "Guest"), "close"},
		{"no password", plain("guest", ""), "close"},
		{"unknown user", plain("nobody", "guest"), "close"},
		{"AMQPLAIN, wrong password", amqplain("guest", "x"), "close"},
		{"client that knows no close then", bare, "drop"},
		{"PLAIN without separators", with(plain("", ""), "PLAIN", "guest guest"), "drop"},
		{"AMQPLAIN without a table", with(plain("", ""), "AMQPLAIN", "\x05LOGINS\xff\xff\xff\xff"), "drop"},
		{"EXTERNAL without TLS", with(plain("", ""), "EXTERNAL", ""), "drop"},
		{"unknown mechanism", with(plain("", ""), "CRAM-MD5", ""), "drop"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				p := r.dial()
				p.write([]byte(amqp.ProtocolHeader))
				if m := expect[*amqp.ConnectionStart](p, 0); string(m.Mechanisms) != "PLAIN AMQPLAIN" {
					t.Errorf("mechanisms %q", m.Mechanisms)
				}
				p.send(0, tt.m)
				switch tt.want {
				case "tune":
					expect[*amqp.ConnectionTune](p, 0)
				case "close":
					p.closeExpected(403, "ACCESS_REFUSED - Login was refused using authentication mechanism "+tt.m.Mechanism+". For details see the broker logfile.")
				default:
					p.ended()
				}
			})
		})
	}
}
