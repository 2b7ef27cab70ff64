package main

import (
	"bufio"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Machine is where a result comes from. Without it a figure means nothing.
type Machine struct {
	OS     string `json:"os"`
	Kernel string `json:"kernel"`
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Go     string `json:"go"`
	Probe  *Probe `json:"fsync_probe,omitempty"`
}

// Probe is how fast the disk makes 4 KiB durable: what a broker that syncs before each
// confirm cannot exceed. One measurement appends to a growing file, the other overwrites
// a file that has been written before, as a recycled journal does.
type Probe struct {
	Dir             string  `json:"dir"` // as it was given
	AppendPerS      float64 `json:"append_per_s"`
	AppendP50us     float64 `json:"append_p50_us"`
	AppendP99us     float64 `json:"append_p99_us"`
	OverwritePerS   float64 `json:"overwrite_per_s"`
	OverwriteP50us  float64 `json:"overwrite_p50_us"`
	OverwriteP99us  float64 `json:"overwrite_p99_us"`
	MillisecondsRun int64   `json:"ms_run"`
}

func describeMachine() Machine {
	return Machine{
		OS: runtime.GOOS + "/" + runtime.GOARCH, Kernel: strings.TrimSpace(kernelVersion()), CPU: cpuModel(),
		Cores: runtime.NumCPU(), Go: runtime.Version(),
	}
}

func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if name, value, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

const (
	probeBlock = 4 << 10
	probeFile  = 8 << 20 // overwritten
)

// runProbe measures the disk that dir is on, for d altogether.
func runProbe(dir string, d time.Duration) (*Probe, error) {
	f, err := os.CreateTemp(dir, "fsync-probe-*")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	p := &Probe{Dir: dir, MillisecondsRun: d.Milliseconds()}
	if p.AppendPerS, p.AppendP50us, p.AppendP99us, err = syncLoop(f, d/2, 0); err != nil {
		return nil, err
	}
	if _, err := f.WriteAt(make([]byte, probeFile), 0); err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	p.OverwritePerS, p.OverwriteP50us, p.OverwriteP99us, err = syncLoop(f, d/2, probeFile)
	return p, err
}

// syncLoop writes blocks one after another, starting again at wrap if that is not 0.
func syncLoop(f *os.File, d time.Duration, wrap int64) (perSecond, p50, p99 float64, err error) {
	block := make([]byte, probeBlock)
	for i := range block {
		block[i] = byte(i)
	}
	var all []time.Duration
	start, off := time.Now(), int64(0)
	for time.Since(start) < d || len(all) == 0 {
		t := time.Now()
		if _, err := f.WriteAt(block, off); err != nil {
			return 0, 0, 0, err
		}
		if err := fdatasync(f); err != nil {
			return 0, 0, 0, err
		}
		all = append(all, time.Since(t))
		if off += probeBlock; off == wrap {
			off = 0
		}
	}
	perSecond = float64(len(all)) / time.Since(start).Seconds()
	slices.Sort(all)
	return perSecond, us(all[len(all)/2]), us(all[len(all)*99/100]), nil
}
