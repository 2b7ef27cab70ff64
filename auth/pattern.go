package auth

import (
	"errors"
	"fmt"
	"regexp"
	"time"
	"unicode/utf8"

	"github.com/dlclark/regexp2"
)

const (
	// MaxPattern is the longest pattern text accepted, in bytes.
	MaxPattern = 64 << 10
	// MaxName is the longest name a pattern is matched against, in bytes: names and routing keys are
	// short strings on the wire. Longer ones match nothing.
	MaxName = 255
	// matchTimeout bounds one match of the backtracking engine. Its clock ticks every 100 ms, so
	// that is about the shortest limit it can keep.
	matchTimeout = 100 * time.Millisecond
)

// ErrBadPattern is wrapped by the errors of patterns that do not compile or are too long.
var ErrBadPattern = errors.New("auth: bad pattern")

// Pattern is a compiled regular expression over names. It is immutable and safe for concurrent use.
// The nil *Pattern matches nothing.
type Pattern struct {
	text   string
	all    bool            // ".*", by far the most frequent one
	linear *regexp.Regexp  // one of these two, or neither for "" and ".*"
	back   *regexp2.Regexp // patterns that need backtracking
}

// CompilePattern compiles the text of a pattern. RabbitMQ's patterns are PCRE; those that Go's linear
// time engine cannot express (look-around, back-references, atomic groups) run on a backtracking
// engine with a time limit. Errors wrap ErrBadPattern.
func CompilePattern(s string) (*Pattern, error) {
	p := &Pattern{text: s}
	switch {
	case len(s) > MaxPattern:
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrBadPattern, len(s), MaxPattern)
	case !utf8.ValidString(s):
		return nil, fmt.Errorf("%w: not UTF-8", ErrBadPattern)
	case s == "":
		return p, nil
	case s == ".*":
		p.all = true
		return p, nil
	}
	linear, err := regexp.Compile(s)
	if err == nil {
		p.linear = linear
		return p, nil
	}
	back, err2 := regexp2.Compile(s, regexp2.None)
	if err2 != nil {
		return nil, fmt.Errorf("%w %.100q: %w", ErrBadPattern, s, err)
	}
	back.MatchTimeout = matchTimeout
	p.back = back
	return p, nil
}

// String is the pattern's text.
func (p *Pattern) String() string {
	if p == nil {
		return ""
	}
	return p.text
}

// Slow reports whether a match may take as long as the time limit: a tenth of a second.
func (p *Pattern) Slow() bool { return p != nil && p.back != nil }

// Match reports whether the pattern occurs in name. The empty pattern matches the empty name only. A
// match that takes too long is no match: the one who asks is refused.
func (p *Pattern) Match(name string) bool {
	switch {
	case p == nil || len(name) > MaxName:
		return false
	case p.all:
		return true
	case p.text == "":
		return name == ""
	case p.linear != nil:
		return p.linear.MatchString(name)
	}
	ok, err := p.back.MatchString(name)
	return ok && err == nil
}
