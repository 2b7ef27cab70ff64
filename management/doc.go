// Package management is the HTTP API: RabbitMQ's, so that its tools and its clients' test suites work, over the same
// operations of package broker that AMQP uses.
//
// It owns paths, methods, access rules, the form of answers and errors. It refuses to know how a queue works,
// what lasts and what a right means: that is the broker's, and so are the words of its refusals.
//
// # How a request goes
//
// [Server] bounds what a client may send and how long it may take, refuses what a browser sends for another site,
// and hands the rest to a router that is built from one table (routes.go): method, pattern, who may, and the handler.
// A handler gets a [request] (the user, the vhost of the path, parameters, the body) and returns a value and an
// error. Values are an [object], a [list] (sorted, filtered, paged and cut to columns before it is rendered), or a
// [reply] for other statuses than 200; an error is an [apiError], or one of the broker's, which becomes one.
//
// A resource has a file of its own. No lock of the broker is held while an answer is encoded: handlers work on
// snapshots.
//
// # Who may
//
// Users log in with HTTP's Basic scheme and need one of the tags management, policymaker, monitoring and
// administrator; what each may do is RabbitMQ's (access.go). A Unix socket that only the owner of the broker can open
// ([Server.ServeLocal]) needs no password and has the rights of an administrator with all permissions in every vhost.
package management
