package journal_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/settmq/settmq/storage/journal"
)

// benchDir is on the disk that JOURNAL_BENCH_DIR names, or where t.TempDir is.
func benchDir(b *testing.B) string {
	b.Helper()
	if parent := os.Getenv("JOURNAL_BENCH_DIR"); parent != "" {
		d, err := os.MkdirTemp(parent, "journal") //nolint:usetesting // on the disk to be measured
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = os.RemoveAll(d) })
		return d
	}
	return b.TempDir()
}

var benchSizes = []int{200, 4 << 10, 64 << 10, 1 << 20}

// BenchmarkCommit is one Append and one Sync, on warm, recycled segments.
func BenchmarkCommit(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			j, _ := mustOpen(b, journal.Options{Dir: benchDir(b), SegmentSize: 16 << 20})
			defer mustClose(b, j)
			buf := [][]byte{make([]byte, size)}
			commit := func() {
				if _, err := j.Append(buf); err != nil {
					b.Fatal(err)
				}
				if err := j.Sync(); err != nil {
					b.Fatal(err)
				}
				if err := j.Release(j.Active()); err != nil {
					b.Fatal(err)
				}
			}
			big := [][]byte{make([]byte, 4<<20)}
			for range 16 { // through the small first segments to recycled ones
				if _, err := j.Append(big); err != nil {
					b.Fatal(err)
				}
				commit()
			}
			j.Settle()
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				commit()
			}
		})
	}
}

// BenchmarkRawFile is the same by hand: pwrite and fdatasync in one zero-filled file.
func BenchmarkRawFile(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			const length = 64 << 20
			f, err := journal.OS{}.OpenFile(filepath.Join(benchDir(b), "raw"), true)
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			for off := int64(0); off < length; off += 1 << 20 {
				if _, err := f.WriteAt(make([]byte, 1<<20), off); err != nil {
					b.Fatal(err)
				}
			}
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
			buf := make([]byte, size)
			off := int64(0)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if off+int64(size) > length {
					off = 0
				}
				if _, err := f.WriteAt(buf, off); err != nil {
					b.Fatal(err)
				}
				if err := f.Sync(); err != nil {
					b.Fatal(err)
				}
				off += int64(size)
			}
		})
	}
}

// BenchmarkAppend is Append alone; a Sync per 8 MiB bounds what is dirty.
func BenchmarkAppend(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			j, _ := mustOpen(b, journal.Options{Dir: benchDir(b), SegmentSize: 16 << 20})
			defer mustClose(b, j)
			buf := [][]byte{make([]byte, size)}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			unsynced := 0
			for b.Loop() {
				if _, err := j.Append(buf); err != nil {
					b.Fatal(err)
				}
				if unsynced += size; unsynced > 8<<20 {
					unsynced = 0
					b.StopTimer()
					if err := j.Sync(); err != nil {
						b.Fatal(err)
					}
					if err := j.Release(j.Active()); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
			}
		})
	}
}

// BenchmarkOpen opens an empty directory with default options.
func BenchmarkOpen(b *testing.B) {
	parent := benchDir(b)
	i := 0
	for b.Loop() {
		i++
		j, _ := mustOpen(b, journal.Options{Dir: filepath.Join(parent, fmt.Sprint(i))})
		b.StopTimer()
		mustClose(b, j)
		_ = os.RemoveAll(filepath.Join(parent, fmt.Sprint(i)))
		b.StartTimer()
	}
}

// BenchmarkReplay reads 64 MiB of records of 64 KiB.
func BenchmarkReplay(b *testing.B) {
	o := journal.Options{Dir: benchDir(b)}
	j, _ := mustOpen(b, o)
	buf := [][]byte{make([]byte, 64<<10)}
	for range 1024 {
		if _, err := j.Append(buf); err != nil {
			b.Fatal(err)
		}
	}
	mustClose(b, j)
	b.SetBytes(64 << 20)
	for b.Loop() {
		j, err := journal.Open(o)
		if err != nil {
			b.Fatal(err)
		}
		if err := j.Replay(0, func(journal.Position, []byte) error { return nil }); err != nil {
			b.Fatal(err)
		}
		mustClose(b, j)
	}
}

// BenchmarkReadAt reads 1 KiB out of a record of 64 KiB.
func BenchmarkReadAt(b *testing.B) {
	j, _ := mustOpen(b, journal.Options{Dir: benchDir(b)})
	defer mustClose(b, j)
	e := mustAppend(b, j, newRand(1), 64<<10)
	p := make([]byte, 1024)
	b.ReportAllocs()
	for b.Loop() {
		if err := j.ReadAt(e.pos, 40000, p); err != nil {
			b.Fatal(err)
		}
	}
}
