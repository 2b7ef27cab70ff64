package cli

import (
	"io/fs"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/settmq/settmq/cli/api"
	"github.com/settmq/settmq/config"
)

const defaultAPI = "http://127.0.0.1:15672"

// targetFlags say which broker's management API a command is for.
type targetFlags struct {
	url, user, passwordFile, caFile, context string
}

func (t *targetFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&t.url, "url", "", "management API, `http://host:port` or https (default $SETTMQ_URL, the context, this machine's broker)")
	f.StringVarP(&t.user, "user", "u", "", "log in as `name` or name:password (default $SETTMQ_USER)")
	f.StringVar(&t.passwordFile, "password-file", "", "`file` that holds the password (default $SETTMQ_PASSWORD)")
	f.StringVar(&t.caFile, "ca-file", "", "PEM `file` with the authorities that sign the broker's certificate")
	f.StringVar(&t.context, "context", "", "`name` of a target in the contexts file (default $SETTMQ_CONTEXT, or its current one)")
	_ = cmd.RegisterFlagCompletionFunc("context", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		c, err := readContexts()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return c.names(), cobra.ShellCompDirectiveNoFileComp
	})
}

// client connects flags, environment and contexts, in this order, to a client.
func (t *targetFlags) client() (*api.Client, error) {
	target, err := t.target()
	if err != nil {
		return nil, err
	}
	c, err := api.New(target)
	if err != nil {
		return nil, Usagef("%s", err)
	}
	return c, nil
}

func (t *targetFlags) target() (api.Target, error) {
	if t.url != "" && t.context != "" {
		return api.Target{}, Usagef("--url and --context exclude each other") // a context's password is for its own broker
	}
	target := api.Target{URL: first(t.url, os.Getenv("SETTMQ_URL"))}
	if target.URL == "" || t.context != "" {
		contexts, err := readContexts()
		if err != nil {
			return target, err
		}
		if name := first(t.context, os.Getenv("SETTMQ_CONTEXT"), contexts.Current); name != "" {
			c, ok := contexts.Contexts[name]
			if !ok {
				return target, Usagef("there is no context %q in %s", name, contexts.file)
			}
			target = api.Target{URL: c.URL, Socket: c.Socket, User: c.User, Password: c.Password, CAFile: c.CAFile}
		}
	}
	if u, err := url.Parse(target.URL); err == nil && u.User != nil {
		password, _ := u.User.Password()
		target.User, target.Password = u.User.Username(), password
		u.User = nil
		target.URL = u.String()
	}
	if user := first(t.user, os.Getenv("SETTMQ_USER")); user != "" {
		name, password, has := strings.Cut(user, ":")
		target.User = name
		if has {
			target.Password = password
		}
	}
	if password := os.Getenv("SETTMQ_PASSWORD"); password != "" {
		target.Password = password
	}
	if t.passwordFile != "" {
		b, err := os.ReadFile(t.passwordFile)
		if err != nil {
			return target, Usagef("--password-file: %s", err)
		}
		target.Password = strings.TrimRight(string(b), "\r\n")
	}
	target.CAFile = first(t.caFile, target.CAFile)
	if target.URL == "" && target.Socket == "" {
		if target.Socket = localSocket(); target.Socket == "" || target.User != "" {
			target.Socket, target.URL = "", defaultAPI
		}
	}
	if target.Socket == "" && target.User == "" {
		target.User, target.Password = "guest", "guest"
	}
	return target, nil
}

// LocalClient is a client for the broker that environment, contexts and this machine's socket name.
func LocalClient() (*api.Client, error) {
	var t targetFlags
	return t.client()
}

// first is the first text that is not empty.
func first(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

// localSocket is the socket of the broker on this machine: $SETTMQ_SOCKET, or that of the settings this
// environment has, if it is there. "" is none.
func localSocket() string {
	if path := os.Getenv("SETTMQ_SOCKET"); path != "" {
		return path
	}
	candidates := []string{}
	if cfg, err := config.Load(os.Getenv("SETTMQ_CONFIG"), os.Environ()); err == nil {
		candidates = append(candidates, cfg.ManagementSocket())
	}
	// A service has its own user, whose settings this environment may not have.
	for _, path := range append(candidates, "/var/lib/settmq/management.sock") {
		if info, err := os.Stat(path); err == nil && info.Mode()&fs.ModeSocket != 0 {
			return path
		}
	}
	return ""
}
