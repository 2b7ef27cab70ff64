package main

import "sync"

// gate bounds the messages that are published and not yet consumed, so that a run at
// full speed measures a steady state and not how fast a queue can grow. Publishers that
// wait are let in again when an eighth of the room is free: waking them for every few messages
// would cost the machine more than it costs the broker to deliver those.
type gate struct {
	weight int // deliveries per message
	limit  int // messages; 0: no limit

	mu   sync.Mutex
	cond sync.Cond
	used int // deliveries to come; guarded by mu
	open bool
}

func newGate(limit, weight int) *gate {
	g := &gate{weight: max(weight, 1), limit: limit}
	g.cond.L = &g.mu
	return g
}

// acquire waits until there is room and returns how many messages may be sent, 1 to n, or
// 0 once the gate is opened for good.
func (g *gate) acquire(n int) int {
	if g.limit == 0 {
		return n
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.roomLocked() == 0 {
		for !g.open && g.roomLocked() < (g.limit+7)/8 {
			g.cond.Wait()
		}
	}
	if g.open {
		return 0
	}
	return g.takeLocked(n)
}

// tryAcquire is acquire without the wait: 0 if there is no room.
func (g *gate) tryAcquire(n int) int {
	if g.limit == 0 {
		return n
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.takeLocked(n)
}

func (g *gate) roomLocked() int { return max(g.limit-(g.used+g.weight-1)/g.weight, 0) }

func (g *gate) takeLocked(n int) int {
	n = min(n, g.roomLocked())
	g.used += n * g.weight
	return n
}

// release makes room again for n deliveries.
func (g *gate) release(n int) {
	if g.limit == 0 || n == 0 {
		return
	}
	g.mu.Lock()
	g.used -= n
	wake := g.roomLocked() >= (g.limit+7)/8
	g.mu.Unlock()
	if wake {
		g.cond.Broadcast()
	}
}

// giveUp opens the gate for good: acquire returns 0.
func (g *gate) giveUp() {
	g.mu.Lock()
	g.open = true
	g.mu.Unlock()
	g.cond.Broadcast()
}
