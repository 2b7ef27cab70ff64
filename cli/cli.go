package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// Exit codes of every command but serve and recover, which have more.
const (
	ExitOK          = 0
	ExitFailed      = 1 // what was asked for failed: a connection broke, a message was not stored, a check did not pass
	ExitUsage       = 2 // the command line is wrong
	ExitUnreachable = 3 // no connection to the broker, or the login was refused
	ExitUnroutable  = 4 // pub: at least one message found no queue
	ExitEmpty       = 5 // get and peek: the queue holds no message
	ExitRefused     = 6 // the broker refused: no such queue or exchange, no permission, other properties
)

// App is one run of the program: where its input comes from and where its output goes.
type App struct {
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
}

// Group names of the commands in the help of the program.
const (
	GroupBroker   = "broker"
	GroupMessages = "messages"
	GroupManage   = "manage"
	GroupTools    = "tools"
)

// Root makes the command tree of the client. The caller may add commands of its own before it passes
// the tree to Execute.
func (a *App) Root() *cobra.Command {
	root := &cobra.Command{
		Use:           "settmq",
		SilenceErrors: true, // Execute prints them
		SilenceUsage:  true,
	}
	root.AddGroup(
		&cobra.Group{ID: GroupBroker, Title: "The broker:"},
		&cobra.Group{ID: GroupMessages, Title: "Messages:"},
		&cobra.Group{ID: GroupManage, Title: "What is in the broker:"},
		&cobra.Group{ID: GroupTools, Title: "RabbitMQ's tools, also by links with their names:"},
	)
	root.AddCommand(
		a.statusCommand(), a.topCommand(), a.healthCommand(), a.doctorCommand(), a.pubCommand(), a.getCommand(), a.subCommand(), a.peekCommand(), a.benchCommand(),
		a.queuesCommand(), a.exchangesCommand(), a.bindingsCommand(), a.connectionsCommand(), a.channelsCommand(), a.consumersCommand(),
		a.vhostsCommand(), a.usersCommand(), a.permissionsCommand(), a.policiesCommand(), a.definitionsCommand(), a.contextCommand(),
	)
	root.AddCommand(a.toolCommands()...)
	return root
}

// Execute runs the command line and returns the exit code. Errors go to standard error, one line each.
// Commands that wait end when ctx does.
func (a *App) Execute(ctx context.Context, root *cobra.Command, args []string) int {
	root.SetArgs(args)
	root.SetIn(a.Stdin)
	root.SetOut(a.Stdout)
	root.SetErr(a.Stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return Usagef("%s", err) })
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return ExitOK
	}
	var told Told
	if errors.As(err, &told) {
		return int(told)
	}
	code, text := Explain(err)
	if code == ExitUsage {
		text += " (try " + cmd.CommandPath() + " --help)"
	}
	note(cmd, "%s", text)
	return code
}

// Told is an error that has been printed already; its value is the exit code.
type Told int

func (t Told) Error() string { return fmt.Sprintf("exit code %d", int(t)) }

// usageError is a wrong command line.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

// Usagef makes the error of a wrong command line.
func Usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// Explain words an error in one line and says which exit code fits it.
func Explain(err error) (code int, text string) {
	var wrong *usageError
	if errors.As(err, &wrong) {
		return ExitUsage, wrong.text
	}
	if code, text, ok := explainAMQP(err); ok {
		return code, text
	}
	if code, text, ok := explainAPI(err); ok {
		return code, text
	}
	return ExitFailed, err.Error()
}

// NoOperands is for commands that take flags only.
func NoOperands(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return Usagef("does not take %q", args[0])
	}
	return nil
}

// NoCommand refuses the operands of a command that has commands below it.
func NoCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	text := fmt.Sprintf("unknown command %q", args[0])
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		text += ", did you mean " + strings.Join(near, " or ") + "?"
	}
	return Usagef("%s", text)
}

// operands says how many a command needs, by what they are: "the name of one queue".
func operands(least, most int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most || (least > 0 && args[0] == "") {
			return Usagef("needs %s", what)
		}
		return nil
	}
}

// note tells the user something that is no result.
func note(cmd *cobra.Command, format string, args ...any) {
	fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", cmd.CommandPath(), fmt.Sprintf(format, args...))
}

// isCharDevice reports whether a stream is a terminal (or the like) and not a file or a pipe.
func isCharDevice(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// lines joins the lines of a help text.
func lines(l ...string) string { return strings.Join(l, "\n") }
