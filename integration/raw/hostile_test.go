package raw

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// at most this many peers that have not logged in stand at the door at once: brokers limit them.
const atTheDoor = 16

// memorySlack is what any of the attacks may make the broker's resident memory grow by.
const memorySlack = 64 << 20

// siege runs an attack while a bystander works, and checks afterwards that the bystander was
// not disturbed and, if the broker is our child, that it did not pay with memory or file
// descriptors.
func siege(t *testing.T, attack func(t *testing.T, info *brokerInfo)) {
	t.Helper()
	info := broker(t)
	by := startBystander(t, info)
	by.check(t)
	var rss uint64
	var files int
	if info.child != nil {
		if m, err := info.child.Memory(); err == nil {
			rss = m.RSS
		} else if !errors.Is(err, errors.ErrUnsupported) {
			t.Fatal(err)
		}
		if err := info.child.ResetPeak(); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			t.Logf("the peak of memory cannot be reset: %v", err)
		}
		files, _ = info.child.OpenFiles()
	}
	attack(t, info)
	by.check(t)
	by.stop(t)
	if info.child == nil || rss == 0 {
		return
	}
	m, err := info.child.Memory()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("resident memory %d KiB before, %d after, %d at most", rss>>10, m.RSS>>10, m.Peak>>10)
	// The race detector multiplies memory.
	if race := strings.Contains(os.Getenv("SETTMQ_BUILD_FLAGS"), "-race"); !race && m.Peak > rss+memorySlack {
		t.Errorf("resident memory grew from %d to %d KiB", rss>>10, m.Peak>>10)
	}
	// The bystander has left; the attackers must be gone too.
	deadline := time.Now().Add(20 * time.Second)
	for n := files; ; n, _ = info.child.OpenFiles() {
		if n <= files {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d files open, %d before the attack", n, files)
		}
	}
}

// crowd runs f for 0..n-1, width at a time, and reports the errors.
func crowd(t *testing.T, n, width int, f func(i int) error) {
	t.Helper()
	var wg sync.WaitGroup
	slots := make(chan struct{}, width)
	for i := range n {
		slots <- struct{}{}
		wg.Add(1)
		go func() {
			defer func() {
				<-slots
				wg.Done()
			}()
			if err := f(i); err != nil {
				t.Errorf("peer %d: %v", i, err)
			}
		}()
	}
	wg.Wait()
}

// opened dials, shakes hands and opens channel 1.
func opened(u brokerURL, o map[string]string) (*conn, error) {
	c, err := dial(u)
	if err != nil {
		return nil, err
	}
	if _, err = c.handshake(o); err == nil {
		_, err = c.call(1, "channel.open", nil, "channel.open-ok")
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// sampleArguments fills every field of a method with something that has a length.
func sampleArguments(m *method) map[string]string {
	args := map[string]string{}
	for _, f := range m.fields {
		switch f.kind {
		case shortstr:
			args[f.name] = "raw-sample"
		case longstr:
			args[f.name] = "long-sample"
		case table:
			args[f.name] = "{a=S:text,b=F:{c=A:[I:1,l:2]},d=t:1}"
		default:
			args[f.name] = "1"
		}
	}
	return args
}

// TestTruncatedMethods sends every method with its arguments cut at every byte, in frames
// that are whole. The answer is a close with an error, or the end of the connection.
func TestTruncatedMethods(t *testing.T) {
	siege(t, func(t *testing.T, info *brokerInfo) {
		type attempt struct {
			m       *method
			payload []byte
		}
		var all []attempt
		for _, m := range methodList {
			whole, err := encodeMethod(m, sampleArguments(m))
			if err != nil {
				t.Fatal(err)
			}
			for n := range len(whole) {
				all = append(all, attempt{m, whole[:n]})
			}
		}
		crowd(t, len(all), 8, func(i int) error {
			a := all[i]
			c, err := opened(info.url, nil)
			if err != nil {
				return err
			}
			defer c.Close()
			ch := uint16(1)
			if a.m.class == 10 {
				ch = 0
			}
			if err := c.write(appendFrame(nil, frameMethod, ch, a.payload)); err != nil {
				return err
			}
			// Nothing is answered on the channel; what comes on channel 0 is a close.
			ev, err := c.next(0)
			switch {
			case errors.Is(err, io.EOF):
				if info.flavour == "settmq" {
					return fmt.Errorf("%s cut to %d bytes: dropped without a close", a.m.name, len(a.payload))
				}
				return nil
			case err != nil:
				return fmt.Errorf("%s cut to %d bytes: %w", a.m.name, len(a.payload), err)
			case ev.method == nil || ev.method.name != "connection.close":
				return fmt.Errorf("%s cut to %d bytes: got %v", a.m.name, len(a.payload), ev)
			}
			codes := []string{"501", "502", "503"}
			if info.flavour == "rabbitmq" {
				codes = append(codes, "541") // on channel 0
			}
			if !slices.Contains(codes, ev.args["reply-code"]) {
				return fmt.Errorf("%s cut to %d bytes: got %v", a.m.name, len(a.payload), ev)
			}
			return c.send(0, "connection.close-ok", nil)
		})
	})
}

// session is everything a client sends in a short life, for a queue of that name.
func session(t *testing.T, u brokerURL, queue string) []byte {
	t.Helper()
	b := bytes.Clone(protocolHeader)
	add := func(ch uint16, name string, args map[string]string) {
		t.Helper()
		payload, err := encodeMethod(methodsByName[name], args)
		if err != nil {
			t.Fatal(err)
		}
		b = appendFrame(b, frameMethod, ch, payload)
	}
	add(0, "connection.start-ok", map[string]string{
		"client-properties": "{capabilities=F:" + allCapabilities + "}",
		"mechanism":         "PLAIN", "response": "\x00" + u.user + "\x00" + u.pass, "locale": "en_US",
	})
	add(0, "connection.tune-ok", map[string]string{"channel-max": "2047", "frame-max": "131072"})
	add(0, "connection.open", map[string]string{"virtual-host": u.vhost})
	add(1, "channel.open", nil)
	add(1, "queue.declare", map[string]string{"queue": queue, "exclusive": "1"})
	add(1, "confirm.select", nil)
	add(1, "basic.publish", map[string]string{"routing-key": queue})
	header, err := encodeHeader(10, map[string]string{"headers": "{a=I:1}", "delivery-mode": "2"})
	if err != nil {
		t.Fatal(err)
	}
	b = appendFrame(b, frameHeader, 1, header)
	b = appendFrame(b, frameBody, 1, []byte("01234"))
	b = appendFrame(b, frameBody, 1, []byte("56789"))
	add(1, "basic.consume", map[string]string{"queue": queue, "consumer-tag": "c"})
	add(1, "channel.close", map[string]string{"reply-code": "200"})
	add(0, "connection.close", map[string]string{"reply-code": "200"})
	return b
}

// TestTruncatedSessions cuts a whole session at every byte and leaves, in order or with RST.
func TestTruncatedSessions(t *testing.T) {
	siege(t, func(t *testing.T, info *brokerInfo) {
		run := rand.Uint32()
		total := len(session(t, info.url, fmt.Sprintf("raw.cut.%d.%05d", run, 0)))
		crowd(t, 2*total, atTheDoor, func(i int) error {
			c, err := net.DialTimeout("tcp", info.url.host, answerTimeout)
			if err != nil {
				return err
			}
			defer c.Close()
			b := session(t, info.url, fmt.Sprintf("raw.cut.%d.%05d", run, i))[:i%total]
			if _, err := c.Write(b); err != nil {
				return nil // refused already: pipelining this early is the broker's right to dislike
			}
			if i >= total {
				return c.(*net.TCPConn).SetLinger(0)
			}
			return nil
		})
	})
}

// TestOneByteSegments feeds a session byte by byte.
func TestOneByteSegments(t *testing.T) {
	siege(t, func(t *testing.T, info *brokerInfo) {
		c, err := dial(info.url)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		queue := fmt.Sprintf("raw.bytes.%d", rand.Uint32())
		for _, b := range session(t, info.url, queue) {
			if err := c.write([]byte{b}); err != nil {
				t.Fatal(err)
			}
		}
		for _, want := range []string{"connection.start", "connection.tune", "connection.open-ok", "connection.close-ok"} {
			if _, err := c.expect(0, want); err != nil {
				t.Fatal(err)
			}
		}
		for _, want := range []string{"channel.open-ok", "queue.declare-ok", "confirm.select-ok"} {
			if _, err := c.expect(1, want); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestGarbage throws random bytes at the broker in every state of a connection, some after
// a beginning that makes sense.
func TestGarbage(t *testing.T) {
	const peers = 240
	siege(t, func(t *testing.T, info *brokerInfo) {
		crowd(t, peers, atTheDoor, func(i int) error {
			rng := rand.New(rand.NewPCG(uint64(i), 0))
			queue := fmt.Sprintf("raw.garbage.%d.%05d", rng.Uint32(), i)
			b := session(t, info.url, queue)
			if i%2 == 0 { // a cut session goes on with noise
				b = b[:rng.IntN(len(b))]
				noise := make([]byte, 1+rng.IntN(20000))
				for j := range noise {
					noise[j] = byte(rng.Uint32())
				}
				b = append(b, noise...)
			} else { // a few bytes of a session are wrong
				for range 1 + rng.IntN(8) {
					b[rng.IntN(len(b))] ^= byte(1 + rng.IntN(255))
				}
			}
			c, err := net.DialTimeout("tcp", info.url.host, answerTimeout)
			if err != nil {
				return err
			}
			defer c.Close()
			go io.Copy(io.Discard, c) //nolint:errcheck // ends with the connection
			if _, err := c.Write(b); err != nil && !isEnd(err) {
				return err
			}
			return nil
		})
	})
}

// TestSlowloris sends the opening at one byte a second: the time for the handshake ends it.
func TestSlowloris(t *testing.T) {
	siege(t, func(t *testing.T, info *brokerInfo) {
		b := session(t, info.url, "raw.slow")
		crowd(t, atTheDoor, atTheDoor, func(int) error {
			c, err := dial(info.url)
			if err != nil {
				return err
			}
			defer c.Close()
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			begin := time.Now()
			for i := 0; c.awaitEnd(time.Millisecond) != nil; i++ {
				if time.Since(begin) > 15*time.Second {
					return fmt.Errorf("still connected after %v", time.Since(begin))
				}
				if _, err := c.Conn.Write(b[i : i+1]); err != nil && !isEnd(err) {
					return err
				}
				<-tick.C
			}
			return nil
		})
	})
}

// TestAnnouncedSizesCostNothing announces large frames and bodies and sends almost nothing.
func TestAnnouncedSizesCostNothing(t *testing.T) {
	siege(t, func(t *testing.T, info *brokerInfo) {
		const peers = 100
		var conns []*conn
		defer func() {
			for _, c := range conns {
				c.Close()
			}
		}()
		for i := range peers {
			c, err := opened(info.url, nil)
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, c)
			payload, err := encodeMethod(methodsByName["basic.publish"], map[string]string{"routing-key": "raw.nowhere"})
			if err != nil {
				t.Fatal(err)
			}
			b := appendFrame(nil, frameMethod, 1, payload)
			header, err := encodeHeader(16<<20, nil)
			if err != nil {
				t.Fatal(err)
			}
			b = appendFrame(b, frameHeader, 1, header)
			b = appendFrame(b, frameBody, 1, []byte("x"))
			if i%2 == 0 { // and a body frame that never gets whole
				b = append(b, frameBody, 0, 1)
				b = binary.BigEndian.AppendUint32(b, 131064)
				b = append(b, 'x')
			}
			if err := c.write(b); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// nested is a table of the given depth.
func nested(depth int) []byte {
	// Innermost first: a table that holds nothing, then tables that hold one.
	b := []byte{0, 0, 0, 0}
	for range depth - 1 {
		b = append([]byte{1, 'a', 'F'}, b...)
		b = append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
	}
	return b
}

// TestDeepTables nests tables beyond reason, where a table may stand. We refuse with 502
// what is deeper than 32; RabbitMQ has no limit but the frame.
func TestDeepTables(t *testing.T) {
	tables := map[string][]byte{
		"depth 33":   nested(33),
		"depth 1000": nested(1000),
		"depth 9000": nested(9000),
	}
	var many []byte
	for i := range 5000 {
		many = append(many, byte(5))
		many = append(many, fmt.Sprintf("%05d", i)...)
		many = append(many, 'V')
	}
	tables["5000 fields"] = append(binary.BigEndian.AppendUint32(nil, uint32(len(many))), many...)
	siege(t, func(t *testing.T, info *brokerInfo) {
		for name, table := range tables {
			t.Run("declare "+name, func(t *testing.T) {
				payload := appendUint(nil, uint64(methodsByName["queue.declare"].id()), 4)
				payload = append(payload, 0, 0, 0) // ticket, an empty name
				payload = append(payload, 4)       // exclusive
				testTable(t, info, appendFrame(nil, frameMethod, 1, append(payload, table...)), "queue.declare-ok")
			})
			t.Run("publish "+name, func(t *testing.T) {
				publish, err := encodeMethod(methodsByName["basic.publish"], map[string]string{"routing-key": "raw.nowhere"})
				if err != nil {
					t.Fatal(err)
				}
				header, err := encodeHeader(0, map[string]string{"flags": "0x2000", "raw": hex.EncodeToString(table)})
				if err != nil {
					t.Fatal(err)
				}
				b := appendFrame(nil, frameMethod, 1, publish)
				b = appendFrame(b, frameHeader, 1, header)
				qos, err := encodeMethod(methodsByName["basic.qos"], nil)
				if err != nil {
					t.Fatal(err)
				}
				testTable(t, info, appendFrame(b, frameMethod, 1, qos), "basic.qos-ok")
			})
		}
	})
}

func testTable(t *testing.T, info *brokerInfo, frames []byte, ok string) {
	t.Helper()
	c, err := opened(info.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.write(frames); err != nil {
		t.Fatal(err)
	}
	if info.flavour != "settmq" {
		if _, err := c.expect(1, ok); err != nil {
			t.Error(err)
		}
		return
	}
	ev, err := c.expect(0, "connection.close")
	if err != nil {
		t.Fatal(err)
	}
	if ev.args["reply-code"] != "502" || !strings.HasPrefix(ev.args["reply-text"], "SYNTAX_ERROR - ") {
		t.Errorf("got %v, want 502 SYNTAX_ERROR", ev)
	}
}

// TestWideArraysOfNothing sends arrays whose elements take one byte on the wire and much
// more in a careless decoder.
func TestWideArraysOfNothing(t *testing.T) {
	siege(t, func(t *testing.T, info *brokerInfo) {
		wide := bytes.Repeat([]byte{'V'}, 120000)
		field := append([]byte{1, 'a', 'A'}, binary.BigEndian.AppendUint32(nil, uint32(len(wide)))...)
		field = append(field, wide...)
		table := append(binary.BigEndian.AppendUint32(nil, uint32(len(field))), field...)
		payload := appendUint(nil, uint64(methodsByName["queue.declare"].id()), 4)
		payload = append(append(payload, 0, 0, 0, 4), table...)
		crowd(t, 50, 4, func(int) error {
			c, err := opened(info.url, nil)
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.write(appendFrame(nil, frameMethod, 1, payload)); err != nil {
				return err
			}
			if _, err := c.next(1); err == nil {
				return nil // taken
			}
			_, err = c.expect(0, "connection.close")
			return err
		})
	})
}

// TestConsumerThatNeverReads asks for messages and does not read them. Everything is back
// when it has gone, and nobody else noticed.
func TestConsumerThatNeverReads(t *testing.T) {
	siege(t, func(t *testing.T, info *brokerInfo) {
		const messages, size = 400, 40000
		queue := fmt.Sprintf("raw.unread.%d", rand.Uint32())
		c, err := opened(info.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.call(1, "queue.declare", map[string]string{"queue": queue, "durable": "1"}, "queue.declare-ok"); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if _, err := c.call(1, "queue.delete", map[string]string{"queue": queue}, "queue.delete-ok"); err != nil {
				t.Error(err)
			}
		}()
		peer, err := net.DialTimeout("tcp", info.url.host, answerTimeout)
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		if err := peer.(*net.TCPConn).SetReadBuffer(4096); err != nil {
			t.Fatal(err)
		}
		own := queue + ".own"
		b := session(t, info.url, own)
		// All but the two closes, and then a consumer on the shared queue.
		b = b[:bytes.LastIndex(b, []byte{frameMethod, 0, 1, 0, 0, 0})]
		consume, err := encodeMethod(methodsByName["basic.consume"], map[string]string{"queue": queue, "consumer-tag": "d"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := peer.Write(appendFrame(b, frameMethod, 1, consume)); err != nil {
			t.Fatal(err)
		}
		if err := awaitCount(c, queue, "consumer-count", "1"); err != nil {
			t.Fatal(err)
		}
		for range messages {
			if err := c.send(1, "basic.publish", map[string]string{"routing-key": queue, "zeros": fmt.Sprint(size)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := peer.Close(); err != nil {
			t.Fatal(err)
		}
		if err := awaitCount(c, queue, "message-count", fmt.Sprint(messages)); err != nil {
			t.Error(err)
		}
	})
}

// awaitCount polls a count of queue.declare-ok.
func awaitCount(c *conn, queue, name, want string) error {
	deadline := time.Now().Add(20 * time.Second)
	for {
		ev, err := c.call(1, "queue.declare", map[string]string{"queue": queue, "passive": "1"}, "queue.declare-ok")
		if err != nil {
			return err
		}
		if ev.args[name] == want {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s of %s is %s, want %s", name, queue, ev.args[name], want)
		}
	}
}

// TestRefusedPeersAtTheDoor keeps as many peers waiting at the door as may wait: others
// still get in.
func TestRefusedPeersAtTheDoor(t *testing.T) {
	siege(t, func(t *testing.T, info *brokerInfo) {
		for range atTheDoor {
			c, err := net.DialTimeout("tcp", info.url.host, answerTimeout)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
		c, err := opened(info.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.leave(); err != nil {
			t.Fatal(err)
		}
	})
}
