package stream

import (
	"math"
	"strconv"
	"time"

	"github.com/settmq/settmq/amqp"
)

// Interval reads a duration as RabbitMQ writes them: digits and a unit of Y, M, D, h, m or s. A year has 365 days
// and a month 30. Larger ones than a Duration holds are the largest.
func Interval(text string) (time.Duration, bool) {
	if len(text) < 2 {
		return 0, false
	}
	var unit time.Duration
	switch text[len(text)-1] {
	case 'Y':
		unit = 365 * 24 * time.Hour
	case 'M':
		unit = 30 * 24 * time.Hour
	case 'D':
		unit = 24 * time.Hour
	case 'h':
		unit = time.Hour
	case 'm':
		unit = time.Minute
	case 's':
		unit = time.Second
	default:
		return 0, false
	}
	digits := text[:len(text)-1]
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n > math.MaxInt64/int64(unit) {
		return math.MaxInt64, true
	}
	return time.Duration(n) * unit, n > 0
}

// startKind is where a consumer begins.
type startKind uint8

const (
	startNext startKind = iota
	startFirst
	startLast
	startOffset
	startTime
)

// subscription is what the arguments of basic.consume ask for.
type subscription struct {
	start  startKind
	offset uint64
	time   int64 // ms since 1970

	filter     map[string]struct{} // values that are wanted; nil: no filter
	hashes     []uint64            // of the values that are not empty
	unfiltered bool                // messages without a value are wanted too
}

// parseSubscription reads consumer arguments. why is a refusal in RabbitMQ's words for the argument named.
func parseSubscription(args amqp.Table, now time.Time) (s subscription, name, why string) {
	if v, ok := args.Get("x-stream-offset"); ok {
		if why := s.parseOffset(v, now); why != "" {
			return s, "x-stream-offset", why
		}
	}
	if v, ok := args.Get("x-stream-filter"); ok {
		if why := s.parseFilter(v); why != "" {
			return s, "x-stream-filter", why
		}
	}
	if v, ok := args.Get("x-stream-match-unfiltered"); ok {
		want, isBool := v.Bool()
		if !isBool {
			return s, "x-stream-match-unfiltered", "{unacceptable_type," + v.TypeName() + "}"
		}
		s.unfiltered = s.unfiltered || want
	}
	return s, "", ""
}

func (s *subscription) parseOffset(v amqp.Value, now time.Time) (why string) {
	if n, ok := v.Int(); ok {
		if v.Kind() == amqp.KindLong || n >= 0 {
			s.start, s.offset = startOffset, uint64(max(n, 0))
		} else {
			s.start = startFirst
		}
		return ""
	}
	if sec, ok := v.Timestamp(); ok {
		s.start, s.time = startTime, int64(min(sec, math.MaxInt64/1000))*1000
		return ""
	}
	if v.Kind() != amqp.KindString && v.Kind() != amqp.KindBinary {
		return invalidOffset(v)
	}
	switch text := v.Text(); text {
	case "first":
		s.start = startFirst
	case "last":
		s.start = startLast
	case "next":
		s.start = startNext
	default:
		ago, ok := Interval(text)
		if !ok {
			return invalidOffset(v)
		}
		s.start, s.time = startTime, max(now.Add(-ago).UnixMilli(), 0)
	}
	return ""
}

func (s *subscription) parseFilter(v amqp.Value) (why string) {
	values := []amqp.Value{v}
	if v.Kind() == amqp.KindArray {
		values = v.Array()
	}
	s.filter = make(map[string]struct{}, len(values))
	for _, e := range values {
		if e.Kind() != amqp.KindString {
			return "{unacceptable_type," + e.TypeName() + "}"
		}
		text := e.Text()
		if _, dup := s.filter[text]; dup {
			continue
		}
		s.filter[text] = struct{}{}
		if text == "" {
			s.unfiltered = true // RabbitMQ: no value and an empty one are the same
		} else {
			s.hashes = append(s.hashes, filterHash(text))
		}
	}
	if len(s.filter) == 0 {
		return "no filter value"
	}
	return ""
}

// wantsChunk reports whether a chunk may hold messages that the filter lets pass.
func (s *subscription) wantsChunk(h *chunkHeader, filter []byte) bool {
	if s.filter == nil || s.unfiltered && h.hasUnfilterd {
		return true
	}
	for _, hash := range s.hashes {
		if filterHas(filter, hash) {
			return true
		}
	}
	return false
}

// wants reports whether the filter lets a message pass.
func (s *subscription) wants(properties []byte) bool {
	if s.filter == nil {
		return true
	}
	value := filterValue(amqp.HeadersOf(properties))
	if value == "" {
		return s.unfiltered
	}
	_, ok := s.filter[value]
	return ok
}

// filterValue returns what a message is filtered by; a value of another type than a string is none.
func filterValue(headers []byte) string {
	v, ok := amqp.LookupHeader(headers, "x-stream-filter-value")
	if !ok || v.Kind() != amqp.KindString {
		return ""
	}
	return v.Text()
}

func invalidOffset(v amqp.Value) string {
	return "{invalid_stream_offset_arg,{" + v.TypeName() + "," + string(amqp.AppendErlangTerm(nil, v)) + "}}"
}
