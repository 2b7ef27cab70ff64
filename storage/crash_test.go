package storage

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

const crashChildEnv = "SETTMQ_STORAGE_CRASH_DIR"

// crashChild is what TestKilledProcessLosesNothingConfirmed kills: it publishes, settles and
// checkpoints as fast as it can, and says what was confirmed ("c seq"), handed out ("d seq") and
// settled ("s seq").
func crashChild() {
	s, err := Open(Options{
		Dir: os.Getenv(crashChildEnv), Small: true, JournalSegment: 64 << 10, JournalMax: 256 << 10,
		MinFree: 1, Log: zerolog.Nop(), OnFailure: func(err error) { panic(err) },
	})
	if err != nil {
		panic(err)
	}
	out := os.Stdout
	var q *Queue
	if q = s.Queue(1); q == nil {
		if err := s.Apply(Change{CreateQueues: []uint64{1}}).Wait(); err != nil {
			panic(err)
		}
		q = s.Queue(1)
	}
	st := q.State()
	var mu sync.Mutex
	confirm := &confirmFunc{func(seqs []uint64) {
		var b []byte
		for _, seq := range seqs {
			b = fmt.Appendf(b, "c %d\n", seq)
		}
		mu.Lock()
		defer mu.Unlock()
		_, _ = out.Write(b) // the parent has gone if this fails
	}}
	oldest := st.FirstSeq
	for seq := st.NextSeq; ; seq++ {
		m := &Message{Body: bodyOf(1, seq, int(seq*7919%9000)), Confirm: confirm, ConfirmSeq: seq}
		m.Targets.Store(1)
		if err := s.Reserve(len(m.Body)); err != nil {
			panic(err)
		}
		q.Append(seq, m)
		// Keep a backlog of 300, so that checkpoints have something to move.
		for oldest+300 < seq {
			if oldest >= q.DeliverLimit() {
				break
			}
			q.SetDelivered(oldest)
			mu.Lock()
			_, _ = fmt.Fprintf(out, "s %d\n", oldest)
			mu.Unlock()
			q.Settle(oldest)
			oldest++
		}
	}
}

type confirmFunc struct{ f func([]uint64) }

func (c *confirmFunc) Confirm(seqs []uint64, _ bool) { c.f(seqs) }

func TestKilledProcessLosesNothingConfirmed(t *testing.T) {
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(1, 2))
	confirmed := make(map[uint64]bool)
	settled := make(map[uint64]bool)
	total := 0
	for round := range 12 {
		confirmed = killRound(t, dir, rng, confirmed, settled)
		total += len(confirmed)
		s := mustOpen(t, testOptions(t, dir))
		q := s.Queue(1)
		if q == nil {
			if len(confirmed) > 0 {
				t.Fatal("the queue is lost")
			}
			mustClose(t, s)
			continue
		}
		found := make(map[uint64]bool)
		for _, it := range readAll(t, q, 0) {
			if !bytes.Equal(it.Message.Body, bodyOf(1, it.Seq, int(it.Seq*7919%9000))) {
				t.Fatalf("round %d: message %d has wrong bytes", round, it.Seq)
			}
			if settled[it.Seq] && !it.Redelivered {
				t.Fatalf("round %d: message %d was handed out and is not flagged", round, it.Seq)
			}
			found[it.Seq] = true
		}
		for seq := range confirmed {
			if !found[seq] && !settled[seq] {
				t.Fatalf("round %d: confirmed message %d is lost", round, seq)
			}
		}
		// Numbers that were never stored may be used again.
		next := q.State().NextSeq
		for seq := range settled {
			if seq >= next {
				delete(settled, seq)
			}
		}
		confirmed = found
		if err := s.state.barrier("test"); err != nil {
			t.Fatal(err)
		}
		mustClose(t, s)
	}
	if total < 1000 {
		t.Errorf("only %d messages confirmed in all", total)
	}
}

// killRound runs the child until it has confirmed some messages, now and then only until it may
// have opened the store, kills it, and returns what it confirmed beside what was there before.
func killRound(t *testing.T, dir string, rng *rand.Rand, before, settled map[uint64]bool) map[uint64]bool {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashChildEnv+"="+dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	atMost := patience
	if rng.IntN(4) == 0 {
		atMost = time.Duration(rng.IntN(100)) * time.Millisecond
	}
	kill := time.AfterFunc(atMost, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	left := 1 + rng.IntN(800)
	r := bufio.NewReader(pipe)
	for {
		line, err := r.ReadString('\n')
		if err == io.EOF {
			break // a line cut short counts as not said
		}
		if err != nil {
			t.Fatal(err)
		}
		var kind byte
		var seq uint64
		if _, err := fmt.Sscanf(line, "%c %d", &kind, &seq); err != nil {
			t.Fatalf("child says %q: %v", line, err)
		}
		if kind == 'c' {
			before[seq] = true
			if left--; left == 0 {
				_ = cmd.Process.Kill()
			}
		} else {
			settled[seq] = true
		}
	}
	_ = cmd.Wait() // it was killed
	if stderr.Len() > 0 {
		t.Fatalf("child: %s", stderr.String())
	}
	return before
}
