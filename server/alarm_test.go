package server

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/settmq/settmq/amqp"
)

// fill declares the disk full, or empty again, and waits until the broker has noticed.
func (r *rig) fill(full bool) {
	r.t.Helper()
	r.disk.full.Store(full)
	for range 120 {
		if r.b.Alarms().Blocked() == full {
			synctest.Wait()
			return
		}
		time.Sleep(time.Second)
	}
	r.t.Fatalf("the broker has not noticed that full=%t", full)
}

// TestAlarmHoldsPublishersOnly: who publishes is told and held; consumers go on, on the same
// connection too; what was held arrives in order once the alarm is over.
func TestAlarmHoldsPublishersOnly(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		p, other := r.open(), r.open()
		p.declare("q")
		for i := range 4 {
			p.publish(1, "", "q", fmt.Sprint("before ", i))
		}
		r.fill(true)
		p.silent("nobody has published yet")
		other.send(1, &amqp.BasicQos{PrefetchCount: 1})
		expect[*amqp.BasicQosOk](other, 1)
		other.consume("q", false)
		p.channel(2)
		call[*amqp.ConfirmSelectOk](p, 2, &amqp.ConfirmSelect{})
		for i := range 3 {
			p.publish(2, "", "q", fmt.Sprint("held ", i))
		}
		if m := expect[*amqp.ConnectionBlocked](p, 0); m.Reason != "low on disk" {
			t.Errorf("reason %q", m.Reason)
		}
		for i := range 4 { // deliveries and acks of others
			m, body := expectContent[*amqp.BasicDeliver](other, 1)
			if string(body) != fmt.Sprint("before ", i) {
				t.Errorf("delivery of %q", body)
			}
			other.write(amqp.AppendAck(nil, 1, m.DeliveryTag, false))
		}
		other.silent("a held message is not delivered")
		p.silent("a held message is not confirmed")
		r.fill(false)
		expect[*amqp.ConnectionUnblocked](p, 0)
		if m := expect[*amqp.BasicAck](p, 2); m.DeliveryTag != 3 || !m.Multiple {
			t.Errorf("confirm %+v", m)
		}
		for i := range 3 {
			m, body := expectContent[*amqp.BasicDeliver](other, 1)
			if string(body) != fmt.Sprint("held ", i) {
				t.Errorf("delivery of %q", body)
			}
			other.write(amqp.AppendAck(nil, 1, m.DeliveryTag, false))
		}
		p.works()
	})
}

// TestHeldPublisherStillAcks: the acks behind a held publish are read, as long as the client
// does not send more than the server keeps.
func TestHeldPublisherStillAcks(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		p := r.open()
		p.declare("q")
		for range 10 {
			p.publish(1, "", "q", "x")
		}
		p.send(1, &amqp.BasicQos{PrefetchCount: 1})
		expect[*amqp.BasicQosOk](p, 1)
		r.fill(true)
		p.publish(1, "", "q", "held")
		expect[*amqp.ConnectionBlocked](p, 0)
		other := r.open()
		other.send(1, &amqp.BasicQos{PrefetchCount: 1})
		expect[*amqp.BasicQosOk](other, 1)
		other.consume("q", false)
		other.publish(1, "", "q", "held too")
		for i := range 10 {
			m, _ := expectContentSkipping[*amqp.BasicDeliver](other, 1, amqp.ConnectionBlockedID)
			if i%2 == 0 {
				other.write(amqp.AppendAck(nil, 1, m.DeliveryTag, false))
			} else {
				other.write(amqp.AppendNack(nil, 1, m.DeliveryTag, false, false))
			}
		}
		r.fill(false)
		expectContentSkipping[*amqp.BasicDeliver](other, 1, amqp.ConnectionUnblockedID)
	})
}

// expectContentSkipping is expectContent that passes over one kind of method.
func expectContentSkipping[T amqp.Method](p *peer, channel uint16, skip amqp.MethodID) (T, []byte) {
	p.t.Helper()
	p.mu.Lock()
	p.wait("a frame", func() bool { return len(p.frames) > 0 || p.err != nil })
	if len(p.frames) > 0 {
		if id, _ := amqp.PeekMethodID(p.frames[0].Payload); id == skip {
			p.frames = p.frames[1:]
		}
	}
	p.mu.Unlock()
	return expectContent[T](p, channel)
}

func TestConnectionCloseWhileHeld(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		p := r.open()
		p.declare("q")
		r.fill(true)
		p.publish(1, "", "q", "held")
		expect[*amqp.ConnectionBlocked](p, 0)
		call[*amqp.ConnectionCloseOk](p, 0, &amqp.ConnectionClose{ReplyCode: 200})
		_ = p.nc.Close()
		if n := r.conns(); n != 0 {
			t.Errorf("%d connections left", n)
		}
		r.fill(false)
	})
}

// TestHeldBytesAreBounded: a client that publishes on is not read any more, and nothing gets
// lost of what it sent.
func TestHeldBytesAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		p := r.open()
		p.declare("q")
		r.fill(true)
		const n, size = 200, 16 << 10
		sent := make(chan int, 1)
		taken := 0
		go func() {
			for range n {
				if _, err := p.nc.Write(publishFrames(1, "", "q", false, make([]byte, size))); err != nil {
					break
				}
				taken++
			}
			sent <- taken
		}()
		expect[*amqp.ConnectionBlocked](p, 0)
		synctest.Wait()
		if bytes := taken * size; bytes > maxHeld+2*busyBuffer {
			t.Errorf("%d bytes were taken from a blocked publisher", bytes)
		}
		r.fill(false)
		if got := <-sent; got != n {
			t.Errorf("%d of %d were taken after the alarm", got, n)
		}
		expect[*amqp.ConnectionUnblocked](p, 0)
		synctest.Wait()
		if m := call[*amqp.QueueDeclareOk](p, 1, &amqp.QueueDeclare{Queue: "q", Passive: true}); m.MessageCount != n {
			t.Errorf("%d messages arrived", m.MessageCount)
		}
	})
}

// TestHeldPublisherLosesItsSocket: nothing waits for the alarm then.
func TestHeldPublisherLosesItsSocket(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		p := r.open()
		p.declare("q")
		r.fill(true)
		p.publish(1, "", "q", "held")
		expect[*amqp.ConnectionBlocked](p, 0)
		_ = p.nc.Close()
		if n := r.conns(); n != 0 {
			t.Errorf("%d connections left", n)
		}
		r.fill(false)
	})
}
