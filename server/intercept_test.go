package server

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/auth"
	"github.com/settmq/settmq/broker"
	"github.com/settmq/settmq/storage/journal/faultfs"
)

// through publishes a message with these properties and returns those that a consumer gets.
func (p *peer) through(q string, props amqp.Properties) (got amqp.Properties, headers amqp.Table) {
	p.t.Helper()
	p.write(amqp.AppendContent(amqp.AppendPublish(nil, 1, "", q, false), 1, props.Append(nil), nil, p.frameMax))
	p.send(1, &amqp.BasicGet{Queue: q, NoAck: true})
	expect[*amqp.BasicGetOk](p, 1)
	f, _ := p.frame()
	_, _, _, encoded, err := amqp.ParseContentHeader(f.Payload)
	if err == nil {
		err = amqp.ParseProperties(bytes.Clone(encoded), &got)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	if got.Has(amqp.PropHeaders) {
		headers, _, _ = amqp.ParseTable(got.Headers)
	}
	return got, headers
}

// intercepting is inBubble with a broker that has interceptors.
func intercepting(t *testing.T, i broker.Interceptors, f func(t *testing.T, r *rig)) {
	o := brokerOptions(t, t.TempDir(), &disk{FS: faultfs.New(1)})
	o.Interceptors = i
	synctest.Test(t, func(t *testing.T) { f(t, newRigOn(t, o)) })
}

func TestInterceptors(t *testing.T) {
	theirs := amqp.Properties{
		Flags: amqp.PropHeaders | amqp.PropTimestamp | amqp.PropMessageID, Timestamp: 7, MessageID: []byte("m"),
		Headers: amqp.Table{{Name: "timestamp_in_ms", Value: amqp.Int64(7000)}, {Name: "k", Value: amqp.Uint16(1)}, {Name: "x-routed-by", Value: amqp.String("them")}}.Append(nil),
	}
	for _, overwrite := range []bool{false, true} {
		i := broker.Interceptor{Enabled: true, Overwrite: overwrite}
		intercepting(t, broker.Interceptors{Timestamp: i, RoutingNode: i}, func(t *testing.T, r *rig) {
			now := time.Now() // stands still
			p := r.open()
			p.declare("q")
			ours := amqp.Table{{Name: "timestamp_in_ms", Value: amqp.Int64(now.UnixMilli())}, {Name: "x-routed-by", Value: amqp.String("node")}}
			if got, headers := p.through("q", amqp.Properties{}); got.Timestamp != uint64(now.Unix()) || !headers.Equal(ours) {
				t.Errorf("of a bare message: timestamp %d, headers %v", got.Timestamp, headers)
			}
			got, headers := p.through("q", theirs)
			wantTime, want := uint64(7), amqp.Table{{Name: "timestamp_in_ms", Value: amqp.Int64(7000)}, {Name: "k", Value: amqp.Uint16(1)}, {Name: "x-routed-by", Value: amqp.String("them")}}
			if overwrite {
				wantTime, want = uint64(now.Unix()), append(amqp.Table{{Name: "k", Value: amqp.Uint16(1)}}, ours...)
			}
			if got.Timestamp != wantTime || string(got.MessageID) != "m" || !headers.Equal(want) {
				t.Errorf("overwrite %t: timestamp %d, message-id %s, headers %v", overwrite, got.Timestamp, got.MessageID, headers)
			}
			// Also with the broker's other changes.
			reply := r.open()
			call[*amqp.BasicConsumeOk](reply, 1, &amqp.BasicConsume{Queue: broker.ReplyTo, ConsumerTag: "r", NoAck: true})
			if got, headers := reply.through("q", amqp.Properties{
				Flags: amqp.PropReplyTo | amqp.PropHeaders, ReplyTo: []byte(broker.ReplyTo), Headers: amqp.Table{{Name: "BCC", Value: amqp.ArrayValue(amqp.String("x"))}}.Append(nil),
			}); !broker.IsReplyAddress(string(got.ReplyTo)) || !headers.Equal(ours) {
				t.Errorf("reply-to %s, headers %v", got.ReplyTo, headers)
			}
		})
	}
}

// TestHeadersExchangeSeesInterceptedHeaders: the additions come before routing.
func TestHeadersExchangeSeesInterceptedHeaders(t *testing.T) {
	intercepting(t, broker.Interceptors{RoutingNode: broker.Interceptor{Enabled: true}}, func(t *testing.T, r *rig) {
		p := r.open()
		p.declare("q")
		call[*amqp.QueueBindOk](p, 1, &amqp.QueueBind{Queue: "q", Exchange: "amq.headers", Arguments: amqp.Table{
			{Name: "x-match", Value: amqp.String("all-with-x")}, {Name: "x-routed-by", Value: amqp.String("node")},
		}})
		p.publish(1, "amq.headers", "", "m")
		p.send(1, &amqp.BasicGet{Queue: "q", NoAck: true})
		expectContent[*amqp.BasicGetOk](p, 1)
	})
}

// TestUserIDOfAnotherUser: only a user with the tag impersonator may use another's name, or one
// that nobody has.
func TestUserIDOfAnotherUser(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		props := amqp.Properties{Flags: amqp.PropUserID, UserID: []byte("somebody")}
		p := r.open()
		p.declare("q")
		p.write(amqp.AppendContent(amqp.AppendPublish(nil, 1, "", "q", false), 1, props.Append(nil), nil, p.frameMax))
		p.channelCloseExpected(1, 406, "PRECONDITION_FAILED - user_id property set to 'somebody' but authenticated user was 'guest'")
		hash, err := auth.HashPassword("imp")
		if err != nil {
			t.Fatal(err)
		}
		u := r.b.Users()
		if err := u.Put(&auth.User{Name: "imp", PasswordHash: hash, Algorithm: auth.SHA256, Tags: []string{"impersonator"}}); err != nil {
			t.Fatal(err)
		}
		all, err := auth.CompilePermissions(".*", ".*", ".*")
		if err != nil {
			t.Fatal(err)
		}
		if err := u.Grant("imp", "/", all); err != nil {
			t.Fatal(err)
		}
		p = r.openAs("imp")
		if got, _ := p.through("q", props); string(got.UserID) != "somebody" {
			t.Errorf("user-id %q", got.UserID)
		}
	})
}
