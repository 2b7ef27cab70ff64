package main

import (
	"testing"
	"time"
)

func TestGateBoundsWhatIsInFlight(t *testing.T) {
	g := newGate(80, 3)
	if n := g.acquire(50); n != 50 {
		t.Fatalf("acquired %d of 50", n)
	}
	if n := g.acquire(50); n != 30 {
		t.Fatalf("acquired %d, 30 were left", n)
	}
	if n := g.tryAcquire(1); n != 0 {
		t.Fatalf("acquired %d of a full gate", n)
	}
	got := make(chan int)
	go func() { got <- g.acquire(100) }()
	g.release(3 * 9) // less than an eighth of the room: nobody is woken for it
	g.release(3)
	if n := <-got; n != 10 {
		t.Errorf("acquired %d after 10 messages were consumed", n)
	}
	if g.used != 3*80 {
		t.Errorf("%d deliveries in flight", g.used)
	}
}

func TestGateCountsAPartlyConsumedMessage(t *testing.T) {
	g := newGate(2, 10)
	g.acquire(2)
	g.release(19)
	if n := g.tryAcquire(5); n != 1 {
		t.Errorf("acquired %d while one message has a delivery to come", n)
	}
}

func TestGateLetsGoWhenGivenUp(t *testing.T) {
	g := newGate(1, 1)
	g.acquire(1)
	got := make(chan int)
	go func() { got <- g.acquire(1) }()
	g.giveUp()
	select {
	case n := <-got:
		if n != 0 {
			t.Errorf("acquired %d", n)
		}
	case <-time.After(10 * time.Second):
		t.Error("still waiting")
	}
	if n := newGate(0, 1).acquire(5); n != 5 {
		t.Errorf("a gate without limit gave %d", n)
	}
}
