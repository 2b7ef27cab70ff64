package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/settmq/settmq/cli/api"
	"github.com/settmq/settmq/config"
)

// healthCommand asks whether the broker serves, in the form that a container or a load balancer wants.
func (a *App) healthCommand() *cobra.Command {
	var live bool
	var wait time.Duration
	var t targetFlags
	cmd := &cobra.Command{Use: "health", Short: "Ask whether the broker is ready; the exit code is the answer", Args: NoOperands}
	t.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		path := "/health/ready"
		if live {
			path = "/health/live"
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), max(wait, 5*time.Second))
		defer cancel()
		for start := time.Now(); ; {
			err := probe(ctx, &t, path) // the socket may come with the broker
			if err == nil {
				_, err = fmt.Fprintln(a.Stdout, "ok")
				return err
			}
			if time.Since(start) >= wait || ctx.Err() != nil {
				return err
			}
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	cmd.GroupID = GroupBroker
	cmd.Long = lines("Asks whether the broker serves, without a login. Exit code 0: it is ready; 1: it is not; 3: it cannot be reached.",
		"A container's HEALTHCHECK is settmq health.")
	cmd.Flags().BoolVar(&live, "live", false, "ask only whether the process answers")
	cmd.Flags().DurationVar(&wait, "wait", 0, "try again for so `long`")
	return cmd
}

func probe(ctx context.Context, t *targetFlags, path string) error {
	c, err := t.client()
	if err != nil {
		return err
	}
	defer c.Close()
	err = c.Probe(ctx, path)
	var refused *api.Error
	if errors.As(err, &refused) && refused.Status == http.StatusServiceUnavailable {
		return errors.New("not ready: the broker starts, stops, or holds publishers back")
	}
	return err
}

// brokerStatus is what status and top show.
type brokerStatus struct {
	Overview struct {
		Node      string `json:"node"`
		Version   string `json:"rabbitmq_version"`
		Software  string `json:"settmq_version"` // "" is RabbitMQ itself
		Totals    row    `json:"object_totals"`
		Messages  row    `json:"queue_totals"`
		Rates     row    `json:"message_stats"`
		Listeners []row  `json:"listeners"`
	}
	Node row
}

func (s *brokerStatus) fetch(r *request) error {
	if err := r.api.Get(r.ctx, "overview", &s.Overview); err != nil {
		return err
	}
	// Users without the tag monitoring may not see it: they get the rest.
	err := r.api.Get(r.ctx, api.Path("nodes", s.Overview.Node), &s.Node)
	if api.Is(err, http.StatusUnauthorized) || api.Is(err, http.StatusForbidden) {
		return nil
	}
	return err
}

func (a *App) statusCommand() *cobra.Command {
	var form string
	cmd := apiCommand("status", "Show how the broker is", NoOperands, func(r *request) error {
		var s brokerStatus
		if err := s.fetch(r); err != nil {
			return err
		}
		return a.printObject(s.summary(), form)
	})
	cmd.GroupID = GroupBroker
	cmd.Flags().StringVarP(&form, "output", "o", "table", "`form`: table or json")
	return cmd
}

// summary is the status as an object.
func (s *brokerStatus) summary() row {
	o := row{"node": s.Overview.Node, "version": "RabbitMQ " + s.Overview.Version}
	if s.Overview.Software != "" {
		o["version"] = fmt.Sprintf("SettMQ %s, as RabbitMQ %s", s.Overview.Software, s.Overview.Version)
	}
	for _, key := range []string{"connections", "channels", "queues", "exchanges", "consumers"} {
		if v := s.Overview.Totals[key]; v != nil {
			o[key] = v
		}
	}
	for _, key := range []string{"messages", "messages_ready", "messages_unacknowledged"} {
		if v := s.Overview.Messages[key]; v != nil {
			o[key] = v
		}
	}
	if rate := s.rate("publish"); rate != "" {
		o["publish_rate"], o["deliver_rate"] = rate, first(s.rate("deliver_get"), "0")
	}
	var listeners []any
	for _, l := range s.Overview.Listeners {
		listeners = append(listeners, fmt.Sprintf("%s %s:%s", text(l["protocol"]), text(l["ip_address"]), text(l["port"])))
	}
	o["listeners"] = listeners
	if s.Node == nil {
		return o
	}
	if ms, ok := number(s.Node["uptime"]); ok {
		o["uptime"] = (time.Duration(ms) * time.Millisecond).Round(time.Second).String()
	}
	for from, to := range map[string]string{"mem_used": "memory", "mem_limit": "memory_limit", "disk_free": "disk_free", "disk_free_limit": "disk_free_limit"} {
		if n, ok := number(s.Node[from]); ok && s.Node[from] != nil {
			o[to] = size(n)
		}
	}
	o["file_descriptors"] = text(s.Node["fd_used"]) + " of " + text(s.Node["fd_total"])
	o["data_directory"] = s.Node["db_dir"]
	o["alarms"] = "none"
	if alarms := s.alarms(); len(alarms) > 0 {
		o["alarms"] = strings.Join(alarms, ", ") + ": publishers are held back"
	}
	return o
}

func (s *brokerStatus) alarms() []string {
	var list []string
	for key, name := range map[string]string{"mem_alarm": "memory", "disk_free_alarm": "disk"} {
		if on, _ := s.Node[key].(bool); on {
			list = append(list, name)
		}
	}
	return list
}

// rate of a counter in messages a second, "" when the broker does not say.
func (s *brokerStatus) rate(name string) string {
	n, ok := field(s.Overview.Rates, name+"_details.rate").(json.Number)
	if !ok {
		return ""
	}
	f, err := n.Float64()
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%.0f", f)
}

// size spells bytes for people.
func size(bytes float64) string {
	for _, u := range []struct {
		name  string
		bytes config.Size
	}{{"GiB", config.GiB}, {"MiB", config.MiB}, {"KiB", config.KiB}} {
		if bytes >= float64(u.bytes) {
			return fmt.Sprintf("%.1f %s", bytes/float64(u.bytes), u.name)
		}
	}
	return fmt.Sprintf("%.0f B", bytes)
}

// topCommand shows the busiest queues again and again.
func (a *App) topCommand() *cobra.Command {
	var every time.Duration
	var count int
	var by string
	cmd := apiCommand("top", "Watch the longest queues", NoOperands, func(r *request) error {
		if every < 200*time.Millisecond {
			return Usagef("--every must be at least 200ms")
		}
		ctx, stop := signal.NotifyContext(r.ctx, os.Interrupt, syscall.SIGTERM)
		defer stop()
		r.ctx = ctx
		for {
			if err := a.topPage(r, by, count); err != nil || !isCharDevice(a.Stdout) {
				return err // a file gets one page
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(every):
			}
		}
	})
	cmd.GroupID = GroupBroker
	cmd.Flags().DurationVar(&every, "every", 2*time.Second, "`time` between two looks")
	cmd.Flags().IntVar(&count, "count", 20, "show `n` queues")
	cmd.Flags().StringVar(&by, "by", "messages", "the `field` that decides which queues come first")
	return cmd
}

func (a *App) topPage(r *request, by string, count int) error {
	var s brokerStatus
	if err := s.fetch(r); err != nil {
		return err
	}
	var queues []row
	if err := r.api.Get(r.ctx, "queues", &queues); err != nil {
		return err
	}
	var b strings.Builder
	if isCharDevice(a.Stdout) {
		b.WriteString("\x1b[H\x1b[2J")
	}
	memory, _ := number(s.Node["mem_used"])
	fmt.Fprintf(&b, "%s  connections %s  queues %s  messages %s  publish/s %s  deliver/s %s  memory %s\n\n", s.Overview.Node,
		text(s.Overview.Totals["connections"]), text(s.Overview.Totals["queues"]), text(s.Overview.Messages["messages"]),
		first(s.rate("publish"), "-"), first(s.rate("deliver_get"), "-"), size(memory))
	out := &output{form: "table", sort: "-" + by, total: []string{
		"name", "vhost", "messages_ready", "messages_unacknowledged", "consumers", "message_stats.publish_details.rate", "message_stats.deliver_get_details.rate",
	}}
	out.order(queues)
	if len(queues) > count {
		queues = queues[:count]
	}
	if err := out.print(&b, queues); err != nil {
		return err
	}
	_, err := fmt.Fprint(a.Stdout, b.String())
	return err
}
