package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"github.com/settmq/settmq/cli/api"
)

// maxContexts is the largest contexts file that is read, in bytes.
const maxContexts = 1 << 20

// contexts are the named targets of the command line, kept in a file.
type contexts struct {
	file     string
	Current  string             `yaml:"current,omitempty"`
	Contexts map[string]*target `yaml:"contexts"`
}

// target is a broker by name.
type target struct {
	URL      string `yaml:"url,omitempty"`
	Socket   string `yaml:"socket,omitempty"`
	User     string `yaml:"user,omitempty"`
	Password string `yaml:"password,omitempty"`
	CAFile   string `yaml:"ca_file,omitempty"`
}

func (c *contexts) names() []string { return slices.Sorted(maps.Keys(c.Contexts)) }

// contextsFile is $XDG_CONFIG_HOME/settmq/contexts.yaml, or where the system keeps such files.
func contextsFile() (string, error) {
	dir, err := os.UserConfigDir()
	return filepath.Join(dir, "settmq", "contexts.yaml"), err
}

// readContexts reads the contexts file. A file that others may read is refused: it holds passwords.
func readContexts() (*contexts, error) {
	c := &contexts{Contexts: map[string]*target{}}
	var err error
	if c.file, err = contextsFile(); err != nil {
		return c, nil // no home, no contexts
	}
	f, err := os.Open(c.file)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if info.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("%s holds passwords and may be read by others: chmod 600 it", c.file)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxContexts))
	if err != nil {
		return nil, err
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %s", c.file, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	for name, t := range c.Contexts {
		if t == nil {
			return nil, fmt.Errorf("%s: context %q is empty", c.file, name)
		}
	}
	if c.Contexts == nil {
		c.Contexts = map[string]*target{}
	}
	return c, nil
}

// write replaces the file at once, so that a full disk does not leave half of it.
func (c *contexts) write() error {
	if c.file == "" {
		return errors.New("there is no home directory to keep contexts in: set XDG_CONFIG_HOME")
	}
	b, err := yaml.Marshal(c)
	if err != nil {
		return err
	}
	dir := filepath.Dir(c.file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "contexts-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // it has been renamed
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), c.file)
}

// contextCommand manages the contexts file.
func (a *App) contextCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "context",
		GroupID: GroupManage,
		Short:   "Name brokers elsewhere, and choose one",
		Long: lines("Names targets for the other commands: settmq --context NAME. They are kept in contexts.yaml in settmq's",
			"folder of $XDG_CONFIG_HOME (~/.config), which nobody else may read. Without a context the commands go to this machine's broker."),
		Example: lines("  settmq context set prod --url https://mq.example.org:15671 --user ops --password-file -",
			"  settmq context use prod"),
		Args: NoCommand,
	}
	cmd.AddCommand(a.contextList(), a.contextSet(), a.contextUse(), a.contextDelete())
	cmd.RunE = cmd.Commands()[slices.IndexFunc(cmd.Commands(), func(c *cobra.Command) bool { return c.Name() == "list" })].RunE
	return cmd
}

func (a *App) contextList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the contexts", Args: NoOperands}
	out := addOutput(cmd, "name", "current", "target", "user")
	cmd.RunE = func(*cobra.Command, []string) error {
		c, err := readContexts()
		if err != nil {
			return err
		}
		var rows []row
		for _, name := range c.names() {
			t := c.Contexts[name]
			current := ""
			if name == c.Current {
				current = "*"
			}
			rows = append(rows, row{"name": name, "current": current, "target": first(t.Socket, t.URL), "user": t.User})
		}
		return out.print(a.Stdout, rows)
	}
	return cmd
}

func (a *App) contextSet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "set NAME {--url URL | --socket PATH}", Short: "Make or replace a context", Args: operands(1, 1, "a name"),
	}
	var t target
	f := cmd.Flags()
	f.StringVar(&t.URL, "url", "", "management API, `http://host:port` or https")
	f.StringVar(&t.Socket, "socket", "", "`path` of a broker's socket on this machine")
	f.StringVarP(&t.User, "user", "u", "", "log in as `name`")
	passwordFile := f.String("password-file", "", "`file` that holds the password; - is standard input")
	f.StringVar(&t.CAFile, "ca-file", "", "PEM `file` with the authorities that sign the broker's certificate")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if (t.URL == "") == (t.Socket == "") {
			return Usagef("needs --url or --socket")
		}
		if *passwordFile != "" {
			password, err := a.readSecret(*passwordFile)
			if err != nil {
				return err
			}
			t.Password = password
		}
		if _, err := api.New(api.Target{URL: t.URL, Socket: t.Socket, CAFile: t.CAFile}); err != nil {
			return Usagef("%s", err)
		}
		if t.CAFile != "" {
			abs, err := filepath.Abs(t.CAFile)
			if err != nil {
				return err
			}
			t.CAFile = abs
		}
		c, err := readContexts()
		if err != nil {
			return err
		}
		c.Contexts[args[0]] = &t
		return c.write()
	}
	return cmd
}

func (a *App) contextUse() *cobra.Command {
	cmd := &cobra.Command{
		Use: "use NAME", Short: "Make a context the current one; - is none, this machine's broker", Args: operands(1, 1, "a name"),
	}
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		c, err := readContexts()
		if err != nil {
			return err
		}
		if c.Current = args[0]; c.Current == "-" {
			c.Current = ""
		} else if c.Contexts[c.Current] == nil {
			return Usagef("there is no context %q in %s", args[0], c.file)
		}
		return c.write()
	}
	return cmd
}

func (a *App) contextDelete() *cobra.Command {
	cmd := &cobra.Command{Use: "delete NAME", Short: "Forget a context", Args: operands(1, 1, "a name")}
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		c, err := readContexts()
		if err != nil {
			return err
		}
		if c.Contexts[args[0]] == nil {
			return Usagef("there is no context %q in %s", args[0], c.file)
		}
		delete(c.Contexts, args[0])
		if c.Current == args[0] {
			c.Current = ""
		}
		return c.write()
	}
	return cmd
}

// readSecret reads a password from a file, or from standard input for "-". The newline at its end is not its.
func (a *App) readSecret(file string) (string, error) {
	var b []byte
	var err error
	if file == "-" {
		b, err = io.ReadAll(io.LimitReader(a.Stdin, 64<<10))
	} else {
		b, err = os.ReadFile(file)
	}
	if err != nil {
		return "", err
	}
	secret := strings.TrimRight(string(b), "\r\n")
	if secret == "" {
		return "", errors.New("the password is empty")
	}
	return secret, nil
}
