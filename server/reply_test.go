package server

import (
	"bytes"
	"testing"
	"testing/synctest"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/broker"
)

// requester opens a reply consumer and learns its address.
func (p *peer) requester() (address string) {
	p.t.Helper()
	call[*amqp.BasicConsumeOk](p, 1, &amqp.BasicConsume{Queue: broker.ReplyTo, ConsumerTag: "r", NoAck: true})
	q := call[*amqp.QueueDeclareOk](p, 1, &amqp.QueueDeclare{Exclusive: true}).Queue
	props := amqp.Properties{Flags: amqp.PropReplyTo, ReplyTo: []byte(broker.ReplyTo)}
	b := amqp.AppendPublish(nil, 1, "", q, false)
	p.write(amqp.AppendContent(b, 1, props.Append(nil), nil, p.frameMax))
	p.send(1, &amqp.BasicGet{Queue: q, NoAck: true})
	expect[*amqp.BasicGetOk](p, 1)
	f, _ := p.frame()
	_, _, _, encoded, err := amqp.ParseContentHeader(f.Payload)
	if err != nil {
		p.t.Fatal(err)
	}
	var got amqp.Properties
	if err := amqp.ParseProperties(encoded, &got); err != nil {
		p.t.Fatal(err)
	}
	return string(got.ReplyTo)
}

// TestRequesterThatReadsNothingLosesReplies: what waits for it is bounded, whoever replies is
// neither stopped nor refused, and the requester goes on when it reads again.
func TestRequesterThatReadsNothingLosesReplies(t *testing.T) {
	const limit = 64 << 10
	inBubble(t, func(t *testing.T, r *rig) {
		slow := r.open()
		address := slow.requester()
		slow.deaf.Store(true)
		responder := r.open()
		call[*amqp.ConfirmSelectOk](responder, 1, &amqp.ConfirmSelect{})
		body := bytes.Repeat([]byte("x"), 1000)
		const n = 500
		for i := range n {
			responder.write(publishFrames(1, "", address, true, body))
			for {
				if ack := expect[*amqp.BasicAck](responder, 1); ack.DeliveryTag == uint64(i+1) {
					break
				}
			}
		}
		synctest.Wait()
		dropped := int(r.b.RepliesDropped())
		if dropped == 0 || dropped > n-replyRoom*limit/(len(address)+1100) {
			t.Errorf("%d of %d replies were dropped", dropped, n)
		}
		for c := range r.s.conns {
			if size := c.out.size.Load(); size > replyRoom*limit+2000 {
				t.Errorf("%d bytes wait for the requester", size)
			}
		}
		r.open().works()
	}, func(o *Options) { o.Outbox = limit })
}

// TestReplyConsumerEndsWithItsChannel: on close, on an exception, with the connection.
func TestReplyConsumerEndsWithItsChannel(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		for name, end := range map[string]func(p *peer){
			"close": func(p *peer) { call[*amqp.ChannelCloseOk](p, 1, &amqp.ChannelClose{ReplyCode: 200}) },
			"exception": func(p *peer) {
				call[*amqp.ChannelClose](p, 1, &amqp.QueueDeclare{Queue: "absent", Passive: true})
			},
			"connection": func(p *peer) { call[*amqp.ConnectionCloseOk](p, 0, &amqp.ConnectionClose{ReplyCode: 200}) },
			"socket":     func(p *peer) { _ = p.nc.Close() },
			"cancel":     func(p *peer) { call[*amqp.BasicCancelOk](p, 1, &amqp.BasicCancel{ConsumerTag: "r"}) },
		} {
			p := r.open()
			address := p.requester()
			v := r.b.VHost("/")
			if !v.HasReplyAddress(address) {
				t.Fatalf("%s: the address does not work at all", name)
			}
			end(p)
			synctest.Wait()
			if v.HasReplyAddress(address) {
				t.Errorf("%s: the address still works", name)
			}
		}
	})
}

// TestAllocationsOfDirectReplies: a request costs what a message costs and its rewritten
// properties, a reply just the message.
func TestAllocationsOfDirectReplies(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	r := newRig(t, t.TempDir(), func(o *Options) { o.Outbox = 1 << 30 })
	requester, responder := r.inProcess(), r.inProcess()
	b := amqp.AppendMethod(nil, 1, &amqp.ChannelOpen{})
	requester.burst(t, amqp.AppendMethod(b, 1, &amqp.BasicConsume{Queue: broker.ReplyTo, NoAck: true}))
	responder.burst(t, b)
	var burst []byte
	const perRun = 1000
	address := requester.channels[1].replies.Address()
	for range perRun {
		burst = append(burst, publishFrames(1, "", address, false, []byte("answer"))...)
	}
	for range 20 {
		responder.burst(t, burst)
	}
	if got := testing.AllocsPerRun(50, func() { responder.burst(t, burst) }) / perRun; got > 2.1 {
		t.Errorf("%.2f allocations per reply", got)
	}
}
