package config

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"
)

const example = "../config.example.yaml"

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "settmq.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExampleFileEqualsTheDefaults(t *testing.T) {
	b, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, Default()) {
		t.Errorf("example:\n%#v\ndefaults:\n%#v", got, Default())
	}
	// Parse starts from the defaults, so what the file leaves out would go unnoticed above. Start from
	// nothing: every value must come from the file.
	var bare Config
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&bare); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(&bare, Default()) {
		t.Errorf("example alone:\n%#v\ndefaults:\n%#v", bare, Default())
	}
}

// Zero values (false, "", 0) would slip through the comparison of values: look for the keys too.
func TestExampleFileNamesEveryKey(t *testing.T) {
	b, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	if err := yaml.Unmarshal(b, &tree); err != nil {
		t.Fatal(err)
	}
	var walk func(path string, typ reflect.Type, at any)
	walk = func(path string, typ reflect.Type, at any) {
		m, _ := at.(map[string]any)
		for i := range typ.NumField() {
			f := typ.Field(i)
			key := f.Tag.Get("yaml")
			if key == "" {
				t.Errorf("%s.%s has no yaml key", typ, f.Name)
			}
			value, ok := m[key]
			if !ok {
				t.Errorf("%s%s is not in the example", path, key)
			}
			if f.Type.Kind() == reflect.Struct && !reflect.PointerTo(f.Type).Implements(reflect.TypeFor[yaml.Unmarshaler]()) {
				walk(path+key+".", f.Type, value)
			}
		}
	}
	walk("", reflect.TypeFor[Config](), tree)
	// The TLS keys can only stand in a comment: there is no TLS listener by default.
	for i := range reflect.TypeFor[TLS]().NumField() {
		key := reflect.TypeFor[TLS]().Field(i).Tag.Get("yaml")
		if !bytes.Contains(b, []byte("#     "+key+": ")) {
			t.Errorf("tls.%s is not in the example's comment", key)
		}
	}
}

// What the comment shows must be a working listener once the marks are taken away.
func TestExampleTLSCommentParses(t *testing.T) {
	b, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(b)) {
		switch {
		case strings.HasPrefix(line, "  # - address"), strings.HasPrefix(line, "  #   "):
			lines = append(lines, "  "+strings.TrimPrefix(line, "  # "))
		}
	}
	c, err := Parse([]byte("listeners:\n" + strings.Join(lines, "")))
	if err != nil {
		t.Fatal(err)
	}
	want := []Listener{{Address: ":5671", TLS: &TLS{Cert: "server.pem", Key: "server-key.pem", CA: "clients.pem", MinVersion: "1.2"}}}
	if !reflect.DeepEqual(c.Listeners, want) {
		t.Errorf("listeners are %+v", c.Listeners)
	}
}

func TestDefaultsAreValidAndWritable(t *testing.T) {
	c := Default()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	c.Auth.DefaultPass = ""
	b, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(b)
	if err != nil {
		t.Fatalf("%v in\n%s", err, b)
	}
	got.Auth.DefaultPass = "" // written as [hidden]
	if !reflect.DeepEqual(got, c) {
		t.Errorf("came back as %+v from\n%s", got, b)
	}
}

func TestNoFileIsTheDefaults(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", "/data")
	t.Setenv("HOME", "/home/x")
	for _, path := range []string{"", write(t, ""), write(t, "# nothing\n"), write(t, "---\n")} {
		c, err := Load(path, nil)
		if err != nil {
			t.Fatalf("%q: %v", path, err)
		}
		dir, err := DefaultDataDir()
		if err != nil {
			t.Fatal(err)
		}
		want := Default()
		want.DataDir = dir
		if !reflect.DeepEqual(c, want) {
			t.Errorf("%q: %+v", path, c)
		}
	}
}

func TestFileChangesOnlyWhatItNames(t *testing.T) {
	c, err := Load(write(t, `
listeners:
  - address: ":5672"
  - address: "[::1]:5673"
data_dir: /srv/mq
heartbeat: 30s
frame_max: 1MiB
log: {level: debug}
server_properties: {extra: {cluster_name: rabbit@here}}
auth:
  default_user: admin
  default_pass: 12345
  loopback_users: []
limits: {max_connections: 500}
vm_memory_high_watermark: 512MiB
disk_free_limit: 0
storage: {message_memory: 256MB}
default_queue_type: quorum
consumer_timeout: 1h
`), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Listeners = []Listener{{Address: ":5672"}, {Address: "[::1]:5673"}}
	want.DataDir = "/srv/mq"
	want.Heartbeat = Duration(30 * time.Second)
	want.FrameMax = MiB
	want.Log.Level = "debug"
	want.ServerProperties.Extra = map[string]string{"cluster_name": "rabbit@here"}
	want.Auth.DefaultUser, want.Auth.DefaultPass = "admin", "12345"
	want.Auth.LoopbackUsers = []string{}
	want.Limits.MaxConnections = 500
	want.VMMemoryHighWatermark = Watermark{Size: 512 * MiB}
	want.DiskFreeLimit = 0
	want.Storage.MessageMemory = 256_000_000
	want.DefaultQueueType = "quorum"
	want.ConsumerTimeout = Duration(time.Hour)
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

func TestMistakesAreReportedWithTheirLines(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"heartbeet: 10s\n", `line 1: unknown key "heartbeet"`},
		{"log:\n  level: [info]\n", "line 2: a text is needed here"},
		{"listeners:\n  - {address: x, tls: {verify_peer: 1}}\n", "line 2: true or false is needed here, not `1`"},
		{"log:\n  level: info\n  colour: red\n", `line 3: unknown key "colour"`},
		{"listeners:\n  - adress: x\n", `line 2: unknown key "adress"`},
		{"heartbeat: 10\n", `line 1: "10" is not a duration such as 10s`},
		{"heartbeat: -1s\n", `line 1: "-1s" is not a duration such as 10s`},
		{"heartbeat: [1s]\n", "line 1: a single value is needed here"},
		{"\nframe_max: 1 furlong\n", `line 2: size "1 furlong": unknown unit "furlong", use KiB, MiB, GiB, kB, MB or GB`},
		{"frame_max: 1.5MiB\n", `line 1: "1.5MiB" is not a size such as 64MiB`},
		{"disk_free_limit: lots\n", `line 1: "lots" is not a size such as 64MiB, or auto`},
		{"vm_memory_high_watermark: 0.6.1\n", `line 1: "0.6.1" is neither a share such as 0.6 nor a size such as 4GiB`},
		{"channel_max: many\n", `line 1: "many" is not a whole number`},
		{"channel_max: 1.5\n", `line 1: "1.5" is not a whole number`},
		{"listeners: 5672\n", "line 1: a list is needed here, not `5672`"},
		{"log: debug\n", "line 1: a group of keys is needed here, not `debug`"},
		{"auth:\n  default_pass: {a: secret}\n", "line 2: a single value is needed here"},
		{"heartbeat: 1s\nheartbeat: 2s\n", `line 2: mapping key "heartbeat" already defined at line 1`},
		{"log: {level: info\n", "did not find expected"},
		{"heartbeat: 1s\n---\nheartbeat: 2s\n", "more than one YAML document"},
		{"heartbeat: 1s\n...\n}\n", "did not find expected"},
		{"- a\n- b\n", "line 1: a group of keys is needed here"},
	} {
		path := write(t, tc.text)
		_, err := Load(path, nil)
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), path+": ") {
			t.Errorf("%q:\n  got  %v\n  want %s", tc.text, err, tc.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("a secret is in the error: %v", err)
		}
	}
}

func TestAllMistakesAreReportedAtOnce(t *testing.T) {
	path := write(t, "heartbeet: 10s\nframe_max: x\nchannel_max: y\n")
	_, err := Load(path, nil)
	if err == nil {
		t.Fatal("no error")
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d lines: %v", len(lines), err)
	}
	for _, line := range lines {
		if !strings.HasPrefix(line, path+": line ") {
			t.Errorf("line %q does not name file and line", line)
		}
	}
}

func TestValidateNamesEveryProblemByPath(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 256)
	for _, tc := range []struct {
		change func(*Config)
		want   string // path and the start of the reason
	}{
		{func(c *Config) { c.Listeners = nil }, "listeners: at least one"},
		{func(c *Config) { c.Listeners[0].Address = "localhost" }, `listeners[0].address: "localhost" is not host:port`},
		{func(c *Config) { c.Listeners[0].Address = ":70000" }, `listeners[0].address: ":70000" is not`},
		{func(c *Config) { c.Listeners[0].Address = ":amqp" }, `listeners[0].address: ":amqp" is not`},
		{func(c *Config) { c.Listeners = append(c.Listeners, c.Listeners[0]) }, "listeners[1].address: 127.0.0.1:5672 is listed twice"},
		{func(c *Config) { c.Listeners[0].TLS = &TLS{Key: empty} }, "listeners[0].tls.cert: is not set"},
		{func(c *Config) { c.Listeners[0].TLS = &TLS{Cert: empty} }, "listeners[0].tls.key: is not set"},
		{func(c *Config) { c.Listeners[0].TLS = &TLS{Cert: dir + "/no", Key: empty} }, "listeners[0].tls.cert: " + dir + "/no: no such file"},
		{func(c *Config) { c.Listeners[0].TLS = &TLS{Cert: dir, Key: empty} }, "listeners[0].tls.cert: " + dir + ": is a directory"},
		{func(c *Config) { c.Listeners[0].TLS = &TLS{Cert: empty, Key: empty, VerifyPeer: true} }, "listeners[0].tls.ca: is not set"},
		{func(c *Config) { c.Listeners[0].TLS = &TLS{Cert: empty, Key: empty, FailIfNoPeerCert: true} }, "listeners[0].tls.fail_if_no_peer_cert: needs verify_peer"},
		{func(c *Config) { c.Listeners[0].TLS = &TLS{Cert: empty, Key: empty, MinVersion: "1.1"} }, `listeners[0].tls.min_version: "1.1" is not one of`},
		{func(c *Config) { c.ShutdownTimeout = 0 }, "shutdown_timeout: 0s is not within"},
		{func(c *Config) { c.Log.Level = "loud" }, `log.level: "loud" is not one of debug, info, warn, error`},
		{func(c *Config) { c.DefaultQueueType = "fast" }, `default_queue_type: "fast" is not one of classic, quorum, stream`},
		{func(c *Config) { c.ConsumerTimeout = -1 }, `consumer_timeout: -1ns, it is 0s to`},
		{func(c *Config) { c.Log.Format = "xml" }, `log.format: "xml" is not one of`},
		{func(c *Config) { c.Heartbeat = Duration(1500 * time.Millisecond) }, "heartbeat: 1.5s is not a whole number"},
		{func(c *Config) { c.Heartbeat = Duration(65536 * time.Second) }, "heartbeat: 18h12m16s is not"},
		{func(c *Config) { c.FrameMax = 4095 }, "frame_max: 4095 is not within 4KiB to 16MiB"},
		{func(c *Config) { c.InitialFrameMax = 2 * MiB }, "initial_frame_max: 2MiB is not within 4KiB to 1MiB"},
		{func(c *Config) { c.ChannelMax = 0 }, "channel_max: 0 is not within 1 to 65535"},
		{func(c *Config) { c.ChannelMax = 65536 }, "channel_max: 65536 is not"},
		{func(c *Config) { c.HandshakeTimeout = 0 }, "handshake_timeout: 0s is not"},
		{func(c *Config) { c.TLSHandshakeTimeout = Duration(time.Hour) }, "tls_handshake_timeout: 1h0m0s is not"},
		{func(c *Config) { c.MaxMessageSize = 512*MiB + 1 }, "max_message_size: 536870913 is not within 1 to 512MiB"},
		{func(c *Config) { c.ServerProperties.Product = "" }, "server_properties.product: a name has"},
		{func(c *Config) { c.ServerProperties.Version = long }, "server_properties.version: a name has"},
		{func(c *Config) { c.ServerProperties.Extra["capabilities"] = "x" }, "server_properties.extra.capabilities: cannot be set"},
		{func(c *Config) { c.ServerProperties.Extra["100%d"] = strings.Repeat("x", 3000) }, "server_properties.extra: 3005 bytes of names"},
		{func(c *Config) { c.ServerProperties.Extra[strings.Repeat("%d", 80)] = "x" }, "server_properties.extra." + strings.Repeat("%d", 80) + ": a name has"},
		{func(c *Config) { c.Auth.Mechanisms = nil }, "auth.mechanisms: at least one"},
		{func(c *Config) { c.Auth.Mechanisms[1] = "plain" }, `auth.mechanisms[1]: "plain" is not one of`},
		{func(c *Config) { c.Auth.Mechanisms[1] = "PLAIN" }, "auth.mechanisms[1]: PLAIN is listed twice"},
		{func(c *Config) { c.Auth.LoopbackUsers = []string{"a", ""} }, "auth.loopback_users[1]: a name has"},
		{func(c *Config) { c.Auth.DefaultUser = long }, "auth.default_user: a name has"},
		{func(c *Config) { c.Auth.DefaultPass = "" }, "auth.default_pass: an empty password"},
		{func(c *Config) { c.Auth.DefaultPassFile = empty }, "auth.default_pass_file: is empty"},
		{func(c *Config) { c.Auth.DefaultPassFile = dir + "/no" }, "auth.default_pass_file: no such file"},
		{func(c *Config) { c.Auth.DefaultVHost = "" }, "auth.default_vhost: a name has"},
		{func(c *Config) { c.Auth.SSLCertLoginFrom = "cn" }, `auth.ssl_cert_login_from: "cn" is not one of`},
		{func(c *Config) { c.Auth.SSLCertLoginSANType = "" }, `auth.ssl_cert_login_san_type: "" is not one of`},
		{func(c *Config) { c.Auth.SSLCertLoginSANIndex = -1 }, "auth.ssl_cert_login_san_index: -1 is not"},
		{func(c *Config) { c.LoadDefinitions = dir + "/no.json" }, "load_definitions: " + dir + "/no.json: no such file"},
		{func(c *Config) { c.Limits.MaxConnections = -1 }, "limits.max_connections: -1 is not"},
		{func(c *Config) { c.Limits.MaxHandshakes = 0 }, "limits.max_handshakes: 0 is not"},
		{func(c *Config) { c.Limits.MaxHandshakesPerIP = 0 }, "limits.max_handshakes_per_ip: 0 is not"},
		{func(c *Config) { c.Limits.MaxConsumersPerChannel = 0 }, "limits.max_consumers_per_channel: 0 is not"},
		{func(c *Config) { c.Limits.MaxVHosts = -1 }, "limits.max_vhosts: -1"},
		{func(c *Config) { c.Limits.MaxQueues = -1 }, "limits.max_queues: -1"},
		{func(c *Config) { c.Limits.MaxExchanges = -1 }, "limits.max_exchanges: -1"},
		{func(c *Config) { c.Limits.MaxBindings = -1 }, "limits.max_bindings: -1"},
		{func(c *Config) { c.Limits.Outbox = 0 }, "limits.outbox: 0 is not within 64KiB to 1GiB"},
		{func(c *Config) { c.VMMemoryHighWatermark = Watermark{Share: 1.5} }, "vm_memory_high_watermark: 1.5 is neither"},
		{func(c *Config) { c.VMMemoryHighWatermark = Watermark{} }, "vm_memory_high_watermark: 0 is neither"},
		{func(c *Config) { c.Storage.JournalSegment = 1 }, "storage.journal_segment: 1 is not within 1MiB to 1GiB"},
		{func(c *Config) { c.Storage.JournalMax = 100 * MiB }, "storage.journal_max: 100MiB is not within 128MiB to"},
		{func(c *Config) { c.Storage.CommitBudget = 1 }, "storage.commit_budget: 1 is not"},
		{func(c *Config) { c.Debug.Pprof = ":6060" }, `debug.pprof: ":6060" is not host:port of a loopback address`},
		{func(c *Config) { c.Debug.Pprof = "192.0.2.1:6060" }, `debug.pprof: "192.0.2.1:6060" is not host:port of a loopback address`},
		{func(c *Config) { c.Storage.MessageMemory = 1 }, "storage.message_memory: 1 is less than 1MiB"},
	} {
		c := Default()
		tc.change(c)
		err := c.Validate()
		if err == nil || !strings.HasPrefix(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("got  %v\nwant %s", err, tc.want)
		}
	}
}

func TestValidateReportsEveryProblem(t *testing.T) {
	c := Default()
	c.FrameMax, c.ChannelMax, c.Log.Level, c.Listeners = 1, 0, "", nil
	err := c.Validate()
	if err == nil || strings.Count(err.Error(), "\n") != 3 {
		t.Errorf("got %v", err)
	}
}

func TestPasswordFileReplacesPassword(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pass")
	if err := os.WriteFile(path, []byte(" s3cret \r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := Auth{DefaultPass: "other", DefaultPassFile: path}
	got, err := a.Password()
	if err != nil || string(got) != " s3cret " {
		t.Errorf("password %q, %v", string(got), err)
	}
	for _, shown := range []string{fmt.Sprint(got), fmt.Sprintf("%v %+v %#v %s", got, a, a, got)} {
		if strings.Contains(shown, "s3cret") || strings.Contains(shown, "other") {
			t.Errorf("shown: %s", shown)
		}
	}
}

func TestDefaultDataDirFollowsTheSystem(t *testing.T) {
	if os.Geteuid() == 0 {
		if dir, err := DefaultDataDir(); err != nil || dir != "/var/lib/settmq" {
			t.Errorf("root: %q, %v", dir, err)
		}
		return
	}
	t.Setenv("HOME", "/home/x")
	for xdg, want := range map[string]string{"": "/home/x/.local/share/settmq", "rel": "/home/x/.local/share/settmq", "/d": "/d/settmq"} {
		t.Setenv("XDG_DATA_HOME", xdg)
		if dir, err := DefaultDataDir(); err != nil || dir != want {
			t.Errorf("XDG_DATA_HOME=%q: %q, %v", xdg, dir, err)
		}
	}
}

func TestTooLargeFileIsRefused(t *testing.T) {
	path := write(t, strings.Repeat("#", maxFile+1))
	if _, err := Load(path, nil); err == nil || !strings.Contains(err.Error(), "larger than 1MiB") {
		t.Errorf("got %v", err)
	}
	if _, err := Load(path+"x", nil); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("got %v", err)
	}
}
