package raw

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/settmq/settmq/internal/testbroker"
)

var onlyFlag = flag.String("scripts", "", "play only scripts/scenarios that match this regular expression")

func TestMain(m *testing.M) {
	flag.Parse()
	// Scenarios mostly wait for the broker.
	if err := flag.Set("test.parallel", "24"); err != nil {
		panic(err)
	}
	testbroker.Main(m)
}

type brokerURL struct{ host, user, pass, vhost string }

func parseURL(s string) (brokerURL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return brokerURL{}, err
	}
	b := brokerURL{host: u.Host, user: "guest", pass: "guest", vhost: "/"}
	if u.Port() == "" {
		b.host = net.JoinHostPort(u.Hostname(), "5672")
	}
	if u.User != nil {
		b.user = u.User.Username()
		b.pass, _ = u.User.Password()
	}
	if p := strings.TrimPrefix(u.EscapedPath(), "/"); p != "" {
		if b.vhost, err = url.PathUnescape(p); err != nil {
			return b, err
		}
	}
	return b, nil
}

// brokerInfo is the broker under test.
type brokerInfo struct {
	url          brokerURL
	flavour      string // settmq or rabbitmq
	major, minor int
	child        *testbroker.Broker // nil when it is not ours
	start        *event             // its connection.start
	arguments    map[string]bool    // queue arguments that it supports, as far as asked; of the main test
}

// broker finds the broker under test: AMQP_URL, or a child of this test.
func broker(t *testing.T) *brokerInfo {
	t.Helper()
	info := &brokerInfo{}
	address, external := testbroker.External()
	if !external {
		info.child = testbroker.Start(t, testbroker.Options{})
		address = info.child.URL()
	}
	var err error
	if info.url, err = parseURL(address); err != nil {
		t.Fatal(err)
	}
	c, err := dial(info.url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if info.start, err = c.handshake(nil); err != nil {
		t.Fatal(err)
	}
	if err := c.leave(); err != nil {
		t.Fatal(err)
	}
	props := info.start.args["server-properties"]
	info.flavour = "rabbitmq"
	if platform := regexp.MustCompile(`platform=S:("[^"]*"|[^,]*)`).FindString(props); strings.Contains(platform, "SettMQ") {
		info.flavour = "settmq"
	}
	if v := regexp.MustCompile(`version=S:(\d+)\.(\d+)`).FindStringSubmatch(props); v != nil {
		info.major, _ = strconv.Atoi(v[1])
		info.minor, _ = strconv.Atoi(v[2])
	}
	t.Logf("broker %s %d.%d at %s", info.flavour, info.major, info.minor, info.url.host)
	return info
}

// supports asks the broker if it takes a queue argument (with the value 1).
func (b *brokerInfo) supports(t *testing.T, arg string) bool {
	t.Helper()
	if ok, asked := b.arguments[arg]; asked {
		return ok
	}
	c, err := opened(b.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.send(1, "queue.declare", map[string]string{"exclusive": "1", "arguments": "{" + arg + "=I:1}"}); err != nil {
		t.Fatal(err)
	}
	ev, err := c.next(1)
	if err != nil {
		t.Fatal(err)
	}
	ok := !strings.Contains(ev.args["reply-text"], "not supported")
	if b.arguments == nil {
		b.arguments = map[string]bool{}
	}
	b.arguments[arg] = ok
	return ok
}

func TestScripts(t *testing.T) {
	info := broker(t)
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	selected := regexp.MustCompile(*onlyFlag)
	by := startBystander(t, info)
	run := strconv.FormatUint(rand.Uint64()>>40, 36)
	n := 0
	t.Run("play", func(t *testing.T) {
		for _, file := range files {
			all, err := parseScripts(file)
			if err != nil {
				t.Fatal(err)
			}
			group := strings.TrimSuffix(filepath.Base(file), ".txt")
			for _, s := range all {
				n++
				name, prefix := group+"/"+s.name, fmt.Sprintf("raw.%s.%d.", run, n)
				if !selected.MatchString(name) {
					continue
				}
				t.Run(name, func(t *testing.T) {
					if ok, err := info.matches(s.only); err != nil {
						t.Fatal(err)
					} else if !ok {
						t.Skipf("only for %s: %s", s.only, s.reason)
					}
					for _, arg := range s.needs {
						if !info.supports(t, arg) {
							t.Skipf("the broker does not support %s yet", arg)
						}
					}
					t.Parallel()
					s.play(t, info, prefix)
					by.check(t)
				})
			}
		}
	})
	by.stop(t)
}

// TestScenarioNamesAreUnique keeps a failure's name pointing at one scenario.
func TestScenarioNamesAreUnique(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		all, err := parseScripts(file)
		if err != nil {
			t.Fatal(err)
		}
		var seen []string
		for _, s := range all {
			if slices.Contains(seen, s.name) {
				t.Errorf("%s: %q twice", file, s.name)
			}
			seen = append(seen, s.name)
		}
	}
}

// TestKnownDifferences prints where brokers differ on purpose and why.
func TestKnownDifferences(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		all, err := parseScripts(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range all {
			switch {
			case s.differs != "":
				t.Logf("%s: %s", s.name, s.differs)
			case s.only != "":
				if s.reason == "" {
					t.Errorf("%s: %s: only for %s, without a reason", file, s.name, s.only)
				}
				t.Logf("%s (only %s): %s", s.name, s.only, s.reason)
			}
		}
	}
}

// bystander publishes with confirms to its own queue and consumes from it, all the time. The
// peers that misbehave must not be able to disturb it.
type bystander struct {
	info   *brokerInfo
	conn   *conn
	queue  string
	rounds atomic.Uint64
	slow   atomic.Int64 // longest round in nanoseconds
	quit   chan struct{}
	wg     sync.WaitGroup
	err    error         // valid after failed
	failed chan struct{} // closed when the connection broke
}

// bystanderPatience is how long one round trip of the bystander may take.
const bystanderPatience = 10 * time.Second

func startBystander(t *testing.T, info *brokerInfo) *bystander {
	t.Helper()
	c, err := dial(info.url)
	if err != nil {
		t.Fatal(err)
	}
	by := &bystander{info: info, conn: c, quit: make(chan struct{}), failed: make(chan struct{})}
	if err := by.prepare(); err != nil {
		t.Fatalf("bystander: %v", err)
	}
	by.wg.Add(1)
	go func() {
		defer by.wg.Done()
		if err := by.loop(); err != nil {
			by.err = err
			close(by.failed)
		}
	}()
	return by
}

func (by *bystander) prepare() error {
	c := by.conn
	if _, err := c.handshake(map[string]string{"heartbeat": "10"}); err != nil {
		return err
	}
	if _, err := c.call(1, "channel.open", nil, "channel.open-ok"); err != nil {
		return err
	}
	q, err := c.call(1, "queue.declare", map[string]string{"exclusive": "1"}, "queue.declare-ok")
	if err != nil {
		return err
	}
	by.queue = q.args["queue"]
	if _, err := c.call(1, "confirm.select", nil, "confirm.select-ok"); err != nil {
		return err
	}
	_, err = c.call(1, "basic.consume", map[string]string{"consumer-tag": "by", "no-ack": "1"}, "basic.consume-ok")
	return err
}

func (by *bystander) loop() error {
	c := by.conn
	pace := time.NewTicker(5 * time.Millisecond)
	defer pace.Stop()
	for n := uint64(1); ; n++ {
		select {
		case <-by.quit:
			return c.leave()
		case <-pace.C:
		}
		begin := time.Now()
		body := strconv.FormatUint(n, 10)
		if err := c.send(1, "basic.publish", map[string]string{"routing-key": by.queue, "body": body}); err != nil {
			return err
		}
		for range 2 { // the delivery and the confirm, in either order
			ev, err := c.next(1)
			if err != nil {
				return err
			}
			if ev.method == nil || ev.method.name != "basic.ack" && (ev.method.name != "basic.deliver" || string(ev.body) != body) {
				return fmt.Errorf("round %d: got %v", n, ev)
			}
		}
		took := time.Since(begin)
		if took > bystanderPatience {
			return fmt.Errorf("round %d took %v", n, took)
		}
		if int64(took) > by.slow.Load() {
			by.slow.Store(int64(took))
		}
		by.rounds.Add(1)
	}
}

// check waits until the bystander has made another round.
func (by *bystander) check(t *testing.T) {
	t.Helper()
	want := by.rounds.Load() + 2
	deadline := time.NewTimer(2 * bystanderPatience)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for by.rounds.Load() < want {
		select {
		case <-by.failed:
			t.Fatalf("the bystander was disturbed: %v", by.err)
		case <-deadline.C:
			t.Fatalf("the bystander is stuck")
		case <-tick.C:
		}
	}
}

func (by *bystander) stop(t *testing.T) {
	t.Helper()
	close(by.quit)
	by.wg.Wait()
	select {
	case <-by.failed:
		t.Errorf("the bystander was disturbed: %v", by.err)
	default:
		t.Logf("bystander: %d rounds, the slowest %v", by.rounds.Load(), time.Duration(by.slow.Load()))
	}
	by.conn.Close()
}

func (c *conn) cut(reset bool) error {
	if reset {
		if tcp, ok := c.Conn.(*net.TCPConn); ok {
			if err := tcp.SetLinger(0); err != nil {
				return err
			}
		}
	}
	return c.Close()
}
