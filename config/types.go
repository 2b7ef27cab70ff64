package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Size is a number of bytes. In YAML it is a whole number, alone or with a unit: B, kB, MB, GB, TB
// (powers of 1000) or KiB, MiB, GiB, TiB (powers of 1024); case does not matter.
type Size int64

// Units of sizes.
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
)

var sizeUnits = []struct {
	name  string
	bytes int64
}{
	// Largest first: String takes the first that divides evenly, and prints binary units only.
	{"TiB", 1 << 40},
	{"GiB", 1 << 30},
	{"MiB", 1 << 20},
	{"KiB", 1 << 10},
	{"TB", 1e12},
	{"GB", 1e9},
	{"MB", 1e6},
	{"kB", 1e3},
	{"B", 1},
}

// ParseSize reads a size as a config file spells it.
func ParseSize(s string) (Size, error) {
	digits := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
	unit := strings.TrimSpace(s[len(digits):])
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || digits[0] == '+' {
		return 0, fmt.Errorf("%q is not a size such as 64MiB", s)
	}
	if unit == "" {
		return Size(n), nil
	}
	for _, u := range sizeUnits {
		if strings.EqualFold(u.name, unit) {
			if n > math.MaxInt64/u.bytes {
				return 0, fmt.Errorf("size %q is too large", s)
			}
			return Size(n * u.bytes), nil
		}
	}
	return 0, fmt.Errorf("size %q: unknown unit %q, use KiB, MiB, GiB, kB, MB or GB", s, unit)
}

// String spells the size with the largest binary unit that leaves a whole number.
func (s Size) String() string {
	for _, u := range sizeUnits[:4] {
		if s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// UnmarshalYAML reads a size.
func (s *Size) UnmarshalYAML(n *yaml.Node) error {
	return scalar(n, s, ParseSize)
}

// MarshalYAML writes a size as String spells it.
func (s Size) MarshalYAML() (any, error) { return s.String(), nil }

// AutoSize is a size that may be left to the program: "auto" in YAML. Each key says what auto means.
type AutoSize int64

// Auto is the value of "auto".
const Auto AutoSize = -1

// Fixed returns the size, and false if it is left to the program.
func (a AutoSize) Fixed() (Size, bool) { return Size(max(a, 0)), a >= 0 }

// String is "auto" or the size.
func (a AutoSize) String() string {
	if a < 0 {
		return "auto"
	}
	return Size(a).String()
}

// UnmarshalYAML reads a size or "auto".
func (a *AutoSize) UnmarshalYAML(n *yaml.Node) error {
	return scalar(n, a, func(s string) (AutoSize, error) {
		if s == "auto" {
			return Auto, nil
		}
		size, err := ParseSize(s)
		if err != nil {
			return 0, fmt.Errorf("%w, or auto", err)
		}
		return AutoSize(size), nil
	})
}

// MarshalYAML writes the value as String spells it.
func (a AutoSize) MarshalYAML() (any, error) { return a.String(), nil }

// Watermark is an amount of memory: a share of what the machine or its control group has, or a size.
// In YAML a number from 0 to 1 is a share, everything else a size.
type Watermark struct {
	Share float64 // 0 when Size counts
	Size  Size
}

// Of returns the amount in bytes on a machine with total bytes.
func (w Watermark) Of(total int64) int64 {
	if w.Share > 0 {
		return int64(w.Share * float64(total))
	}
	return int64(w.Size)
}

// String spells the watermark as a config file does.
func (w Watermark) String() string {
	if w.Share > 0 {
		return strconv.FormatFloat(w.Share, 'g', -1, 64)
	}
	return w.Size.String()
}

// UnmarshalYAML reads a share or a size.
func (w *Watermark) UnmarshalYAML(n *yaml.Node) error {
	return scalar(n, w, func(s string) (Watermark, error) {
		if f, err := strconv.ParseFloat(s, 64); err == nil && f > 0 && f <= 1 {
			return Watermark{Share: f}, nil
		}
		size, err := ParseSize(s)
		if err != nil {
			return Watermark{}, fmt.Errorf("%q is neither a share such as 0.6 nor a size such as 4GiB", s)
		}
		return Watermark{Size: size}, nil
	})
}

// MarshalYAML writes the value as String spells it.
func (w Watermark) MarshalYAML() (any, error) { return w.String(), nil }

// Count is a whole number. (The decoder would quietly cut 1.5 down to an int 1.)
type Count int

// UnmarshalYAML reads a decimal number.
func (c *Count) UnmarshalYAML(n *yaml.Node) error {
	return scalar(n, c, func(s string) (Count, error) {
		v, err := strconv.ParseInt(s, 10, 32)
		if err != nil {
			return 0, fmt.Errorf("%q is not a whole number", s)
		}
		return Count(v), nil
	})
}

// Duration is a time in Go's notation: 500ms, 10s, 1m30s. A number without a unit is refused, but for 0.
type Duration time.Duration

// Std is the duration as the standard library has it.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String spells the duration as Go does.
func (d Duration) String() string { return time.Duration(d).String() }

// UnmarshalYAML reads a duration.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	return scalar(n, d, func(s string) (Duration, error) {
		v, err := time.ParseDuration(s)
		if err != nil || v < 0 {
			return 0, fmt.Errorf("%q is not a duration such as 10s", s)
		}
		return Duration(v), nil
	})
}

// MarshalYAML writes the duration as String spells it.
func (d Duration) MarshalYAML() (any, error) { return d.String(), nil }

// Secret is a text that does not show itself in logs and dumps. Convert it to string to use it.
type Secret string

// String hides the secret.
func (Secret) String() string { return "[hidden]" }

// GoString hides the secret from %#v.
func (Secret) GoString() string { return "[hidden]" }

// MarshalText hides the secret from encoders (JSON, YAML, loggers).
func (Secret) MarshalText() ([]byte, error) { return []byte("[hidden]"), nil }

// UnmarshalYAML reads the secret; the error for a wrong kind of value does not show it.
func (s *Secret) UnmarshalYAML(n *yaml.Node) error {
	return scalar(n, s, func(text string) (Secret, error) { return Secret(text), nil })
}

// scalar reads one plain value. Its errors carry the line and are collected by the decoder, so that a
// file with several mistakes is reported whole.
func scalar[T any](n *yaml.Node, to *T, parse func(string) (T, error)) error {
	if n.Kind != yaml.ScalarNode {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: a single value is needed here", n.Line)}}
	}
	v, err := parse(n.Value)
	if err != nil {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: %v", n.Line, err)}}
	}
	*to = v
	return nil
}
