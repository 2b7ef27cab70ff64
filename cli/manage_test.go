package cli

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/settmq/settmq/internal/testbroker"
)

// brokerHere starts a broker and makes it the one that commands go to.
func brokerHere(t *testing.T) *testbroker.Broker {
	t.Helper()
	b := testbroker.Start(t, testbroker.Options{})
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv("SETTMQ_SOCKET", filepath.Join(b.DataDir(), "management.sock"))
	t.Setenv("AMQP_URL", b.URL())
	return b
}

// Every line is a command with what it prints, its exit code, and what it says on standard error.
func TestCommandsThatManage(t *testing.T) {
	brokerHere(t)
	for _, c := range []struct {
		line, stdin string
		code        int
		want        string // standard output, whole; a leading ~ makes it a regular expression
		says        string // in standard error
	}{
		{line: "health", want: "ok\n"},
		{line: "health --live", want: "ok\n"},
		{line: "status", want: `~(?s)node +settmq@.*queues +0\n.*version +SettMQ .*, as RabbitMQ 3\.13\.7\n`},
		{line: "queues", want: "NAME  VHOST  TYPE  STATE  MESSAGES_READY  MESSAGES_UNACKNOWLEDGED  MESSAGES  CONSUMERS  POLICY\n"},
		{line: "queues -o json", want: "[]\n"},
		{line: "vhosts declare prod --description orders --tags a,b", want: "vhost \"prod\" is there\n"},
		{line: "vhosts declare prod --tracing", want: "vhost \"prod\" is there\n"},
		{line: "vhosts list -o csv --columns name,description,tags,tracing --sort -name", want: "name,description,tags,tracing\nprod,orders,\"a,b\",true\n/,,,false\n"},
		{line: "queues declare q1 -p prod --type quorum -a x-max-length=7", want: "queue \"q1\" is there\n"},
		{line: "queues declare q1 -p prod --type classic", code: ExitRefused, says: "inequivalent arg"},
		{line: "queues declare q2 -p nope", code: ExitRefused, says: `there is no vhost "nope"`},
		{line: "queues -p prod --columns name,type,arguments.x-max-length", want: "NAME  TYPE    X-MAX-LENGTH\nq1    quorum             7\n"},
		{line: "queues list -p prod -o name", want: "q1\n"},
		{line: "queues list --match ^x -o name", want: ""},
		{line: "queues list -p nope", code: ExitRefused, says: `there is no vhost "nope"`},
		{line: "queues show q1 -p prod", want: `~arguments\.x-max-length +7\n`},
		{line: "queues show q1", code: ExitRefused, says: `there is no queue "q1" in vhost "/"`},
		{line: "exchanges declare ev -p prod", code: ExitUsage, says: "needs --type"},
		{line: "exchanges declare ev -p prod --type topic", want: "exchange \"ev\" is there\n"},
		{line: "exchanges -p prod --match ev -o csv --columns name,type,durable", want: "name,type,durable\nev,topic,true\n"},
		{line: "bindings declare ev q1 -p prod --key a.# -a n=1", want: "\"q1\" is bound to \"ev\"\n"},
		{line: "bindings declare nope q1 -p prod", code: ExitRefused, says: `there is no exchange "nope"`},
		{line: "bindings -p prod --match ev -o csv --columns source,destination,routing_key,arguments", want: "source,destination,routing_key,arguments\nev,q1,a.#,\"{\"\"n\"\":1}\"\n"},
		{line: "bindings delete ev q1 -p prod --key a.#", code: ExitRefused, says: "there is no such binding"},
		{line: "bindings delete ev q1 -p prod --key a.# -a n=1", want: "\"q1\" is no longer bound to \"ev\"\n"},
		{line: "users declare app", code: ExitUsage, says: "needs --new-password-file"},
		{line: "users declare app --new-password-file - --tags monitoring", stdin: "s3cret\n", want: "user \"app\" is there; settmq permissions set gives rights in a vhost\n"},
		{line: "users declare app --tags monitoring,policymaker", want: "user \"app\" changed\n"},
		{line: "users -o csv", want: "name,tags\napp,\"monitoring,policymaker\"\nguest,administrator\n"},
		{line: "permissions set app -p prod --write ^a", want: "permissions of \"app\" in \"prod\" are set\n"},
		{line: "permissions -o csv --match app", want: "user,vhost,configure,write,read\napp,prod,.*,^a,.*\n"},
		{line: "permissions set nobody -p prod", code: ExitRefused, says: "user"},
		{line: "permissions delete app -p prod", want: "\"app\" may do nothing in \"prod\"\n"},
		{line: `policies declare p -p prod --pattern ^q --definition {"max-length":5}`, want: "policy \"p\" is set\n"},
		{line: `policies declare p -p prod --pattern ^q --definition {`, code: ExitUsage, says: "no JSON object"},
		{line: `policies declare p -p prod --pattern ^q --definition {"nonsense":5}`, code: ExitRefused, says: "nonsense"},
		{line: "policies -o csv", want: "name,vhost,pattern,apply-to,definition,priority\np,prod,^q,all,\"{\"\"max-length\"\":5}\",0\n"},
		{line: "policies --operator -o name", want: ""},
		{line: "policies delete p -p prod", want: "policy \"p\" deleted\n"},
		{line: "policies delete p -p prod", code: ExitRefused, says: `there is no policy "p"`},
		{line: "queues purge q1 -p prod", want: "queue \"q1\" purged\n"},
		{line: "queues delete q1 -p prod --if-empty", code: ExitRefused, says: "not supported by quorum queues"},
		{line: "queues delete q1 -p prod", want: "queue \"q1\" deleted\n"},
		{line: "queues delete q1 -p prod", code: ExitRefused, says: `there is no queue "q1"`},
		{line: "exchanges delete ev -p prod", want: "exchange \"ev\" deleted\n"},
		{line: "definitions export", want: `~"name":"prod"`},
		{line: "definitions import", stdin: `{"vhosts":[{"name":"more"}]}`, want: "definitions imported\n"},
		{line: "definitions import", stdin: "no", code: ExitFailed, says: "no JSON"},
		{line: "vhosts -o name", want: "/\nmore\nprod\n"},
		{line: "vhosts delete more", want: "vhost \"more\" deleted\n"},
		{line: "vhosts delete more", code: ExitRefused, says: `there is no vhost "more"`},
		{line: "users delete app", want: "user \"app\" deleted\n"},
		{line: "queues -o xml", code: ExitUsage, says: "none of table, json, csv, name"},
		{line: "queues --match (", code: ExitUsage, says: "--match"},
		{line: "queues lst", code: ExitUsage, says: `unknown command "lst", did you mean list?`},
		{line: "rabbitmqctl -q list_vhosts", want: "name\n/\nprod\n"},
		{line: "rabbitmqctl delete_vhost nope", code: 65, want: "Deleting vhost \"nope\" ...\n", says: "Virtual host 'nope' does not exist"},
		{line: "top", want: `~(?s)^settmq@.*NAME +VHOST`},
		{line: "bench --duration 50ms --size 10", want: `~confirmed +[1-9]`},
	} {
		code, stdout, stderr := runCommand(c.stdin, strings.Fields(c.line)...)
		ok := stdout == c.want
		if pattern, yes := strings.CutPrefix(c.want, "~"); yes {
			ok = regexp.MustCompile(pattern).MatchString(stdout)
		}
		if code != c.code || !ok || !strings.Contains(stderr, c.says) || strings.Contains(stdout+stderr, "s3cret") {
			t.Errorf("%s\ncode %d, want %d\nstdout %q\nwant   %q\nstderr %q", c.line, code, c.code, stdout, c.want, stderr)
		}
	}
}

func TestPeekLeavesNoTrace(t *testing.T) {
	brokerHere(t)
	for _, line := range []string{"queues declare q", "pub --key q a b c"} {
		if code, _, stderr := runCommand("", strings.Fields(line)...); code != ExitOK {
			t.Fatalf("%s: %s", line, stderr)
		}
	}
	for range 3 {
		if code, out, stderr := runCommand("", "peek", "q", "--count", "2"); code != ExitOK || out != "a\nb\n" {
			t.Fatalf("code %d, %q, %s", code, out, stderr)
		}
	}
	for _, want := range []string{"a", "b", "c"} {
		code, out, stderr := runCommand("", "get", "q", "--ack", "--json")
		var m message
		if err := json.Unmarshal([]byte(out), &m); code != ExitOK || err != nil || m.Body == nil || *m.Body != want || m.Redelivered {
			t.Errorf("want %s: code %d, %s %s", want, code, out, stderr)
		}
	}
	if code, _, stderr := runCommand("", "peek", "q"); code != ExitEmpty || !strings.Contains(stderr, "is empty") {
		t.Errorf("code %d, %s", code, stderr)
	}
}

func TestDoctorSeesTheDefaultUser(t *testing.T) {
	brokerHere(t)
	code, out, stderr := runCommand("", "doctor", "-o", "csv")
	if code != ExitOK || !strings.Contains(out, `default user,warn,`) || !strings.Contains(out, "\nsync,") || strings.Contains(out, "sync,warn,not measured") {
		t.Errorf("code %d\n%s%s", code, out, stderr)
	}
	if code, _, _ := runCommand("x\n", "users", "declare", "guest", "--new-password-file", "-"); code != ExitOK {
		t.Fatal("the password was not changed")
	}
	if _, out, _ := runCommand("", "doctor", "-o", "csv"); !strings.Contains(out, "default user,ok,") {
		t.Error(out)
	}
}

func TestContextsNameBrokersElsewhere(t *testing.T) {
	brokerHere(t)
	asked := make(chan *http.Request, 1)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r
		fmt.Fprint(w, `[{"name":"there"}]`)
	}))
	defer other.Close()
	run := func(stdin string, code int, args ...string) string {
		t.Helper()
		got, out, stderr := runCommand(stdin, args...)
		if got != code {
			t.Fatalf("%q: code %d, %s", args, got, stderr)
		}
		return out + stderr
	}
	run("pw\n", ExitOK, "context", "set", "prod", "--url", other.URL, "--user", "ops", "--password-file", "-")
	run("", ExitUsage, "context", "set", "bad", "--url", "ftp://x")
	run("", ExitUsage, "context", "use", "nope")
	if out := run("", ExitOK, "vhosts", "-o", "name"); out != "/\n" {
		t.Errorf("without a context: %q", out)
	}
	run("", ExitOK, "context", "use", "prod")
	if out := run("", ExitOK, "vhosts", "-o", "name"); out != "there\n" {
		t.Errorf("with a context: %q", out)
	}
	if user, password, _ := (<-asked).BasicAuth(); user != "ops" || password != "pw" {
		t.Errorf("logged in as %q with %q", user, password)
	}
	if out := run("", ExitOK, "context", "list", "-o", "csv"); out != "name,current,target,user\nprod,*,"+other.URL+",ops\n" {
		t.Error(out)
	}
	// Flags win over the context, and its password goes nowhere else.
	out := run("", ExitUnreachable, "vhosts", "--url", "http://"+closedAddress(t))
	if !strings.Contains(out, "is the broker running?") || strings.Contains(out, "pw") {
		t.Error(out)
	}
	run("", ExitUsage, "vhosts", "--url", other.URL, "--context", "prod")
	file := filepath.Join(os.Getenv("XDG_CONFIG_HOME"), "settmq", "contexts.yaml")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(file, 0o644); err != nil { //nolint:gosec // that is the point
		t.Fatal(err)
	}
	if out := run("", ExitFailed, "vhosts"); !strings.Contains(out, "chmod 600") {
		t.Error(out)
	}
}

func closedAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestRefusedLoginOfTheAPIIsExplained(t *testing.T) {
	b := brokerHere(t)
	log, err := os.ReadFile(b.LogFile())
	if err != nil {
		t.Fatal(err)
	}
	url := regexp.MustCompile(`management API url=(http\S+)`).FindSubmatch(log)
	if url == nil {
		t.Fatalf("no URL in\n%s", log)
	}
	code, _, stderr := runCommand("", "queues", "--url", string(url[1]), "--user", "guest:s3cret")
	if code != ExitUnreachable || !strings.Contains(stderr, "the login was refused") || strings.Contains(stderr, "s3cret") {
		t.Errorf("code %d, %s", code, stderr)
	}
	if code, out, stderr := runCommand("", "vhosts", "-o", "name", "--url", string(url[1])); code != ExitOK || out != "/\n" {
		t.Errorf("code %d, %s%s", code, out, stderr)
	}
}

func TestConnectionsAreClosedWithAReason(t *testing.T) {
	b := brokerHere(t)
	for _, by := range []string{"name", "user"} {
		conn, err := amqp091.Dial(b.URL())
		if err != nil {
			t.Fatal(err)
		}
		closed := conn.NotifyClose(make(chan *amqp091.Error, 1))
		name := conn.LocalAddr().String() + " -> " + conn.RemoteAddr().String()
		deadline := time.Now().Add(30 * time.Second)
		for { // the list may lag behind the client
			code, out, stderr := runCommand("", "connections", "-o", "name")
			if code == ExitOK && strings.Contains(out, name) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("code %d, %s%s", code, out, stderr)
			}
		}
		line := []string{"connections", "close", "--reason", "go away", name}
		if by == "user" {
			line = append(line[:4], "--by-user", "guest")
		}
		if code, _, stderr := runCommand("", line...); code != ExitOK {
			t.Fatalf("code %d, %s", code, stderr)
		}
		select {
		case err := <-closed:
			if err == nil || !strings.Contains(err.Reason, "go away") {
				t.Errorf("by %s: the client heard %v", by, err)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("by %s: the connection was not closed", by)
		}
	}
	if code, _, stderr := runCommand("", "connections", "close", "nope"); code != ExitRefused || !strings.Contains(stderr, `there is no connection "nope"`) {
		t.Errorf("code %d, %s", code, stderr)
	}
	for _, line := range []string{"connections", "channels", "consumers"} {
		if code, out, stderr := runCommand("", line); code != ExitOK || strings.Count(out, "\n") < 1 {
			t.Errorf("%s: code %d, %s%s", line, code, out, stderr)
		}
	}
}
