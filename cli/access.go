package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/settmq/settmq/cli/api"
)

func (a *App) vhostsCommand() *cobra.Command {
	path := func(_, name string) string { return api.Path("vhosts", name) }
	var description, tags, kind string
	var tracing bool
	declare := apiCommand("declare NAME", "Make a vhost, or change it", operands(1, 1, "the name of one vhost"), func(r *request) error {
		// The API takes what is left out for empty.
		var v row
		body := map[string]any{}
		err := r.api.Get(r.ctx, path("", r.args[0]), &v)
		if err != nil && !api.Is(err, http.StatusNotFound) {
			return err
		}
		if err == nil {
			body["tags"] = text(v["tags"])
			for _, key := range []string{"description", "default_queue_type", "tracing"} {
				if v[key] != nil {
					body[key] = v[key]
				}
			}
		}
		for flag, value := range map[string]any{"description": description, "tags": tags, "default-queue-type": kind, "tracing": tracing} {
			if r.cmd.Flags().Changed(flag) {
				body[strings.ReplaceAll(flag, "-", "_")] = value
			}
		}
		if err := r.api.Do(r.ctx, http.MethodPut, path("", r.args[0]), body, nil); err != nil {
			return err
		}
		return r.done("vhost %q is there", r.args[0])
	})
	f := declare.Flags()
	f.StringVar(&description, "description", "", "a `text` for people")
	f.StringVar(&tags, "tags", "", "`tags`, with commas between")
	f.StringVar(&kind, "default-queue-type", "", "`type` of queues that name none")
	f.BoolVar(&tracing, "tracing", false, "copy all messages to amq.rabbitmq.trace")
	return group("vhosts", "Vhosts: list, show, declare, delete",
		a.list(listing{path: "vhosts", columns: []string{"name", "description", "tags", "default_queue_type", "tracing", "messages"}}),
		a.show("vhost", false, path), declare,
		deleteCommand("vhost", "Delete a vhost with all that is in it", path))
}

// deleteCommand makes a command that deletes an object that is in no vhost.
func deleteCommand(what, short string, path func(vhost, name string) string) *cobra.Command {
	return apiCommand("delete NAME", short, operands(1, 1, "the name of one "+what), func(r *request) error {
		if err := r.api.Do(r.ctx, http.MethodDelete, path("", r.args[0]), nil, nil); err != nil {
			return missing(err, what, r.args[0], "")
		}
		return r.done("%s %q deleted", what, r.args[0])
	})
}

func (a *App) usersCommand() *cobra.Command {
	path := func(_, name string) string { return api.Path("users", name) }
	return group("users", "Users: list, show, declare, delete",
		a.list(listing{path: "users", columns: []string{"name", "tags"}}),
		a.show("user", false, path), a.declareUser(),
		deleteCommand("user", "Delete a user", path))
}

func (a *App) declareUser() *cobra.Command {
	var newPassword, tags string
	var noPassword bool
	cmd := apiCommand("declare NAME {--new-password-file FILE | --no-password}", "Make a user, or change tags or password", operands(1, 1, "the name of one user"), func(r *request) error {
		body := map[string]any{"tags": tags}
		path := api.Path("users", r.args[0])
		var there struct {
			Hash      string   `json:"password_hash"`
			Algorithm string   `json:"hashing_algorithm"`
			Tags      []string `json:"tags"`
		}
		err := r.api.Get(r.ctx, path, &there)
		exists := err == nil
		if err != nil && !api.Is(err, http.StatusNotFound) {
			return err
		}
		if exists && !r.cmd.Flags().Changed("tags") {
			body["tags"] = strings.Join(there.Tags, ",")
		}
		switch {
		case newPassword != "" && noPassword:
			return Usagef("--new-password-file and --no-password exclude each other")
		case newPassword != "":
			if body["password"], err = a.readSecret(newPassword); err != nil {
				return err
			}
		case noPassword:
			body["password_hash"] = ""
		case !exists:
			return Usagef("needs --new-password-file, or --no-password for a user who logs in by certificate; - reads the password from standard input")
		default:
			body["password_hash"], body["hashing_algorithm"] = there.Hash, there.Algorithm
		}
		if err := r.api.Do(r.ctx, http.MethodPut, path, body, nil); err != nil {
			return err
		}
		if exists {
			return r.done("user %q changed", r.args[0])
		}
		return r.done("user %q is there; settmq permissions set gives rights in a vhost", r.args[0])
	})
	f := cmd.Flags()
	f.StringVar(&newPassword, "new-password-file", "", "`file` with the user's password; - is standard input")
	f.BoolVar(&noPassword, "no-password", false, "nobody can log in with a password")
	f.StringVar(&tags, "tags", "", "`tags` with commas between: administrator, monitoring, policymaker, management")
	return cmd
}

func (a *App) permissionsCommand() *cobra.Command {
	var vhost, configure, write, read string
	set := apiCommand("set USER", "Say what a user may do in a vhost", operands(1, 1, "the name of one user"), func(r *request) error {
		body := map[string]any{"configure": configure, "write": write, "read": read}
		if err := r.api.Do(r.ctx, http.MethodPut, api.Path("permissions", vhost, r.args[0]), body, nil); err != nil {
			return missing(err, "user or vhost for", r.args[0], vhost)
		}
		return r.done("permissions of %q in %q are set", r.args[0], vhost)
	})
	vhostFlag(set, &vhost)
	f := set.Flags()
	f.StringVar(&configure, "configure", ".*", "names of what it may declare and delete, a regular `expression`")
	f.StringVar(&write, "write", ".*", "names of what it may publish to and bind, a regular `expression`")
	f.StringVar(&read, "read", ".*", "names of what it may consume from, a regular `expression`")
	var from string
	remove := apiCommand("delete USER", "Take all rights of a user in a vhost", operands(1, 1, "the name of one user"), func(r *request) error {
		if err := r.api.Do(r.ctx, http.MethodDelete, api.Path("permissions", from, r.args[0]), nil, nil); err != nil {
			return missing(err, "permission for", r.args[0], from)
		}
		return r.done("%q may do nothing in %q", r.args[0], from)
	})
	vhostFlag(remove, &from)
	return group("permissions", "Permissions of users in vhosts: list, set, delete",
		a.list(listing{path: "permissions", columns: []string{"user", "vhost", "configure", "write", "read"}}), set, remove)
}

func (a *App) policiesCommand() *cobra.Command {
	operator := func(cmd *cobra.Command) *bool {
		return cmd.Flags().Bool("operator", false, "operator policies, which bound what the others may set")
	}
	kind := func(op *bool) string {
		if *op {
			return "operator-policies"
		}
		return "policies"
	}
	columns := []string{"name", "vhost", "pattern", "apply-to", "definition", "priority"}
	var out *output
	var listVHost, match string
	var listOp *bool
	list := apiCommand("list", "", NoOperands, func(r *request) error {
		l := listing{path: kind(listOp), columns: columns}
		rows, err := l.fetch(r, out, listVHost, match)
		if err != nil {
			return err
		}
		return out.print(a.Stdout, rows)
	})
	out = addOutput(list, columns...)
	listOp = operator(list)
	list.Flags().StringVarP(&listVHost, "vhost", "p", "", "`vhost` to list (default: all that the user may see)")
	list.Flags().StringVar(&match, "match", "", "show only names that match the `regular expression`")

	var vhost, pattern, definition, applyTo string
	var priority int
	var op *bool
	declare := apiCommand("declare NAME --pattern REGEXP --definition JSON", "Make or change a policy", operands(1, 1, "the name of one policy"), func(r *request) error {
		if !r.cmd.Flags().Changed("pattern") || definition == "" {
			return Usagef("needs --pattern and --definition")
		}
		var d map[string]any
		if err := json.Unmarshal([]byte(definition), &d); err != nil {
			return Usagef("--definition is no JSON object: %s", err)
		}
		body := map[string]any{"pattern": pattern, "definition": d, "priority": priority, "apply-to": applyTo}
		if err := r.api.Do(r.ctx, http.MethodPut, api.Path(kind(op), vhost, r.args[0]), body, nil); err != nil {
			return missing(err, "vhost", vhost, "")
		}
		return r.done("policy %q is set", r.args[0])
	})
	op = operator(declare)
	vhostFlag(declare, &vhost)
	f := declare.Flags()
	f.StringVar(&pattern, "pattern", "", "names it is for, a regular `expression`")
	f.StringVar(&definition, "definition", "", "settings as a `JSON` object, such as {\"max-length\": 1000}")
	f.StringVar(&applyTo, "apply-to", "all", "`what` it is for: all, queues, classic_queues, quorum_queues, streams, exchanges")
	f.IntVar(&priority, "priority", 0, "of several that match the one with the highest `number` counts")

	var from string
	var removeOp *bool
	remove := apiCommand("delete NAME", "Delete a policy", operands(1, 1, "the name of one policy"), func(r *request) error {
		if err := r.api.Do(r.ctx, http.MethodDelete, api.Path(kind(removeOp), from, r.args[0]), nil, nil); err != nil {
			return missing(err, "policy", r.args[0], from)
		}
		return r.done("policy %q deleted", r.args[0])
	})
	removeOp = operator(remove)
	vhostFlag(remove, &from)
	return group("policies", "Policies: list, declare, delete", list, declare, remove)
}

func (a *App) definitionsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "definitions", GroupID: GroupManage, Short: "All of users, vhosts, topology in one file: export, import", Args: NoCommand,
		RunE: func(*cobra.Command, []string) error { return Usagef("needs export or import") },
	}
	var vhost string
	path := func(vhost string) string {
		if vhost == "" {
			return "definitions"
		}
		return api.Path("definitions", vhost)
	}
	export := apiCommand("export [FILE]", "Write definitions as JSON, to standard output or a file", operands(0, 1, "at most one file"), func(r *request) error {
		var d json.RawMessage
		if err := r.api.Get(r.ctx, path(vhost), &d); err != nil {
			return missing(err, "vhost", vhost, "")
		}
		d = append(d, '\n')
		if len(r.args) == 0 {
			_, err := a.Stdout.Write(d)
			return err
		}
		// Password hashes are in it.
		if err := os.WriteFile(r.args[0], d, 0o600); err != nil {
			return err
		}
		return r.done("%s: %d bytes", r.args[0], len(d))
	})
	var into string
	load := apiCommand("import [FILE]", "Take over definitions, from standard input or a file", operands(0, 1, "at most one file"), func(r *request) error {
		var b []byte
		var err error
		if len(r.args) == 0 {
			b, err = io.ReadAll(a.Stdin)
		} else {
			b, err = os.ReadFile(r.args[0])
		}
		if err != nil {
			return err
		}
		if !json.Valid(b) {
			return fmt.Errorf("that is no JSON")
		}
		if err := r.api.Do(r.ctx, http.MethodPost, path(into), json.RawMessage(b), nil); err != nil {
			return missing(err, "vhost", into, "")
		}
		return r.done("definitions imported")
	})
	export.Flags().StringVarP(&vhost, "vhost", "p", "", "only those of a `vhost`")
	load.Flags().StringVarP(&into, "vhost", "p", "", "into a `vhost`, from a file for one")
	cmd.AddCommand(export, load)
	return cmd
}
