// Command settmq is the SettMQ broker and a small client for it.
package main

import (
	"fmt"
	"io"
	"os"
)

const usage = `SettMQ, an AMQP 0-9-1 broker.

Usage: settmq [serve] [--config FILE]   run the broker; no file, no flags: defaults on 127.0.0.1:5672
       settmq pub | get | sub           publish, fetch, subscribe; see settmq pub --help
       settmq config check FILE         say what is wrong with a config file
       settmq config default            print every setting with its default
       settmq recover --accept-loss     open a damaged data directory, say what is lost
       settmq version
`

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	commands := map[string]func([]string, io.Reader, io.Writer, io.Writer) int{
		"serve": runServe, "pub": runPub, "get": runGet, "sub": runSub,
		"config": runConfig, "recover": runRecover, "version": runVersion,
	}
	name := "serve"
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		name, args = args[0], args[1:]
	}
	if len(args) > 0 {
		switch args[0] {
		case "--version", "-version":
			name, args = "version", args[1:]
		case "--help", "-help", "-h":
			if name == "serve" {
				fmt.Fprint(stdout, usage)
				return exitOK
			}
		}
	}
	command, ok := commands[name]
	if !ok {
		fmt.Fprintf(stderr, "settmq: unknown command %q\n\n%s", name, usage)
		return exitUsage
	}
	return command(args, stdin, stdout, stderr)
}
