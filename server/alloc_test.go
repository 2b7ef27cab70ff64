package server

import (
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/storage/journal/faultfs"
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
	r.t.Cleanup(func() {
		c.release()
		c.out.end()
		c.out.writer.Wait()
	})
	return c
}

func (c *conn) burst(t testing.TB, b []byte) {
	if n := c.handleBurst(b); n != len(b) || c.state != running {
		t.Fatalf("%d of %d bytes were handled, state %d: %s", n, len(b), c.state, c.reason)
	}
}

// hotPath prepares a publisher and a consumer with acks, and returns one round of perRun
// messages. What is to last is on a durable queue, persistent, and confirmed within the round.
func hotPath(t testing.TB, r *rig, perRun int, confirm, lasting bool) (round func()) {
	t.Helper()
	publisher, consumer := r.inProcess(), r.inProcess()
	var b []byte
	b = amqp.AppendMethod(b, 1, &amqp.ChannelOpen{})
	if confirm {
		b = amqp.AppendMethod(b, 1, &amqp.ConfirmSelect{})
	}
	b = amqp.AppendMethod(b, 1, &amqp.QueueDeclare{Queue: "q", Durable: lasting})
	publisher.burst(t, amqp.AppendMethod(b, 1, &amqp.QueueBind{Queue: "q", Exchange: "amq.topic", RoutingKey: "a.*"}))
	b = amqp.AppendMethod(nil, 1, &amqp.ChannelOpen{})
	consumer.burst(t, amqp.AppendMethod(b, 1, &amqp.BasicConsume{Queue: "q"}))
	var burst []byte
	body := make([]byte, 200)
	for range perRun {
		burst = append(burst, publishFrames(1, "amq.topic", "a.b", lasting, body)...)
	}
	tag := uint64(0)
	acks := make([]byte, 0, perRun*32)
	ch, from := consumer.channels[1], publisher.channels[1]
	return func() {
		publisher.burst(t, burst)
		for lasting && !from.allConfirmed() {
			runtime.Gosched()
		}
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

func (ch *channel) allConfirmed() bool {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch.confirms.low > ch.confirms.last
}

// TestAllocationsOfThePathOfAMessage: publish, route, enqueue, deliver and ack cost the
// message and its bytes, and nothing else.
func TestAllocationsOfThePathOfAMessage(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, c := range []struct {
		name             string
		confirm, lasting bool
		budget           float64 // a tenth is for the ticks of others
	}{
		{"without confirms", false, false, 2.1},
		{"with confirms", true, false, 2.1},
		{"persistent", true, true, 2.2}, // the file system in memory makes a page now and then,
	} {
		t.Run(c.name, func(t *testing.T) {
			bo := brokerOptions(t, t.TempDir(), &disk{FS: faultfs.New(1)})
			bo.Storage.JournalSegment, bo.Storage.JournalMax = 16<<20, 64<<20 // no checkpoint meanwhile
			r := newRigOn(t, bo, func(o *Options) { o.Outbox = 1 << 30 })
			const perRun = 1000
			round := hotPath(t, r, perRun, c.confirm, c.lasting)
			for range 20 {
				round() // fills pools and buffers
			}
			if got := testing.AllocsPerRun(50, round) / perRun; got > c.budget {
				t.Errorf("%.2f allocations per message", got)
			}
		})
	}
}

func BenchmarkPathOfAMessage(b *testing.B) {
	r := newRig(b, b.TempDir(), func(o *Options) { o.Outbox = 1 << 30 })
	const perRun = 1000
	round := hotPath(b, r, perRun, true, false)
	b.ReportAllocs()
	for b.Loop() {
		round()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*perRun), "ns/message")
}
