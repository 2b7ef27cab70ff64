package management

import (
	"net/http"
	"slices"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/broker"
	"github.com/settmq/settmq/queue"
)

// queueIn is a queue with its vhost.
type queueIn struct {
	broker.Queue
	vhost *broker.VHost
}

// Columns that are known without rendering the row; the counters are those of one look each.
var queueColumns = map[string]func(queueIn) any{
	"name":                    func(q queueIn) any { return q.About().Name },
	"vhost":                   func(q queueIn) any { return q.vhost.Name() },
	"type":                    func(q queueIn) any { return broker.TypeOf(q).String() },
	"durable":                 func(q queueIn) any { return q.About().Durable },
	"auto_delete":             func(q queueIn) any { return q.About().AutoDelete },
	"exclusive":               func(q queueIn) any { return q.About().Exclusive() },
	"messages":                func(q queueIn) any { d := q.details(); return d.Messages() },
	"messages_ready":          func(q queueIn) any { return q.Info().Ready },
	"messages_unacknowledged": func(q queueIn) any { return q.Info().Unacked },
	"consumers":               func(q queueIn) any { return q.Info().Consumers },
}

// details are the queue's numbers of this moment.
func (q queueIn) details() (d queue.Details) {
	q.Details(&d)
	return d
}

// noRate is a rate where nobody measures one.
var noRate = object{{"rate", 0.0}}

// queueFields is how many fields the row of a queue has, about.
const queueFields = 48

// queueBasics is what a queue is, without its counters.
func (r *request) queueBasics(q queueIn) object {
	d, t := q.About(), broker.TypeOf(q)
	o := append(make(object, 0, queueFields), object{
		{"arguments", d.Arguments},
		{"auto_delete", d.AutoDelete},
		{"durable", d.Durable},
		{"exclusive", d.Exclusive()},
		{"internal", false},
		{"internal_owner", false},
		{"name", d.Name},
		{"node", r.broker.Node()},
		{"type", t.String()},
		{"vhost", q.vhost.Name()},
	}...)
	if d.Exclusive() {
		if c := r.broker.ConnectionByID(d.Owner); c != nil {
			a := c.About()
			o = append(o, field{"owner_pid_details", object{{"name", a.Name}, {"peer_port", a.PeerPort}, {"peer_host", a.PeerHost}}})
		}
	}
	if t != broker.ClassicQueue {
		members := []string{r.broker.Node()}
		o = append(o, field{"leader", r.broker.Node()}, field{"members", members}, field{"online", members})
	}
	if t == broker.QuorumQueue {
		limit := any("unlimited")
		if l := q.vhost.QueueSettings(q.Queue).DeliveryLimit; l.Set {
			limit = l.Value
		}
		o = append(o, field{"delivery_limit", limit})
	}
	return append(o, policyFields(q)...)
}

// policyFields says which policies a queue obeys.
func policyFields(q queueIn) object {
	var policy, operator any
	definition := any(object{})
	if e := q.vhost.QueuePolicy(q.Queue); e != nil {
		definition = e.Definition
		if e.Policy != nil {
			policy = e.Policy.Name
		}
		if e.Operator != nil {
			operator = e.Operator.Name
		}
	}
	return object{{"policy", policy}, {"operator_policy", operator}, {"effective_policy_definition", definition}}
}

// queueRow is the row of a list. The query may ask for less: for no statistics, or for the totals alone.
func (r *request) queueRow(q queueIn) object {
	if r.query.Get("disable_stats") != "true" {
		return append(r.queueBasics(q), r.queueCounters(q)...)
	}
	if r.query.Get("enable_queue_totals") != "true" {
		return append(r.queueBasics(q), field{"state", "running"})
	}
	var online any
	o := object{}
	for _, f := range r.queueBasics(q) {
		switch f.name {
		case "internal", "internal_owner", "policy":
		case "operator_policy", "effective_policy_definition":
			if broker.TypeOf(q) != broker.ClassicQueue {
				o = append(o, f)
			}
		case "online":
			online = f.value
		default:
			o = append(o, f)
		}
	}
	return append(append(o, queueTotals(q)...), field{"online", online}, field{"state", "running"})
}

// queueCounters are the numbers of a moment. Bytes are those of bodies.
func (r *request) queueCounters(q queueIn) object {
	d, lengthsOf, rates := q.details(), r.window("lengths"), r.window("msg_rates")
	s := r.broker.QueueSeries(q.Queue, lengthsOf.asked() || rates.asked())
	persistent, persistentBytes := d.Persistent()
	state := "running"
	if d.Failed {
		state = "crashed"
	}
	o := append(lengths(d.Ready, d.Unacked, d.Messages(), &s, lengthsOf, queueLengths), object{
		{"consumers", d.Consumers},
		{"consumer_capacity", s.Utilisation()},
		{"consumer_utilisation", s.Utilisation()},
		{"memory", d.Memory()},
		{"message_bytes", d.ReadyBytes + d.UnackedBytes},
		{"message_bytes_ready", d.ReadyBytes},
		{"message_bytes_unacknowledged", d.UnackedBytes},
		{"message_bytes_ram", d.LoadedBytes},
		{"message_bytes_persistent", persistentBytes},
		{"messages_ram", d.ReadyLoaded + d.UnackedLoaded},
		{"messages_persistent", persistent},
		{"reductions", 0},
		{"reductions_details", noRate},
		{"state", state},
	}...)
	switch broker.TypeOf(q) {
	case broker.ClassicQueue:
		o = append(o, field{"messages_ready_ram", d.ReadyLoaded}, field{"messages_unacknowledged_ram", d.UnackedLoaded}, field{"storage_version", 2})
	case broker.QuorumQueue:
		o = append(o, field{"delayed_retry", q.vhost.QueueSettings(q.Queue).DelayedRetry.String()}, field{"messages_delayed", d.Delayed},
			field{"messages_dlx", d.Leaving}, field{"message_bytes_dlx", 0}, field{"open_files", object{{r.broker.Node(), 0}}}, field{"publishers", 0})
	case broker.StreamQueue:
		o = append(o, field{"segments", d.Segments}, field{"first_timestamp", d.FirstTimestamp}, field{"readers", object{{r.broker.Node(), d.Consumers}}})
	}
	if t, ok := headTimestamp(q.Queue); ok {
		o = append(o, field{"head_message_timestamp", t})
	}
	return append(o, messageStats(&d.MessageStats, &s, rates, queueCounts, queueMessages)...)
}

// headTimestamp is the timestamp of the message that is next in a queue.
func headTimestamp(q broker.Queue) (uint64, bool) {
	h, ok := q.(interface{ HeadTimestamp() (uint64, bool) })
	if !ok {
		return 0, false
	}
	return h.HeadTimestamp()
}

func queueTotals(q queueIn) object {
	d := q.details()
	return object{{"messages", d.Messages()}, {"messages_ready", d.Ready}, {"messages_unacknowledged", d.Unacked}}
}

// listedQueues are the queues of the vhosts that the user may see.
func (r *request) listedQueues() []queueIn {
	var all []queueIn
	for _, v := range r.listedVHosts() {
		for _, q := range v.Queues() {
			all = append(all, queueIn{q, v})
		}
	}
	return all
}

func listQueues(r *request) (any, error) {
	return listOf(r.listedQueues(), queueColumns, r.queueRow), nil
}

// listQueuesOfUser lists the exclusive queues of a user's connections. Who declared the others is not kept.
func listQueuesOfUser(r *request) (any, error) {
	u, err := r.namedUser()
	if err != nil {
		return nil, err
	}
	owned := slices.DeleteFunc(r.listedQueues(), func(q queueIn) bool {
		c := r.broker.ConnectionByID(q.About().Owner)
		return c == nil || c.About().User != u.Name
	})
	return listOf(owned, queueColumns, r.queueRow), nil
}

// namedQueue is the queue of the path.
func (r *request) namedQueue() (queueIn, error) {
	if q := r.vhost.Queue(r.param("queue")); q != nil {
		return queueIn{q, r.vhost}, nil
	}
	return queueIn{}, errNotFound
}

func getQueue(r *request) (any, error) {
	q, err := r.namedQueue()
	if err != nil {
		return nil, err
	}
	o := r.queueRow(q)
	if r.query.Get("disable_stats") == "true" {
		return o, nil
	}
	var active, exclusive any // tags
	id, single := activeConsumer(q.Queue)
	details := []object{}
	for _, c := range r.consumersOf(func(c broker.ConsumerInfo, vhost string) bool {
		return vhost == q.vhost.Name() && c.Queue.About().Name == q.About().Name
	}) {
		if single && c.ID == id {
			active = c.Tag
		}
		if c.Exclusive {
			exclusive = c.Tag
		}
		details = append(details, r.consumerRow(c))
	}
	if broker.TypeOf(q) == broker.ClassicQueue {
		o = append(o, field{"exclusive_consumer_tag", exclusive})
		if _, ok := o.get("head_message_timestamp"); !ok {
			o = append(o, field{"head_message_timestamp", nil})
		}
	}
	s := r.broker.QueueSeries(q.Queue, false)
	o = append(o, idleSince(s.Changed)...)
	return append(o, field{"consumer_details", details}, field{"deliveries", []object{}}, field{"incoming", []object{}},
		field{"single_active_consumer_tag", active}), nil
}

func putQueue(r *request) (any, error) {
	o, err := r.decode()
	if err != nil {
		return nil, err
	}
	d := broker.QueueDeclare{Name: r.param("queue")}
	if d.Durable, err = o.flag("durable", false); err != nil {
		return nil, err
	}
	if d.AutoDelete, err = o.flag("auto_delete", false); err != nil {
		return nil, err
	}
	if d.Arguments, err = o.arguments(); err != nil {
		return nil, err
	}
	node, err := o.text("node", r.broker.Node())
	switch {
	case err != nil:
		return nil, err
	case node != r.broker.Node():
		return nil, badRequest("Node " + node + " is not a cluster member")
	case d.Name == "" || len(d.Name) > amqp.MaxShortString:
		return nil, badRequest("a name has 1 to 255 bytes")
	}
	created := r.vhost.Queue(d.Name) == nil
	if _, refused := r.vhost.DeclareQueue(r.actor(r.vhost), d); refused != nil {
		return nil, refused
	}
	return put(created), nil
}

func deleteQueue(r *request) (any, error) {
	q, err := r.namedQueue()
	if err != nil {
		return nil, err
	}
	ifUnused, ifEmpty := r.query.Get("if-unused") == "true", r.query.Get("if-empty") == "true"
	if _, refused := r.vhost.DeleteQueue(r.actor(r.vhost), q.About().Name, ifUnused, ifEmpty); refused != nil {
		return nil, refused
	}
	return noContent, nil
}

func purgeQueue(r *request) (any, error) {
	if _, err := r.namedQueue(); err != nil {
		return nil, err
	}
	q, refused := r.vhost.UseQueue(r.actor(r.vhost), r.param("queue"))
	if refused != nil {
		return nil, refused
	}
	if _, err := q.Purge(); err != nil {
		return nil, err
	}
	return noContent, nil
}

// actOnQueue does nothing: RabbitMQ has no actions any more.
func actOnQueue(r *request) (any, error) {
	if _, err := r.namedQueue(); err != nil {
		return nil, &apiError{http.StatusNotFound, "not_found", "queue_not_found"}
	}
	o, err := r.decode("action")
	if err != nil {
		return nil, err
	}
	action, err := o.text("action", "")
	if err != nil {
		return nil, err
	}
	return nil, badRequest([]any{"unknown", action})
}

// nothing lists what there is none of: shovels and federation links, which agents ask for.
func nothing(*request) (any, error) { return []any{}, nil }

// rebalance moves leaders between nodes, of which there is one.
func rebalance(*request) (any, error) { return noContent, nil }
