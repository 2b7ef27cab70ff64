// Package checks is what the programs in this module share. They print a line per check and "N passed, N failed" at the
// end, and exit with 1 if one failed. Queues and exchanges have names of their own.
package checks

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Patience is for anything that must happen.
const Patience = 30 * time.Second

// URL is the broker's.
var URL = env("AMQP_URL", "amqp://guest:guest@localhost:5672/")

var run = rand.Text()[:8]

func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// Name is a name of this run.
func Name(hint string) string { return "clients-go-" + run + "-" + hint }

// Check is one check; Needs is a variable of the environment without which it is skipped.
type Check struct {
	Name, Needs string
	Run         func() error
}

// Run runs the checks and ends the process.
func Run(checks ...Check) {
	passed, failed := 0, 0
	for _, c := range checks {
		if c.Needs != "" && os.Getenv(c.Needs) == "" {
			fmt.Printf("skip %s: without %s\n", c.Name, c.Needs)
			continue
		}
		if err := c.Run(); err != nil {
			failed++
			fmt.Printf("FAIL %s\n%v\n", c.Name, err)
			continue
		}
		passed++
		fmt.Printf("ok   %s\n", c.Name)
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		os.Exit(1)
	}
	os.Exit(0)
}

// WithChannel gives f a connection of its own and a channel.
func WithChannel(f func(*amqp.Connection, *amqp.Channel) error) error {
	conn, err := amqp.Dial(URL)
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	return f(conn, ch)
}

// Broker does something with the broker: kill, start, block, unblock.
func Broker(verb string) error {
	if out, err := exec.Command(os.Getenv("AMQP_CTL"), verb).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", verb, err, out)
	}
	return nil
}

// Eventually tries again, after a moment, until f succeeds, for as long as Patience.
func Eventually(f func() error) error {
	end := time.Now().Add(Patience)
	for {
		err := f()
		if err == nil || time.Now().After(end) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Equal compares two values.
func Equal(got, want any) error {
	if !reflect.DeepEqual(got, want) {
		return fmt.Errorf("got %v, want %v", got, want)
	}
	return nil
}

// Next takes what comes from c.
func Next[T any](c <-chan T) (T, error) {
	select {
	case v, ok := <-c:
		if !ok {
			return v, errors.New("closed")
		}
		return v, nil
	case <-time.After(Patience):
		var none T
		return none, errors.New("what should have come did not")
	}
}
