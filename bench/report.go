package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// line is a goal with what was measured for it.
type line struct {
	goal
	column column
	ours   []float64   // of all files
	peers  [][]float64 // by file
	beside []float64   // ours in the same file
	than   []float64   // ours in the scenario to compare with
}

// lines looks the goals up in the results.
func lines(files []saved) (list []line) {
	for _, g := range goals() {
		l := line{goal: g, column: columnNamed(g.figure), peers: make([][]float64, len(files)), beside: make([]float64, len(files))}
		for i := range files {
			own := files[i].values(g.scenario, g.phase, 0, l.column)
			l.ours = append(l.ours, own...)
			l.beside[i] = median(own)
			l.peers[i] = files[i].values(g.scenario, g.phase, 1, l.column)
			if g.than != "" {
				l.than = append(l.than, files[i].values(g.than, g.phase, 0, l.column)...)
			}
		}
		list = append(list, l)
	}
	return list
}

// ratio is ours to the peer's of one file, 0 if either is missing.
func (l *line) ratio(i int) float64 {
	if theirs := median(l.peers[i]); theirs > 0 {
		return l.beside[i] / theirs
	}
	return 0
}

// verdict words what is wanted, and says whether it is reached: "yes", "no" or "".
func (l *line) verdict() (want, reached string) {
	sign := "≥"
	if l.column.better == less {
		sign = "≤"
	}
	have := median(l.ours)
	switch {
	case l.than != nil:
		want, have = fmt.Sprintf("%s %s × %s", sign, decimal(l.limit), l.goal.than), have/median(l.than)
		return want, l.judge(have, l.limit)
	case l.factor > 0:
		best, who := 0.0, ""
		for i := range l.peers {
			theirs := median(l.peers[i])
			if theirs > 0 && (best == 0 || (l.column.better == less) == (theirs < best)) {
				best, have, who = theirs, l.beside[i], ""
			}
		}
		if best == 0 {
			best, who = l.peerDone, " ("+l.peer+", another machine)"
		}
		return fmt.Sprintf("%s %s × %s%s", sign, decimal(l.factor), l.column.format(best), who), l.judge(have, l.factor*best)
	case l.limit > 0:
		return sign + " " + l.column.format(l.limit), l.judge(have, l.limit)
	}
	return "", ""
}

func (l *line) judge(have, want float64) string {
	switch {
	case len(l.ours) == 0:
		return ""
	case (l.column.better == less) == (have <= want) || have == want:
		return "yes"
	}
	return "no"
}

// names are those of the brokers, ours first.
func names(files []saved) []string {
	list := []string{files[0].Brokers[0].Label}
	for _, f := range files {
		list = append(list, f.Brokers[1].Label)
	}
	return list
}

// table is what the readme shows: figures, ratios, and processor time per message.
func table(files []saved) string {
	var b strings.Builder
	all := names(files)
	b.WriteString("| scenario |")
	for i, n := range all {
		fmt.Fprintf(&b, " %s |", n)
		if i > 0 {
			b.WriteString(" ratio |")
		}
	}
	b.WriteString(" CPU µs, " + strings.Join(all, " / ") + " |\n|---|" + strings.Repeat("---|", 2*len(all)) + "\n")
	for _, l := range lines(files) {
		if len(l.ours) == 0 {
			continue
		}
		fmt.Fprintf(&b, "| %s | %s |", l.row, l.column.format(median(l.ours)))
		for i := range files {
			if r := l.ratio(i); r > 0 {
				fmt.Fprintf(&b, " %s | %s |", l.column.format(median(l.peers[i])), decimal(r))
			} else {
				b.WriteString(" – | – |")
			}
		}
		fmt.Fprintf(&b, " %s |\n", costs(files, &l, "CPU µs/unit"))
	}
	return b.String()
}

// goalTable is the longer form: what was wanted, and whether it is there.
func goalTable(files []saved) string {
	var b strings.Builder
	b.WriteString("| scenario | wanted | measured (least–most) | best peer | reached | kernel share | RSS MiB |\n|---|---|---|---|---|---|---|\n")
	for _, l := range lines(files) {
		want, reached := l.verdict()
		have := "not run"
		if len(l.ours) > 0 {
			have = cell(l.ours, l.column)
		}
		var peers []string
		for i, n := range names(files)[1:] {
			if len(l.peers[i]) > 0 {
				peers = append(peers, n+" "+cell(l.peers[i], l.column))
			}
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s |\n", l.row, want, have, strings.Join(peers, "; "), reached,
			costs(files, &l, "kernel share"), costs(files, &l, "RSS MiB"))
	}
	return b.String()
}

// costs are medians of a cost in the phase of a line, ours first.
func costs(files []saved, l *line, figure string) string {
	c := columnNamed(figure)
	text := func(v []float64) string {
		if len(v) == 0 {
			return "–"
		}
		return c.format(median(v))
	}
	var own []float64
	for i := range files {
		own = append(own, files[i].values(l.scenario, l.phase, 0, c)...)
	}
	list := []string{text(own)}
	for i := range files {
		list = append(list, text(files[i].values(l.scenario, l.phase, 1, c)))
	}
	return strings.Join(list, " / ")
}

// method tells where the figures come from.
func method(files []saved) string {
	var b strings.Builder
	m := files[0].Machine
	fmt.Fprintf(&b, "%s, %d cores, %s, Linux %s. ", m.CPU, m.Cores, m.Go, m.Kernel)
	for i := range files {
		for j, broker := range files[i].Brokers {
			if j == 0 && i > 0 {
				continue
			}
			version := ""
			for _, r := range files[i].Runs {
				if r.Broker == j && r.Version != "" {
					version = r.Version
				}
			}
			fmt.Fprintf(&b, "%s", broker.Label)
			if j > 0 && version != "" {
				fmt.Fprintf(&b, " %s", version)
			}
			if broker.Settings != "" {
				fmt.Fprintf(&b, " (%s)", broker.Settings)
			}
			b.WriteString("; ")
		}
	}
	var p50, p99 []float64
	for i := range files {
		for _, r := range files[i].Runs {
			if r.Probe != nil {
				p50, p99 = append(p50, r.Probe.OverwriteP50us), append(p99, r.Probe.OverwriteP99us)
			}
		}
	}
	fmt.Fprintf(&b, "4 KiB overwritten and synced beside every run: median of the p50 %s µs, of the p99 %s µs.\n", count(median(p50)), count(median(p99)))
	return b.String()
}

func reportCommand(args []string, out, log io.Writer) error {
	fs := flag.NewFlagSet("report", flag.ContinueOnError)
	fs.SetOutput(log)
	readme := fs.String("table", "", "file that gets the table between the marks bench:begin and bench:end")
	docs := fs.String("goals", "", "file that gets the table of goals between the marks bench:begin and bench:end")
	if err := fs.Parse(args); err != nil {
		return err
	}
	var files []saved
	for _, pattern := range fs.Args() {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			return errors.Join(fmt.Errorf("no results in %s", pattern), err)
		}
		for _, name := range found {
			var s saved
			if err := s.load(name); err != nil {
				return err
			}
			if len(s.Brokers) != 2 || len(s.Runs) == 0 {
				return fmt.Errorf("%s: not the results of two brokers", name)
			}
			files = append(files, s)
		}
	}
	if len(files) == 0 {
		return errors.New("report: which results?")
	}
	if *readme == "" && *docs == "" {
		_, err := fmt.Fprint(out, method(files), "\n", goalTable(files))
		return err
	}
	var err error
	if *readme != "" {
		err = replaceMarked(*readme, method(files)+"\n"+table(files))
	}
	if *docs != "" {
		err = errors.Join(err, replaceMarked(*docs, method(files)+"\n"+goalTable(files)))
	}
	return err
}

// replaceMarked puts text between two lines that say so.
func replaceMarked(name, text string) error {
	const begin, end = "<!-- bench:begin -->\n", "<!-- bench:end -->"
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	head, rest, ok := bytes.Cut(b, []byte(begin))
	_, tail, found := bytes.Cut(rest, []byte(end))
	if !ok || !found {
		return fmt.Errorf("%s has no lines %q and %q", name, strings.TrimSpace(begin), end)
	}
	return os.WriteFile(name, slices.Concat(head, []byte(begin), []byte(text), []byte(end), tail), 0o644)
}
