package integration

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/settmq/settmq/internal/testbroker"
)

// patience bounds every wait for something that must happen. It is far above what a loaded
// machine needs; only a broken broker makes a test wait that long.
const patience = 20 * time.Second

// sut is the broker under test: set by TestMain, read only afterwards.
var sut target

// target describes a running broker.
type target struct {
	url      string
	uri      amqp.URI // url in parts
	product  string
	version  string // of the product that it claims to be
	settmq   bool
	external bool // started by somebody else

	// What a RabbitMQ may be configured to refuse; probed, because the version does not tell.
	transientRefused bool // durable=false, exclusive=false queues
	globalQosIgnored bool // basic.qos(global=true) acts as global=false
}

func (b target) String() string {
	if b.settmq {
		return "SettMQ"
	}
	return b.product + " " + b.version
}

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	url, external := testbroker.External()
	if !external {
		b, err := testbroker.Launch(context.Background(), testbroker.Options{})
		if err != nil {
			fmt.Fprintln(os.Stderr, "integration: no broker to test (AMQP_URL names one that runs):", err)
			return 1
		}
		defer func() {
			var err error
			select {
			case <-b.Exited():
				err = errors.Join(errors.New("it ended by itself"), b.ExitErr())
			default:
				err = b.Stop() // a status other than 0 is a failure: so the race detector reports
			}
			if err != nil {
				fmt.Fprintf(os.Stderr, "integration: the broker ended badly: %v\n%s\n", err, b.LogTail())
				code = 1
			}
			if err := errors.Join(b.Close(), testbroker.RemoveBinary()); err != nil {
				fmt.Fprintln(os.Stderr, "integration:", err)
			}
		}()
		url = b.URL()
	}
	var err error
	if sut, err = examine(url); err != nil {
		fmt.Fprintln(os.Stderr, "integration: cannot use the broker:", err)
		return 1
	}
	sut.external = external
	fmt.Printf("integration: testing %v\n", sut)
	code = m.Run()
	admin.close()
	return code
}

// examine connects to a broker and finds out which one it is.
func examine(url string) (target, error) {
	b := target{url: url}
	var err error
	if b.uri, err = amqp.ParseURI(url); err != nil {
		return b, err
	}
	conn, err := amqp.Dial(url)
	if err != nil {
		return b, err
	}
	defer conn.Close()
	b.product, _ = conn.Properties["product"].(string)
	b.version, _ = conn.Properties["version"].(string)
	for _, key := range []string{"product", "platform", "information", "cluster_name"} {
		if s, _ := conn.Properties[key].(string); strings.Contains(strings.ToLower(s), "settmq") {
			b.settmq = true
		}
	}
	if b.globalQosIgnored, err = probeGlobalQos(conn); err != nil {
		return b, fmt.Errorf("probing basic.qos: %w", err)
	}
	b.transientRefused, err = probeTransient(url)
	return b, err
}

// probeTransient tells whether the broker refuses queues that are neither durable nor exclusive.
func probeTransient(url string) (bool, error) {
	conn, err := amqp.Dial(url)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return false, err
	}
	q, err := ch.QueueDeclare(uniqueName("probe"), false, false, false, false, nil)
	if err != nil {
		return true, nil
	}
	_, err = ch.QueueDelete(q.Name, false, false, false)
	return false, err
}

// probeGlobalQos tells whether two consumers of a channel with a global prefetch of one get a
// message each.
func probeGlobalQos(conn *amqp.Connection) (bool, error) {
	ch, err := conn.Channel()
	if err != nil {
		return false, err
	}
	defer ch.Close()
	q, err := ch.QueueDeclare("", false, false, true, false, nil)
	if err != nil {
		return false, err
	}
	if err := ch.Qos(1, 0, true); err != nil {
		return false, err
	}
	for range 2 {
		if _, err := ch.Consume(q.Name, "", false, false, false, false, nil); err != nil {
			return false, err
		}
	}
	if err := ch.Confirm(false); err != nil {
		return false, err
	}
	for range 2 {
		c, err := ch.PublishWithDeferredConfirm("", q.Name, false, false, amqp.Publishing{})
		if err != nil {
			return false, err
		}
		c.Wait()
	}
	q, err = ch.QueueDeclarePassive(q.Name, false, false, true, false, nil)
	return q.Messages == 0, err
}
