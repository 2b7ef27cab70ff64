package definitions

import (
	"bufio"
	"encoding/json"
	"io"
	"strconv"
	"strings"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/auth"
)

// Write writes a file that [Parse] and RabbitMQ read: of the whole broker, or of the vhost that
// is named, whose objects do not name it and which has no users.
//
// JSON has fewer types than tables: integers come back as 64-bit ones, timestamps as integers,
// and bytes that are not UTF-8 as U+FFFD.
func Write(w io.Writer, d *Definitions, vhost string) error {
	b := bufio.NewWriter(w)
	f := &writer{e: json.NewEncoder(b), vhost: vhost}
	f.e.SetEscapeHTML(false)
	if err := f.e.Encode(f.file(d)); err != nil {
		return err
	}
	return b.Flush()
}

type writer struct {
	e     *json.Encoder
	vhost string
}

// fields is one JSON object; keys are written in order of the alphabet.
type fields map[string]any

func (f *writer) file(d *Definitions) fields {
	all := fields{
		"rabbit_version": d.Version, "rabbitmq_version": d.Version, "product_name": "RabbitMQ", "product_version": d.Version,
		"rabbitmq_definition_format": "cluster", "explanation": "Definitions of cluster '" + d.Cluster + "'", "original_cluster_name": d.Cluster,
		"parameters": f.list(len(d.Parameters), func(i int) fields {
			p := &d.Parameters[i]
			return fields{"vhost": p.VHost, "component": p.Component, "name": p.Name, "value": p.Value}
		}),
		"policies": f.list(len(d.Policies), func(i int) fields {
			p := &d.Policies[i]
			return fields{"vhost": p.VHost, "name": p.Name, "pattern": p.Pattern, "apply-to": p.ApplyTo, "priority": p.Priority, "definition": p.Definition}
		}),
		"exchanges": f.list(len(d.Exchanges), func(i int) fields {
			x := &d.Exchanges[i]
			return fields{
				"vhost": x.VHost, "name": x.Name, "type": x.Type, "durable": x.Durable, "auto_delete": x.AutoDelete,
				"internal": x.Internal, "arguments": jsonObject(x.Arguments),
			}
		}),
		"queues": f.list(len(d.Queues), func(i int) fields {
			q := &d.Queues[i]
			return fields{
				"vhost": q.VHost, "name": q.Name, "type": q.Type, "durable": q.Durable, "auto_delete": q.AutoDelete,
				"arguments": jsonObject(q.Arguments),
			}
		}),
		"bindings": f.list(len(d.Bindings), func(i int) fields {
			b := &d.Bindings[i]
			kind := "queue"
			if b.ToExchange {
				kind = "exchange"
			}
			return fields{
				"vhost": b.VHost, "source": b.Source, "destination": b.Destination, "destination_type": kind,
				"routing_key": b.RoutingKey, "arguments": jsonObject(b.Arguments),
			}
		}),
	}
	if f.vhost == "" {
		f.broker(d, all)
		return all
	}
	all["rabbitmq_definition_format"] = "single_virtual_host"
	all["explanation"] = "Definitions of virtual host '" + f.vhost + "'"
	all["original_vhost_name"] = f.vhost
	delete(all, "original_cluster_name")
	for i := range d.VHosts {
		if v := &d.VHosts[i]; v.Name == f.vhost {
			all["limits"], all["metadata"], all["description"] = limits(v.Limits), metadata(v), v.Description
		}
	}
	return all
}

// broker adds what only a file of a whole broker has.
func (f *writer) broker(d *Definitions, all fields) {
	all["users"] = f.list(len(d.Users), func(i int) fields {
		u := &d.Users[i]
		algorithm := u.Algorithm
		if algorithm == "" {
			algorithm = auth.SHA256
		}
		return fields{
			"name": u.Name, "password_hash": auth.EncodeHash(algorithm, u.PasswordHash), "hashing_algorithm": algorithm,
			"tags": texts(u.Tags), "limits": limits(u.Limits),
		}
	})
	all["vhosts"] = f.list(len(d.VHosts), func(i int) fields {
		v := &d.VHosts[i]
		return fields{"name": v.Name, "limits": limits(v.Limits), "metadata": metadata(v), "tracing": v.Tracing}
	})
	all["permissions"] = f.list(len(d.Permissions), func(i int) fields {
		p := &d.Permissions[i]
		return fields{"user": p.User, "vhost": p.VHost, "configure": p.Configure.String(), "write": p.Write.String(), "read": p.Read.String()}
	})
	all["topic_permissions"] = f.list(len(d.TopicPermissions), func(i int) fields {
		p := &d.TopicPermissions[i]
		return fields{"user": p.User, "vhost": p.VHost, "exchange": p.Exchange, "write": p.Write, "read": p.Read}
	})
	all["global_parameters"] = f.list(len(d.GlobalParameters), func(i int) fields {
		return fields{"name": d.GlobalParameters[i].Name, "value": d.GlobalParameters[i].Value}
	})
}

// list makes n objects, without their vhost in a file of one.
func (f *writer) list(n int, at func(i int) fields) []fields {
	list := make([]fields, n)
	for i := range list {
		list[i] = at(i)
		if f.vhost != "" {
			delete(list[i], "vhost")
		}
	}
	return list
}

func limits(list []Limit) fields {
	all := fields{}
	for _, l := range list {
		all[l.Name] = l.Value
	}
	return all
}

func metadata(v *VHost) fields {
	m := fields{"description": v.Description, "tags": texts(v.Tags)}
	if v.DefaultQueueType != "" {
		m["default_queue_type"] = v.DefaultQueueType
	}
	return m
}

func texts(list []string) []string {
	if list == nil {
		return []string{} // not null
	}
	return list
}

// jsonObject turns a table into an object, as far as JSON can hold it.
func jsonObject(t amqp.Table) fields {
	all := fields{}
	for _, f := range t {
		all[strings.ToValidUTF8(f.Name, "\ufffd")] = plain(f.Value)
	}
	return all
}

func plain(v amqp.Value) any {
	if n, ok := v.Int(); ok {
		return n
	}
	switch v.Kind() {
	case amqp.KindBool:
		b, _ := v.Bool()
		return b
	case amqp.KindFloat, amqp.KindDouble:
		f, _ := v.Float()
		return number(f)
	case amqp.KindDecimal:
		scale, n, _ := v.Decimal()
		return json.Number(strconv.FormatUint(uint64(n), 10) + "e-" + strconv.Itoa(int(scale)))
	case amqp.KindTimestamp:
		n, _ := v.Timestamp()
		return n
	case amqp.KindString, amqp.KindBinary:
		return strings.ToValidUTF8(v.Text(), "\ufffd")
	case amqp.KindTable:
		return jsonObject(v.Table())
	case amqp.KindArray:
		list := []any{}
		for _, e := range v.Array() {
			list = append(list, plain(e))
		}
		return list
	}
	return nil
}

// number writes a float so that it is read as one. Infinities and NaN, which JSON does not have,
// become null.
func number(f float64) any {
	if f-f != 0 {
		return nil
	}
	s := strconv.FormatFloat(f, 'g', -1, 64)
	if !strings.ContainsAny(s, ".e") {
		s += ".0"
	}
	return json.Number(s)
}
