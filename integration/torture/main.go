// Torture kills a broker under load, again and again, and checks that it kept its word.
//
//	go run ./integration/torture -kills 50 -messages 500000
//
// It starts settmq as a child. Publishers with confirms and consumers of several manners work
// until the child is killed with SIGKILL at a random moment; it is started again on the same
// data, what must be there is compared with what is there, and the next life begins. From time
// to time, and at the end, the queues are emptied and every single message accounted for. The
// child is also killed while it recovers. At last it is stopped in order: nothing that was
// acked may come back after that.
//
// What is checked is the contract of the README: no confirmed persistent message is lost, none
// is delivered twice without redelivered=true, first deliveries keep the order of their
// publishing channel, bodies are intact, definitions stay, transient messages do not survive,
// and the broker does not end by itself. Checker says it precisely. Two streams are written and
// read beside the queues: no confirmed message is missing, no offset changes its message, order
// is kept; StreamLog says that.
//
// The result is one line of JSON and one line for people; the exit status is 1 if the contract
// was broken, 2 if the run could not be made. Equal seeds make equal choices, though not equal
// timing.
//
// With -url it works on a broker that somebody else runs. That one is not killed: a life ends
// with all connections cut. It proves the checker rather than the broker.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/settmq/settmq/internal/testbroker"
)

// Options of a run; the flags of the same names set them.
type Options struct {
	Kills      int           `json:"kills"`
	Messages   int           `json:"messages"`
	Duration   time.Duration `json:"duration"` // 0 is no limit
	MinLife    time.Duration `json:"min_life"`
	MaxLife    time.Duration `json:"max_life"`
	Publishers int           `json:"publishers"`
	Consumers  int           `json:"consumers"` // per queue
	Window     int           `json:"window"`
	Backlog    int           `json:"backlog"`
	DrainEvery int           `json:"drain_every"`
	MaxRestart time.Duration `json:"max_restart"`
	Seed       uint64        `json:"seed"`
	URL        string        `json:"url,omitempty"`
	Dir        string        `json:"-"`
	Config     string        `json:"-"`
	Progress   io.Writer     `json:"-"` // nil is silent
}

// DefaultOptions are the flags' defaults.
func DefaultOptions() Options {
	return Options{
		Kills: 50, Messages: 500_000,
		MinLife: 50 * time.Millisecond, MaxLife: 1500 * time.Millisecond,
		Publishers: 4, Consumers: 2, Window: 200, Backlog: 20_000, DrainEvery: 10,
		MaxRestart: 10 * time.Second,
	}
}

// Result is what a run found.
type Result struct {
	OK               bool         `json:"ok"`
	Options          Options      `json:"options"`
	Kills            int          `json:"kills"`
	RecoveryKills    int          `json:"recovery_kills"` // killed before it was up again
	Drains           int          `json:"drains"`
	Stats            Stats        `json:"stats"` // of the queues
	StreamConfirmed  int          `json:"stream_confirmed"`
	StreamDeliveries int          `json:"stream_deliveries"`
	Counts           map[Kind]int `json:"violations"`
	First            []Violation  `json:"first_violations,omitempty"`
	RestartMedianMS  float64      `json:"restart_median_ms"`
	RestartMaxMS     float64      `json:"restart_max_ms"`
	LargestRecovered int          `json:"largest_recovered"` // messages in the queues after a start
	Seconds          float64      `json:"seconds"`
}

// Line is the result for people.
func (r *Result) Line() string {
	verdict := "ok"
	if !r.OK {
		verdict = "FAILED"
	}
	return fmt.Sprintf("torture: %s: %d kills (%d more in recovery), %d confirmed, %d deliveries, in streams %d and %d; %d lost, %d unflagged duplicates, "+
		"%d order breaks, %d other violations; restart median %.0f ms, max %.0f ms; %.0f s, seed %d",
		verdict, r.Kills, r.RecoveryKills, r.Stats.Confirmed, r.Stats.Deliveries, r.StreamConfirmed, r.StreamDeliveries,
		r.Counts[Lost], r.Counts[Duplicate], r.Counts[Disorder], r.others(),
		r.RestartMedianMS, r.RestartMaxMS, r.Seconds, r.Options.Seed)
}

func (r *Result) others() int {
	n := 0
	for k, c := range r.Counts {
		if k != Lost && k != Duplicate && k != Disorder {
			n += c
		}
	}
	return n
}

// Report lists the violations.
func (r *Result) Report(w io.Writer) {
	if r.OK {
		return
	}
	fmt.Fprintln(w, "The contract was broken:")
	for _, v := range r.First {
		fmt.Fprintln(w, " ", v)
	}
	kinds := make([]Kind, 0, len(r.Counts))
	for k := range r.Counts {
		kinds = append(kinds, k)
	}
	slices.Sort(kinds)
	for _, k := range kinds {
		fmt.Fprintf(w, "  %d × %s in all\n", r.Counts[k], k)
	}
}

func main() {
	o := DefaultOptions()
	flag.IntVar(&o.Kills, "kills", o.Kills, "kill the broker at least this often")
	flag.IntVar(&o.Messages, "messages", o.Messages, "go on until this many messages are confirmed")
	flag.DurationVar(&o.Duration, "duration", o.Duration, "but stop after this time (0: no limit)")
	flag.DurationVar(&o.MinLife, "min-life", o.MinLife, "shortest time between start and kill")
	flag.DurationVar(&o.MaxLife, "max-life", o.MaxLife, "longest time between start and kill")
	flag.IntVar(&o.Publishers, "publishers", o.Publishers, "publishing connections")
	flag.IntVar(&o.Consumers, "consumers", o.Consumers, "consumers per queue")
	flag.IntVar(&o.Window, "window", o.Window, "unconfirmed messages per publisher")
	flag.IntVar(&o.Backlog, "backlog", o.Backlog, "publishers pause while more messages than this wait")
	flag.IntVar(&o.DrainEvery, "drain-every", o.DrainEvery, "account for every message after one in so many kills")
	flag.DurationVar(&o.MaxRestart, "max-restart", o.MaxRestart, "a slower start is a violation")
	flag.Uint64Var(&o.Seed, "seed", 0, "seed of all choices (0: from the clock)")
	flag.StringVar(&o.URL, "url", "", "work on this broker and cut connections instead of killing it")
	flag.StringVar(&o.Dir, "dir", "", "directory of the broker's data (default: a temporary one)")
	out := flag.String("o", "", "write the JSON result to this file instead of standard output")
	quiet := flag.Bool("q", false, "no progress")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "torture: takes no arguments")
		os.Exit(2)
	}
	if !*quiet {
		o.Progress = os.Stderr
	}
	os.Exit(run(o, *out))
}

func run(o Options, out string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r, err := Run(ctx, o)
	if rm := testbroker.RemoveBinary(); rm != nil {
		fmt.Fprintln(os.Stderr, "torture:", rm)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		return 2
	}
	text, err := json.Marshal(r)
	if err == nil && out != "" {
		err = os.WriteFile(out, append(text, '\n'), 0o644)
	} else if err == nil {
		_, err = fmt.Println(string(text))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		return 2
	}
	r.Report(os.Stderr)
	fmt.Println(r.Line())
	if !r.OK {
		return 1
	}
	return 0
}
