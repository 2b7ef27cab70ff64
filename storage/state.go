package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/rs/zerolog"
)

// The state database holds what checkpoints moved out of the journal. Integers in keys are big
// endian, so that Badger's order is the order of the numbers.
//
//	'P'                                 position: where replay starts, sums over everything
//	'K'                                 number of the checkpoint that began last
//	'F' qid                             queue: counters
//	'L' qid page                        live bits of 1024 sequence numbers
//	'N' qid page                        notes of 1024 sequence numbers
//	'R' qid first last count bytes      record: packed messages (record.go)
//	'B' body chunk                      a piece of a body kept beside the records
//	'b' body                            the messages that refer to it
//	'D' qid                             a deleted queue whose keys are not all gone
//	'm' key                             metadata
//	'Z'                                 filler, see reclaim.go
//
// Values but those of 'R' are sealed: version u8, payload, crc32c u32 over key, version and payload.
const (
	keyPosition   = 'P'
	keyBegun      = 'K'
	keyQueue      = 'F'
	keyLive       = 'L'
	keyNotes      = 'N'
	keyRecord     = 'R'
	keyBody       = 'B'
	keyBodyRefs   = 'b'
	keyDeletion   = 'D'
	keyMeta       = 'm'
	keyFiller     = 'Z'
	sealVersion   = 1
	valueInline   = 4 << 10 // larger values go to Badger's value log
	maxRecord     = 512 << 10
	writerArena   = 4 << 20
	recordKeySize = 37
)

// stateDB is the Badger database and what is known about its files.
type stateDB struct {
	s      *Store
	db     *badger.DB
	dir    string
	sealed map[string]bool // files that were synced and never change again

	// Owned by Open, then by the checkpointer: what the last position record says.
	pos   statePosition
	drops []uint64 // deleted queues whose keys are not all gone

	sweepFrom []byte // key at which the search for dead bodies goes on, nil: the first
}

// statePosition is the payload of 'P'.
type statePosition struct {
	number   uint64 // of the checkpoint
	segment  uint64 // replay starts here
	ids      uint64 // ids below may be in use
	queues   uint64 // number of 'F' keys
	queueSum uint64 // sum of their digests
	metas    uint64 // number of 'm' keys
	metaSum  uint64 // sum of their digests
}

// openState checks the directory for what Badger would fail on or, worse, repair by throwing data
// away, and opens it.
func openState(s *Store, dir string) (*stateDB, error) {
	d := &stateDB{s: s, dir: dir, sealed: make(map[string]bool)}
	err := d.open()
	if err == nil {
		return d, nil
	}
	var c *CorruptError
	if !errors.As(err, &c) || !s.opts.AcceptLoss {
		return nil, err
	}
	aside, err2 := setAside(dir)
	if err2 != nil {
		return nil, errors.Join(err, err2)
	}
	s.lose(Loss{Where: dir, What: fmt.Sprintf("everything checkpointed, moved to %s: %v", aside, err)})
	if err := d.open(); err != nil {
		return nil, err
	}
	return d, nil
}

func setAside(dir string) (string, error) {
	for i := 1; ; i++ {
		to := fmt.Sprintf("%s.damaged-%d", dir, i)
		if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			return to, os.Rename(dir, to)
		} else if err != nil {
			return "", err
		}
	}
}

func (d *stateDB) open() error {
	if err := preflight(d.dir, d.options()); err != nil {
		return err
	}
	db, err := openBadger(d.options())
	if err != nil {
		return &CorruptError{Where: d.dir, What: "Badger does not open", Err: err}
	}
	d.db = db
	return nil
}

func (d *stateDB) options() badger.Options {
	memTable, valueLog := int64(16<<20), int64(64<<20)
	if d.s.opts.Small {
		memTable, valueLog = 8<<20, 8<<20
	}
	return badger.DefaultOptions(d.dir).
		WithSyncWrites(false). // barrier syncs, see there
		WithMemTableSize(memTable).
		WithNumMemtables(2).
		WithValueThreshold(valueInline).
		WithValueLogFileSize(valueLog).
		WithNumLevelZeroTables(1). // tombstones must reach level 1 for reclaim to see them
		WithNumLevelZeroTablesStall(15).
		WithNumCompactors(2).
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithIndexCacheSize(0).
		WithNumVersionsToKeep(1).
		WithDetectConflicts(false).
		WithMetricsEnabled(false).
		WithCompactL0OnClose(false).
		WithLogger(badgerLog{d.s.log})
}

// openBadger turns Badger's panics on damaged files into errors where they can be caught.
func openBadger(o badger.Options) (db *badger.DB, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return badger.Open(o)
}

// preflight refuses what Badger silently loses data over and removes what it trips over.
func preflight(dir string, o badger.Options) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("storage: %w", err)
	}
	listed, err := listedTables(filepath.Join(dir, "MANIFEST"), o)
	if err != nil {
		return err
	}
	tables := false
	for _, e := range entries {
		name := e.Name()
		path := filepath.Join(dir, name)
		switch {
		case strings.HasSuffix(name, ".sst"):
			tables = true
			// A table that is not listed was being written, or removed, when the process ended.
			// Badger removes it.
			id, ok := table.ParseFileID(name)
			if _, live := listed[id]; !ok || !live {
				continue
			}
			if err := checkTable(path); err != nil {
				return &CorruptError{Where: path, What: "table is damaged", Err: err}
			}
		case strings.HasSuffix(name, ".mem"), strings.HasSuffix(name, ".vlog"):
			// Badger truncates before it unlinks; a crash in between leaves a file that it then
			// refuses to open.
			if info, err := e.Info(); err == nil && info.Size() == 0 {
				if err := os.Remove(path); err != nil {
					return fmt.Errorf("storage: %w", err)
				}
			}
		}
	}
	if tables && listed == nil {
		return &CorruptError{Where: dir, What: "MANIFEST is missing beside tables"}
	}
	if newest := newestValueLog(dir); newest != "" {
		return protectValueLog(newest)
	}
	return nil
}

// listedTables returns the tables that a MANIFEST names, or nil if there is none.
func listedTables(path string, o badger.Options) (map[uint64]badger.TableManifest, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("storage: %w", err)
	}
	defer f.Close()
	m, _, err := badger.ReplayManifestFile(f, o.ExternalMagicVersion, o)
	if err != nil {
		return nil, &CorruptError{Where: path, What: "MANIFEST is damaged", Err: err}
	}
	return m.Tables, nil
}

// occupied adds up the files whose names are wanted. Badger knows sizes only if it keeps metrics.
func (d *stateDB) occupied(want func(name string) bool) (n uint64) {
	entries, _ := os.ReadDir(d.dir)
	for _, e := range entries {
		if info, err := e.Info(); err == nil && want(e.Name()) {
			n += allocated(info)
		}
	}
	return n
}

func (d *stateDB) close() error {
	if d.db == nil {
		return nil
	}
	err := d.db.Close()
	d.db = nil
	if newest := newestValueLog(d.dir); err == nil && newest != "" && !valueLogEmpty(newest) {
		if err := coverValueLog(newest); err != nil {
			d.s.log.Warn().Err(err).Msg("the next start will take longer")
		}
	}
	return err
}

// badgerLog adapts Badger's logger.
type badgerLog struct{ log zerolog.Logger }

func (l badgerLog) Errorf(f string, a ...any)   { l.log.Error().Msg(badgerText(f, a)) }
func (l badgerLog) Warningf(f string, a ...any) { l.log.Warn().Msg(badgerText(f, a)) }
func (l badgerLog) Infof(f string, a ...any)    { l.log.Debug().Msg(badgerText(f, a)) }
func (l badgerLog) Debugf(string, ...any)       {}

func badgerText(f string, a []any) string {
	return "badger: " + strings.TrimSpace(fmt.Sprintf(f, a...))
}

// seal appends the sealed form of payload under key to dst.
func seal(dst, key, payload []byte) []byte {
	sum := crc32.Update(0, castagnoli, key)
	start := len(dst)
	dst = append(append(dst, sealVersion), payload...)
	return binary.LittleEndian.AppendUint32(dst, crc32.Update(sum, castagnoli, dst[start:]))
}

// unseal returns the payload of a sealed value, aliasing it.
func unseal(key, value []byte) ([]byte, error) {
	if len(value) < 5 {
		return nil, errShort
	}
	body := value[:len(value)-4]
	sum := crc32.Update(crc32.Update(0, castagnoli, key), castagnoli, body)
	if sum != binary.LittleEndian.Uint32(value[len(body):]) {
		return nil, errChecksum
	}
	if body[0] != sealVersion {
		return nil, errVersion
	}
	return body[1:], nil
}

func queueKey(table byte, qid uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{table}, qid)
}

func metaKey(k []byte) []byte { return append([]byte{keyMeta}, k...) }

// digest is a number for an entry; sums of them tell whether a set is complete.
func digest(key, value []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, b := range key {
		h = (h ^ uint64(b)) * 1099511628211
	}
	h = (h ^ 0xff) * 1099511628211
	for _, b := range value {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return h
}

func (p *statePosition) encode() []byte {
	var b []byte
	for _, v := range []uint64{p.number, p.segment, p.ids, p.queues, p.queueSum, p.metas, p.metaSum} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

func (p *statePosition) decode(b []byte) error {
	c := cursor{b: b}
	for _, v := range []*uint64{&p.number, &p.segment, &p.ids, &p.queues, &p.queueSum, &p.metas, &p.metaSum} {
		*v = c.uint64()
	}
	return c.err
}

// queueRecord is the payload of 'F'.
type queueRecord struct {
	next, badgerHi, limit, live uint64
}

func (r *queueRecord) encode() []byte {
	var b []byte
	for _, v := range []uint64{r.next, r.badgerHi, r.limit, r.live} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

func (r *queueRecord) decode(b []byte) error {
	c := cursor{b: b}
	r.next, r.badgerHi, r.limit, r.live = c.uint64(), c.uint64(), c.uint64(), c.uint64()
	return c.err
}

// scan calls fn for every key with the prefix; value is nil if !values. Slices are valid during
// the call.
func (d *stateDB) scan(prefix []byte, values bool, fn func(key, value []byte) error) error {
	return d.db.View(func(txn *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		o.Prefix = prefix
		o.PrefetchValues = false
		it := txn.NewIterator(o)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			item := it.Item()
			if !values {
				if err := fn(item.Key(), nil); err != nil {
					return err
				}
				continue
			}
			// Badger gives an empty value and no error when the value log is damaged; the checksums
			// in the values tell.
			if err := item.Value(func(v []byte) error { return fn(item.Key(), v) }); err != nil {
				return err
			}
		}
		return nil
	})
}

// view shows fn the value of key as it is in Badger, if there is one.
func (d *stateDB) view(key []byte, fn func(v []byte) error) (exists bool, err error) {
	err = d.db.View(func(txn *badger.Txn) error {
		item, err := txn.Get(key)
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		exists = true
		return item.Value(fn)
	})
	return exists, err
}

// get reads one sealed value; nil if there is none.
func (d *stateDB) get(key []byte) (payload []byte, err error) {
	_, err = d.view(key, func(v []byte) error {
		p, err := unseal(key, v)
		payload = bytes.Clone(p)
		if payload == nil {
			payload = []byte{}
		}
		return err
	})
	if err != nil {
		return nil, &CorruptError{Where: fmt.Sprintf("state key %q", key), What: "cannot be read", Err: err}
	}
	return payload, nil
}

// scanMeta calls fn for the checkpointed metadata with the prefix, in order.
func (d *stateDB) scanMeta(prefix []byte, fn func(k, v []byte) error) error {
	return d.scan(metaKey(prefix), true, func(key, value []byte) error {
		p, err := unseal(key, value)
		if err != nil {
			return &CorruptError{Where: fmt.Sprintf("metadata key %q", key[1:]), What: "cannot be read", Err: err}
		}
		return fn(key[1:], p)
	})
}

// stateWriter writes to Badger in transactions of bounded size. What is written is durable only
// after a barrier. Errors are sticky.
type stateWriter struct {
	d     *stateDB
	txn   *badger.Txn
	arena []byte // memory of keys and values of the open transaction
	err   error
}

func (d *stateDB) writer() *stateWriter { return &stateWriter{d: d} }

// alloc returns n bytes that stay untouched until the transaction is committed.
func (w *stateWriter) alloc(n int) []byte {
	if n > writerArena/2 {
		return make([]byte, n)
	}
	if w.arena == nil {
		w.arena = make([]byte, 0, writerArena)
	}
	if len(w.arena)+n > cap(w.arena) {
		_ = w.commit() // the error stays in w
	}
	lo := len(w.arena)
	w.arena = w.arena[:lo+n]
	return w.arena[lo : lo+n : lo+n]
}

// set writes a key; the slices must stay untouched until commit.
func (w *stateWriter) set(key, value []byte) {
	w.do(func(txn *badger.Txn) error { return txn.SetEntry(badger.NewEntry(key, value)) })
}

// seal writes a sealed value.
func (w *stateWriter) seal(key, payload []byte) { w.set(key, seal(nil, key, payload)) }

// delete removes a key; the slice must stay untouched until commit.
func (w *stateWriter) delete(key []byte) {
	w.do(func(txn *badger.Txn) error { return txn.Delete(key) })
}

func (w *stateWriter) do(op func(*badger.Txn) error) {
	if w.err != nil {
		return
	}
	if w.txn == nil {
		w.txn = w.d.db.NewTransaction(true)
	}
	err := op(w.txn)
	if errors.Is(err, badger.ErrTxnTooBig) {
		// Not through commit: the arena holds what op is about to write.
		if err = w.txn.Commit(); err == nil {
			w.txn = w.d.db.NewTransaction(true)
			err = op(w.txn)
		}
	}
	w.err = err
}

// discard gives up what was set since the last commit.
func (w *stateWriter) discard() {
	if w.txn != nil {
		w.txn.Discard()
		w.txn = nil
	}
}

// commit writes what was set since the last one.
func (w *stateWriter) commit() error {
	if w.txn != nil {
		if w.err == nil {
			w.err = w.txn.Commit()
		} else {
			w.txn.Discard()
		}
		w.txn = nil
	}
	w.arena = w.arena[:0]
	return w.err
}
