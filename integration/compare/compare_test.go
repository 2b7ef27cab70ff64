// Package compare makes up conversations at random, holds them with two brokers and compares what these say.
package compare

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var (
	seed   = flag.Uint64("seed", uint64(time.Now().UnixNano()), "of the first conversation; the others have the following ones")
	count  = flag.Int("conversations", 100, "how many")
	last   = flag.Int("last", 1000, "lines that are printed before a difference")
	keep   = flag.String("keep", "", "folder for what the brokers said, a file for each side of a conversation")
	quorum = flag.Bool("quorum", false, "one of the queues is of this type")
	steps  = flag.Int("steps", 60, "operations in a conversation")
)

// address says where a broker is.
type address struct {
	amqp, management string // no management: no policies
}

// TestTwoBrokersSayTheSame holds every conversation with the brokers of AMQP_URL and PEER_URL, and sets policies if MGMT_URL and
// PEER_MGMT_URL are set.
func TestTwoBrokersSayTheSame(t *testing.T) {
	brokers := [2]address{{os.Getenv("AMQP_URL"), os.Getenv("MGMT_URL")}, {os.Getenv("PEER_URL"), os.Getenv("PEER_MGMT_URL")}}
	switch {
	case brokers[0].amqp == "" || brokers[1].amqp == "":
		t.Skip("AMQP_URL and PEER_URL name the two brokers to compare")
	case (brokers[0].management == "") != (brokers[1].management == ""):
		t.Fatal("of MGMT_URL and PEER_MGMT_URL only one is set")
	}
	for i := range *count {
		s := *seed + uint64(i)
		t.Run(fmt.Sprint(s), func(t *testing.T) {
			t.Parallel()
			var said [2][]string
			done := make(chan int, 2)
			for b, where := range brokers {
				go func() {
					defer func() { done <- b }()
					said[b] = converse(where, s)
				}()
			}
			<-done
			<-done
			if *keep != "" {
				for b, name := range []string{"this", "peer"} {
					file := filepath.Join(*keep, fmt.Sprintf("%d-%s", s, name))
					if err := os.WriteFile(file, []byte(strings.Join(said[b], "\n")), 0o644); err != nil {
						t.Error(err)
					}
				}
			}
			compare(t, said)
		})
	}
}

// compare reports the first difference with what was said before.
func compare(t *testing.T, said [2][]string) {
	for i := range max(len(said[0]), len(said[1])) {
		var line [2]string
		for b := range said {
			if i < len(said[b]) {
				line[b] = said[b][i]
			}
		}
		if line[0] == knownDifference || line[1] == knownDifference {
			return
		}
		if line[0] != line[1] {
			t.Errorf("%s\nthis: %s\npeer: %s", strings.Join(said[0][max(0, i-*last):i], "\n"), line[0], line[1])
			return
		}
	}
}
