package management

import (
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/broker"
	"github.com/settmq/settmq/queue"
)

// apiError is a refusal: its status, and the two fields of its body. Without a kind there is no body.
type apiError struct {
	status int
	kind   string // RabbitMQ's word for it, such as bad_request
	reason any    // a text, or a list of values
}

// Error implements error.
func (e *apiError) Error() string {
	b, _ := appendJSON(nil, e.reason)
	return strconv.Itoa(e.status) + " " + e.kind + ": " + string(b)
}

// errNotFound is said of a thing that the path names and that is not there, or of a path that nothing is at.
var errNotFound = &apiError{http.StatusNotFound, "Object Not Found", "Not Found"}

// errNoVHost is said where RabbitMQ wants to change something in a vhost that is not there.
var errNoVHost = &apiError{http.StatusNotFound, "not_found", "vhost_not_found"}

func badRequest(reason any) error {
	return &apiError{http.StatusBadRequest, "bad_request", reason}
}

func notAuthorised(reason string) error {
	return &apiError{http.StatusUnauthorized, "not_authorised", reason}
}

// reply is an answer whose status is not 200, or that has a header.
type reply struct {
	status   int
	location string // of what was made, "" for none
	body     any    // nil for none
}

// noContent says that there is nothing more to say.
var noContent = &reply{status: http.StatusNoContent}

// put is the answer to a PUT: whether it made something new.
func put(created bool) *reply {
	if created {
		return &reply{status: http.StatusCreated}
	}
	return noContent
}

// refusal turns an error of the broker into one of the API; nil if it is no refusal but a fault.
func refusal(err error) *apiError {
	var (
		api      *apiError
		protocol *amqp.Error
		invalid  *broker.InvalidError
	)
	switch {
	case errors.As(err, &api):
		return api
	case errors.As(err, &protocol):
		return refusedByProtocol(protocol)
	case errors.As(err, &invalid):
		return &apiError{http.StatusBadRequest, "bad_request", invalid.Error()}
	case errors.Is(err, broker.ErrNoSuch), errors.Is(err, broker.ErrNoSuchUser), errors.Is(err, queue.ErrDeleted):
		return errNotFound
	}
	if errors.Is(err, broker.ErrPublishersBlocked) {
		return &apiError{http.StatusServiceUnavailable, "service_unavailable", err.Error()}
	}
	return nil
}

// refusedByProtocol words what AMQP would close a channel with. RabbitMQ tells nobody which right was missing.
func refusedByProtocol(err *amqp.Error) *apiError {
	text := strings.TrimPrefix(err.Text, amqp.ReplyName(err.Code)+" - ")
	switch err.Code {
	case amqp.ReplyNotFound:
		return &apiError{http.StatusNotFound, "not_found", text}
	case amqp.ReplyAccessRefused, amqp.ReplyNotAllowed:
		return &apiError{http.StatusUnauthorized, "not_authorised", "Access refused."}
	case amqp.ReplyInternalError:
		return nil
	}
	return &apiError{http.StatusBadRequest, "bad_request", text}
}

// answer writes what a handler returned.
func (s *Server) answer(w http.ResponseWriter, r *request, value any, err error) {
	l, listed := value.(*list)
	if listed && err == nil {
		value, err = l.render(r.query)
	}
	if err != nil {
		s.fail(w, r.Request, err)
		return
	}
	switch v := value.(type) {
	case *reply:
		if v.location != "" {
			w.Header().Set("Location", v.location)
		}
		if v.body == nil {
			w.WriteHeader(v.status)
			return
		}
		s.write(w, r.Request, v.status, v.body)
	case *raw:
		v.write(w)
	default:
		if !listed { // whose rows are cut already
			value = parseColumns(r.query).cut(value)
		}
		s.write(w, r.Request, http.StatusOK, value)
	}
}

// raw is an answer in a form of its own; write writes header and body.
type raw struct{ write func(http.ResponseWriter) }

// fail answers with an error. What is no refusal is our fault: it is logged, and its text stays here.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	e := refusal(err)
	if e == nil {
		s.log.Error().Err(err).Str("method", r.Method).Str("route", routeOf(r)).Msg("request failed")
		e = &apiError{http.StatusInternalServerError, "internal_server_error", "Internal Server Error"}
	}
	if e.kind == "" {
		w.WriteHeader(e.status)
		return
	}
	s.write(w, r, e.status, object{{"error", e.kind}, {"reason", e.reason}})
}

func (s *Server) write(w http.ResponseWriter, r *http.Request, status int, body any) {
	b, err := appendJSON(nil, body)
	if err != nil {
		s.log.Error().Err(err).Str("route", routeOf(r)).Msg("answer cannot be encoded")
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(b) // the client is gone
	}
}

// allow lists the methods of a path as the header Allow has them.
func allow(methods []string) string { return strings.Join(methods, ", ") }
