// Package auth knows who may log in and what they may touch.
//
// It holds the rules and nothing that lasts: users, permissions and topic permissions are
// values that the broker keeps in its metadata and hands to this package to be checked. It
// knows no sockets, no clock, no storage and no AMQP frames.
//
// # Logging in
//
//   - [ParsePlain] takes a SASL PLAIN response apart. AMQPLAIN is a field table, so the
//     server decodes that one with the codec it already has.
//   - [User.Verify] compares a password in constant time. When no user of that name exists
//     the caller runs [VerifyNone], so that the answer takes as long.
//   - [CertificateName] gives the user name for EXTERNAL, only from a certificate whose chain
//     was verified.
//   - [IsLoopback] decides whether a peer counts as local, for users that may only log in
//     from this machine.
//
// Password hashes have RabbitMQ's form (salt of 4 bytes, then the digest of salt and
// password), so that users can move between the brokers without new passwords. New ones are
// always SHA-256; SHA-512, MD5 and bcrypt are verified, never produced.
//
// # Touching things
//
// [Permissions] are three patterns for a user in a vhost, matched against the name of the
// exchange or queue. A pattern is a regular expression, not anchored unless it is written so;
// the empty pattern matches the empty name alone, which is how "nothing" is spelt. Go's linear
// time engine runs whatever it can; patterns with look-around or back-references go to a
// backtracking engine with a time limit, and a match that runs out of time is a refusal.
// [TopicPermission] narrows routing keys for one exchange and may mention the user, the vhost
// and the client id.
//
// # Records
//
// Marshal methods and Unmarshal functions turn the three kinds of value into bytes for the
// metadata store. The first byte is the version of the record; an unknown version is an error.
//
// All values may be read from any goroutine as long as nobody changes them.
package auth
