package journal_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"go.uber.org/goleak"

	"github.com/settmq/settmq/storage/journal"
	"github.com/settmq/settmq/storage/journal/faultfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const dir = "/log"

// entry is a record as the tests remember it.
type entry struct {
	pos  journal.Position
	data []byte
}

// options are those of most tests: small segments, in memory.
func options(fs *faultfs.FS) journal.Options {
	return journal.Options{FS: fs, Dir: dir, SegmentSize: 32 << 10}
}

// open opens and replays, and returns what was there.
func open(o journal.Options, from uint64) (*journal.Journal, []entry, error) {
	j, err := journal.Open(o)
	if err != nil {
		return nil, nil, err
	}
	var got []entry
	err = j.Replay(from, func(pos journal.Position, record []byte) error {
		got = append(got, entry{pos, bytes.Clone(record)})
		return nil
	})
	if err != nil {
		_ = j.Close() // the error that counts is there already
		return nil, got, err
	}
	return j, got, nil
}

func mustOpen(t testing.TB, o journal.Options) (*journal.Journal, []entry) {
	t.Helper()
	j, got, err := open(o, 0)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return j, got
}

// appendRecord appends data cut into up to three buffers.
func appendRecord(j *journal.Journal, rng *rand.Rand, data []byte) (entry, error) {
	a := rng.IntN(len(data) + 1)
	b := a + rng.IntN(len(data)-a+1)
	pos, err := j.Append([][]byte{data[:a], data[a:b], nil, data[b:]})
	return entry{pos, data}, err
}

func mustAppend(t testing.TB, j *journal.Journal, rng *rand.Rand, n int) entry {
	t.Helper()
	e, err := appendRecord(j, rng, randomBytes(rng, n))
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	return e
}

func mustSync(t testing.TB, j *journal.Journal) {
	t.Helper()
	if err := j.Sync(); err != nil {
		t.Fatalf("sync: %v", err)
	}
}

func mustClose(t testing.TB, j *journal.Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
}

// drop ends a journal whose file system was killed.
func drop(j *journal.Journal) { _ = j.Close() }

func randomBytes(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 7)) }

// differ says how two lists of records differ, "" if they do not.
func differ(got, want []entry) string {
	for i := range min(len(got), len(want)) {
		if got[i].pos != want[i].pos {
			return fmt.Sprintf("record %d is at %v, want %v", i, got[i].pos, want[i].pos)
		}
		if !bytes.Equal(got[i].data, want[i].data) {
			return fmt.Sprintf("record %d (%v) has other contents", i, got[i].pos)
		}
	}
	if len(got) != len(want) {
		return fmt.Sprintf("%d records, want %d", len(got), len(want))
	}
	return ""
}

// checkPrefix fails unless got is a prefix of want with at least the first least records.
func checkPrefix(t testing.TB, got, want []entry, least int) {
	t.Helper()
	if len(got) > len(want) || len(got) < least {
		t.Fatalf("%d records, want %d to %d", len(got), least, len(want))
	}
	if d := differ(got, want[:len(got)]); d != "" {
		t.Fatal(d)
	}
}

func isCorrupt(err error) bool {
	var c *journal.CorruptError
	return errors.As(err, &c)
}

func segmentName(id uint64) string { return fmt.Sprintf("%s/%016d.seg", dir, id) }
