package rabbitmqctl

import (
	"fmt"
	"net/http"
	"strconv"

	"github.com/settmq/settmq/cli/api"
	"github.com/settmq/settmq/config"
)

// alarmLimitCommands change what the alarms go by, until the broker stops.
func alarmLimitCommands() map[string]command {
	return map[string]command{
		"set_vm_memory_high_watermark": {
			least: 1, most: 2, usage: "<fraction> | absolute <value>",
			check: func(c *call) error {
				if len(c.args) == 2 {
					return c.checkAlarmLimit("absolute")
				}
				if f, ok := share(c.args[0]); !ok {
					return badArgument
				} else if f < 0 || f > 1 {
					return failf(exitData, "Bad argument: The threshold should be a fraction between 0.0 and 1.0")
				}
				return nil
			},
			banner: func(c *call) string {
				to := c.args[0]
				if len(c.args) == 2 {
					to = c.args[1] + " bytes"
				}
				return fmt.Sprintf("Setting memory threshold on %s to %s ...", c.nodeName(), to)
			},
			run: func(c *call) (result, error) { return c.setAlarmLimit("mem_limit", len(c.args) == 1) },
		},
		"set_disk_free_limit": {
			least: 1, most: 2, usage: "<disk_limit> | mem_relative <fraction>",
			check: func(c *call) error {
				if len(c.args) == 2 {
					return c.checkAlarmLimit("mem_relative")
				}
				if _, ok := amount(c.args[0]); !ok {
					return badArgument
				}
				return nil
			},
			banner: func(c *call) string {
				to := c.args[0] + " bytes"
				if len(c.args) == 2 {
					to = c.args[1] + " times the total RAM"
				}
				return fmt.Sprintf("Setting disk free limit on %s to %s ...", c.nodeName(), to)
			},
			run: func(c *call) (result, error) { return c.setAlarmLimit("disk_free_limit", len(c.args) == 2) },
		},
	}
}

var badArgument = failf(exitData, "Bad argument.")

// checkAlarmLimit checks two operands, of which the first is a word.
func (c *call) checkAlarmLimit(word string) error {
	if c.args[0] != word {
		return failf(exitUsage, "too many arguments.")
	}
	ok := false
	if word == "absolute" {
		_, ok = amount(c.args[1])
	} else if f, number := share(c.args[1]); number {
		ok = f >= 0
	}
	if !ok {
		return badArgument
	}
	return nil
}

// setAlarmLimit sends the last operand, a share of the memory or an amount.
func (c *call) setAlarmLimit(key string, relative bool) (result, error) {
	last := c.args[len(c.args)-1]
	limit := map[string]any{}
	if f, ok := share(last); ok && relative {
		limit[key+"_relative"] = f
	} else if n, ok := amount(last); ok {
		limit[key] = n
	}
	err := c.api.Do(c.ctx, http.MethodPut, api.Path("nodes", c.nodeName(), "limits"), limit, nil)
	return &report{object: pairs{{"node", c.nodeName()}, {"result", "ok"}}}, err
}

// share reads a number such as 0.4.
func share(s string) (float64, bool) {
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil
}

// amount reads a size. M and MiB are the same.
func amount(s string) (int64, bool) {
	n, err := config.ParseSize(s)
	if err != nil {
		n, err = config.ParseSize(s + "iB")
	}
	return int64(n), err == nil
}
