package amqp

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCodesCloseWhatRabbitMQCloses(t *testing.T) {
	soft := map[uint16]bool{
		ReplyContentTooLarge: true, ReplyNoRoute: true, ReplyNoConsumers: true, ReplyAccessRefused: true,
		ReplyNotFound: true, ReplyResourceLocked: true, ReplyPreconditionFailed: true,
	}
	for code := uint16(0); code < 1000; code++ {
		if have := NewError(code, "").Connection(); have == soft[code] {
			t.Errorf("%d %s: closes the connection %t", code, ReplyName(code), have)
		}
	}
}

func TestErrorTextsStartWithTheirName(t *testing.T) {
	for _, c := range []struct {
		err  *Error
		code uint16
		text string
	}{
		{NotFound("no queue '%s' in vhost '%s'", "q", "/"), 404, "NOT_FOUND - no queue 'q' in vhost '/'"},
		{PreconditionFailed("100%%"), 406, "PRECONDITION_FAILED - 100%"},
		{AccessRefused("x"), 403, "ACCESS_REFUSED - x"},
		{ResourceLocked("x"), 405, "RESOURCE_LOCKED - x"},
		{ConnectionForced("x"), 320, "CONNECTION_FORCED - x"},
		{FrameError("x"), 501, "FRAME_ERROR - x"},
		{SyntaxError("x"), 502, "SYNTAX_ERROR - x"},
		{CommandInvalid("x"), 503, "COMMAND_INVALID - x"},
		{ChannelError("x"), 504, "CHANNEL_ERROR - x"},
		{UnexpectedFrame("x"), 505, "UNEXPECTED_FRAME - x"},
		{ResourceError("x"), 506, "RESOURCE_ERROR - x"},
		{NotAllowed("x"), 530, "NOT_ALLOWED - x"},
		{NotImplemented("immediate=%t", true), 540, "NOT_IMPLEMENTED - immediate=true"},
		{InternalError(""), 541, "INTERNAL_ERROR"},
		{NewError(999, "x"), 999, "CODE_999 - x"},
	} {
		wantError(t, c.err, c.code, c.text)
	}
}

func TestForLeavesTheOriginalAlone(t *testing.T) {
	e := NotFound("x")
	f := e.For(QueueBindID)
	if e.Class != 0 || e.Method != 0 || f.Class != 50 || f.Method != 20 || f.Text != e.Text {
		t.Fatalf("%+v %+v", e, f)
	}
	var found *Error
	if !errors.As(fmt.Errorf("wrapped: %w", f), &found) || found != f {
		t.Fatal("not found by errors.As")
	}
	if m := f.ChannelClose(); *m != (ChannelClose{404, f.Text, 50, 20}) {
		t.Errorf("%+v", m)
	}
	if m := f.ConnectionClose(); *m != (ConnectionClose{404, f.Text, 50, 20}) {
		t.Errorf("%+v", m)
	}
}

func TestReplyTextIsCutOnARune(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"short", "short"},
		{strings.Repeat("a", 255), strings.Repeat("a", 255)},
		{strings.Repeat("a", 256), strings.Repeat("a", 252) + "..."},
		{strings.Repeat("a", 251) + "éééé", strings.Repeat("a", 251) + "..."},
		{strings.Repeat("a", 253) + "é", strings.Repeat("a", 253) + "é"},
		{strings.Repeat("a", 250) + "\U0001F407\U0001F407", strings.Repeat("a", 250) + "..."},
		{"bad \xff name", "bad \uFFFD name"},
	} {
		var m ChannelClose
		must(t, m.Decode((&ChannelClose{ReplyText: c.in}).Append(nil)))
		if m.ReplyText != c.want || !utf8.ValidString(m.ReplyText) {
			t.Errorf("%q became %q, want %q", c.in, m.ReplyText, c.want)
		}
	}
}
