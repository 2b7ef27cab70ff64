package main

import (
	"time"

	"github.com/settmq/settmq/bench/procfs"
)

// rssEvery is how often memory is looked at during a phase.
const rssEvery = 500 * time.Millisecond

// meter measures what a stretch of time costs the broker and this program.
type meter struct {
	pid    int // 0: the broker's process is not known
	start  time.Time
	before procfs.Usage
	own    time.Duration
	disk   uint64
	rssMax uint64
	quit   chan struct{}
	done   chan struct{}
	err    error
}

func startMeter(pid int) *meter {
	m := &meter{pid: pid, quit: make(chan struct{}), done: make(chan struct{})}
	if pid != 0 {
		m.before, m.err = procfs.Read(pid)
	}
	go m.sample()
	m.own, m.disk = ownCPU(), diskWritten(".")
	m.start = time.Now()
	return m
}

func (m *meter) sample() {
	defer close(m.done)
	if m.pid == 0 {
		return
	}
	tick := time.NewTicker(rssEvery)
	defer tick.Stop()
	for {
		select {
		case <-m.quit:
			return
		case <-tick.C:
			if u, err := procfs.Read(m.pid); err == nil {
				m.rssMax = max(m.rssMax, u.RSS)
			}
		}
	}
}

// stop ends the stretch and fills in Seconds, Cost and GeneratorCPU. The counts have to
// be set by then.
func (m *meter) stop(p *Phase, bodyBytes int) error {
	p.Seconds = time.Since(m.start).Seconds()
	own := ownCPU() - m.own
	var after procfs.Usage
	if m.pid != 0 && m.err == nil {
		after, m.err = procfs.Read(m.pid)
	}
	close(m.quit)
	<-m.done
	p.finish(bodyBytes)
	units := float64(max(p.units(), 1))
	p.GeneratorCPU = us(own) / units
	if m.pid == 0 || m.err != nil {
		return m.err
	}
	user, system := after.User-m.before.User, after.System-m.before.System
	p.Cost = &Cost{
		CPU: us(user+system) / units, Cores: (user + system).Seconds() / p.Seconds,
		RSS: after.RSS, RSSMax: max(m.rssMax, after.RSS), RSSGrowth: int64(after.RSS) - int64(m.before.RSS), Anonymous: after.Anonymous,
		WrittenBytes: diskWritten(".") - m.disk,
	}
	if user+system > 0 {
		p.Cost.KernelShare = float64(system) / float64(user+system)
	}
	return nil
}
