package broker

import (
	"cmp"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"sync"
	"time"

	"github.com/settmq/settmq/queue"
)

// samplePeriod is how often memory is looked at. At 500 MB/s coming in, the bodies in
// memory overshoot their budget by 50 MB between two looks.
const samplePeriod = 100 * time.Millisecond

// sampler keeps the broker inside its memory: it pages out bodies of long queues when they
// exceed their budget, and raises the memory and disk alarms.
type sampler struct {
	broker *Broker
	budget uint64
	quit   chan struct{}
	done   chan struct{}

	mu      sync.Mutex // held while alarms are decided
	memory  uint64
	disk    uint64
	samples []metrics.Sample

	heap idleHeap
}

// startSampler gives the broker its sampler.
func startSampler(b *Broker, o Options) {
	s := &sampler{
		broker: b, budget: o.MessageMemory, memory: o.MemoryWatermark, disk: o.DiskFreeLimit,
		samples: newMemorySamples(),
		quit:    make(chan struct{}), done: make(chan struct{}),
	}
	s.look(true)
	b.sampler = s
	go s.run()
}

func (s *sampler) stop() {
	close(s.quit)
	<-s.done
}

func (s *sampler) run() {
	defer close(s.done)
	tick := time.NewTicker(samplePeriod)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-s.quit:
			return
		case <-tick.C:
			s.look(n%10 == 0)
			if n%10 == 0 {
				s.broker.sampleUtilisation()
				s.heap.giveBack()
			}
			if n%int(StatsPeriod/samplePeriod) == 0 {
				s.broker.TakeSample()
			}
		}
	}
}

// idleHeap gives memory back to the system after a burst. Without allocations there is no collection, so what the burst left behind,
// garbage and what collections had freed, would stay until the next one.
type idleHeap struct {
	samples   []metrics.Sample // of what is in use, of what is free, and of all allocations ever
	allocated uint64           // until the look before
	given     bool             // since the last burst
}

const (
	// idleAllocations is what a broker that nobody publishes to allocates in a second at the most, in bytes.
	idleAllocations = 4 << 20
	// heapWorthIt is the least heap that a collection may make smaller, in bytes.
	heapWorthIt = 16 << 20
)

// giveBack is called every second.
func (h *idleHeap) giveBack() {
	if h.samples == nil {
		h.samples = []metrics.Sample{
			{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/free:bytes"}, {Name: "/gc/heap/allocs:bytes"},
		}
	}
	metrics.Read(h.samples)
	heap, allocated := h.samples[0].Value.Uint64()+h.samples[1].Value.Uint64(), h.samples[2].Value.Uint64()
	idle := allocated-h.allocated < idleAllocations
	h.allocated = allocated
	if idle && !h.given && heap > heapWorthIt {
		debug.FreeOSMemory()
	}
	h.given = idle
}

func (s *sampler) look(disk bool) {
	s.pageOut()
	for _, v := range s.broker.VHosts() {
		v.measure()
	}
	if disk {
		s.broker.windows.sweep()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.alarmLocked(disk)
}

func (s *sampler) alarmLocked(disk bool) {
	s.broker.alarms.set(alarmMemory, s.memory > 0 && memoryUsed(s.samples) > s.memory)
	if !disk {
		return
	}
	if free, err := s.broker.store.FreeSpace(); err == nil {
		s.broker.alarms.set(alarmDisk, free < s.disk)
	}
}

// pageOut brings the messages in memory back under the budget, the queues with most first.
func (s *sampler) pageOut() {
	type held struct {
		q     *queue.Queue
		bytes uint64
	}
	var (
		total  uint64
		queues []held
	)
	for _, v := range s.broker.VHosts() {
		for _, q := range v.keepers() {
			if n := q.Info().Memory; n > 0 {
				total += n
				queues = append(queues, held{q, n})
			}
		}
	}
	if s.budget == 0 || total <= s.budget {
		return
	}
	slices.SortFunc(queues, func(a, b held) int { return cmp.Compare(b.bytes, a.bytes) })
	// A little more than needed, so that the next publish does not start it all again.
	for need := total - s.budget + s.budget/8; len(queues) > 0 && need > 0; queues = queues[1:] {
		need -= min(need, queues[0].q.PageOut(min(need, queues[0].bytes)))
	}
}
