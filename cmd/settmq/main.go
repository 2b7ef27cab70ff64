// Command settmq is the SettMQ broker and the command line for it.
package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/settmq/settmq/cli"
)

func main() {
	app := &cli.App{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	if tool := cli.ToolName(os.Args[0]); tool != "" {
		os.Exit(app.RunTool(context.Background(), tool, os.Args[1:]))
	}
	args := os.Args[1:]
	if strings.TrimSuffix(filepath.Base(os.Args[0]), ".exe") == "rabbitmq-server" {
		args = append([]string{"serve"}, args...)
	}
	os.Exit(app.Execute(context.Background(), commands(app), args))
}

// commands is everything settmq can be asked for. Alone it is the same as serve.
func commands(app *cli.App) *cobra.Command {
	root := app.Root()
	root.Short = "SettMQ, an AMQP 0-9-1 broker."
	root.Long = "SettMQ, an AMQP 0-9-1 broker. Without a command it is settmq serve: the broker, on 127.0.0.1:5672 if nothing else is set."
	root.Args = cli.NoCommand
	root.Version = buildVersion()
	root.SetVersionTemplate(versionLine() + "\n")
	addServe(root, app)
	root.AddCommand(serveCommand(app), recoverCommand(app), configCommand(app), versionCommand(app))
	return root
}
