// Package definitions reads and writes RabbitMQ's definitions files: the JSON that its management plugin exports,
// of a whole broker or of one vhost, of versions 3.6 to 4.3, and what LavinMQ makes of that form.
//
// [Parse] turns a file into typed values and reports everything that is wrong with it,
// each problem with the path of the value ("queues[3].arguments.x-expires"); it never returns half a
// file. Whether an exchange exists, an argument is supported or a user may be replaced is for the broker
// to decide, which applies the result.
//
// Input is hostile: size, nesting and the length of names are bounded, the file is read element by
// element, and keys given twice are an error, since two readers would not agree which one counts.
//
// Unknown keys of an object are passed over, because every version of RabbitMQ adds some. Unknown
// sections are too, and are listed in [Definitions.Ignored] so that an operator can be told.
//
// Policies, parameters and global parameters keep their values as JSON; [Table] turns such a value
// into a table when somebody needs it.
//
// [Write] is the way back, in the form of RabbitMQ 4.3.
package definitions
