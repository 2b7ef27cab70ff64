package rabbitmqctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/settmq/settmq/cli/api"
)

// overview is what the API says of the broker.
type overview struct {
	Node            string     `json:"node"`
	ClusterName     string     `json:"cluster_name"`
	ProductName     string     `json:"product_name"`
	ProductVersion  string     `json:"product_version"`
	RabbitMQVersion string     `json:"rabbitmq_version"`
	ErlangVersion   string     `json:"erlang_version"`
	Listeners       []listener `json:"listeners"`
	Totals          struct {
		Connections int64 `json:"connections"`
		Queues      int64 `json:"queues"`
	} `json:"object_totals"`
}

type listener struct {
	Node     string `json:"node"`
	Protocol string `json:"protocol"`
	Address  string `json:"ip_address"`
	Port     int    `json:"port"`
}

// node is what the API says of the process.
type node struct {
	Name        string   `json:"name"`
	PID         string   `json:"os_pid"`
	Uptime      int64    `json:"uptime"` // milliseconds
	Memory      int64    `json:"mem_used"`
	MemoryLimit int64    `json:"mem_limit"`
	MemoryAlarm bool     `json:"mem_alarm"`
	DiskFree    int64    `json:"disk_free"`
	DiskLimit   int64    `json:"disk_free_limit"`
	DiskAlarm   bool     `json:"disk_free_alarm"`
	Files       int64    `json:"fd_used"`
	FilesLimit  int64    `json:"fd_total"`
	Running     bool     `json:"running"`
	Processors  int      `json:"processors"`
	DataDir     string   `json:"db_dir"`
	LogFiles    []string `json:"log_files"`
	ConfigFiles []string `json:"config_files"`
}

func (c *call) overview() (*overview, error) {
	var o overview
	err := c.api.Get(c.ctx, "overview", &o)
	c.node = first(c.node, o.Node)
	return &o, err
}

func (c *call) nodeInfo() (*node, error) {
	var all []*node
	if err := c.api.Get(c.ctx, "nodes", &all); err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, errors.New("the management API knows no node")
	}
	return all[0], nil
}

func nodeCommands() map[string]command {
	asking := func(format string) func(*call) string {
		return func(c *call) string { return fmt.Sprintf(format, c.nodeName()) }
	}
	running := func(c *call) (result, error) {
		o, err := c.overview()
		if err != nil {
			return nil, err
		}
		text := fmt.Sprintf("RabbitMQ on node %s is fully booted and running", o.Node)
		return &report{text + "\n", pairs{{"result", true}, {"message", text}}}, nil
	}
	return map[string]command{
		"ping": {
			banner: asking("Will ping %s. This only checks if the OS process is running and registered with epmd. Timeout: 60000 ms."),
			run: func(c *call) (result, error) {
				if _, err := c.overview(); err != nil {
					return nil, err
				}
				return message("Ping succeeded"), nil
			},
		},
		"await_startup": {run: awaitStartup},
		"wait":          {most: 1, switches: []string{"pid="}, run: awaitStartup, usage: "[<pidfile>]"},
		"await_online_nodes": {
			least: 1, most: 1, usage: "<count> [--timeout <timeout>]",
			banner: func(c *call) string {
				return fmt.Sprintf("Will wait for at least %s nodes to join the cluster of %s. Timeout: %s seconds.", c.args[0], c.nodeName(), first(c.opts.get("timeout"), "300"))
			},
			run: func(c *call) (result, error) {
				if n, err := strconv.Atoi(c.args[0]); err != nil || n < 1 {
					return nil, failf(exitData, "target number of nodes must be greater than 0")
				} else if n > 1 {
					return nil, failf(exitUnavailable, "SettMQ has no clusters: there will never be %d nodes", n)
				}
				return awaitStartup(c)
			},
		},
		"status":         {usage: "[--unit <unit>] [--timeout <timeout>]", switches: []string{"unit="}, banner: asking("Status of node %s ..."), run: status},
		"cluster_status": {banner: asking("Cluster status of node %s ..."), run: clusterStatus},
		"version":        {run: func(c *call) (result, error) { return rabbitVersion(c) }},
		"server_version": {banner: asking("Asking node %s for its RabbitMQ version..."), run: func(c *call) (result, error) { return rabbitVersion(c) }},
		"is_running":     {banner: asking("Asking node %s for its status ..."), run: running},
		"check_running":  {banner: asking("Checking if RabbitMQ is running on node %s ..."), run: running},
		"is_booting": {
			banner: asking("Asking node %s for its boot status ..."),
			run: func(c *call) (result, error) {
				o, err := c.overview()
				if err != nil {
					return nil, err
				}
				return message(fmt.Sprintf("RabbitMQ on node %s is fully booted (check with is_running), stopped or has not started booting yet", o.Node)), nil
			},
		},
		"alarms":             {banner: asking("Asking node %s to report any known resource alarms ..."), run: alarms},
		"check_alarms":       {banner: asking("Asking node %s to report any local resource alarms ..."), run: checkAlarms},
		"check_local_alarms": {banner: asking("Asking node %s to report any local resource alarms ..."), run: checkAlarms},
		"check_port_connectivity": {
			usage: "[--address <address>]", switches: []string{"address="},
			banner: asking("Testing TCP connections to all active listeners on node %s using hostname resolution ..."), run: checkPorts,
		},
		"check_port_listener": {
			least: 1, most: 1, usage: "<port>",
			banner: func(c *call) string {
				return fmt.Sprintf("Asking node %s if there's an active listener on port %s ...", c.nodeName(), c.args[0])
			},
			run: checkPortListener,
		},
		"check_protocol_listener": {
			least: 1, most: 1, usage: "<protocol>",
			banner: func(c *call) string {
				return fmt.Sprintf("Asking node %s if there's an active listener for protocol %s ...", c.nodeName(), c.args[0])
			},
			run: checkProtocolListener,
		},
		"check_virtual_hosts": {
			banner: asking("Checking if all vhosts are running on node %s ..."),
			run: func(c *call) (result, error) {
				var all []map[string]any
				if err := c.api.Get(c.ctx, "vhosts", &all); err != nil {
					return nil, err
				}
				return message(fmt.Sprintf("Node %s reported all vhosts as running", c.nodeName())), nil
			},
		},
		"check_if_node_is_quorum_critical": {
			banner: asking("Checking if node %s is critical for quorum of any queues/streams ..."),
			run: func(c *call) (result, error) {
				o, err := c.overview()
				if err != nil {
					return nil, err
				}
				return message(fmt.Sprintf("Node %s seems to be the only one in a single node cluster, the check does not apply", o.Node)), nil
			},
		},
		"check_if_node_is_mirror_sync_critical": {
			banner: say(deprecated), run: func(*call) (result, error) { return message("ok"), nil },
		},
		"check_if_cluster_has_classic_queue_mirroring_policy": {
			banner: say(deprecated), run: func(*call) (result, error) { return message("ok"), nil },
		},
		"node_health_check": {run: nodeHealthCheck},
		"listeners":         {banner: asking("Asking node %s to report its protocol listeners ..."), run: listListeners},
		"log_location": {
			switches: []string{"all"}, banner: asking("Log file location(s) on node %s ..."),
			run: func(c *call) (result, error) { return message("<stdout>"), nil },
		},
		"environment": refused("its settings are those of settmq config default"),
	}
}

const deprecated = "This command is DEPRECATED and is a no-op. It will be removed in a future version."

// awaitStartup waits until the broker answers, five minutes if --timeout says nothing.
func awaitStartup(c *call) (result, error) {
	limit, err := c.timeout(300 * time.Second)
	if err != nil {
		return nil, err
	}
	return nil, c.await(limit, func() error { return c.api.Get(c.ctx, "overview", nil) })
}

func rabbitVersion(c *call) (result, error) {
	o, err := c.overview()
	if err != nil {
		return nil, err
	}
	return message(o.RabbitMQVersion), nil
}

// nodeHealthCheck is what RabbitMQ has made a no-op of. Scripts still call it, so it checks what it did: that the
// broker answers and has no alarm.
func nodeHealthCheck(c *call) (result, error) {
	n, err := c.nodeInfo()
	if err != nil {
		return nil, err
	}
	if active := n.alarms(); len(active) > 0 {
		return nil, failf(exitSoftware, "resource alarm(s) in effect:[%s]", strings.Join(active, ","))
	}
	return message("Health check passed"), nil
}

func (n *node) alarms() []string {
	var active []string
	if n.MemoryAlarm {
		active = append(active, "memory")
	}
	if n.DiskAlarm {
		active = append(active, "disk")
	}
	return active
}

func alarms(c *call) (result, error) {
	n, err := c.nodeInfo()
	if err != nil {
		return nil, err
	}
	active := n.alarms()
	list := []pairs{}
	for _, a := range active {
		list = append(list, pairs{{"resource", a}, {"node", n.Name}})
	}
	text := fmt.Sprintf("Node %s reported no alarms, local or clusterwide\n", n.Name)
	if len(active) > 0 {
		text = fmt.Sprintf("Node %s reported alarms:\n\n", n.Name)
		for _, a := range active {
			text += fmt.Sprintf("%s alarm on node %s\n", title(a), n.Name)
		}
	}
	return &report{text, pairs{{"result", "ok"}, {"node", n.Name}, {"alarms", list}}}, nil
}

func title(s string) string {
	if s == "disk" {
		return "Free disk space"
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func checkAlarms(c *call) (result, error) {
	n, err := c.nodeInfo()
	if err != nil {
		return nil, err
	}
	what := "no alarms, local or clusterwide"
	if c.name == "check_local_alarms" {
		what = "no local alarms"
	}
	active := n.alarms()
	if len(active) == 0 {
		return message(fmt.Sprintf("Node %s reported %s", n.Name, what)), nil
	}
	text := fmt.Sprintf("Node %s reported the following alarms:", n.Name)
	for _, a := range active {
		text += fmt.Sprintf("\n\t%s alarm on node %s", title(a), n.Name)
	}
	return nil, failf(exitUnavailable, "%s", text)
}

// ports of the listeners, in order.
func (o *overview) ports() string {
	var ports []int
	for _, l := range o.Listeners {
		if !slices.Contains(ports, l.Port) {
			ports = append(ports, l.Port)
		}
	}
	slices.Sort(ports)
	texts := make([]string, len(ports))
	for i, p := range ports {
		texts[i] = strconv.Itoa(p)
	}
	return strings.Join(texts, ", ")
}

// dialAddress is where a client on this machine reaches a listener.
func (l *listener) dialAddress() string {
	host := l.Address
	// [::] takes IPv4, too. localhost would need a name service.
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, strconv.Itoa(l.Port))
}

func checkPorts(c *call) (result, error) {
	o, err := c.overview()
	if err != nil {
		return nil, err
	}
	for _, l := range o.Listeners {
		address := l.dialAddress()
		if host := c.opts.get("address"); host != "" {
			address = net.JoinHostPort(host, strconv.Itoa(l.Port))
		}
		if !c.machine() {
			fmt.Fprintf(c.out, "Will connect to %s\n", address)
		}
		conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(c.ctx, "tcp", address)
		if err != nil {
			return nil, failf(exitUnavailable, "Connection attempt failed on node %s: %v", o.Node, err)
		}
		_ = conn.Close()
	}
	return message(fmt.Sprintf("Successfully connected to ports %s on node %s (using node hostname resolution)", o.ports(), o.Node)), nil
}

func checkPortListener(c *call) (result, error) {
	port, err := strconv.ParseUint(c.args[0], 10, 16)
	if err != nil {
		return nil, failf(exitData, "%q is no port", c.args[0])
	}
	o, err := c.overview()
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(o.Listeners, func(l listener) bool { return l.Port == int(port) }) {
		return nil, &failure{exitUnavailable, fmt.Sprintf("No listener for port %d is active on node %s. Found listeners that use the following ports: %s", port, o.Node, o.ports()), true}
	}
	return message(fmt.Sprintf("A listener for port %d is running on node %s.", port, o.Node)), nil
}

// protocols by the names that users have for them.
var protocols = map[string]string{
	"amqp091": "amqp", "amqp0.9.1": "amqp", "amqp0-9-1": "amqp", "amqps": "amqp/ssl", "amqp091s": "amqp/ssl", "amqp+tls": "amqp/ssl",
	"http/tls": "https", "management": "http",
}

func checkProtocolListener(c *call) (result, error) {
	o, err := c.overview()
	if err != nil {
		return nil, err
	}
	name := strings.ToLower(c.args[0])
	if p, ok := protocols[name]; ok {
		name = p
	}
	var found []string
	for _, l := range o.Listeners {
		if l.Protocol == name {
			return message(fmt.Sprintf("A listener for protocol %s is running on node %s.", name, o.Node)), nil
		}
		if !slices.Contains(found, l.Protocol) {
			found = append(found, l.Protocol)
		}
	}
	slices.Sort(found)
	return nil, failf(exitUnavailable, "No listener for protocol %s is active on node %s. Found listeners for the following protocols: %s", name, o.Node, strings.Join(found, ", "))
}

// purposes of listeners, as people read them.
var purposes = map[string]string{
	"amqp": "AMQP 0-9-1", "amqp/ssl": "AMQP 0-9-1 over TLS", "http": "HTTP API", "https": "HTTP API over TLS",
	"http/prometheus": "Prometheus exporter API over HTTP", "https/prometheus": "Prometheus exporter API over TLS",
}

func (l *listener) pairs() pairs {
	return pairs{{"node", l.Node}, {"port", l.Port}, {"protocol", l.Protocol}, {"interface", l.bind()}, {"purpose", first(purposes[l.Protocol], l.Protocol)}}
}

func (l *listener) bind() string {
	if strings.Contains(l.Address, ":") {
		return "[" + l.Address + "]"
	}
	return l.Address
}

func (l *listener) line() string {
	return fmt.Sprintf("Interface: %s, port: %d, protocol: %s, purpose: %s\n", l.bind(), l.Port, l.Protocol, first(purposes[l.Protocol], l.Protocol))
}

func listListeners(c *call) (result, error) {
	o, err := c.overview()
	if err != nil {
		return nil, err
	}
	r := &report{object: pairs{{"result", "ok"}, {"node", o.Node}, {"listeners", o.listenerPairs()}}}
	for _, l := range o.Listeners {
		r.text += l.line()
	}
	return r, nil
}

func (o *overview) listenerPairs() []pairs {
	list := []pairs{}
	for i := range o.Listeners {
		list = append(list, o.Listeners[i].pairs())
	}
	return list
}

func status(c *call) (result, error) {
	o, err := c.overview()
	if err != nil {
		return nil, err
	}
	n, err := c.nodeInfo()
	if err != nil {
		return nil, err
	}
	var vhosts []json.RawMessage
	if err := c.api.Get(c.ctx, "vhosts", &vhosts); err != nil {
		return nil, err
	}
	var memory struct {
		Memory map[string]any `json:"memory"`
	}
	if err := c.api.Get(c.ctx, api.Path("nodes", n.Name, "memory"), &memory); err != nil && !api.Is(err, http.StatusNotFound) {
		return nil, err
	}
	alarmed := list(n.alarms())
	pid, _ := strconv.Atoi(n.PID)
	object := pairs{
		{"pid", pid},
		{"os", "Linux"},
		{"uptime", n.Uptime / 1000},
		{"is_under_maintenance", false},
		{"rabbitmq_version", o.RabbitMQVersion},
		{"product_name", o.ProductName},
		{"product_version", o.ProductVersion},
		{"erlang_version", o.ErlangVersion},
		{"node_name", n.Name},
		{"running_applications", [][]string{{"rabbit", "RabbitMQ", o.RabbitMQVersion}}},
		{"active_plugins", enabledPlugins},
		{"data_directory", n.DataDir},
		{"log_files", list(n.LogFiles)},
		{"config_files", list(n.ConfigFiles)},
		{"alarms", alarmed},
		{"tags", []string{}},
		{"listeners", o.listenerPairs()},
		{"memory", memory.Memory},
		{"vm_memory_limit", n.MemoryLimit},
		{"disk_free", n.DiskFree},
		{"disk_free_limit", n.DiskLimit},
		{"file_descriptors", pairs{{"total_used", n.Files}, {"total_limit", n.FilesLimit}}},
		{"totals", pairs{{"connection_count", o.Totals.Connections}, {"queue_count", o.Totals.Queues}, {"virtual_host_count", len(vhosts)}}},
	}
	var b strings.Builder
	section := func(title string, lines ...string) {
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s\n\n", title)
		for _, l := range lines {
			b.WriteString(strings.TrimSuffix(l, "\n") + "\n")
		}
	}
	section("Runtime",
		"OS PID: "+n.PID, fmt.Sprintf("Uptime (seconds): %d", n.Uptime/1000), "Is under maintenance?: false", "RabbitMQ version: "+o.RabbitMQVersion,
		"Product: SettMQ "+o.ProductVersion, "Node name: "+n.Name)
	section("Plugins", append([]string{"Enabled plugins:", ""}, prefixed(" * ", enabledPlugins)...)...)
	section("Data directory", "Node data directory: "+n.DataDir)
	section("Alarms", orNone(alarmed)...)
	section("Memory", "Total memory used: "+gigabytes(n.Memory), "Memory high watermark setting: "+gigabytes(n.MemoryLimit))
	section("File Descriptors", fmt.Sprintf("Total: %d, limit: %d", n.Files, n.FilesLimit))
	section("Free Disk Space", "Low free disk space watermark: "+gigabytes(n.DiskLimit), "Free disk space: "+gigabytes(n.DiskFree))
	section("Totals", fmt.Sprintf("Connection count: %d", o.Totals.Connections), fmt.Sprintf("Queue count: %d", o.Totals.Queues), fmt.Sprintf("Virtual host count: %d", len(vhosts)))
	var lines []string
	for _, l := range o.Listeners {
		lines = append(lines, l.line())
	}
	section("Listeners", lines...)
	return &report{b.String(), object}, nil
}

func prefixed(prefix string, lines []string) []string {
	list := make([]string, len(lines))
	for i, l := range lines {
		list[i] = prefix + l
	}
	return list
}

func orNone(lines []string) []string {
	if len(lines) == 0 {
		return []string{"(none)"}
	}
	return lines
}

func gigabytes(n int64) string {
	return strings.TrimSuffix(strings.TrimRight(strconv.FormatFloat(float64(n)/1e9, 'f', 4, 64), "0"), ".") + " gb"
}

func clusterStatus(c *call) (result, error) {
	o, err := c.overview()
	if err != nil {
		return nil, err
	}
	n, err := c.nodeInfo()
	if err != nil {
		return nil, err
	}
	alarmed := list(n.alarms())
	version := pairs{{"rabbitmq_name", "RabbitMQ"}, {"rabbitmq_version", o.RabbitMQVersion}, {"erlang_version", o.ErlangVersion}}
	object := pairs{
		{"cluster_name", o.ClusterName},
		{"cluster_tags", []string{}},
		{"disk_nodes", []string{o.Node}},
		{"ram_nodes", []string{}},
		{"running_nodes", []string{o.Node}},
		{"versions", pairs{{o.Node, version}}},
		{"cpu_cores", pairs{{o.Node, n.Processors}}},
		{"maintenance_status", pairs{{o.Node, "not under maintenance"}}},
		{"alarms", alarmed},
		{"partitions", pairs{}},
		{"listeners", pairs{{o.Node, o.listenerPairs()}}},
		{"feature_flags", []string{}},
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Basics\n\nCluster name: %s\nTotal CPU cores available cluster-wide: %d\n\nCluster Tags\n\n(none)\n\n", o.ClusterName, n.Processors)
	fmt.Fprintf(&b, "Disk Nodes\n\n%s\n\nRunning Nodes\n\n%s\n\nVersions\n\n%s: RabbitMQ %s on Erlang %s\n\n", o.Node, o.Node, o.Node, o.RabbitMQVersion, o.ErlangVersion)
	fmt.Fprintf(&b, "CPU Cores\n\nNode: %s, available CPU cores: %d\n\nMaintenance status\n\nNode: %s, status: not under maintenance\n\n", o.Node, n.Processors, o.Node)
	fmt.Fprintf(&b, "Alarms\n\n%s\n\nNetwork Partitions\n\n(none)\n\nListeners\n\n", strings.Join(orNone(alarmed), "\n"))
	for _, l := range o.Listeners {
		fmt.Fprintf(&b, "Node: %s, %s", o.Node, strings.Replace(l.line(), "Interface", "interface", 1))
	}
	return &report{b.String(), object}, nil
}
