package management

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/settmq/settmq/auth"
	"github.com/settmq/settmq/broker"
)

// maxBody bounds the bodies of all requests but those that carry messages or definitions, in bytes.
const maxBody = 1 << 20

// request is one request of somebody who may make it. It belongs to its handler's goroutine.
type request struct {
	*http.Request
	server *Server
	broker *broker.Broker
	query  url.Values
	params map[string]string
	// user is who asks, nil over the Unix socket.
	user *auth.User
	// vhost is the one that the path names; nil if it names none.
	vhost *broker.VHost
	w     http.ResponseWriter
}

// localUser is the name of whoever comes over the Unix socket.
const localUser = "rmq-internal"

// param is a part of the path, unescaped.
func (r *request) param(name string) string { return r.params[name] }

// exchange is a part of the path that names an exchange: the default one goes by amq.default.
func (r *request) exchange(name string) string {
	if n := r.param(name); n != auth.DefaultExchange {
		return n
	}
	return ""
}

// pathParams unescapes the parts of the path that the pattern names. The router goes by RawPath where there is one, and by
// what is unescaped already otherwise.
func pathParams(r *http.Request) (map[string]string, error) {
	c := chi.RouteContext(r.Context())
	params := make(map[string]string, len(c.URLParams.Keys))
	for i, key := range c.URLParams.Keys {
		value := c.URLParams.Values[i]
		if r.URL.RawPath != "" {
			var err error
			if value, err = url.PathUnescape(value); err != nil {
				return nil, err
			}
		}
		params[key] = value
	}
	return params, nil
}

// userName is who asks, for logs and answers.
func (r *request) userName() string {
	if r.user == nil {
		return localUser
	}
	return r.user.Name
}

// actor asks the broker in the user's name. Being an administrator gives no permission.
func (r *request) actor(v *broker.VHost) broker.Actor {
	if r.user == nil {
		return localActor{}
	}
	return r.broker.Users().NewSession(r.user, v.Name(), 0)
}

// localActor may do everything but use what belongs to a connection.
type localActor struct{ broker.System }

// readBody reads the body, which may have limit bytes.
func (r *request) readBody(limit int64) ([]byte, error) {
	b, err := io.ReadAll(http.MaxBytesReader(r.w, r.Body, limit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, badRequest("Exceeded HTTP request body size limit")
	case err != nil:
		return nil, &apiError{status: http.StatusRequestTimeout}
	}
	return b, nil
}

// body is the object that a request carries.
type body map[string]json.RawMessage

// decode reads the body, which must be an object that has the keys. No body, and null, are an empty object.
func (r *request) decode(keys ...string) (body, error) { return r.decodeLimited(maxBody, keys...) }

func (r *request) decodeLimited(limit int64, keys ...string) (body, error) {
	b, err := r.readBody(limit)
	if err != nil {
		return nil, err
	}
	o := body{}
	switch string(b) {
	case "", "null", "undefined":
	default:
		var text string
		if json.Unmarshal(b, &text) == nil {
			return nil, badRequest("invalid payload: the request body JSON-decoded to a string. Is the input doubly-JSON-encoded?")
		}
		if json.Unmarshal(b, &o) != nil || o == nil {
			return nil, badRequest("not_json")
		}
	}
	return o, o.need(keys...)
}

// need refuses an object without some of the keys, as RabbitMQ does: all of them are named.
func (o body) need(keys ...string) error {
	var missing []string
	for _, key := range keys {
		if _, ok := o[key]; !ok {
			missing = append(missing, "{key_missing,"+key+"}")
		}
	}
	if missing == nil {
		return nil
	}
	text := "[" + strings.Join(missing, ",") + "]"
	if len(text) >= erlangLine {
		text = "[" + strings.Join(missing, ",\n ") + "]"
	}
	return badRequest(text)
}

// erlangLine is the length from which Erlang breaks a list into lines.
const erlangLine = 79

// has reports whether a key is there with a value other than null.
func (o body) has(key string) bool {
	raw, ok := o[key]
	return ok && string(raw) != "null"
}

// text is a string, otherwise if it is not there. A number is its digits.
func (o body) text(key, otherwise string) (string, error) {
	if !o.has(key) {
		return otherwise, nil
	}
	var s string
	if json.Unmarshal(o[key], &s) == nil {
		return s, nil
	}
	var n json.Number
	if json.Unmarshal(o[key], &n) == nil {
		return n.String(), nil
	}
	return "", badRequest([]any{"not_string", o[key]})
}

// flag is a boolean, or the text of one.
func (o body) flag(key string, otherwise bool) (bool, error) {
	if _, there := o[key]; !there {
		return otherwise, nil
	}
	switch string(o[key]) {
	case "true", `"true"`:
		return true, nil
	case "false", `"false"`:
		return false, nil
	}
	return false, badRequest([]any{"not_boolean", o[key]})
}

// number is an integer, or the text of one.
func (o body) number(key string, otherwise int64) (int64, error) {
	if !o.has(key) {
		return otherwise, nil
	}
	raw := string(o[key])
	if n, err := strconv.ParseInt(raw, 10, 64); err == nil {
		return n, nil
	}
	var s string
	if json.Unmarshal(o[key], &s) == nil {
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			return n, nil
		}
	}
	return 0, badRequest([]any{"not_integer", o[key]})
}

// value decodes what is under a key.
func (o body) value(key string, to any) error {
	if json.Unmarshal(o[key], to) != nil {
		return badRequest([]any{"not_valid", key})
	}
	return nil
}
