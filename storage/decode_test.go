package storage

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
)

// tape is a replayer that writes down what it hears.
type tape struct{ out []string }

func (t *tape) add(kind string, args ...any) error {
	t.out = append(t.out, kind+" "+fmt.Sprint(any(args)))
	return nil
}

func (t *tape) replayMessage(at uint32, qid, seq, size uint64, transient, shared bool) error {
	return t.add("message", at > 0, qid, seq, size, transient, shared)
}
func (t *tape) replaySettle(qid, lo, hi uint64) error { return t.add("settle", qid, lo, hi) }
func (t *tape) replayNote(qid, seq uint64, n *Note) error {
	return t.add("note", qid, seq, *n)
}

func (t *tape) replayLimit(qid, upTo uint64, exact bool) error {
	return t.add("limit", qid, upTo, exact)
}
func (t *tape) replayPut(k, v []byte) error          { return t.add("put", string(k), string(v)) }
func (t *tape) replayDelete(k []byte) error          { return t.add("delete", string(k)) }
func (t *tape) replayCreate(qid, limit uint64) error { return t.add("create", qid, limit) }
func (t *tape) replayDrop(qid uint64) error          { return t.add("drop", qid) }
func (t *tape) replayIDs(upTo uint64) error          { return t.add("ids", upTo) }

// sampleBatch is a batch with every operation.
func sampleBatch() []byte {
	var w batchWriter
	w.reset()
	m := &Message{Exchange: "ex", RoutingKey: "key", Properties: []byte{1, 2}, Body: []byte("body"), shared: true}
	at := w.message(7, 1<<40, m)
	w.ref(at, 8, 3, m)
	w.message(7, 1<<40+1, &Message{Body: bytes.Repeat([]byte("x"), maxInlineBody+1), Transient: true})
	msgEnd := w.offset()
	w.settle(7, mergeRuns([]run{{9, 10}, {3, 5}, {5, 6}}))
	w.limit(opLimit, 7, 16384)
	w.limit(opExact, 8, 5)
	w.notes(7, []notedSeq{{5, Note{Deadline: 60, Size: 4}}, {3, Note{NotBefore: -1, Group: 2, Deliveries: 3, Acquired: 4, Priority: 9}}, {4, Note{Key: [16]byte{1, 15: 2}}}})
	stateEnd := w.offset()
	w.buf = appendPut(w.buf, []byte("k"), []byte("v"))
	w.buf = appendDelete(w.buf, []byte("gone"))
	w.buf = appendCreate(w.buf, 9, 100)
	w.buf = appendDrop(w.buf, 10)
	w.buf = appendIDs(w.buf, 2048)
	return bytes.Join(w.finish(msgEnd, stateEnd, 0), nil)
}

func TestBatchIsReplayedAsWritten(t *testing.T) {
	var got tape
	if _, err := replayBatch(sampleBatch(), &got); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"put [k v]", "delete [gone]", "create [9 100]", "drop [10]", "ids [2048]",
		"message [true 7 1099511627776 4 false true]",
		"message [true 8 3 4 false true]",
		"message [true 7 1099511627777 16385 true false]",
		"settle [7 3 6]", "settle [7 9 10]",
		"limit [7 16384 false]", "limit [8 5 true]",
		"note [7 5 {60 0 4 0 0 0 0 false [0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0]}]",
		"note [7 3 {0 -1 0 2 3 4 9 false [0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0]}]",
		"note [7 4 {0 0 0 0 0 0 0 false [1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 2]}]",
	}
	if !slices.Equal(got.out, want) {
		t.Fatalf("got  %q\nwant %q", got.out, want)
	}
}

func FuzzReplayBatch(f *testing.F) {
	f.Add(sampleBatch())
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = replayBatch(b, &tape{}) // must not panic
	})
}

func FuzzRecord(f *testing.F) {
	var b recordBuilder
	b.reset(5)
	b.add(10, &messageOp{exchange: []byte("ex"), body: []byte("hello"), bodySize: 5}, nil)
	b.add(12, &messageOp{bodySize: 1 << 20}, &bodyID{1})
	info := b.info
	value := make([]byte, b.size())
	b.encode(value)
	f.Add(value)
	f.Fuzz(func(t *testing.T, v []byte) {
		r, err := openRecord(5, &info, v)
		if err != nil {
			return
		}
		var op messageOp
		for i := range r.count {
			if _, err := r.entry(i, &op); err == nil && op.seq == 10 && string(op.body) != "hello" {
				t.Fatal("wrong bytes")
			}
		}
		r.find(11, 0)
	})
}

func FuzzSealed(f *testing.F) {
	key := []byte("key")
	f.Add(seal(nil, key, encodeTargets(9, []target{{1, 2}, {3, 4}})))
	f.Fuzz(func(_ *testing.T, v []byte) {
		p, err := unseal(key, v)
		if err != nil {
			p = v
		}
		_, _ = decodeTargets(p, func(target) bool { return true }) // none of these must panic
		_ = new(statePosition).decode(p)
		_ = new(queueRecord).decode(p)
		_, _, _ = parseRecordKey(v)
		valueLogWhole(v)
	})
}
