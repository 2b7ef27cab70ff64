package faultfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
)

// node is the contents of a file, in pages. A page that was never written is zeros.
type node struct {
	pages   map[int64]*page
	size    int64
	durSize int64
	blocks  int64 // in use or reserved
	full    int64 // blocks below this one are reserved
}

type page struct {
	now, durable [block]byte
	dirty        uint8 // bit per sector
}

func (n *node) page(i int64) *page {
	p := n.pages[i]
	if p == nil {
		p = new(page)
		n.pages[i] = p
	}
	return p
}

func (n *node) read(b []byte, off int64) int {
	b = b[:max(0, min(int64(len(b)), n.size-off))]
	for done := 0; done < len(b); {
		at := off + int64(done)
		part := b[done:min(len(b), done+int(block-at%block))]
		if p := n.pages[at/block]; p != nil {
			copy(part, p.now[at%block:])
		} else {
			clear(part)
		}
		done += len(part)
	}
	return len(b)
}

func (n *node) write(b []byte, off int64) {
	for len(b) > 0 {
		p, at := n.page(off/block), off%block
		k := copy(p.now[at:], b)
		for s := at / sector; s*sector < at+int64(k); s++ {
			p.dirty |= 1 << s
		}
		b, off = b[k:], off+int64(k)
	}
	n.size = max(n.size, off)
}

// needs counts the blocks that a write takes anew.
func (n *node) needs(off, length int64) (blocks int64) {
	for i := off / block; i*block < off+length; i++ {
		if i >= n.full && n.pages[i] == nil {
			blocks++
		}
	}
	return blocks
}

func (p *page) settle(keep func() bool) {
	for s := range block / sector {
		if p.dirty&(1<<s) != 0 && keep() {
			copy(p.durable[s*sector:(s+1)*sector], p.now[s*sector:])
		}
	}
	p.dirty = 0
}

func (n *node) sync() {
	for _, p := range n.pages {
		p.settle(func() bool { return true })
	}
	n.durSize = n.size
}

// forget is a failed sync: the pages count as clean.
func (n *node) forget() {
	for _, p := range n.pages {
		p.dirty = 0
	}
}

// cut leaves what is durable and some of what is not.
func (n *node) cut(rng *rand.Rand, keep float64) {
	indices := make([]int64, 0, len(n.pages))
	for i := range n.pages {
		indices = append(indices, i)
	}
	slices.Sort(indices)
	if n.size != n.durSize && rng.Float64() < keep {
		n.durSize = n.size
	}
	n.size = n.durSize
	for _, i := range indices {
		p := n.pages[i]
		p.settle(func() bool { return rng.Float64() < keep })
		p.now = p.durable
		if i*block >= n.size {
			delete(n.pages, i)
		}
	}
}

// file is a handle.
type file struct {
	fs     *FS
	node   *node
	name   string
	closed bool
}

// enter takes the lock and says why the call fails, if it does.
func (h *file) enter(op Op) error {
	h.fs.mu.Lock()
	if h.closed {
		return &fs.PathError{Op: "file", Path: h.name, Err: fs.ErrClosed}
	}
	if err := h.fs.check(op); err != nil {
		return &fs.PathError{Op: "file", Path: h.name, Err: err}
	}
	return nil
}

func (h *file) alive() bool { return !h.closed && !h.fs.dead }

func (h *file) ReadAt(p []byte, off int64) (int, error) {
	err := h.enter(OpRead)
	defer h.fs.mu.Unlock()
	if err != nil {
		return 0, err
	}
	n := h.node.read(p, off)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (h *file) WriteAt(p []byte, off int64) (int, error) {
	if err := h.WritevAt([][]byte{p}, off); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (h *file) WritevAt(buffers [][]byte, off int64) error {
	err := h.enter(OpWrite)
	defer h.fs.mu.Unlock()
	b := slices.Concat(buffers...)
	if err != nil {
		if h.alive() && len(b) > 0 {
			// Torn: a part of it is written, to any byte.
			part := b[:h.fs.rng.IntN(len(b)+1)]
			if h.fs.take(h.node, h.node.needs(off, int64(len(part)))) == nil {
				h.node.write(part, off)
			}
		}
		return err
	}
	if err := h.fs.take(h.node, h.node.needs(off, int64(len(b)))); err != nil {
		return &fs.PathError{Op: "write", Path: h.name, Err: err}
	}
	h.node.write(b, off)
	return nil
}

func (h *file) Sync() error {
	err := h.enter(OpSync)
	defer h.fs.mu.Unlock()
	if err != nil {
		if h.alive() {
			h.node.forget()
		}
		return err
	}
	h.node.sync()
	return nil
}

func (h *file) Allocate(size int64) error {
	err := h.enter(OpAllocate)
	defer h.fs.mu.Unlock()
	if err != nil {
		return err
	}
	if h.fs.sparse {
		h.node.size = max(h.node.size, size)
		return fmt.Errorf("faultfs: allocate %s: %w", h.name, errors.ErrUnsupported)
	}
	if err := h.fs.take(h.node, h.node.needs(0, size)); err != nil {
		return &fs.PathError{Op: "allocate", Path: h.name, Err: err}
	}
	h.node.full = max(h.node.full, (size+block-1)/block)
	h.node.size = max(h.node.size, size)
	return nil
}

func (h *file) Size() (int64, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if !h.alive() {
		return 0, &fs.PathError{Op: "stat", Path: h.name, Err: ErrDead}
	}
	return h.node.size, nil
}

func (h *file) Close() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if h.closed {
		return &fs.PathError{Op: "close", Path: h.name, Err: fs.ErrClosed}
	}
	h.closed = true
	return nil
}
