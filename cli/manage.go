package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/settmq/settmq/cli/api"
)

// request is what a management command gets: a client for the broker that was chosen, and the operands.
type request struct {
	ctx  context.Context
	api  *api.Client
	args []string
	cmd  *cobra.Command
}

// done says what has been changed, in one line of standard output.
func (r *request) done(format string, args ...any) error {
	_, err := fmt.Fprintf(r.cmd.OutOrStdout(), format+"\n", args...)
	return err
}

// apiCommand makes a command that talks to the management API.
func apiCommand(use, short string, args cobra.PositionalArgs, run func(r *request) error) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: args}
	var t targetFlags
	t.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := t.client()
		if err != nil {
			return err
		}
		defer c.Close()
		return run(&request{ctx: cmd.Context(), api: c, args: args, cmd: cmd})
	}
	return cmd
}

// group makes a command of commands. Alone it is the first of them, which is the list.
func group(use, short string, list *cobra.Command, more ...*cobra.Command) *cobra.Command {
	list.Use, list.Short, list.Aliases = "list", "List them", []string{"ls"}
	cmd := &cobra.Command{Use: use, GroupID: GroupManage, Short: short, Args: NoCommand, RunE: list.RunE}
	cmd.Flags().AddFlagSet(list.Flags())
	cmd.AddCommand(list)
	cmd.AddCommand(more...)
	return cmd
}

// listing says how a list of the API is shown.
type listing struct {
	path    string // below /api; with byVHost a vhost may follow
	byVHost bool
	columns []string
	keep    func(row) bool // nil: all
}

func (a *App) list(l listing) *cobra.Command {
	var out *output
	var vhost, match string
	cmd := apiCommand("list", "", NoOperands, func(r *request) error {
		rows, err := l.fetch(r, out, vhost, match)
		if err != nil {
			return err
		}
		return out.print(a.Stdout, rows)
	})
	out = addOutput(cmd, l.columns...)
	if l.byVHost {
		cmd.Flags().StringVarP(&vhost, "vhost", "p", "", "`vhost` to list (default: all that the user may see)")
	}
	cmd.Flags().StringVar(&match, "match", "", "show only names that match the `regular expression`")
	return cmd
}

func (l *listing) fetch(r *request, out *output, vhost, match string) ([]row, error) {
	pattern, err := regexp.Compile(match)
	if err != nil {
		return nil, Usagef("--match: %s", err)
	}
	if form := out.form; !slices.Contains([]string{"table", "json", "csv", "name"}, form) {
		return nil, out.check()
	}
	path := l.path
	if vhost != "" {
		path += "/" + api.Path(vhost)
	}
	var all []row
	if err := r.api.Get(r.ctx, path, &all); err != nil {
		if vhost != "" && api.Is(err, http.StatusNotFound) {
			return nil, &missingError{fmt.Sprintf("there is no vhost %q", vhost)}
		}
		return nil, err
	}
	rows := all[:0]
	for _, o := range all {
		if (l.keep == nil || l.keep(o)) && pattern.MatchString(text(field(o, l.columns[0]))) {
			rows = append(rows, o)
		}
	}
	return rows, nil
}

// show makes a command that prints one object. path gives its place below /api.
func (a *App) show(what string, byVHost bool, path func(vhost, name string) string) *cobra.Command {
	var form, vhost string
	cmd := apiCommand("show NAME", "Show one with everything that is known of it", operands(1, 1, "the name of one "+what), func(r *request) error {
		var o row
		if err := r.api.Get(r.ctx, path(vhost, r.args[0]), &o); err != nil {
			return missing(err, what, r.args[0], vhost)
		}
		return a.printObject(o, form)
	})
	cmd.Flags().StringVarP(&form, "output", "o", "table", "`form`: table or json")
	if byVHost {
		vhostFlag(cmd, &vhost)
	}
	return cmd
}

// printObject shows an object as lines of name and value, those inside it with a dot, or as JSON.
func (a *App) printObject(o row, form string) error {
	switch form {
	case "json":
		e := json.NewEncoder(a.Stdout)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(o)
	case "table":
	default:
		return Usagef("--output %q is none of table, json", form)
	}
	flat := map[string]string{}
	flatten("", map[string]any(o), flat)
	width := 0
	for name := range flat {
		width = max(width, utf8.RuneCountInString(name))
	}
	for _, name := range slices.Sorted(maps.Keys(flat)) {
		if _, err := fmt.Fprintf(a.Stdout, "%-*s  %s\n", width, printable([]byte(name)), printable([]byte(flat[name]))); err != nil {
			return err
		}
	}
	return nil
}

func flatten(prefix string, v any, to map[string]string) {
	if m, ok := v.(map[string]any); ok {
		for k, e := range m {
			flatten(prefix+k+".", e, to)
		}
		return
	}
	if t := text(v); t != "" && prefix != "" {
		to[strings.TrimSuffix(prefix, ".")] = t
	}
}

// vhostFlag adds --vhost to a command that is about one object.
func vhostFlag(cmd *cobra.Command, vhost *string) {
	cmd.Flags().StringVarP(vhost, "vhost", "p", "/", "`vhost` it is in")
}

// missingError is an object that is not there.
type missingError struct{ text string }

func (e *missingError) Error() string { return e.text }

// missing says in words which object a 404 is about; other errors stay as they are.
func missing(err error, what, name, vhost string) error {
	if !api.Is(err, http.StatusNotFound) {
		return err
	}
	if vhost != "" {
		return &missingError{fmt.Sprintf("there is no %s %q in vhost %q", what, name, vhost)}
	}
	return &missingError{fmt.Sprintf("there is no %s %q", what, name)}
}

// explainAPI words the errors of the management API. ok is false for other errors.
func explainAPI(err error) (code int, text string, ok bool) {
	var refused *api.Error
	var unreachable *api.UnreachableError
	var none *missingError
	switch {
	case errors.As(err, &none):
		return ExitRefused, none.text, true
	case errors.As(err, &unreachable):
		text = unreachable.Error()
		switch {
		case errors.Is(err, context.Canceled):
			return ExitFailed, "interrupted", true
		case errors.Is(err, fs.ErrPermission):
			text += " (be root or the broker's user, or log in with --url and --user)"
		case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
			text += " (is the broker running?)"
		}
		return ExitUnreachable, text, true
	case errors.As(err, &refused):
		switch {
		case refused.Status == http.StatusUnauthorized:
			return ExitUnreachable, "the login was refused; give another one with --user and --password-file", true
		case refused.Status >= 500:
			return ExitFailed, refused.Error(), true
		}
		return ExitRefused, refused.Error(), true
	}
	return 0, "", false
}

// arguments reads key=value texts. A value that is JSON is taken as JSON, so that numbers are numbers.
func arguments(list []string) (map[string]any, error) {
	m := map[string]any{}
	for _, a := range list {
		key, value, ok := strings.Cut(a, "=")
		if !ok || key == "" {
			return nil, Usagef("--argument %q is not key=value", a)
		}
		var v any
		if json.Unmarshal([]byte(value), &v) != nil {
			v = value
		}
		m[key] = v
	}
	return m, nil
}

func argumentFlag(cmd *cobra.Command) *[]string {
	return cmd.Flags().StringArrayP("argument", "a", nil, "`key=value`, such as x-max-length=1000; may be repeated")
}
