package main

import (
	"time"

	"github.com/settmq/settmq/bench/histogram"
)

// Result is one run of one scenario, as written to JSON.
type Result struct {
	Scenario Scenario  `json:"scenario"`
	Broker   Broker    `json:"broker"`
	Machine  Machine   `json:"machine"`
	Started  time.Time `json:"started"`
	Phases   []Phase   `json:"phases"`

	// What a correct run has none of.
	Undelivered uint64 `json:"undelivered,omitempty"` // published, queued, and not delivered within seconds of the end
	Redelivered uint64 `json:"redelivered,omitempty"`
	Nacked      uint64 `json:"nacked,omitempty"`
	Returned    uint64 `json:"returned,omitempty"`
	Blocked     uint64 `json:"blocked,omitempty"` // times connection.blocked was received
	Error       string `json:"error,omitempty"`

	Skipped string `json:"skipped,omitempty"` // why the scenario cannot be run on this broker
}

// Broker is what was measured.
type Broker struct {
	Label    string `json:"label"`
	Product  string `json:"product"`
	Version  string `json:"version"`
	Platform string `json:"platform,omitempty"`
	Info     string `json:"information,omitempty"`
	URL      string `json:"url"` // without the password
	PID      int    `json:"pid,omitempty"`
	FrameMax uint32 `json:"frame_max"`
	Settings string `json:"settings,omitempty"` // as the caller describes them
}

// Phase is one measured stretch of a run. Counts are what happened within it.
type Phase struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`

	Published  uint64 `json:"published,omitempty"`
	Confirmed  uint64 `json:"confirmed,omitempty"`
	Delivered  uint64 `json:"delivered,omitempty"`
	Operations uint64 `json:"operations,omitempty"` // connections opened, queues declared

	PublishRate   float64 `json:"publish_per_s,omitempty"`
	ConfirmRate   float64 `json:"confirm_per_s,omitempty"`
	DeliverRate   float64 `json:"deliver_per_s,omitempty"`
	OperationRate float64 `json:"operation_per_s,omitempty"`
	DeliverMiB    float64 `json:"deliver_mib_per_s,omitempty"` // bodies

	Confirm  *Latency `json:"confirm,omitempty"`    // from the write of the publish to its confirm
	EndToEnd *Latency `json:"end_to_end,omitempty"` // from the time a message was due to its arrival at a consumer
	Lag      *Latency `json:"lag,omitempty"`        // how late the generator itself sent; part of end_to_end
	Operate  *Latency `json:"operate,omitempty"`    // of one operation
	Sync     float64  `json:"sync_us,omitempty"`    // median of the probe's overwrites, just before

	First float64 `json:"first_delivery_s,omitempty"` // from the start of the broker's process to the first delivery
	Start float64 `json:"start_s,omitempty"`          // from the start of the broker's process to a client that is logged in

	Cost *Cost `json:"cost,omitempty"`

	// GeneratorCPU is what this program used itself.
	GeneratorCPU float64 `json:"generator_cpu_us_per_unit"`
}

// Cost is what the broker used during a phase. A unit is a delivery, or a publish in a
// phase without deliveries, or an operation.
type Cost struct {
	CPU          float64 `json:"cpu_us_per_unit"`
	KernelShare  float64 `json:"kernel_share"` // 0 to 1
	Cores        float64 `json:"cores"`        // processors busy on average
	RSS          uint64  `json:"rss_bytes"`    // at the end
	RSSMax       uint64  `json:"rss_max_bytes"`
	RSSGrowth    int64   `json:"rss_growth_bytes"`
	Anonymous    uint64  `json:"anonymous_bytes"` // of the RSS at the end, what is no file's
	PerUnit      float64 `json:"rss_growth_per_unit,omitempty"`
	Binary       uint64  `json:"binary_bytes,omitempty"` // size of the executable
	WrittenBytes uint64  `json:"disk_written_bytes"`
}

// Latency is a distribution in microseconds.
type Latency struct {
	Count uint64  `json:"count"`
	Mean  float64 `json:"mean_us"`
	P50   float64 `json:"p50_us"`
	P90   float64 `json:"p90_us"`
	P99   float64 `json:"p99_us"`
	P999  float64 `json:"p999_us"`
	Max   float64 `json:"max_us"`
}

// newLatency returns nil if nothing was recorded.
func newLatency(h *histogram.Histogram) *Latency {
	if h.Count() == 0 {
		return nil
	}
	return &Latency{
		Count: h.Count(), Mean: us(h.Mean()), Max: us(h.Max()),
		P50: us(h.Quantile(0.5)), P90: us(h.Quantile(0.9)), P99: us(h.Quantile(0.99)), P999: us(h.Quantile(0.999)),
	}
}

func us(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// units is what costs are divided by.
func (p *Phase) units() uint64 {
	for _, n := range []uint64{p.Delivered, p.Confirmed, p.Published, p.Operations} {
		if n > 0 {
			return n
		}
	}
	return 0
}

// finish computes the rates from the counts.
func (p *Phase) finish(bodyBytes int) {
	if p.Seconds <= 0 {
		return
	}
	p.PublishRate = float64(p.Published) / p.Seconds
	p.ConfirmRate = float64(p.Confirmed) / p.Seconds
	p.DeliverRate = float64(p.Delivered) / p.Seconds
	p.OperationRate = float64(p.Operations) / p.Seconds
	p.DeliverMiB = p.DeliverRate * float64(bodyBytes) / (1 << 20)
}
