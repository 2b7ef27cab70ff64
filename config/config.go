package config

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Config mirrors the file. Field comments give bounds; config.example.yaml explains each key to operators.
type Config struct {
	Listeners       []Listener `yaml:"listeners"` // at least one
	DataDir         string     `yaml:"data_dir"`  // "": DefaultDataDir, filled in by Load
	NodeName        string     `yaml:"node_name"` // see Node
	ShutdownTimeout Duration   `yaml:"shutdown_timeout"`
	Log             Log        `yaml:"log"`

	// What is negotiated with clients.
	Heartbeat           Duration `yaml:"heartbeat"`         // whole seconds, 0 (off) to 65535 s
	FrameMax            Size     `yaml:"frame_max"`         // 4 KiB to 16 MiB
	InitialFrameMax     Size     `yaml:"initial_frame_max"` // before tune-ok; 4 KiB to 1 MiB; frame_max counts if it is less
	ChannelMax          Count    `yaml:"channel_max"`       // 1 to 65535
	HandshakeTimeout    Duration `yaml:"handshake_timeout"`
	TLSHandshakeTimeout Duration `yaml:"tls_handshake_timeout"`
	MaxMessageSize      Size     `yaml:"max_message_size"` // body bytes, at most 512 MiB

	// DefaultQueueType is that of queues that name none: classic, quorum, stream.
	DefaultQueueType string `yaml:"default_queue_type"`
	// ConsumerTimeout bounds how long consumers of quorum queues may hold a message; 0 is no limit.
	ConsumerTimeout Duration `yaml:"consumer_timeout"`

	ServerProperties ServerProperties `yaml:"server_properties"`
	Auth             Auth             `yaml:"auth"`
	LoadDefinitions  string           `yaml:"load_definitions"` // path of a definitions file, "" for none
	EventExchange    EventExchange    `yaml:"event_exchange"`
	// MessageInterceptors add to every message that is published.
	MessageInterceptors MessageInterceptors `yaml:"message_interceptors"`
	TraceVHosts         []string            `yaml:"trace_vhosts"` // where the firehose is on from the start
	Limits              Limits              `yaml:"limits"`

	// Alarms: publishers are blocked while one is on.
	VMMemoryHighWatermark Watermark `yaml:"vm_memory_high_watermark"`
	// DiskFreeLimit, when Auto, is 2 GiB or 10 % of the file system, whichever is less.
	DiskFreeLimit AutoSize `yaml:"disk_free_limit"`

	Storage    Storage    `yaml:"storage"`
	Management Management `yaml:"management"`
	Metrics    Metrics    `yaml:"metrics"`
	Debug      Debug      `yaml:"debug"`
}

// Listener is an address to serve AMQP on.
type Listener struct {
	Address string `yaml:"address"` // host:port; an empty host is every interface
	TLS     *TLS   `yaml:"tls"`     // nil: plain TCP
}

// TLS are the settings of an encrypted listener. Files are PEM and are read again when they change.
type TLS struct {
	Cert string `yaml:"cert"` // the server's certificate and the chain above it
	Key  string `yaml:"key"`
	CA   string `yaml:"ca"` // authorities for client certificates; needed by VerifyPeer
	// VerifyPeer asks clients for a certificate and refuses one that does not verify.
	VerifyPeer bool `yaml:"verify_peer"`
	// FailIfNoPeerCert also refuses clients that send none. Needs VerifyPeer.
	FailIfNoPeerCert bool   `yaml:"fail_if_no_peer_cert"`
	MinVersion       string `yaml:"min_version"` // "1.2" or "1.3"; "" is 1.2
}

// EventExchange is amq.rabbitmq.event, which tells what happens in the broker.
type EventExchange struct {
	VHost string `yaml:"vhost"` // "": there is none
}

// MessageInterceptors are RabbitMQ's, by its names.
type MessageInterceptors struct {
	Incoming struct {
		SetHeaderTimestamp   Interceptor `yaml:"set_header_timestamp"`
		SetHeaderRoutingNode Interceptor `yaml:"set_header_routing_node"`
	} `yaml:"incoming"`
}

// Interceptor says whether a header is set, and whether it replaces the publisher's.
type Interceptor struct {
	Enabled   bool `yaml:"enabled"`
	Overwrite bool `yaml:"overwrite"`
}

// Log says what is logged and how it looks.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn, error
	Format string `yaml:"format"` // console, json
}

// ServerProperties is what the broker says of itself in connection.start. Clients decide by product and
// version which features they use.
type ServerProperties struct {
	Product string `yaml:"product"`
	Version string `yaml:"version"`
	// Extra adds properties, or replaces those that the broker fills in itself (platform, information,
	// cluster_name, copyright). It cannot name product, version or capabilities.
	Extra map[string]string `yaml:"extra"`
}

// Auth is who may log in, and the first user.
type Auth struct {
	// Mechanisms offered, in this order: PLAIN, AMQPLAIN, EXTERNAL. EXTERNAL is offered only where a
	// listener verifies client certificates.
	Mechanisms []string `yaml:"mechanisms"`
	// LoopbackUsers may only connect from this machine.
	LoopbackUsers []string `yaml:"loopback_users"`

	// The user, vhost and rights created when the broker starts with empty data.
	DefaultUser        string      `yaml:"default_user"` // "": none is created
	DefaultPass        Secret      `yaml:"default_pass"`
	DefaultPassFile    string      `yaml:"default_pass_file"` // replaces DefaultPass when set
	DefaultUserTags    []string    `yaml:"default_user_tags"`
	DefaultVHost       string      `yaml:"default_vhost"`
	DefaultPermissions Permissions `yaml:"default_permissions"`

	// Which part of a client certificate is the user for EXTERNAL: common_name, distinguished_name, or
	// subject_alternative_name with its type (dns, email, uri, ip) and index.
	SSLCertLoginFrom     string `yaml:"ssl_cert_login_from"`
	SSLCertLoginSANType  string `yaml:"ssl_cert_login_san_type"`
	SSLCertLoginSANIndex Count  `yaml:"ssl_cert_login_san_index"`
}

// Permissions are the three patterns of a user in a vhost. They are compiled by the broker.
type Permissions struct {
	Configure string `yaml:"configure"`
	Write     string `yaml:"write"`
	Read      string `yaml:"read"`
}

// Limits keep one client, or one mistake, from taking the broker down. 0 is no limit, but for the two
// handshake limits, the consumers per channel and the outbox, which must be set.
type Limits struct {
	MaxConnections         Count `yaml:"max_connections"`
	MaxHandshakes          Count `yaml:"max_handshakes"`
	MaxHandshakesPerIP     Count `yaml:"max_handshakes_per_ip"`
	MaxFailedLogins        Count `yaml:"max_failed_logins"` // in a minute
	MaxConsumersPerChannel Count `yaml:"max_consumers_per_channel"`
	MaxVHosts              Count `yaml:"max_vhosts"`
	MaxQueues              Count `yaml:"max_queues"`    // per vhost
	MaxExchanges           Count `yaml:"max_exchanges"` // per vhost
	MaxBindings            Count `yaml:"max_bindings"`  // per exchange
	Outbox                 Size  `yaml:"outbox"`        // bytes queued for one connection's socket
}

// Storage says how messages and definitions are kept.
type Storage struct {
	JournalSegment Size `yaml:"journal_segment"`
	JournalMax     Size `yaml:"journal_max"`
	// CommitBudget bounds the bytes received but not yet on disk; publishers wait beyond it.
	CommitBudget Size `yaml:"commit_budget"`
	// MessageMemory bounds what stored messages take in memory, with all that belongs to them. Auto: 64 MiB, or 40 % of
	// the memory watermark if that is less: more gains little over the page cache.
	MessageMemory AutoSize `yaml:"message_memory"`
}

// Management is the HTTP API.
type Management struct {
	Listen string `yaml:"listen"` // host:port; "": off
	TLS    TLS    `yaml:"tls"`    // without a cert: plain HTTP
	// Socket is the Unix socket that the command line uses on this machine; see ManagementSocket.
	Socket string `yaml:"socket"` // a path, auto, or "": none
}

// Metrics is where Prometheus scrapes.
type Metrics struct {
	Listen string `yaml:"listen"` // host:port, auto, or "": off; see Address
}

// DefaultMetricsAddress is where metrics are if nobody says otherwise: RabbitMQ's port.
const DefaultMetricsAddress = "127.0.0.1:15692"

// Address is where to listen, "" for nowhere. optional says that the broker starts without, if that is taken.
func (m *Metrics) Address() (address string, optional bool) {
	if m.Listen == "auto" {
		return DefaultMetricsAddress, true
	}
	return m.Listen, false
}

// Debug is for looking into a running broker.
type Debug struct {
	Pprof string `yaml:"pprof"` // host:port of a loopback address; "": off
}

// Default returns the settings in force where a file says nothing. It depends on nothing outside, so
// DataDir is empty; Load fills that in.
func Default() *Config {
	return &Config{
		Listeners:           []Listener{{Address: "127.0.0.1:5672"}},
		ShutdownTimeout:     Duration(5 * time.Second),
		TraceVHosts:         []string{},
		Log:                 Log{Level: "info", Format: "console"},
		Heartbeat:           Duration(60 * time.Second),
		FrameMax:            128 * KiB,
		InitialFrameMax:     8 * KiB,
		ChannelMax:          2047,
		HandshakeTimeout:    Duration(10 * time.Second),
		TLSHandshakeTimeout: Duration(5 * time.Second),
		MaxMessageSize:      16 * MiB,
		DefaultQueueType:    "classic",
		ConsumerTimeout:     Duration(30 * time.Minute),
		ServerProperties:    ServerProperties{Product: "RabbitMQ", Version: "3.13.7", Extra: map[string]string{}},
		Auth: Auth{
			Mechanisms:          []string{"PLAIN", "AMQPLAIN", "EXTERNAL"},
			LoopbackUsers:       []string{"guest"},
			DefaultUser:         "guest",
			DefaultPass:         "guest",
			DefaultUserTags:     []string{"administrator"},
			DefaultVHost:        "/",
			DefaultPermissions:  Permissions{Configure: ".*", Write: ".*", Read: ".*"},
			SSLCertLoginFrom:    "common_name",
			SSLCertLoginSANType: "dns",
		},
		Limits: Limits{
			MaxHandshakes:          256,
			MaxHandshakesPerIP:     32,
			MaxFailedLogins:        10,
			MaxConsumersPerChannel: 1000,
			MaxVHosts:              1000,
			MaxQueues:              100_000,
			MaxExchanges:           100_000,
			MaxBindings:            500_000,
			Outbox:                 8 * MiB,
		},
		VMMemoryHighWatermark: Watermark{Share: 0.6},
		DiskFreeLimit:         Auto,
		Storage: Storage{
			JournalSegment: 64 * MiB,
			JournalMax:     512 * MiB,
			CommitBudget:   16 * MiB,
			MessageMemory:  Auto,
		},
		Management: Management{Listen: "127.0.0.1:15672", TLS: TLS{MinVersion: "1.2"}, Socket: "auto"},
		Metrics:    Metrics{Listen: "auto"},
	}
}

// ManagementSocket is the path of the socket of the management API: the setting, or management.sock in the data
// directory. "" is none.
func (c *Config) ManagementSocket() string {
	if c.Management.Socket == "auto" {
		return filepath.Join(c.DataDir, "management.sock")
	}
	return c.Management.Socket
}

// Password returns the default user's password, from its file if one is set; the newline at the end of
// the file does not belong to it.
func (a *Auth) Password() (Secret, error) {
	if a.DefaultPassFile == "" {
		return a.DefaultPass, nil
	}
	b, err := readFile(a.DefaultPassFile, 4<<10)
	if err != nil {
		return "", err
	}
	return Secret(strings.TrimRight(string(b), "\r\n")), nil
}

// DefaultDataDir is where the system keeps such data: /var/lib/settmq for root, otherwise
// $XDG_DATA_HOME/settmq or ~/.local/share/settmq; on macOS and Windows the user's application data. It
// is an error when the environment names no home directory.
func DefaultDataDir() (string, error) {
	if runtime.GOOS == "windows" || runtime.GOOS == "darwin" {
		dir, err := os.UserConfigDir() // %AppData%, ~/Library/Application Support
		return filepath.Join(dir, "settmq"), err
	}
	if os.Geteuid() == 0 {
		return "/var/lib/settmq", nil
	}
	// The XDG rules: a relative path is to be ignored.
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "settmq"), nil
	}
	home, err := os.UserHomeDir()
	return filepath.Join(home, ".local", "share", "settmq"), err
}

// Node is the broker's name: NodeName, or settmq@ and the first part of the host's name.
func (c *Config) Node() string {
	if c.NodeName != "" {
		return c.NodeName
	}
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "localhost"
	}
	host, _, _ = strings.Cut(host, ".")
	return "settmq@" + host
}
