package rabbitmqctl

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/settmq/settmq/cli/api"
	"github.com/settmq/settmq/internal/testbroker"
)

// run runs a command line of a tool on the broker whose socket is given.
func run(socket, stdin, line string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	args := split(line)
	tool := Tool{
		Name: args[0], Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs,
		Client: func() (*api.Client, error) { return api.New(api.Target{Socket: socket}) },
	}
	code = tool.Run(context.Background(), args[1:])
	return code, out.String(), errs.String()
}

func TestWithoutABrokerTheToolsSaySo(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "none")
	for _, line := range []string{
		"rabbitmqctl ping", "rabbitmqctl status", "rabbitmq-diagnostics -q check_running", "rabbitmqctl -q list_queues", "rabbitmqctl await_startup --timeout 0",
		"rabbitmqctl add_user a b", "rabbitmq-diagnostics check_port_connectivity",
	} {
		if code, _, stderr := run(socket, "", line); code != exitUnavailable || !strings.Contains(stderr, "Is the broker running?") {
			t.Errorf("%s: code %d, %s", line, code, stderr)
		}
	}
}

func TestAwaitStartupWaits(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "data", "management.sock")
	done := make(chan int, 1)
	go func() {
		code, _, _ := run(socket, "", "rabbitmqctl await_startup --timeout 60")
		done <- code
	}()
	testbroker.Start(t, testbroker.Options{Dir: dir})
	if code := <-done; code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// What cannot be done must not look as if it were.
func TestWhatHasNoMeaningIsRefused(t *testing.T) {
	socket := filepath.Join(testbroker.Start(t, testbroker.Options{}).DataDir(), "management.sock")
	for _, line := range []string{
		`rabbitmqctl eval "rabbit:status()."`, "rabbitmqctl stop_app", "rabbitmqctl join_cluster rabbit@other", "rabbitmqctl reset", "rabbitmqctl shutdown",
		"rabbitmqctl rotate_logs", "rabbitmqctl set_log_level debug", "rabbitmqctl restart_vhost", "rabbitmq-plugins disable rabbitmq_management",
		"rabbitmq-plugins enable rabbitmq_mqtt", "rabbitmqctl -n rabbit@elsewhere.example delete_vhost /", "rabbitmqctl await_online_nodes 3",
	} {
		code, stdout, stderr := run(socket, "", line)
		if code == 0 || !strings.Contains(stderr, "SettMQ") {
			t.Errorf("%s: code %d\n%s%s", line, code, stdout, stderr)
		}
	}
	// The name of the node on this machine does not matter: there is one broker.
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range []string{"rabbit", "rabbit@localhost", "any@" + host} {
		if code, _, stderr := run(socket, "", "rabbitmqctl -q -n "+node+" ping"); code != 0 {
			t.Errorf("-n %s: %s", node, stderr)
		}
	}
}

// silent is a broker that accepts and says nothing.
func silent(t *testing.T) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return socket
}

func TestTimeoutEndsACommand(t *testing.T) {
	socket := silent(t)
	code, _, stderr := run(socket, "", "rabbitmqctl -q list_users --timeout 1")
	if code != exitTempFail || !strings.Contains(stderr, "timed out") {
		t.Errorf("code %d, %s", code, stderr)
	}
	if code, _, stderr := run(socket, "", "rabbitmqctl list_users --timeout x"); code != exitUsage || !strings.Contains(stderr, "no number") {
		t.Errorf("code %d, %s", code, stderr)
	}
}

func TestDryRunChangesNothing(t *testing.T) {
	socket := filepath.Join(testbroker.Start(t, testbroker.Options{}).DataDir(), "management.sock")
	if code, out, _ := run(socket, "", "rabbitmqctl --dry-run delete_vhost /"); code != 0 || out != "Deleting vhost \"/\" ...\n" {
		t.Errorf("code %d, %s", code, out)
	}
	if _, out, _ := run(socket, "", "rabbitmqctl -s list_vhosts"); out != "/\n" {
		t.Errorf("vhosts: %q", out)
	}
}

func TestPasswordsMayComeByStandardInput(t *testing.T) {
	socket := filepath.Join(testbroker.Start(t, testbroker.Options{}).DataDir(), "management.sock")
	for _, c := range []struct {
		line, stdin string
		code        int
	}{
		{"rabbitmqctl add_user a", "s3cret\n", 0},
		{"rabbitmqctl authenticate_user a", "s3cret", 0},
		{"rabbitmqctl authenticate_user a", "wrong\n", exitData},
		{"rabbitmqctl change_password a", "", exitData},
		{"rabbitmqctl change_password a", "other\n", 0},
		{"rabbitmqctl authenticate_user a other", "", 0},
	} {
		code, stdout, stderr := run(socket, c.stdin, c.line)
		if code != c.code || strings.Contains(stdout+stderr, "s3cret") {
			t.Errorf("%s: code %d, want %d\n%s%s", c.line, code, c.code, stdout, stderr)
		}
	}
}

func TestOptionsStandAnywhere(t *testing.T) {
	for line, want := range map[string]string{
		"x list_queues -p v name":                          "list_queues name|formatter= vhost=v",
		"x -q list_queues --vhost=v --formatter json name": "list_queues name|formatter=json quiet vhost=v",
		"x add_user -- -u --p":                             "add_user -u --p|formatter=",
		"x set_policy --apply-to queues a b c":             "set_policy a b c|apply-to=queues formatter=",
		"x set_policy --apply_to=queues a b c -p v":        "set_policy a b c|apply-to=queues formatter= vhost=v",
	} {
		o, operands, unknown := parse(split(line)[1:])
		got := strings.Join(operands, " ") + "|"
		var parts []string
		for _, name := range []string{"apply-to", "formatter", "quiet", "vhost"} {
			if v, ok := o.values[name]; ok || name == "formatter" {
				if name != "quiet" {
					name += "=" + v
				}
				parts = append(parts, name)
			}
		}
		if got += strings.Join(parts, " "); got != want || len(unknown) > 0 {
			t.Errorf("%s: got %s, want %s, unknown %q", line, got, want, unknown)
		}
	}
}

func TestConnectionsAreListedAndClosed(t *testing.T) {
	b := testbroker.Start(t, testbroker.Options{})
	socket := filepath.Join(b.DataDir(), "management.sock")
	expect := func(line, want string) {
		t.Helper()
		deadline := time.Now().Add(30 * time.Second)
		for {
			code, stdout, stderr := run(socket, "", line)
			if code == 0 && stdout == want {
				return
			}
			if time.Now().After(deadline) { // what the API lists may lag behind the client
				t.Fatalf("%s: code %d, got\n%s%s\nwant\n%s", line, code, stdout, stderr, want)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	dial := func() (*amqp091.Connection, chan *amqp091.Error) {
		t.Helper()
		conn, err := amqp091.Dial(b.URL())
		if err != nil {
			t.Fatal(err)
		}
		return conn, conn.NotifyClose(make(chan *amqp091.Error, 1))
	}
	told := func(closed chan *amqp091.Error, reason string) {
		t.Helper()
		select {
		case err := <-closed:
			if err == nil || err.Code != amqp091.ConnectionForced || !strings.Contains(err.Reason, reason) {
				t.Fatalf("the client heard %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("the connection was not closed")
		}
	}
	conn, closed := dial()
	name := conn.LocalAddr().String() + " -> " + conn.RemoteAddr().String()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	q, err := ch.QueueDeclare("q", false, false, true, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ch.Consume(q.Name, "tag", false, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	expect("rabbitmqctl -q list_connections name user vhost state channels", "name\tuser\tvhost\tstate\tchannels\n"+name+"\tguest\t/\trunning\t1\n")
	expect("rabbitmqctl -s list_channels connection number user consumer_count", name+"\t1\tguest\t1\n")
	expect("rabbitmqctl -s list_consumers queue_name channel_pid consumer_tag ack_required active", "q\t"+name+" (1)\ttag\ttrue\ttrue\n")
	expect("rabbitmqctl -s list_queues name exclusive owner_pid consumers", "q\ttrue\t"+name+"\t1\n")
	expect(`rabbitmqctl -q close_connection "`+name+`" "go away"`, "")
	told(closed, "go away")
	_, closed = dial()
	expect("rabbitmqctl -s list_connections user", "guest\n")
	expect("rabbitmqctl -q close_all_connections -p / enough", "Closed 1 connections\n")
	told(closed, "enough")
}
