package config

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestEnvironmentGoesOnTopOfTheFile(t *testing.T) {
	path := write(t, "heartbeat: 10s\nframe_max: 64KiB\nauth: {default_user: file}\n")
	c, err := Load(path, []string{
		"HOME=/", "SETTMQ_HEARTBEAT=20s", "SETTMQ_LISTENERS=:5672, 127.0.0.1:5673", "SETTMQ_DATA_DIR=/data",
		"SETTMQ_AUTH_LOOPBACK_USERS=", "SETTMQ_AUTH_MECHANISMS=[PLAIN]", "SETTMQ_SERVER_PROPERTIES_EXTRA={cluster_name: a}",
		"SETTMQ_MESSAGE_INTERCEPTORS_INCOMING_SET_HEADER_TIMESTAMP_ENABLED=true", "SETTMQ_VM_MEMORY_HIGH_WATERMARK=0.25",
		"SETTMQ_DISK_FREE_LIMIT=1GiB", "SETTMQ_STORAGE_MESSAGE_MEMORY=auto", "SETTMQ_LIMITS_MAX_QUEUES=7",
		"RABBITMQ_DEFAULT_USER=app", "RABBITMQ_DEFAULT_PASS=[p: 1", "RABBITMQ_DEFAULT_VHOST=prod", "SETTMQ_AUTH_DEFAULT_VHOST=ours",
		"SETTMQ_CONFIG=x", "SETTMQ_SERVICE_HOST=10.0.0.1", "SETTMQ_PORT=tcp://10.0.0.1:5672", "SETTMQ_PORT_5672_TCP_ADDR=10.0.0.1",
		"SETTMQ_HEADLESS_SERVICE_PORT_AMQP=5672",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Heartbeat, want.FrameMax, want.DataDir = Duration(20*time.Second), 64*KiB, "/data"
	want.Listeners = []Listener{{Address: ":5672"}, {Address: "127.0.0.1:5673"}}
	want.Auth.LoopbackUsers, want.Auth.Mechanisms = []string{}, []string{"PLAIN"}
	want.Auth.DefaultUser, want.Auth.DefaultPass, want.Auth.DefaultVHost = "app", "[p: 1", "ours"
	want.ServerProperties.Extra = map[string]string{"cluster_name": "a"}
	want.MessageInterceptors.Incoming.SetHeaderTimestamp.Enabled = true
	want.VMMemoryHighWatermark, want.DiskFreeLimit, want.Limits.MaxQueues = Watermark{Share: 0.25}, AutoSize(GiB), 7
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got\n%#v\nwant\n%#v", c, want)
	}
	if c.Auth.DefaultPass != "[p: 1" {
		t.Error("the password was read as YAML")
	}
}

func TestWrongVariablesAreNamed(t *testing.T) {
	for variable, want := range map[string]string{
		"SETTMQ_AUTH_DEFAULT_PASSWORD=x": "there is no such setting",
		"SETTMQ_HEARTBEAT=10":            `"10" is not a duration such as 10s`,
		"SETTMQ_HEARTBEAT=":              "is not a duration",
		"SETTMQ_LIMITS_MAX_QUEUES=many":  "is not a whole number",
		"SETTMQ_LISTENERS=[{adress: x}]": `unknown key "adress"`,
		"SETTMQ_MESSAGE_INTERCEPTORS_INCOMING_SET_HEADER_TIMESTAMP_ENABLED=2": "true or false is needed here",
		"SETTMQ_SERVER_PROPERTIES_EXTRA=x":                                    "a group of keys is needed here",
		"SETTMQ_AUTH_MECHANISMS=[":                                            "environment variable SETTMQ_AUTH_MECHANISMS",
	} {
		name, _, _ := strings.Cut(variable, "=")
		if _, err := Load("", []string{variable}); err == nil || !strings.HasPrefix(err.Error(), "environment variable "+name+": ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", variable, err)
		}
	}
	if _, err := Load("", []string{"SETTMQ_CHANNEL_MAX=0"}); err == nil || err.Error() != "the environment: channel_max: 0 is not within 1 to 65535" {
		t.Errorf("a value out of bounds: %v", err)
	}
}

// A variable set to its default changes nothing: so every setting can be read back as it is listed.
func TestEveryVariableTakesItsDefault(t *testing.T) {
	var environ []string
	seen := map[string]bool{}
	for _, v := range Variables() {
		if seen[v.Name] {
			t.Errorf("%s is two settings", v.Name)
		}
		seen[v.Name] = true
		if v.Path != "server_properties.extra" {
			environ = append(environ, v.Name+"="+v.Default)
		}
	}
	c := Default()
	n, err := c.ApplyEnvironment(environ)
	if err != nil || n < 50 {
		t.Fatalf("%d settings, %v", n, err)
	}
	if !reflect.DeepEqual(c, Default()) {
		t.Errorf("got\n%#v\nwant\n%#v", c, Default())
	}
}

func TestVariablesOfRabbitMQWithoutEffectAreListed(t *testing.T) {
	got := Ignored([]string{"RABBITMQ_ERLANG_COOKIE=x", "RABBITMQ_DEFAULT_USER=u", "RABBITMQ_SERVICE_HOST=h", "A=b", "RABBITMQ_CONFIG_FILE=f"})
	if want := []string{"RABBITMQ_CONFIG_FILE", "RABBITMQ_ERLANG_COOKIE"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q", got)
	}
}
