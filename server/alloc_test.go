package server

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/settmq/settmq/amqp"
)

// discard is a socket whose peer takes everything and says nothing.
type discard struct {
	net.Conn
	closed chan struct{}
}

func (d discard) Write(b []byte) (int, error)      { return len(b), nil }
func (d discard) Read([]byte) (int, error)         { <-d.closed; return 0, io.EOF }
func (d discard) Close() error                     { return nil }
func (d discard) SetWriteDeadline(time.Time) error { return nil }
func (d discard) SetReadDeadline(time.Time) error  { return nil }
func (d discard) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// inProcess is a running connection without its reader: the test hands it bursts.
func (r *rig) inProcess() *conn {
	r.t.Helper()
	nc := discard{closed: make(chan struct{})}
	c := newConn(r.s, nc)
	u := r.b.Users()
	c.user = u.User("guest")
	c.vhost = r.b.VHost("/")
	c.session = u.NewSession(c.user, "/", c.id)
	c.frameMax, c.channelMax, c.maxPayload, c.state = 131072, 2047, 131072-amqp.FrameOverhead, running
	done := make(chan struct{})
	go func() {
		c.out.run()
		close(done)
	}()
	r.t.Cleanup(func() {
		c.release()
		c.out.end()
		<-done
	})
	return c
}

func (c *conn) burst(t testing.TB, b []byte) {
	if n := c.handleBurst(b); n != len(b) || c.state != running {
		t.Fatalf("%d of %d bytes were handled, state %d: %s", n, len(b), c.state, c.reason)
	}
}

// hotPath prepares a publisher and a consumer with acks on a queue that does not last, and
// returns one round of perRun messages.
func hotPath(t testing.TB, r *rig, perRun int, confirm bool) (round func()) {
	t.Helper()
	publisher, consumer := r.inProcess(), r.inProcess()
	var b []byte
	b = amqp.AppendMethod(b, 1, &amqp.ChannelOpen{})
	if confirm {
		b = amqp.AppendMethod(b, 1, &amqp.ConfirmSelect{})
	}
	b = amqp.AppendMethod(b, 1, &amqp.QueueDeclare{Queue: "q"})
	publisher.burst(t, amqp.AppendMethod(b, 1, &amqp.QueueBind{Queue: "q", Exchange: "amq.topic", RoutingKey: "a.*"}))
	b = amqp.AppendMethod(nil, 1, &amqp.ChannelOpen{})
	consumer.burst(t, amqp.AppendMethod(b, 1, &amqp.BasicConsume{Queue: "q"}))
	var burst []byte
	body := make([]byte, 200)
	for range perRun {
		burst = append(burst, publishFrames(1, "amq.topic", "a.b", false, body)...)
	}
	tag := uint64(0)
	acks := make([]byte, 0, perRun*32)
	ch := consumer.channels[1]
	return func() {
		publisher.burst(t, burst)
		acks = acks[:0]
		ch.mu.Lock()
		newest := ch.nextTag
		ch.mu.Unlock()
		for ; tag < newest; tag++ {
			acks = amqp.AppendAck(acks, 1, tag+1, false)
		}
		consumer.burst(t, acks)
	}
}

// TestAllocationsOfThePathOfAMessage: publish, route, enqueue, deliver and ack cost the
// message and its bytes, and nothing else.
func TestAllocationsOfThePathOfAMessage(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, confirm := range []bool{false, true} {
		name := "without confirms"
		if confirm {
			name = "with confirms"
		}
		t.Run(name, func(t *testing.T) {
			r := newRig(t, t.TempDir(), func(o *Options) { o.Outbox = 1 << 30 })
			const perRun = 1000
			round := hotPath(t, r, perRun, confirm)
			for range 20 {
				round() // fills pools and buffers
			}
			if got := testing.AllocsPerRun(50, round) / perRun; got > 2.1 { // a tenth for the ticks of others
				t.Errorf("%.2f allocations per message", got)
			}
		})
	}
}

func BenchmarkPathOfAMessage(b *testing.B) {
	r := newRig(b, b.TempDir(), func(o *Options) { o.Outbox = 1 << 30 })
	const perRun = 1000
	round := hotPath(b, r, perRun, true)
	b.ReportAllocs()
	for b.Loop() {
		round()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*perRun), "ns/message")
}
