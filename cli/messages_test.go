package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/settmq/settmq/internal/testbroker"
)

func TestMain(m *testing.M) { testbroker.Main(m) }

// buffer is an output that may be watched while a command writes to it.
type buffer struct {
	mu      sync.Mutex
	b       bytes.Buffer
	changed chan struct{} // closed and replaced at every write
}

func newBuffer() *buffer { return &buffer{changed: make(chan struct{})} }

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.changed)
	b.changed = make(chan struct{})
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// await waits until the output holds text.
func (b *buffer) await(t *testing.T, text string) {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		b.mu.Lock()
		now, changed := b.b.String(), b.changed
		b.mu.Unlock()
		if strings.Contains(now, text) {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("waited for %q, output is %q", text, now)
		}
	}
}

// runCommand runs a command line as the program would.
func runCommand(stdin string, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	a := &App{Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs}
	code = a.Execute(context.Background(), a.Root(), args)
	return code, out.String(), errs.String()
}

func TestWrongCommandLinesAreExplainedInOneLine(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"pub", "hi"}, "settmq pub: needs --key"},
		{[]string{"pub", "--key", "a", "--count", "0", "hi"}, "settmq pub: --count must be"},
		{[]string{"pub", "--key", "a", "--count", "x"}, "settmq pub: invalid argument"},
		{[]string{"pub", "--key", "a", "--header", "x", "hi"}, `settmq pub: --header "x" is not key=value`},
		{[]string{"pub", "--key", "a", "hi", "--nonsense"}, "settmq pub: unknown flag: --nonsense"}, // behind an operand
		{[]string{"get"}, "settmq get: needs the name of one queue"},
		{[]string{"get", "a", "b"}, "settmq get: needs the name of one queue"},
		{[]string{"get", ""}, "settmq get: needs the name of one queue"},
		{[]string{"sub"}, "settmq sub: needs --queue or --exchange"},
		{[]string{"sub", "hello"}, `settmq sub: does not take "hello"`},
		{[]string{"sub", "--queue", "q", "--key", "k"}, "settmq sub: --key needs --exchange"},
		{[]string{"sub", "--queue", "q", "--count", "-1"}, "settmq sub: --count cannot"},
		{[]string{"sub", "--queue", "q", "--prefetch", "0"}, "settmq sub: --prefetch must"},
	} {
		code, stdout, stderr := runCommand("", tc.args...)
		if code != ExitUsage || stdout != "" || !strings.HasPrefix(stderr, tc.want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: code %d, stdout %q, stderr %q", tc.args, code, stdout, stderr)
		}
	}
}

func TestHelpIsAResult(t *testing.T) {
	for _, name := range []string{"pub", "get", "sub"} {
		code, stdout, stderr := runCommand("", name, "--help")
		if code != ExitOK || !strings.Contains(stdout, "Usage:\n  settmq "+name+" ") || stderr != "" {
			t.Errorf("%s: code %d, stdout %q, stderr %q", name, code, stdout, stderr)
		}
	}
}

func TestFlagsAndOperandsMixUntilTwoDashes(t *testing.T) {
	code, _, stderr := runCommand("", "get", "a", "--json", "b", "--", "--nonsense")
	if code != ExitUsage || !strings.HasPrefix(stderr, "settmq get: needs the name of one queue") {
		t.Errorf("code %d, stderr %q", code, stderr)
	}
}

func TestFailedConnectionsAreExplainedWithoutThePassword(t *testing.T) {
	// A port that nobody listens on, and one whose listener hangs up.
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := free.Addr().String()
	_ = free.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	for target, want := range map[string]string{
		"amqp://u:s3cret@" + nobody + "/":            "cannot connect to " + nobody + ": ",
		"amqp://u:s3cret@" + l.Addr().String() + "/": "cannot connect to " + l.Addr().String() + ": ",
		"http://u:s3cret@127.0.0.1/":                 "not an AMQP URL",
		"amqp://u:s3cret@127.0.0.1:port/":            "not an AMQP URL",
		"amqp://u:s3cret@%zz/":                       "not an AMQP URL",
	} {
		for _, args := range [][]string{{"pub", "--key", "a", "hi"}, {"get", "a"}, {"sub", "--queue", "a"}} {
			code, stdout, stderr := runCommand("", append(args, "--url", target)...)
			if code != ExitUnreachable || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, want) {
				t.Errorf("%q %s: code %d, stdout %q, stderr %q", args, target, code, stdout, stderr)
			}
			if strings.Contains(stderr, "s3cret") {
				t.Errorf("the password is shown: %s", stderr)
			}
		}
	}
}

func TestJSONKeepsEverything(t *testing.T) {
	var out bytes.Buffer
	p := newPrinter(&out, true)
	for _, d := range []amqp091.Delivery{
		{Exchange: "e", RoutingKey: "k", Body: []byte("a\nb"), Headers: amqp091.Table{
			"t": amqp091.Table{"l": []any{int32(1), nil, true}}, "b": []byte{0xff}, "nan": nan(), "f": 1.5, "d": amqp091.Decimal{Scale: 2, Value: 150},
		}, DeliveryMode: 2, Timestamp: time.Unix(1, 0)},
		{Body: []byte{0xff, 0}, Redelivered: true},
		{},
	} {
		if err := p.print(&d); err != nil {
			t.Fatal(err)
		}
	}
	want := `{"exchange":"e","routing_key":"k","redelivered":false,"body":"a\nb","headers":{"b":"/w==","d":{"Scale":2,"Value":150},"f":1.5,"nan":"NaN","t":{"l":[1,null,true]}},"delivery_mode":2,"timestamp":"1970-01-01T00:00:01Z"}
{"exchange":"","routing_key":"","redelivered":true,"body_base64":"/wA="}
{"exchange":"","routing_key":"","redelivered":false,"body":""}
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &out, want)
	}
}

func nan() float64 {
	var zero float64
	return zero / zero
}

func TestBodiesCannotSteerATerminal(t *testing.T) {
	if got, want := printable([]byte("ü\tok\n\x1b[2J\x07\xff\u202ex\r")), "ü\tok\n\\u001b[2J\\u0007\\xff\\u202ex\\u000d"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// From here on a broker is needed: any one at $AMQP_URL, or one of the test's own.

// queueName returns a name for a queue of this test, which is deleted afterwards, and a channel.
func queueName(t *testing.T) (string, *amqp091.Channel) {
	t.Helper()
	target := os.Getenv("AMQP_URL")
	if target == "" {
		target = testbroker.Start(t, testbroker.Options{}).URL()
		t.Setenv("AMQP_URL", target)
	}
	conn, err := amqp091.Dial(target)
	if err != nil {
		t.Fatal(err)
	}
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	name := "settmq-cli-" + rand.Text()
	t.Cleanup(func() {
		_, _ = ch.QueueDelete(name, false, false, false)
		_ = conn.Close()
	})
	return name, ch
}

// start runs sub until the test ends, or stop is called, and waits until it consumes.
func start(t *testing.T, args ...string) (stdout, stderr *buffer, wait func() int, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	stdout, stderr = newBuffer(), newBuffer()
	result := make(chan int, 1)
	a := &App{Stdin: strings.NewReader(""), Stdout: stdout, Stderr: stderr}
	go func() { result <- a.Execute(ctx, a.Root(), append([]string{"sub"}, args...)) }()
	var code int
	wait = sync.OnceValue(func() int { code = <-result; return code })
	t.Cleanup(func() { cancel(); wait() })
	stderr.await(t, "waiting for messages")
	return stdout, stderr, wait, cancel
}

func TestNewcomerSeesAMessageMove(t *testing.T) {
	name, _ := queueName(t)
	stdout, stderr, wait, stop := start(t, "--queue", name)
	stderr.await(t, `created queue "`+name+`"`)
	code, out, errs := runCommand("", "pub", "--key", name, "hi")
	if code != ExitOK || out != "1 message confirmed\n" || errs != "" {
		t.Fatalf("pub: code %d, stdout %q, stderr %q", code, out, errs)
	}
	stdout.await(t, "hi\n")
	stop()
	if code := wait(); code != ExitOK {
		t.Errorf("sub: code %d", code)
	}
	if code, _, errs := runCommand("", "get", name); code != ExitEmpty || !strings.Contains(errs, "is empty") {
		t.Errorf("the message was not acknowledged: code %d, stderr %q", code, errs)
	}
}

func TestUnroutableMessageIsReported(t *testing.T) {
	name, _ := queueName(t)
	code, out, errs := runCommand("", "pub", "--key", name, "--count", "3", "hi")
	if code != ExitUnroutable || out != "" || !strings.Contains(errs, "3 messages reached no queue: NO_ROUTE (312)") || strings.Count(errs, "\n") != 1 {
		t.Errorf("code %d, stdout %q, stderr %q", code, out, errs)
	}
	code, _, errs = runCommand("", "pub", "--exchange", name, "hi")
	if code != ExitRefused || !strings.Contains(errs, "NOT_FOUND - no exchange") || !strings.Contains(errs, "(404)") {
		t.Errorf("no exchange: code %d, stderr %q", code, errs)
	}
}

func TestLinesOfStandardInputBecomeMessages(t *testing.T) {
	name, ch := queueName(t)
	if _, err := ch.QueueDeclare(name, true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	var lines strings.Builder
	for range 1000 { // several confirm windows
		lines.WriteString("a line\n")
	}
	code, out, errs := runCommand(lines.String()+"last without end", "pub", "--key", name, "--persistent", "--header", "k=v=w", "--content-type", "text/plain")
	if code != ExitOK || out != "1001 messages confirmed\n" {
		t.Fatalf("code %d, stdout %q, stderr %q", code, out, errs)
	}
	stdout, _, wait, _ := start(t, "--queue", name, "--count", "1001", "--json")
	if code := wait(); code != ExitOK {
		t.Fatalf("sub: code %d", code)
	}
	got := strings.Split(strings.TrimSpace(stdout.String()), "\n")
	if len(got) != 1001 {
		t.Fatalf("%d messages", len(got))
	}
	var m message
	if err := json.Unmarshal([]byte(got[1000]), &m); err != nil {
		t.Fatal(err)
	}
	if m.Body == nil || *m.Body != "last without end" || m.Headers["k"] != "v=w" || m.DeliveryMode != 2 || m.ContentType != "text/plain" || m.RoutingKey != name {
		t.Errorf("message %s", got[1000])
	}
	if q, err := ch.QueueDeclarePassive(name, true, false, false, false, nil); err != nil || q.Messages != 0 {
		t.Errorf("queue %+v, %v", q, err)
	}
}

func TestGetLeavesTheMessageUnlessToldOtherwise(t *testing.T) {
	name, ch := queueName(t)
	if code, _, errs := runCommand("", "get", name); code != ExitRefused || !strings.Contains(errs, "NOT_FOUND - no queue") {
		t.Errorf("missing queue: code %d, stderr %q", code, errs)
	}
	if _, err := ch.QueueDeclare(name, true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := runCommand("", "pub", "--key", name, "one"); code != ExitOK {
		t.Fatal(errs)
	}
	for _, ack := range []string{"--ack=false", "--ack=false", "--ack"} {
		if code, out, errs := runCommand("", "get", name, ack); code != ExitOK || out != "one\n" || errs != "" {
			t.Errorf("get %s: code %d, stdout %q, stderr %q", ack, code, out, errs)
		}
	}
	if code, out, _ := runCommand("", "get", name); code != ExitEmpty || out != "" {
		t.Errorf("after --ack: code %d, stdout %q", code, out)
	}
}

func TestSubOfAnExchangeHasItsOwnQueue(t *testing.T) {
	name, ch := queueName(t)
	if err := ch.ExchangeDeclare(name, "topic", false, true, false, false, nil); err != nil {
		t.Fatal(err)
	}
	stdout, _, wait, _ := start(t, "--exchange", name, "--key", "a.*", "--key", "b.#", "--count", "2")
	for _, key := range []string{"a.1", "c.1", "b.1.2"} {
		runCommand("", "pub", "--exchange", name, "--key", key, key)
	}
	if code := wait(); code != ExitOK || stdout.String() != "a.1\nb.1.2\n" {
		t.Errorf("code %d, stdout %q", code, stdout)
	}
}

func TestSubSaysWhyItEnded(t *testing.T) {
	name, ch := queueName(t)
	_, stderr, wait, _ := start(t, "--queue", name)
	if _, err := ch.QueueDelete(name, false, false, false); err != nil {
		t.Fatal(err)
	}
	if code := wait(); code != ExitFailed || !strings.HasSuffix(stderr.String(), `queue "`+name+`" was deleted`+"\n") {
		t.Errorf("code %d, stderr %q", code, stderr)
	}
	// Somebody else's exclusive queue.
	if _, err := ch.QueueDeclare(name, false, false, true, false, nil); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := runCommand("", "sub", "--queue", name); code != ExitRefused || !strings.Contains(errs, "RESOURCE_LOCKED") {
		t.Errorf("code %d, stderr %q", code, errs)
	}
}

func TestRefusedLoginIsExplained(t *testing.T) {
	queueName(t)
	uri, err := amqp091.ParseURI(os.Getenv("AMQP_URL"))
	if err != nil {
		t.Fatal(err)
	}
	uri.Password = "wrong-" + rand.Text()
	code, _, errs := runCommand("", "get", "q", "--url", uri.String())
	if code != ExitUnreachable || !strings.Contains(errs, `user "`+uri.Username+`"`) || strings.Contains(errs, uri.Password) {
		t.Errorf("code %d, stderr %q", code, errs)
	}
	if uri, err = amqp091.ParseURI(os.Getenv("AMQP_URL")); err != nil {
		t.Fatal(err)
	}
	uri.Vhost = "no-such-" + rand.Text()
	code, _, errs = runCommand("", "get", "q", "--url", uri.String())
	if code != ExitUnreachable || !strings.Contains(errs, uri.Vhost) {
		t.Errorf("code %d, stderr %q", code, errs)
	}
}
