package stream

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/queue/fifo"
	"github.com/settmq/settmq/storage/journal/faultfs"
)

// checker is a consumer's channel whose client acks from another goroutine, refuses now and then, and looks at what it
// gets: offsets without a hole but for what retention removed, and bodies in each publisher's order.
type checker struct {
	sink
	rng     *rand.Rand
	log     *segmentLog
	next    uint64
	latest  map[string]int
	pending []uint64
	parked  bool
	wrong   string
	count   int
}

func (k *checker) Admit(*queue.Consumer, uint32) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.parked = k.rng.IntN(20) == 0
	return !k.parked
}

func (k *checker) Deliver(_ *queue.Consumer, d *queue.Delivery, _ *queue.Wakes) {
	k.mu.Lock()
	defer k.mu.Unlock()
	publisher, rest, _ := strings.Cut(string(d.Message.Body), " ")
	var n int
	_, _ = fmt.Sscan(rest, &n)
	first, _ := k.log.bounds()
	hole := k.count > 0 && d.Seq > k.next && first <= k.next
	if last, ok := k.latest[publisher]; d.Seq < k.next || hole || ok && n <= last {
		k.wrong = fmt.Sprintf("offset %d after %d, message %s %d", d.Seq, k.next, publisher, n)
	}
	k.latest[publisher] = n
	k.next = d.Seq + 1
	k.count++
	k.pending = append(k.pending, d.Seq)
}

// settle does what the client does next.
func (k *checker) settle(c *queue.Consumer) {
	k.mu.Lock()
	seqs, parked := k.pending, k.parked
	k.pending, k.parked = nil, false
	k.mu.Unlock()
	var w queue.Wakes
	if len(seqs) > 0 {
		c.Queue.Ack(seqs, &w)
	}
	if parked {
		c.Queue.Unpark(c.ID, &w)
	}
}

// TestReadersAndWritersAtOnce: consumers come and go while messages are published and removed.
func TestReadersAndWritersAtOnce(t *testing.T) {
	r := newRig(t, faultfs.New(1), "/d/streams")
	s := r.open(queue.Settings{MaxSegmentBytes: queue.Some[int64](1), MaxLengthBytes: queue.Some[int64](1 << 20)})
	const publishers, each = 3, 4000
	var writing, reading sync.WaitGroup
	stop := make(chan struct{})
	for p := range publishers {
		writing.Go(func() {
			c := newConfirmer()
			pad := strings.Repeat("x", 300)
			for i := range each {
				s.Publish(message(c, uint64(i), fmt.Appendf(nil, "%d %d %s", p, i, pad)), nil)
				if i%500 == 499 {
					c.wait(t, i+1)
				}
			}
		})
	}
	var mu sync.Mutex
	var id fifo.ConsumerID = 1 << 20
	delivered := 0
	for reader := range 4 {
		reading.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(reader), 1))
			for {
				select {
				case <-stop:
					return
				default:
				}
				mu.Lock()
				id++
				c := &queue.Consumer{ID: id, Prefetch: 1 + uint32(rng.IntN(200))}
				mu.Unlock()
				k := &checker{rng: rand.New(rand.NewPCG(uint64(c.ID), 2)), log: s.log, latest: make(map[string]int)}
				k.changed.L = &k.mu
				c.Sink = k
				c.Arguments = amqp.Table{{Name: "x-stream-offset", Value: amqp.String([]string{"first", "last", "next"}[rng.IntN(3)])}}
				if err := s.Subscribe(c, nil, &queue.Wakes{}); err != nil {
					t.Error(err)
					return
				}
				for range rng.IntN(3000) {
					k.settle(c)
				}
				c.Queue.Unsubscribe(c.ID, nil)
				k.settle(c)
				k.mu.Lock()
				if k.wrong != "" {
					t.Error(k.wrong)
				}
				mu.Lock()
				delivered += k.count
				mu.Unlock()
				k.mu.Unlock()
			}
		})
	}
	writing.Wait()
	close(stop)
	reading.Wait()
	if i := s.Info(); i.Consumers != 0 || s.next != publishers*each {
		t.Errorf("%d consumers are left, next is %d", i.Consumers, s.next)
	}
	if delivered == 0 {
		t.Error("nobody read anything")
	}
	if n := r.engine.resting.Load(); n != 0 {
		t.Errorf("%d blocks are still counted", n)
	}
	r.close()
}
