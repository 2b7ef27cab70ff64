package amqp

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Error is a broken rule of the protocol: what goes into connection.close, channel.close or, for the
// codes meant for it, basic.return. It is immutable once returned; For makes a changed copy.
type Error struct {
	Code uint16
	// Text starts with the code's name: "NOT_FOUND - no queue 'q' in vhost '/'". It is cut to the 255
	// bytes of a reply text only when it is encoded.
	Text string
	// Class and Method name the method that broke the rule, both zero when there is none.
	Class, Method uint16
}

// NewError returns an error whose text is the code's name and, unless the format is empty, an explanation.
func NewError(code uint16, format string, args ...any) *Error {
	name := ReplyName(code)
	if name == "" {
		name = "CODE_" + strconv.Itoa(int(code))
	}
	if format == "" {
		return &Error{Code: code, Text: name}
	}
	return &Error{Code: code, Text: name + " - " + fmt.Sprintf(format, args...)}
}

// Error returns the reply text.
func (e *Error) Error() string { return e.Text }

// Connection reports whether the error ends the connection; otherwise it ends the channel it happened on.
// On channel 0 there is only the connection to end, whatever the code.
func (e *Error) Connection() bool { return !softError(e.Code) }

// For returns a copy of the error that names the method it answers.
func (e *Error) For(id MethodID) *Error {
	c := *e
	c.Class, c.Method = id.Class(), id.Method()
	return &c
}

// MethodID returns the method that the error answers, 0 if it names none.
func (e *Error) MethodID() MethodID { return MethodID(uint32(e.Class)<<16 | uint32(e.Method)) }

// ConnectionClose returns the method that tells the peer.
func (e *Error) ConnectionClose() *ConnectionClose {
	return &ConnectionClose{ReplyCode: e.Code, ReplyText: e.Text, ClassID: e.Class, MethodID: e.Method}
}

// ChannelClose returns the method that tells the peer.
func (e *Error) ChannelClose() *ChannelClose {
	return &ChannelClose{ReplyCode: e.Code, ReplyText: e.Text, ClassID: e.Class, MethodID: e.Method}
}

// ConnectionForced returns error 320: an operator or a shutdown ends the connection.
func ConnectionForced(format string, args ...any) *Error {
	return NewError(ReplyConnectionForced, format, args...)
}

// AccessRefused returns error 403: the user lacks a permission, or the name is reserved.
func AccessRefused(format string, args ...any) *Error {
	return NewError(ReplyAccessRefused, format, args...)
}

// NotFound returns error 404: no such queue, exchange or virtual host.
func NotFound(format string, args ...any) *Error { return NewError(ReplyNotFound, format, args...) }

// ResourceLocked returns error 405: the queue is another connection's, or has an exclusive consumer.
func ResourceLocked(format string, args ...any) *Error {
	return NewError(ReplyResourceLocked, format, args...)
}

// PreconditionFailed returns error 406: an argument does not fit what exists.
func PreconditionFailed(format string, args ...any) *Error {
	return NewError(ReplyPreconditionFailed, format, args...)
}

// FrameError returns error 501: bytes that are not a frame, or a frame that cannot be decoded.
func FrameError(format string, args ...any) *Error { return NewError(ReplyFrameError, format, args...) }

// SyntaxError returns error 502: a field with an impossible value.
func SyntaxError(format string, args ...any) *Error {
	return NewError(ReplySyntaxError, format, args...)
}

// CommandInvalid returns error 503: a method that cannot be used, or not now.
func CommandInvalid(format string, args ...any) *Error {
	return NewError(ReplyCommandInvalid, format, args...)
}

// ChannelError returns error 504: a frame for a channel that is not open, or an open for one that is.
func ChannelError(format string, args ...any) *Error {
	return NewError(ReplyChannelError, format, args...)
}

// UnexpectedFrame returns error 505: a frame whose turn it is not.
func UnexpectedFrame(format string, args ...any) *Error {
	return NewError(ReplyUnexpectedFrame, format, args...)
}

// ResourceError returns error 506: the broker has no room for it.
func ResourceError(format string, args ...any) *Error {
	return NewError(ReplyResourceError, format, args...)
}

// NotAllowed returns error 530: a rule that holds whatever the permissions are.
func NotAllowed(format string, args ...any) *Error { return NewError(ReplyNotAllowed, format, args...) }

// NotImplemented returns error 540: a feature this broker does not have.
func NotImplemented(format string, args ...any) *Error {
	return NewError(ReplyNotImplemented, format, args...)
}

// InternalError returns error 541: the broker's own fault. An empty format is the usual one, for the
// cause belongs in the log.
func InternalError(format string, args ...any) *Error {
	return NewError(ReplyInternalError, format, args...)
}

// The texts of frame errors show the payload as an Erlang term, because RabbitMQ's do.

func frameTooLarge(frameType uint8, size, limit uint32) *Error {
	return FrameError("type %d, all octets = <<>>: {frame_too_large,%d,%d}", frameType, size, limit)
}

func badFrameEnd(f Frame, end byte) *Error {
	return FrameError("%s: {invalid_frame_end_marker,%d}", snippet(f), end)
}

func unknownFrame(f Frame) *Error { return FrameError("%s: unknown_frame", snippet(f)) }

func misplacedFrame(f Frame) *Error { return UnexpectedFrame("%s", snippet(f)) }

func snippet(f Frame) string {
	what, shown := "all octets", f.Payload
	if len(shown) > 16 {
		what, shown = "first 16 octets", shown[:16]
	}
	return fmt.Sprintf("type %d, %s = %s", f.Type, what, appendBinary(nil, string(shown)))
}

// cutText returns s as it can stand in a short string: valid UTF-8 of at most 255 bytes. What is cut ends
// on a rune and with three dots, as RabbitMQ's texts do.
func cutText(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= MaxShortString {
		return s
	}
	const dots = "..."
	end := MaxShortString - len(dots)
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + dots
}
