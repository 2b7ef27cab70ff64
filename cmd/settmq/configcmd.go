package main

import (
	"fmt"
	"io"

	"github.com/settmq/settmq"
	"github.com/settmq/settmq/config"
)

const configUsage = `
Usage: settmq config check FILE     says what is wrong with a config file
       settmq config default        prints every setting with its default`

// runConfig checks or prints configuration. args are those behind "config".
func runConfig(args []string, _ io.Reader, stdout, stderr io.Writer) int {
	c := newCommand("config", configUsage, stdout, stderr)
	operands, code, done := c.parse(args)
	switch {
	case done:
		return code
	case len(operands) == 0:
		return c.usage("needs check or default")
	case operands[0] == "default" && len(operands) == 1:
		if _, err := stdout.Write(settmq.ExampleConfig); err != nil {
			return c.fail(err)
		}
		return exitOK
	case operands[0] == "check" && len(operands) == 2 && operands[1] != "":
		if _, err := config.Load(operands[1]); err != nil {
			fmt.Fprintln(stderr, err) // one line per problem, each with the file's name
			return exitFailed
		}
		fmt.Fprintf(stdout, "%s: ok\n", operands[1])
		return exitOK
	case operands[0] == "check":
		return c.usage("check needs one file")
	}
	return c.usage("does not know %q", operands[len(operands)-1])
}
