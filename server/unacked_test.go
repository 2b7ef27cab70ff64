package server

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/settmq/settmq/queue"
)

// TestUnackedAgainstAModel compares the list with a plain slice.
func TestUnackedAgainstAModel(t *testing.T) {
	consumers := []*queue.Consumer{nil, {}, {}}
	queues := []queue.Source{new(queue.Queue), new(queue.Queue)}
	rapid.Check(t, func(rt *rapid.T) {
		var (
			u     unacked
			model []outstanding
			tag   uint64
		)
		index := func(tag uint64) int {
			return slices.IndexFunc(model, func(o outstanding) bool { return o.tag == tag })
		}
		for range rapid.IntRange(1, 300).Draw(rt, "steps") {
			switch rapid.IntRange(0, 8).Draw(rt, "op") {
			case 0, 1, 2, 3:
				for range rapid.SampledFrom([]int{1, 1, 40}).Draw(rt, "burst") {
					tag += uint64(rapid.IntRange(1, 3).Draw(rt, "gap")) // deliveries without ack between
					o := outstanding{tag: tag, seq: tag * 3, queue: queues[tag%2], consumer: consumers[tag%3]}
					u.push(o)
					model = append(model, o)
				}
			case 4, 5, 6:
				at := uint64(rapid.IntRange(0, int(tag)+2).Draw(rt, "tag"))
				if len(model) > 0 && rapid.Bool().Draw(rt, "oldest") {
					at = model[0].tag
				}
				i, want := u.find(at), index(at)
				if (i < 0) != (want < 0) {
					rt.Fatalf("find(%d) = %d, the model has %d", at, i, want)
				}
				if i < 0 {
					continue
				}
				if got := u.take(i); got != model[want] {
					rt.Fatalf("took %v, want %v", got, model[want])
				}
				model = slices.Delete(model, want, want+1)
			case 7:
				if len(model) == 0 {
					continue
				}
				want := rapid.IntRange(0, len(model)-1).Draw(rt, "through")
				got := u.takeThrough(u.find(model[want].tag), nil)
				if !slices.Equal(got, model[:want+1]) {
					rt.Fatalf("took %v, want %v", got, model[:want+1])
				}
				model = slices.Delete(model, 0, want+1)
			case 8:
				if rapid.IntRange(0, 5).Draw(rt, "all") > 0 {
					continue
				}
				if got := u.takeAll(); !slices.Equal(got, model) {
					rt.Fatalf("took %v, want %v", got, model)
				}
				model = nil
			}
			consumers := 0
			for _, o := range model {
				if o.consumer != nil {
					consumers++
				}
			}
			if u.live != len(model) || u.consumers != consumers {
				rt.Fatalf("%d live and %d of consumers, want %d and %d", u.live, u.consumers, len(model), consumers)
			}
			// Settled entries must not pile up behind one that is never acked.
			if kept := len(u.items) - u.head; kept > 64 && kept > 4*(len(model)+1) {
				rt.Fatalf("%d entries kept for %d live ones", kept, len(model))
			}
		}
	})
}
