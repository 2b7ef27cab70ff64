package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// version is the release, set by the linker (-X main.version=1.2.3). Without it the module's version counts,
// and in a working copy the revision.
var version string

// buildVersion is the program's version, such as "1.2.3" or "devel 0123456789ab".
func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	text := "devel"
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			text += fmt.Sprintf(" %.12s", s.Value)
		case s.Key == "vcs.modified" && s.Value == "true":
			text += " modified"
		}
	}
	return text
}

// runVersion prints the version. args are those behind "version"; there are none.
func runVersion(args []string, _ io.Reader, stdout, stderr io.Writer) int {
	c := newCommand("version", "Usage: settmq version", stdout, stderr)
	operands, code, done := c.parse(args)
	if done {
		return code
	}
	if len(operands) > 0 {
		return c.usage("takes no operands")
	}
	fmt.Fprintf(stdout, "settmq %s (%s %s/%s)\n", buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return exitOK
}
