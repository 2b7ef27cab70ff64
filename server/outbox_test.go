package server

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/queue/fifo"
	"github.com/settmq/settmq/storage"
)

// sinkConn is a socket that takes what it is given while it is open.
type sinkConn struct {
	net.Conn
	mu      sync.Mutex
	cond    sync.Cond
	blocked bool // guarded by mu, as all below
	closed  bool
	got     bytes.Buffer
}

func newSinkConn(blocked bool) *sinkConn {
	c := &sinkConn{blocked: blocked}
	c.cond.L = &c.mu
	return c
}

func (c *sinkConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.blocked && !c.closed {
		c.cond.Wait()
	}
	if c.closed {
		return 0, errors.New("closed")
	}
	return c.got.Write(b)
}

func (c *sinkConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.cond.Broadcast()
	return nil
}

func (c *sinkConn) unblock() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.blocked = false
	c.cond.Broadcast()
}

func (c *sinkConn) SetWriteDeadline(time.Time) error { return nil }

func (c *sinkConn) bytes() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.got.Bytes())
}

// outboxRig is an outbox with a running writer.
type outboxRig struct {
	nc   *sinkConn
	o    *outbox
	ch   *channel
	dead atomic.Int32
	done chan struct{}
}

func newOutboxRig(limit int, blocked bool) *outboxRig {
	r := &outboxRig{nc: newSinkConn(blocked), done: make(chan struct{})}
	r.o = newOutbox(r.nc, limit)
	r.o.onDead = func() { r.dead.Add(1) }
	r.ch = &channel{id: 1, conn: &conn{out: r.o, frameMax: 4096}}
	r.o.started.Store(true)
	go func() {
		r.o.run()
		close(r.done)
	}()
	return r
}

func (r *outboxRig) deliver(tag uint64, body []byte, w *queue.Wakes) {
	r.o.deliver(r.ch, "c", tag, &queue.Delivery{Message: &storage.Message{Properties: []byte{0, 0}, Body: body}}, w)
}

func (r *outboxRig) end() {
	r.o.end()
	<-r.done
}

// TestOutboxKeepsOrderAndBytes mixes small frames with bodies by reference of sizes around
// every boundary, in bursts and one by one.
func TestOutboxKeepsOrderAndBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newOutboxRig(1<<30, false)
		var want []byte
		var w queue.Wakes
		for i, size := range []int{0, 1, 4088, 4089, byReference - 1, byReference, byReference + 1, 10, 3 * byReference, 200 << 10, 5, 700 << 10, 0} {
			body := bytes.Repeat([]byte{byte(i + 1)}, size)
			r.deliver(uint64(i), body, &w)
			want = amqp.AppendDeliver(want, 1, "c", uint64(i), false, "", "")
			want = amqp.AppendContent(want, 1, []byte{0, 0}, body, 4096)
			r.o.method(1, &amqp.BasicQosOk{}, &w)
			want = amqp.AppendMethod(want, 1, &amqp.BasicQosOk{})
			if i%3 == 0 {
				w.Flush()
			}
			if i%4 == 0 {
				synctest.Wait()
			}
		}
		w.Flush()
		synctest.Wait()
		if got := r.nc.bytes(); !bytes.Equal(got, want) {
			t.Errorf("%d bytes came, want %d", len(got), len(want))
		}
		if n := r.o.size.Load(); n != 0 {
			t.Errorf("%d bytes are counted in an empty outbox", n)
		}
		r.end()
		if !r.nc.closed || r.dead.Load() != 1 {
			t.Error("the socket was not closed once")
		}
	})
}

// TestOutboxParksAndUnparks: a queue's deliveries stop at the limit and go on when the
// socket has taken half of it; nothing gets lost.
func TestOutboxParksAndUnparks(t *testing.T) {
	t.Run("outbox", func(t *testing.T) { parksAndUnparks(t, parkLimit, 0) })
	t.Run("consumer", func(t *testing.T) { parksAndUnparks(t, 1<<20, parkLimit) })
}

const parkLimit = 8 << 10

// parksAndUnparks: the outbox has a limit, or its consumers have one that comes to parkLimit.
func parksAndUnparks(t *testing.T, outboxLimit, maxWaiting int) {
	synctest.Test(t, func(t *testing.T) {
		const limit, size, n = parkLimit, 1 << 10, 200
		r := newOutboxRig(outboxLimit, true)
		timers := queue.NewTimers()
		t.Cleanup(timers.Close)
		q := queue.New(queue.Options{Declaration: queue.Declaration{Name: "q"}, Timers: timers})
		s := &outboxSink{r: r}
		var w queue.Wakes
		for id := fifo.ConsumerID(1); id <= 3; id++ {
			if err := q.Subscribe(&queue.Consumer{ID: id, NoAck: true, Queue: q, Sink: s, MaxWaiting: maxWaiting}, nil, &w); err != nil {
				t.Fatal(err)
			}
		}
		for range n {
			q.Publish(&storage.Message{Properties: []byte{0, 0}, Body: make([]byte, size), Transient: true}, &w)
			w.Flush()
		}
		synctest.Wait()
		if held := r.o.size.Load(); held < limit || held > limit+2*size {
			t.Errorf("%d bytes are queued with a limit of %d", held, limit)
		}
		if ready := q.Info().Ready; ready < n-2*limit/size {
			t.Errorf("only %d messages wait", ready)
		}
		r.nc.unblock()
		synctest.Wait()
		if info := q.Info(); info.Ready != 0 || s.n != n {
			t.Errorf("%d delivered, %d ready", s.n, info.Ready)
		}
		if len(r.nc.bytes()) < n*size {
			t.Error("not everything was written")
		}
		r.end()
	})
}

// outboxSink is a channel without prefetch.
type outboxSink struct {
	r *outboxRig
	n int // written under the queue's lock
}

func (s *outboxSink) Admit(c *queue.Consumer, _ uint32) bool                 { return s.r.o.admit(c) }
func (s *outboxSink) Cancelled(*queue.Consumer)                              {}
func (s *outboxSink) TimedOut(*queue.Consumer, int64, *queue.Wakes) []uint64 { return nil }
func (s *outboxSink) Deliver(_ *queue.Consumer, d *queue.Delivery, w *queue.Wakes) {
	s.n++
	s.r.o.deliver(s.r.ch, "c", uint64(s.n), d, w)
}

// TestOutboxLosesNoWakeUp appends from many goroutines while the writer comes and goes. In a
// bubble a lost wake-up is a deadlock, which ends the test.
func TestOutboxLosesNoWakeUp(t *testing.T) {
	t.Run("writer alone", func(t *testing.T) { losesNoWakeUp(t, nil) })
	// The socket takes something between nothing and all of what is offered without waiting.
	t.Run("appenders write", func(t *testing.T) {
		n := 0
		losesNoWakeUp(t, func(c *sinkConn, b []byte) (int, error) {
			n++
			return c.Write(b[:min(len(b), n*37%1500)])
		})
	})
}

func losesNoWakeUp(t *testing.T, try func(c *sinkConn, b []byte) (int, error)) {
	synctest.Test(t, func(t *testing.T) {
		r := newOutboxRig(4<<10, false)
		if try != nil {
			r.o.try = func(b []byte) (int, error) { return try(r.nc, b) }
		}
		const writers, each = 4, 500
		var all sync.WaitGroup
		for range writers {
			all.Go(func() {
				var w queue.Wakes
				for i := range each {
					switch i % 3 {
					case 0:
						r.o.heartbeat()
					case 1:
						r.o.method(1, &amqp.BasicQosOk{}, &w)
						w.Flush()
					case 2:
						if r.o.size.Load() >= r.o.limit {
							r.o.waitForRoom()
						}
						r.deliver(1, make([]byte, 600), &w)
						w.Flush()
					}
				}
			})
		}
		all.Wait()
		synctest.Wait()
		if n := r.o.size.Load(); n != 0 {
			t.Errorf("%d bytes are left", n)
		}
		frames := 0
		for b := r.nc.bytes(); len(b) > 0; frames++ {
			_, n, err := amqp.ParseFrame(b, 1<<20)
			if err != nil || n == 0 {
				t.Fatalf("frame %d: %v", frames, err)
			}
			b = b[n:]
		}
		if want := writers * (167 + 167 + 166*3); frames != want {
			t.Errorf("%d frames, want %d", frames, want)
		}
		r.end()
	})
}

// TestOutboxKilledWhileWriting: the writer ends, who waits for room goes on, and what is
// appended later is dropped.
func TestOutboxKilledWhileWriting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newOutboxRig(4<<10, true)
		var w queue.Wakes
		r.deliver(1, make([]byte, 100<<10), &w)
		w.Flush()
		synctest.Wait() // in Write
		r.deliver(2, make([]byte, 100<<10), &w)
		w.Flush()
		waited := make(chan struct{})
		go func() {
			r.o.waitForRoom()
			close(waited)
		}()
		synctest.Wait()
		r.o.kill()
		r.o.kill()
		<-waited
		<-r.done
		r.deliver(3, make([]byte, 100<<10), &w)
		r.o.heartbeat()
		w.Flush()
		if r.o.buf != nil || r.o.chunks != nil {
			t.Error("a dead outbox keeps frames")
		}
		if r.o.admit(&queue.Consumer{}) && r.o.size.Load() >= r.o.limit {
			t.Error("a full dead outbox admits")
		}
		if r.dead.Load() != 1 {
			t.Errorf("told %d times that it is dead", r.dead.Load())
		}
		r.o.waitForRoom()
	})
}

// slowReader takes a piece a second.
type slowReader struct {
	net.Conn
	deadline time.Time
	got      int
}

func (c *slowReader) SetWriteDeadline(t time.Time) error {
	c.deadline = t
	return nil
}

func (c *slowReader) Write(b []byte) (int, error) {
	time.Sleep(time.Duration(len(b)) * time.Second / (16 << 10)) // 16 KiB a second
	if time.Now().After(c.deadline) {
		return 0, errors.New("timeout")
	}
	c.got += len(b)
	return len(b), nil
}

func (c *slowReader) Close() error { return nil }

// TestSlowReaderOfALargeBodyIsNotCutOff: the time to write is for a piece, not for all.
func TestSlowReaderOfALargeBodyIsNotCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc := &slowReader{}
		o := newOutbox(nc, 1<<20)
		o.onDead = func() {}
		var w queue.Wakes
		body := make([]byte, 4<<20)
		ch := &channel{id: 1, conn: &conn{out: o, frameMax: 131072}}
		o.deliver(ch, "c", 1, &queue.Delivery{Message: &storage.Message{Properties: []byte{0, 0}, Body: body}}, &w)
		for range 2000 {
			o.method(1, &amqp.BasicConsumeOk{ConsumerTag: "a tag of some length, to have many bytes of small frames"}, &w)
		}
		w.Flush()
		o.end()
		o.writer.Wait()
		if nc.got < len(body) {
			t.Errorf("%d bytes of %d were written", nc.got, len(body))
		}
	})
}

// TestOutboxWritesInTheCallersGoroutine: a little that nobody else is woken for needs no writer;
// what the socket does not take comes later, in order.
func TestOutboxWritesInTheCallersGoroutine(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	peer, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	o := newOutbox(nc, 1<<30)
	if o.try == nil {
		t.Skip("no writing without waiting on this platform")
	}
	o.onDead = func() {}
	frame := amqp.AppendMethod(nil, 1, &amqp.BasicQosOk{})
	var w queue.Wakes
	o.method(1, &amqp.BasicQosOk{}, &w)
	w.Flush()
	got := make([]byte, len(frame))
	if _, err := io.ReadFull(peer, got); err != nil || !bytes.Equal(got, frame) {
		t.Fatalf("%x, %v", got, err)
	}
	if o.started.Load() {
		t.Error("the writer was started for a few bytes")
	}

	// Nobody reads: the socket gets full, and the rest waits for the writer.
	var want []byte
	ch := &channel{id: 1, conn: &conn{out: o, frameMax: 4096}}
	for i := 0; !o.started.Load(); i++ {
		body := bytes.Repeat([]byte{byte(i)}, 3000)
		o.deliver(ch, "c", uint64(i), &queue.Delivery{Message: &storage.Message{Properties: []byte{0, 0}, Body: body}}, &w)
		w.Flush()
		want = amqp.AppendDeliver(want, 1, "c", uint64(i), false, "", "")
		want = amqp.AppendContent(want, 1, []byte{0, 0}, body, 4096)
	}
	// Behind it, bodies are copied or not.
	for i, size := range []int{9000, 1024, 1023, 3000, 1024, 0, 5000, 3000, 20_000, 2000, 10, 2000} {
		body := bytes.Repeat([]byte{byte(i)}, size)
		d := queue.Delivery{Message: &storage.Message{Properties: []byte{0, 0}, Body: body}, Lasting: i%4 != 3}
		o.deliver(ch, "c", uint64(i), &d, &w)
		want = amqp.AppendDeliver(want, 1, "c", uint64(i), false, "", "")
		want = amqp.AppendContent(want, 1, []byte{0, 0}, body, 4096)
		if !d.Lasting {
			clear(body)
		}
	}
	o.method(1, &amqp.BasicQosOk{}, &w)
	w.Flush()
	want = append(want, frame...)
	o.end()
	all, err := io.ReadAll(peer)
	o.writer.Wait()
	if err != nil || !bytes.Equal(all, want) {
		t.Errorf("%d bytes came, want %d; %v", len(all), len(want), err)
	}
	if n := o.size.Load(); n != 0 {
		t.Errorf("%d bytes are counted in an empty outbox", n)
	}
}
