package faultfs

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/settmq/settmq/storage/journal"
)

func create(t *testing.T, f *FS, name string) journal.File {
	t.Helper()
	h, err := f.OpenFile(name, true)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestPowerCutKeepsWhatWasSyncedAndASubsetOfSectorsOfTheRest(t *testing.T) {
	kept := map[int]int{}
	for seed := range uint64(200) {
		f := New(seed)
		h := create(t, f, "/d/a")
		ok(t, h.Allocate(4*block))
		ok(t, h.WritevAt([][]byte{bytes.Repeat([]byte{1}, block), bytes.Repeat([]byte{1}, 3*block)}, 0))
		ok(t, h.Sync())
		ok(t, f.SyncDir("/d"))
		ok(t, h.WritevAt([][]byte{bytes.Repeat([]byte{2}, 2*block)}, block))
		f = f.PowerCut(rand.New(rand.NewPCG(seed, 0)))
		b, err := f.ReadFile("/d/a")
		ok(t, err)
		n := 0
		for i := 0; i < len(b); i += sector {
			s := b[i : i+sector]
			if s[0] == 2 && i >= block && i < 3*block {
				n++
			} else if s[0] != 1 {
				t.Fatalf("sector at %d holds %d", i, s[0])
			}
			if !bytes.Equal(s, bytes.Repeat(s[:1], sector)) {
				t.Fatalf("sector at %d is torn", i)
			}
		}
		kept[n]++
		if _, err := h.ReadAt(b, 0); !errors.Is(err, ErrDead) {
			t.Fatalf("a file of the dead machine: %v", err)
		}
	}
	if kept[0] == 0 || kept[2*block/sector] == 0 || len(kept) < 6 {
		t.Errorf("cuts kept these numbers of sectors: %v", kept)
	}
}

func TestPowerCutForgetsNamesThatWereNotSynced(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(50) {
		f := New(seed)
		create(t, f, "/d/a")
		ok(t, f.SyncDir("/d"))
		create(t, f, "/d/b")
		ok(t, f.Rename("/d/b", "/d/c"))
		ok(t, f.Remove("/d/a"))
		f = f.PowerCut(rand.New(rand.NewPCG(seed, 0)))
		names := f.Names()
		seen[strings.Join(names, " ")] = true
		if slices.Contains(names, "/d/b") && slices.Contains(names, "/d/c") {
			t.Fatalf("a rename happened by half: %v", names)
		}
		if !slices.Contains(names, "/d/a") && !slices.Contains(names, "/d/c") {
			t.Fatalf("the removal overtook the rename: %v", names)
		}
	}
	if len(seen) < 2 {
		t.Errorf("every cut left the same: %v", seen)
	}
}

func TestKillKeepsEverythingFromTheDeadProcess(t *testing.T) {
	f := New(1)
	h := create(t, f, "/d/a")
	ok(t, h.WritevAt([][]byte{[]byte("abc")}, 0))
	dead := f
	f = f.Kill()
	for name, err := range map[string]error{"sync": h.Sync(), "remove": dead.Remove("/d/a"), "rename": dead.Rename("/d/a", "/d/b")} {
		if !errors.Is(err, ErrDead) {
			t.Errorf("%s of a dead process: %v", name, err)
		}
	}
	if b, err := f.ReadFile("/d/a"); err != nil || string(b) != "abc" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestFailedSyncLosesTheDataForGood(t *testing.T) {
	f := New(1)
	h := create(t, f, "/d/a")
	ok(t, h.Allocate(block))
	ok(t, h.Sync())
	ok(t, f.SyncDir("/d"))
	ok(t, h.WritevAt([][]byte{[]byte("abc")}, 0))
	f.FailAt(OpSync, 1, syscall.EIO)
	if err := h.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("sync: %v", err)
	}
	ok(t, h.Sync())
	f = f.PowerCut(rand.New(rand.NewPCG(1, 1)))
	if b, err := f.ReadFile("/d/a"); err != nil || !bytes.Equal(b, make([]byte, block)) {
		t.Errorf("%q, %v", b[:3], err)
	}
}

func TestFailAtCountsCalls(t *testing.T) {
	f := New(1)
	h := create(t, f, "/d/a")
	boom := errors.New("boom")
	f.FailAt(OpWrite|OpSync, 3, boom)
	f.FailFrom(OpRemove, 2, boom)
	var got []bool
	for range 5 {
		_, err := h.WriteAt([]byte{1}, 0)
		got = append(got, errors.Is(err, boom))
	}
	if !slices.Equal(got, []bool{false, false, true, false, false}) {
		t.Errorf("FailAt: %v", got)
	}
	got = nil
	for range 4 {
		got = append(got, errors.Is(f.Remove("/none"), boom))
	}
	if !slices.Equal(got, []bool{false, true, true, true}) {
		t.Errorf("FailFrom: %v", got)
	}
	f.Heal()
	if err := f.Remove("/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Heal: %v", err)
	}
	if n := f.Calls(OpWrite | OpRemove); n != 10 {
		t.Errorf("%d calls counted", n)
	}
}

func TestQuotaLimitsBlocks(t *testing.T) {
	f := New(1)
	f.SetQuota(3 * block)
	h := create(t, f, "/d/a")
	ok(t, h.Allocate(2*block))
	if err := h.Allocate(4 * block); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("allocate: %v", err)
	}
	ok(t, h.WritevAt([][]byte{make([]byte, 2*block)}, 0)) // reserved
	ok(t, h.WritevAt([][]byte{{1}}, 2*block))
	if _, err := h.WriteAt([]byte{1}, 3*block); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write: %v", err)
	}
	if free, _ := f.Free("/d"); free != 0 || f.Used() != 3*block {
		t.Errorf("free %d, used %d", free, f.Used())
	}
	ok(t, f.Remove("/d/a"))
	ok(t, f.SyncDir("/d"))
	if f.Used() != 0 {
		t.Errorf("a removed file uses %d bytes", f.Used())
	}
	f.SparseAllocate(true)
	h = create(t, f, "/d/b")
	if err := h.Allocate(100 * block); !errors.Is(err, errors.ErrUnsupported) || f.Used() != 0 {
		t.Errorf("sparse: %v, %d used", err, f.Used())
	}
}
