package management

import (
	"encoding/base64"
	"maps"
	"slices"
	"strings"

	"github.com/settmq/settmq/auth"
	"github.com/settmq/settmq/broker"
)

var userColumns = map[string]func(*auth.User) any{
	"name": func(u *auth.User) any { return u.Name },
}

func (r *request) userRow(u *auth.User) object {
	algorithm := u.Algorithm
	if algorithm == "" {
		algorithm = auth.SHA256
	}
	return object{
		{"name", u.Name},
		{"password_hash", auth.EncodeHash(algorithm, u.PasswordHash)},
		{"hashing_algorithm", algorithm},
		{"tags", texts(u.Tags)},
		{"limits", limitsObject(r.broker.Users().Limits(u.Name))},
	}
}

func limitsObject(limits map[string]int64) object {
	o := object{}
	for _, name := range slices.Sorted(maps.Keys(limits)) {
		o = append(o, field{name, limits[name]})
	}
	return o
}

func listUsers(r *request) (any, error) {
	return listOf(r.broker.Users().All(), userColumns, r.userRow).sortedBy("name").unpaged(), nil
}

// listUsersWithout lists the users that have no permissions anywhere.
func listUsersWithout(r *request) (any, error) {
	with := make(map[string]bool)
	for _, p := range r.broker.Users().Permissions(nil) {
		with[p.User] = true
	}
	without := slices.DeleteFunc(r.broker.Users().All(), func(u *auth.User) bool { return with[u.Name] })
	return listOf(without, userColumns, r.userRow).sortedBy("name").unpaged(), nil
}

// namedUser is the user of the path.
func (r *request) namedUser() (*auth.User, error) {
	if u := r.broker.Users().User(r.param("user")); u != nil {
		return u, nil
	}
	return nil, errNotFound
}

func getUser(r *request) (any, error) {
	u, err := r.namedUser()
	if err != nil {
		return nil, err
	}
	return r.userRow(u), nil
}

func putUser(r *request) (any, error) {
	name := r.param("user")
	if name == "" || len(name) > maxName {
		return nil, badRequest("a name has 1 to 255 bytes")
	}
	o, err := r.decode()
	if err != nil {
		return nil, err
	}
	u := &auth.User{Name: name, Algorithm: auth.SHA256}
	if u.Tags, err = o.tags("tags"); err != nil {
		return nil, err
	}
	if !o.has("tags") {
		return nil, badRequest("tags_not_present")
	}
	if err := setPassword(u, o); err != nil {
		return nil, err
	}
	created := r.broker.Users().User(name) == nil
	return put(created), r.broker.Users().Put(u)
}

// setPassword takes a password or its hash. Without either nobody can log in with one.
func setPassword(u *auth.User, o body) error {
	password, err := o.text("password", "")
	if err != nil {
		return err
	}
	hash, err := o.text("password_hash", "")
	if err != nil {
		return err
	}
	algorithm, err := o.text("hashing_algorithm", auth.SHA256)
	switch {
	case err != nil:
		return err
	case o.has("password") && o.has("password_hash"):
		return badRequest("both_password_and_password_hash_are_provided")
	case password != "":
		u.PasswordHash, err = auth.HashPassword(password)
		return err
	case hash == "":
		return nil
	}
	if _, err := base64.StdEncoding.DecodeString(hash); err != nil && algorithm != auth.Bcrypt {
		return badRequest([]any{"not_base64", hash})
	}
	if u.PasswordHash, err = auth.DecodeHash(algorithm, hash); err != nil {
		return badRequest(strings.TrimPrefix(err.Error(), "auth: "))
	}
	u.Algorithm = algorithm
	return nil
}

func deleteUser(r *request) (any, error) {
	u, err := r.namedUser()
	if err != nil {
		return nil, err
	}
	return noContent, r.removeUser(u.Name)
}

// removeUser removes a user and closes the connections that it has.
func (r *request) removeUser(name string) error {
	if err := r.broker.Users().Delete(name); err != nil {
		return err
	}
	r.broker.CloseConnections("user '"+name+"' is deleted", func(a *broker.ConnectionAbout) bool { return a.User == name })
	return nil
}

func deleteUsers(r *request) (any, error) {
	o, err := r.decode("users")
	if err != nil {
		return nil, err
	}
	var names []string
	if err := o.value("users", &names); err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := r.removeUser(name); err != nil {
			return nil, err
		}
	}
	return noContent, nil
}
