package journal

import (
	"bytes"
	"math/rand"
	"testing"
	"time"
)

func TestSmoke(t *testing.T) {
	dir := t.TempDir()
	rng := rand.New(rand.NewSource(1))
	var want [][]byte
	var pos []Position
	for life := 0; life < 4; life++ {
		t0 := time.Now()
		j, err := Open(Options{Dir: dir, SegmentSize: 256 << 10})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		err = j.Replay(0, func(p Position, rec []byte) error {
			if p != pos[n] || !bytes.Equal(rec, want[n]) {
				t.Fatalf("record %d differs", n)
			}
			n++
			return nil
		})
		if err != nil || n != len(want) {
			t.Fatal(err, n, len(want))
		}
		t.Log(time.Since(t0), j.Recovery(), len(j.Segments()))
		for i := 0; i < 200; i++ {
			b := make([]byte, rng.Intn(20000))
			if i%50 == 0 {
				b = make([]byte, 3<<20)
			}
			rng.Read(b)
			k := rng.Intn(len(b) + 1)
			p, err := j.Append([][]byte{b[:k], b[k:]})
			if err != nil {
				t.Fatal(err)
			}
			want, pos = append(want, b), append(pos, p)
			if i%3 == 0 {
				if err := j.Sync(); err != nil {
					t.Fatal(err)
				}
			}
		}
		for i := range want {
			off := rng.Intn(len(want[i]) + 1)
			p := make([]byte, rng.Intn(len(want[i])-off+1))
			if err := j.ReadAt(pos[i], uint64(off), p); err != nil || !bytes.Equal(p, want[i][off:off+len(p)]) {
				t.Fatal(i, err)
			}
		}
		n = 0
		for _, s := range j.Segments() {
			if err := j.ReplaySegment(s.ID, func(p Position, rec []byte) error {
				if p != pos[n] || !bytes.Equal(rec, want[n]) {
					t.Fatalf("record %d differs", n)
				}
				n++
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		if n != len(want) {
			t.Fatal(n, len(want))
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
