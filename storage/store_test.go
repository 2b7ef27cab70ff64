package storage

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// patience is how long a test waits for what must come: a busy machine can be slow.
const patience = 30 * time.Second

// tb is what helpers need of a *testing.T or *rapid.T.
type tb interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

// testOptions are small everything, logging through t.
func testOptions(t testing.TB, dir string) Options {
	return Options{
		Dir:            dir,
		JournalSegment: 256 << 10,
		JournalMax:     1 << 20,
		Small:          true,
		MinFree:        1 << 20,
		Log:            zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel),
		OnFailure:      func(err error) { t.Errorf("store failed: %v", err) },
	}
}

func mustOpen(t tb, o Options) *Store {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return s
}

func mustClose(t tb, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
}

// createQueue makes a durable queue.
func createQueue(t tb, s *Store) *Queue {
	t.Helper()
	id := s.NextID()
	if err := s.Apply(Change{CreateQueues: []uint64{id}}).Wait(); err != nil {
		t.Fatalf("create: %v", err)
	}
	return s.Queue(id)
}

// confirms collects what was confirmed and can be waited on.
type confirms struct {
	mu   sync.Mutex
	cond sync.Cond
	seqs []uint64
}

func newConfirms() *confirms {
	c := &confirms{}
	c.cond.L = &c.mu
	return c
}

func (c *confirms) Confirm(seqs []uint64, _ bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seqs = append(c.seqs, seqs...)
	c.cond.Broadcast()
}

// wait blocks until n confirms came.
func (c *confirms) wait(t tb, n int) {
	t.Helper()
	deadline := time.AfterFunc(patience+time.Second, c.cond.Broadcast)
	defer deadline.Stop()
	start := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.seqs) < n {
		if time.Since(start) > patience {
			t.Fatalf("%d confirms, want %d", len(c.seqs), n)
		}
		c.cond.Wait()
	}
}

// publish appends one message to the queues and returns it.
func publish(t tb, s *Store, c *confirms, confirmSeq, seq uint64, body []byte, queues ...*Queue) *Message {
	t.Helper()
	m := &Message{Exchange: "ex", RoutingKey: fmt.Sprintf("key%d", seq%3), Properties: []byte{0x10, 0, 2}, Body: body}
	if c != nil {
		m.Confirm, m.ConfirmSeq = c, confirmSeq
	}
	m.Targets.Add(int32(len(queues)) + 1)
	if err := s.Reserve(len(body)); err != nil {
		t.Fatalf("reserve: %v", err)
	}
	for _, q := range queues {
		q.Append(seq, m)
	}
	m.Done()
	return m
}

// bodyOf makes a body that is told apart from every other.
func bodyOf(q, seq uint64, size int) []byte {
	b := []byte(fmt.Sprintf("q%d m%d|", q, seq))
	for len(b) < size {
		b = append(b, byte(len(b)*int(seq+1)>>3))
	}
	return b
}

// readAll reads everything live from `from` on.
func readAll(t tb, q *Queue, from uint64) []Stored {
	t.Helper()
	var all []Stored
	for {
		items, next, err := q.Read(nil, from, 100, 1<<20)
		if err != nil {
			t.Fatalf("read from %d: %v", from, err)
		}
		all = append(all, items...)
		if len(items) == 0 {
			return all
		}
		if next <= items[len(items)-1].Seq {
			t.Fatalf("read from %d: next is %d after item %d", from, next, items[len(items)-1].Seq)
		}
		from = next
	}
}

func TestConfirmedMessagesComeBack(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, testOptions(t, dir))
	q := createQueue(t, s)
	c := newConfirms()
	const n = 500
	sizes := []int{0, 10, 1000, 20_000}
	for i := range uint64(n) {
		publish(t, s, c, i+1, i*2, bodyOf(q.ID(), i*2, sizes[i%4]), q) // holes between
	}
	c.wait(t, n)
	for i := range uint64(n) {
		if i%5 == 0 {
			q.Settle(i * 2)
		}
	}
	check := func(q *Queue, redelivered bool) {
		t.Helper()
		i := uint64(0)
		for _, it := range readAll(t, q, 0) {
			if i%5 == 0 {
				i++
			}
			want := bodyOf(q.ID(), i*2, sizes[i%4])
			if it.Seq != i*2 || !bytes.Equal(it.Message.Body, want) {
				t.Fatalf("got message %d with %d bytes, want %d with %d", it.Seq, len(it.Message.Body), i*2, len(want))
			}
			if it.Message.Exchange != "ex" || it.Message.RoutingKey != fmt.Sprintf("key%d", it.Seq%3) || !bytes.Equal(it.Message.Properties, []byte{0x10, 0, 2}) {
				t.Fatalf("message %d has wrong fields: %+v", it.Seq, it.Message)
			}
			if it.Redelivered != redelivered {
				t.Fatalf("message %d: redelivered = %v", it.Seq, it.Redelivered)
			}
			i++
		}
		if i != n {
			t.Fatalf("read up to %d, want %d", i, n)
		}
	}
	check(q, false)
	q.SetDelivered(2 * n)
	mustClose(t, s)

	s = mustOpen(t, testOptions(t, dir))
	q = s.Queue(q.ID())
	check(q, true)
	st := q.State()
	if st.NextSeq != 2*n-1 || st.FirstSeq != 2 || st.Ready != n*4/5 || !s.Recovered().Clean {
		t.Fatalf("state after reopening: %+v, %+v", st, s.Recovered())
	}
	mustClose(t, s)
}

func TestMessageSettledBeforeItsBatchIsConfirmedAndNeverWritten(t *testing.T) {
	o := testOptions(t, t.TempDir())
	o.SyncDelay = 20 * time.Millisecond
	s := mustOpen(t, o)
	defer mustClose(t, s)
	q := createQueue(t, s)
	c := newConfirms()
	publish(t, s, c, 1, 1, []byte("first"), q) // occupies the committer
	before := s.journal.Segments()[0].Used
	const n = 200
	for i := range uint64(n) {
		publish(t, s, c, i+2, i+2, make([]byte, 1000), q)
		q.Settle(i + 2)
	}
	c.wait(t, n+1)
	if after := s.journal.Segments()[0].Used; after-before > n*1000/2 {
		t.Fatalf("%d bytes were written for settled messages", after-before)
	}
}

func TestMetadataIsSeenAtOnceAndSurvives(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, testOptions(t, dir))
	scan := func(prefix string) (out string) {
		err := s.Scan([]byte(prefix), func(k, v []byte) error {
			out += fmt.Sprintf("%s=%s ", k, v)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	kv := func(k, v string) KV { return KV{[]byte(k), []byte(v)} }
	s.Apply(Change{Put: []KV{kv("b2", "x"), kv("a", "1"), kv("b1", "y"), kv("c", "")}})
	last := s.Apply(Change{Put: []KV{kv("b1", "z")}, Delete: [][]byte{[]byte("b2"), []byte("nope")}})
	if got, want := scan("b"), "b1=z "; got != want {
		t.Fatalf("scan: %q, want %q", got, want)
	}
	if err := last.Wait(); err != nil {
		t.Fatal(err)
	}
	id := s.NextID()
	mustClose(t, s)
	s = mustOpen(t, testOptions(t, dir))
	defer func() { mustClose(t, s) }()
	if got, want := scan(""), "a=1 b1=z c= "; got != want {
		t.Fatalf("scan after reopening: %q, want %q", got, want)
	}
	if again := s.NextID(); again <= id {
		t.Fatalf("id %d after %d", again, id)
	}
}

func TestDirectoryIsLocked(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, testOptions(t, dir))
	if _, err := Open(testOptions(t, dir)); !errors.Is(err, ErrLocked) {
		t.Fatalf("second open: %v", err)
	}
	mustClose(t, s)
	mustClose(t, mustOpen(t, testOptions(t, dir)))
}
