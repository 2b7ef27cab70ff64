package broker

import (
	"runtime"
	"testing"
)

var burst [][]byte

// TestIdleHeapGivesBack: garbage goes when nobody allocates any more, not before, and not again and again.
func TestIdleHeapGivesBack(t *testing.T) {
	var h idleHeap
	var m runtime.MemStats
	h.giveBack()
	for range 64 {
		burst = append(burst, make([]byte, 1<<20))
	}
	runtime.GC()
	burst = nil
	collections := func() uint32 { runtime.ReadMemStats(&m); return m.NumForcedGC }
	before := collections()
	if h.giveBack(); collections() != before {
		t.Error("there was a collection in the middle of a burst")
	}
	if h.giveBack(); collections() == before {
		t.Error("there was no collection after it")
	}
	if in := m.HeapInuse; in > 32<<20 {
		t.Errorf("%d bytes are still in use", in)
	}
	before = collections()
	if h.giveBack(); collections() != before {
		t.Error("there was another collection, for nothing")
	}
}
