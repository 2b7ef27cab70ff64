package cli

import (
	"context"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/settmq/settmq/cli/rabbitmqctl"
)

// ToolName is the tool of RabbitMQ that a program's path names, by which settmq acts as that tool. "" is none.
func ToolName(path string) string {
	name := strings.TrimSuffix(filepath.Base(path), ".exe")
	if slices.Contains(rabbitmqctl.Names, name) {
		return name
	}
	return ""
}

// RunTool runs a command line of one of RabbitMQ's tools and returns its exit code.
func (a *App) RunTool(ctx context.Context, name string, args []string) int {
	t := rabbitmqctl.Tool{Name: name, Client: LocalClient, Stdin: a.Stdin, Stdout: a.Stdout, Stderr: a.Stderr}
	return t.Run(ctx, args)
}

// toolCommands are RabbitMQ's tools as commands, for where there is no link with their name.
func (a *App) toolCommands() []*cobra.Command {
	var list []*cobra.Command
	for _, name := range rabbitmqctl.Names {
		list = append(list, &cobra.Command{
			Use: name + " COMMAND", GroupID: GroupTools, Short: "RabbitMQ's " + name, DisableFlagParsing: true,
			RunE: func(cmd *cobra.Command, args []string) error {
				if code := a.RunTool(cmd.Context(), name, args); code != ExitOK {
					return Told(code)
				}
				return nil
			},
		})
	}
	return list
}
