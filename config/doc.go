// Package config is what an operator may set: one YAML file, one tree of Go values.
//
// Every key has a default, given by [Default] alone, and is explained in config.example.yaml, which
// equals the defaults. [Load] reads a file on top of them. It is strict: an unknown key, a key given
// twice, a value of the wrong kind or a second document is an error that names the line. [Config.Validate]
// then looks at the values and returns every problem at once, each with the path of its key
// ("listeners[1].tls.cert: ...").
//
// Names are RabbitMQ's where it has one. Amounts of bytes are a [Size] ("64MiB"), times a [Duration]
// ("10s"); a number without a unit is never a time, since RabbitMQ's own keys do not agree whether it
// would be seconds or milliseconds. Passwords are a [Secret], which does not print itself.
//
// The package reads files and knows nothing of those who use the values: each component takes its own
// small options, filled in by the command. What only a component can judge (does a permission pattern
// compile, can a certificate be parsed) is judged there.
package config
