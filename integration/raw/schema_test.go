package raw

import (
	"fmt"
	"strings"
)

// Field kinds of method arguments.
const (
	octet    = "o"
	short    = "s"
	long     = "l"
	longlong = "ll"
	shortstr = "ss"
	longstr  = "ls"
	table    = "t"
	bit      = "bit"
)

type field struct{ name, kind string }

type method struct {
	name    string
	class   uint16
	method  uint16
	content bool
	fields  []field
}

func (m *method) id() uint32 { return uint32(m.class)<<16 | uint32(m.method) }

// methodTable is AMQP 0-9-1 with RabbitMQ's extensions. A * marks methods with content.
const methodTable = `
connection.start 10.10 version-major:o version-minor:o server-properties:t mechanisms:ls locales:ls
connection.start-ok 10.11 client-properties:t mechanism:ss response:ls locale:ss
connection.secure 10.20 challenge:ls
connection.secure-ok 10.21 response:ls
connection.tune 10.30 channel-max:s frame-max:l heartbeat:s
connection.tune-ok 10.31 channel-max:s frame-max:l heartbeat:s
connection.open 10.40 virtual-host:ss reserved-1:ss reserved-2:bit
connection.open-ok 10.41 reserved-1:ss
connection.close 10.50 reply-code:s reply-text:ss class-id:s method-id:s
connection.close-ok 10.51
connection.blocked 10.60 reason:ss
connection.unblocked 10.61
connection.update-secret 10.70 new-secret:ls reason:ss
connection.update-secret-ok 10.71
channel.open 20.10 reserved-1:ss
channel.open-ok 20.11 reserved-1:ls
channel.flow 20.20 active:bit
channel.flow-ok 20.21 active:bit
channel.close 20.40 reply-code:s reply-text:ss class-id:s method-id:s
channel.close-ok 20.41
access.request 30.10 realm:ss exclusive:bit passive:bit active:bit write:bit read:bit
access.request-ok 30.11 ticket:s
exchange.declare 40.10 ticket:s exchange:ss type:ss passive:bit durable:bit auto-delete:bit internal:bit nowait:bit arguments:t
exchange.declare-ok 40.11
exchange.delete 40.20 ticket:s exchange:ss if-unused:bit nowait:bit
exchange.delete-ok 40.21
exchange.bind 40.30 ticket:s destination:ss source:ss routing-key:ss nowait:bit arguments:t
exchange.bind-ok 40.31
exchange.unbind 40.40 ticket:s destination:ss source:ss routing-key:ss nowait:bit arguments:t
exchange.unbind-ok 40.51
queue.declare 50.10 ticket:s queue:ss passive:bit durable:bit exclusive:bit auto-delete:bit nowait:bit arguments:t
queue.declare-ok 50.11 queue:ss message-count:l consumer-count:l
queue.bind 50.20 ticket:s queue:ss exchange:ss routing-key:ss nowait:bit arguments:t
queue.bind-ok 50.21
queue.purge 50.30 ticket:s queue:ss nowait:bit
queue.purge-ok 50.31 message-count:l
queue.delete 50.40 ticket:s queue:ss if-unused:bit if-empty:bit nowait:bit
queue.delete-ok 50.41 message-count:l
queue.unbind 50.50 ticket:s queue:ss exchange:ss routing-key:ss arguments:t
queue.unbind-ok 50.51
basic.qos 60.10 prefetch-size:l prefetch-count:s global:bit
basic.qos-ok 60.11
basic.consume 60.20 ticket:s queue:ss consumer-tag:ss no-local:bit no-ack:bit exclusive:bit nowait:bit arguments:t
basic.consume-ok 60.21 consumer-tag:ss
basic.cancel 60.30 consumer-tag:ss nowait:bit
basic.cancel-ok 60.31 consumer-tag:ss
basic.publish 60.40 * ticket:s exchange:ss routing-key:ss mandatory:bit immediate:bit
basic.return 60.50 * reply-code:s reply-text:ss exchange:ss routing-key:ss
basic.deliver 60.60 * consumer-tag:ss delivery-tag:ll redelivered:bit exchange:ss routing-key:ss
basic.get 60.70 ticket:s queue:ss no-ack:bit
basic.get-ok 60.71 * delivery-tag:ll redelivered:bit exchange:ss routing-key:ss message-count:l
basic.get-empty 60.72 reserved-1:ss
basic.ack 60.80 delivery-tag:ll multiple:bit
basic.reject 60.90 delivery-tag:ll requeue:bit
basic.recover-async 60.100 requeue:bit
basic.recover 60.110 requeue:bit
basic.recover-ok 60.111
basic.nack 60.120 delivery-tag:ll multiple:bit requeue:bit
basic.credit 60.200 consumer-tag:ss credit:l drain:bit
confirm.select 85.10 nowait:bit
confirm.select-ok 85.11
tx.select 90.10
tx.select-ok 90.11
tx.commit 90.20
tx.commit-ok 90.21
tx.rollback 90.30
tx.rollback-ok 90.31
`

var (
	methodsByName = map[string]*method{}
	methodsByID   = map[uint32]*method{}
	methodList    []*method // in the order of the table
)

func init() {
	for line := range strings.Lines(methodTable) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		m := &method{name: words[0]}
		if _, err := fmt.Sscanf(words[1], "%d.%d", &m.class, &m.method); err != nil {
			panic(fmt.Sprintf("%s: %v", words[0], err))
		}
		for _, w := range words[2:] {
			if w == "*" {
				m.content = true
				continue
			}
			name, kind, _ := strings.Cut(w, ":")
			m.fields = append(m.fields, field{name, kind})
		}
		methodsByName[m.name] = m
		methodsByID[m.id()] = m
		methodList = append(methodList, m)
	}
}

// propertyTable lists the content properties from flag bit 15 downwards.
var propertyTable = []field{
	{"content-type", shortstr},
	{"content-encoding", shortstr},
	{"headers", table},
	{"delivery-mode", octet},
	{"priority", octet},
	{"correlation-id", shortstr},
	{"reply-to", shortstr},
	{"expiration", shortstr},
	{"message-id", shortstr},
	{"timestamp", longlong},
	{"type", shortstr},
	{"user-id", shortstr},
	{"app-id", shortstr},
	{"cluster-id", shortstr},
}

func isProperty(name string) bool {
	for _, p := range propertyTable {
		if p.name == name {
			return true
		}
	}
	return false
}
