package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/settmq/settmq"
	"github.com/settmq/settmq/cli"
	"github.com/settmq/settmq/config"
)

// configCommand checks or prints configuration.
func configCommand(app *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "config",
		GroupID: cli.GroupBroker,
		Short:   "Check a config file, print the settings",
		Args:    cli.NoCommand,
		RunE:    func(*cobra.Command, []string) error { return cli.Usagef("needs check, default or environment") },
	}
	cmd.AddCommand(
		&cobra.Command{
			Use:   "check FILE",
			Short: "Say what is wrong with a config file",
			Args: func(_ *cobra.Command, args []string) error {
				if len(args) != 1 || args[0] == "" {
					return cli.Usagef("needs one file")
				}
				return nil
			},
			RunE: func(_ *cobra.Command, args []string) error {
				if _, err := config.Load(args[0], nil); err != nil {
					fmt.Fprintln(app.Stderr, err) // one line per problem, each with the file's name
					return cli.Told(cli.ExitFailed)
				}
				_, err := fmt.Fprintf(app.Stdout, "%s: ok\n", args[0])
				return err
			},
		},
		&cobra.Command{
			Use:   "default",
			Short: "Print every setting with its default",
			Args:  cli.NoOperands,
			RunE: func(*cobra.Command, []string) error {
				_, err := app.Stdout.Write(settmq.ExampleConfig)
				return err
			},
		},
		&cobra.Command{
			Use:   "environment",
			Short: "Print the environment variable of every setting, with the default",
			Long: "Prints the environment variable of every setting, with its default. What is set there goes on top of a config file. " +
				"Lists have commas between their members, or are YAML in brackets.",
			Args: cli.NoOperands,
			RunE: func(*cobra.Command, []string) error {
				for _, v := range config.Variables() {
					if _, err := fmt.Fprintf(app.Stdout, "%s=%s\n", v.Name, v.Default); err != nil {
						return err
					}
				}
				return nil
			},
		},
	)
	return cmd
}
