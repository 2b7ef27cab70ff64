// Package raw checks a broker's exceptions frame by frame.
//
// Client libraries hide what a broker does with a peer that breaks the protocol. The tests
// here speak AMQP 0-9-1 with a codec of their own (nothing of this module's amqp package, so
// that a mistake in it cannot hide itself) and compare every answer in full: code, text,
// scope, offending method, and what happens afterwards.
//
// Most of it is scripts in testdata/*.txt, run by TestScripts. A script holds scenarios:
//
//	=== second channel.open (7.1)
//	open
//	channel 1
//	> 1 channel.open
//	< 0 connection.close 504 20.10 CHANNEL_ERROR - second 'channel.open' seen
//	> 0 connection.close-ok
//	eof
//
// Each scenario has its own connections and its own names, and all run at the same time
// while a bystander connection publishes and consumes: it must never be disturbed. A frame
// that is not expected fails the scenario, also at its end.
//
// Lines (a leading "b: " means connection b instead of a):
//
//	dial                       connect TCP only
//	header                     send the protocol header AMQP 0 0 9 1
//	open [NAME=VALUE...]       dial and shake hands; user, pass, vhost, channel-max, frame-max,
//	                           heartbeat, caps=none|all. The limits of tune are taken when not given
//	channel N...               open channels
//	> CH METHOD ARGS           send a method, for basic.publish with header and body
//	>m CH METHOD ARGS          send the method frame alone
//	>h CH class=60 size=5 ...  send a content header; weight, properties as names, flags, raw (hex)
//	>b CH TEXT | zeros=N       send a body frame
//	>f type=1 channel=0 payload=HEX|zeros=N [size=N] [end=HEX]   any frame
//	>x HEX                     any bytes
//	< CH METHOD ARGS           the next frame on that channel; fields not named must be zero,
//	                           NAME=* matches anything, NAME=?var remembers it as $var
//	< 0 heartbeat
//	<raw HEX                   the next bytes (before the handshake)
//	eof [DURATION]             the server ends the connection within that time (default 10s)
//	close | reset              end TCP from our side, orderly or with RST
//	eventually ... end         repeat the lines until they pass, for at most 10 s
//	repeat N ... end           run the lines N times, $i counts from 1
//
// Arguments are NAME=VALUE, a bare NAME is a bit that is set. A value is a number, a word, a
// quoted Go string, or a table: {a=I:5,b=S:text,c=F:{d=V},e=A:[t:1]} with RabbitMQ's type
// letters; an unknown letter takes hex bytes. The arguments of close methods are
// CODE CLASS.METHOD TEXT, where TEXT may start with ~ to be a regular expression.
//
// $vhost, $user, $pass come from the broker's URL, $nonl is reserved; every other $name is a fresh
// name. Queues and exchanges that a scenario declared are deleted after it.
//
// # Brokers
//
// With AMQP_URL the scripts run against that broker, otherwise against a settmq child. The
// expectations are proved against RabbitMQ. Where we differ on purpose, a scenario has a line
// "differs: REASON" and lines that begin with @settmq or @rabbitmq (also @rabbitmq<4.1,
// @rabbitmq>=4.3), which count on that broker only. "only: settmq REASON" limits a whole scenario.
// "needs: ARGUMENT" skips it while the broker refuses that queue argument as not supported yet.
// A broker is settmq if the platform in its server-properties says so.
package raw
