package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/rs/zerolog"
	"pgregory.net/rapid"

	"github.com/settmq/settmq/storage/journal/faultfs"
)

// world is a store on a disk that can lose its power, and what a broker would know about it.
type world struct {
	t    *rapid.T
	root string
	rng  *rand.Rand

	image    bool // of a crash, made by afterBarrier: there are none of it
	fs       *faultfs.FS
	dir      string
	s        *Store
	confirms *confirms
	confirm  uint64 // last confirm number

	queues map[uint64]*modelQueue
	moves  []move // that need not be durable
	meta   map[string]string

	failed  atomic.Pointer[string] // a crash image was bad
	failure string

	dying *atomic.Bool // the store may fail; one per store
	waits atomic.Bool  // the test, for a checkpoint
}

type modelQueue struct {
	q        *Queue
	next     uint64
	messages map[uint64]*modelMessage
	gone     map[uint64][]byte // settlements that need not be durable
	found    map[uint64]*modelMessage
}

// move is a message that was put in another queue and settled in its own in one piece.
type move struct{ from, seq, to, newSeq uint64 }

type modelMessage struct {
	body      []byte
	confirm   uint64 // 0: recovered, so durable
	delivered bool
	notes     []Note // what the note may be after a crash; the last is the newest
}

// anyNote makes a note with some of its fields set.
func (w *world) anyNote() (n Note) {
	n.Size = w.rng.Uint32()
	if w.rng.IntN(2) == 0 {
		n.Deadline, n.Priority = w.rng.Int64(), uint8(w.rng.Uint32())
	}
	if w.rng.IntN(2) == 0 {
		n.NotBefore, n.Deliveries, n.Acquired = -w.rng.Int64(), uint16(w.rng.Uint32()), uint16(w.rng.Uint32())
	}
	if w.rng.IntN(2) == 0 {
		n.Group, n.Died = uint16(w.rng.Uint32()), true
	}
	if w.rng.IntN(2) == 0 {
		n.Key[0], n.Key[15] = 1, byte(w.rng.Uint32())
	}
	return n
}

// note replaces the notes of a few messages.
func (w *world) note() {
	k := w.anyQueue()
	if k == nil {
		return
	}
	seqs := slices.Sorted(maps.Keys(k.messages))
	for range min(len(seqs), rapid.IntRange(1, 40).Draw(w.t, "notes")) {
		seq := seqs[w.rng.IntN(len(seqs))]
		m := k.messages[seq]
		if len(m.notes) == 0 {
			m.notes = []Note{{}}
		}
		m.notes = append(m.notes, w.anyNote())
		k.q.SetNote(seq, m.notes[len(m.notes)-1])
	}
}

// newestNote is the note that a message has while the store runs.
func (m *modelMessage) newestNote() (n Note) {
	if len(m.notes) > 0 {
		n = m.notes[len(m.notes)-1]
	}
	return n
}

func (w *world) options() Options {
	dying := w.dying
	return Options{
		Dir: w.dir, FS: w.fs, Small: true, MinFree: 1 << 20,
		JournalSegment: 16 << 10, JournalMax: 1 << 20,
		Log: zerolog.Nop(),
		OnFailure: func(err error) {
			if !dying.Load() {
				panic(fmt.Sprintf("store failed: %v", err))
			}
		},
		afterBarrier: w.afterBarrier, journalDir: "journal",
		overdue: func() bool { return w.rng.IntN(15) == 0 }, // so many steps has a checkpoint
	}
}

func (w *world) open() {
	w.dying = new(atomic.Bool)
	w.s = mustOpen(w.t, w.options())
	w.confirms = newConfirms()
}

// afterBarrier makes an image of a crash now and then, if the test waits for the checkpoint: one
// that the store began itself runs beside the test.
func (w *world) afterBarrier(step string) {
	if w.image || !w.waits.Load() || w.s == nil || step == "open" || w.dying.Load() || w.rng.IntN(3) != 0 {
		return
	}
	// This is the checkpointer's goroutine: what fails here is told when the test looks.
	defer func() {
		if r := recover(); r != nil {
			w.failed.CompareAndSwap(nil, &step)
			w.failure = fmt.Sprintf("after barrier %q: %v", step, r)
		}
	}()
	image := w.crash(w.fs.Clone())
	image.image = true
	image.recover()
	image.checkAll()
	mustClose(w.t, image.s)
	_ = os.RemoveAll(image.dir) // only to save space
}

// crash returns a world without a store yet: the given journal, and a copy of the state.
func (w *world) crash(journal *faultfs.FS) *world {
	c := &world{
		t: w.t, root: w.root, rng: w.rng, meta: maps.Clone(w.meta), queues: make(map[uint64]*modelQueue), confirm: w.confirm,
		moves: slices.Clone(w.moves),
	}
	w.confirms.mu.Lock()
	c.confirms = &confirms{seqs: slices.Clone(w.confirms.seqs)}
	w.confirms.mu.Unlock()
	c.fs = journal
	for id, q := range w.queues {
		k := &modelQueue{next: q.next, messages: maps.Clone(q.messages), gone: maps.Clone(q.gone)}
		c.queues[id] = k
	}
	images++
	c.dir = filepath.Join(w.root, fmt.Sprintf("image%d", images))
	// Badger compacts in the background; a copy must be of one moment.
	for before := fileList(w.t, w.dir); ; {
		copySparse(w.t, w.dir, c.dir)
		after := fileList(w.t, w.dir)
		if slices.Equal(before, after) {
			return c
		}
		before = after
		if err := os.RemoveAll(c.dir); err != nil {
			w.t.Fatal(err)
		}
	}
}

var images int // names of crash images; rapid runs one check at a time

// recover opens a crashed image, checks it against the guarantees, and takes what is there for
// the new truth.
func (w *world) recover() {
	t := w.t
	confirmed := make(map[uint64]bool)
	for _, seq := range w.confirms.seqs {
		confirmed[seq] = true
	}
	w.open()
	for _, k := range w.queues {
		k.found = make(map[uint64]*modelMessage)
	}
	for id, k := range w.queues {
		k.q = w.s.Queue(id)
		if k.q == nil {
			t.Fatalf("queue %d is lost", id)
		}
		st := k.q.State()
		found := k.found
		for _, it := range readAll(t, k.q, 0) {
			m := k.messages[it.Seq]
			want := k.gone[it.Seq]
			if m != nil {
				want = m.body
			} else if want == nil {
				t.Fatalf("queue %d: message %d came from nowhere or was settled for good", id, it.Seq)
			}
			if !bytes.Equal(it.Message.Body, want) {
				t.Fatalf("queue %d: message %d has wrong bytes", id, it.Seq)
			}
			if (m == nil || m.delivered) && !it.Redelivered {
				t.Fatalf("queue %d: message %d was delivered and is not flagged", id, it.Seq)
			}
			if m != nil && it.Note != m.newestNote() && !slices.Contains(m.notes, it.Note) {
				t.Fatalf("queue %d: message %d has note %+v, not one of %+v", id, it.Seq, it.Note, m.notes)
			}
			found[it.Seq] = &modelMessage{body: want, delivered: m == nil || m.delivered, notes: []Note{it.Note}}
		}
		for seq, m := range k.messages {
			if found[seq] == nil && (m.confirm == 0 || confirmed[m.confirm]) {
				t.Fatalf("queue %d: confirmed message %d is lost", id, seq)
			}
		}
		k.next = st.NextSeq
	}
	w.checkMoves()
	for _, k := range w.queues {
		k.messages, k.gone, k.found = k.found, make(map[uint64][]byte), nil
	}
	w.checkMeta()
}

// checkMoves wants a message that was moved in one of the two queues: in both it would come twice.
func (w *world) checkMoves() {
	for _, v := range w.moves {
		from, to := w.queues[v.from], w.queues[v.to]
		if from == nil || to == nil {
			continue // deleted
		}
		before, after := from.found[v.seq] != nil, to.found[v.newSeq] != nil
		switch {
		case before && after:
			w.t.Fatalf("message %d of queue %d is there still, and as %d of queue %d", v.seq, v.from, v.newSeq, v.to)
		case !before && !after && to.messages[v.newSeq] != nil:
			w.t.Fatalf("message %d of queue %d is lost on its way to queue %d", v.seq, v.from, v.to)
		}
	}
	w.moves = nil
}

// checkAll compares the running store with the model.
func (w *world) checkAll() {
	w.sync()
	for _, k := range w.queues {
		want := make(map[uint64][]byte)
		for seq, m := range k.messages {
			want[seq] = m.body
		}
		expect(w.t, k.q, want)
		noted := make(map[uint64]Note)
		for _, n := range k.q.Notes() {
			noted[n.Seq] = n.Note
		}
		for _, it := range readAll(w.t, k.q, 0) {
			if n := k.messages[it.Seq].newestNote(); it.Note != n || noted[it.Seq] != n {
				w.t.Fatalf("message %d has note %+v and %+v, want %+v", it.Seq, it.Note, noted[it.Seq], n)
			}
		}
	}
	w.checkMeta()
}

func (w *world) checkMeta() {
	got := make(map[string]string)
	last := ""
	err := w.s.Scan(nil, func(k, v []byte) error {
		if string(k) <= last {
			w.t.Fatalf("metadata key %q after %q", k, last)
		}
		last = string(k)
		got[last] = string(v)
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if !maps.Equal(got, w.meta) {
		w.t.Fatalf("metadata is %v, want %v", got, w.meta)
	}
}

// sync makes every settlement so far durable.
func (w *world) sync() {
	w.apply(Change{})
	w.moves = nil
	for _, k := range w.queues {
		clear(k.gone)
		for _, m := range k.messages {
			m.notes = []Note{m.newestNote()}
		}
	}
}

func (w *world) apply(c Change) {
	if err := w.s.Apply(c).Wait(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) anyQueue() *modelQueue {
	if len(w.queues) == 0 {
		return nil
	}
	ids := slices.Sorted(maps.Keys(w.queues))
	return w.queues[rapid.SampledFrom(ids).Draw(w.t, "queue")]
}

func (w *world) publish() {
	sizes := []int{0, 50, 3000, 4096, 9000, 20_000, 270_000}
	size := rapid.SampledFrom(sizes).Draw(w.t, "size")
	for range rapid.IntRange(1, 8).Draw(w.t, "messages") {
		w.publishOne(size)
		size = min(size, 3000)
	}
}

func (w *world) publishOne(size int) {
	targets := map[*modelQueue]bool{}
	for range rapid.IntRange(1, 3).Draw(w.t, "targets") {
		if k := w.anyQueue(); k != nil {
			targets[k] = true
		}
	}
	w.confirm++
	m := &Message{Exchange: "e", RoutingKey: "k", Body: bodyOf(0, w.confirm, size), Confirm: w.confirms, ConfirmSeq: w.confirm}
	m.Targets.Store(int32(len(targets)) + 1)
	for k := range targets {
		k.next += uint64(w.rng.IntN(3)) // holes
		mm := &modelMessage{body: m.Body, confirm: w.confirm}
		k.messages[k.next] = mm
		if w.rng.IntN(3) == 0 {
			mm.notes = []Note{w.anyNote()}
			k.q.AppendNoted(k.next, m, mm.notes[0])
		} else {
			k.q.Append(k.next, m)
		}
		k.next++
	}
	m.Done()
}

// consume delivers the first few messages and settles some of them.
func (w *world) consume() {
	k := w.anyQueue()
	if k == nil {
		return
	}
	seqs := slices.Sorted(maps.Keys(k.messages))
	for _, seq := range seqs[:min(len(seqs), rapid.IntRange(1, 40).Draw(w.t, "deliver"))] {
		k.deliver(seq)
		if w.rng.IntN(4) != 0 {
			k.gone[seq] = k.messages[seq].body
			delete(k.messages, seq)
			k.q.Settle(seq)
		}
	}
}

func (k *modelQueue) deliver(seq uint64) {
	if seq >= k.q.DeliverLimit() {
		done := make(chan struct{})
		k.q.ExtendDeliverLimit(seq+1, func() { close(done) })
		<-done
	}
	k.q.SetDelivered(seq)
	k.messages[seq].delivered = true
}

// move puts a few messages in another queue, or at the end of their own.
func (w *world) move() {
	from, to := w.anyQueue(), w.anyQueue()
	if from == nil || to == nil {
		return
	}
	seqs := slices.Sorted(maps.Keys(from.messages))
	for _, seq := range seqs[:min(len(seqs), rapid.IntRange(1, 10).Draw(w.t, "move"))] {
		if from.messages[seq].confirm != 0 {
			w.sync() // a message is not moved before it is on disk
			from.messages[seq].confirm = 0
		}
		from.deliver(seq)
		w.confirm++
		m := &Message{Exchange: "e", RoutingKey: "k", Body: from.messages[seq].body, Confirm: w.confirms, ConfirmSeq: w.confirm}
		m.Targets.Store(2)
		m.Hold()
		to.messages[to.next] = &modelMessage{body: m.Body, confirm: w.confirm}
		to.q.Append(to.next, m)
		from.q.SettleWith(seq, m)
		m.Done()
		w.moves = append(w.moves, move{from.q.ID(), seq, to.q.ID(), to.next})
		to.next++
		from.gone[seq] = m.Body
		delete(from.messages, seq)
	}
}

// purge settles everything in a range. What was never delivered may come back unflagged, so it
// must be durable before the next crash.
func (w *world) purge() {
	k := w.anyQueue()
	if k == nil {
		return
	}
	lo := rapid.Uint64Range(0, k.next).Draw(w.t, "lo")
	hi := rapid.Uint64Range(lo, k.next).Draw(w.t, "hi")
	k.q.SettleRange(lo, hi)
	maps.DeleteFunc(k.messages, func(seq uint64, _ *modelMessage) bool { return seq >= lo && seq < hi })
	w.sync()
}

func (w *world) metadata() {
	key := rapid.SampledFrom([]string{"a", "ab", "b", "c"}).Draw(w.t, "key")
	if rapid.Bool().Draw(w.t, "put") {
		value := fmt.Sprint(w.rng.IntN(1000))
		w.meta[key] = value
		w.apply(Change{Put: []KV{{[]byte(key), []byte(value)}}})
	} else {
		delete(w.meta, key)
		w.apply(Change{Delete: [][]byte{[]byte(key)}})
	}
}

func (w *world) createQueue() {
	if len(w.queues) < 5 {
		q := createQueue(w.t, w.s)
		w.queues[q.ID()] = &modelQueue{q: q, messages: map[uint64]*modelMessage{}, gone: map[uint64][]byte{}}
	}
}

func (w *world) deleteQueue() {
	if k := w.anyQueue(); k != nil && rapid.IntRange(0, 3).Draw(w.t, "really") == 0 {
		delete(w.queues, k.q.ID())
		w.apply(Change{DeleteQueues: []uint64{k.q.ID()}})
	}
}

func (w *world) checkpoint() {
	w.waits.Store(true)
	defer w.waits.Store(false)
	if err := w.s.checkpointNowAndWait(); err != nil {
		w.t.Fatal(err)
	}
}

// cut goes on with what a power cut leaves.
func (w *world) cut() {
	w.dying.Store(true)
	disk := w.fs.PowerCut(w.rng)
	// Confirms that were on their way when the power went count as given.
	c := w.crash(disk)
	old, dir := w.s, w.dir
	w.fs, w.dir, w.queues, w.confirms = disk, c.dir, c.queues, c.confirms
	w.s = nil
	_ = old.Close()       // its journal is dead
	_ = os.RemoveAll(dir) // only to save space
	w.recover()
}

// reopen goes on after an orderly close.
func (w *world) reopen() {
	w.waits.Store(true)
	mustClose(w.t, w.s)
	w.waits.Store(false)
	w.s, w.moves = nil, nil
	for _, k := range w.queues {
		clear(k.gone)
		for _, m := range k.messages {
			m.confirm = 0
			m.notes = []Note{m.newestNote()}
		}
	}
	w.recover()
	if !w.s.Recovered().Clean {
		w.t.Fatal("an orderly close was not recognised")
	}
}

func TestStoreKeepsItsPromisesThroughPowerCuts(t *testing.T) {
	root := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		images++
		seed := rapid.Uint64().Draw(t, "seed")
		w := &world{
			t: t, root: root, rng: rand.New(rand.NewPCG(seed, 1)), fs: faultfs.New(seed),
			dir:    filepath.Join(root, fmt.Sprintf("store%d", images)),
			queues: make(map[uint64]*modelQueue), meta: make(map[string]string),
		}
		w.open()
		w.createQueue()
		step := func(f func()) func(*rapid.T) {
			return func(*rapid.T) {
				f()
				if w.failed.Load() != nil {
					t.Fatal(w.failure)
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"publish": step(w.publish), "publish2": step(w.publish), "consume": step(w.consume), "consume2": step(w.consume), "move": step(w.move),
			"note": step(w.note), "purge": step(w.purge), "meta": step(w.metadata), "create": step(w.createQueue), "delete": step(w.deleteQueue),
			"sync": step(w.sync), "checkpoint": step(w.checkpoint), "cut": step(w.cut), "reopen": step(w.reopen),
			"check": step(w.checkAll),
		})
		w.checkAll()
		mustClose(t, w.s)
		_ = os.RemoveAll(w.dir) // only to save space
	})
}

// fileList describes Badger's tables and manifest.
func fileList(t tb, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			list = append(list, fmt.Sprint(e.Name(), info.Size(), info.ModTime()))
		}
	}
	return list
}

// copySparse copies a directory, leaving holes where there are zeros: Badger's files are sparse.
func copySparse(t tb, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(from, path)
		dst := filepath.Join(to, rel)
		if e.IsDir() {
			return os.MkdirAll(dst, 0o750)
		}
		if e.Name() == "LOCK" || e.Name() == "lock" {
			return nil
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the caller notices
		}
		if err != nil {
			return err
		}
		f, err := os.Create(dst)
		if err != nil {
			return err
		}
		defer f.Close()
		zero := make([]byte, 64<<10)
		for off := 0; off < len(b); off += len(zero) {
			part := b[off:min(off+len(zero), len(b))]
			if !bytes.Equal(part, zero[:len(part)]) {
				if _, err := f.WriteAt(part, int64(off)); err != nil {
					return err
				}
			}
		}
		return f.Truncate(int64(len(b)))
	})
	if err != nil {
		t.Fatal(err)
	}
}
