package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds that are not for the operator to move.
const (
	minFrameMax        = 4 * KiB // AMQP 0-9-1 §4.2.3
	maxFrameMax        = 16 * MiB
	maxInitialFrameMax = MiB
	maxMessageSize     = 512 * MiB
	maxConsumerTimeout = Duration(10 * 365 * 24 * time.Hour)
	maxName            = 255     // a short string on the wire
	maxExtra           = 2 << 10 // connection.start has to fit into a frame of minFrameMax
	maxTimeout         = Duration(10 * time.Minute)
)

// Validate looks at the values and returns every problem, each with the path of its key, joined in the
// order of the file. It looks whether files exist, and changes nothing.
func (c *Config) Validate() error {
	v := &problems{}
	v.listeners(c.Listeners)
	v.timeout("shutdown_timeout", c.ShutdownTimeout)
	v.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	v.oneOf("log.format", c.Log.Format, "console", "json")

	if c.Heartbeat < 0 || c.Heartbeat > Duration(65535*time.Second) || c.Heartbeat%Duration(time.Second) != 0 {
		v.add("heartbeat", "%s is not a whole number of seconds from 0s to 65535s", c.Heartbeat)
	}
	v.size("frame_max", c.FrameMax, minFrameMax, maxFrameMax)
	v.size("initial_frame_max", c.InitialFrameMax, minFrameMax, maxInitialFrameMax)
	v.number("channel_max", c.ChannelMax, 1, 65535)
	v.timeout("handshake_timeout", c.HandshakeTimeout)
	v.timeout("tls_handshake_timeout", c.TLSHandshakeTimeout)
	v.size("max_message_size", c.MaxMessageSize, 1, maxMessageSize)

	v.oneOf("default_queue_type", c.DefaultQueueType, "classic", "quorum", "stream")
	if d := c.ConsumerTimeout; d < 0 || d > maxConsumerTimeout {
		v.add("consumer_timeout", "%s, it is 0s to %s", d, maxConsumerTimeout)
	}

	v.serverProperties(&c.ServerProperties)
	v.auth(&c.Auth)
	if c.LoadDefinitions != "" {
		v.file("load_definitions", c.LoadDefinitions)
	}
	v.limits(&c.Limits)

	if w := c.VMMemoryHighWatermark; w.Share < 0 || w.Share > 1 || (w.Share == 0 && w.Size < 64*MiB) {
		v.add("vm_memory_high_watermark", "%s is neither a share from 0 to 1 nor at least 64MiB", w)
	}
	v.storage(&c.Storage)
	v.management(&c.Management)
	if address, _ := c.Metrics.Address(); address != "" {
		v.hostPort("metrics.listen", address)
	}
	v.pprof(c.Debug.Pprof)
	return errors.Join(v.errs...)
}

// problems collects what is wrong.
type problems struct{ errs []error }

func (v *problems) add(path, format string, args ...any) {
	v.errs = append(v.errs, fmt.Errorf("%s: %s", path, fmt.Sprintf(format, args...)))
}

func (v *problems) listeners(ls []Listener) {
	if len(ls) == 0 {
		v.add("listeners", "at least one is needed")
	}
	seen := map[string]bool{}
	for i, l := range ls {
		path := fmt.Sprintf("listeners[%d]", i)
		_, port, err := net.SplitHostPort(l.Address)
		n, err2 := strconv.ParseUint(port, 10, 16)
		switch {
		case err != nil || err2 != nil:
			v.add(path+".address", "%q is not host:port", l.Address)
		case n != 0 && seen[l.Address]:
			v.add(path+".address", "%s is listed twice", l.Address)
		}
		seen[l.Address] = true
		if l.TLS != nil {
			v.tls(path+".tls", l.TLS)
		}
	}
}

func (v *problems) management(m *Management) {
	if m.Listen != "" {
		v.hostPort("management.listen", m.Listen)
	}
	if m.TLS.Cert != "" || m.TLS.Key != "" {
		v.tls("management.tls", &m.TLS)
	}
}

func (v *problems) hostPort(path, address string) {
	_, port, err := net.SplitHostPort(address)
	if _, err2 := strconv.ParseUint(port, 10, 16); err != nil || err2 != nil {
		v.add(path, "%q is not host:port", address)
	}
}

func (v *problems) tls(path string, t *TLS) {
	v.file(path+".cert", t.Cert)
	v.file(path+".key", t.Key)
	if t.CA != "" || t.VerifyPeer {
		v.file(path+".ca", t.CA)
	}
	if t.FailIfNoPeerCert && !t.VerifyPeer {
		v.add(path+".fail_if_no_peer_cert", "needs verify_peer: true")
	}
	if t.MinVersion != "" {
		v.oneOf(path+".min_version", t.MinVersion, "1.2", "1.3")
	}
}

func (v *problems) serverProperties(p *ServerProperties) {
	v.name("server_properties.product", p.Product)
	v.name("server_properties.version", p.Version)
	total := 0
	for _, key := range slices.Sorted(maps.Keys(p.Extra)) {
		path := "server_properties.extra." + key
		switch {
		case key == "" || len(key) > 128:
			v.add(path, "a name has 1 to 128 bytes")
		case key == "product" || key == "version" || key == "capabilities":
			v.add(path, "cannot be set here")
		}
		total += len(key) + len(p.Extra[key])
	}
	if total > maxExtra {
		v.add("server_properties.extra", "%d bytes of names and values, at most %d", total, maxExtra)
	}
}

func (v *problems) auth(a *Auth) {
	if len(a.Mechanisms) == 0 {
		v.add("auth.mechanisms", "at least one is needed")
	}
	for i, m := range a.Mechanisms {
		path := fmt.Sprintf("auth.mechanisms[%d]", i)
		v.oneOf(path, m, "PLAIN", "AMQPLAIN", "EXTERNAL")
		if slices.Contains(a.Mechanisms[:i], m) {
			v.add(path, "%s is listed twice", m)
		}
	}
	for i, name := range a.LoopbackUsers {
		v.name(fmt.Sprintf("auth.loopback_users[%d]", i), name)
	}
	if a.DefaultUser != "" {
		v.name("auth.default_user", a.DefaultUser)
		switch pass, err := a.Password(); {
		case err != nil:
			v.add("auth.default_pass_file", "%s", reason(err))
		case pass == "" && a.DefaultPassFile != "":
			v.add("auth.default_pass_file", "is empty")
		case pass == "":
			v.add("auth.default_pass", "an empty password would never log in")
		}
	}
	v.name("auth.default_vhost", a.DefaultVHost)
	v.oneOf("auth.ssl_cert_login_from", a.SSLCertLoginFrom, "common_name", "distinguished_name", "subject_alternative_name")
	v.oneOf("auth.ssl_cert_login_san_type", a.SSLCertLoginSANType, "dns", "email", "uri", "ip")
	v.number("auth.ssl_cert_login_san_index", a.SSLCertLoginSANIndex, 0, 1000)
}

func (v *problems) limits(l *Limits) {
	const unlimited = 1 << 30 // more is as good as none
	v.number("limits.max_connections", l.MaxConnections, 0, unlimited)
	v.number("limits.max_handshakes", l.MaxHandshakes, 1, 1<<20)
	v.number("limits.max_handshakes_per_ip", l.MaxHandshakesPerIP, 1, 1<<20)
	v.number("limits.max_failed_logins", l.MaxFailedLogins, 0, unlimited)
	v.number("limits.max_consumers_per_channel", l.MaxConsumersPerChannel, 1, 1<<20)
	v.number("limits.max_vhosts", l.MaxVHosts, 0, unlimited)
	v.number("limits.max_queues", l.MaxQueues, 0, unlimited)
	v.number("limits.max_exchanges", l.MaxExchanges, 0, unlimited)
	v.number("limits.max_bindings", l.MaxBindings, 0, unlimited)
	v.size("limits.outbox", l.Outbox, 64*KiB, GiB)
}

func (v *problems) storage(s *Storage) {
	v.size("storage.journal_segment", s.JournalSegment, MiB, GiB)
	v.size("storage.journal_max", s.JournalMax, 2*s.JournalSegment, 1024*GiB)
	v.size("storage.commit_budget", s.CommitBudget, 64*KiB, 4*GiB)
	if size, fixed := s.MessageMemory.Fixed(); fixed && size < MiB {
		v.add("storage.message_memory", "%s is less than 1MiB", size)
	}
}

// pprof lets nobody but this machine see the profiles: there is no login in front of them.
func (v *problems) pprof(address string) {
	if address == "" {
		return
	}
	host, _, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		v.add("debug.pprof", "%q is not host:port of a loopback address", address)
	}
}

func (v *problems) size(path string, s, lo, hi Size) {
	if s < lo || s > hi {
		v.add(path, "%s is not within %s to %s", s, lo, hi)
	}
}

func (v *problems) number(path string, n, lo, hi Count) {
	if n < lo || n > hi {
		v.add(path, "%d is not within %d to %d", n, lo, hi)
	}
}

func (v *problems) timeout(path string, d Duration) {
	if d <= 0 || d > maxTimeout {
		v.add(path, "%s is not within 1ns to %s", d, maxTimeout)
	}
}

func (v *problems) name(path, s string) {
	if s == "" || len(s) > maxName {
		v.add(path, "a name has 1 to %d bytes", maxName)
	}
}

func (v *problems) oneOf(path, s string, choices ...string) {
	if !slices.Contains(choices, s) {
		v.add(path, "%q is not one of %s", s, strings.Join(choices, ", "))
	}
}

func (v *problems) file(path, name string) {
	if name == "" {
		v.add(path, "is not set")
		return
	}
	if info, err := os.Stat(name); err != nil {
		v.add(path, "%s: %s", name, reason(err))
	} else if info.IsDir() {
		v.add(path, "%s: is a directory", name)
	}
}

// reason is what went wrong with a file, without the name that the caller prints itself.
func reason(err error) error {
	var perr *fs.PathError
	if errors.As(err, &perr) {
		return perr.Err
	}
	return err
}
