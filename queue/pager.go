package queue

import (
	"sync"

	"github.com/settmq/settmq/queue/fifo"
	"github.com/settmq/settmq/storage"
)

const (
	pageItems = 2048    // most messages read back at once
	pageBytes = 1 << 20 // and about as many body bytes
	pageGap   = 64      // unwanted messages that are rather read than jumped over
)

// Pager reads pages of queues back from disk on a few goroutines of its own, so that no
// connection and no queue lock waits for a disk. A queue has at most one read in flight,
// so the list of waiting reads is bounded by the number of queues.
type Pager struct {
	mu      sync.Mutex
	ready   sync.Cond
	reads   []read // guarded by mu
	closed  bool   // guarded by mu
	running sync.WaitGroup
}

type read struct {
	q    *Queue
	want []fifo.Interval // the machine's, until the queue has taken the page
}

// NewPager starts a pager with the given number of goroutines.
func NewPager(workers int) *Pager {
	p := &Pager{}
	p.ready.L = &p.mu
	p.running.Add(workers)
	for range workers {
		go p.run()
	}
	return p
}

// Close stops the pager and waits for the reads under way. Waiting ones are dropped.
func (p *Pager) Close() {
	p.mu.Lock()
	p.closed = true
	p.reads = nil
	p.mu.Unlock()
	p.ready.Broadcast()
	p.running.Wait()
}

// load asks for a page of q; called with q's lock held.
func (p *Pager) load(q *Queue, want []fifo.Interval) {
	p.mu.Lock()
	if !p.closed {
		p.reads = append(p.reads, read{q, want})
	}
	p.mu.Unlock()
	p.ready.Signal()
}

func (p *Pager) run() {
	defer p.running.Done()
	var items []storage.Stored
	for {
		p.mu.Lock()
		for len(p.reads) == 0 && !p.closed {
			p.ready.Wait()
		}
		if p.closed {
			p.mu.Unlock()
			return
		}
		r := p.reads[0]
		p.reads = p.reads[1:]
		p.mu.Unlock()

		var (
			next uint64
			err  error
		)
		items, next, err = r.page(items[:0])
		r.q.loaded(items, next, err)
		clear(items)
	}
}

// page reads what is wanted, as much as belongs in one page. next is the first sequence number
// not covered.
func (r *read) page(items []storage.Stored) (_ []storage.Stored, next uint64, err error) {
	bytes := pageBytes
	for i := 0; i < len(r.want); {
		next = max(next, r.want[i].From)
		to := r.want[i].To
		for i++; i < len(r.want) && r.want[i].From <= to+pageGap; i++ {
			to = r.want[i].To
		}
		for next < to {
			room := min(pageItems-len(items), int(min(to-next, pageItems)))
			if room <= 0 || bytes <= 0 {
				return items, next, nil
			}
			before, from := len(items), next
			if items, next, err = r.q.Store.Read(items, from, room, bytes); err != nil || next == from {
				return items, next, err
			}
			for _, it := range items[before:] {
				bytes -= len(it.Message.Body)
			}
		}
	}
	return items, next, nil
}
