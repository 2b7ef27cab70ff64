package faultfs

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"github.com/settmq/settmq/storage/journal"
)

// Op names calls, as a set.
type Op uint16

// The calls that can fail. Close cannot.
const (
	OpOpen Op = 1 << iota
	OpRename
	OpRemove
	OpReadDir
	OpMkdirAll
	OpSyncDir
	OpRead
	OpWrite
	OpSync
	OpAllocate

	// OpMutate is every call that changes something or makes it durable.
	OpMutate = OpRename | OpRemove | OpMkdirAll | OpSyncDir | OpWrite | OpSync | OpAllocate
	// OpAll is every call.
	OpAll = OpMutate | OpOpen | OpReadDir | OpRead
)

// ErrDead is what a process gets that has died, for everything it still calls.
var ErrDead = errors.New("faultfs: the process is dead")

const (
	sector = 512
	block  = 4096
)

// FS is the file system. Make one with New.
type FS struct {
	mu      sync.Mutex
	now     map[string]*node // what a process sees
	durable map[string]*node // what a power cut leaves
	pending []dirOp
	dirs    map[string]bool
	dead    bool // Kill or PowerCut: what follows has the files now

	quota  int64 // blocks; <0: no limit
	sparse bool
	rules  []*rule
	calls  map[Op]int
	rng    *rand.Rand
}

var _ journal.FS = (*FS)(nil)

// dirOp makes a name stand for a node; nil removes the name.
type dirOp struct {
	dir   string
	names []string
	nodes []*node
}

type rule struct {
	ops   Op
	after int // calls still to let through
	err   error
	on    bool // fails from here on
	once  bool
}

// New returns an empty file system without limits. The seed decides how much of a
// failing write is written.
func New(seed uint64) *FS {
	return &FS{
		now: map[string]*node{}, durable: map[string]*node{}, dirs: map[string]bool{},
		quota: -1, calls: map[Op]int{}, rng: rand.New(rand.NewPCG(seed, 1)),
	}
}

// FailAt lets the n-th call (1 is the next) among ops fail with err, once.
func (f *FS) FailAt(ops Op, n int, err error) { f.addRule(ops, n, err, true) }

// FailFrom lets the n-th call among ops and all later ones fail with err.
func (f *FS) FailFrom(ops Op, n int, err error) { f.addRule(ops, n, err, false) }

func (f *FS) addRule(ops Op, n int, err error, once bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = append(f.rules, &rule{ops: ops, after: n - 1, err: err, once: once})
}

// Heal removes all rules of FailAt and FailFrom.
func (f *FS) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = nil
}

// Calls counts the calls among ops so far, failed ones included.
func (f *FS) Calls(ops Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for op, c := range f.calls {
		if op&ops != 0 {
			n += c
		}
	}
	return n
}

// SetQuota limits the space to a number of bytes; negative lifts the limit. What is in
// use already stays.
func (f *FS) SetQuota(bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.quota = bytes / block
	if bytes < 0 {
		f.quota = -1
	}
}

// SparseAllocate makes Allocate set only the length, like a file system without
// fallocate: it then returns errors.ErrUnsupported, and each first write takes a block.
func (f *FS) SparseAllocate(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sparse = on
}

// Used returns the bytes in use.
func (f *FS) Used() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.usedLocked() * block
}

func (f *FS) usedLocked() (blocks int64) {
	seen := map[*node]bool{}
	for _, names := range []map[string]*node{f.now, f.durable} {
		for _, n := range names {
			if !seen[n] {
				seen[n] = true
				blocks += n.blocks
			}
		}
	}
	return blocks
}

// take reserves blocks.
func (f *FS) take(n *node, blocks int64) error {
	if f.quota >= 0 && blocks > 0 && f.usedLocked()+blocks > f.quota {
		return fmt.Errorf("faultfs: %w", syscall.ENOSPC)
	}
	n.blocks += blocks
	return nil
}

// check counts a call and says whether it fails.
func (f *FS) check(op Op) error {
	if f.dead {
		return ErrDead
	}
	f.calls[op]++
	for _, r := range f.rules {
		if r.ops&op == 0 {
			continue
		}
		if r.on {
			return r.err
		}
		if r.after > 0 {
			r.after--
			continue
		}
		if r.once {
			r.ops = 0
		}
		r.on = true
		return r.err
	}
	return nil
}

// Kill ends the process and returns what the next one finds: everything that was written.
// Whatever the dead one still calls fails with ErrDead.
func (f *FS) Kill() *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.endLocked()
}

// endLocked hands the files over to a new FS without rules. f is dead from here on.
func (f *FS) endLocked() *FS {
	next := New(f.rng.Uint64())
	next.now, next.durable, next.pending, next.dirs = f.now, f.durable, f.pending, f.dirs
	next.quota, next.sparse = f.quota, f.sparse
	f.now, f.durable, f.pending, f.dirs, f.dead = nil, nil, nil, nil, true
	return next
}

// PowerCut ends the machine and returns what it finds when it is on again. Each sector
// that was written and not synced survives with a probability drawn for this cut, in any
// combination; so does a prefix of the unsynced directory operations. What survives is
// durable from then on. Whatever the dead process still calls fails with ErrDead.
func (f *FS) PowerCut(rng *rand.Rand) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	keep := []float64{0, 0.1, 0.5, 0.9, 1}[rng.IntN(5)]
	ops := rng.IntN(len(f.pending) + 1)
	for _, op := range f.pending[:ops] {
		op.apply(f.durable)
	}
	f.pending = nil
	f.now = map[string]*node{}
	names := make([]string, 0, len(f.durable))
	for name := range f.durable {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		f.durable[name].cut(rng, keep)
		f.now[name] = f.durable[name]
	}
	return f.endLocked()
}

func (op *dirOp) apply(names map[string]*node) {
	for i, name := range op.names {
		if op.nodes[i] == nil {
			delete(names, name)
		} else {
			names[name] = op.nodes[i]
		}
	}
}

func (f *FS) change(op dirOp) {
	op.dir = filepath.Dir(op.names[0])
	op.apply(f.now)
	f.pending = append(f.pending, op)
}

// OpenFile implements journal.FS.
func (f *FS) OpenFile(name string, create bool) (journal.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check(OpOpen); err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	n := f.now[name]
	switch {
	case n == nil && !create:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	case n != nil && create:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrExist}
	case n == nil:
		n = &node{pages: map[int64]*page{}}
		f.change(dirOp{names: []string{name}, nodes: []*node{n}})
	}
	return &file{fs: f, node: n, name: name}, nil
}

// Rename implements journal.FS.
func (f *FS) Rename(from, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check(OpRename); err != nil {
		return &fs.PathError{Op: "rename", Path: from, Err: err}
	}
	n := f.now[from]
	if n == nil {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	f.change(dirOp{names: []string{from, to}, nodes: []*node{nil, n}})
	return nil
}

// Remove implements journal.FS.
func (f *FS) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check(OpRemove); err != nil {
		return &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	if f.now[name] == nil {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	f.change(dirOp{names: []string{name}, nodes: []*node{nil}})
	return nil
}

// ReadDir implements journal.FS.
func (f *FS) ReadDir(dir string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check(OpReadDir); err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: dir, Err: err}
	}
	if !f.dirs[filepath.Clean(dir)] {
		return nil, &fs.PathError{Op: "readdir", Path: dir, Err: fs.ErrNotExist}
	}
	var names []string
	for name := range f.now {
		if filepath.Dir(name) == filepath.Clean(dir) {
			names = append(names, filepath.Base(name))
		}
	}
	slices.Sort(names)
	return names, nil
}

// MkdirAll implements journal.FS. Directories are durable at once.
func (f *FS) MkdirAll(dir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check(OpMkdirAll); err != nil {
		return &fs.PathError{Op: "mkdir", Path: dir, Err: err}
	}
	for d := filepath.Clean(dir); !f.dirs[d]; d = filepath.Dir(d) {
		f.dirs[d] = true
	}
	return nil
}

// SyncDir implements journal.FS.
func (f *FS) SyncDir(dir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check(OpSyncDir); err != nil {
		return &fs.PathError{Op: "fsync", Path: dir, Err: err}
	}
	var rest []dirOp
	for _, op := range f.pending {
		if op.dir == filepath.Clean(dir) {
			op.apply(f.durable)
		} else {
			rest = append(rest, op)
		}
	}
	f.pending = rest
	return nil
}

// Free implements journal.FS. Without a quota it is 1 TiB.
func (f *FS) Free(string) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.quota < 0 {
		return 1 << 40, nil
	}
	return uint64(max(0, f.quota-f.usedLocked())) * block, nil
}

// Names lists all files.
func (f *FS) Names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	names := make([]string, 0, len(f.now))
	for name := range f.now {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// ReadFile returns the visible contents of a file.
func (f *FS) ReadFile(name string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.now[name]
	if n == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	b := make([]byte, n.size)
	n.read(b, 0)
	return b, nil
}

// WriteFile gives a file, which is made if need be, durable contents.
func (f *FS) WriteFile(name string, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := &node{pages: map[int64]*page{}, size: int64(len(data))}
	n.write(data, 0)
	n.blocks = int64(len(n.pages))
	n.sync()
	f.now[name], f.durable[name] = n, n
	f.dirs[filepath.Dir(name)] = true
}

// Flip inverts the bits of mask in one byte of a file, durably, as a failing disk would.
func (f *FS) Flip(name string, off int64, mask byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.now[name]
	p := n.page(off / block)
	p.now[off%block] ^= mask
	p.durable[off%block] ^= mask
}

// Clone copies the visible state, all of it durable, into a file system of its own.
func (f *FS) Clone() *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := New(f.rng.Uint64())
	for name, n := range f.now {
		m := &node{pages: make(map[int64]*page, len(n.pages)), size: n.size, durSize: n.size, blocks: n.blocks}
		for i, p := range n.pages {
			m.pages[i] = &page{now: p.now, durable: p.now}
		}
		c.now[name], c.durable[name] = m, m
	}
	for dir := range f.dirs {
		c.dirs[dir] = true
	}
	return c
}
