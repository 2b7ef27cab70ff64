package rabbitmqctl

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/settmq/settmq/auth"
	"github.com/settmq/settmq/cli/api"
)

// user is a user of the API.
type user struct {
	Name      string   `json:"name"`
	Hash      string   `json:"password_hash"`
	Algorithm string   `json:"hashing_algorithm"`
	Tags      []string `json:"tags"`
}

func userCommands() map[string]command {
	return map[string]command{
		"list_users": {
			usage:  "[--no-table-headers] [--timeout <timeout>]",
			banner: say("Listing users ..."), run: listUsers,
		},
		"add_user": {
			least: 1, most: 2, usage: "<username> [<password>] [<password_hash> --pre-hashed-password]", switches: []string{"pre-hashed-password"},
			banner: func(c *call) string { return fmt.Sprintf("Adding user %q ...", c.args[0]) }, run: addUser,
		},
		"change_password": {
			least: 1, most: 2, usage: "<username> [<password>] [<password_hash> --pre-hashed-password]", switches: []string{"pre-hashed-password"},
			banner: func(c *call) string { return fmt.Sprintf("Changing password for user %q ...", c.args[0]) }, run: changePassword,
		},
		"clear_password": {
			least: 1, most: 1, usage: "<username>",
			banner: func(c *call) string { return fmt.Sprintf("Clearing password for user %q ...", c.args[0]) },
			run: func(c *call) (result, error) {
				return nil, c.changeUser(c.args[0], func(body map[string]any) {
					delete(body, "hashing_algorithm")
					body["password_hash"] = ""
				})
			},
		},
		"authenticate_user": {
			least: 1, most: 2, usage: "<username> [<password>]",
			banner: func(c *call) string { return fmt.Sprintf("Authenticating user %q ...", c.args[0]) }, run: authenticateUser,
		},
		"set_user_tags": {
			least: 1, most: -1, usage: "<username> <tag> [...]",
			banner: func(c *call) string {
				return fmt.Sprintf("Setting tags for user %q to [%s] ...", c.args[0], strings.Join(c.args[1:], ", "))
			},
			run: func(c *call) (result, error) {
				return nil, c.changeUser(c.args[0], func(body map[string]any) { body["tags"] = strings.Join(c.args[1:], ",") })
			},
		},
		"delete_user": {
			least: 1, most: 1, usage: "<username>",
			banner: func(c *call) string { return fmt.Sprintf("Deleting user %q ...", c.args[0]) },
			run: func(c *call) (result, error) {
				err := c.api.Do(c.ctx, http.MethodDelete, api.Path("users", c.args[0]), nil, nil)
				if api.Is(err, http.StatusNotFound) { // gone is gone
					err = nil
				}
				return nil, err
			},
		},
		"set_user_limits": {
			least: 2, most: 2, usage: "<username> <definition>",
			banner: func(c *call) string {
				return fmt.Sprintf("Setting user limits to %q for user %q ...", raw(c.args[1]), c.args[0])
			},
			run: setUserLimits,
		},
		"clear_user_limits": {
			least: 2, most: 2, usage: "<username> <limit_type> | all",
			banner: func(c *call) string {
				if c.args[1] == "all" {
					return fmt.Sprintf("Clearing all limits for user %q ...", c.args[0])
				}
				return fmt.Sprintf("Clearing %q limit for user %q ...", c.args[1], c.args[0])
			},
			run: clearUserLimits,
		},
		"list_user_limits": {
			usage: "[--user <username>] [--global]", switches: []string{"user=", "global"},
			banner: func(c *call) string {
				if name := c.opts.get("user"); name != "" {
					return fmt.Sprintf("Listing limits for user %q ...", name)
				}
				return "Listing limits for all users ..."
			},
			run: listUserLimits,
		},
		"hash_password": {
			most: 1, usage: "<cleartext_password>",
			banner: say("Will hash password ..."), run: hashPassword,
		},
	}
}

// say is a line that is always the same.
func say(text string) func(*call) string { return func(*call) string { return text } }

// raw is a text that %q does not quote inside: RabbitMQ puts the argument between quotes as it is.
type raw string

// Format implements fmt.Formatter.
func (r raw) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, `"`+string(r)+`"`) }

func listUsers(c *call) (result, error) {
	var users []user
	if err := c.api.Get(c.ctx, "users", &users); err != nil {
		return nil, err
	}
	r := &rows{fields: []string{"user", "tags"}}
	for _, u := range users {
		r.values = append(r.values, []any{u.Name, list(u.Tags)})
	}
	return r, nil
}

// list is never nil, so that JSON has [].
func list(l []string) []string { return append([]string{}, l...) }

func noUser(err error, name string) error {
	if api.Is(err, http.StatusNotFound) {
		return failf(exitNoUser, "User %q does not exist", name)
	}
	return err
}

// password is the second operand, or the first line of standard input.
func (c *call) password() (string, error) {
	if len(c.args) > 1 {
		return c.args[1], nil
	}
	line, err := bufio.NewReader(io.LimitReader(c.tool.Stdin, 64<<10)).ReadString('\n')
	if line = strings.TrimRight(line, "\r\n"); line == "" {
		if err != nil && err != io.EOF { //nolint:errorlint // as io.Reader says
			return "", err
		}
		return "", failf(exitData, "Password is not provided via argument or stdin")
	}
	return line, nil
}

func (c *call) credentials() (map[string]any, error) {
	password, err := c.password()
	switch {
	case err != nil:
		return nil, err
	case c.opts.has("pre-hashed-password"):
		return map[string]any{"password_hash": password, "hashing_algorithm": "rabbit_password_hashing_sha256"}, nil
	case password == "":
		return map[string]any{"password_hash": ""}, nil
	}
	return map[string]any{"password": password}, nil
}

func addUser(c *call) (result, error) {
	body, err := c.credentials()
	if err != nil {
		return nil, err
	}
	path := api.Path("users", c.args[0])
	err = c.api.Get(c.ctx, path, nil)
	switch {
	case err == nil:
		return nil, failf(exitSoftware, "User %q already exists", c.args[0])
	case !api.Is(err, http.StatusNotFound):
		return nil, err
	}
	body["tags"] = ""
	if err := c.api.Do(c.ctx, http.MethodPut, path, body, nil); err != nil {
		return nil, err
	}
	if c.quiet() {
		return nil, nil
	}
	return message("Done. Don't forget to grant the user permissions to some virtual hosts! See 'rabbitmqctl help set_permissions' to learn more."), nil
}

// changeUser writes a user back with its hash and tags, and what change makes of them.
func (c *call) changeUser(name string, change func(body map[string]any)) error {
	var u user
	if err := c.api.Get(c.ctx, api.Path("users", name), &u); err != nil {
		return noUser(err, name)
	}
	body := map[string]any{"password_hash": u.Hash, "tags": strings.Join(u.Tags, ",")}
	if u.Algorithm != "" {
		body["hashing_algorithm"] = u.Algorithm
	}
	change(body)
	return c.api.Do(c.ctx, http.MethodPut, api.Path("users", name), body, nil)
}

func changePassword(c *call) (result, error) {
	credentials, err := c.credentials()
	if err != nil {
		return nil, err
	}
	return nil, c.changeUser(c.args[0], func(body map[string]any) {
		delete(body, "password_hash")
		delete(body, "hashing_algorithm")
		for k, v := range credentials {
			body[k] = v
		}
	})
}

// authenticateUser compares with the stored hash, which an administrator may read: no other way tells a wrong
// password from missing rights.
func authenticateUser(c *call) (result, error) {
	password, err := c.password()
	if err != nil {
		return nil, err
	}
	refused := failf(exitData, "Error: failed to authenticate user %q\nuser '%s' - invalid credentials", c.args[0], c.args[0])
	var u user
	err = c.api.Get(c.ctx, api.Path("users", c.args[0]), &u)
	if api.Is(err, http.StatusNotFound) {
		return nil, refused
	} else if err != nil {
		return nil, err
	}
	hash, err := auth.DecodeHash(u.Algorithm, u.Hash)
	if err != nil || !(&auth.User{Name: u.Name, PasswordHash: hash, Algorithm: u.Algorithm}).Verify(password) {
		return nil, refused
	}
	return message("Success"), nil
}

func setUserLimits(c *call) (result, error) {
	var limits map[string]any
	if err := decode(c.args[1], &limits); err != nil {
		return nil, err
	}
	if err := c.api.Get(c.ctx, api.Path("users", c.args[0]), nil); err != nil {
		return nil, noUser(err, c.args[0])
	}
	for name, value := range limits {
		err := c.api.Do(c.ctx, http.MethodPut, api.Path("user-limits", c.args[0], name), map[string]any{"value": value}, nil)
		if err != nil {
			return nil, invalid(err)
		}
	}
	return nil, nil
}

func clearUserLimits(c *call) (result, error) {
	names := []string{c.args[1]}
	if c.args[1] == "all" {
		limits, err := c.limits("user-limits", c.args[0])
		if err != nil {
			return nil, err
		}
		names = nil
		for _, p := range limits {
			names = append(names, p.key)
		}
	}
	for _, name := range names {
		err := c.api.Do(c.ctx, http.MethodDelete, api.Path("user-limits", c.args[0], name), nil, nil)
		if err != nil && !api.Is(err, http.StatusNotFound) {
			return nil, err
		}
	}
	return nil, nil
}

// limits of a user or a vhost, by kind: user-limits, vhost-limits.
func (c *call) limits(kind, name string) (pairs, error) {
	var all []struct {
		Value map[string]any `json:"value"`
	}
	err := c.api.Get(c.ctx, api.Path(kind, name), &all)
	if err != nil && !api.Is(err, http.StatusNotFound) {
		return nil, err
	}
	var found pairs
	for _, l := range all {
		found = append(found, sorted(l.Value)...)
	}
	return found, nil
}

func listUserLimits(c *call) (result, error) {
	if name := c.opts.get("user"); name != "" {
		limits, err := c.limits("user-limits", name)
		if err != nil {
			return nil, err
		}
		return jsonMessage(limits)
	}
	var all []struct {
		User  string         `json:"user"`
		Value map[string]any `json:"value"`
	}
	if err := c.api.Get(c.ctx, "user-limits", &all); err != nil {
		return nil, err
	}
	byUser := map[string]any{}
	for _, l := range all {
		byUser[l.User] = sorted(l.Value)
	}
	return jsonMessage(sorted(byUser))
}

// jsonMessage is JSON as a line of text.
func jsonMessage(v any) (result, error) {
	b, err := encode(v)
	return message(b), err
}

func hashPassword(c *call) (result, error) {
	c.args = append([]string{""}, c.args...)
	password, err := c.password()
	if err != nil {
		return nil, err
	}
	hash, err := auth.HashPassword(password)
	if err != nil {
		return nil, err
	}
	return message(auth.EncodeHash("", hash)), nil
}
