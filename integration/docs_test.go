package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// goExample is a block of Go in a page of docs/.
var goExample = regexp.MustCompile("(?ms)^```go\n(.*?)^```$")

// TestExamplesInDocsAreTested: every block of Go in docs/*.md stands, but for indentation, in a
// test of this package, where it is compiled and run.
func TestExamplesInDocsAreTested(t *testing.T) {
	pages, err := filepath.Glob("../docs/*.md")
	must(t, err)
	files, err := filepath.Glob("*_test.go")
	must(t, err)
	var source strings.Builder
	for _, f := range files {
		b, err := os.ReadFile(f)
		must(t, err)
		source.WriteString(flush(string(b)))
	}
	for _, page := range pages {
		b, err := os.ReadFile(page)
		must(t, err)
		for i, m := range goExample.FindAllStringSubmatch(string(b), -1) {
			if !strings.Contains(source.String(), flush(m[1])) {
				t.Errorf("%s: no test runs example %d:\n%s", page, i+1, m[1])
			}
		}
	}
}

// flush takes indentation and empty lines away.
func flush(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" {
			fmt.Fprintln(&b, line)
		}
	}
	return b.String()
}
