package broker

import (
	"flag"
	"testing"

	"github.com/dlclark/regexp2"
	"go.uber.org/goleak"
)

// run is the package's tests and the end of the one goroutine that outlives them by design,
// the clock of regexp2.
type run struct{ *testing.M }

func (r run) Run() int {
	flag.Parse()
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue {
		_ = f.Value.Set("40") // each opens the broker twice; -rapid.checks=N has the last word
	}
	defer regexp2.StopTimeoutClock()
	return r.M.Run()
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(run{m}) }
