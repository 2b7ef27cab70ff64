package broker

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// erlang writes a JSON value as RabbitMQ's error texts show it, which operators search for:
// strings are binaries, objects are maps. Lists are not broken into lines.
func erlang(v any) string {
	switch v := v.(type) {
	case string:
		return erlangBinary(v)
	case []any:
		list := make([]string, len(v))
		for i, e := range v {
			list[i] = erlang(e)
		}
		return "[" + strings.Join(list, ",") + "]"
	case map[string]any:
		list := make([]string, 0, len(v))
		for _, k := range slices.Sorted(maps.Keys(v)) {
			list = append(list, erlangBinary(k)+" => "+erlang(v[k]))
		}
		return "#{" + strings.Join(list, ",") + "}"
	case float64:
		s := strconv.FormatFloat(v, 'g', -1, 64)
		if !strings.ContainsAny(s, ".eIN") {
			s += ".0"
		}
		return s
	case nil:
		return "null"
	}
	return fmt.Sprint(v) // integers and booleans
}

// erlangTerms writes name-value pairs as a property list.
func erlangTerms(values map[string]any) string {
	list := make([]string, 0, len(values))
	for _, k := range slices.Sorted(maps.Keys(values)) {
		list = append(list, "{"+erlangBinary(k)+","+erlang(values[k])+"}")
	}
	return "[" + strings.Join(list, ",") + "]"
}

func erlangBinary(s string) string {
	suffix := ""
	for _, r := range s {
		if r > unicode.MaxASCII {
			suffix = "/utf8"
		}
	}
	return "<<" + strconv.Quote(s) + suffix + ">>"
}
