package integration

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

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
	body := make([]byte, 1024)
	write := func(from, to int) {
		for ; from < to; from += 1000 {
			var batch []amqp.Publishing
			for i := from; i < min(from+1000, to); i++ {
				batch = append(batch, amqp.Publishing{Body: append(fmt.Appendf(body[:0:0], "%-16d", i), body[16:]...)})
			}
			publishConfirmed(t, ch, "", name, batch...)
		}
	}
	write(0, n)
	readByThree(t, b.URL(), name, n)
	rss := residentMiB(t, b.PID())
	t.Logf("%d messages: %d MiB resident, %d MiB on disk", n, rss, streamMiB(t, b.DataDir()))
	if rss > 200 {
		t.Errorf("%d MiB resident", rss)
	}

	_, err = b.Restart()
	must(t, err)
	readByThree(t, b.URL(), name, n)
	if rss := residentMiB(t, b.PID()); rss > 200 {
		t.Errorf("%d MiB resident after the restart", rss)
	}

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
	write(0, n)
	if used := streamMiB(t, b.DataDir()); used > 12 {
		t.Errorf("%d MiB of a stream that is limited to 8", used)
	}
}

// readByThree reads a whole stream with three consumers at once that acknowledge every, every tenth and every hundredth
// message.
func readByThree(t *testing.T, url, name string, n int) {
	t.Helper()
	done := make(chan error, 3)
	for _, step := range []int{1, 10, 100} {
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
