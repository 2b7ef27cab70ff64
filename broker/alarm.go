package broker

import (
	"strings"
	"sync"
	"sync/atomic"
)

type alarm uint8

const (
	alarmMemory  alarm = 1 << iota // the process is larger than the watermark
	alarmDisk                      // the file system has less free space than the limit
	alarmStorage                   // the journal could not get space
)

// Alarms say whether publishers must be held back, and why.
type Alarms struct {
	blocked atomic.Bool

	mu        sync.Mutex
	on        alarm
	listeners []func(reason string)
	waiters   []func()
}

// Blocked reports whether publishers must wait.
func (a *Alarms) Blocked() bool { return a.blocked.Load() }

// Reason is what connection.blocked says: "low on memory", "low on disk" or both; empty
// when nothing is wrong.
func (a *Alarms) Reason() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.reasonLocked()
}

func (a *Alarms) reasonLocked() string {
	var why []string
	if a.on&alarmMemory != 0 {
		why = append(why, "low on memory")
	}
	if a.on&(alarmDisk|alarmStorage) != 0 {
		why = append(why, "low on disk")
	}
	return strings.Join(why, " & ")
}

// Listen calls fn on every change of the reason, one call at a time, "" meaning that
// publishers may go on. fn must not block and not call back into Alarms.
func (a *Alarms) Listen(fn func(reason string)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.listeners = append(a.listeners, fn)
}

// OnRelease calls fn whenever publishers that were held back may go on, those of a vhost or all, one call at a time: what held
// them may be there again. fn must not block and not call back into Alarms.
func (a *Alarms) OnRelease(fn func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiters = append(a.waiters, fn)
}

// release tells that publishers may go on.
func (a *Alarms) release() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.releaseLocked()
}

func (a *Alarms) releaseLocked() {
	for _, fn := range a.waiters {
		fn()
	}
}

func (a *Alarms) set(which alarm, on bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.reasonLocked()
	if on {
		a.on |= which
	} else {
		a.on &^= which
	}
	a.blocked.Store(a.on != 0)
	after := a.reasonLocked()
	if before == after {
		return
	}
	for _, fn := range a.listeners {
		fn(after)
	}
	if after == "" {
		a.releaseLocked()
	}
}
