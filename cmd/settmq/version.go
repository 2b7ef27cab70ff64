package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/settmq/settmq/cli"
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

// versionLine is the program's version with that of the compiler and the platform.
func versionLine() string {
	return fmt.Sprintf("settmq %s (%s %s/%s)", buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

func versionCommand(app *cli.App) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		GroupID: cli.GroupBroker,
		Short:   "Print the version",
		Args:    cli.NoOperands,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(app.Stdout, versionLine())
			return err
		},
	}
}
