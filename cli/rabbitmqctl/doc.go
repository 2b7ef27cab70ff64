// Package rabbitmqctl is RabbitMQ's command line tools, rabbitmqctl, rabbitmq-diagnostics, rabbitmq-plugins and
// rabbitmqadmin, on top of the management API.
//
// It is for what runs those tools and reads what they print: compose files, test containers, Ansible, scripts. Command
// lines, output and exit codes are RabbitMQ 4.3's, and recorded from it: testdata/recorded.txt. What makes no
// sense for a single process without Erlang (eval, clustering, stop_app) is refused in one line and exit code 70,
// never taken for done.
//
// A command is an entry of a table: how many operands, which switches, the line it announces itself with, and a
// function that makes a result. The formatters (table, json, csv, pretty_table) know nothing of commands.
package rabbitmqctl
