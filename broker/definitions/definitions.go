package definitions

import (
	"encoding/json"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/auth"
)

// Definitions is the content of a file, each list in the order of the file.
type Definitions struct {
	// Version of the broker that wrote the file, "" if it does not say.
	Version string
	// Cluster is the name of the broker that is written; reading leaves it empty.
	Cluster string
	// Ignored are the sections that this program does not know, in the order of the file.
	Ignored []string

	Users            []User
	VHosts           []VHost
	Permissions      []Permission
	TopicPermissions []TopicPermission
	Exchanges        []Exchange
	Queues           []Queue
	Bindings         []Binding
	Policies         []Policy
	Parameters       []Parameter
	GlobalParameters []GlobalParameter
}

// User is an account. A password in clear, as hand-written files have it, is hashed already.
type User struct {
	auth.User
	Limits []Limit // "max-connections", "max-channels"
}

// Limit is a named number; negative is no limit.
type Limit struct {
	Name  string
	Value int64
}

// VHost is a virtual host. In a file of a single vhost it is made up from the file's head.
type VHost struct {
	Name             string
	Description      string
	Tags             []string
	DefaultQueueType string // "" if the file does not say
	Tracing          bool
	Limits           []Limit // "max-connections", "max-queues"
}

// Permission is the rights of a user in a vhost. The patterns are compiled.
type Permission struct {
	User, VHost string
	auth.Permissions
}

// TopicPermission narrows a user's routing keys for one exchange. The patterns are known to compile.
type TopicPermission struct {
	User, VHost string
	auth.TopicPermission
}

// Exchange is an exchange to declare. Durable is true, the other flags false, where the file is silent.
type Exchange struct {
	VHost, Name, Type             string
	Durable, AutoDelete, Internal bool
	Arguments                     amqp.Table
}

// Queue is a queue to declare. Durable is true, AutoDelete false, where the file is silent.
type Queue struct {
	VHost, Name         string
	Type                string // as the exporting broker saw it; "" in old files. The declared one is in Arguments
	Durable, AutoDelete bool
	Arguments           amqp.Table
}

// Binding binds a queue or an exchange to an exchange.
type Binding struct {
	VHost, Source, Destination string
	ToExchange                 bool // the destination is an exchange, otherwise a queue
	RoutingKey                 string
	Arguments                  amqp.Table
}

// Policy applies settings to the queues and exchanges of a vhost whose names match. The pattern is
// known to compile.
type Policy struct {
	VHost, Name, Pattern string
	ApplyTo              string // all, queues, exchanges, classic_queues, quorum_queues, streams
	Priority             int64
	Definition           json.RawMessage // an object
}

// Parameter is a runtime parameter of a vhost; operator policies and vhost limits come as such.
type Parameter struct {
	VHost, Component, Name string
	Value                  json.RawMessage
}

// GlobalParameter is a runtime parameter of the broker.
type GlobalParameter struct {
	Name  string
	Value json.RawMessage
}
