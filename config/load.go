package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"gopkg.in/yaml.v3"
)

// maxFile is the largest config file read, in bytes.
const maxFile = 1 << 20

// Load reads a file on top of the defaults, then the variables of environ ("NAME=value"), and validates the
// result. The path "" is no file: the defaults. Relative paths in the file are relative to the working
// directory, as on a command line. Errors name the file and the lines, or the variables.
func Load(path string, environ []string) (*Config, error) {
	c := Default()
	from := ""
	if path != "" {
		from = path + ": "
		b, err := readFile(path, maxFile)
		if err != nil {
			return nil, err
		}
		if c, err = Parse(b); err != nil {
			return nil, prefixLines(from, err)
		}
	}
	variables, err := c.ApplyEnvironment(environ)
	if err != nil {
		return nil, err
	}
	if variables > 0 && path != "" {
		from = path + " and the environment: "
	} else if variables > 0 {
		from = "the environment: "
	}
	if c.DataDir == "" {
		dir, err := DefaultDataDir()
		if err != nil {
			return nil, fmt.Errorf("data_dir is not set and has no default here: %w", err)
		}
		c.DataDir = dir
	}
	if err := c.Validate(); err != nil {
		if from == "" {
			return nil, err
		}
		return nil, prefixLines(from, err)
	}
	return c, nil
}

// Parse reads YAML on top of the defaults, strictly, and does not validate the values.
func Parse(b []byte) (*Config, error) {
	c := Default()
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return nil, tidy(err)
	}
	if err := d.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		if err != nil {
			return nil, tidy(err)
		}
		return nil, errors.New("more than one YAML document")
	}
	return c, nil
}

// tidy turns the decoder's errors into one line per mistake, in an operator's words.
func tidy(err error) error {
	var typed *yaml.TypeError
	if !errors.As(err, &typed) {
		return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	errs := make([]error, 0, len(typed.Errors))
	for _, text := range typed.Errors {
		// "line 3: field foo not found in type config.Config"
		if at, rest, ok := strings.Cut(text, ": field "); ok {
			if key, _, ok := strings.Cut(rest, " not found in type "); ok {
				text = fmt.Sprintf("%s: unknown key %q", at, key)
			}
		}
		// "line 3: cannot unmarshal !!str `abc` into int"
		if at, rest, ok := strings.Cut(text, ": cannot unmarshal !!"); ok {
			if value, kind, ok := strings.Cut(rest, " into "); ok {
				_, value, _ = strings.Cut(value, " ")
				text = fmt.Sprintf("%s: %s is needed here", at, kindWords(kind))
				if value != "" {
					text += ", not " + value
				}
			}
		}
		errs = append(errs, errors.New(text))
	}
	return errors.Join(errs...)
}

// kindWords says what a Go type is in a config file.
func kindWords(kind string) string {
	switch {
	case kind == "bool":
		return "true or false"
	case kind == "string":
		return "a text"
	case strings.HasPrefix(kind, "[]"):
		return "a list"
	}
	return "a group of keys"
}

// prefixLines puts the prefix in front of each error of a joined one.
func prefixLines(prefix string, err error) error {
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) {
		return fmt.Errorf("%s%w", prefix, err)
	}
	var errs []error
	for _, e := range joined.Unwrap() {
		errs = append(errs, fmt.Errorf("%s%w", prefix, e))
	}
	return errors.Join(errs...)
}

// readFile reads a whole file that must not be larger than limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s: larger than %s", path, Size(limit))
	}
	return b, nil
}
