package management

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"

	"github.com/settmq/settmq/broker"
	"github.com/settmq/settmq/exchange"
	"github.com/settmq/settmq/internal/sysmem"
	"github.com/settmq/settmq/queue"
)

// exchangeTypes are those that clients can declare.
func exchangeTypes() []object {
	var list []object
	for _, name := range exchange.Kinds() {
		list = append(list, object{{"name", name}, {"description", "exchange type " + name}, {"enabled", true}})
	}
	return list
}

// platform is what the program runs on, where RabbitMQ names its Erlang.
func platform() string { return runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH }

func overview(r *request) (any, error) {
	s := r.server
	o := object{
		{"management_version", s.o.Version},
		{"rates_mode", "basic"},
		{"sample_retention_policies", object{{"global", []any{600, 3600, 28800, 86400}}, {"basic", []any{600, 3600}}, {"detailed", []any{600}}}},
		{"exchange_types", exchangeTypes()},
		{"product_version", s.o.Version},
		{"product_name", s.o.Product},
		{"rabbitmq_version", s.o.Version},
		{"settmq_version", s.o.SoftwareVersion},
		{"cluster_name", r.clusterName()},
		{"cluster_tags", object{}},
		{"node_tags", object{}},
		{"erlang_version", runtime.Version()},
		{"erlang_full_version", platform()},
		{"crypto_lib_version", runtime.Version()},
		{"disable_stats", false},
		{"default_queue_type", r.broker.DefaultQueueType().String()},
		{"is_op_policy_updating_enabled", true},
		{"enable_queue_totals", false},
		{"require_definition_json_extension", false},
		{"statistics_db_event_queue", 0},
		{"node", r.broker.Node()},
	}
	if isMonitor(r.user) {
		o = append(o, field{"listeners", r.listenerRows()}, field{"contexts", r.contexts()})
	}
	return append(o, r.totals()...), nil
}

// totals count what the user may see.
func (r *request) totals() object {
	r.broker.Collect()
	var ready, unacked, all, queues, exchanges, consumers, connections, channels int
	var now, seen queue.MessageStats
	var d queue.Details
	vhosts := r.visibleVHosts()
	for _, v := range vhosts {
		exchanges += len(v.Exchanges())
		now = v.MessageStats()
		seen.Add(&now)
		for _, q := range v.Queues() {
			q.Details(&d)
			ready, unacked, all, consumers = ready+d.Ready, unacked+d.Unacked, all+d.Messages(), consumers+d.Consumers
			seen.DiskReads += d.MessageStats.DiskReads
			seen.DiskWrites += d.MessageStats.DiskWrites
			queues++
		}
	}
	for _, c := range r.broker.Connections() {
		if a := c.About(); isMonitor(r.user) || a.User == r.userName() {
			connections++
			channels += c.Info().Channels
		}
	}
	rates, lengthsOf := r.window("msg_rates"), r.window("lengths")
	s := r.seriesOf(vhosts, rates.asked() || lengthsOf.asked())
	o := object{
		{"queue_totals", lengths(ready, unacked, all, &s, lengthsOf, nodeLengths)},
		{"object_totals", object{
			{"channels", channels}, {"connections", connections}, {"consumers", consumers}, {"exchanges", exchanges}, {"queues", queues},
		}},
		{"churn_rates", r.churnRates(&s, rates)},
	}
	counts := brokerCounts
	if seen == (queue.MessageStats{}) {
		counts = diskCounts
	}
	return append(o, field{"message_stats", renderCounts(&seen, &s, rates, counts, nodeMessages)})
}

// seriesOf are the samples of all vhosts together; for those who may not see all the sum of what they may see, of the
// last two samples.
func (r *request) seriesOf(vhosts []*broker.VHost, history bool) broker.Series[broker.NodeSample] {
	s := r.broker.NodeSeries(history)
	if isMonitor(r.user) {
		return s
	}
	s.Last.VHostSample, s.Before.VHostSample, s.History = broker.VHostSample{}, broker.VHostSample{}, nil
	for _, v := range vhosts {
		one := r.broker.VHostSeries(v, false)
		s.Last.Add(&one.Last)
		s.Before.Add(&one.Before)
	}
	return s
}

func (r *request) listenerRows() []object {
	list := []object{}
	for _, l := range r.server.listening() {
		host, port := hostPort(l.Addr)
		list = append(list, object{
			{"node", r.broker.Node()},
			{"protocol", l.Protocol},
			{"ip_address", host},
			{"port", port},
			{"socket_opts", object{}},
			{"tls", l.encrypted()},
		})
	}
	return list
}

func (r *request) contexts() []object {
	list := []object{}
	for _, l := range r.server.listening() {
		if l.Protocol != "http" && l.Protocol != "https" {
			continue
		}
		host, port := hostPort(l.Addr)
		list = append(list, object{
			{"ssl_opts", []any{}},
			{"node", r.broker.Node()},
			{"description", "RabbitMQ Management"},
			{"path", "/"},
			{"cowboy_opts", "[]"},
			{"ip", host},
			{"port", strconv.Itoa(port)},
		})
	}
	return list
}

func (r *request) nodeRow() object {
	s, res := r.server, r.broker.Resources()
	fds, fdLimit := broker.OpenFiles()
	config := []string{}
	if s.o.ConfigFile != "" {
		config = append(config, s.o.ConfigFile)
	}
	o := object{
		{"name", r.broker.Node()},
		{"running", true},
		{"type", "disc"},
		{"being_drained", s.stopping.Load()},
		{"partitions", []any{}},
		{"cluster_links", []any{}},
		{"os_pid", strconv.Itoa(os.Getpid())},
		{"uptime", time.Since(s.started).Milliseconds()},
		{"run_queue", 0},
		{"processors", runtime.NumCPU()},
		{"rates_mode", "basic"},
		{"net_ticktime", 60},
		{"mem_calculation_strategy", "rss"},
		{"mem_limit", res.MemoryLimit},
		{"mem_alarm", res.MemoryAlarm},
		{"disk_free_limit", res.DiskFreeLimit},
		{"disk_free_alarm", res.DiskAlarm},
		{"fd_total", fdLimit},
		{"sockets_total", fdLimit},
		{"proc_total", 1 << 20},
		{"db_dir", s.o.DataDir},
		{"config_files", config},
		{"log_files", []string{"<stderr>"}},
		{"contexts", r.contexts()},
		{"exchange_types", exchangeTypes()},
		{"auth_mechanisms", authMechanisms},
		{"applications", []object{{{"name", "settmq"}, {"description", "SettMQ"}, {"version", s.o.SoftwareVersion}}}},
		{"enabled_plugins", enabledPlugins},
		{"rabbitmq_version", s.o.Version},
		{"erlang_version", runtime.Version()},
		{"erlang_full_version", platform()},
		{"crypto_lib_version", runtime.Version()},
		{"ra_open_file_metrics", object{{"ra_log_wal", 0}, {"ra_log_segment_writer", 0}}},
		{"metrics_gc_queue_length", object{}},
	}
	for _, c := range []field{
		{"fd_used", fds},
		{"sockets_used", len(r.broker.Connections())},
		{"proc_used", runtime.NumGoroutine()},
	} {
		o = append(o, c, field{c.name + "_details", noRate})
	}
	w := r.window("node_stats")
	series := r.broker.NodeSeries(w.asked())
	o = append(o, object{
		{"mem_used", res.MemoryUsed},
		{"mem_used_details", change(&series, w, func(v *broker.NodeSample) uint64 { return v.MemoryUsed })},
		{"disk_free", res.DiskFree},
		{"disk_free_details", change(&series, w, func(v *broker.NodeSample) uint64 { return v.DiskFree })},
	}...)
	o = append(o, r.workOfNode()...)
	return append(o, r.churnRates(&series, w)...)
}

// workOfNode counts what the runtime and the journal did since the start. What RabbitMQ counts besides and is not done here
// is 0: a journal is neither read while it is written nor searched, and there is neither Mnesia nor an index of messages.
func (r *request) workOfNode() object {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	journal := r.broker.Store().Measures()
	o := object{}
	for _, c := range []field{
		{"gc_num", m.NumGC},
		{"gc_bytes_reclaimed", m.TotalAlloc - m.HeapAlloc},
		{"context_switches", broker.ContextSwitches()},
		{"io_read_count", 0},
		{"io_read_bytes", 0},
		{"io_read_avg_time", 0.0},
		{"io_write_count", journal.Records.Count},
		{"io_write_bytes", uint64(journal.Records.Sum)},
		{"io_write_avg_time", 0.0},
		{"io_sync_count", journal.Syncs.Count},
		{"io_sync_avg_time", 1000 * journal.Syncs.Sum / float64(max(journal.Syncs.Count, 1))},
		{"io_seek_count", 0},
		{"io_seek_avg_time", 0.0},
		{"io_reopen_count", 0},
		{"mnesia_ram_tx_count", 0},
		{"mnesia_disk_tx_count", 0},
		{"msg_store_read_count", 0},
		{"msg_store_write_count", 0},
		{"queue_index_write_count", 0},
		{"queue_index_read_count", 0},
	} {
		o = append(o, c, field{c.name + "_details", noRate})
	}
	return o
}

// authMechanisms are those that AMQP clients log in by.
var authMechanisms = []object{
	{{"name", "PLAIN"}, {"description", "SASL PLAIN authentication mechanism"}, {"enabled", true}},
	{{"name", "AMQPLAIN"}, {"description", "AMQPLAIN authentication mechanism"}, {"enabled", true}},
	{{"name", "EXTERNAL"}, {"description", "SASL EXTERNAL authentication mechanism, by client certificate"}, {"enabled", true}},
}

// enabledPlugins are the plugins of RabbitMQ whose work this broker does by itself.
var enabledPlugins = []string{
	"rabbitmq_management", "rabbitmq_management_agent", "rabbitmq_consistent_hash_exchange", "rabbitmq_random_exchange",
	"rabbitmq_recent_history_exchange", "rabbitmq_event_exchange", "rabbitmq_auth_mechanism_ssl",
}

func listNodes(r *request) (any, error) {
	return rows([]object{r.nodeRow()}).sortedBy("name").unpaged(), nil
}

// thisNode refuses other names than that of the one node.
func (r *request) thisNode() error {
	if r.param("node") != r.broker.Node() {
		return errNotFound
	}
	return nil
}

func getNode(r *request) (any, error) {
	if err := r.thisNode(); err != nil {
		return nil, err
	}
	return r.nodeRow(), nil
}

// putNodeLimits changes what the alarms go by until the broker stops, in bytes or as a share of the memory that the
// broker may use. RabbitMQ has it in its command line only.
func putNodeLimits(r *request) (any, error) {
	if err := r.thisNode(); err != nil {
		return nil, err
	}
	o, err := r.decode()
	if err != nil {
		return nil, err
	}
	memory, hasMemory, err := o.nodeLimit("mem_limit")
	if err != nil {
		return nil, err
	}
	disk, hasDisk, err := o.nodeLimit("disk_free_limit")
	if err != nil {
		return nil, err
	}
	if !hasMemory && !hasDisk {
		return nil, badRequest("neither mem_limit nor disk_free_limit")
	}
	if hasMemory {
		r.broker.SetMemoryLimit(memory)
	}
	if hasDisk {
		r.broker.SetDiskFreeLimit(disk)
	}
	return noContent, nil
}

// nodeLimit reads an amount of bytes, or a share of the memory under the key with _relative. A limit of 0 is the least there
// can be, not none.
func (o body) nodeLimit(key string) (limit uint64, ok bool, err error) {
	relative := key + "_relative"
	if !o.has(relative) {
		n, err := o.number(key, 0)
		if err == nil && n < 0 {
			err = badRequest(key + " is negative")
		}
		return uint64(max(n, 1)), o.has(key), err
	}
	var share float64
	if err := o.value(relative, &share); err != nil {
		return 0, false, err
	}
	if share < 0 || share > maxShare || o.has(key) {
		return 0, false, badRequest(fmt.Sprintf("%s is a share of the memory, up to %d, instead of %s", relative, maxShare, key))
	}
	return uint64(max(share*float64(sysmem.Total()), 1)), true, nil
}

// maxShare bounds shares: a disk may have to keep more free than there is memory.
const maxShare = 100

// memoryParts is what the memory of the process goes to, as far as it can be told, in bytes.
func (r *request) memoryParts() (parts []field, total uint64) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	var messages uint64
	for _, v := range r.broker.VHosts() {
		for _, q := range v.Queues() {
			messages += q.Info().Memory
		}
	}
	other := max(m.HeapInuse, messages) - messages
	total = r.broker.Resources().MemoryUsed
	return []field{
		{"binary", messages},
		{"other_proc", other},
		{"other_system", m.StackInuse + m.MSpanInuse + m.MCacheInuse + m.BuckHashSys + m.GCSys + m.OtherSys},
		{"allocated_unused", m.HeapIdle - m.HeapReleased},
		{"connection_readers", 0},
		{"connection_writers", 0},
		{"connection_channels", 0},
		{"connection_other", 0},
		{"queue_procs", 0},
		{"quorum_queue_procs", 0},
		{"quorum_queue_dlx_procs", 0},
		{"stream_queue_procs", 0},
		{"stream_queue_replica_reader_procs", 0},
		{"stream_queue_coordinator_procs", 0},
		{"plugins", 0},
		{"metadata_store", 0},
		{"metadata_store_ets", 0},
		{"metrics", 0},
		{"mgmt_db", 0},
		{"mnesia", 0},
		{"quorum_ets", 0},
		{"other_ets", 0},
		{"msg_index", 0},
		{"code", 0},
		{"atom", 0},
		{"reserved_unallocated", 0},
	}, total
}

func nodeMemory(r *request) (any, error) {
	if err := r.thisNode(); err != nil {
		return nil, err
	}
	parts, total := r.memoryParts()
	memory := append(object(parts), field{"strategy", "rss"},
		field{"total", object{{"erlang", total}, {"rss", total}, {"allocated", total}}})
	return object{{"memory", memory}}, nil
}

func nodeMemoryShares(r *request) (any, error) {
	if err := r.thisNode(); err != nil {
		return nil, err
	}
	parts, total := r.memoryParts()
	memory := object{{"total", 100}}
	for _, p := range parts {
		share := uint64(0)
		if n, ok := p.value.(uint64); ok && total > 0 {
			share = (n*100 + total - 1) / total
		}
		memory = append(memory, field{p.name, share})
	}
	return object{{"memory", memory}}, nil
}

func extensions(*request) (any, error) { return []object{{{"javascript", "dispatcher.js"}}}, nil }

func version(r *request) (any, error) { return r.server.o.Version, nil }

// resetStatistics has nothing to do: there is no database of statistics.
func resetStatistics(r *request) (any, error) {
	if _, named := r.params["node"]; named {
		if err := r.thisNode(); err != nil {
			return nil, err
		}
	}
	return noContent, nil
}

// flags are the feature flags of RabbitMQ, all of which a single broker of one version has enabled.
var flags = []string{
	"classic_mirrored_queue_version", "classic_queue_type_delivery_support", "detailed_queues_endpoint", "direct_exchange_routing_v2",
	"drop_unroutable_metric", "empty_basic_get_metric", "feature_flags_v2", "implicit_default_bindings", "khepri_db", "listener_records_in_ets",
	"maintenance_mode_status", "message_containers", "message_containers_deaths_v2", "quorum_queue", "quorum_queue_non_voters",
	"rabbit_exchange_type_local_random", "rabbitmq_4.0.0", "rabbitmq_4.1.0", "rabbitmq_4.2.0", "rabbitmq_4.3.0", "restart_streams",
	"stream_filtering", "stream_queue", "stream_sac_coordinator_unblock_group", "stream_single_active_consumer", "stream_update_config_command",
	"tracking_records_in_ets", "user_limits", "virtual_host_metadata",
}

func featureFlags(*request) (any, error) {
	var list []object
	for _, name := range flags {
		list = append(list, object{
			{"name", name},
			{"desc", ""},
			{"doc_url", ""},
			{"state", "enabled"},
			{"stability", "required"},
			{"require_level", "hard"},
			{"experiment_level", "supported"},
			{"callbacks", []any{}},
			{"provided_by", "rabbit"},
		})
	}
	return rows(list).sortedBy("name").unpaged(), nil
}

func enableFeatureFlag(r *request) (any, error) {
	for _, name := range flags {
		if name == r.param("name") {
			return noContent, nil
		}
	}
	return nil, badRequest("unsupported")
}

// Features that RabbitMQ gives up, and that are here to stay or were never here.
const permitted, removed = "permitted_by_default", "removed"

var deprecated = []struct{ name, phase string }{
	{"transient_nonexcl_queues", permitted},
	{"global_qos", permitted},
	{"management_metrics_collection", permitted},
	{"queue_master_locator", removed},
	{"amqp_filter_set_bug", removed},
	{"amqp_address_v1", removed},
	{"classic_queue_mirroring", removed},
	{"ram_node_type", removed},
}

func deprecatedFeatures(*request) (any, error) {
	var list []object
	for _, f := range deprecated {
		state := "permitted"
		if f.phase == removed {
			state = "denied"
		}
		list = append(list, object{
			{"name", f.name}, {"state", state}, {"desc", ""}, {"deprecation_phase", f.phase}, {"doc_url", ""}, {"provided_by", "rabbit"},
		})
	}
	return rows(list).sortedBy("name").unpaged(), nil
}

func usedDeprecatedFeatures(r *request) (any, error) {
	list := []object{}
	if transientQueues(r.broker) {
		list = append(list, object{
			{"name", "transient_nonexcl_queues"}, {"desc", ""}, {"deprecation_phase", permitted}, {"doc_url", ""}, {"provided_by", "rabbit"},
		})
	}
	return list, nil
}

// transientQueues reports whether there is a queue that neither lasts nor belongs to a connection.
func transientQueues(b *broker.Broker) bool {
	for _, v := range b.VHosts() {
		for _, q := range v.Queues() {
			if d := q.About(); !d.Durable && !d.Exclusive() {
				return true
			}
		}
	}
	return false
}
