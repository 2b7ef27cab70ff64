package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"time"
)

func compareCommand(args []string, out, log io.Writer) error {
	fs := flag.NewFlagSet("compare", flag.ContinueOnError)
	fs.SetOutput(log)
	var c common
	c.register(fs)
	targets := [2]target{{label: "A"}, {label: "B"}}
	for i, name := range []string{"a", "b"} {
		t := &targets[i]
		fs.StringVar(&t.url, name, "", "broker "+t.label+": its URL")
		fs.StringVar(&t.label, name+"-label", t.label, "what to call it; the default is its product and version")
		fs.IntVar(&t.pid, name+"-pid", 0, "its process; 0: whoever listens on the port")
		fs.StringVar(&t.command, name+"-cmd", "", "shell command that starts it and stays in the foreground; it is ended afterwards")
		fs.StringVar(&t.settings, name+"-settings", "", "settings worth noting in the results")
		fs.BoolVar(&t.pause, name+"-pause", false, "stop it (SIGSTOP) while it is not its turn; only with -"+name+"-cmd")
	}
	keep := fs.String("save", "", "file of results to add to, as report reads it; -a is ours, and both need labels")
	rounds := fs.Int("rounds", 3, "times each scenario is run on each broker")
	if err := fs.Parse(args); err != nil {
		return err
	}
	selected, err := c.scenarios(fs.Args())
	if err != nil {
		return err
	}
	probe, err := runProbe(c.probeDir, time.Second)
	if err != nil {
		return fmt.Errorf("fsync probe: %w", err)
	}
	envs, stop, err := startBoth(&targets, &c)
	if err != nil {
		return err
	}
	results := inTurn(envs, &targets, selected, *rounds, log)
	if err := stop(); err != nil {
		fmt.Fprintln(log, "bench:", err)
	}
	for i := range results {
		if results[i].Machine.Probe == nil {
			results[i].Machine.Probe = probe
		}
	}
	if c.json != "" {
		if err := writeResults(c.json, out, results); err != nil {
			return err
		}
	}
	if *keep != "" {
		var s saved
		if err := s.load(*keep); err != nil {
			return err
		}
		s.add(results, [2]string{targets[0].label, targets[1].label})
		return s.write(*keep)
	}
	_, err = io.WriteString(out, markdown(results, *rounds))
	return err
}

// startBoth starts the brokers that have a command. stop ends them.
func startBoth(targets *[2]target, c *common) (envs [2]*env, stop func() error, err error) {
	stop = func() error {
		var first error
		for i := range targets {
			if targets[i].child != nil && targets[i].pause {
				_ = pauseGroup(targets[i].child.Process.Pid, false)
			}
			if err := targets[i].stop(); err != nil && first == nil {
				first = err
			}
		}
		return first
	}
	for i := range targets {
		if err = targets[i].start(os.Stderr); err == nil {
			envs[i], err = targets[i].env(c)
		}
		if err != nil {
			_ = stop()
			return envs, nil, err
		}
	}
	return envs, stop, nil
}

// inTurn runs A B A B …, so that whatever else happens on the machine meets both.
func inTurn(envs [2]*env, targets *[2]target, selected []Scenario, rounds int, log io.Writer) []Result {
	var results []Result
	run := 0
	for _, s := range selected {
		for range rounds {
			for i := range envs {
				turn(targets, i)
				r := executeNamed(envs[i], s, run)
				run++
				if r.Broker.Label == "A" || r.Broker.Label == "B" {
					r.Broker.Label += ": " + r.Broker.Product + " " + r.Broker.Version
				}
				results = append(results, r)
				fmt.Fprintf(log, "%s\n%s", r.Broker.Label, r.summary())
			}
		}
	}
	return results
}

// turn lets broker i run and stops the other, if it may be stopped.
func turn(targets *[2]target, i int) {
	for j := range targets {
		t := &targets[j] // started again by a scenario it may have another process
		if t.pause && t.child != nil {
			_ = pauseGroup(t.child.Process.Pid, j != i) // its group exists: it is our child
		}
	}
}
