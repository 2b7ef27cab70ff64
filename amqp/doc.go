// Package amqp is the codec of AMQP 0-9-1 as RabbitMQ speaks it: frames, methods,
// content headers, field tables and errors, between bytes and Go values.
//
// It knows no sockets, connections, queues or users and keeps no state, so every
// function may be called from any goroutine. It serves both sides: a server and a
// client differ only in which methods they send.
//
// # Reading
//
// A reader keeps a buffer of received bytes and calls [ParseFrame] on its head
// until that asks for more. Nothing is allocated for a frame and its payload is
// checked against the limit as soon as its seven bytes of head are there, so a
// hostile length costs nothing; [FrameSize] then says how far the buffer has to
// grow.
//
//	bytes ── ParseFrame ──┬─ FrameMethod ── PeekMethodID ─┬─ hot:  BasicPublish.Decode, BasicAck.Decode …
//	                      │                               └─ cold: ParseMethod
//	                      ├─ FrameHeader ── ParseContentHeader ── ParseProperties
//	                      ├─ FrameBody      (the payload is the body)
//	                      └─ FrameHeartbeat
//
// What aliases the input: Frame.Payload, the fields of [BasicPublish], what
// [ParseContentHeader] returns and the slices of [Properties]. They die with the
// reader's buffer. Everything else is copied and may be kept: strings, the byte
// slices of other methods, and a [Table] with all its values (one copy holds all
// the text of a table).
//
// # Writing
//
// Encoders append to the caller's slice and return it, so that one buffer can take
// a burst of frames and go out in one write. [AppendMethod] takes any method;
// [AppendDeliver], [AppendAck] and [AppendNack] are for the hot path and allocate
// nothing but room in the slice. [AppendContent] splits a body into frames; a
// writer that sends a large body by reference builds the frames around it with
// [AppendContentHeader] and [AppendFrameHead].
//
// A short string has at most 255 bytes on the wire. Encoders never cut one
// silently, for a cut name is another name: they panic, because names are checked
// where they enter a program (anything decoded is short enough; [Table.Check] is
// for tables of other origin). Prose is different: the text of an error or reason
// is cut at a rune boundary.
//
// # Messages
//
// A message's properties are carried in encoded form (two bytes of flags, then the
// values) from publisher to consumer. [ParseProperties] shows what is in them
// without a copy, [LookupHeader] finds one header, [WithoutHeader] removes one.
//
// # Errors
//
// A rule of the protocol that a peer broke is an [*Error] with the reply code, the
// text in RabbitMQ's words and, once known, the method. Its code decides whether
// the channel or the connection ends ([Error.Connection]). Nothing a peer sends
// makes a decoder panic.
//
// # Limits
//
// Tables nest at most [MaxTableDepth] deep and hold at most [MaxTableFields]
// fields, counted over all levels, and [MaxTableElements] array elements. Beyond
// that, as with an unknown type letter, the answer is 502 SYNTAX_ERROR.
//
// # Where RabbitMQ departs from the specification
//
// Table letters are RabbitMQ's, not the specification's: 's' is a 16-bit integer,
// 'l' and 'L' are both signed 64-bit, 'x' is a byte string (see [KindBool] and its siblings). A payload
// may exceed the negotiated limit by the eight bytes of a frame's overhead.
// exchange.unbind-ok is 40.51. Reserved fields, "ticket" among them, may hold
// anything and are dropped.
package amqp

//go:generate go run ./spec
