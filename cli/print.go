package cli

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	amqp091 "github.com/rabbitmq/amqp091-go"
)

// printer writes messages: bodies alone, one a line, or with everything else as JSON, one object a line.
type printer struct {
	w      *bufio.Writer
	json   bool
	escape bool // the output is a terminal: bodies must not steer it
}

func newPrinter(w io.Writer, asJSON bool) *printer {
	return &printer{w: bufio.NewWriter(w), json: asJSON, escape: isCharDevice(w)}
}

// print writes one message and flushes, so that what is acknowledged afterwards has been seen.
func (p *printer) print(d *amqp091.Delivery) error {
	if p.json {
		b, err := json.Marshal(describe(d))
		if err != nil {
			return fmt.Errorf("message as JSON: %w", err)
		}
		_, _ = p.w.Write(b)
	} else if p.escape {
		_, _ = p.w.WriteString(printable(d.Body))
	} else {
		_, _ = p.w.Write(d.Body)
	}
	_ = p.w.WriteByte('\n') // bufio keeps the first error for Flush
	return p.w.Flush()
}

// printable replaces control characters and invalid bytes by escapes; tabs and line ends stay.
func printable(body []byte) string {
	var b strings.Builder
	for len(body) > 0 {
		r, n := utf8.DecodeRune(body)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, body[0])
		case r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r)):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
		body = body[n:]
	}
	return b.String()
}

// message is a delivery as --json shows it. A body that is no UTF-8 comes as base64.
type message struct {
	Exchange        string         `json:"exchange"`
	RoutingKey      string         `json:"routing_key"`
	Redelivered     bool           `json:"redelivered"`
	Body            *string        `json:"body,omitempty"`
	BodyBase64      *string        `json:"body_base64,omitempty"`
	Headers         map[string]any `json:"headers,omitempty"`
	ContentType     string         `json:"content_type,omitempty"`
	ContentEncoding string         `json:"content_encoding,omitempty"`
	DeliveryMode    uint8          `json:"delivery_mode,omitempty"`
	Priority        uint8          `json:"priority,omitempty"`
	CorrelationID   string         `json:"correlation_id,omitempty"`
	ReplyTo         string         `json:"reply_to,omitempty"`
	Expiration      string         `json:"expiration,omitempty"`
	MessageID       string         `json:"message_id,omitempty"`
	Timestamp       *time.Time     `json:"timestamp,omitempty"`
	Type            string         `json:"type,omitempty"`
	UserID          string         `json:"user_id,omitempty"`
	AppID           string         `json:"app_id,omitempty"`
}

func describe(d *amqp091.Delivery) message {
	m := message{
		Exchange: d.Exchange, RoutingKey: d.RoutingKey, Redelivered: d.Redelivered,
		ContentType: d.ContentType, ContentEncoding: d.ContentEncoding, DeliveryMode: d.DeliveryMode, Priority: d.Priority,
		CorrelationID: d.CorrelationId, ReplyTo: d.ReplyTo, Expiration: d.Expiration, MessageID: d.MessageId,
		Type: d.Type, UserID: d.UserId, AppID: d.AppId,
	}
	if len(d.Headers) > 0 {
		m.Headers, _ = plain(d.Headers).(map[string]any)
	}
	if !d.Timestamp.IsZero() {
		t := d.Timestamp.UTC()
		m.Timestamp = &t
	}
	body := string(d.Body)
	if utf8.ValidString(body) {
		m.Body = &body
	} else {
		body = base64.StdEncoding.EncodeToString(d.Body)
		m.BodyBase64 = &body
	}
	return m
}

// plain turns a header value into one that JSON has. What JSON lacks (NaN, decimals, bytes) becomes text.
func plain(v any) any {
	switch v := v.(type) {
	case amqp091.Table:
		m := make(map[string]any, len(v))
		for k, e := range v {
			m[k] = plain(e)
		}
		return m
	case []any:
		l := make([]any, len(v))
		for i, e := range v {
			l[i] = plain(e)
		}
		return l
	case []byte:
		return base64.StdEncoding.EncodeToString(v)
	case float32, float64, amqp091.Decimal:
		if b, err := json.Marshal(v); err == nil {
			return json.RawMessage(b)
		}
		return fmt.Sprint(v)
	}
	return v
}
