package integration

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write the table of known differences into README.md")

var errOpen = errors.New("the connection stays open after a connection exception")

// difference is a behaviour in which SettMQ deliberately differs from some RabbitMQ.
type difference struct {
	id string
	// rabbit and settmq say what each does, why says why SettMQ does not follow.
	rabbit, settmq, why string
	// shown tells whether a broker behaves as the column "RabbitMQ" says. A RabbitMQ that is
	// older, or configured otherwise, may behave as SettMQ does.
	shown func(target) bool
}

// differences is the whole list. A test that depends on an entry asks differs.
var differences = []difference{
	{
		id:     "transient-queues",
		rabbit: "refuses a queue that is neither durable nor exclusive with 541 where this deprecated feature is not permitted",
		settmq: "declares it; it is gone after a restart",
		why:    "Celery, amqplib and many others declare such queues; nothing in them is hard to serve",
		shown:  func(b target) bool { return b.transientRefused },
	},
	{
		id:     "global-qos",
		rabbit: "4.3 and later treat basic.qos with global=true as global=false, unless the deprecated feature is permitted",
		settmq: "one limit for all consumers of the channel, changeable while they consume",
		why:    "clients that change their prefetch at run time depend on it",
		shown:  func(b target) bool { return b.globalQosIgnored },
	},
	{
		id:     "topic-wildcards",
		rabbit: "4.3.5 and later refuse binding keys with more than two # words with 406",
		settmq: "accepts them",
		why:    "the cost of matching is bounded by words times trie nodes, whatever the keys are",
		shown:  func(b target) bool { return b.atLeast(4, 3, 5) },
	},
	{
		id:     "header-order",
		rabbit: "4.0 and later deliver the fields of the header table sorted by name",
		settmq: "delivers the table as it was published, byte for byte",
		why:    "a signature over the headers stays valid, and nothing is decoded that need not be",
		shown:  func(b target) bool { return b.atLeast(4, 0, 0) },
	},
	{
		id:     "stream-consumer-arguments",
		rabbit: "closes the connection with 541 for an x-stream-offset that is neither an integer, a timestamp nor a string; ignores an x-stream-filter or x-stream-match-unfiltered of a wrong type",
		settmq: "refuses them with 406",
		why:    "who asks for a filter and gets everything finds out late",
		shown:  func(target) bool { return true },
	},
	{
		id:     "cancel-ok",
		rabbit: "closes the connection with 541 when a client answers the broker's basic.cancel with basic.cancel-ok",
		settmq: "ignores the answer",
		why:    "the answer is needless, not harmful",
		shown:  func(target) bool { return true },
	},
	{
		id:     "transient-exchanges",
		rabbit: "4.2 and later keep exchanges that are not durable over the restart of a single node",
		settmq: "they are gone after a restart",
		why:    "that is what not durable means in the protocol",
		shown:  func(b target) bool { return b.atLeast(4, 2, 0) },
	},
	{
		id:     "frame-max-minimum",
		rabbit: "4.1 and later drop the connection of a client that asks for a frame_max under 8192",
		settmq: "accepts 4096, the minimum of the protocol",
		why:    "amqplib before 0.10.7 and other clients ask for 4096",
		shown:  func(b target) bool { return b.atLeast(4, 1, 0) },
	},
	{
		id:     "protocol-header",
		rabbit: "4.0 and later answer an unknown protocol header with that of AMQP 1.0 with SASL",
		settmq: "answers with that of AMQP 0-9-1",
		why:    "the answer names a protocol that the server speaks",
		shown:  func(b target) bool { return b.atLeast(4, 0, 0) },
	},
	{
		id:     "tune-refusal",
		rabbit: "drops TCP three seconds after a connection.tune-ok outside of the limits",
		settmq: "sends connection.close 530 with the reason",
		why:    "the developer of the client sees what is wrong",
		shown:  func(target) bool { return true },
	},
	{
		id:     "tune-zero",
		rabbit: "refuses a connection.tune-ok with 0, no limit, where it proposed a limit",
		settmq: "takes 0 for its proposal",
		why:    "a client that sets no limit of its own accepts the broker's",
		shown:  func(target) bool { return true },
	},
	{
		id:     "exclusive-release",
		rabbit: "4.0 and later may answer connection.close a moment before the exclusive queues are gone",
		settmq: "they are gone before connection.close-ok",
		why:    "a client that reconnects can declare them again at once",
		shown:  func(b target) bool { return b.atLeast(4, 0, 0) },
	},
	{
		id:     "quorum-prefetch",
		rabbit: "gives a consumer of a quorum queue 2000 messages if it has no prefetch",
		settmq: "sets no limit",
		why:    "0 is no limit for every other queue; memory is bounded in other ways",
		shown:  func(target) bool { return true },
	},
	{
		id:     "quorum-returns",
		rabbit: "hands out what came back to a quorum queue before everything else, in the order in which it came back",
		settmq: "puts it back to its old place in its priority",
		why:    "order is kept where it can be, as in classic queues",
		shown:  func(target) bool { return true },
	},
	{
		id:     "classic-queue-arguments",
		rabbit: "4.3 refuses x-delivery-limit, x-dead-letter-strategy, x-delayed-retry-* and x-consumer-timeout for classic queues",
		settmq: "serves them for classic queues as for quorum queues",
		why:    "poison messages and lost dead letters are no matter of replication",
		shown:  func(target) bool { return true },
	},
	{
		id:     "expiry-in-place",
		rabbit: "expires a message only when it has come to the head of its queue",
		settmq: "expires it when its time has come, wherever it is",
		why:    "a short expiration behind a long one is an old complaint; retries with growing delays need no queue for each delay",
		shown:  func(target) bool { return true },
	},
	{
		id:     "dead-letter-redelivered",
		rabbit: "4.0 and later may set redelivered on the first delivery of a message that was rejected in another queue",
		settmq: "sets it only when this queue has handed the message out before",
		why:    "in RabbitMQ it depends on whether a consumer waits; x-death tells what happened before",
		shown:  func(b target) bool { return b.atLeast(4, 0, 0) },
	},
	{
		id:     "gets-in-global-qos",
		rabbit: "counts what basic.get has outstanding when a global prefetch is set first, and goes on counting it after the ack",
		settmq: "counts what consumers have",
		why:    "a count that never ends stops the consumer",
		shown:  func(target) bool { return true },
	},
	{
		id:     "quorum-length-bytes",
		rabbit: "counts headers and other properties of messages in x-max-length-bytes of quorum queues",
		settmq: "counts bodies, as in classic queues",
		why:    "that is what is documented, and what a publisher can count",
		shown:  func(b target) bool { return b.atLeast(4, 0, 0) },
	},
	{
		id:     "quorum-argument-values",
		rabbit: "takes any value for x-delivery-limit and x-delayed-retry-* and ignores bad ones",
		settmq: "refuses them with 406",
		why:    "who misspells a limit and gets none finds out late",
		shown:  func(target) bool { return true },
	},
	{
		id:     "no-ack-in-global-qos",
		rabbit: "holds consumers without acknowledgement back, too, when the global prefetch of their channel is used up",
		settmq: "delivers to them: they have nothing that counts",
		why:    "the protocol says that a prefetch does not concern them",
		shown:  func(b target) bool { return !b.globalQosIgnored },
	},
	{
		id:     "policy-overflow",
		rabbit: "a policy with a limit and reject-publish drops what is in the queue beyond the limit, as if it were drop-head",
		settmq: "leaves it there, and refuses what comes",
		why:    "reject-publish is chosen so that nothing is dropped",
		shown:  func(target) bool { return true },
	},
	{
		id:     "history-through-exchanges",
		rabbit: "x-recent-history sends its messages to an exchange that is bound to it the newest first",
		settmq: "sends them the oldest first, as to a queue",
		why:    "the order of a history is that in which it happened",
		shown:  func(target) bool { return true },
	},
}

func (b target) atLeast(major, minor, patch int) bool {
	var have [3]int
	for i, s := range strings.SplitN(b.version, ".", 3) {
		have[i], _ = strconv.Atoi(strings.TrimFunc(s, func(r rune) bool { return r < '0' || r > '9' }))
	}
	want := [3]int{major, minor, patch}
	for i := range have {
		if have[i] != want[i] {
			return have[i] > want[i]
		}
	}
	return true
}

// differs tells whether the broker under test behaves as RabbitMQ in this entry, and SettMQ
// does not. SettMQ never does, or the entry would not be in the list.
func differs(t testing.TB, id string) bool {
	t.Helper()
	for _, d := range differences {
		if d.id == id {
			return !sut.settmq && d.shown(sut)
		}
	}
	t.Fatalf("no known difference %q", id)
	return false
}

// needs skips a test of what SettMQ does and the broker at hand does not.
func needs(t testing.TB, id string) {
	t.Helper()
	if differs(t, id) {
		t.Skipf("known difference %q", id)
	}
}

const (
	tableStart = "<!-- differences: written by go test -run TestDifferencesInReadme -rewrite -->\n"
	tableEnd   = "<!-- end of differences -->\n"
)

func renderDifferences() []byte {
	var b bytes.Buffer
	b.WriteString(tableStart)
	b.WriteString("| id | RabbitMQ | SettMQ | why |\n| --- | --- | --- | --- |\n")
	for _, d := range differences {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", d.id, d.rabbit, d.settmq, d.why)
	}
	b.WriteString(tableEnd)
	return b.Bytes()
}

func TestDifferencesInReadme(t *testing.T) {
	old, err := os.ReadFile("README.md")
	must(t, err)
	start, end := bytes.Index(old, []byte(tableStart)), bytes.Index(old, []byte(tableEnd))
	if start < 0 || end < start {
		t.Fatal("README.md has lost the markers around the table of differences")
	}
	end += len(tableEnd)
	table := renderDifferences()
	if bytes.Equal(old[start:end], table) {
		return
	}
	if !*rewrite {
		t.Fatal("the table in README.md is stale; run go test ./integration -run TestDifferencesInReadme -rewrite")
	}
	must(t, os.WriteFile("README.md", bytes.Join([][]byte{old[:start], table, old[end:]}, nil), 0o644))
}
