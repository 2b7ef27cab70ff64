package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/settmq/settmq/bench/histogram"
)

// starts ends the broker and starts it, Count times, and looks at its memory after the last.
func (r *run) starts(res *Result) error {
	if err := r.admin.CloseGracefully(); err != nil {
		return err
	}
	var h histogram.Histogram
	for range r.scenario.Count {
		took, err := r.env.restart(0)
		if err != nil {
			return err
		}
		h.Record(took)
	}
	ph := Phase{Name: "start", Operations: uint64(r.scenario.Count), Start: h.Quantile(0.5).Seconds()}
	if err := r.wait(r.env.settle); err != nil {
		return err
	}
	m := startMeter(r.env.pid)
	err := errors.Join(r.wait(r.env.duration), m.stop(&ph, 0))
	ph.Operations, ph.OperationRate = 0, 0
	ph.Operate = newLatency(&h)
	if ph.Cost != nil {
		ph.Cost.Binary = executableSize(r.env.pid)
	}
	res.Phases = append(res.Phases, ph)
	return err
}

// executableSize returns the size of the file that a process runs, 0 if it cannot be seen.
func executableSize(pid int) uint64 {
	fi, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return 0
	}
	return uint64(fi.Size())
}
