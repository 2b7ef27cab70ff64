package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"testing"

	"github.com/settmq/settmq/amqp"
)

// dribble is a stream that hands out its input n bytes at a time.
type dribble struct {
	in  []byte
	n   int
	out bytes.Buffer
}

func (d *dribble) Read(p []byte) (int, error) {
	if len(d.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), d.n)], d.in)
	d.in = d.in[n:]
	return n, nil
}

func (d *dribble) Write(p []byte) (int, error) { return d.out.Write(p) }
func (d *dribble) Close() error                { return nil }

func events(t *testing.T, in []byte, n int) (list []Event, err error) {
	t.Helper()
	c := &Conn{sock: &dribble{in: in, n: n}, frameMax: amqp.FrameMinSize, buf: make([]byte, 64)}
	for {
		var e Event
		ok, err := c.Next(&e)
		if err != nil {
			return list, err
		}
		if ok {
			list = append(list, e)
			continue
		}
		if err := c.Fill(); err != nil {
			return list, err
		}
	}
}

func TestNextFindsEventsHoweverTheBytesArrive(t *testing.T) {
	body := bytes.Repeat([]byte{1, 2, 3, 4, 5, 6, 7, 8}, 1250) // three frames of 4 KiB
	var in []byte
	in = amqp.AppendDeliver(in, 1, "ctag", 7, true, "ex", "key")
	in = amqp.AppendContent(in, 1, nil, body, amqp.FrameMinSize)
	in = amqp.AppendHeartbeat(in)
	in = amqp.AppendAck(in, 1, 9, true)
	in = amqp.AppendDeliver(in, 1, "", 8, false, "", "")
	in = amqp.AppendContent(in, 1, nil, nil, amqp.FrameMinSize)
	in = amqp.AppendNack(in, 1, 10, false, false)
	in = amqp.AppendDeliver(in, 1, "t", 9, false, "", "short")
	in = amqp.AppendContent(in, 1, nil, []byte("abc"), amqp.FrameMinSize)
	in = amqp.AppendMethod(in, 0, &amqp.ConnectionBlocked{Reason: "low on disk"})
	want := []Event{
		{Kind: Delivery, Tag: 7, Redelivered: true, Size: 10000, Stamp: 0x0102030405060708},
		{Kind: Ack, Tag: 9, Multiple: true},
		{Kind: Delivery, Tag: 8},
		{Kind: Nack, Tag: 10},
		{Kind: Delivery, Tag: 9, Size: 3},
		{Kind: Blocked},
	}
	for _, n := range []int{1, 2, 7, 64, 100_000} {
		got, err := events(t, in, n)
		if !errors.Is(err, io.EOF) {
			t.Errorf("%d bytes at a time: %v", n, err)
		}
		for i := range got {
			got[i].Method = nil
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%d bytes at a time:\n got %v\nwant %v", n, got, want)
		}
	}
}

func TestACloseByTheBrokerIsAnError(t *testing.T) {
	in := amqp.AppendMethod(nil, 1, &amqp.ChannelClose{ReplyCode: 404, ReplyText: "NOT_FOUND - no queue 'q' in vhost '/'"})
	_, err := events(t, in, 100)
	var e *amqp.Error
	if !errors.As(err, &e) || e.Code != 404 || e.Text != "NOT_FOUND - no queue 'q' in vhost '/'" {
		t.Errorf("got %v", err)
	}
}

func TestHostileInputIsAnError(t *testing.T) {
	tooMuch := amqp.AppendDeliver(nil, 1, "", 1, false, "", "")
	tooMuch = amqp.AppendContentHeader(tooMuch, 1, 3, nil)
	tooMuch = amqp.AppendBodyFrame(tooMuch, 1, []byte("abcd"))
	for name, in := range map[string][]byte{
		"deliver cut off":      {1, 0, 1, 0, 0, 0, 6, 0, 60, 0, 60, 9, 'x', 0xCE},
		"ack cut off":          {1, 0, 1, 0, 0, 0, 5, 0, 60, 0, 80, 1, 0xCE},
		"no frame end":         {8, 0, 0, 0, 0, 0, 0, 0},
		"frame too large":      {3, 0, 1, 0xff, 0xff, 0xff, 0xff},
		"more body than there": tooMuch,
	} {
		if _, err := events(t, in, 100); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBatchCyclesThroughItsTargets(t *testing.T) {
	body := make([]byte, 5000) // two frames
	b := NewBatch(BatchOptions{
		Targets: []Target{{"e", "k0"}, {"e", "k1"}, {"", "k2"}}, Body: body, Persistent: true,
		FrameMax: amqp.FrameMinSize, Most: 4,
	})
	message := 0
	for _, n := range []int{1, 4, 2, 3, 4, 9} {
		count := min(n, 4)
		for i := range count {
			b.Stamp(i, uint64(1000+message+i))
		}
		rest := b.Take(n)
		for range count {
			rest = checkMessage(t, rest, message)
			message++
		}
		if len(rest) != 0 {
			t.Fatalf("%d bytes too many", len(rest))
		}
	}
}

// checkMessage takes one message off b and compares it with what the i-th should be.
func checkMessage(t *testing.T, b []byte, i int) []byte {
	t.Helper()
	frame := func() amqp.Frame {
		f, n, err := amqp.ParseFrame(b, amqp.FrameMinSize-amqp.FrameOverhead)
		if n == 0 || err != nil {
			t.Fatalf("message %d: no frame: %v", i, err)
		}
		b = b[n:]
		return f
	}
	m, err := amqp.ParseMethod(frame().Payload)
	if err != nil {
		t.Fatal(err)
	}
	p := m.(*amqp.BasicPublish)
	if want := fmt.Sprint("k", i%3); string(p.RoutingKey) != want || (string(p.Exchange) == "") != (i%3 == 2) {
		t.Fatalf("message %d goes to %q with key %q", i, p.Exchange, p.RoutingKey)
	}
	_, _, size, props, err := amqp.ParseContentHeader(frame().Payload)
	if err != nil || size != 5000 {
		t.Fatalf("message %d: size %d, %v", i, size, err)
	}
	var pr amqp.Properties
	if err := amqp.ParseProperties(props, &pr); err != nil || pr.DeliveryMode != 2 {
		t.Fatalf("message %d: delivery mode %d, %v", i, pr.DeliveryMode, err)
	}
	first := frame()
	if got := be64(first.Payload); got != uint64(1000+i) {
		t.Fatalf("message %d: stamp %d", i, got)
	}
	if got := len(first.Payload) + len(frame().Payload); got != 5000 {
		t.Fatalf("message %d: %d bytes of body", i, got)
	}
	return b
}

func be64(b []byte) (v uint64) {
	for _, x := range b[:8] {
		v = v<<8 | uint64(x)
	}
	return v
}

func TestURLs(t *testing.T) {
	for in, want := range map[string]string{
		"amqp://localhost":           "localhost:5672 /",
		"amqp://u:p@h:1234/":         "h:1234 /",
		"amqp://h/v":                 "h:5672 v",
		"amqp://h/%2Fa%2Fb":          "h:5672 /a/b",
		"amqp://[::1]:5673/with.dot": "[::1]:5673 with.dot",
	} {
		u, err := url.Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := Address(u) + " " + VHost(u); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

// A broker in a few lines: enough to shake hands with over a real socket.
func TestOpenAndClose(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan error, 1)
	go func() { served <- serveOne(l) }()
	u, _ := url.Parse("amqp://me:secret@" + l.Addr().String() + "/v")
	c, err := Open(u, "test")
	if err != nil {
		t.Fatal(err)
	}
	if v, _ := c.Server().Get("product"); v.Text() != "fake" || c.FrameMax() != 8192 {
		t.Errorf("server %v, frame max %d", v, c.FrameMax())
	}
	read := make(chan error, 1)
	go func() { read <- c.Fill() }()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-read; !errors.Is(err, ErrClosed) {
		t.Errorf("a read during close: %v", err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func serveOne(l net.Listener) error {
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	head := make([]byte, 8)
	if _, err := io.ReadFull(c, head); err != nil || string(head) != amqp.ProtocolHeader {
		return fmt.Errorf("header %q, %v", head, err)
	}
	srv := &Conn{sock: c, frameMax: 8192, buf: make([]byte, 64)}
	say := func(channel uint16, m amqp.Method) { _, _ = c.Write(amqp.AppendMethod(nil, channel, m)) }
	say(0, &amqp.ConnectionStart{
		VersionMinor: 9, ServerProperties: amqp.Table{{Name: "product", Value: amqp.String("fake")}},
		Mechanisms: []byte("PLAIN"), Locales: []byte("en_US"),
	})
	m, err := srv.await(amqp.ConnectionStartOkID)
	if err != nil {
		return err
	}
	if got := string(m.(*amqp.ConnectionStartOk).Response); got != "\x00me\x00secret" {
		return fmt.Errorf("response %q", got)
	}
	say(0, &amqp.ConnectionTune{ChannelMax: 10, FrameMax: 8192, Heartbeat: 60})
	if m, err = srv.await(amqp.ConnectionTuneOkID); err != nil || m.(*amqp.ConnectionTuneOk).Heartbeat != 0 {
		return fmt.Errorf("tune-ok %v, %v", m, err)
	}
	if m, err = srv.await(amqp.ConnectionOpenID); err != nil || m.(*amqp.ConnectionOpen).VirtualHost != "v" {
		return fmt.Errorf("open %v, %v", m, err)
	}
	if _, err := srv.await(amqp.ChannelOpenID); err != nil {
		return err
	}
	say(0, &amqp.ConnectionOpenOk{})
	say(1, &amqp.ChannelOpenOk{})
	if err := srv.Fill(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("after close: %v", err)
	}
	return nil
}
