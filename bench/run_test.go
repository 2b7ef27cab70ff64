package main

import (
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/settmq/settmq/amqp"
)

// fakeBroker is a broker with one queue, whatever the names: it confirms every publish and
// delivers it to one of the consumers, or keeps it until there is one. If refuse is set,
// publishes are nacked instead.
type fakeBroker struct {
	l      net.Listener
	refuse bool

	mu        sync.Mutex
	consumers []*fakeConn
	waiting   [][]byte // bodies
	next      int
}

type fakeConn struct {
	net.Conn
	b       *fakeBroker
	publish uint64 // tags
	deliver uint64 // guarded by b.mu
	confirm bool
}

func startFake(t *testing.T, refuse bool) *env {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &fakeBroker{l: l, refuse: refuse}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { (&fakeConn{Conn: c, b: b}).serve() })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait() // hangs if a run leaves a connection open
	})
	u, _ := url.Parse("amqp://" + l.Addr().String())
	return &env{url: u, prefix: "test", warmup: 10 * time.Millisecond, duration: 50 * time.Millisecond}
}

func (c *fakeConn) serve() {
	defer c.Close()
	head := make([]byte, 8)
	if _, err := io.ReadFull(c, head); err != nil {
		return
	}
	c.say(0, &amqp.ConnectionStart{
		VersionMinor: 9, Mechanisms: []byte("PLAIN"), Locales: []byte("en_US"),
		ServerProperties: amqp.Table{{Name: "product", Value: amqp.String("fake")}},
	})
	for {
		payload, err := c.frame()
		if err != nil {
			break
		}
		if !c.handle(payload) {
			break
		}
	}
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	c.b.consumers = slices.DeleteFunc(c.b.consumers, func(x *fakeConn) bool { return x == c })
}

// frame reads one frame; the channel is the second and third byte.
func (c *fakeConn) frame() ([]byte, error) {
	head := make([]byte, 7)
	if _, err := io.ReadFull(c, head); err != nil {
		return nil, err
	}
	rest := make([]byte, binary.BigEndian.Uint32(head[3:])+1)
	_, err := io.ReadFull(c, rest)
	return append(head, rest[:len(rest)-1]...), err
}

func (c *fakeConn) say(channel uint16, m amqp.Method) {
	_, _ = c.Write(amqp.AppendMethod(nil, channel, m))
}

// handle answers a method; false ends the connection.
func (c *fakeConn) handle(frame []byte) bool {
	channel := binary.BigEndian.Uint16(frame[1:])
	m, err := amqp.ParseMethod(frame[7:])
	if err != nil {
		return false
	}
	switch m := m.(type) {
	case *amqp.ConnectionStartOk:
		c.say(0, &amqp.ConnectionTune{ChannelMax: 10, FrameMax: 131072})
	case *amqp.ConnectionOpen:
		c.say(0, &amqp.ConnectionOpenOk{})
	case *amqp.ConnectionClose:
		c.say(0, &amqp.ConnectionCloseOk{})
		return false
	case *amqp.ChannelOpen:
		c.say(channel, &amqp.ChannelOpenOk{})
	case *amqp.ChannelClose:
		c.say(channel, &amqp.ChannelCloseOk{})
	case *amqp.QueueDeclare:
		c.say(channel, &amqp.QueueDeclareOk{Queue: m.Queue})
	case *amqp.QueueDelete:
		c.say(channel, &amqp.QueueDeleteOk{})
	case *amqp.BasicQos:
		c.say(channel, &amqp.BasicQosOk{})
	case *amqp.ConfirmSelect:
		c.confirm = true
		c.say(channel, &amqp.ConfirmSelectOk{})
	case *amqp.BasicConsume:
		c.say(channel, &amqp.BasicConsumeOk{ConsumerTag: m.ConsumerTag})
		c.b.mu.Lock()
		c.b.consumers = append(c.b.consumers, c)
		for _, body := range c.b.waiting {
			c.b.deliverLocked(body)
		}
		c.b.waiting = nil
		c.b.mu.Unlock()
	case *amqp.BasicPublish:
		return c.published()
	}
	return true
}

func (c *fakeConn) published() bool {
	if _, err := c.frame(); err != nil {
		return false
	}
	body, err := c.frame()
	if err != nil {
		return false
	}
	c.publish++
	if c.b.refuse {
		_, _ = c.Write(amqp.AppendNack(nil, 1, c.publish, false, false))
		return true
	}
	if c.confirm {
		_, _ = c.Write(amqp.AppendAck(nil, 1, c.publish, false))
	}
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	if len(c.b.consumers) == 0 {
		c.b.waiting = append(c.b.waiting, body[7:])
		return true
	}
	c.b.deliverLocked(body[7:])
	return true
}

func (b *fakeBroker) deliverLocked(body []byte) {
	to := b.consumers[b.next%len(b.consumers)]
	b.next++
	to.deliver++
	out := amqp.AppendDeliver(nil, 1, "c", to.deliver, false, "", "q")
	_, _ = to.Write(amqp.AppendContent(out, 1, nil, body, 131072))
}

// Each kind of scenario comes to its end and counts the same on both sides.
func TestScenariosRunToTheirEnd(t *testing.T) {
	for name, set := range map[string]string{
		"transient/1KiB":          "",
		"persistent/confirm-1":    "",
		"persistent/no-consumer":  "",
		"stream/read":             "count=100",
		"persistent/confirm-1000": "publishers=2,consumers=3",
		"latency/confirmed":       "rate=1000",
		"backlog/1M":              "count=500,body=10",
		"idle/1000":               "count=5",
		"churn/connections":       "",
		"declare/10000":           "count=20",
	} {
		t.Run(name, func(t *testing.T) {
			list, err := selectScenarios(scenarios(), []string{name})
			if err != nil {
				t.Fatal(err)
			}
			if err := list[0].set(set); err != nil {
				t.Fatal(err)
			}
			r := execute(startFake(t, false), list[0])
			if r.Error != "" || r.Undelivered+r.Nacked+r.Redelivered != 0 || len(r.Phases) == 0 {
				t.Fatalf("got %+v", r)
			}
			for _, p := range r.Phases {
				if p.units() == 0 || p.Seconds <= 0 {
					t.Errorf("phase %+v", p)
				}
			}
			if list[0].Rate > 0 && (r.Phases[0].EndToEnd == nil || r.Phases[0].Lag == nil || r.Phases[0].Confirm == nil) {
				t.Errorf("latencies are missing in %+v", r.Phases[0])
			}
			if r.Broker.Product != "fake" {
				t.Errorf("broker %+v", r.Broker)
			}
		})
	}
}

func TestNacksAreCountedApart(t *testing.T) {
	list, _ := selectScenarios(scenarios(), []string{"persistent/confirm-100"})
	r := execute(startFake(t, true), list[0])
	if r.Error != "" || r.Nacked == 0 || r.Undelivered != 0 || r.Phases[0].Confirmed != 0 {
		t.Errorf("got %+v", r)
	}
}

func TestABrokerThatIsNotThereIsAnError(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	u, _ := url.Parse("amqp://" + l.Addr().String())
	if r := execute(&env{url: u}, scenarios()[0]); !strings.Contains(r.Error, "refused") {
		t.Errorf("got %+v", r)
	}
}
