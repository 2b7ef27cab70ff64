package cli

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/settmq/settmq/auth"
	"github.com/settmq/settmq/cli/api"
)

// What doctor looks for.
const (
	fewFiles     = 65_536                // file descriptors: a connection takes one
	slowSync     = 20 * time.Millisecond // a persistent message waits for one
	syncsInDoubt = 20 * time.Microsecond // no disk is so fast: it may answer before the data are safe
	syncs        = 20
)

const (
	good = "ok"
	warn = "warn"
	bad  = "fail"
)

// examination is a run of doctor.
type examination struct {
	r        *request
	status   brokerStatus
	findings []row
}

func (e *examination) add(check, result, format string, args ...any) {
	e.findings = append(e.findings, row{"check": check, "result": result, "detail": fmt.Sprintf(format, args...)})
}

// doctorCommand goes through a list of what a broker in production should have.
func (a *App) doctorCommand() *cobra.Command {
	var out *output
	cmd := apiCommand("doctor", "Check the broker against a list for production", NoOperands, func(r *request) error {
		e := &examination{r: r}
		if err := e.status.fetch(r); err != nil {
			return err
		}
		for _, check := range []func() error{e.ready, e.users, e.listeners, e.certificates, e.resources, e.disk, e.clock} {
			if err := check(); err != nil {
				return err
			}
		}
		if err := out.print(a.Stdout, e.findings); err != nil {
			return err
		}
		if slices.ContainsFunc(e.findings, func(f row) bool { return f["result"] == bad }) {
			return Told(ExitFailed)
		}
		return nil
	})
	out = addOutput(cmd, "check", "result", "detail")
	cmd.GroupID = GroupBroker
	cmd.Long = lines("Looks for what a broker in production should not have: the default user, open listeners without TLS, certificates about to",
		"expire, few file descriptors, little disk, a disk that is slow to sync or answers too early, a clock that nobody sets.",
		"Exit code 1: at least one check failed; warnings do not count.")
	return cmd
}

func (e *examination) ready() error {
	err := e.r.api.Probe(e.r.ctx, "/health/ready")
	var refused *api.Error
	switch {
	case err == nil:
		e.add("ready", good, "%s serves", e.status.Overview.Node)
	case errors.As(err, &refused):
		e.add("ready", bad, "%s", refused)
	default:
		return err
	}
	return nil
}

func (e *examination) users() error {
	var users []struct {
		Name      string `json:"name"`
		Hash      string `json:"password_hash"`
		Algorithm string `json:"hashing_algorithm"`
	}
	err := e.r.api.Get(e.r.ctx, "users", &users)
	if api.Is(err, http.StatusUnauthorized) {
		e.add("default user", warn, "not checked: only an administrator may see the users")
		return nil
	} else if err != nil {
		return err
	}
	for _, u := range users {
		hash, err := auth.DecodeHash(u.Algorithm, u.Hash)
		// Its own name is the first password that anybody tries.
		if err == nil && (&auth.User{PasswordHash: hash, Algorithm: u.Algorithm}).Verify(u.Name) {
			e.add("default user", warn, "the password of user %q is its name; settmq users declare %s --new-password-file -", u.Name, u.Name)
		}
	}
	if len(e.findings) == 1 {
		e.add("default user", good, "no user has its name for a password")
	}
	return nil
}

func (e *examination) listeners() error {
	open := 0
	for _, l := range e.status.Overview.Listeners {
		protocol, address := text(l["protocol"]), text(l["ip_address"])
		ip := net.ParseIP(address)
		if ip != nil && ip.IsLoopback() || slices.Contains([]string{"amqp/ssl", "https", "clustering"}, protocol) {
			continue
		}
		open++
		e.add("listeners", warn, "%s on %s port %s is open to others without TLS: passwords can be read on the way", protocol, address, text(l["port"]))
	}
	if open == 0 {
		e.add("listeners", good, "only this machine gets in without TLS")
	}
	return nil
}

func (e *examination) certificates() error {
	err := e.r.api.Get(e.r.ctx, "health/checks/certificate-expiration/1/months", nil)
	var refused *api.Error
	switch {
	case err == nil:
		e.add("certificates", good, "none expires within a month")
	case errors.As(err, &refused):
		e.add("certificates", warn, "%s", refused)
	default:
		return err
	}
	return nil
}

func (e *examination) resources() error {
	if e.status.Node == nil {
		e.add("resources", warn, "not checked: the user needs the tag monitoring")
		return nil
	}
	for _, a := range e.status.alarms() {
		e.add("alarms", bad, "%s: publishers are held back", a)
	}
	if files, ok := number(e.status.Node["fd_total"]); ok && files > 0 && files < fewFiles {
		e.add("file descriptors", warn, "%.0f are allowed; raise LimitNOFILE or ulimit -n to %d or more", files, fewFiles)
	} else {
		e.add("file descriptors", good, "%.0f are allowed", files)
	}
	free, _ := number(e.status.Node["disk_free"])
	limit, _ := number(e.status.Node["disk_free_limit"])
	if free < 2*limit {
		e.add("free disk", warn, "%s, and publishers are held back below %s", size(free), size(limit))
	} else {
		e.add("free disk", good, "%s, publishers are held back below %s", size(free), size(limit))
	}
	used, _ := number(e.status.Node["mem_used"])
	most, _ := number(e.status.Node["mem_limit"])
	if most > 0 && used > 0.8*most {
		e.add("memory", warn, "%s of %s", size(used), size(most))
	} else {
		e.add("memory", good, "%s of %s", size(used), size(most))
	}
	return nil
}

// disk measures how long the disk of the data directory takes to sync, if that is on this machine.
func (e *examination) disk() error {
	dir := text(e.status.Node["db_dir"])
	if e.r.api.User() != "" || dir == "" {
		e.add("sync", warn, "not measured: doctor has to run on the broker's machine, over its socket")
		return nil
	}
	median, err := syncTime(dir)
	switch {
	case err != nil:
		e.add("sync", warn, "not measured: %v", err)
	case median < syncsInDoubt:
		e.add("sync", warn, "%v: so fast that the disk may answer before the data are safe", median)
	case median > slowSync:
		e.add("sync", warn, "%v: a confirm of a persistent message takes as long", median)
	default:
		e.add("sync", good, "%v", median)
	}
	return nil
}

// syncTime is the median time of writing 4 KiB to a file in dir and syncing it.
func syncTime(dir string) (time.Duration, error) {
	f, err := os.CreateTemp(filepath.Clean(dir), ".doctor-*")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // an empty file does no harm
	defer f.Close()
	block := make([]byte, 4096)
	times := make([]time.Duration, 0, syncs)
	for range syncs {
		start := time.Now()
		if _, err := f.WriteAt(block, 0); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	return times[syncs/2].Round(time.Microsecond), nil
}

func (e *examination) clock() error {
	set, err := clockIsSet()
	switch {
	case err != nil:
		e.add("clock", warn, "not checked: %v", err)
	case !set:
		e.add("clock", warn, "nothing keeps this machine's clock right (NTP): times to live and timestamps go by it")
	default:
		e.add("clock", good, "kept right by the system")
	}
	return nil
}
