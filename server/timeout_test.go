package server

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/settmq/settmq/amqp"
)

// TestConsumerTimeoutWithoutCancelNotices: the channel is closed, what it held goes back.
func TestConsumerTimeoutWithoutCancelNotices(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		p := r.dial()
		old := plain("guest", "guest")
		old.ClientProperties = nil
		p.login(old)
		p.open(0)
		p.channel(1)
		p.declare("q")
		args := amqp.Table{{Name: "x-consumer-timeout", Value: amqp.Int32(60000)}}
		call[*amqp.BasicConsumeOk](p, 1, &amqp.BasicConsume{Queue: "q", ConsumerTag: "c", Arguments: args})
		p.publish(1, "", "q", "m")
		expectContent[*amqp.BasicDeliver](p, 1)
		time.Sleep(59 * time.Second)
		synctest.Wait()
		p.silent("before the timeout")
		time.Sleep(2 * time.Second)
		p.channelCloseExpected(1, 406, "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: 60000 ms. This timeout value can be configured, see consumers doc guide to learn more")
		p.channel(1)
		p.send(1, &amqp.BasicGet{Queue: "q", NoAck: true})
		if m, body := expectContent[*amqp.BasicGetOk](p, 1); string(body) != "m" || !m.Redelivered {
			t.Errorf("%q is left, redelivered=%t", body, m.Redelivered)
		}
	})
}
