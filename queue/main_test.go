package queue

import (
	"testing"

	"github.com/dlclark/regexp2"
	"go.uber.org/goleak"
)

// run is the package's tests and the end of the one goroutine that outlives them by design,
// the clock of regexp2.
type run struct{ *testing.M }

func (r run) Run() int {
	defer regexp2.StopTimeoutClock()
	return r.M.Run()
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(run{m}) }
