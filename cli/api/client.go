// Package api is a client of the management API.
//
// A Client talks to one broker, over HTTP, HTTPS, or the broker's socket. It knows paths, errors and limits, and
// nothing of what the objects mean. Its methods may be called from any goroutine.
package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

const (
	connectTimeout = 5 * time.Second
	// requestTimeout bounds one request with its answer; the slowest is a list of everything.
	requestTimeout = 60 * time.Second
	// maxAnswer is the largest answer that is read, in bytes: a list of a hundred thousand queues has a fifth of it.
	maxAnswer = 512 << 20
)

// Target is a broker's management API.
type Target struct {
	Socket string // path of the broker's socket; everything below is for URL
	URL    string // http:// or https://, with an optional path in front of /api; no password in it
	User   string
	// Password is sent with every request, so only to URL.
	Password string
	CAFile   string // PEM of the authorities that sign the broker's certificate; "": the system's
}

// Client makes requests to a Target.
type Client struct {
	target Target
	base   *url.URL
	http   *http.Client
}

// New makes a client. It connects with the first request. The error says what is wrong with the target.
func New(t Target) (*Client, error) {
	dialer := &net.Dialer{Timeout: connectTimeout}
	transport := &http.Transport{DialContext: dialer.DialContext, TLSHandshakeTimeout: connectTimeout, MaxIdleConns: 1}
	c := &Client{target: t, http: &http.Client{Transport: transport, Timeout: requestTimeout}}
	// A redirect would take the password elsewhere.
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if t.Socket != "" {
		c.base = &url.URL{Scheme: "http", Host: "settmq"}
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", t.Socket)
		}
		return c, nil
	}
	base, err := url.Parse(t.URL)
	if err != nil || (base.Scheme != "http" && base.Scheme != "https") || base.Host == "" || base.User != nil {
		return nil, errors.New("the address of the management API is http://host:port or https://host:port, with the user apart")
	}
	base.Path, base.RawPath = strings.TrimSuffix(base.Path, "/"), ""
	c.base = base
	transport.Proxy = http.ProxyFromEnvironment
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, err
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: no certificates in PEM form", t.CAFile)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	return c, nil
}

// Close gives up idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Where names the target for people: the socket's path, or the URL.
func (c *Client) Where() string {
	if c.target.Socket != "" {
		return c.target.Socket
	}
	return c.base.String()
}

// User is who the requests are made as; "" is the administrator, over the socket.
func (c *Client) User() string {
	if c.target.Socket != "" {
		return ""
	}
	return c.target.User
}

// Path joins the parts of a path below /api and escapes each: Path("queues", "/", "a b") is queues/%2F/a%20b.
func Path(parts ...string) string {
	escaped := make([]string, len(parts))
	for i, p := range parts {
		escaped[i] = url.PathEscape(p)
		if p == "." || p == ".." { // would be taken for the way up
			escaped[i] = strings.ReplaceAll(p, ".", "%2E")
		}
	}
	return strings.Join(escaped, "/")
}

// Error is an answer that says no.
type Error struct {
	Status int    // of HTTP
	Path   string // that was asked for, without its query
	Kind   string // a word, such as not_found; may be empty
	Reason string // for people
}

func (e *Error) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("%s (%d)", http.StatusText(e.Status), e.Status)
	}
	return e.Reason
}

// Is reports whether an error is an answer with this status.
func Is(err error, status int) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == status
}

// UnreachableError is a request that has got no answer.
type UnreachableError struct {
	Where string
	Err   error
}

func (e *UnreachableError) Error() string {
	err := e.Err
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		err = op.Err
	}
	return fmt.Sprintf("cannot reach the management API at %s: %v", e.Where, err)
}

// Unwrap is the reason.
func (e *UnreachableError) Unwrap() error { return e.Err }

// Get fetches a path below /api into out.
func (c *Client) Get(ctx context.Context, path string, out any) error {
	return c.Do(ctx, http.MethodGet, path, nil, out)
}

// Do makes a request to a path below /api, which may have a query. body is sent as JSON unless it is nil, the
// answer is read into out unless that is nil. Numbers in an out of type any are json.Number. Errors are *Error
// and *UnreachableError, or say what is wrong with the answer.
func (c *Client) Do(ctx context.Context, method, path string, body, out any) error {
	return c.do(ctx, method, "/api/"+path, nil, body, out)
}

// DoWith is Do with one header more.
func (c *Client) DoWith(ctx context.Context, header, value, method, path string, body, out any) error {
	return c.do(ctx, method, "/api/"+path, http.Header{header: {value}}, body, out)
}

// Probe makes a GET to a path of the server that is not below /api, and reads no answer.
func (c *Client) Probe(ctx context.Context, path string) error {
	return c.do(ctx, http.MethodGet, path, nil, nil, nil)
}

func (c *Client) do(ctx context.Context, method, path string, header http.Header, body, out any) error {
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, c.base.String()+path, content)
	if err != nil {
		return err
	}
	for name, values := range header {
		r.Header[name] = values
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.target.Socket == "" && c.target.User != "" {
		r.SetBasicAuth(c.target.User, c.target.Password)
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return &UnreachableError{c.Where(), err}
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	if err != nil {
		return &UnreachableError{c.Where(), err}
	}
	if len(b) > maxAnswer {
		return fmt.Errorf("an answer of more than %d MiB: ask for less", maxAnswer>>20)
	}
	if answer.StatusCode/100 != 2 {
		return refusal(answer.StatusCode, path, b)
	}
	if out == nil {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(out); err != nil {
		return fmt.Errorf("%s %s: not the answer of a management API: %w", method, path, err)
	}
	return nil
}

// refusal reads what an answer that says no has to say.
func refusal(status int, path string, body []byte) error {
	path, _, _ = strings.Cut(path, "?")
	e := &Error{Status: status, Path: path}
	var told struct {
		Error  any `json:"error"`
		Reason any `json:"reason"`
	}
	if json.Unmarshal(body, &told) == nil {
		e.Kind, _ = told.Error.(string)
		switch reason := told.Reason.(type) {
		case string:
			e.Reason = reason
		case nil:
		default:
			if b, err := json.Marshal(reason); err == nil {
				e.Reason = string(b)
			}
		}
	}
	return e
}
