package server

import (
	"context"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/settmq/settmq/amqp"
)

func TestHandshakeTimeout(t *testing.T) {
	for _, tt := range []struct {
		name string
		stop func(p *peer) // how far the peer gets
	}{
		{"nothing sent", func(*peer) {}},
		{"half a protocol header", func(p *peer) { p.write([]byte("AMQP")) }},
		{"after start", func(p *peer) {
			p.write([]byte(amqp.ProtocolHeader))
			expect[*amqp.ConnectionStart](p, 0)
		}},
		{"after tune", func(p *peer) { p.login(plain("guest", "guest")) }},
		{"heartbeats only", func(p *peer) {
			p.login(plain("guest", "guest"))
			for range 9 {
				time.Sleep(time.Second) // of the bubble
				p.write(amqp.AppendHeartbeat(nil))
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				start := time.Now()
				p := r.dial()
				tt.stop(p)
				p.ended()
				if d := time.Since(start); d != 10*time.Second {
					t.Errorf("ended after %v", d)
				}
				if n := r.conns(); n != 0 {
					t.Errorf("%d connections left", n)
				}
			})
		})
	}
}

func TestOpenConnectionHasNoTimeoutWithoutHeartbeat(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		p := r.open()
		time.Sleep(time.Hour)
		p.works()
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.beats != 0 {
			t.Errorf("%d heartbeats of a connection that wants none", p.beats)
		}
	})
}

func TestHeartbeatsAreSentWhenNothingElseIs(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		p := r.dial()
		p.login(plain("guest", "guest"))
		p.open(10)
		for range 60 {
			time.Sleep(time.Second)
			p.write(amqp.AppendHeartbeat(nil))
		}
		synctest.Wait()
		p.mu.Lock()
		beats := p.beats
		p.mu.Unlock()
		if beats < 10 || beats > 13 { // one every half interval
			t.Errorf("%d heartbeats in a minute with an interval of 10 s", beats)
		}
		p.channel(1)
		p.works()
	})
}

func TestSilentPeerIsCutOffAfterTwoIntervals(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		p := r.dial()
		p.login(plain("guest", "guest"))
		p.open(10)
		start := time.Now()
		p.ended()
		if d := time.Since(start); d < 20*time.Second || d > 31*time.Second {
			t.Errorf("cut off after %v", d)
		}
		if n := r.conns(); n != 0 {
			t.Errorf("%d connections left", n)
		}
	})
}

// TestAnyTrafficCountsAsHeartbeat: one byte of a frame that takes long is a sign of life.
func TestAnyTrafficCountsAsHeartbeat(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		p := r.dial()
		p.login(plain("guest", "guest"))
		p.open(10)
		p.channel(1)
		for _, b := range amqp.AppendMethod(nil, 1, &amqp.QueueDeclare{Queue: "slow", NoWait: true}) {
			time.Sleep(8 * time.Second)
			p.write([]byte{b})
		}
		p.works()
	})
}

func TestShutdownClosesConnectionsWith320(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		polite, rude, early := r.open(), r.open(), r.dial()
		early.write([]byte(amqp.ProtocolHeader))
		expect[*amqp.ConnectionStart](early, 0)
		start := time.Now()
		done := make(chan struct{})
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			r.s.Shutdown(ctx)
			close(done)
		}()
		early.ended()
		polite.closeExpected(320, "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'")
		synctest.Wait()
		select {
		case <-done:
			t.Error("shutdown did not wait for the other connection")
		default:
		}
		if m := expect[*amqp.ConnectionClose](rude, 0); m.ReplyCode != 320 { // and never answers
			t.Errorf("code %d", m.ReplyCode)
		}
		<-done
		if d := time.Since(start); d != 5*time.Second {
			t.Errorf("shutdown took %v", d)
		}
		if n := len(r.s.connections()); n != 0 {
			t.Errorf("%d connections after shutdown", n)
		}
		// Nobody gets in any more.
		late := r.dial()
		late.ended()
	})
}

func TestShutdownEndsConnectionsThatWait(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		held, stuck := r.open(), r.open()
		held.declare("q")
		r.disk.full.Store(true)
		time.Sleep(5 * time.Second)
		held.publish(1, "", "q", "held")
		expect[*amqp.ConnectionBlocked](held, 0)
		// This one sends more than the server reads ahead.
		go func() {
			big := publishFrames(1, "", "q", true, make([]byte, 100<<10))
			for range 10 {
				if _, err := stuck.nc.Write(big); err != nil {
					return
				}
			}
		}()
		expect[*amqp.ConnectionBlocked](stuck, 0)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		start := time.Now()
		r.s.Shutdown(ctx)
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("shutdown took %v", d)
		}
		r.disk.full.Store(false)
	})
}

func TestHandshakesAreLimited(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		first, second := r.dial(), r.dial()
		first.write([]byte(amqp.ProtocolHeader))
		expect[*amqp.ConnectionStart](first, 0)
		third := r.dial() // waits for a place
		r.counts(2, 1)
		first.send(0, plain("guest", "guest"))
		expect[*amqp.ConnectionTune](first, 0)
		first.open(0)
		r.counts(2, 0) // the first does not count any more
		third.login(plain("guest", "guest"))
		third.open(0)
		_ = second.nc.Close()
		r.counts(0, 0)
		r.dial()
		r.dial()
		time.Sleep(time.Second)
		for range 2 * waitersPerHandshake {
			r.dial()
		}
		r.counts(2, 2*waitersPerHandshake)
		r.dial().ended() // nobody else may even wait
		time.Sleep(9 * time.Second)
		r.counts(2, 2*waitersPerHandshake-2) // two have timed out, two took their places
		time.Sleep(time.Second)
		r.counts(2, 0) // the others have waited long enough
		time.Sleep(9 * time.Second)
		r.counts(0, 0)
		if n := r.conns(); n != 2 {
			t.Errorf("%d connections", n)
		}
	}, func(o *Options) { o.MaxHandshakes = 2 })
}

// counts checks how many connections are in their handshake, and how many wait for one.
func (r *rig) counts(pending, waiting int) {
	r.t.Helper()
	synctest.Wait()
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	a := &r.s.admission
	sum := 0
	for _, n := range a.handshakes {
		sum += n
	}
	if a.pending != pending || sum != pending || len(a.waiting) != waiting {
		r.t.Errorf("%d (%v) in handshake, %d waiting, want %d and %d", a.pending, a.handshakes, len(a.waiting), pending, waiting)
	}
}

// addressed is a pipe with a peer's address.
type addressed struct {
	net.Conn
	addr netip.AddrPort
}

func (a addressed) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(a.addr) }

func TestHandshakesAreLimitedPerAddress(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		from := func(addr string) *peer {
			client, server := net.Pipe()
			r.s.accept(addressed{server, netip.MustParseAddrPort(addr)})
			r.t.Cleanup(func() { _ = client.Close() })
			p := newPeer(r.t, client)
			go p.read()
			return p
		}
		a := from("192.0.2.1:1")
		from("[::ffff:192.0.2.1]:2") // the same address
		third := from("192.0.2.1:3")
		r.counts(2, 1)
		other := from("192.0.2.2:4") // does not have to wait behind it
		other.login(plain("guest", "guest"))
		a.login(plain("guest", "guest"))
		a.open(0)
		r.counts(3, 0)
		third.login(plain("guest", "guest"))
	}, func(o *Options) { o.MaxHandshakesPerIP = 2 })
}

func TestConnectionsAreLimited(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		first := r.open()
		r.open()
		p := r.dial()
		p.login(plain("guest", "guest"))
		p.send(0, &amqp.ConnectionTuneOk{})
		p.send(0, &amqp.ConnectionOpen{VirtualHost: "/"})
		p.closeExpected(530, "NOT_ALLOWED - connection refused: node connection limit (2) is reached")
		_ = first.nc.Close()
		synctest.Wait()
		r.open()
	}, func(o *Options) { o.MaxConnections = 2 })
}

// TestConnectionLimitHoldsForAllAtOnce: those that open at the same moment are counted too.
func TestConnectionLimitHoldsForAllAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		const n, limit = 20, 3
		var peers []*peer
		for range n {
			p := r.dial()
			p.login(plain("guest", "guest"))
			peers = append(peers, p)
		}
		for _, p := range peers {
			go func() {
				b := amqp.AppendMethod(nil, 0, &amqp.ConnectionTuneOk{})
				_, _ = p.nc.Write(amqp.AppendMethod(b, 0, &amqp.ConnectionOpen{VirtualHost: "/"}))
			}()
		}
		opened := 0
		for _, p := range peers {
			if _, m := p.method(); m.ID() == amqp.ConnectionOpenOkID {
				opened++
			}
		}
		if opened != limit {
			t.Errorf("%d connections of %d", opened, limit)
		}
	}, func(o *Options) { o.MaxConnections = 3 })
}

// panicHook panics on the log line of a channel error, which the reader writes while it
// carries out a frame.
type panicHook struct{ on string }

func (h panicHook) Run(_ *zerolog.Event, _ zerolog.Level, message string) {
	if strings.Contains(message, h.on) {
		panic("a bug")
	}
}

func TestPanicClosesOnlyItsConnectionWith541(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		victim, bystander := r.open(), r.open()
		victim.send(1, &amqp.QueueDeclare{Queue: "mine", Exclusive: true})
		expect[*amqp.QueueDeclareOk](victim, 1)
		victim.send(1, &amqp.QueueBind{Queue: "mine", Exchange: "tripwire"})
		if m := expect[*amqp.ConnectionClose](victim, 0); m.ReplyCode != 541 || strings.Contains(m.ReplyText, "bug") {
			t.Errorf("%d %q", m.ReplyCode, m.ReplyText)
		}
		_ = victim.nc.Close()
		bystander.works()
		// What the connection had is given back.
		bystander.send(1, &amqp.QueueDeclare{Queue: "mine", Passive: true})
		bystander.channelCloseExpected(1, 404, "NOT_FOUND")
		if n := r.conns(); n != 1 {
			t.Errorf("%d connections", n)
		}
	}, func(o *Options) { o.Log = zerolog.New(io.Discard).Hook(panicHook{"tripwire"}) })
}

// TestSlowConsumerStopsNobodyElse: a peer that reads nothing gets what its outbox holds; the
// publisher and another consumer of the same queue go on.
func TestSlowConsumerStopsNobodyElse(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		publisher, quick := r.open(), r.open()
		publisher.declare("q")
		slow := r.open()
		slow.consume("q", true)
		slow.deaf.Store(true)
		publisher.publish(1, "", "q", "the last that it reads")
		synctest.Wait()
		body := strings.Repeat("x", 4<<10)
		for range 100 {
			publisher.publish(1, "", "q", body)
		}
		publisher.works()
		quick.consume("q", true)
		n := 0
		for synctest.Wait(); len(quick.frames) > 0; n++ {
			expectContent[*amqp.BasicDeliver](quick, 1)
		}
		if n < 50 {
			t.Errorf("the other consumer got %d of 100 messages", n)
		}
		// A peer that takes nothing for long is cut off, and what it had no-ack is gone.
		start := time.Now()
		for len(r.s.connections()) == 3 {
			time.Sleep(time.Second)
		}
		if d := time.Since(start); d > writeTimeout+time.Second {
			t.Errorf("the slow consumer was cut off after %v", d)
		}
	})
}

// TestBytesBehindCloseOkAllocateNothing: the length in the head of a frame that comes after
// the end of the connection is not believed, least of all before a login.
func TestBytesBehindCloseOkAllocateNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		p := r.dial()
		p.write([]byte(amqp.ProtocolHeader))
		expect[*amqp.ConnectionStart](p, 0)
		p.send(0, plain("guest", "wrong"))
		expect[*amqp.ConnectionClose](p, 0)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		b := amqp.AppendMethod(nil, 0, &amqp.ConnectionCloseOk{})
		p.write(append(b, 1, 0, 1, 0xff, 0xff, 0xff, 0xff, 0))
		p.ended()
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
			t.Errorf("%d bytes were allocated", n)
		}
	})
}
