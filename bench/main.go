package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"
)

const usage = `usage:
  bench list
  bench run     -url URL [flags] [scenario ...]
  bench compare -a URL -b URL [flags] [scenario ...]
  bench report  [-table README.md] [-goals FILE] RESULTS ...
  bench probe   [-dir DIR] [-for 2s]
Run "bench run -h" for the flags.
`

func main() {
	if err := command(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
		os.Exit(1)
	}
}

func command(args []string, out, log io.Writer) error {
	if len(args) == 0 {
		fmt.Fprint(log, usage)
		return flag.ErrHelp
	}
	switch args[0] {
	case "list":
		return list(out)
	case "run":
		return runCommand(args[1:], out, log)
	case "compare":
		return compareCommand(args[1:], out, log)
	case "report":
		return reportCommand(args[1:], out, log)
	case "probe":
		return probeCommand(args[1:], out, log)
	}
	fmt.Fprint(log, usage)
	return fmt.Errorf("unknown command %q", args[0])
}

func list(out io.Writer) error {
	for _, s := range scenarios() {
		if _, err := fmt.Fprintf(out, "%-32s %s\n", s.Name, s.About); err != nil {
			return err
		}
	}
	return nil
}

func probeCommand(args []string, out, log io.Writer) error {
	fs := flag.NewFlagSet("probe", flag.ContinueOnError)
	fs.SetOutput(log)
	dir := fs.String("dir", ".", "directory on the disk to measure")
	d := fs.Duration("for", 2*time.Second, "how long")
	if err := fs.Parse(args); err != nil {
		return err
	}
	p, err := runProbe(*dir, *d)
	if err != nil {
		return err
	}
	return writeJSON(out, p)
}

// common are the flags of run and compare.
type common struct {
	warmup, duration time.Duration
	set              string
	probeDir         string
	json             string
}

func (c *common) register(fs *flag.FlagSet) {
	fs.DurationVar(&c.warmup, "warmup", time.Second, "time before a measurement")
	fs.DurationVar(&c.duration, "duration", 5*time.Second, "time of a measurement")
	fs.StringVar(&c.set, "set", "", "change fields of the scenarios, e.g. body=1024,window=10 (see bench list, JSON)")
	fs.StringVar(&c.probeDir, "probe-dir", ".", "directory for the fsync probe: best where the broker keeps its data")
	fs.StringVar(&c.json, "json", "", "file for the results as JSON")
}

// scenarios returns the selected ones with -set applied.
func (c *common) scenarios(patterns []string) ([]Scenario, error) {
	selected, err := selectScenarios(scenarios(), patterns)
	if err != nil {
		return nil, err
	}
	for i := range selected {
		if err := selected[i].set(c.set); err != nil {
			return nil, err
		}
		if err := selected[i].check(); err != nil {
			return nil, err
		}
	}
	return selected, nil
}

func runCommand(args []string, out, log io.Writer) (err error) {
	fs := flag.NewFlagSet("run", flag.ContinueOnError)
	fs.SetOutput(log)
	var c common
	c.register(fs)
	t := target{label: "broker"}
	fs.StringVar(&t.url, "url", "amqp://guest:guest@127.0.0.1:5672/", "the broker")
	fs.IntVar(&t.pid, "pid", 0, "its process; 0: whoever listens on the port, if it is this machine")
	fs.StringVar(&t.command, "cmd", "", "shell command that starts it and stays in the foreground; it is ended afterwards")
	fs.StringVar(&t.settings, "settings", "", "settings of the broker worth noting in the results")
	if err := fs.Parse(args); err != nil {
		return err
	}
	selected, err := c.scenarios(fs.Args())
	if err != nil {
		return err
	}
	if err := t.start(os.Stderr); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.stop()) }()
	e, err := t.env(&c)
	if err != nil {
		return err
	}
	if e.pid == 0 {
		fmt.Fprintln(log, "bench: the broker's process is not known: no costs (see -pid)")
	}
	probe, err := runProbe(c.probeDir, time.Second)
	if err != nil {
		return fmt.Errorf("fsync probe: %w", err)
	}
	var results []Result
	failed := 0
	for i, s := range selected {
		r := executeNamed(e, s, i)
		if r.Machine.Probe == nil {
			r.Machine.Probe = probe
		}
		results = append(results, r)
		if r.Error != "" {
			failed++
		}
		fmt.Fprint(log, r.summary())
	}
	if err := writeResults(c.json, out, results); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d scenarios failed", failed, len(selected))
	}
	return nil
}

// executeNamed gives the run names of its own, so that runs may overlap on one broker.
func executeNamed(e *env, s Scenario, i int) Result {
	mine := *e
	mine.prefix = fmt.Sprintf("bench.%d.%d", os.Getpid(), i)
	res := execute(&mine, s)
	e.pid = mine.pid // it may have been started again
	return res
}

// writeResults writes JSON to the named file, or to out if there is no name.
func writeResults(name string, out io.Writer, results []Result) error {
	if name == "" {
		return writeJSON(out, results)
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if err := writeJSON(f, results); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// summary is one line per phase for a reader who waits.
func (r *Result) summary() string {
	var b strings.Builder
	for _, p := range r.Phases {
		fmt.Fprintf(&b, "%-32s %-8s", r.Scenario.Name, p.Name)
		for _, c := range columns {
			if v, ok := c.value(&p); ok {
				fmt.Fprintf(&b, "  %s %s", c.name, c.format(v))
			}
		}
		b.WriteByte('\n')
	}
	for name, n := range map[string]uint64{
		"undelivered": r.Undelivered, "redelivered": r.Redelivered, "nacked": r.Nacked, "returned": r.Returned, "blocked": r.Blocked,
	} {
		if n > 0 {
			fmt.Fprintf(&b, "%-32s %d %s\n", r.Scenario.Name, n, name)
		}
	}
	if r.Error != "" {
		fmt.Fprintf(&b, "%-32s FAILED: %s\n", r.Scenario.Name, r.Error)
	}
	if r.Skipped != "" {
		fmt.Fprintf(&b, "%-32s skipped: %s\n", r.Scenario.Name, r.Skipped)
	}
	return b.String()
}

func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "amqp" || u.Hostname() == "" {
		return nil, fmt.Errorf("%s: want amqp://user:password@host:port/vhost", u.Redacted())
	}
	return u, nil
}
