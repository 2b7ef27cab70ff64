package rabbitmqctl

import (
	"slices"
	"strings"
)

// Switches that every command takes. One with a value ends in =.
var globalSwitches = []string{
	"node=", "quiet", "silent", "timeout=", "longnames", "vhost=", "formatter=", "printer=", "no-table-headers", "table-headers",
	"help", "version", "print-stacktrace", "dry-run", "script-name=", "rabbitmq-home=", "erlang-cookie=",
}

// Switches of single commands that take a value, so that what follows is not taken for an operand.
var valueSwitches = []string{
	"apply-to", "priority", "description", "tags", "default-queue-type", "user", "format", "unit", "limit", "per-connection-delay", "address",
}

var shortSwitches = map[string]string{
	"n": "node", "q": "quiet", "s": "silent", "t": "timeout", "l": "longnames", "p": "vhost", "?": "help",
	"e": "enabled", "E": "enabled-explicitly", "m": "minimal", "v": "verbose", "u": "if-unused",
}

// options are the switches of a command line: their values, and "" for those that have none.
type options struct{ values map[string]string }

func (o *options) has(name string) bool {
	v, ok := o.values[name]
	return ok && v != "false"
}

func (o *options) get(name string) string { return o.values[name] }

// parse tells switches from operands, wherever they stand; what follows "--" is operands only. Unknown short
// switches come back apart.
func parse(args []string) (o options, operands, unknown []string) {
	o.values = map[string]string{}
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "--":
			return o, append(operands, args[i+1:]...), unknown
		case len(a) < 2 || a[0] != '-' || '0' <= a[1] && a[1] <= '9': // -1 is a number
			operands = append(operands, a)
			continue
		}
		name, value, has := strings.Cut(strings.TrimLeft(a, "-"), "=")
		if !strings.HasPrefix(a, "--") {
			long, ok := shortSwitches[name]
			if !ok {
				unknown = append(unknown, a)
				continue
			}
			name = long
		}
		name = strings.ReplaceAll(name, "_", "-")
		takes := slices.Contains(globalSwitches, name+"=") || slices.Contains(valueSwitches, name)
		if takes && !has {
			if i+1 == len(args) {
				unknown = append(unknown, a)
				continue
			}
			i++
			value = args[i]
		}
		o.values[name] = value
	}
	return o, operands, unknown
}
