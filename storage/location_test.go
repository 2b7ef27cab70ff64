package storage

import (
	"maps"
	"testing"

	"pgregory.net/rapid"
)

// Whatever lies where, in one record or in many, is found there again.
func TestPlacesKeepLocations(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p places
		want := make(map[int]location)
		record := func() position {
			return position{Segment: rapid.Uint64Range(1, 3).Draw(t, "segment"), Offset: rapid.Uint32Range(8, 10).Draw(t, "offset")}
		}
		pos, op, shared := record(), uint32(1), false
		for range rapid.IntRange(0, 300).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"next", "next", "next", "next", "near", "jump", "record", "free", "all"}).Draw(t, "step") {
			case "next":
				op = min(op+rapid.Uint32Range(1, 2000).Draw(t, "size"), maxOpOffset)
			case "near":
				op = rapid.Uint32Range(1, 200_000).Draw(t, "op")
			case "jump":
				op = rapid.Uint32Range(1, maxOpOffset).Draw(t, "op")
			case "record":
				pos, op, shared = record(), 1, rapid.Bool().Draw(t, "shared")
			case "free":
				w := rapid.IntRange(0, pageWords-1).Draw(t, "word")
				p.free(w)
				maps.DeleteFunc(want, func(i int, _ location) bool { return i>>6 == w })
				continue
			case "all":
				p.freeAll()
				clear(want)
				continue
			}
			i := rapid.IntRange(0, pageSeqs-1).Draw(t, "message")
			want[i] = makeLocation(pos, op, shared)
			p.put(i>>6, i&63, want[i])
		}
		for i := range pageSeqs {
			if got := p.get(i>>6, i&63); got != want[i] {
				t.Fatalf("message %d lies at %#x, want %#x", i, got, want[i])
			}
		}
	})
}
