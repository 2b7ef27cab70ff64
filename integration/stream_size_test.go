package integration

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/settmq/settmq/internal/testbroker"
)

var streamMessages = flag.Int("stream-messages", 20_000, "how many messages of 1 KiB TestStreamOfAnySize writes")

// TestStreamOfAnySize writes messages of 1 KiB, reads them with three consumers at their own pace, before and after a
// restart, and lets retention free the disk. The broker's memory must not grow with the log.
func TestStreamOfAnySize(t *testing.T) {
	if sut.external {
		t.Skip("looks at the broker's process and files")
	}
	b := testbroker.Start(t, testbroker.Options{})
	n := *streamMessages
	conn := dialURL(t, b.URL())
	ch := channel(t, conn)
	confirmMode(t, ch)
	const name = "log"
	_, err := ch.QueueDeclare(name, true, false, false, false, amqp.Table{"x-queue-type": "stream", "x-stream-max-segment-size-bytes": 8 << 20})
	must(t, err)
	step := func(what string, f func()) {
		start := time.Now()
		f()
		rss := residentMiB(t, b.PID())
		t.Logf("%s: %.1f s, then %d MiB resident, %d MiB on disk", what, time.Since(start).Seconds(), rss, streamMiB(t, b.DataDir()))
		if rss > 200 {
			t.Errorf("%s: %d MiB resident", what, rss)
		}
	}
	step(fmt.Sprintf("writing the first fifth of %d messages", n), func() { writeNumbered(t, ch, name, 0, n/5) })
	step("writing the rest", func() { writeNumbered(t, ch, name, n/5, n) })
	step("reading", func() { readByThree(t, b.URL(), name, n) })
	step("starting again", func() { _, err = b.Restart() })
	must(t, err)
	step("reading", func() { readByThree(t, b.URL(), name, n) })

	// The same log, now in a stream with a limit.
	conn = dialURL(t, b.URL())
	ch = channel(t, conn)
	confirmMode(t, ch)
	_, err = ch.QueueDelete(name, false, false, false)
	must(t, err)
	if left := streamMiB(t, b.DataDir()); left > 0 {
		t.Errorf("%d MiB are left of a deleted stream", left)
	}
	_, err = ch.QueueDeclare(name, true, false, false, false, amqp.Table{"x-queue-type": "stream", "x-max-length-bytes": 8 << 20})
	must(t, err)
	step("writing with a limit of 8 MiB", func() { writeNumbered(t, ch, name, 0, max(n/5, 20_000)) })
	if used := streamMiB(t, b.DataDir()); used > 12 {
		t.Errorf("%d MiB of a stream that is limited to 8", used)
	}
}

// writeNumbered publishes messages of 1 KiB, each with its number, with up to 2000 of them unconfirmed.
func writeNumbered(t *testing.T, ch *amqp.Channel, name string, from, to int) {
	t.Helper()
	var open []*amqp.DeferredConfirmation
	settle := func(keep int) {
		for ; len(open) > keep; open = open[1:] {
			select {
			case <-open[0].Done():
			case <-time.After(patience):
				t.Fatalf("no confirm for publish %d", open[0].DeliveryTag)
			}
			if !open[0].Acked() {
				t.Fatalf("publish %d was nacked", open[0].DeliveryTag)
			}
		}
	}
	body := make([]byte, 1024)
	for i := from; i < to; i++ {
		copy(body, fmt.Sprintf("%-16d", i))
		c, err := ch.PublishWithDeferredConfirm("", name, false, false, amqp.Publishing{Body: body})
		must(t, err)
		if open = append(open, c); len(open) == 2000 {
			settle(1000)
		}
	}
	settle(0)
}

// readByThree reads a whole stream with three consumers at once, each at its own pace: they acknowledge every tenth,
// hundredth and thousandth message and have twice as many before that.
func readByThree(t *testing.T, url, name string, n int) {
	t.Helper()
	done := make(chan error, 3)
	for _, step := range []int{10, 100, 1000} {
		ch := channel(t, dialURL(t, url))
		prefetch(t, ch, 2*step, false)
		deliveries := consume(t, ch, name, "", amqp.Table{"x-stream-offset": "first"})
		go func() {
			done <- func() error {
				for i := range n {
					d, ok := <-deliveries
					if !ok {
						return fmt.Errorf("closed after %d", i)
					}
					if got := d.Headers["x-stream-offset"]; got != int64(i) || strings.TrimSpace(string(d.Body[:16])) != strconv.Itoa(i) {
						return fmt.Errorf("message %d has the offset %v and is %q", i, got, d.Body[:16])
					}
					if i%step == step-1 || i == n-1 {
						if err := d.Ack(true); err != nil {
							return err
						}
					}
				}
				return nil
			}()
		}()
	}
	for range 3 {
		must(t, <-done)
	}
}

func residentMiB(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skip("no /proc here")
	}
	_, rest, _ := strings.Cut(string(b), "RssAnon:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	must(t, err)
	return kib >> 10
}

// streamMiB is what the segments of all streams take.
func streamMiB(t *testing.T, dir string) int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "streams", "*"))
	must(t, err)
	size := int64(0)
	for _, f := range files {
		st, err := os.Stat(f)
		must(t, err)
		size += st.Size()
	}
	return int(size >> 20)
}
