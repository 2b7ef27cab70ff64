package stream

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/storage/journal/faultfs"
)

// world is a stream on a disk that can lose its power, and what a broker would know about it.
type world struct {
	*rig
	rt  *rapid.T
	rng *rand.Rand
	fs  *faultfs.FS

	s        *Stream
	settings queue.Settings
	confirms *confirmer
	messages []modelMessage // by offset; those behind confirmed may be lost with the power
	first    uint64         // segments before were given up
}

type modelMessage struct {
	body   []byte
	filter string // value of x-stream-filter-value, "" is none
	at     time.Time
}

var modelFilters = []string{"", "a", "b"}

func (w *world) publish() {
	n := rapid.IntRange(1, 40).Draw(w.rt, "messages")
	size := rapid.SampledFrom([]int{0, 10, 1000, 9000, 100_000}).Draw(w.rt, "size")
	for range n {
		i := len(w.messages)
		b := bytes.Repeat([]byte{byte(i)}, w.rng.IntN(size+1))
		m := modelMessage{body: fmt.Append(b, i), filter: modelFilters[w.rng.IntN(len(modelFilters))], at: w.now()}
		w.messages = append(w.messages, m)
		var headers []amqp.Field
		if m.filter != "" {
			headers = append(headers, field("x-stream-filter-value", amqp.String(m.filter)))
		}
		w.s.Publish(message(w.confirms, uint64(i), m.body, headers...), nil)
	}
}

// sync waits until everything is confirmed.
func (w *world) sync() { w.confirms.wait(w.t, len(w.messages)) }

// read reads from an offset to the end, all or the messages with one filter value.
func (w *world) read() {
	w.sync()
	w.compare(rapid.Uint64Range(0, uint64(len(w.messages))).Draw(w.rt, "offset"), rapid.SampledFrom(modelFilters).Draw(w.rt, "filter"))
}

func (w *world) compare(from uint64, filter string) {
	args := []amqp.Field{field("x-stream-offset", amqp.Int64(int64(from)))}
	if filter != "" {
		args = append(args, field("x-stream-filter", amqp.String(filter)))
	}
	first, next := w.bounds()
	var want []uint64
	for i := max(from, first); i < next; i++ {
		if filter == "" || w.messages[i].filter == filter {
			want = append(want, i)
		}
	}
	c, k := consume(w.t, w.s, plenty, args...)
	list := k.wait(w.t, len(want))
	c.Queue.Unsubscribe(c.ID, nil)
	for i, g := range list {
		if i >= len(want) || g.offset != want[i] || g.body != string(w.messages[g.offset].body) {
			w.rt.Fatalf("from %d with filter %q: delivery %d of %d is message %d with %d bytes", from, filter, i, len(want), g.offset, len(g.body))
		}
	}
}

// bounds returns where the log begins and ends, after a check that it begins with a segment.
func (w *world) bounds() (first, next uint64) {
	first, next = w.s.log.bounds()
	if next != uint64(len(w.messages)) {
		w.rt.Fatalf("the log ends at %d, not at %d", next, len(w.messages))
	}
	if first < w.first {
		w.rt.Fatalf("the log begins at %d, it was %d", first, w.first)
	}
	w.first = first
	return first, next
}

// limit sets limits, lets time pass and looks at what stays.
func (w *world) limit() {
	w.sync()
	w.engine.Retain() // by the limits so far
	before, _ := w.bounds()
	w.settings.MaxLengthBytes, w.settings.MaxAge = queue.Optional[int64]{}, queue.Optional[time.Duration]{}
	bytes := rapid.SampledFrom([]int64{0, 200 << 10, 1 << 20}).Draw(w.rt, "bytes")
	age := rapid.SampledFrom([]time.Duration{0, time.Minute, time.Hour}).Draw(w.rt, "age")
	if bytes > 0 {
		w.settings.MaxLengthBytes = queue.Some(bytes)
	}
	if age > 0 {
		w.settings.MaxAge = queue.Some(age)
	}
	w.advance(time.Duration(w.rng.IntN(90)) * time.Minute)
	w.s.Configure(w.settings)
	w.engine.Retain()
	first, next := w.bounds()
	size, _ := w.s.log.stat()
	if bytes > 0 && size > bytes && len(w.s.log.segs) > 1 {
		w.rt.Fatalf("%d bytes in %d segments stay, allowed are %d", size, len(w.s.log.segs), bytes)
	}
	if first > before && bytes == 0 && w.now().Sub(w.messages[first-1].at) < age {
		w.rt.Fatalf("message %d went at the age of %v, allowed are %v", first-1, w.now().Sub(w.messages[first-1].at), age)
	}
	if next > 0 && first >= next && len(w.s.log.segs) > 1 {
		w.rt.Fatalf("nothing stays: %d to %d", first, next)
	}
}

// reopen goes on after an orderly close.
func (w *world) reopen() {
	w.close()
	w.rise(len(w.messages), w.first)
}

// cut goes on with what a power cut or a kill leaves. Removed segments may be back.
func (w *world) cut(kill bool) {
	var left *faultfs.FS
	least := 0
	if kill {
		left = w.fs.Kill()
	} else {
		left = w.fs.PowerCut(w.rng)
	}
	w.end(left)
	w.fs = left
	// Confirms that were on their way when the power went count as given.
	w.confirms.mu.Lock()
	for least < len(w.messages) && w.confirms.seqs[uint64(least)] {
		least++
	}
	if len(w.confirms.seqs) != least {
		w.rt.Fatalf("%d confirms, but %d is without one", len(w.confirms.seqs), least)
	}
	w.confirms.mu.Unlock()
	w.rise(least, 0)
}

// rise opens what is there, which has at least so many messages and begins with one from least on.
func (w *world) rise(least int, first uint64) {
	s, err := w.tryOpen(w.settings)
	if err != nil {
		w.rt.Fatal(err)
	}
	w.s, w.first = s, first
	_, next := s.log.bounds()
	if int(next) < least || int(next) > len(w.messages) {
		w.rt.Fatalf("the log ends at %d, %d of %d messages were confirmed", next, least, len(w.messages))
	}
	w.messages = w.messages[:next]
	w.confirms = newConfirmer()
	for i := range next {
		w.confirms.seqs[i] = true
	}
	w.compare(0, "")
}

func TestStreamKeepsItsPromisesThroughPowerCuts(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		fs := faultfs.New(seed)
		w := &world{rig: newRig(t, fs, "/d/streams"), rt: rt, rng: rand.New(rand.NewPCG(seed, 1)), fs: fs, confirms: newConfirmer()}
		w.settings = smallSegments
		w.s = w.open(w.settings)
		step := func(f func()) func(*rapid.T) { return func(*rapid.T) { f() } }
		rt.Repeat(map[string]func(*rapid.T){
			"publish": step(w.publish), "publish too": step(w.publish), "sync": step(w.sync), "read": step(w.read),
			"limit": step(w.limit), "reopen": step(w.reopen),
			"cut": step(func() { w.cut(false) }), "kill": step(func() { w.cut(true) }),
		})
		w.read()
		w.close()
	})
}
